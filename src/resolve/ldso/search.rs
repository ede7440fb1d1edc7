//! Where a loader looks for one library, in its order, and the error for one that is nowhere.

use std::cell::RefCell;
use std::fmt::{self, Write};

use super::conf::ConfDirectory;
use super::loader::{CACHE, OpenError, Opened};
use super::objects::{Loaded, Objects};
use super::system::{self, Family};
use super::tokens;
use crate::base::HostPath;
use crate::resolve::lookup_error::LookupError;
use crate::{Error, Result};

/// Why there is no library.
pub(super) enum NotFound {
    /// The loader does not find it, or cannot use it. Without an optional one it goes on.
    ByLoader(Error),
    /// It could not be looked for.
    Unknown(Error),
}

/// Finds `name` for the object at `index`.
pub(super) fn find(objects: &Objects<'_>, index: usize, name: &[u8]) -> Result<Opened, NotFound> {
    let search = LibrarySearch {
        objects,
        index,
        name,
        searched: RefCell::default(),
        skipped: RefCell::default(),
    };
    let found = match objects.process.family {
        _ if name.contains(&b'/') => search.try_file(name)?,
        Family::Glibc => search.glibc()?,
        Family::Musl => search.musl()?,
    };
    found.ok_or_else(|| NotFound::ByLoader(search.not_found()))
}

/// One search, with what its error needs.
struct LibrarySearch<'a> {
    objects: &'a Objects<'a>,
    index: usize,
    name: &'a [u8],
    /// Where it was not, in order.
    searched: RefCell<Vec<String>>,
    /// Files of that name that were passed over, each as a hint.
    skipped: RefCell<Vec<String>>,
}

impl LibrarySearch<'_> {
    fn loaded(&self) -> &Loaded {
        &self.objects.list[self.index]
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(self.name).into_owned()
    }

    /// `_dl_map_object` in glibc's `elf/dl-load.c`.
    fn glibc(&self) -> Result<Option<Opened>, NotFound> {
        if self.loaded().object.runpath.is_none() {
            for loaded in self.objects.chain(self.index) {
                let path = loaded.object.rpath.as_deref();
                if let Some(found) = self.try_search_path("RPATH", path, loaded)? {
                    return Ok(Some(found));
                }
            }
        }
        let runpath = self.loaded().object.runpath.as_deref();
        if let Some(found) = self.try_search_path("RUNPATH", runpath, self.loaded())? {
            return Ok(Some(found));
        }
        if let Some(found) = self.try_cache()? {
            return Ok(Some(found));
        }
        if self.loaded().object.no_default_directories {
            return Ok(None);
        }
        self.try_directories(&self.objects.process.default_directories)
    }

    /// `load_library` in musl's `ldso/dynlink.c`: `RPATH` and `RUNPATH` alike, both inherited.
    fn musl(&self) -> Result<Option<Opened>, NotFound> {
        for loaded in self.objects.chain(self.index) {
            let path = loaded
                .object
                .runpath
                .as_deref()
                .or(loaded.object.rpath.as_deref());
            let Some(path) = path.and_then(|text| tokens::expand_musl(text, &loaded.origin)) else {
                continue;
            };
            let directories: Vec<_> = split(&path)
                .filter(|d| !d.is_empty())
                .map(<[u8]>::to_vec)
                .collect();
            if let Some(found) = self.try_directories(&directories)? {
                return Ok(Some(found));
            }
        }
        self.try_directories(&self.objects.process.default_directories)
    }

    fn try_search_path(
        &self,
        kind: &str,
        text: Option<&[u8]>,
        of: &Loaded,
    ) -> Result<Option<Opened>, NotFound> {
        let Some(text) = text else { return Ok(None) };
        let count = self.searched.borrow().len();
        let mut found = None;
        for part in split(text) {
            found = self.try_directories(&[self.objects.expand(part, of)])?;
            if found.is_some() {
                self.objects.note_origin(part, of);
                break;
            }
        }
        for place in self.searched.borrow_mut().iter_mut().skip(count) {
            let _ = write!(place, " ({kind} of {})", of.path);
        }
        Ok(found)
    }

    /// The cache's file, unless `DF_1_NODEFLIB` forbids it because it is in a default directory.
    fn try_cache(&self) -> Result<Option<Opened>, NotFound> {
        let process = self.objects.process;
        let Some(cache) = &self.objects.loader.state.cache else {
            return Ok(None);
        };
        self.searched.borrow_mut().push(CACHE.to_owned());
        let flags = system::cache_flags(process.abi);
        let Some(path) = cache.find(self.name, flags, &process.hwcaps) else {
            return Ok(None);
        };
        let is_default = process.default_directories.iter().any(|directory| {
            path.strip_prefix(&directory[..])
                .is_some_and(|rest| rest.starts_with(b"/"))
        });
        if self.loaded().object.no_default_directories && is_default {
            return Ok(None);
        }
        self.try_file(path)
    }

    fn try_directories(&self, directories: &[Vec<u8>]) -> Result<Option<Opened>, NotFound> {
        for directory in directories {
            let shown = String::from_utf8_lossy(directory);
            if directory.first() != Some(&b'/') {
                let place =
                    format!("`{shown}` (relative to a working directory that is not known)");
                self.searched.borrow_mut().push(place);
                continue;
            }
            for subdirectory in &self.objects.process.hwcaps {
                let file = [
                    directory,
                    &b"/glibc-hwcaps/"[..],
                    subdirectory.as_bytes(),
                    b"/",
                    self.name,
                ]
                .concat();
                if let Some(found) = self.try_file(&file)? {
                    return Ok(Some(found));
                }
            }
            if let Some(found) = self.try_file(&[directory, &b"/"[..], self.name].concat())? {
                return Ok(Some(found));
            }
            self.searched.borrow_mut().push(shown.into_owned());
        }
        Ok(None)
    }

    /// `open_verify`: a file that is missing or for another machine is passed over, a broken one is
    /// fatal.
    fn try_file(&self, text: &[u8]) -> Result<Option<Opened>, NotFound> {
        self.objects.count_lookup().map_err(NotFound::Unknown)?;
        let loader = self.objects.loader;
        let path = loader
            .absolute(text)
            .map_err(|reason| self.unknown(&reason))?;
        let Some(path) = path else { return Ok(None) };

        match loader.open(&path) {
            Ok(opened) => self.fits(&path, opened),
            Err(OpenError::Lookup(reason)) if reason.errno() == libc::EISDIR => {
                Err(self.broken(&path, reason))
            }
            Err(OpenError::Lookup(reason)) if reason.is_unknown() => Err(self.unknown(&reason)),
            Err(OpenError::Lookup(reason)) => {
                if !reason.is_missing() {
                    self.skipped.borrow_mut().push(reason.to_string());
                }
                Ok(None)
            }
            Err(OpenError::Elf(reason)) => Err(self.broken(&path, reason)),
        }
    }

    /// The opened file, if the process can load it.
    fn fits(&self, path: &HostPath, opened: Opened) -> Result<Option<Opened>, NotFound> {
        let process = self.objects.process;
        let (have, want) = (opened.object.abi, process.abi);
        if !have.fits(want) {
            if process.family == Family::Musl {
                return Err(self.broken(path, format!("it is for {have}")));
            }
            let hint = format!("{path} is for {have}; install {} for {want}", self.shown());
            self.skipped.borrow_mut().push(hint);
            return Ok(None);
        }
        if have.big_endian != want.big_endian {
            return Err(self.broken(path, "its byte order is another machine's"));
        }
        if opened.object.program {
            return Err(self.broken(path, "it is a program, not a shared library"));
        }
        Ok(Some(opened))
    }

    fn unknown(&self, reason: &LookupError) -> NotFound {
        let message = format!("cannot look for the library {}", self.chain());
        NotFound::Unknown(reason.error(message))
    }

    fn broken(&self, path: &HostPath, reason: impl fmt::Display) -> NotFound {
        let error = Error::failed(format!("cannot use {path} as the library {}", self.chain()))
            .because_of(reason)
            .hint("the dynamic loader stops at it too; repair the file or remove it");
        NotFound::ByLoader(error)
    }

    /// `libfoo.so.1, needed by /usr/lib/libbar.so, needed by /usr/bin/prog,`
    fn chain(&self) -> String {
        let mut text = self.shown();
        for loaded in self.objects.chain(self.index) {
            let _ = write!(text, ", needed by {}", loaded.path);
        }
        text
    }

    fn not_found(&self) -> Error {
        let message = match self.name {
            [b'/', ..] => format!("library {}, does not exist for this machine", self.chain()),
            name if name.contains(&b'/') => {
                let chain = self.chain();
                format!(
                    "library {chain}, is a path relative to a working directory that is not known"
                )
            }
            _ => {
                format!(
                    "library {}, was not found in: {}",
                    self.chain(),
                    self.searched.borrow().join(", ")
                )
            }
        };
        Error::failed(message).hint(self.not_found_hint())
    }

    fn not_found_hint(&self) -> String {
        let name = self.shown();
        if let Some(ConfDirectory { path, named_in }) = self.only_in_configuration() {
            return format!(
                "{path}, which {named_in} names, has it, but {CACHE} does not: run `ldconfig`"
            );
        }
        if let Some(hint) = self.skipped.borrow().first() {
            return hint.clone();
        }
        if self.name.contains(&b'/') {
            return "link it anew with `-l` and a soname: the loader looks for a name with a slash \
                    in the working directory alone, which is / for most daemons in a jail"
                .to_owned();
        }
        format!(
            "install the package that has {name} \
             (`apt-file search {name}`, `dnf provides '*/{name}'`)"
        )
    }

    /// The directory from which ldconfig would take the library, were it run.
    fn only_in_configuration(&self) -> Option<&ConfDirectory> {
        let is_glibc = self.objects.process.family == Family::Glibc;
        if !is_glibc || self.name.contains(&b'/') {
            return None;
        }
        let mut directories = self.objects.loader.state.conf.directories.iter();
        directories.find(|directory| self.is_usable_in(&directory.path))
    }

    fn is_usable_in(&self, directory: &HostPath) -> bool {
        let loader = self.objects.loader;
        let text = [directory.to_string().as_bytes(), b"/", self.name].concat();
        let Ok(Some(path)) = loader.absolute(&text) else {
            return false;
        };
        loader
            .open(&path)
            .is_ok_and(|opened| opened.object.abi.fits(self.objects.process.abi))
    }
}

/// A search path's directories; to glibc an empty one is the working directory.
fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b':')
}

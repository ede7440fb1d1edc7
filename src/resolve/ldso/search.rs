//! Where a loader looks for one library, in its order, and what to say when it is nowhere.

use std::cell::RefCell;
use std::fmt::Write;

use super::elf::BadElf;
use super::load::{Load, Loaded};
use super::system::{self, Family};
use super::{Opened, Refused, tokens};
use crate::base::HostPath;
use crate::resolve::LookupError;
use crate::{Error, Result};

/// Why there is no library.
pub(super) enum Missed {
    /// The loader does not find it, or cannot use it: without one that is optional it goes on.
    ByLoader(Error),
    /// It could not be looked for.
    Unknown(Error),
}

/// Finds `name` for the object at `index`.
pub(super) fn find(load: &Load<'_>, index: usize, name: &[u8]) -> Result<Opened, Missed> {
    let search = Search {
        load,
        index,
        name,
        searched: RefCell::default(),
        skipped: RefCell::default(),
    };
    let found = match load.process.family {
        _ if name.contains(&b'/') => search.try_file(name)?,
        Family::Glibc => search.glibc()?,
        Family::Musl => search.musl()?,
    };
    found.ok_or_else(|| Missed::ByLoader(search.not_found()))
}

/// One search, with what the error will need.
struct Search<'a> {
    load: &'a Load<'a>,
    index: usize,
    name: &'a [u8],
    /// Places that did not have it, in order.
    searched: RefCell<Vec<String>>,
    /// What has that name and was passed over, each as a hint.
    skipped: RefCell<Vec<String>>,
}

impl Search<'_> {
    fn loaded(&self) -> &Loaded {
        &self.load.objects[self.index]
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(self.name).into_owned()
    }

    /// `_dl_map_object` in glibc's `elf/dl-load.c`.
    fn glibc(&self) -> Result<Option<Opened>, Missed> {
        if self.loaded().object.runpath.is_none() {
            for loaded in self.load.chain(self.index) {
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
        self.try_directories(&self.load.process.default_directories)
    }

    /// `load_library` in musl's `ldso/dynlink.c`: `RPATH` and `RUNPATH` alike, both inherited.
    fn musl(&self) -> Result<Option<Opened>, Missed> {
        for loaded in self.load.chain(self.index) {
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
        self.try_directories(&self.load.process.default_directories)
    }

    fn try_search_path(
        &self,
        kind: &str,
        text: Option<&[u8]>,
        of: &Loaded,
    ) -> Result<Option<Opened>, Missed> {
        let Some(text) = text else { return Ok(None) };
        let directories: Vec<_> = split(text).map(|part| self.load.expand(part, of)).collect();
        let count = self.searched.borrow().len();
        let found = self.try_directories(&directories)?;
        for place in self.searched.borrow_mut().iter_mut().skip(count) {
            let _ = write!(place, " ({kind} of {})", of.path);
        }
        Ok(found)
    }

    /// The cache's file, unless `DF_1_NODEFLIB` forbids it because it is in a default directory.
    fn try_cache(&self) -> Result<Option<Opened>, Missed> {
        let process = self.load.process;
        let Some(cache) = &self.load.loader.state.cache else {
            return Ok(None);
        };
        self.searched.borrow_mut().push(super::CACHE.to_owned());
        let flags = system::cache_flags(process.abi);
        let Some(path) = cache.find(self.name, flags, &process.hwcaps) else {
            return Ok(None);
        };
        let is_default = || {
            let below = |directory: &Vec<u8>| {
                path.strip_prefix(&directory[..])
                    .is_some_and(|rest| rest.starts_with(b"/"))
            };
            process.default_directories.iter().any(below)
        };
        if self.loaded().object.no_default_directories && is_default() {
            return Ok(None);
        }
        self.try_file(path)
    }

    fn try_directories(&self, directories: &[Vec<u8>]) -> Result<Option<Opened>, Missed> {
        for directory in directories {
            let shown = String::from_utf8_lossy(directory);
            if directory.first() != Some(&b'/') {
                let place =
                    format!("`{shown}` (relative to a working directory that is not known)");
                self.searched.borrow_mut().push(place);
                continue;
            }
            for subdirectory in &self.load.process.hwcaps {
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

    /// `open_verify`: what is not there or for another machine is passed over; what is broken is
    /// fatal.
    fn try_file(&self, text: &[u8]) -> Result<Option<Opened>, Missed> {
        self.load.work(1).map_err(Missed::Unknown)?;
        let unknown = |reason: &LookupError| {
            Missed::Unknown(reason.error(format!("cannot look for the library {}", self.chain())))
        };
        let path = self
            .load
            .loader
            .absolute(text)
            .map_err(|reason| unknown(&reason))?;
        let Some(path) = path else { return Ok(None) };
        let broken = |reason: &dyn std::fmt::Display| {
            Err(Missed::ByLoader(self.broken(&path).because_of(reason)))
        };
        let opened = match self.load.loader.open(&path) {
            Ok(opened) => opened,
            Err(Refused::Lookup(reason)) if reason.errno() == libc::EISDIR => {
                return broken(&reason);
            }
            Err(Refused::Lookup(reason)) if reason.is_unknown() => return Err(unknown(&reason)),
            Err(Refused::Lookup(reason)) => {
                if !reason.is_missing() {
                    self.skipped.borrow_mut().push(reason.to_string());
                }
                return Ok(None);
            }
            Err(Refused::Elf(BadElf::Unreadable(reason))) => {
                return Err(Missed::Unknown(
                    Error::failed(format!(
                        "cannot read {path} as the library {}",
                        self.chain()
                    ))
                    .because_of(reason),
                ));
            }
            Err(Refused::Elf(reason)) => return broken(&reason),
        };
        if !opened.object.abi.fits(self.load.process.abi) {
            if self.load.process.family == Family::Musl {
                return broken(&format!("it is for {}", opened.object.abi));
            }
            let (have, want) = (opened.object.abi, self.load.process.abi);
            let hint = format!("{path} is for {have}; install {} for {want}", self.shown());
            self.skipped.borrow_mut().push(hint);
            return Ok(None);
        }
        if opened.object.abi.big_endian != self.load.process.abi.big_endian {
            return broken(&"its byte order is another machine's");
        }
        if opened.object.program {
            return broken(&"it is a program, not a shared library");
        }
        Ok(Some(opened))
    }

    fn broken(&self, path: &HostPath) -> Error {
        Error::failed(format!("cannot use {path} as the library {}", self.chain()))
            .hint("the dynamic loader stops at it too; repair the file or take it away")
    }

    /// `libfoo.so.1, needed by /usr/lib/libbar.so, needed by /usr/bin/prog,`
    fn chain(&self) -> String {
        let mut text = self.shown();
        for loaded in self.load.chain(self.index) {
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
        if let Some((directory, file)) = self.only_in_configuration() {
            return format!(
                "{directory}, which {file} names, has it, but {} does not: run `ldconfig`",
                super::CACHE
            );
        }
        if let Some(hint) = self.skipped.borrow().first() {
            return hint.clone();
        }
        format!(
            "install the package that has {name} (`apt-file search {name}`, `dnf provides '*/{name}'`)"
        )
    }

    /// A directory that ldconfig would take the library from, were it run.
    fn only_in_configuration(&self) -> Option<&(HostPath, HostPath)> {
        let fits = |directory: &HostPath| {
            let text = [directory.to_string().as_bytes(), b"/", self.name].concat();
            let path = self.load.loader.absolute(&text).ok().flatten()?;
            let opened = self.load.loader.open(&path).ok()?;
            opened.object.abi.fits(self.load.process.abi).then_some(())
        };
        let glibc = self.load.process.family == Family::Glibc && !self.name.contains(&b'/');
        self.load
            .loader
            .state
            .conf
            .directories
            .iter()
            .filter(|_| glibc)
            .find(|(d, _)| fits(d).is_some())
    }
}

/// A search path's directories; to glibc an empty one is the working directory.
fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b':')
}

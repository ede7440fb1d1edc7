//! One program's libraries, breadth first, as the loader maps them.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::elf::NeededName;
use super::loader::{Loader, Opened};
use super::objects::{Loaded, Needed, Objects};
use super::process::ProcessImage;
use super::search::{self, NotFound};
use super::system::{self, Family};
use crate::Result;

/// The most objects in one process; no program comes near, a hostile tree could go on for ever.
const MAX_OBJECTS: usize = 1024;

/// The objects that the loader opens for a program.
#[derive(Default)]
pub(super) struct Libraries {
    /// In the order in which it opens them.
    pub list: Vec<Needed>,
    /// One is found only because the loader knows the program's directory.
    pub origin: bool,
    /// The names of those that it does not find.
    pub missing: Vec<String>,
}

/// What becomes of libraries that are not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum IfNotFound {
    /// They are an error.
    #[default]
    Fail,
    /// They are [missing](Libraries::missing).
    GoOn,
}

/// The libraries of `program`.
pub(super) fn libraries(
    loader: &Loader<'_>,
    process: &ProcessImage,
    program: Opened,
    if_not_found: IfNotFound,
) -> Result<Libraries> {
    let mut load = Load {
        objects: Objects::new(loader, process, program),
        libraries: Libraries::default(),
        if_not_found,
    };
    let mut next = 0;
    while next < load.objects.list.len() {
        if next == MAX_OBJECTS {
            let libraries = format!("{MAX_OBJECTS} libraries");
            return Err(load.objects.too_many(&libraries));
        }
        let object = Arc::clone(&load.objects.list[next].object);
        load.objects.count_text(&object)?;
        for need in &object.needs {
            load.need(next, need)?;
        }
        next += 1;
    }
    Ok(Libraries {
        origin: load.objects.used_origin.get(),
        ..load.libraries
    })
}

/// A program whose libraries are being loaded.
struct Load<'a> {
    objects: Objects<'a>,
    libraries: Libraries,
    if_not_found: IfNotFound,
}

impl Load<'_> {
    /// The object at `index` needs a library.
    fn need(&mut self, index: usize, need: &NeededName) -> Result<()> {
        self.objects.count_lookup()?;
        let name = match self.objects.process.family {
            Family::Glibc => {
                let loaded = &self.objects.list[index];
                self.objects.note_origin(&need.name, loaded);
                self.objects.expand(&need.name, loaded)
            }
            Family::Musl => need.name.clone(),
        };
        if self.is_loaded(&name) {
            return Ok(());
        }
        match search::find(&self.objects, index, &name) {
            Ok(opened) => self.add(index, opened, name),
            Err(NotFound::ByLoader(_)) if need.optional => {}
            Err(NotFound::ByLoader(_)) if self.if_not_found == IfNotFound::GoOn => {
                let name = String::from_utf8_lossy(&name).into_owned();
                if !self.libraries.missing.contains(&name) {
                    self.libraries.missing.push(name);
                }
            }
            Err(NotFound::ByLoader(error) | NotFound::Unknown(error)) => return Err(error),
        }
        Ok(())
    }

    fn is_loaded(&self, name: &[u8]) -> bool {
        if system::is_loader_name(name) || self.is_interpreter(name) {
            return true;
        }
        let family = self.objects.process.family;
        if family == Family::Musl && is_musl_itself(name) {
            return true;
        }
        for loaded in &self.objects.list {
            let by_soname =
                family == Family::Glibc && loaded.object.soname.as_deref() == Some(name);
            if by_soname || loaded.names.iter().any(|known| known == name) {
                return true;
            }
        }
        false
    }

    fn is_interpreter(&self, name: &[u8]) -> bool {
        match &self.objects.process.interpreter {
            Some(path) => path.as_path().as_os_str().as_bytes() == name,
            None => false,
        }
    }

    /// Adds an opened file. The same file under another name is not loaded again, but the jail must
    /// have the other name too.
    fn add(&mut self, index: usize, opened: Opened, name: Vec<u8>) {
        let by = &self.objects.list[index].path;
        let mut known = self.libraries.list.iter();
        let is_new = known.all(|known| known.path != opened.path);
        if is_new && *by != opened.path {
            self.libraries.list.push(Needed {
                path: opened.path.clone(),
                name: String::from_utf8_lossy(&name).into_owned(),
                needed_by: by.clone(),
            });
        }

        let mut loaded = self.objects.list.iter_mut();
        if let Some(same) = loaded.find(|loaded| loaded.file == opened.file) {
            same.names.push(name);
        } else {
            let library = Loaded::library(opened, index, name);
            self.objects.list.push(library);
        }
    }
}

/// musl's libc is its loader; `load_library` in `ldso/dynlink.c` takes all these names to mean
/// itself.
fn is_musl_itself(name: &[u8]) -> bool {
    const PARTS: [&str; 7] = ["c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet."];
    match name.strip_prefix(b"lib") {
        Some(rest) => PARTS.iter().any(|part| rest.starts_with(part.as_bytes())),
        None => false,
    }
}

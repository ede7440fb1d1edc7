//! One program's libraries, breadth first, as the loader maps them.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::elf::{Need, Object};
use super::process::Process;
use super::search;
use super::system::{self, Family};
use super::tokens::{self, Tokens};
use super::{Loader, Needed, Opened};
use crate::manifest::HostPath;
use crate::sys::FileId;
use crate::{Error, Result};

/// The most objects in one process; no program comes near, a hostile tree could go on for ever.
const MAX_OBJECTS: usize = 4096;

/// The libraries of `root` in the order that the loader opens them.
pub(super) fn libraries(loader: &Loader<'_>, process: &Process, root: Opened) -> Result<Vec<Needed>> {
    let mut load = Load { loader, process, objects: vec![Loaded::root(root)], libraries: Vec::new() };
    let mut next = 0;
    while next < load.objects.len() {
        if next == MAX_OBJECTS {
            let program = &load.objects[0].path;
            return Err(Error::failed(format!("{program} needs more than {MAX_OBJECTS} libraries")));
        }
        let object = load.objects[next].object.clone();
        for need in &object.needs {
            load.need(next, need)?;
        }
        next += 1;
    }
    Ok(load.libraries)
}

/// The state of one loading.
pub(super) struct Load<'a> {
    pub loader: &'a Loader<'a>,
    pub process: &'a Process,
    pub objects: Vec<Loaded>,
    libraries: Vec<Needed>,
}

/// One object in the process.
pub(super) struct Loaded {
    /// The name it was opened by.
    pub path: HostPath,
    /// What `$ORIGIN` means for it.
    pub origin: Vec<u8>,
    pub object: Arc<Object>,
    /// The object that asked for it first, by index; `None` for the root.
    pub by: Option<usize>,
    file: FileId,
    /// The names it was asked for by.
    names: Vec<Vec<u8>>,
}

impl Loaded {
    /// The kernel tells a program its real directory (`/proc/self/exe`); a library is where it was opened.
    fn root(opened: Opened) -> Self {
        let program = opened.object.program || opened.object.interpreter.is_some();
        let place = if program { &opened.real } else { &opened.path };
        let origin = directory(place);
        Self::new(opened, origin, None, Vec::new())
    }

    fn new(opened: Opened, origin: Vec<u8>, by: Option<usize>, names: Vec<Vec<u8>>) -> Self {
        Self { path: opened.path, origin, object: opened.object, by, file: opened.file, names }
    }
}

fn directory(path: &HostPath) -> Vec<u8> {
    let parent = path.as_path().parent().unwrap_or(Path::new("/"));
    parent.as_os_str().as_bytes().to_vec()
}

impl Load<'_> {
    /// From the object at `index` to the root.
    pub fn chain(&self, index: usize) -> impl Iterator<Item = &Loaded> {
        std::iter::successors(self.objects.get(index), |loaded| self.objects.get(loaded.by?))
    }

    /// glibc's tokens for one object.
    pub fn expand(&self, text: &[u8], loaded: &Loaded) -> Vec<u8> {
        let tokens = Tokens {
            origin: &loaded.origin,
            lib: self.process.lib.as_bytes(),
            platform: system::platform_token(self.process.abi).as_bytes(),
        };
        tokens::expand(text, tokens)
    }

    fn need(&mut self, index: usize, need: &Need) -> Result<()> {
        let name = match self.process.family {
            Family::Glibc => self.expand(&need.name, &self.objects[index]),
            Family::Musl => need.name.clone(),
        };
        if self.is_loaded(&name) {
            return Ok(());
        }
        match search::find(self, index, &name) {
            Ok(opened) => self.add(index, opened, name),
            Err(_) if need.optional => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn is_loaded(&self, name: &[u8]) -> bool {
        let is_interpreter = || {
            let path = self.process.interpreter.as_ref().map(|path| path.as_path().as_os_str().as_bytes());
            system::is_loader_name(name) || path == Some(name)
        };
        let known = |loaded: &Loaded| loaded.names.iter().any(|known| known == name);
        match self.process.family {
            Family::Glibc => {
                let soname = |loaded: &Loaded| loaded.object.soname.as_deref() == Some(name);
                is_interpreter() || self.objects.iter().any(|loaded| known(loaded) || soname(loaded))
            }
            Family::Musl => is_interpreter() || is_musl_itself(name) || self.objects.iter().any(known),
        }
    }

    /// Takes an opened file in. The same file by another name is not loaded again, but the jail must have
    /// the other name too.
    fn add(&mut self, index: usize, opened: Opened, name: Vec<u8>) {
        let by = &self.objects[index].path;
        if self.libraries.iter().all(|known| known.path != opened.path) && *by != opened.path {
            self.libraries.push(Needed {
                path: opened.path.clone(),
                name: String::from_utf8_lossy(&name).into_owned(),
                needed_by: by.clone(),
            });
        }
        if let Some(same) = self.objects.iter_mut().find(|loaded| loaded.file == opened.file) {
            same.names.push(name);
            return;
        }
        let origin = directory(&opened.path);
        self.objects.push(Loaded::new(opened, origin, Some(index), vec![name]));
    }
}

/// musl's libc is its loader; `load_library` in `ldso/dynlink.c` takes all these names for itself.
fn is_musl_itself(name: &[u8]) -> bool {
    let parts = ["c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet."];
    name.strip_prefix(b"lib").is_some_and(|rest| parts.iter().any(|part| rest.starts_with(part.as_bytes())))
}

//! One program's libraries, breadth first, as the loader maps them.

use std::cell::Cell;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::elf::{Need, Object};
use super::process::Process;
use super::search::{self, Missed};
use super::system::{self, Family};
use super::tokens::{self, Tokens};
use super::{Loader, Needed, Opened};
use crate::base::HostPath;
use crate::sys::FileId;
use crate::{Error, Result};

/// The most objects in one process; no program comes near, a hostile tree could go on for ever.
const MAX_OBJECTS: usize = 1024;

/// The most look-ups for one program, its names and search paths counted as well: some hundred
/// libraries, each in some ten directories with their subdirectories for processors, are a third of
/// it.
const MAX_WORK: usize = 32_768;

/// So many bytes of names and paths count as one look-up.
const TEXT_A_LOOKUP: usize = 64;

/// The libraries of `root` in the order that the loader opens them.
pub(super) fn libraries(
    loader: &Loader<'_>,
    process: &Process,
    root: Opened,
) -> Result<Vec<Needed>> {
    let (objects, work) = (vec![Loaded::root(root)], Cell::new(0));
    let mut load = Load {
        loader,
        process,
        objects,
        libraries: Vec::new(),
        work,
    };
    let mut next = 0;
    while next < load.objects.len() {
        if next == MAX_OBJECTS {
            return Err(load.too_much(&format!("{MAX_OBJECTS} libraries")));
        }
        let object = load.objects[next].object.clone();
        load.work(object.text() / TEXT_A_LOOKUP)?;
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
    /// Look-ups so far.
    work: Cell<usize>,
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
    /// The kernel tells a program its real directory (`/proc/self/exe`); a library is where it was
    /// opened.
    fn root(opened: Opened) -> Self {
        let program = opened.object.program || opened.object.interpreter.is_some();
        let place = if program { &opened.real } else { &opened.path };
        let origin = directory(place);
        Self::new(opened, origin, None, Vec::new())
    }

    fn new(opened: Opened, origin: Vec<u8>, by: Option<usize>, names: Vec<Vec<u8>>) -> Self {
        Self {
            path: opened.path,
            origin,
            object: opened.object,
            by,
            file: opened.file,
            names,
        }
    }
}

fn directory(path: &HostPath) -> Vec<u8> {
    let parent = path.as_path().parent().unwrap_or(Path::new("/"));
    parent.as_os_str().as_bytes().to_vec()
}

impl Load<'_> {
    /// From the object at `index` to the root.
    pub fn chain(&self, index: usize) -> impl Iterator<Item = &Loaded> {
        std::iter::successors(self.objects.get(index), |loaded| {
            self.objects.get(loaded.by?)
        })
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

    /// Counts `more` look-ups.
    ///
    /// Errors: they are too many.
    pub fn work(&self, more: usize) -> Result<()> {
        self.work.set(self.work.get().saturating_add(more));
        if self.work.get() > MAX_WORK {
            return Err(self.too_much(&format!("{MAX_WORK} look-ups for its libraries")));
        }
        Ok(())
    }

    fn too_much(&self, what: &str) -> Error {
        let program = &self.objects[0].path;
        Error::failed(format!(
            "{program} needs more than {what}; no ordinary program does"
        ))
        .hint("look what it is; without its line in the manifest the site can do")
    }

    fn need(&mut self, index: usize, need: &Need) -> Result<()> {
        self.work(1)?;
        let name = match self.process.family {
            Family::Glibc => self.expand(&need.name, &self.objects[index]),
            Family::Musl => need.name.clone(),
        };
        if self.is_loaded(&name) {
            return Ok(());
        }
        match search::find(self, index, &name) {
            Ok(opened) => self.add(index, opened, name),
            Err(Missed::ByLoader(_)) if need.optional => {}
            Err(Missed::ByLoader(error) | Missed::Unknown(error)) => return Err(error),
        }
        Ok(())
    }

    fn is_loaded(&self, name: &[u8]) -> bool {
        let is_interpreter = || {
            let path = self
                .process
                .interpreter
                .as_ref()
                .map(|path| path.as_path().as_os_str().as_bytes());
            system::is_loader_name(name) || path == Some(name)
        };
        let known = |loaded: &Loaded| loaded.names.iter().any(|known| known == name);
        match self.process.family {
            Family::Glibc => {
                let soname = |loaded: &Loaded| loaded.object.soname.as_deref() == Some(name);
                is_interpreter()
                    || self
                        .objects
                        .iter()
                        .any(|loaded| known(loaded) || soname(loaded))
            }
            Family::Musl => {
                is_interpreter() || is_musl_itself(name) || self.objects.iter().any(known)
            }
        }
    }

    /// Takes an opened file in. The same file by another name is not loaded again, but the jail
    /// must have the other name too.
    fn add(&mut self, index: usize, opened: Opened, name: Vec<u8>) {
        let by = &self.objects[index].path;
        if self.libraries.iter().all(|known| known.path != opened.path) && *by != opened.path {
            self.libraries.push(Needed {
                path: opened.path.clone(),
                name: String::from_utf8_lossy(&name).into_owned(),
                needed_by: by.clone(),
            });
        }
        if let Some(same) = self
            .objects
            .iter_mut()
            .find(|loaded| loaded.file == opened.file)
        {
            same.names.push(name);
            return;
        }
        let origin = directory(&opened.path);
        self.objects
            .push(Loaded::new(opened, origin, Some(index), vec![name]));
    }
}

/// musl's libc is its loader; `load_library` in `ldso/dynlink.c` takes all these names for itself.
fn is_musl_itself(name: &[u8]) -> bool {
    let parts = ["c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet."];
    name.strip_prefix(b"lib")
        .is_some_and(|rest| parts.iter().any(|part| rest.starts_with(part.as_bytes())))
}

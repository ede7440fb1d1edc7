//! The objects of one process, and the work that was done to find them.

use std::cell::Cell;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::elf::Object;
use super::loader::{Loader, Opened};
use super::process::ProcessImage;
use super::system;
use super::tokens::{self, Tokens};
use crate::base::HostPath;
use crate::sys::FileId;
use crate::{Error, Result};

/// The most look-ups for one program, its names and search paths included: some hundred libraries,
/// each in some ten directories with their subdirectories for processors, are a third of it.
const MAX_LOOKUPS: usize = 32_768;

/// This many bytes of names and paths count as one look-up.
const BYTES_PER_LOOKUP: usize = 64;

/// A shared library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The name that the loader opens; links in it are not resolved.
    pub path: HostPath,
    /// The `DT_NEEDED` text.
    pub name: String,
    /// The object that needs it, by the name by which it was opened.
    pub needed_by: HostPath,
}

/// The objects that are loaded into one process.
pub(super) struct Objects<'a> {
    pub loader: &'a Loader<'a>,
    pub process: &'a ProcessImage,
    /// In the order in which they are loaded; the first is the program.
    pub list: Vec<Loaded>,
    lookups: Cell<usize>,
    /// A library was found by the directory of the program.
    pub used_origin: Cell<bool>,
}

/// One object in the process.
pub(super) struct Loaded {
    /// The name by which it was opened.
    pub path: HostPath,
    /// The value of `$ORIGIN` for it.
    pub origin: Vec<u8>,
    pub object: Arc<Object>,
    /// The object that asked for it first, by index; `None` for the program.
    pub by: Option<usize>,
    pub file: FileId,
    /// The names by which it was asked for.
    pub names: Vec<Vec<u8>>,
}

impl Loaded {
    /// The program itself. The kernel tells it its real directory (`/proc/self/exe`).
    fn program(opened: Opened) -> Self {
        let is_program = opened.object.program || opened.object.interpreter.is_some();
        let path = if is_program {
            &opened.real
        } else {
            &opened.path
        };
        let origin = directory(path);
        Self::new(opened, origin, None, Vec::new())
    }

    /// A library, which is where it was opened.
    pub(super) fn library(opened: Opened, by: usize, name: Vec<u8>) -> Self {
        let origin = directory(&opened.path);
        Self::new(opened, origin, Some(by), vec![name])
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

impl<'a> Objects<'a> {
    pub(super) fn new(loader: &'a Loader<'a>, process: &'a ProcessImage, program: Opened) -> Self {
        Self {
            loader,
            process,
            list: vec![Loaded::program(program)],
            lookups: Cell::new(0),
            used_origin: Cell::new(false),
        }
    }

    /// From the object at `index` to the program.
    pub(super) fn chain(&self, index: usize) -> impl Iterator<Item = &Loaded> {
        std::iter::successors(self.list.get(index), |loaded| self.list.get(loaded.by?))
    }

    /// `text` with glibc's tokens expanded for one object.
    pub(super) fn expand(&self, text: &[u8], loaded: &Loaded) -> Vec<u8> {
        let tokens = Tokens {
            origin: &loaded.origin,
            lib: self.process.lib.as_bytes(),
            platform: system::platform_token(self.process.abi).as_bytes(),
        };
        tokens::expand(text, tokens)
    }

    /// Remembers that a library was found by `text`, a name or a search path of `loaded`.
    pub(super) fn note_origin(&self, text: &[u8], loaded: &Loaded) {
        if loaded.by.is_none() && tokens::has_origin(text) {
            self.used_origin.set(true);
        }
    }

    /// Counts the names and search paths of an object.
    ///
    /// Errors: they are too many.
    pub(super) fn count_text(&self, object: &Object) -> Result<()> {
        self.count(object.text() / BYTES_PER_LOOKUP)
    }

    /// Counts one look-up.
    ///
    /// Errors: they are too many.
    pub(super) fn count_lookup(&self) -> Result<()> {
        self.count(1)
    }

    fn count(&self, more: usize) -> Result<()> {
        self.lookups.set(self.lookups.get().saturating_add(more));
        if self.lookups.get() > MAX_LOOKUPS {
            let lookups = format!("{MAX_LOOKUPS} look-ups for its libraries");
            return Err(self.too_many(&lookups));
        }
        Ok(())
    }

    pub(super) fn too_many(&self, what: &str) -> Error {
        let program = &self.list[0].path;
        Error::failed(format!(
            "{program} needs more than {what}; no ordinary program does"
        ))
        .hint("check what it is, or take its line out of the manifest")
    }
}

//! The dynamic loader's view of a host: its configuration, and the objects that it opens.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::cache::{self, Cache};
use super::conf::Conf;
use super::elf::{BadElf, Object};
use super::loader_file::LoaderFile;
use crate::Result;
use crate::base::sync::lock;
use crate::base::{ErrorContext, HostPath};
use crate::resolve::dependencies::Aspect;
use crate::resolve::host::Host;
use crate::resolve::lookup_error::{LookupError, found};
use crate::resolve::once::Once;
use crate::sys::FileId;

pub(super) const CACHE: &str = "/etc/ld.so.cache";
const CONF: &str = "/etc/ld.so.conf";

/// The dynamic loader's view of a host.
#[derive(Clone)]
pub struct Loader<'h> {
    pub(super) host: &'h Host,
    pub(super) state: Arc<LoaderState>,
}

/// The state that all closures of one run share.
#[derive(Debug, Default)]
pub(in crate::resolve) struct LoaderCache(Once<Arc<LoaderState>>);

/// The loader's configuration, and what was read of objects.
#[derive(Debug)]
pub(super) struct LoaderState {
    pub(super) cache: Option<Cache>,
    pub(super) conf: Conf,
    objects: Mutex<HashMap<HostPath, Result<Arc<Object>, BadElf>>>,
    /// The files of loaders that were read.
    pub(super) loaders: Mutex<HashMap<HostPath, Arc<LoaderFile>>>,
}

impl LoaderState {
    fn read(host: &Host) -> Result<Self, LookupError> {
        // The loader, too, goes on without a cache that is missing or that it does not understand.
        let cache = match found(host.read(&fixed(CACHE)))? {
            Some(bytes) => cache::parse(&bytes).ok(),
            None => None,
        };
        Ok(Self {
            cache,
            conf: Conf::read(host, &fixed(CONF))?,
            objects: Mutex::default(),
            loaders: Mutex::default(),
        })
    }
}

fn fixed(path: &str) -> HostPath {
    HostPath::new(path).unwrap_or_else(|_| HostPath::slash())
}

/// A file as the loader sees it.
#[derive(Clone)]
pub(super) struct Opened {
    pub path: HostPath,
    pub real: HostPath,
    pub file: FileId,
    pub object: Arc<Object>,
}

/// Why a file could not be opened as an object.
pub(in crate::resolve) enum OpenError {
    Lookup(LookupError),
    Elf(BadElf),
}

impl OpenError {
    /// The error for the file `at`. One that the kernel refuses to read is not a bad one.
    pub(in crate::resolve) fn new(bad: BadElf, at: &HostPath) -> Self {
        match bad {
            BadElf::Unreadable(errno) => Self::Lookup(LookupError::unreadable(at, errno)),
            bad => Self::Elf(bad),
        }
    }
}

impl<'h> Loader<'h> {
    /// The loader's view of `host`, whose configuration is read now.
    ///
    /// Errors: it cannot be read.
    pub fn read(host: &'h Host) -> Result<Self> {
        Self::with(host, &LoaderCache::default())
    }

    /// As [`Self::read`], with what is in `cache`.
    pub(in crate::resolve) fn with(host: &'h Host, cache: &LoaderCache) -> Result<Self> {
        let state = cache
            .0
            .get(host, |host| LoaderState::read(host).map(Arc::new))
            .context("cannot read the dynamic loader's configuration")?;
        Ok(Self {
            host,
            state: state.clone(),
        })
    }

    /// Opens and parses `path`; each real file is parsed once a run.
    pub(super) fn open(&self, path: &HostPath) -> Result<Opened, OpenError> {
        let walk = self.host.walk(path).map_err(OpenError::Lookup)?;
        let known = lock(&self.state.objects).get(&walk.real).cloned();
        let object = if let Some(known) = known {
            self.host.note(walk.real.as_path(), Aspect::CONTENTS);
            known
        } else {
            let file = self.host.open(path).map_err(OpenError::Lookup)?;
            let object = Object::read(&file).map(Arc::new);
            let mut objects = lock(&self.state.objects);
            objects.entry(walk.real.clone()).or_insert(object).clone()
        };
        let object = object.map_err(|bad| OpenError::new(bad, &walk.real))?;
        Ok(Opened {
            path: path.clone(),
            real: walk.real,
            file: walk.stat.file,
            object,
        })
    }

    /// `text` as a path without `..`. The path before a `..` is walked, because the kernel goes up
    /// from where a link leads. `None`: the path is relative, or leads nowhere.
    pub(super) fn absolute(&self, text: &[u8]) -> Result<Option<HostPath>, LookupError> {
        let text = Path::new(OsStr::from_bytes(text));
        if !text.is_absolute() {
            return Ok(None);
        }
        let mut path = PathBuf::from("/");
        for component in text.components() {
            match component {
                Component::ParentDir => {
                    let Ok(below) = HostPath::new(&path) else {
                        return Ok(None);
                    };
                    let Some(walk) = found(self.host.walk(&below))? else {
                        return Ok(None);
                    };
                    path = walk.real.parent().unwrap_or(walk.real).as_path().into();
                }
                other => path.push(other),
            }
        }
        Ok(HostPath::new(path).ok())
    }
}

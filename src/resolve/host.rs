//! The host's file system, read only, as one run sees it.
//!
//! Each name is looked up once and then remembered, so a run sees one state of the host. A base
//! prefix puts a made tree in the host's place: every absolute path and every absolute link is then
//! taken from the base, and `..` stops there. Lookups are recorded as dependencies if the host is
//! tracked. Nothing here writes, mounts or executes.
//!
//! This file has names, in directories without links on the way. The files above it add the rest:
//! `walk` follows links, `files` reads files and directories, `ownership` tells who can change what
//! a path leads to.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::fcntl::AT_FDCWD;
use nix::sys::statvfs::fstatvfs;

use super::dependencies::{Aspect, Dependencies};
use super::lookup_error::{LookupError, found};
use super::others::Others;
use crate::base::sync::{into_inner, lock};
use crate::base::{HostPath, MountAttributes};
use crate::sys::{self, Stat};

/// The file system of this host, or of a made tree.
pub struct Host {
    cache: Arc<HostCache>,
    /// The paths that were looked up through this value; `None`: it is not tracked.
    dependencies: Option<Mutex<Dependencies>>,
}

/// The knowledge of the host that all scopes share.
struct HostCache {
    base: PathBuf,
    /// By the text of their paths, which have one form.
    nodes: Mutex<HashMap<OsString, Result<HostEntry, i32>>>,
    /// The restrictions of mounts, by their IDs.
    mounts: Mutex<HashMap<u64, MountAttributes>>,
    /// Directories whose paths have no links, and who besides root controls their names, if
    /// that was asked for.
    directories: Mutex<HashMap<OsString, Option<Vec<Others>>>>,
}

/// The kind of one name, no link followed.
#[derive(Clone)]
pub(super) struct HostEntry {
    pub stat: Stat,
    /// The destination of a symbolic link.
    pub link: Option<PathBuf>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// This host.
    pub fn new() -> Self {
        Self::at("/")
    }

    /// The tree below `base` as if it were a whole host.
    pub fn at(base: impl Into<PathBuf>) -> Self {
        let cache = HostCache {
            base: base.into(),
            nodes: Mutex::default(),
            mounts: Mutex::default(),
            directories: Mutex::default(),
        };
        Self {
            cache: Arc::new(cache),
            dependencies: None,
        }
    }

    /// The same host, whose lookups are recorded.
    #[must_use]
    pub fn tracked(mut self) -> Self {
        self.dependencies = Some(Mutex::default());
        self
    }

    /// The same host, with all that is known of it, whose lookups are recorded separately.
    #[must_use]
    pub(crate) fn scope(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            dependencies: self.dependencies.as_ref().map(|_| Mutex::default()),
        }
    }

    /// The paths that were looked up through this value; empty unless it is tracked.
    pub(crate) fn into_dependencies(self) -> Dependencies {
        match self.dependencies {
            Some(dependencies) => into_inner(dependencies),
            None => Dependencies::default(),
        }
    }

    /// Records that `real`, whose directory has no links on the way, was looked up.
    pub(super) fn note(&self, real: &Path, aspect: Aspect) {
        if let Some(dependencies) = &self.dependencies {
            lock(dependencies).add(real, aspect);
        }
    }

    /// Records lookups whose result is used again.
    pub(super) fn note_all(&self, others: &Dependencies) {
        if let Some(dependencies) = &self.dependencies {
            lock(dependencies).add_all(others);
        }
    }

    /// Whether it is known that `directory` is one, with no link on the way. Nothing is known of a
    /// tracked host, so that each lookup is recorded.
    pub(super) fn is_plain(&self, directory: &HostPath) -> bool {
        self.dependencies.is_none()
            && lock(&self.cache.directories).contains_key(directory.as_path().as_os_str())
    }

    /// Remembers that there is no link on the way to `directory`.
    pub(super) fn remember_plain(&self, directory: &HostPath) {
        let name = directory.as_path().as_os_str();
        lock(&self.cache.directories)
            .entry(name.into())
            .or_default();
    }

    /// Who besides root controls the name of `directory`, if that is known.
    pub(super) fn known_others(&self, directory: &HostPath) -> Option<Vec<Others>> {
        if self.dependencies.is_some() {
            return None;
        }
        let name = directory.as_path().as_os_str();
        lock(&self.cache.directories).get(name)?.clone()
    }

    /// Remembers who besides root controls the name of `directory`, whose path has no links.
    pub(super) fn remember_others(&self, directory: &HostPath, others: &[Others]) {
        let name = directory.as_path().as_os_str();
        lock(&self.cache.directories).insert(name.into(), Some(others.to_vec()));
    }

    /// Whether this is the host that the program runs on, not a made tree.
    pub(super) fn is_real(&self) -> bool {
        self.cache.base == Path::new("/")
    }

    /// Where a path without links is on the disk: below the base.
    pub(super) fn on_disk(&self, real: &Path) -> PathBuf {
        self.cache.base.join(real.strip_prefix("/").unwrap_or(real))
    }

    /// The file `real`, whose path has no links; a link itself is not followed.
    pub(super) fn node(&self, real: &Path) -> Result<HostEntry, i32> {
        self.note(real, Aspect::NAME);
        if let Some(known) = lock(&self.cache.nodes).get(real.as_os_str()) {
            return known.clone();
        }
        let node = look(&self.on_disk(real)).map_err(|error| errno_of(&error));

        let mut nodes = lock(&self.cache.nodes);
        nodes.entry(real.into()).or_insert(node).clone()
    }

    /// As [`Host::node`], with the error of a lookup.
    pub(super) fn entry(&self, real: &HostPath) -> Result<HostEntry, LookupError> {
        self.node(real.as_path())
            .map_err(|errno| LookupError::unreadable(real, errno))
    }

    /// The file at `path` at this moment, not one that was found before; a last link is not
    /// followed. `None`: nothing.
    ///
    /// Errors: it is unknown.
    pub(super) fn now(&self, path: &HostPath) -> Result<Option<HostEntry>, LookupError> {
        self.note(path.as_path(), Aspect::NAME);
        seen(path, look(&self.on_disk(path.as_path())))
    }

    /// As [`Host::now`], for paths that a site's owner may change at will: no link on the way is
    /// followed, and nothing is recorded.
    pub(super) fn glimpse(&self, path: &HostPath) -> Result<Option<HostEntry>, LookupError> {
        seen(path, look_beneath(&self.cache.base, path.as_path()))
    }

    /// The restrictions of the mount on which `real` lies, where `stat` was found. Whether it is
    /// read-only does not count.
    pub(super) fn mount_attributes(
        &self,
        real: &HostPath,
        stat: &Stat,
    ) -> Result<MountAttributes, LookupError> {
        let attributes = match self.known_attributes(stat) {
            Some(attributes) => attributes,
            None => attributes_at(&self.on_disk(real.as_path()), stat)
                .map_err(|error| unreadable(real, &error))?,
        };

        if let Some(id) = stat.mount_id {
            lock(&self.cache.mounts).insert(id, attributes);
            if let Some(dependencies) = &self.dependencies
                && stat.mount_id_is_unique
            {
                lock(dependencies).add_mount(id, attributes);
            }
        }
        Ok(attributes)
    }

    /// The mount point of the mount that the file at `path` lies on, if nothing can be executed
    /// there.
    pub(crate) fn without_execution(&self, path: &HostPath) -> Option<HostPath> {
        let walk = self.walk(path).ok()?;
        let attributes = self.mount_attributes(&walk.real, &walk.stat).ok()?;
        attributes.noexec.then(|| self.mount_point(&walk.real))
    }

    fn known_attributes(&self, stat: &Stat) -> Option<MountAttributes> {
        lock(&self.cache.mounts).get(&stat.mount_id?).copied()
    }

    /// The mount point of the mount that `real` lies on.
    pub(super) fn mount_point(&self, real: &HostPath) -> HostPath {
        let mut point = real.clone();
        while let Some(directory) = point.parent() {
            let (Ok(on), Ok(above)) = (self.node(point.as_path()), self.node(directory.as_path()))
            else {
                break;
            };
            if !on.stat.is_on_mount_of(&above.stat) {
                break;
            }
            point = directory;
        }
        point
    }
}

/// The file at `path`.
pub(super) fn look(path: &Path) -> io::Result<HostEntry> {
    let (stat, link) = sys::entry_at(AT_FDCWD, path)?;
    Ok(HostEntry { stat, link })
}

/// As [`look`], for `path` below `base`, with no link on the way.
fn look_beneath(base: &Path, path: &Path) -> io::Result<HostEntry> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let base = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(base)?;
    let inside = path.strip_prefix("/").unwrap_or(path);
    let (Some(directory), Some(name)) = (inside.parent(), inside.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let directory = sys::open_beneath(&base, directory, flags)?;

    let (stat, link) = sys::entry_at(&directory, Path::new(name))?;
    Ok(HostEntry { stat, link })
}

/// The file that was seen at `path`; `None`: nothing is there.
pub(super) fn seen(
    path: &HostPath,
    looked: io::Result<HostEntry>,
) -> Result<Option<HostEntry>, LookupError> {
    found(looked.map_err(|error| unreadable(path, &error)))
}

/// The kernel refused to tell what `at` is.
pub(super) fn unreadable(at: &HostPath, error: &io::Error) -> LookupError {
    LookupError::unreadable(at, errno_of(error))
}

/// The restrictions of the mount on which the file at `path` lies, if that still is the file of
/// `stat`.
fn attributes_at(path: &Path, stat: &Stat) -> io::Result<MountAttributes> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    let found = sys::stat_fd(&file)?;
    if (found.file, found.mount_id) != (stat.file, stat.mount_id) {
        return Err(io::Error::from_raw_os_error(libc::ESTALE)); // it was replaced meanwhile
    }
    let attributes = MountAttributes::from_statfs(fstatvfs(&file)?.flags());
    Ok(MountAttributes::OPEN.within(attributes))
}

pub(super) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

//! Where a directory is, whatever path leads to it. Bind mounts give one directory many paths.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::desired::FileId;
use crate::base::HostPath;
use crate::base::sync::lock;
use crate::sys::{self, StatMount};

/// A directory.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub id: FileId,
    /// Where it is, innermost first: in its own file system, where that one is mounted in another,
    /// and so on. Empty before Linux 6.8.
    pub levels: Vec<Level>,
    /// The directories above it on the path by which it was found, if there are no levels.
    pub above: Vec<FileId>,
}

impl Place {
    /// Whether it is in `other`, at whatever depth.
    pub(super) fn is_below(&self, other: &Self) -> bool {
        if self.above.contains(&other.id) {
            return true;
        }
        match (self.levels.first(), other.levels.first()) {
            (Some(level), Some(above)) => level.is_in(above),
            _ => false,
        }
    }
}

/// A path within a file system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level {
    pub file_system: u64,
    pub path: HostPath,
}

/// The mounts that were looked up, by their unique mount IDs.
#[derive(Debug, Default)]
pub(super) struct MountCache(Mutex<HashMap<u64, Option<StatMount>>>);

impl MountCache {
    /// The directory `path`, whose path has no links. The kernel answers from what it knows,
    /// without asking a file server.
    ///
    /// Errors: as open(2); ELOOP: there is a link.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let directory = File::from(sys::open_host(
            path,
            libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW,
        )?);
        let stat = sys::stat_fd_unsynced(&directory)?;
        let levels = match stat.mount_id {
            Some(id) if stat.mount_id_is_unique => self.levels(id, path.to_owned()),
            _ => vec![],
        };
        let above = if levels.is_empty() {
            above(directory)?
        } else {
            vec![]
        };

        Ok(Place {
            id: stat.file,
            levels,
            above,
        })
    }

    /// Where `at` is, which lies on the mount `id`.
    fn levels(&self, mut id: u64, mut at: PathBuf) -> Vec<Level> {
        let mut levels = vec![];
        while let Some(mount) = self.mount(id) {
            let Ok(below) = at.strip_prefix(&mount.point) else {
                break;
            };
            let Ok(path) = HostPath::new(mount.root.join(below)) else {
                break;
            };
            levels.push(Level {
                file_system: mount.device,
                path,
            });
            if mount.parent == id || mount.point == Path::new("/") {
                break;
            }
            (id, at) = (mount.parent, mount.point);
        }
        levels
    }

    fn mount(&self, id: u64) -> Option<StatMount> {
        let mut known = lock(&self.0);
        known
            .entry(id)
            .or_insert_with(|| sys::stat_mount(id).ok())
            .clone()
    }
}

impl Level {
    /// Itself and all above it in its file system.
    pub(super) fn at_or_above(&self) -> impl Iterator<Item = Self> {
        self.path.ancestors().map(|path| Self {
            file_system: self.file_system,
            path,
        })
    }

    /// Whether it is `other` or in it.
    pub(super) fn is_in(&self, other: &Self) -> bool {
        self.file_system == other.file_system && self.path.starts_with(&other.path)
    }
}

/// The directories above `directory`, up to `/`.
fn above(mut directory: File) -> io::Result<Vec<FileId>> {
    let mut all = vec![];
    loop {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        directory = openat(&directory, "..", flags, Mode::empty())?.into();
        let id = sys::stat_fd_unsynced(&directory)?.file;
        if all.last() == Some(&id) {
            return Ok(all);
        }
        all.push(id);
    }
}

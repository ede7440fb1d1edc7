//! What the kernel has, as the planner sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::record::{BootRecord, CreatedKind, CreatedPath, Identity, PersistentRecord};
use crate::base::{HostPath, JailPath, MountAttributes};
use crate::resolve::{FileId, FileKind};
use crate::sys::Stat;

/// Everything that the planner needs to know about one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// What stands at each path of interest: every target (desired or recorded), every directory on
    /// the way, every link, everything that [`PersistentRecord`] lists. A path with no entry is absent. Where a
    /// mount covers the path this is the mount's root, not what lies beneath.
    pub paths: BTreeMap<JailPath, PathState>,
    /// The mounts at each target (desired or recorded), bottom first; a target with none has no
    /// entry.
    pub mounts: BTreeMap<JailPath, Vec<ObservedMount>>,
    /// Mounts below the root at other paths; when each target was asked alone, only those in
    /// recursive mounts.
    pub elsewhere: BTreeMap<JailPath, Vec<ObservedMount>>,
    /// The directories that are to be mounted or made something in, and that lie neither on the
    /// root's own mount nor on the one at the nearest target above.
    pub holders: BTreeMap<JailPath, Holder>,
    /// Of these, the ones in a recursive mount that show what its source has at the same place; not
    /// asked where it is recorded what came along.
    pub as_in_source: BTreeSet<JailPath>,
    /// Recorded mounts that stand elsewhere now, because a directory that they are in was moved.
    /// Only known where mount ids are never reused (Linux 6.8).
    pub strays: Vec<Stray>,
    /// Of the desired generated files, those whose contents on the host already are as desired.
    pub current_files: BTreeSet<HostPath>,
    /// Targets of recorded mounts whose source is not there, though the manifest names it.
    pub absent: BTreeSet<JailPath>,
    /// What was recorded, if it is of this boot and this root.
    pub record: Option<BootRecord>,
    /// What was recorded to outlive a boot.
    pub kept: Option<PersistentRecord>,
}

impl Observed {
    /// Whether something else stands now where `made` was made: then that is not there any more.
    /// What a mount covers may be.
    pub fn is_gone(&self, made: &CreatedPath) -> bool {
        let Some(seen) = self
            .paths
            .get(&made.path)
            .filter(|_| !self.is_covered(&made.path))
        else {
            return false;
        };
        let same_kind = match made.kind {
            CreatedKind::Directory => seen.kind == FileKind::Directory,
            CreatedKind::File => seen.kind == FileKind::File,
            CreatedKind::Link(_) => seen.kind == FileKind::Symlink,
        };
        !same_kind || made.file.is_some_and(|file| !file.is(&seen.file))
    }

    /// Whether what was seen at `path` may be in a mount, or be one's root.
    fn is_covered(&self, path: &JailPath) -> bool {
        let is_mounted = |path: &JailPath| {
            self.mounts.contains_key(path)
                || self.elsewhere.contains_key(path)
                || self.holders.contains_key(path)
        };
        is_mounted(path) || path.directories_above().iter().any(is_mounted)
    }
}

/// What stands at one path inside the root, no link followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathState {
    /// Its type.
    pub kind: FileKind,
    /// Its identity.
    pub file: Identity,
    /// `st_size` is 0, or the directory has no entries but what [`PersistentRecord`] lists.
    pub empty: bool,
    /// The destination of a symbolic link.
    pub link: Option<PathBuf>,
}

/// One mount at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedMount {
    /// The id in `/proc/self/mountinfo`, reused after an unmount.
    pub id: u64,
    /// The id that is never reused (Linux 6.8).
    pub unique_id: Option<u64>,
    /// Which file is visible at its root; of a mount that another one covers only where both show
    /// the same.
    pub file: Option<FileId>,
    /// What that file is; `None` likewise.
    pub kind: Option<FileKind>,
    /// `mnt_root`: the path within its file system that is mounted, as the kernel shows it now (a
    /// file moved aside shows its new name, a deleted one ends in `//deleted`); `None` when not
    /// asked for.
    pub fs_root: Option<PathBuf>,
    /// Its attributes.
    pub options: MountAttributes,
    /// It is shared, though what it is mounted on is not: somebody made it so.
    pub made_shared: bool,
}

impl ObservedMount {
    /// Whether the file `found` is on this mount, as far as the kernel tells.
    pub fn holds(&self, found: &Stat) -> bool {
        let id = if found.mount_id_is_unique {
            self.unique_id
        } else {
            Some(self.id)
        };
        id.is_some() && id == found.mount_id
    }
}

/// The mount that a directory in the root lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id in `/proc/self/mountinfo`.
    pub id: u64,
    /// Its id that is never reused.
    pub unique_id: Option<u64>,
    /// Where it is, on the host.
    pub point: PathBuf,
    /// What is in the directory is shown nowhere else outside the root, and the kernel keeps it: a
    /// volume of the site's own.
    pub own_volume: bool,
}

impl Holder {
    /// Whether it is the mount `seen`.
    pub fn is(&self, seen: &ObservedMount) -> bool {
        match (self.unique_id, seen.unique_id) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.id == seen.id,
        }
    }
}

/// A recorded mount that was moved away with a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Where it was made.
    pub target: JailPath,
    /// Its never reused id.
    pub unique_id: u64,
    /// Where it is now, on the host; `None`: so deep that it cannot be said.
    pub point: Option<PathBuf>,
}

impl Stray {
    /// Where it is now, in words.
    pub fn place(&self) -> String {
        match &self.point {
            Some(point) => point.display().to_string(),
            None => "a place too deep to be named".to_owned(),
        }
    }
}

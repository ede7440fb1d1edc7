//! What the kernel has, as the planner sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::manifest::{HostPath, JailPath};
use crate::resolve::{FileId, FileKind, Options};

use super::record::{Identity, Kept, Record};

/// Everything that the planner needs to know about one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// What stands at each path of interest: every target (desired or recorded), every directory on the
    /// way, every link, everything that [`Kept`] lists. A path with no entry is absent.
    /// Where a mount covers the path this is the mount's root, not what lies beneath.
    pub paths: BTreeMap<JailPath, Seen>,
    /// The mounts at each target (desired or recorded), bottom first; a target with none has no entry.
    pub mounts: BTreeMap<JailPath, Vec<SeenMount>>,
    /// Mounts below the root at other paths; when each target was asked alone, only those in recursive mounts.
    pub elsewhere: BTreeMap<JailPath, Vec<SeenMount>>,
    /// Of these, the ones in a recursive mount that show what its source has at the same place; not asked where it is
    /// recorded what came along.
    pub as_in_source: BTreeSet<JailPath>,
    /// Recorded mounts that stand elsewhere now, because a directory that they are in was moved. Only known
    /// where mount ids are never reused (Linux 6.8).
    pub strays: Vec<Stray>,
    /// Of the desired generated files, those whose contents on the host already are as desired.
    pub current_files: BTreeSet<HostPath>,
    /// Targets of recorded mounts whose source is not there, though the manifest names it.
    pub absent: BTreeSet<JailPath>,
    /// What was recorded, if it is of this boot and this root.
    pub record: Option<Record>,
    /// What was recorded to outlive a boot.
    pub kept: Option<Kept>,
}

/// What stands at one path inside the root, no link followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its type.
    pub kind: FileKind,
    /// Its identity.
    pub file: Identity,
    /// `st_size` is 0, or the directory has no entries but what [`Kept`] lists.
    pub empty: bool,
    /// The text of a symbolic link.
    pub link: Option<PathBuf>,
}

/// One mount at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenMount {
    /// The id in `/proc/self/mountinfo`, reused after an unmount.
    pub id: u64,
    /// The id that is never reused (Linux 6.8).
    pub unique_id: Option<u64>,
    /// Which file is visible at its root; `None` for a mount that another one covers.
    pub file: Option<FileId>,
    /// What that file is; `None` likewise.
    pub kind: Option<FileKind>,
    /// `mnt_root`: the path within its file system that is mounted, as the kernel shows it now (a file
    /// moved aside shows its new name, a deleted one ends in `//deleted`); `None` when not asked for.
    pub fs_root: Option<PathBuf>,
    /// Its attributes.
    pub options: Options,
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

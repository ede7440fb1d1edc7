//! What mountjail wrote down about what it made.
//!
//! A [`Record`] is about mounts and dies with the boot (`/run/mountjail/<site>.json`); a [`Kept`] is about
//! what stands in the root's file system and outlives it (`/var/lib/mountjail/<site>.json`). Both are
//! replaced atomically by the engine, before and after each change.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::manifest::{HostPath, JailPath};
use crate::resolve::{FileId, Options};

/// The random identity of this boot, from `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(pub String);

/// That a site is up in this boot: its mounts, or those that a run was about to make. There may be none, where all that
/// it needs is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// 1.
    pub version: u32,
    /// The boot in which the mount ids mean something.
    pub boot: BootId,
    /// The site's root when they were made.
    pub root: HostPath,
    /// The manifest that they were made for; unknown in records of the first programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// In the order of attaching; a target may stand twice while a swap is under way.
    pub mounts: Vec<RecordedMount>,
    /// What was done since the first of them was made; `None` of mounts that mountjail only took over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// What was done to a site's mounts, by all runs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// When the last of it was done: seconds since 1970.
    pub changed: u64,
    /// Mounts made where there were none.
    pub attached: u64,
    /// Mounts replaced.
    pub swapped: u64,
    /// Mounts taken away.
    pub detached: u64,
}

impl History {
    /// With what a run at the time `now` does in addition; the same, if that is nothing.
    #[must_use]
    pub fn and(self, now: u64, attached: usize, swapped: usize, detached: usize) -> Self {
        if attached + swapped + detached == 0 {
            return self;
        }
        Self {
            changed: now,
            attached: self.attached + attached as u64,
            swapped: self.swapped + swapped as u64,
            detached: self.detached + detached as u64,
        }
    }
}

/// One mount that mountjail made or was about to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedMount {
    /// Where inside.
    pub target: JailPath,
    /// The source path then.
    pub source: HostPath,
    /// Which file that was.
    pub file: FileId,
    /// The attributes that it was given.
    pub options: Options,
    /// Whether submounts came along.
    pub recursive: bool,
    /// Which; `None` where none can, and where it is not known: then it is told by what they show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submounts: Option<Vec<Submount>>,
    /// The mount's id, never reused within a boot (`STATX_MNT_ID_UNIQUE`, Linux 6.8); `None` while
    /// planned and on older kernels.
    pub unique_id: Option<u64>,
}

/// A mount that came along with a recursive one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submount {
    /// Where inside.
    pub target: JailPath,
    /// Its never reused id; without one it is the mount there that has the attributes of the recursive one.
    pub unique_id: Option<u64>,
}

/// What mountjail made in the root's file system, in the order of making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// 1.
    pub version: u32,
    /// The site's root when they were made.
    pub root: HostPath,
    /// The manifest that they were made for; unknown in records of the first programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Parents before children.
    pub made: Vec<Made>,
    /// Generated files on the host.
    pub files: Vec<HostPath>,
    /// The file with fstab(5) lines that need all this, also while the site is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fstab: Option<HostPath>,
}

impl Kept {
    /// Of a site at `root` for which nothing was made.
    pub fn nothing(root: HostPath) -> Self {
        Self { version: 1, root, manifest: None, made: vec![], files: vec![], fstab: None }
    }

    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.made.is_empty() && self.files.is_empty() && self.fstab.is_none()
    }
}

/// One placeholder or link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Where inside.
    pub path: JailPath,
    /// What it is.
    pub kind: MadeKind,
    /// Which file it is; `None` while planned: then it is ours only if still empty.
    pub file: Option<FileId>,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MadeKind {
    /// An empty directory.
    Directory,
    /// An empty file.
    File,
    /// A symbolic link with this text.
    Link(PathBuf),
}

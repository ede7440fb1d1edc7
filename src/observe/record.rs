//! What mountjail wrote down about what it made.
//!
//! A [`BootRecord`] is about mounts and dies with the boot (`/run/mountjail/<site>.json`); a [`PersistentRecord`]
//! is about what stands in the root's file system and outlives it
//! (`/var/lib/mountjail/<site>.json`). Both are replaced atomically by the engine, before and after
//! each change.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{HostPath, JailPath, MountAttributes};
use crate::resolve::FileId;
use crate::sys::Stat;

/// The version of the records that this mountjail writes; it reads all up to this one.
///
/// It is raised when a record says something that a program which does not know it must not pass
/// over, or when what a field means changes: then the older program names the record and leaves it.
/// A field that may be passed over is simply added: who does not know it keeps it, and writes it
/// back ([`Unknown`]).
pub const VERSION: u32 = 2;

/// The fields that a newer mountjail wrote, and which mean nothing to this one.
pub type Unknown = BTreeMap<String, Value>;

/// Why a record says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is of this version, which is higher than [`VERSION`].
    Newer(u32),
    /// It is no record: why, in words.
    Damaged(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer(version) => {
                write!(
                    f,
                    "it is of version {version}, and this mountjail knows versions up to {VERSION}"
                )
            }
            Self::Damaged(why) => f.write_str(why),
        }
    }
}

/// What records of all versions have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a record of any version up to [`VERSION`].
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
    match serde_json::from_slice::<Versioned>(bytes)
        .map_err(damaged)?
        .version
    {
        0 => Err(Unreadable::Damaged("there is no version 0".to_owned())),
        1..=VERSION => serde_json::from_slice(bytes).map_err(damaged),
        newer => Err(Unreadable::Newer(newer)),
    }
}

/// The random identity of this boot, from `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(pub String);

/// That a site is up in this boot: its mounts, or those that a run was about to make. There may be
/// none, where all that it needs is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    /// [`VERSION`], or what an older mountjail wrote.
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
    /// What was done since the first of them was made; `None` of mounts that mountjail only took
    /// over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// What a newer mountjail wrote besides.
    #[serde(flatten)]
    pub more: Unknown,
}

impl BootRecord {
    /// Of a site at `root` without mounts.
    pub fn nothing(boot: BootId, root: HostPath) -> Self {
        Self {
            version: VERSION,
            boot,
            root,
            manifest: None,
            mounts: vec![],
            history: None,
            more: Unknown::new(),
        }
    }

    /// When the site came up: when the first of its mounts did, if that is known of all of them.
    pub fn since(&self) -> Option<u64> {
        self.mounts
            .iter()
            .map(|mount| mount.since)
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .min()
    }

    /// Reads what was recorded.
    ///
    /// Errors: the bytes are no record, or one of a version that is not known here.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        parse(bytes)
    }
}

/// What was done to a site's mounts, by all runs together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When the last of it was done: seconds since 1970.
    pub changed: u64,
    /// Mounts made where there were none.
    pub attached: u64,
    /// Mounts replaced.
    pub swapped: u64,
    /// Mounts taken away.
    pub detached: u64,
    /// What a newer mountjail wrote besides.
    #[serde(flatten)]
    pub more: Unknown,
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
            more: self.more,
        }
    }
}

/// One mount that mountjail made or was about to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedMount {
    /// Where inside.
    pub target: JailPath,
    /// The source path then.
    pub source: HostPath,
    /// Which file that was.
    pub file: FileId,
    /// The attributes that it was given.
    pub options: MountAttributes,
    /// Whether submounts came along.
    pub recursive: bool,
    /// Which; `None` where none can, and where it is not known: then it is told by what they show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submounts: Option<Vec<Submount>>,
    /// The mount's id, never reused within a boot (`STATX_MNT_ID_UNIQUE`, Linux 6.8); `None` while
    /// planned and on older kernels.
    pub unique_id: Option<u64>,
    /// When the target came to show something: milliseconds since boot (`CLOCK_BOOTTIME`), however
    /// often the mount has been swapped since; `None` where mountjail only took it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// What a newer mountjail wrote besides.
    #[serde(flatten)]
    pub more: Unknown,
}

/// A mount that came along with a recursive one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submount {
    /// Where inside.
    pub target: JailPath,
    /// Its never reused id; without one it is the mount there that has the attributes of the
    /// recursive one.
    pub unique_id: Option<u64>,
    /// What a newer mountjail wrote besides.
    #[serde(flatten)]
    pub more: Unknown,
}

/// What mountjail made in the root's file system, in the order of making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistentRecord {
    /// [`VERSION`], or what an older mountjail wrote.
    pub version: u32,
    /// The site's root when they were made.
    pub root: HostPath,
    /// The manifest that they were made for; unknown in records of the first programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Parents before children.
    pub made: Vec<CreatedPath>,
    /// Generated files on the host.
    pub files: Vec<HostPath>,
    /// The file with fstab(5) lines that need all this, also while the site is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fstab: Option<HostPath>,
    /// What a newer mountjail wrote besides.
    #[serde(flatten)]
    pub more: Unknown,
}

impl PersistentRecord {
    /// Reads what was recorded.
    ///
    /// Errors: as [`BootRecord::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        parse(bytes)
    }

    /// Of a site at `root` for which nothing was made.
    pub fn nothing(root: HostPath) -> Self {
        Self {
            version: VERSION,
            root,
            manifest: None,
            made: vec![],
            files: vec![],
            fstab: None,
            more: Unknown::new(),
        }
    }

    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.made.is_empty() && self.files.is_empty() && self.fstab.is_none()
    }
}

/// One placeholder or link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedPath {
    /// Where inside.
    pub path: JailPath,
    /// What it is.
    pub kind: CreatedKind,
    /// Which file it is; `None` while planned: then it is ours only if still empty.
    pub file: Option<Identity>,
    /// What a newer mountjail wrote besides.
    #[serde(flatten)]
    pub more: Unknown,
}

impl CreatedPath {
    /// Something that is about to be made.
    pub fn planned(path: JailPath, kind: CreatedKind) -> Self {
        Self {
            path,
            kind,
            file: None,
            more: Unknown::new(),
        }
    }
}

/// Which file something is that was made. A reboot may give its file system another device number,
/// and on some file systems every directory another inode number, so neither is what it is known by
/// alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The inode's number.
    pub ino: u64,
    /// Whether it lies on the device that the root directory lies on; `None` in records of version
    /// 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_root: Option<bool>,
    /// When it was made ([`Stat::born`]); `None` also in records of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<i64>,
}

impl Identity {
    /// Of the file `stat`, in a root on the device `root_device`.
    pub fn of(stat: &Stat, root_device: u64) -> Self {
        Self {
            ino: stat.file.ino,
            on_root: Some(stat.file.dev == root_device),
            born: stat.born,
        }
    }

    /// Whether the file `found` is this one. Where both tell when they were made, that decides: an
    /// inode's number is given again to the next file.
    pub fn is(&self, found: &Self) -> bool {
        match (self.born, found.born) {
            (Some(recorded), Some(found)) => recorded == found,
            _ => {
                self.ino == found.ino
                    && self
                        .on_root
                        .is_none_or(|on_root| found.on_root == Some(on_root))
            }
        }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CreatedKind {
    /// An empty directory.
    Directory,
    /// An empty file.
    File,
    /// A symbolic link with this destination.
    Link(PathBuf),
}

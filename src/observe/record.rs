//! The records of what mountjail made.
//!
//! A [`BootRecord`] lists mounts and ends with the boot (`/run/mountjail/<site>.json`). A
//! [`PersistentRecord`] lists what was made in the root's file system and outlives the boot
//! (`/var/lib/mountjail/<site>.json`). The engine replaces both atomically, before and after each
//! change.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{Extent, FileSystem, HostPath, JailPath, MountAttributes, SiteName};
use crate::resolve::{FileId, Mount};
use crate::sys::Stat;

/// The version of the records that this mountjail writes. It reads all versions up to this one.
///
/// The version is raised when a record gets a field that older programs must not ignore, or when
/// the meaning of a field changes. An older program then reports the record and leaves it alone. A
/// field that may be ignored is simply added: older programs keep it and write it back
/// ([`Unknown`]).
pub const VERSION: u32 = 3;

/// The fields that a newer mountjail wrote and that this one does not know.
pub type Unknown = BTreeMap<String, Value>;

/// The reason why a record cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It has this version, which is higher than [`VERSION`].
    Newer(u32),
    /// It is not a record, for this reason.
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

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// The part that records of all versions have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Whether a record begins as those that this mountjail writes.
fn is_of_this_version(bytes: &[u8]) -> bool {
    let Some(version) = bytes.strip_prefix(br#"{"version":"#) else {
        return false;
    };
    match version.strip_prefix(VERSION.to_string().as_bytes()) {
        Some(rest) => rest.starts_with(b","),
        None => false,
    }
}

/// Reads a record of any version up to [`VERSION`].
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    if is_of_this_version(bytes) {
        return Ok(serde_json::from_slice(bytes)?);
    }
    let Versioned { version } = serde_json::from_slice(bytes)?;
    match version {
        0 => Err(Unreadable::Damaged("there is no version 0".to_owned())),
        1..=VERSION => Ok(serde_json::from_slice(bytes)?),
        newer => Err(Unreadable::Newer(newer)),
    }
}

/// The random identity of this boot, from `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootId(pub String);

/// The record of a site that is up in this boot: its mounts, including those that a run was about
/// to make. There may be none, if all sources are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    /// [`VERSION`], or the version that an older mountjail wrote.
    pub version: u32,
    /// The boot in which the mount ids are valid.
    pub boot: BootId,
    /// The site's root when the mounts were made.
    pub root: HostPath,
    /// The directory at that path then. Records of the first versions do not have it, nor those of
    /// kernels without ids that are never reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<RootDirectory>,
    /// The manifest that the mounts were made for. Records of the first versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// In the order of attaching. A target is listed twice during a swap.
    pub mounts: Vec<RecordedMount>,
    /// The changes since the first of the mounts was made. `None` if mountjail only took the mounts
    /// over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// The mounts that it shows, if this is the record of a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// Fields of a newer mountjail.
    #[serde(flatten)]
    pub more: Unknown,
}

impl BootRecord {
    /// The record of a site at `root` without mounts.
    pub fn nothing(boot: BootId, root: HostPath) -> Self {
        Self {
            version: VERSION,
            boot,
            root,
            directory: None,
            manifest: None,
            mounts: vec![],
            history: None,
            contents: None,
            more: Unknown::new(),
        }
    }

    /// The time when the site came up, which is the earliest time of its mounts. `None` unless it
    /// is known for all of them.
    pub fn since(&self) -> Option<u64> {
        let times: Option<Vec<_>> = self.mounts.iter().map(|mount| mount.since).collect();
        times?.into_iter().min()
    }

    /// Reads a record.
    ///
    /// Errors: the bytes are not a record, or one of a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        parse(bytes)
    }
}

/// A root directory, whatever it is called: valid within a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDirectory {
    /// The never reused id of the mount that it is on. A directory that is renamed stays on it.
    pub mount: u64,
    /// The inode's number.
    pub ino: u64,
    /// The time of its creation ([`Stat::born`]), since inode numbers are reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<i64>,
}

impl RootDirectory {
    /// The directory `stat`. `None`: the kernel has no ids that are never reused.
    pub fn of(stat: &Stat) -> Option<Self> {
        Some(Self {
            mount: stat.unique_mount_id()?,
            ino: stat.file.ino,
            born: stat.born,
        })
    }

    /// Whether `self` and `other` are one directory, on whatever mount it is seen: each mount
    /// namespace has mounts of its own.
    pub fn is_same_inode(self, other: Self) -> bool {
        (self.ino, self.born) == (other.ino, other.born)
    }
}

/// The changes of a site's mounts by all runs together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The time of the last change, in seconds since 1970.
    pub changed: u64,
    /// Mounts made where there were none.
    pub attached: u64,
    /// Mounts replaced.
    pub swapped: u64,
    /// Mounts removed.
    pub detached: u64,
    /// Fields of a newer mountjail.
    #[serde(flatten)]
    pub more: Unknown,
}

impl History {
    /// Adds the changes of a run at the time `now`. Nothing is changed if there are none.
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
    /// The path in the jail.
    pub target: JailPath,
    /// The source path at that time.
    pub source: HostPath,
    /// The file at the source path at that time.
    pub file: FileId,
    /// The attributes that the mount was given.
    #[serde(rename = "options")]
    pub attributes: MountAttributes,
    /// Whether submounts came along.
    pub recursive: bool,
    /// The submounts. `None` if the mount is not recursive, or if they are unknown: then they are
    /// recognised by their files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submounts: Option<Vec<Submount>>,
    /// The mount's unique ID, never reused within a boot (`STATX_MNT_ID_UNIQUE`, Linux 6.8). `None`
    /// while planned and on older kernels.
    pub unique_id: Option<u64>,
    /// The time of the first mount at the target, in milliseconds since boot (`CLOCK_BOOTTIME`). A
    /// swap does not change it. `None` if mountjail only took the mount over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The template, if the mount is a graft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<SiteName>,
    /// The file system, if it is one of the site's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system: Option<FileSystem>,
    /// The peer group of a mount in a template. The mounts of the grafts are its slaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_group: Option<u64>,
    /// Fields of a newer mountjail.
    #[serde(flatten)]
    pub more: Unknown,
}

impl RecordedMount {
    /// The record of `mount`, which shows `file` and is not made yet.
    pub(crate) fn planned(mount: &Mount, file: FileId) -> Self {
        Self {
            target: mount.target.clone(),
            source: mount.source.clone(),
            file,
            attributes: mount.attributes,
            recursive: mount.recursive,
            submounts: None,
            unique_id: None,
            since: None,
            template: None,
            file_system: mount.file_system,
            peer_group: None,
            more: Unknown::new(),
        }
    }

    /// Whether it shows a directory of a template.
    pub(crate) fn is_graft(&self) -> bool {
        self.template.is_some()
    }

    /// Whether the submounts of its source came along.
    pub(crate) fn is_tree(&self) -> bool {
        self.recursive && !self.is_graft()
    }

    /// Which mounts of the source's tree were mounted.
    pub fn extent(&self) -> Extent {
        Extent::from_recursive(self.recursive)
    }
}

/// What a template shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Tells it apart from what other templates show. `None` while it is being changed.
    pub key: Option<String>,
    /// The directory that the grafts show, as a path in the jail.
    pub at: JailPath,
    /// That directory in the template. `None` until it is made.
    pub directory: Option<FileId>,
    /// Fields of a newer mountjail.
    #[serde(flatten)]
    pub more: Unknown,
}

/// A graft by its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownGraft {
    /// Its target.
    pub target: JailPath,
    /// Its template.
    pub template: SiteName,
    /// What the template shows ([`Contents::key`]).
    pub contents: Option<String>,
    /// No other site has a graft of the template.
    pub alone: bool,
    /// What its template shows is unknown: the record of that is lost, and so is the template.
    pub members_are_lost: bool,
    /// Its own record is lost or of another mount namespace, of which this may be a copy.
    pub may_be_a_copy: bool,
    /// The mounts that came along with it: the records of those in the template, sorted by target.
    /// Their targets are paths in the jail.
    pub members: Arc<[RecordedMount]>,
}

impl KnownGraft {
    /// The mounts at `target` that came along with it.
    pub(super) fn members_at(&self, target: &JailPath) -> &[RecordedMount] {
        if !target.starts_with(&self.target) {
            return &[];
        }
        let start = self
            .members
            .partition_point(|member| member.target < *target);
        let from_here = &self.members[start..];
        let count = from_here.partition_point(|member| member.target == *target);
        &from_here[..count]
    }
}

/// A mount that came along with a recursive one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submount {
    /// The path in the jail.
    pub target: JailPath,
    /// Its unique ID. Without one, it is recognised by having the attributes of the recursive
    /// mount.
    pub unique_id: Option<u64>,
    /// Fields of a newer mountjail.
    #[serde(flatten)]
    pub more: Unknown,
}

/// The record of what mountjail made in the root's file system, in the order of making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistentRecord {
    /// [`VERSION`], or the version that an older mountjail wrote.
    pub version: u32,
    /// The site's root when these things were made.
    pub root: HostPath,
    /// The manifest that they were made for. Records of the first versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Parents before children.
    pub made: Vec<CreatedPath>,
    /// Generated files on the host.
    pub files: Vec<HostPath>,
    /// The file with fstab(5) lines that need all this, also while the site is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fstab: Option<HostPath>,
    /// Fields of a newer mountjail.
    #[serde(flatten)]
    pub more: Unknown,
}

impl PersistentRecord {
    /// Reads a record.
    ///
    /// Errors: as [`BootRecord::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        parse(bytes)
    }

    /// The record of a site at `root` for which nothing was made.
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
    /// The path in the jail.
    pub path: JailPath,
    /// The thing that was made: a directory, a file or a link.
    pub kind: CreatedKind,
    /// The file that was made. `None` while planned: then it is ours only if it is still empty.
    pub file: Option<Identity>,
    /// Fields of a newer mountjail.
    #[serde(flatten)]
    pub more: Unknown,
}

impl CreatedPath {
    /// A path that is about to be made.
    pub fn planned(path: JailPath, kind: CreatedKind) -> Self {
        Self {
            path,
            kind,
            file: None,
            more: Unknown::new(),
        }
    }
}

/// The identity of a file that was made. A reboot may change the device number of its file system
/// and, on some file systems, the inode number of every directory. So neither of them identifies
/// the file alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The inode's number.
    pub ino: u64,
    /// Whether it is on the same device as the root directory. `None` in records of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_root: Option<bool>,
    /// The time of its creation ([`Stat::born`]). `None` also in records of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<i64>,
}

impl Identity {
    /// The identity of the file `stat`, in a root on the device `root_device`.
    pub fn of(stat: &Stat, root_device: u64) -> Self {
        Self {
            ino: stat.file.ino,
            on_root: Some(stat.file.dev == root_device),
            born: stat.born,
        }
    }

    /// Whether the file `found` is this one. The times of creation decide if both are known, since
    /// inode numbers are reused.
    pub fn is(&self, found: &Self) -> bool {
        match (self.born, found.born) {
            (Some(recorded), Some(found)) => recorded == found,
            _ => self.ino == found.ino && (self.on_root.is_none() || self.on_root == found.on_root),
        }
    }
}

/// The type of a path that was made.
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

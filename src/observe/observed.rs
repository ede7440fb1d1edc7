//! The observed state of a site, as the planner sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::clone_ids::CloneIds;
use super::home::root_of;
use super::record::{
    BootRecord, CreatedKind, CreatedPath, Identity, KnownGraft, PersistentRecord, RecordedMount,
    RootDirectory,
};
use crate::base::{Error, FileSystem, HostPath, JailPath, MountAttributes};
use crate::resolve::{FileId, FileKind};
use crate::sys::Stat;

/// Everything that the planner needs to know about one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The file at each path of interest: every target (desired or recorded), every directory on
    /// the way, every link and everything in the [`PersistentRecord`]. A path without an entry is
    /// absent. Where a mount covers the path, this is the root of the mount.
    pub paths: BTreeMap<JailPath, PathState>,
    /// The mounts at each target (desired or recorded), bottom first. A target without mounts has
    /// no entry.
    pub mounts: BTreeMap<JailPath, Vec<ObservedMount>>,
    /// The grafts in which everything that came along is there, and nothing else besides the site's
    /// own mounts. What came along is not in `mounts`: its unique IDs tell enough.
    pub whole: BTreeMap<JailPath, CloneIds>,
    /// The targets whose topmost mount cannot be looked at, and why: its server is gone, or fails.
    pub unseen: BTreeMap<JailPath, Error>,
    /// Mounts below the root at other paths. If each target was asked for separately, only those in
    /// recursive mounts.
    pub elsewhere: BTreeMap<JailPath, Vec<ObservedMount>>,
    /// The directories in which something has to be mounted or made, and which are neither on the
    /// root's own mount nor on the one at the nearest target above.
    pub holders: BTreeMap<JailPath, Holder>,
    /// Those mounts elsewhere that are in a recursive mount and identical to what its source has
    /// at the same place. Not looked for if the submounts are recorded.
    pub as_in_source: BTreeSet<JailPath>,
    /// Recorded mounts that are elsewhere now, because a directory above them was moved, each
    /// before the one that it lies in. Only known where mounts have unique IDs (Linux 6.8).
    pub strays: Vec<Stray>,
    /// The unique IDs of recorded mounts that something which is mounted over the root hides, and
    /// not another mount in the root.
    pub under_root: BTreeSet<u64>,
    /// The generated files whose contents on the host are already as desired.
    pub current_files: BTreeSet<HostPath>,
    /// Targets of recorded mounts whose source does not exist, though the manifest names it.
    pub absent: BTreeSet<JailPath>,
    /// The recorded grafts, with the mounts that came along.
    pub grafts: Vec<KnownGraft>,
    /// The highest unique mount ID of all when the mounts were listed. `None`: they were not
    /// listed, or have no unique IDs.
    pub newest: Option<u64>,
    /// The root directory, if it exists.
    pub directory: Option<RootDirectory>,
    /// The record of the mounts, if it is of this boot and this root.
    pub record: Option<BootRecord>,
    /// The record that outlives a boot.
    pub kept: Option<PersistentRecord>,
}

impl Observed {
    pub(crate) fn recorded_mounts(&self) -> impl Iterator<Item = &RecordedMount> {
        self.record.iter().flat_map(|record| &record.mounts)
    }

    /// Whether the site was brought up and has no mounts.
    pub(crate) fn is_up_without_mounts(&self) -> bool {
        match &self.record {
            Some(record) => record.mounts.is_empty(),
            None => false,
        }
    }

    /// The mounts at a target, bottom first.
    pub(crate) fn stack(&self, target: &JailPath) -> &[ObservedMount] {
        self.mounts.get(target).map_or(&[], Vec::as_slice)
    }

    /// The topmost mount at a target.
    pub(crate) fn top(&self, target: &JailPath) -> Option<&ObservedMount> {
        self.stack(target).last()
    }

    /// The record of `seen`, a mount at `target`: its own, or that of the mount in a template which
    /// it follows. `None`: the mount is not ours.
    pub(crate) fn record_of(
        &self,
        target: &JailPath,
        seen: &ObservedMount,
    ) -> Option<&RecordedMount> {
        match self.own_record_of(target, seen) {
            Some(mount) => Some(mount),
            None => self.member(target, seen),
        }
    }

    /// The record of `seen`, a mount at `target` that did not come along with a graft.
    pub(crate) fn own_record_of(
        &self,
        target: &JailPath,
        seen: &ObservedMount,
    ) -> Option<&RecordedMount> {
        let mut mounts = self.recorded_mounts();
        mounts.find(|mount| mount.target == *target && seen.is(mount))
    }

    /// Whether `seen`, a mount at `target`, is recorded.
    pub(crate) fn is_ours(&self, target: &JailPath, seen: &ObservedMount) -> bool {
        self.record_of(target, seen).is_some()
    }

    /// The record of the mount `seen` at `target`, if it came along with a graft of ours: it
    /// follows the mount in the template. Where that is not known, it shows the same file.
    pub(crate) fn member(&self, target: &JailPath, seen: &ObservedMount) -> Option<&RecordedMount> {
        for graft in &self.grafts {
            let members = graft.members_at(target);
            let cut_off = !members.is_empty() && self.is_cut_off(&graft.target);
            for member in members {
                let is_it = match member.peer_group {
                    Some(group) if !cut_off => seen.master == Some(group),
                    _ => seen.file == Some(member.file),
                };
                if is_it {
                    return Some(member);
                }
            }
        }
        None
    }

    /// Whether the graft at `target` follows no template any more: the template is gone, or the
    /// graft was made private. A copy in another mount namespace may follow none by right.
    pub(crate) fn is_cut_off(&self, target: &JailPath) -> bool {
        let is_graft = |seen: &&ObservedMount| match self.own_record_of(target, seen) {
            Some(known) => known.is_graft(),
            None => false,
        };
        match self.stack(target).iter().rfind(is_graft) {
            Some(seen) if seen.master.is_none() => {
                !self.grafts_at(target).any(|graft| graft.may_be_a_copy)
            }
            _ => false,
        }
    }

    /// The recorded grafts at `target`.
    pub(crate) fn grafts_at(&self, target: &JailPath) -> impl Iterator<Item = &KnownGraft> {
        self.grafts.iter().filter(|graft| graft.target == *target)
    }

    /// The targets of the mounts that came along with the recorded grafts at `target`.
    pub(crate) fn members_at(&self, target: &JailPath) -> Vec<JailPath> {
        let mut targets = vec![];
        for graft in self.grafts_at(target) {
            for member in graft.members.iter() {
                targets.push(member.target.clone());
            }
        }
        targets.sort(); // of two grafts, one after the other
        targets.dedup();
        targets
    }

    /// The mounts that came along with the recorded grafts.
    pub(crate) fn members(&self) -> impl Iterator<Item = &RecordedMount> {
        self.grafts.iter().flat_map(|graft| graft.members.iter())
    }

    /// Whether no other site has a graft of the template of the graft at `target`.
    pub(crate) fn is_alone(&self, target: &JailPath) -> bool {
        self.grafts_at(target).any(|graft| graft.alone)
    }

    /// The targets of the recorded grafts, each once.
    pub(crate) fn graft_targets(&self) -> BTreeSet<JailPath> {
        let mut targets = BTreeSet::new();
        for graft in &self.grafts {
            targets.insert(graft.target.clone());
        }
        targets
    }

    /// Whether mounts were made one by one, outside of those at `grafts`.
    pub(super) fn has_mounts_besides(&self, grafts: &BTreeSet<JailPath>) -> bool {
        let is_in_a_graft = |above: &JailPath| grafts.contains(above);
        for mount in self.recorded_mounts() {
            let above = mount.target.directories_above();
            if !mount.is_graft() && !above.iter().any(is_in_a_graft) {
                return true;
            }
        }
        false
    }

    /// The targets of the mounts that came along with the recorded grafts.
    pub(super) fn member_targets(&self) -> impl Iterator<Item = &JailPath> {
        self.members().map(|member| &member.target)
    }

    /// Whether something else is now where `made` was made, so that it does not exist any more.
    /// Something that a mount covers may still exist.
    pub fn is_gone(&self, made: &CreatedPath) -> bool {
        let Some(seen) = self.paths.get(&made.path) else {
            return false;
        };
        if self.is_covered(&made.path) {
            return false;
        }
        let same_kind = match made.kind {
            CreatedKind::Directory => seen.kind == FileKind::Directory,
            CreatedKind::File => seen.kind == FileKind::File,
            CreatedKind::Link(_) => seen.kind == FileKind::Symlink,
        };
        !same_kind || made.file.is_some_and(|file| !file.is(&seen.file))
    }

    /// Whether the file seen at `path` may be in a mount, or the root of one.
    fn is_covered(&self, path: &JailPath) -> bool {
        let mut above = path.directories_above().into_iter();
        self.is_mounted(path) || above.any(|above| self.is_mounted(&above))
    }

    fn is_mounted(&self, path: &JailPath) -> bool {
        self.mounts.contains_key(path)
            || self.elsewhere.contains_key(path)
            || self.holders.contains_key(path)
    }
}

/// The file at one path inside the root, without following links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathState {
    /// The type of the file; links are not followed.
    pub kind: FileKind,
    /// The identity of the file.
    pub file: Identity,
    /// `st_size` is 0, or the directory has only entries that the [`PersistentRecord`] lists.
    pub empty: bool,
    /// The destination of a symbolic link.
    pub link: Option<PathBuf>,
}

/// One mount at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedMount {
    /// The id in `/proc/self/mountinfo`, reused after an unmount.
    pub id: u64,
    /// The unique mount ID (Linux 6.8).
    pub unique_id: Option<u64>,
    /// The file that is visible at its root. For a mount that another one covers, only if both show
    /// the same file.
    pub file: Option<FileId>,
    /// The type of that file, if it is known.
    pub kind: Option<FileKind>,
    /// `mnt_root`: the path within its file system that is mounted, as the kernel shows it now. A
    /// file that was moved shows its new name; a deleted one ends in `//deleted`. `None` if it was
    /// not asked for.
    pub fs_root: Option<PathBuf>,
    /// The device of its file system, as in `/proc/self/mountinfo`; `None` if it was not asked for.
    pub device: Option<u64>,
    /// What it is, if it is the whole of a file system that a site could have for itself, and was
    /// asked for.
    pub file_system: Option<FileSystem>,
    /// The attributes that it has now.
    pub attributes: MountAttributes,
    /// It is shared, though the mount that it is on is not. Somebody made it shared.
    pub made_shared: bool,
    /// The peer group that it is a slave of (`mount_namespaces(7)`).
    pub master: Option<u64>,
}

impl ObservedMount {
    /// Whether it is the `recorded` mount, which was made at the same target.
    ///
    /// The unique IDs decide if both have one. Otherwise the file that it shows decides, or, if
    /// another mount covers it, the path within its file system.
    pub(crate) fn is(&self, recorded: &RecordedMount) -> bool {
        if let (Some(seen), Some(recorded)) = (self.unique_id, recorded.unique_id) {
            return seen == recorded;
        }
        if let Some(file) = self.file {
            return file == recorded.file;
        }
        let Some(root) = &self.fs_root else {
            return false;
        };
        let below = root.strip_prefix("/").unwrap_or(root);
        recorded.source.as_path().ends_with(below) && self.attributes == recorded.attributes
    }

    /// Whether the file `found` is known to be on this mount.
    pub fn holds(&self, found: &Stat) -> bool {
        let id = if found.mount_id_is_unique {
            self.unique_id
        } else {
            Some(self.id)
        };
        id.is_some() && id == found.mount_id
    }
}

/// The mount that a directory in the root is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id in `/proc/self/mountinfo`.
    pub id: u64,
    /// Its unique mount ID.
    pub unique_id: Option<u64>,
    /// The device of its file system, as in `/proc/self/mountinfo`.
    pub device: u64,
    /// The path within its file system that is mounted.
    pub root: PathBuf,
    /// Its mount point on the host.
    pub point: PathBuf,
    /// A volume of the site's own: the directory is shown nowhere else outside the root, and the
    /// file system is not a FUSE one.
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
    /// The mount point at which it was made.
    pub target: JailPath,
    /// Its unique mount ID.
    pub unique_id: u64,
    /// Its mount point on the host now. `None` if the path is too long for the kernel to tell.
    pub point: Option<PathBuf>,
}

impl Stray {
    /// The root in which it is at its target, where it is now.
    pub(crate) fn home(&self) -> Option<HostPath> {
        root_of(self.point.as_deref()?, &self.target)
    }

    /// Where it is now, in words.
    pub fn place(&self) -> String {
        match &self.point {
            Some(point) => point.display().to_string(),
            None => "a place too deep to be named".to_owned(),
        }
    }
}

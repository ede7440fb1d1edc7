//! Where the recorded root is now. It may have been moved or renamed while the site was up.

use std::io;
use std::path::{Path, PathBuf};

use super::record::{CreatedPath, Identity, RecordedMount, RootDirectory};
use super::state::SiteRecords;
use crate::base::{HostPath, JailPath};
use crate::sys;

impl SiteRecords {
    /// The path of the recorded root now. It is the recorded path, if anything of ours is there;
    /// else the directory where the recorded mounts are now; else the root in the `manifest`, if
    /// something that mountjail made is there; else the recorded path, if the directory there may
    /// be the recorded one. `None` if there is no such directory, for example because its disk is
    /// not mounted now, or if nothing is recorded.
    pub fn home(&self, manifest: impl FnOnce() -> Option<HostPath>) -> Option<HostPath> {
        let recorded = self.root()?;
        if self.is_mounted_in(recorded) || self.made_in(recorded) {
            return Some(recorded.clone());
        }
        if let Some(root) = self.moved_root(recorded)
            && is_directory(&root)
        {
            return Some(root);
        }
        if let Some(root) = manifest()
            && root != *recorded
            && self.made_in(&root)
        {
            return Some(root);
        }
        self.may_be_at(recorded).then(|| recorded.clone())
    }

    /// The directory in which the first mount of ours that was moved is at its target. The root
    /// cannot have been moved into itself: a directory inside it was moved then.
    fn moved_root(&self, recorded: &HostPath) -> Option<HostPath> {
        for mount in self.mounts() {
            if let Some(root) = root_by(mount)
                && !root.as_path().starts_with(recorded)
            {
                return Some(root);
            }
        }
        None
    }

    /// Whether the directory `root`, in which nothing of ours is, may be the recorded root. It is
    /// another one if, for example, the disk of the root is not mounted now.
    fn may_be_at(&self, root: &HostPath) -> bool {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let Ok(stat) = sys::open_host(root.as_path(), flags).and_then(sys::stat_fd) else {
            return false;
        };
        let recorded = self.record.as_ref().and_then(|record| record.directory);
        match (recorded, RootDirectory::of(&stat), &self.kept) {
            (Some(recorded), Some(found), Some(kept)) if !kept.made.is_empty() => {
                recorded.is_same_inode(found)
            }
            _ => true,
        }
    }

    /// The same records with `home`, which [`Self::home`] found, as the root.
    #[must_use]
    pub fn moved_to(mut self, home: &HostPath) -> Self {
        let is_elsewhere = match &self.kept {
            Some(kept) => kept.root != *home,
            None => false,
        };
        let made_there = is_elsewhere && (self.root() != Some(home) || self.made_in(home));
        if let Some(kept) = &mut self.kept
            && made_there
        {
            kept.root = home.clone();
        }
        if let Some(record) = &mut self.record {
            record.root = home.clone();
        }
        self
    }

    /// The directory in which the recorded mounts are at their targets now. No file system is
    /// asked. `None`: there are none.
    pub(crate) fn mounted_at(&self) -> Option<HostPath> {
        self.mounts().find_map(root_by)
    }

    /// Whether any recorded mount exists, at whatever place.
    pub fn is_mounted(&self) -> bool {
        let mut ids = self.mounts().filter_map(|mount| mount.unique_id);
        ids.any(sys::mount_exists)
    }

    /// Whether a recorded mount is at its target in the directory `root`.
    fn is_mounted_in(&self, root: &HostPath) -> bool {
        for mount in self.mounts() {
            if point(mount).as_deref() == Some(root.inside(&mount.target).as_path()) {
                return true;
            }
        }
        false
    }

    fn mounts(&self) -> impl Iterator<Item = &RecordedMount> {
        self.record.iter().flat_map(|record| &record.mounts)
    }

    /// Whether the directory `root` has anything that mountjail made in the root.
    fn made_in(&self, root: &HostPath) -> bool {
        let mut made = self.kept.iter().flat_map(|kept| &kept.made);
        made.any(|made| is_there(made, root).unwrap_or(false))
    }
}

/// Where the recorded mount is now.
fn point(mount: &RecordedMount) -> Option<PathBuf> {
    let mount = sys::stat_mount(mount.unique_id?).ok()?;
    Some(mount.point)
}

/// The directory in which the recorded mount is at its target now.
fn root_by(mount: &RecordedMount) -> Option<HostPath> {
    root_of(&point(mount)?, &mount.target)
}

/// The directory in which `target` is at `point`.
pub(super) fn root_of(point: &Path, target: &JailPath) -> Option<HostPath> {
    let target = target.relative();
    if !point.ends_with(target) {
        return None;
    }
    let root = point.ancestors().nth(target.components().count())?;
    HostPath::new(root).ok()
}

fn is_directory(path: &HostPath) -> bool {
    sys::open_host(path.as_path(), libc::O_PATH | libc::O_DIRECTORY).is_ok()
}

/// Whether `made` is in the directory `root`. Mounts in it are not looked at.
fn is_there(made: &CreatedPath, root: &HostPath) -> io::Result<bool> {
    let (Some(file), Some(name)) = (made.file, made.path.file_name()) else {
        return Ok(false);
    };
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    let root = sys::open_host(root.as_path(), directory)?;
    let device = sys::mount_of(&root, Path::new(""))?.device;

    let parent = made.path.parent().unwrap_or_else(JailPath::slash);
    let parent = sys::open_unmounted(&root, parent.relative(), directory)?;
    if sys::mount_of(&parent, Path::new(name))?.is_root == Some(true) {
        return Ok(false);
    }
    let found = sys::stat_at(&parent, Path::new(name))?;
    Ok(file.is(&Identity::of(&found, device)))
}

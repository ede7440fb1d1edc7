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
        if self.mounts().any(|mount| is_mounted_in(mount, recorded)) || self.made_in(recorded) {
            return Some(recorded.clone());
        }

        // The root cannot have been moved into itself. A directory inside it was moved then.
        let moved = |mount: &RecordedMount| {
            root_by(mount).filter(|root| !root.as_path().starts_with(recorded))
        };
        if let Some(root) = self.mounts().find_map(moved).filter(is_directory) {
            return Some(root);
        }

        let named = manifest().filter(|manifest| manifest != recorded && self.made_in(manifest));
        named.or_else(|| self.may_be_at(recorded).then(|| recorded.clone()))
    }

    /// Whether the directory `root`, in which nothing of ours is, may be the recorded root. It is
    /// another one if, for example, the disk of the root is not mounted now.
    fn may_be_at(&self, root: &HostPath) -> bool {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let Ok(stat) = sys::open_host(root.as_path(), flags).and_then(sys::stat_fd) else {
            return false;
        };
        let recorded = self.record.as_ref().and_then(|record| record.directory);
        let made = self.kept.as_ref().is_some_and(|kept| !kept.made.is_empty());
        match (recorded, RootDirectory::of(&stat)) {
            (Some(recorded), Some(found)) if made => recorded.is_same_inode(found),
            _ => true,
        }
    }

    /// The same records with `home`, which [`Self::home`] found, as the root.
    #[must_use]
    pub fn moved_to(mut self, home: &HostPath) -> Self {
        let elsewhere = self.kept.as_ref().is_some_and(|kept| kept.root != *home);
        let made_there = elsewhere && (self.root() != Some(home) || self.made_in(home));
        if let Some(kept) = self.kept.as_mut().filter(|_| made_there) {
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
        self.mounts()
            .any(|mount| mount.unique_id.is_some_and(sys::mount_exists))
    }

    fn mounts(&self) -> impl Iterator<Item = &RecordedMount> {
        self.record.iter().flat_map(|record| &record.mounts)
    }

    /// Whether the directory `root` has anything that mountjail made in the root.
    fn made_in(&self, root: &HostPath) -> bool {
        let made = self.kept.iter().flat_map(|kept| &kept.made);
        made.into_iter().any(|made| is_there(made, root))
    }
}

/// Where the recorded mount is now.
fn point(mount: &RecordedMount) -> Option<PathBuf> {
    sys::stat_mount(mount.unique_id?)
        .ok()
        .map(|mount| mount.point)
}

fn is_mounted_in(mount: &RecordedMount, root: &HostPath) -> bool {
    point(mount).is_some_and(|point| point == root.inside(&mount.target).as_path())
}

/// The directory in which the recorded mount is at its target now.
fn root_by(mount: &RecordedMount) -> Option<HostPath> {
    root_of(&point(mount)?, &mount.target)
}

/// The directory in which `target` is at `point`.
pub(super) fn root_of(point: &Path, target: &JailPath) -> Option<HostPath> {
    let target = target.relative();
    let root = point.ancestors().nth(target.components().count())?;
    (root.join(target) == point)
        .then(|| HostPath::new(root).ok())
        .flatten()
}

fn is_directory(path: &HostPath) -> bool {
    sys::open_host(path.as_path(), libc::O_PATH | libc::O_DIRECTORY).is_ok()
}

/// Whether `made` is in the directory `root`. Mounts in it are not looked at.
fn is_there(made: &CreatedPath, root: &HostPath) -> bool {
    let (Some(file), Some(name)) = (made.file, made.path.file_name()) else {
        return false;
    };
    let parent = made.path.parent().unwrap_or_else(JailPath::slash);
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    let look = || {
        let root = sys::open_host(root.as_path(), directory)?;
        let device = sys::mount_of(&root, Path::new(""))?.device;
        let parent = sys::open_unmounted(&root, parent.relative(), directory)?;
        if sys::mount_of(&parent, Path::new(name))?.is_root == Some(true) {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        Ok(file.is(&Identity::of(
            &sys::stat_at(&parent, Path::new(name))?,
            device,
        )))
    };
    look().unwrap_or(false)
}

//! The mounts that directories in a root are on.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::mountinfo::MountInfo;
use super::observed::{Holder, Observed, ObservedMount};
use super::table::Table;
use crate::base::{HostPath, JailPath};
use crate::sys::{self, Stat};
use crate::{Error, Result};

/// An open directory that is on another mount than the root.
#[derive(Debug)]
pub(super) struct Apart {
    /// Its `statx(2)`.
    stat: Stat,
    /// The id of its mount in `/proc/self/mountinfo`, if the kernel has no statmount(2).
    id: Option<u64>,
}

impl Apart {
    /// The directory `fd`, whose statx(2) is `stat`.
    pub(super) fn of(fd: &OwnedFd, stat: Stat) -> Self {
        let id = match stat.mount_id {
            Some(id) if !stat.mount_id_is_unique => Some(id),
            _ if sys::probe::statmount() => None,
            _ => sys::mount_id_in_table(fd).ok(),
        };
        Self { stat, id }
    }

    /// The mount that the directory is on. It is looked up in `table` if the kernel has no
    /// statmount(2).
    fn mount(&self, table: &Table) -> io::Result<MountInfo> {
        if let Some(id) = self.id
            && let Some(mount) = table.get(id)
        {
            return Ok(mount.clone());
        }
        match (self.id, self.stat.mount_id) {
            (None, Some(id)) => Ok(MountInfo::from_statmount(id, sys::stat_mount(id)?)),
            _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }
}

/// The mounts of the directories in `apart` that are not on the mount at the nearest target above.
/// `table`: the whole mount table, if it was read already.
pub(super) fn holders(
    root: &HostPath,
    mut apart: BTreeMap<JailPath, Apart>,
    observed: &Observed,
    table: Option<&Table>,
) -> Result<BTreeMap<JailPath, Holder>> {
    apart.retain(|path, apart| !is_on_nearest_target(path, apart, observed));
    let mut holders = BTreeMap::new();
    if apart.is_empty() {
        return Ok(holders);
    }

    let read;
    let table = if let Some(table) = table {
        table
    } else {
        read = Table::read()?;
        &read
    };
    for (path, apart) in apart {
        let mount = apart.mount(table).map_err(|error| {
            let path = root.inside(&path);
            Error::failed(format!("cannot ask for the mount that {path} is on")).because(&error)
        })?;
        let holder = Holder {
            own_volume: is_shown_nowhere_else(root, &path, &mount, table),
            id: mount.id,
            unique_id: mount.unique_id,
            device: mount.device,
            root: mount.root,
            point: mount.point,
        };
        holders.insert(path, holder);
    }
    Ok(holders)
}

/// Whether the directory `path` is on the topmost mount at the nearest target at or above it.
fn is_on_nearest_target(path: &JailPath, apart: &Apart, observed: &Observed) -> bool {
    if let Some(stack) = observed.mounts.get(path) {
        return is_on_top(stack, apart);
    }
    for above in path.directories_above().iter().rev() {
        if let Some(stack) = observed.mounts.get(above) {
            return is_on_top(stack, apart);
        }
    }
    false
}

fn is_on_top(stack: &[ObservedMount], apart: &Apart) -> bool {
    match stack.last() {
        Some(top) => top.holds(&apart.stat),
        None => false,
    }
}

/// Whether no mount outside the root shows the directory `path`, which is on `mount`. Such a mount
/// may be a peer of `mount`, and it shows in any case what is made in the directory. The files of a
/// FUSE file system may come from anywhere.
fn is_shown_nowhere_else(
    root: &HostPath,
    path: &JailPath,
    mount: &MountInfo,
    table: &Table,
) -> bool {
    let on_host = root.inside(path);
    let Ok(below) = on_host.as_path().strip_prefix(&mount.point) else {
        return false;
    };

    let directory = mount.root.join(below);
    let shows_it = |other: &MountInfo| {
        other.device == mount.device
            && directory.starts_with(&other.root)
            && other.id != mount.id
            && !is_below(root, &other.point)
    };
    !mount.fuse && !table.mounts().iter().any(shows_it)
}

fn is_below(root: &HostPath, point: &Path) -> bool {
    point.starts_with(root) && point != root.as_path()
}

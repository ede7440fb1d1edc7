//! The mounts that directories in a root are on.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::mountinfo::MountInfo;
use super::observed::{Holder, Observed};
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
        let known = stat.mount_id.filter(|_| !stat.mount_id_is_unique);
        let id = if sys::probe::statmount() {
            known
        } else {
            known.or_else(|| sys::mount_id_in_table(fd).ok())
        };
        Self { stat, id }
    }

    /// The mount that the directory is on. It is looked up in `table` if the kernel has no
    /// statmount(2).
    fn mount(&self, table: &Table) -> io::Result<MountInfo> {
        let gone = || io::Error::from_raw_os_error(libc::ENOENT);
        match (self.id, self.stat.mount_id) {
            (Some(id), _) => table.get(id).cloned().ok_or_else(gone),
            (None, Some(id)) => {
                sys::stat_mount(id).map(|mount| MountInfo::from_statmount(id, mount))
            }
            (None, None) => Err(gone()),
        }
    }
}

/// The mounts of the directories in `apart` that are not on the mount at the nearest target above.
/// `table`: the whole mount table, if it was read already.
pub(super) fn holders(
    root: &HostPath,
    apart: BTreeMap<JailPath, Apart>,
    observed: &Observed,
    table: Option<&Table>,
) -> Result<BTreeMap<JailPath, Holder>> {
    let is_on_target = |path: &JailPath, apart: &Apart| {
        let mut target = path
            .directories_above()
            .into_iter()
            .chain([path.clone()])
            .rev();
        let stack = target.find_map(|path| observed.mounts.get(&path));
        stack
            .and_then(|stack| stack.last())
            .is_some_and(|top| top.holds(&apart.stat))
    };
    let mut apart = apart;
    apart.retain(|path, apart| !is_on_target(path, apart));
    if apart.is_empty() {
        return Ok(BTreeMap::new());
    }

    let read;
    let table = if let Some(table) = table {
        table
    } else {
        read = Table::read()?;
        &read
    };

    let holder = |(path, apart): (JailPath, Apart)| {
        let mount = apart.mount(table).map_err(|error| {
            let path = root.inside(&path);
            Error::failed(format!("cannot ask for the mount that {path} is on")).because(&error)
        })?;
        let own_volume = is_shown_nowhere_else(root, &path, &mount, table);
        let holder = Holder {
            id: mount.id,
            unique_id: mount.unique_id,
            device: mount.device,
            root: mount.root,
            point: mount.point,
            own_volume,
        };
        Ok((path, holder))
    };
    apart.into_iter().map(holder).collect()
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

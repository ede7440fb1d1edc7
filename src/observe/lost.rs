//! Mounts of a run that was killed before it could write their ids down, in a root that was moved
//! since.
//!
//! The record has the root directory itself. So the root is found among the places where something
//! of that name is mounted on the root's own mount, and in no other directory is a mount taken for
//! ours.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::home::root_of;
use super::mountinfo::MountInfo;
use super::record::{BootRecord, RecordedMount, RootDirectory};
use super::state::SiteRecords;
use super::table::{self, Table};
use crate::base::HostPath;
use crate::{Result, sys};

impl RootDirectory {
    /// The directory at `path`, if there is one and the kernel has ids that are never reused.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let directory = sys::open_host(path, libc::O_PATH | libc::O_DIRECTORY).ok()?;
        Self::of(&sys::stat_fd(&directory).ok()?)
    }
}

impl SiteRecords {
    /// The same records with the ids of mounts that were recorded without them, as far as these are
    /// found in the moved root.
    pub fn with_ids(mut self) -> Result<Self> {
        if let Some(record) = self.record.as_mut()
            && let Some((directory, table)) = moved_away(record)?
        {
            name(record, directory, &table);
        }
        Ok(self)
    }

    /// The mount points of mounts that look as if they were made for the site, by a run that was
    /// killed before it could write their ids down; nothing shows that they are ours.
    pub fn suspects(&self) -> Result<BTreeSet<PathBuf>> {
        let mut points = BTreeSet::new();
        let Some(record) = &self.record else {
            return Ok(points);
        };
        let Some((directory, table)) = moved_away(record)? else {
            return Ok(points);
        };
        for seen in on_mount_of(directory, &table) {
            if lost(record).any(|mount| looks_like(seen, mount)) {
                points.insert(seen.point.clone());
            }
        }
        Ok(points)
    }
}

/// The root directory of a record with lost mounts, if it is not at its place any more, with the
/// mount table.
fn moved_away(record: &BootRecord) -> Result<Option<(RootDirectory, Table)>> {
    let Some(directory) = record.directory else {
        return Ok(None);
    };
    if lost(record).next().is_none() || RootDirectory::at(record.root.as_path()) == Some(directory)
    {
        return Ok(None); // none is lost, or they are found there
    }
    Ok(Some((directory, Table::read()?)))
}

/// The mounts without an id.
fn lost(record: &BootRecord) -> impl Iterator<Item = &RecordedMount> {
    let mounts = record.mounts.iter();
    mounts.filter(|mount| mount.unique_id.is_none())
}

fn name(record: &mut BootRecord, directory: RootDirectory, table: &Table) {
    let Some(root) = find(record, directory, table) else {
        return;
    };
    let ids = record.mounts.iter().filter_map(|mount| mount.unique_id);
    let mut known: HashSet<_> = ids.collect();
    for mount in &mut record.mounts {
        if mount.unique_id.is_none()
            && let Some(id) = id_at(&root, mount, table)
            && known.insert(id)
        {
            mount.unique_id = Some(id);
        }
    }
}

/// Where the directory is now, by the lost mounts in it.
fn find(record: &BootRecord, directory: RootDirectory, table: &Table) -> Option<HostPath> {
    let targets: HashSet<_> = lost(record).map(|mount| &mount.target).collect();
    let mut roots = BTreeSet::new();
    for seen in on_mount_of(directory, table) {
        for target in &targets {
            roots.extend(root_of(&seen.point, target));
        }
    }
    let mut roots = roots.into_iter();
    roots.find(|root| RootDirectory::at(root.as_path()) == Some(directory))
}

/// The mounts that are directly on the mount that `directory` is on.
fn on_mount_of(directory: RootDirectory, table: &Table) -> impl Iterator<Item = &MountInfo> {
    let on = sys::stat_mount(directory.mount).ok().map(|mount| mount.id);
    let mounts = table.mounts().iter();
    mounts.filter(move |seen| Some(seen.parent) == on && Some(seen.id) != on)
}

/// The id of the mount at the target of `mount`, if it shows the recorded file with the recorded
/// attributes.
fn id_at(root: &HostPath, mount: &RecordedMount, table: &Table) -> Option<u64> {
    let point = root.inside(&mount.target);
    let top = *table::stack(table.at(point.as_path())).last()?;
    let file = sys::open_host(point.as_path(), libc::O_PATH).ok()?;
    let stat = sys::stat_fd(&file).ok()?;
    let id = stat.unique_mount_id()?;
    let is_ours =
        top.unique_id == Some(id) && stat.file == mount.file && top.attributes == mount.attributes;
    is_ours.then_some(id)
}

/// Whether `seen` shows a file of the name of the recorded source, with the recorded attributes.
fn looks_like(seen: &MountInfo, mount: &RecordedMount) -> bool {
    let below = seen.root.strip_prefix("/").unwrap_or(&seen.root);
    let is_named = !below.as_os_str().is_empty() && mount.source.as_path().ends_with(below);
    is_named && seen.attributes == mount.attributes
}

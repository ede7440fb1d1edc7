//! The submounts that came along with recursive mounts.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use super::mountinfo::MountInfo;
use super::observed::{Observed, ObservedMount};
use super::record::{RecordedMount, Submount, Unknown};
use super::table::Table;
use crate::base::{HostPath, JailPath};
use crate::resolve::{Desired, FileId};
use crate::{Error, Result, sys};

/// The number of attempts to list the submounts of a mount while it is moved.
const ATTEMPTS: usize = 10;

/// The mounts in the one at `target`, whose unique ID is `unique_id`. `None` if they could not be
/// determined, because a directory above was being moved.
pub fn submounts(
    root: &HostPath,
    target: &JailPath,
    unique_id: Option<u64>,
) -> Result<Option<Vec<Submount>>> {
    let point = root.inside(target);
    let Some(id) = unique_id.filter(|_| sys::probe::statmount()) else {
        return Ok(in_table(&Table::read_text()?, point.as_path(), target));
    };
    let cannot = |error: io::Error| {
        Error::failed(format!("cannot ask for the mounts in {point}")).because(&error)
    };
    for _ in 0..ATTEMPTS {
        let point = sys::mount_point(id).map_err(cannot)?;
        let inside = Table::inside(id).map_err(cannot)?;
        let found = submounts_of(inside.mounts(), &point, target);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The mounts in the one at `point`, by the whole table. `None` if nothing is mounted there.
fn in_table(table: &Table, point: &Path, target: &JailPath) -> Option<Vec<Submount>> {
    let is_there = table.mounts().iter().any(|mount| mount.point == point);
    is_there.then(|| submounts_of(table.below(point), point, target))?
}

/// `mounts` as submounts of the recursive mount at `point`, whose target is `target`. `None` if one
/// of them is not below it.
fn submounts_of(mounts: &[MountInfo], point: &Path, target: &JailPath) -> Option<Vec<Submount>> {
    let submount = |mount: &MountInfo| {
        let below = mount.point.strip_prefix(point).ok()?;
        Some(Submount {
            target: JailPath::normal(target.as_path().join(below)),
            unique_id: mount.unique_id,
            more: Unknown::new(),
        })
    };
    mounts.iter().map(submount).collect()
}

/// The path in the jail of the mount point `point`, which is below `root`.
pub(super) fn in_the_jail(root: &HostPath, point: &Path) -> JailPath {
    JailPath::normal(Path::new("/").join(point.strip_prefix(root).unwrap_or(point)))
}

/// The recursive mounts of the site whose submounts are not recorded: their paths in the jail now,
/// and their sources.
fn unknown(desired: &Desired, observed: &Observed) -> Vec<(JailPath, HostPath)> {
    let recorded = || observed.recorded_mounts();
    let moved_to = |mount: &RecordedMount| {
        let is_it =
            |seen: &ObservedMount| mount.unique_id.is_some() && seen.unique_id == mount.unique_id;
        let found = observed
            .elsewhere
            .iter()
            .find(|(_, stack)| stack.iter().any(is_it));
        found.map(|(path, _)| path.clone())
    };
    let known = recorded()
        .filter(|mount| mount.recursive && mount.submounts.is_none() && mount.template.is_none());
    let known = known.map(|mount| {
        (
            moved_to(mount).unwrap_or_else(|| mount.target.clone()),
            mount.source.clone(),
        )
    });

    let new = desired
        .mounts
        .iter()
        .filter(|mount| mount.recursive && recorded().all(|known| known.target != mount.target));
    known
        .chain(new.map(|mount| (mount.target.clone(), mount.source.clone())))
        .collect()
}

/// Finds recorded mounts that were moved away, by the files that they show, and records their ids.
/// A run that was killed left no ids of its mounts. `file_at` looks into the jail.
pub(super) fn name_moved(observed: &mut Observed, file_at: impl Fn(&JailPath) -> Option<FileId>) {
    let Observed {
        record: Some(record),
        mounts,
        elsewhere,
        ..
    } = observed
    else {
        return;
    };

    let mut known: HashSet<_> = record
        .mounts
        .iter()
        .filter_map(|mount| mount.unique_id)
        .collect();
    let lost = record
        .mounts
        .iter_mut()
        .filter(|mount| is_lost(mount, mounts));

    for mount in lost {
        let found = elsewhere.iter().find_map(|(path, stack)| {
            let top = stack
                .last()
                .filter(|top| top.attributes == mount.attributes)?;
            let id = top.unique_id.filter(|id| !known.contains(id))?;
            (file_at(path) == Some(mount.file)).then_some(id)
        });
        known.extend(found);
        mount.unique_id = found;
    }
}

/// Whether the mount is recorded without an id, and nothing is mounted where it was made.
pub(super) fn is_lost(
    mount: &RecordedMount,
    mounts: &BTreeMap<JailPath, Vec<ObservedMount>>,
) -> bool {
    mount.unique_id.is_none() && !mounts.contains_key(&mount.target)
}

/// Notes the mounts elsewhere that show the same file as the source of their recursive mount has at
/// that place. `file_at` looks into the jail.
pub(super) fn compare(
    desired: &Desired,
    observed: &mut Observed,
    file_at: impl Fn(&JailPath) -> Option<FileId>,
) {
    for (target, source) in unknown(desired, observed) {
        let as_in_source = |path: &&JailPath| {
            let Some(below) = path
                .below(&target)
                .filter(|below| !below.as_os_str().is_empty())
            else {
                return false;
            };
            let there =
                sys::open_host(&source.as_path().join(below), libc::O_PATH).and_then(sys::stat_fd);
            there.is_ok_and(|there| Some(there.file) == file_at(path))
        };
        let found: Vec<_> = observed
            .elsewhere
            .keys()
            .filter(as_in_source)
            .cloned()
            .collect();
        observed.as_in_source.extend(found);
    }
}

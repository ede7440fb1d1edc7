//! The submounts that came along with recursive mounts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use super::mountinfo::MountInfo;
use super::observed::{Observed, ObservedMount};
use super::record::{RecordedMount, Submount, Unknown};
use super::table::Table;
use crate::base::{ErrorContext, HostPath, JailPath};
use crate::resolve::{Desired, FileId};
use crate::{Result, sys};

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
    let cannot = format_args!("cannot ask for the mounts in {point}");
    for _ in 0..ATTEMPTS {
        let point = sys::mount_point(id).context(cannot)?;
        let inside = Table::inside(id).context(cannot)?;
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
    if !is_there {
        return None;
    }
    submounts_of(table.below(point), point, target)
}

/// `mounts` as submounts of the recursive mount at `point`, whose target is `target`. `None` if one
/// of them is not below it.
fn submounts_of(mounts: &[MountInfo], point: &Path, target: &JailPath) -> Option<Vec<Submount>> {
    let mut submounts = vec![];
    for mount in mounts {
        let below = mount.point.strip_prefix(point).ok()?;
        submounts.push(Submount {
            target: JailPath::normal(target.as_path().join(below)),
            unique_id: mount.unique_id,
            more: Unknown::new(),
        });
    }
    Some(submounts)
}

/// The path in the jail of the mount point `point`, which is below `root`.
pub(super) fn in_the_jail(root: &HostPath, point: &Path) -> JailPath {
    JailPath::normal(Path::new("/").join(point.strip_prefix(root).unwrap_or(point)))
}

/// A recursive mount whose submounts are not recorded.
struct UnrecordedTree<'o> {
    /// Its path in the jail now.
    target: &'o JailPath,
    source: &'o HostPath,
}

/// The recursive mounts of the site whose submounts are not recorded.
fn unrecorded_trees<'o>(desired: &'o Desired, observed: &'o Observed) -> Vec<UnrecordedTree<'o>> {
    let mut trees = vec![];
    let mut recorded = BTreeSet::new();
    for mount in observed.recorded_mounts() {
        recorded.insert(&mount.target);
        if mount.is_tree() && mount.submounts.is_none() {
            trees.push(UnrecordedTree {
                target: place_elsewhere(mount, observed).unwrap_or(&mount.target),
                source: &mount.source,
            });
        }
    }
    for mount in &desired.mounts {
        if mount.recursive && !recorded.contains(&mount.target) {
            trees.push(UnrecordedTree {
                target: &mount.target,
                source: &mount.source,
            });
        }
    }
    trees
}

/// The path where the recorded mount is now, if it is not at a target any more.
fn place_elsewhere<'o>(mount: &RecordedMount, observed: &'o Observed) -> Option<&'o JailPath> {
    let id = mount.unique_id?;
    for (path, stack) in &observed.elsewhere {
        if stack.iter().any(|seen| seen.unique_id == Some(id)) {
            return Some(path);
        }
    }
    None
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

    let ids = record.mounts.iter().filter_map(|mount| mount.unique_id);
    let mut known: HashSet<_> = ids.collect();
    for mount in &mut record.mounts {
        if !is_lost(mount, mounts) {
            continue;
        }
        for (path, stack) in elsewhere.iter() {
            if let Some(top) = stack.last()
                && let Some(id) = top.unique_id
                && top.attributes == mount.attributes
                && !known.contains(&id)
                && file_at(path) == Some(mount.file)
            {
                known.insert(id);
                mount.unique_id = Some(id);
                break;
            }
        }
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
    let mut found = vec![];
    for tree in unrecorded_trees(desired, observed) {
        for path in observed.elsewhere.keys() {
            if let Some(file) = tree.file_in_source(path)
                && file_at(path) == Some(file)
            {
                found.push(path.clone());
            }
        }
    }
    observed.as_in_source.extend(found);
}

impl UnrecordedTree<'_> {
    /// The file that the source has where the mount shows `path`, which is inside of it.
    fn file_in_source(&self, path: &JailPath) -> Option<FileId> {
        let below = path.below(self.target)?;
        if below.as_os_str().is_empty() {
            return None;
        }
        let file = sys::open_host(&self.source.as_path().join(below), libc::O_PATH).ok()?;
        Some(sys::stat_fd(&file).ok()?.file)
    }
}

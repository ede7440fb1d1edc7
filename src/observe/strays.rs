//! Recorded mounts that are not where they were made.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::observed::{Observed, ObservedMount, Stray};
use crate::base::HostPath;
use crate::sys;

/// A path of this many bytes is too long for system calls.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// Adds the recorded mounts that were moved away, and takes them out of the mounts elsewhere.
pub(super) fn find_strays(observed: &mut Observed) {
    let mut strays = strays(observed);
    strays.sort_by(|a, b| b.point.cmp(&a.point));
    let is_stray = |seen: &ObservedMount| {
        let mut strays = strays.iter();
        strays.any(|stray| Some(stray.unique_id) == seen.unique_id)
    };
    for mounts in observed.elsewhere.values_mut() {
        mounts.retain(|seen| !is_stray(seen));
    }
    observed.elsewhere.retain(|_, mounts| !mounts.is_empty());
    observed.strays = strays;
    observed.under_root = under_root(observed);
}

/// The recorded mounts that were not seen at their targets because something is mounted over the
/// root.
fn under_root(observed: &Observed) -> BTreeSet<u64> {
    let (Some(directory), Some(record)) = (&observed.directory, &observed.record) else {
        return BTreeSet::new();
    };
    let mut ids = BTreeSet::new();
    for mount in &record.mounts {
        if let Some(id) = mount.unique_id
            && !has(observed.stack(&mount.target), id)
            && is_on_another_root(id, directory.mount, &record.root).unwrap_or(false)
        {
            ids.insert(id);
        }
    }
    ids
}

fn has(stack: &[ObservedMount], id: u64) -> bool {
    stack.iter().any(|seen| seen.unique_id == Some(id))
}

/// Whether the mount `id` is at or below the path `root`, but not on the mount that is visible
/// there.
fn is_on_another_root(id: u64, visible: u64, root: &HostPath) -> io::Result<bool> {
    let mut mount = sys::stat_mount(id)?;
    while mount.point.starts_with(root.as_path()) && mount.point != root.as_path() {
        if mount.parent == visible {
            return Ok(false);
        }
        mount = sys::stat_mount(mount.parent)?;
    }
    Ok(true)
}

/// Recorded mounts that still exist but were not seen where they were made. A mount that has come
/// back meanwhile is included: somebody moves it to and fro, and without an entry in this list it
/// would be forgotten.
fn strays(observed: &Observed) -> Vec<Stray> {
    let mut strays = vec![];
    for mount in observed.recorded_mounts() {
        let Some(id) = mount.unique_id else {
            continue;
        };
        let here = observed.elsewhere.get(&mount.target);
        let is_here =
            has(observed.stack(&mount.target), id) || here.is_some_and(|stack| has(stack, id));
        if is_here {
            continue;
        }
        let point = mount_point(id);
        if point.is_some() || sys::mount_exists(id) {
            strays.push(Stray {
                target: mount.target.clone(),
                unique_id: id,
                point,
            });
        }
    }
    strays
}

/// The mount point of the mount `id`, if it can be used in system calls.
fn mount_point(id: u64) -> Option<PathBuf> {
    let point = sys::stat_mount(id).ok()?.point;
    let length = point.as_os_str().len();
    (1..PATH_MAX).contains(&length).then_some(point)
}

//! Recorded mounts that are not where they were made.

use std::collections::BTreeSet;
use std::io;

use super::observed::{Observed, Stray};
use super::record::RecordedMount;
use crate::base::HostPath;
use crate::sys;

/// A path of this many bytes is too long for system calls.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// Adds the recorded mounts that were moved away, and takes them out of the mounts elsewhere.
pub(super) fn find_strays(observed: &mut Observed) {
    let strays = strays(observed);
    observed.elsewhere.retain(|_, mounts| {
        mounts.retain(|seen| {
            strays
                .iter()
                .all(|stray| Some(stray.unique_id) != seen.unique_id)
        });
        !mounts.is_empty()
    });
    observed.strays = strays;
    observed.under_root = under_root(observed);
}

/// The recorded mounts that were not seen at their targets because something is mounted over the
/// root.
fn under_root(observed: &Observed) -> BTreeSet<u64> {
    let (Some(directory), Some(record)) = (&observed.directory, &observed.record) else {
        return BTreeSet::new();
    };
    let is_seen = |mount: &RecordedMount, id: u64| {
        let stack = observed.stack(&mount.target);
        stack.iter().any(|seen| seen.unique_id == Some(id))
    };
    let recorded = record.mounts.iter();
    let unseen = recorded.filter_map(|mount| mount.unique_id.filter(|id| !is_seen(mount, *id)));
    unseen
        .filter(|id| is_on_another_root(*id, directory.mount, &record.root).unwrap_or(false))
        .collect()
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
    let recorded = observed.recorded_mounts();
    let elsewhere = recorded.filter_map(|mount| {
        let id = mount.unique_id?;
        let here = observed.mounts.get(&mount.target).into_iter().flatten();
        let here = here.chain(observed.elsewhere.get(&mount.target).into_iter().flatten());
        if here.into_iter().any(|seen| seen.unique_id == Some(id)) {
            return None;
        }
        let point = sys::stat_mount(id).map(|mount| mount.point).ok();
        let point = point.filter(|point| (1..PATH_MAX).contains(&point.as_os_str().len()));
        (point.is_some() || sys::mount_exists(id)).then(|| Stray {
            target: mount.target.clone(),
            unique_id: id,
            point,
        })
    });
    elsewhere.collect()
}

//! Mounts in the root that are not at a target.

use std::collections::BTreeSet;
use std::io;

use super::mounts::listed;
use super::root::{ObservedRoot, cannot_ask};
use crate::Result;
use crate::base::{HostPath, JailPath};
use crate::observe::mountinfo::MountInfo;
use crate::observe::observed::Observed;
use crate::observe::submounts::{self, in_the_jail};
use crate::observe::table::{self, Table};
use crate::resolve::Desired;

impl ObservedRoot<'_> {
    pub(super) fn look_elsewhere(
        &self,
        desired: &Desired,
        observed: &mut Observed,
    ) -> io::Result<()> {
        let Some(table) = self.table else {
            return self.ask_elsewhere(desired, observed);
        };
        let seen: usize = observed.mounts.values().map(Vec::len).sum();
        if table.len() > seen {
            list(self.path, table, observed);
        }
        Ok(())
    }

    /// Adds the mounts elsewhere without a table: those in recursive mounts besides grafts, or all
    /// of them if a recorded mount is lost.
    fn ask_elsewhere(&self, desired: &Desired, observed: &mut Observed) -> io::Result<()> {
        let is_lost = |mount| submounts::is_lost(mount, &observed.mounts);
        if observed.recorded_mounts().any(is_lost) {
            let table = Table::read().map_err(io::Error::other)?;
            list(self.path, table.below(self.path.as_path()), observed);
            return Ok(());
        }

        let mut recursive = BTreeSet::new();
        for mount in observed.recorded_mounts() {
            if mount.is_tree() {
                recursive.insert(mount.target.clone());
            }
        }
        for mount in &desired.mounts {
            if mount.recursive {
                recursive.insert(mount.target.clone());
            }
        }
        list_inside(self.path, recursive, observed)
    }
}

/// Adds the mounts that are in grafts and did not come along with them, and those among mounts that
/// a graft may cover. Without the whole table they are only looked for where it matters, since the
/// kernel examines every mount for this.
pub(crate) fn look_into_grafts(root: &HostPath, observed: &mut Observed) -> Result<()> {
    let grafts = observed.graft_targets();
    if observed.has_mounts_besides(&grafts) {
        let table = Table::read()?;
        list(root, table.below(root.as_path()), observed);
        return Ok(());
    }
    list_inside(root, grafts, observed).map_err(|error| cannot_ask(root, &error))
}

/// Adds the mounts inside of those at `targets`.
fn list_inside(
    root: &HostPath,
    targets: impl IntoIterator<Item = JailPath>,
    observed: &mut Observed,
) -> io::Result<()> {
    for target in targets {
        if let Some(top) = observed.top(&target)
            && let Some(id) = top.unique_id
        {
            let inside = Table::inside(id)?;
            list(root, inside.below(root.as_path()), observed);
        }
    }
    Ok(())
}

/// Adds the mounts at paths that were not looked at as targets.
fn list(root: &HostPath, mounts: &[MountInfo], observed: &mut Observed) {
    for mounts in mounts.chunk_by(|a, b| a.point == b.point) {
        let path = in_the_jail(root, &mounts[0].point);
        if !observed.mounts.contains_key(&path) {
            let stack = table::stack(mounts).into_iter().map(listed).collect();
            observed.elsewhere.insert(path, stack);
        }
    }
}

//! The mounts on which the directories of a root are expected.

use std::collections::{BTreeMap, HashSet};

use crate::base::{HostPath, JailPath};
use crate::observe::{Observed, ObservedMount, RecordedMount, Table};
use crate::plan::{Plan, Step};
use crate::sys::Stat;

/// The mounts in a root in which things may be made and mounted.
#[derive(Debug)]
pub(super) struct Ours {
    /// The id of the mount that the root directory is on, as `statx(2)` reports it.
    root: Option<u64>,
    /// The volumes that belong to the site.
    volumes: HashSet<Id>,
    /// The mounts of ours and their submounts, by their targets.
    mounts: BTreeMap<JailPath, HashSet<Id>>,
    /// The targets of recursive mounts whose submounts are known only by their places.
    recursive: Vec<JailPath>,
}

/// The id of a mount, and whether it is never reused.
pub(super) type Id = (u64, bool);

impl Ours {
    /// Collects the mounts, as observed before `plan` is carried out, in a root on the mount
    /// `root`: those that stay and those that go.
    pub(super) fn of(root: Option<u64>, plan: &Plan, observed: &Observed) -> Self {
        let mut ours = Self {
            root,
            volumes: HashSet::new(),
            mounts: BTreeMap::new(),
            recursive: vec![],
        };
        for holder in observed.holders.values() {
            if holder.own_volume {
                ours.volumes.extend(ids(holder.id, holder.unique_id));
            }
        }
        for keep in &plan.unchanged {
            ours.add_seen(&keep.target, observed);
        }
        for step in &plan.steps {
            if let Step::Detach { target, .. } = step {
                ours.add_seen(target, observed);
            } else if let Step::Swap { mount, .. } = step {
                ours.add_seen(&mount.target, observed);
            }
        }

        let recorded = observed.recorded_mounts();
        for mount in recorded.chain(&plan.unchanged) {
            ours.came_along(mount, observed);
        }
        ours
    }

    /// Adds the mounts that were observed at `target`.
    fn add_seen(&mut self, target: &JailPath, observed: &Observed) {
        for seen in seen_at(observed, target) {
            let known = self.mounts.entry(target.clone()).or_default();
            known.extend(ids(seen.id, seen.unique_id));
        }
    }

    /// Adds the submounts of `mount`, as recorded and as observed.
    pub(super) fn came_along(&mut self, mount: &RecordedMount, observed: &Observed) {
        for submount in mount.submounts.iter().flatten() {
            let known = self.mounts.entry(submount.target.clone()).or_default();
            if let Some(id) = submount.unique_id {
                known.insert((id, true));
            }
            for seen in seen_at(observed, &submount.target) {
                known.insert((seen.id, false));
            }
        }
        if mount.recursive && !self.recursive.contains(&mount.target) {
            self.recursive.push(mount.target.clone());
        }
    }

    /// Adds a mount that was just made at `target`.
    pub(super) fn add(&mut self, target: &JailPath, id: Option<Id>) {
        self.mounts.entry(target.clone()).or_default().extend(id);
    }

    /// Removes the mount `gone` at `target`, or all mounts there if it is `None`. With the last
    /// one, the mounts below `target` are also removed.
    pub(super) fn remove(&mut self, target: &JailPath, gone: Option<&ObservedMount>) {
        if let (Some(known), Some(gone)) = (self.mounts.get_mut(target), gone) {
            for id in ids(gone.id, gone.unique_id) {
                known.remove(&id);
            }
            if !known.is_empty() {
                return;
            }
        }
        self.mounts.retain(|path, _| !path.starts_with(target));
    }

    /// Whether the directory at `path`, with the status `found`, is on the expected mount.
    pub(super) fn is_home(&self, root: &HostPath, path: &JailPath, found: &Stat) -> bool {
        let Some(id) = id_of(found) else {
            return self.root.is_none(); // before Linux 5.8, without /proc
        };

        let above = path.directories_above();
        for target in [path].into_iter().chain(above.iter().rev()) {
            if let Some(known) = self.mounts.get(target) {
                return known.contains(&id) || !id.1 && self.came_along_at(root, target, id.0);
            }
        }
        self.root == Some(id.0) || self.volumes.contains(&id)
    }

    /// Whether the mount with this id in the table is inside a recursive mount of ours whose
    /// submounts are not known by id.
    fn came_along_at(&self, root: &HostPath, target: &JailPath, id: u64) -> bool {
        let mut recursive = self.recursive.iter();
        let Some(recursive) = recursive.find(|recursive| target.starts_with(recursive)) else {
            return false;
        };
        let inside = root.inside(recursive);
        let Ok(table) = Table::read_text() else {
            return false;
        };
        match table.point_of(id) {
            Some(point) => point.starts_with(inside.as_path()) && point != inside.as_path(),
            None => false,
        }
    }
}

/// The id of the mount that the file with the status `found` is on.
pub(super) fn id_of(found: &Stat) -> Option<Id> {
    Some((found.mount_id?, found.mount_id_is_unique))
}

fn ids(id: u64, unique_id: Option<u64>) -> Vec<Id> {
    let mut ids = vec![(id, false)];
    if let Some(unique_id) = unique_id {
        ids.push((unique_id, true));
    }
    ids
}

/// The mounts that were observed at `target`.
fn seen_at<'o>(
    observed: &'o Observed,
    target: &JailPath,
) -> impl Iterator<Item = &'o ObservedMount> {
    let stacks = [observed.mounts.get(target), observed.elsewhere.get(target)];
    stacks.into_iter().flatten().flatten()
}

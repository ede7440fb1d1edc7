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
        let own = observed.holders.values().filter(|holder| holder.own_volume);
        let volumes = own
            .flat_map(|volume| ids(volume.id, volume.unique_id))
            .collect();
        let mut ours = Self {
            root,
            volumes,
            mounts: BTreeMap::new(),
            recursive: vec![],
        };

        let going = plan
            .steps
            .iter()
            .filter(|step| matches!(step, Step::Detach { .. } | Step::Swap { .. }));
        let targets = plan
            .unchanged
            .iter()
            .map(|keep| &keep.target)
            .chain(going.filter_map(Step::path));
        for target in targets {
            for seen in seen_at(observed, target) {
                ours.mounts
                    .entry(target.clone())
                    .or_default()
                    .extend(ids(seen.id, seen.unique_id));
            }
        }

        let recorded = observed.recorded_mounts();
        for mount in recorded.chain(&plan.unchanged) {
            ours.came_along(mount, observed);
        }
        ours
    }

    /// Adds the submounts of `mount`, as recorded and as observed.
    pub(super) fn came_along(&mut self, mount: &RecordedMount, observed: &Observed) {
        for submount in mount.submounts.iter().flatten() {
            let known = self.mounts.entry(submount.target.clone()).or_default();
            known.extend(submount.unique_id.map(|id| (id, true)));
            known.extend(seen_at(observed, &submount.target).flat_map(|seen| ids(seen.id, None)));
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
        let known = self.mounts.entry(target.clone()).or_default();
        match gone {
            Some(gone) => known.retain(|id| ids(gone.id, gone.unique_id).all(|gone| gone != *id)),
            None => known.clear(),
        }
        if known.is_empty() {
            self.mounts.retain(|path, _| !path.starts_with(target));
        }
    }

    /// Whether the directory at `path`, with the status `found`, is on the expected mount.
    pub(super) fn is_home(&self, root: &HostPath, path: &JailPath, found: &Stat) -> bool {
        let Some(id) = found.mount_id.map(|id| (id, found.mount_id_is_unique)) else {
            return self.root.is_none(); // before Linux 5.8, without /proc
        };

        let above = path.directories_above();
        let Some(target) = [path]
            .into_iter()
            .chain(above.iter().rev())
            .find(|path| self.mounts.contains_key(path))
        else {
            return self.root == Some(id.0) || self.volumes.contains(&id);
        };
        self.mounts[target].contains(&id) || !id.1 && self.came_along_at(root, target, id.0)
    }

    /// Whether the mount with this id in the table is inside a recursive mount of ours whose
    /// submounts are not known by id.
    fn came_along_at(&self, root: &HostPath, target: &JailPath, id: u64) -> bool {
        let Some(recursive) = self
            .recursive
            .iter()
            .find(|recursive| target.starts_with(recursive))
        else {
            return false;
        };
        let inside = root.inside(recursive);
        let point = Table::read_text().ok().and_then(|table| table.point_of(id));
        point.is_some_and(|point| point.starts_with(inside.as_path()) && point != inside.as_path())
    }
}

fn ids(id: u64, unique_id: Option<u64>) -> impl Iterator<Item = Id> {
    [(id, false)]
        .into_iter()
        .chain(unique_id.map(|id| (id, true)))
}

/// The mounts that were observed at `target`.
fn seen_at<'o>(
    observed: &'o Observed,
    target: &JailPath,
) -> impl Iterator<Item = &'o ObservedMount> {
    let stacks = [observed.mounts.get(target), observed.elsewhere.get(target)];
    stacks.into_iter().flatten().flatten()
}

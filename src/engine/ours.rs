//! On which mount a directory in a root is to be.

use std::collections::{BTreeMap, HashSet};

use crate::base::{HostPath, JailPath};
use crate::observe::{Observed, ObservedMount, RecordedMount, Table};
use crate::plan::{Plan, Step};
use crate::sys::Stat;

/// The mounts in a root that things may be made and mounted in.
#[derive(Debug)]
pub(super) struct Ours {
    /// The id of the one that the root directory is on, as `statx(2)` has it.
    root: Option<u64>,
    /// Volumes of the site's own.
    volumes: HashSet<Id>,
    /// Those of ours, and what came along with them, by their targets.
    mounts: BTreeMap<JailPath, HashSet<Id>>,
    /// Where what came along is known by its place only.
    recursive: Vec<JailPath>,
}

/// A mount's id, and whether that is never reused.
pub(super) type Id = (u64, bool);

impl Ours {
    /// Before `plan` is carried out, in a root on the mount `root`: those that stay and those that
    /// go, as they were seen.
    pub(super) fn of(root: Option<u64>, plan: &Plan, observed: &Observed) -> Self {
        let volumes = observed.holders.values().filter(|holder| holder.own_volume);
        let volumes = volumes
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
            .keep
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
        let recorded = observed.record.iter().flat_map(|record| &record.mounts);
        for mount in recorded.chain(&plan.keep) {
            ours.came_along(mount, observed);
        }
        ours
    }

    /// Adds what came along with `mount`, as it is recorded and as it was seen.
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

    /// Adds one that was made just now at `target`.
    pub(super) fn add(&mut self, target: &JailPath, id: Option<Id>) {
        self.mounts.entry(target.clone()).or_default().extend(id);
    }

    /// Forgets one that was taken away at `target`, or all; and what was in the last one.
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

    /// Whether the directory at `path`, of which `found` was found, is on the mount that it is to
    /// be on.
    pub(super) fn is_home(&self, root: &HostPath, path: &JailPath, found: &Stat) -> bool {
        let Some(id) = found.mount_id.map(|id| (id, found.mount_id_is_unique)) else {
            return self.root.is_none(); // without /proc, before Linux 5.8
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

    /// Whether the mount with this id in the table is in a recursive one of ours of which it is not
    /// known what came along.
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

/// The mounts that were seen at `target`.
fn seen_at<'o>(
    observed: &'o Observed,
    target: &JailPath,
) -> impl Iterator<Item = &'o ObservedMount> {
    let stacks = [observed.mounts.get(target), observed.elsewhere.get(target)];
    stacks.into_iter().flatten().flatten()
}

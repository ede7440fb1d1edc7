//! Mounts inside of others: what becomes of them when the mount above them changes.

use std::collections::BTreeSet;

use super::Planner;
use crate::Error;
use crate::base::hints::unmount_tree;
use crate::base::{ErrorCode, Extent, JailPath};
use crate::plan::compare::is_taken_over;
use crate::plan::step::{State, Step};

impl Planner<'_> {
    /// Plans the mounts inside of those that change. Each of them would vanish with the old mount,
    /// or be hidden by the new one.
    pub(super) fn plan_nested(&mut self) {
        self.uncover();
        let changing: BTreeSet<_> = self.mount.keys().chain(self.detach.keys()).collect();
        let changing = changing.into_iter().cloned().collect();

        self.renew_inside(&changing);
        self.refuse_foreign_inside(&changing);
    }

    /// Detaches our mounts that hide others of ours. The next plan sees those.
    fn uncover(&mut self) {
        for above in self.uncovered.clone() {
            for seen in self.observed.stack(&above).iter().rev() {
                self.add_detach(&above, seen.clone(), Extent::Mount);
            }
            self.plan.unchanged.retain(|keep| keep.target != above);
            self.mount.remove(&above);
        }
    }

    /// Detaches our mounts inside of those at `changing`, and attaches them again afterwards.
    fn renew_inside(&mut self, changing: &BTreeSet<JailPath>) {
        let desired = self.desired.mounts.iter();
        for mount in desired.filter(|mount| above(&mount.target, changing).is_some()) {
            for seen in self.observed.stack(&mount.target).iter().rev() {
                if !self.will_be_covered(std::slice::from_ref(seen)) {
                    self.add_detach(&mount.target, seen.clone(), mount.extent());
                }
            }
            self.plan
                .unchanged
                .retain(|keep| keep.target != mount.target);
            let step = Step::Attach {
                mount: mount.clone(),
                graft: None,
            };
            self.mount.insert(mount.target.clone(), step);
        }
    }

    /// Refuses to change a mount that a foreign one lies in.
    fn refuse_foreign_inside(&mut self, changing: &BTreeSet<JailPath>) {
        let states = self.plan.states.iter();
        let foreign = states.filter(|state| state.state == State::Foreign && state.mount.is_none());
        let in_the_way =
            foreign.filter_map(|state| Some((&state.target, above(&state.target, changing)?)));

        let conflicts: Vec<_> = in_the_way
            .map(|(foreign, above)| self.on_the_way(foreign, above))
            .collect();
        self.plan.conflicts.extend(conflicts);
    }

    /// The error of a `foreign` mount inside the one at `above`, which is to change.
    fn on_the_way(&self, foreign: &JailPath, above: &JailPath) -> Error {
        let cannot = if self.observed.mounts.contains_key(above) {
            "replaced"
        } else {
            "mounted on"
        };
        let root = &self.desired.root;
        // What is in a mount that mountjail did not make may be at that mount's source as well.
        let is_taken_over = |top| is_taken_over(self.observed, above, top);
        let top = self.observed.stack(above).last();
        let first = if top.is_some_and(is_taken_over) {
            above
        } else {
            foreign
        };
        let how = unmount_tree(root.inside(first));
        let (foreign, above) = (root.inside(foreign), root.inside(above));
        Error::failed(format!(
            "{}: {above} cannot be {cannot}: {foreign} is mounted in it, and not by mountjail",
            self.desired.site
        ))
        .at(&foreign)
        .coded(ErrorCode::Conflict)
        .hint(format!("unmount it: {how}"))
    }

    /// Postpones everything below a mount that is detached without a successor, or that was moved
    /// there: only the next plan can see what is beneath it. Returns the targets of those mounts.
    pub(super) fn postpone_hidden(
        &mut self,
        attach: &mut BTreeSet<JailPath>,
    ) -> BTreeSet<JailPath> {
        let going = self.going();
        if going.is_empty() {
            return going;
        }

        let mounts = self.desired.mounts.iter();
        let targets: BTreeSet<_> = mounts.map(|mount| &mount.target).collect();
        let mut hidden = BTreeSet::new();
        for target in &targets {
            let mut uncovered = self.uncovered.iter();
            let uncovers = uncovered.any(|uncovered| uncovered.starts_with(target));
            if uncovers || is_hidden(target, &targets, &going, &hidden) {
                hidden.insert(*target);
            }
        }
        let mut links = self.desired.links.iter();
        let hides_links = links.any(|link| is_hidden(&link.path, &targets, &going, &hidden));

        let before = self.mount.len();
        self.mount.retain(|target, _| !hidden.contains(target));
        attach.retain(|target| !hidden.contains(target));
        self.plan.unfinished =
            hides_links || self.mount.len() < before || !self.uncovered.is_empty();
        going
    }

    /// The targets where a mount goes and none takes its place.
    fn going(&self) -> BTreeSet<JailPath> {
        let Self {
            desired, observed, ..
        } = self;
        let stays = |target: &JailPath| {
            desired.mounts.iter().any(|mount| mount.target == *target)
                && !self.uncovered.contains(target)
        };
        let moved = observed.strays.iter().filter_map(|stray| {
            let at = desired.root.path_inside(stray.point.as_deref()?)?;
            (at != stray.target).then_some(at)
        });
        let detached = self.detach.keys().filter(|target| !stays(target));
        detached.cloned().chain(moved).collect()
    }
}

/// The deepest of `paths` that is a directory above `target`.
fn above<'p>(target: &JailPath, paths: &'p BTreeSet<JailPath>) -> Option<&'p JailPath> {
    let above = target.directories_above();
    above.iter().rev().find_map(|above| paths.get(above))
}

/// Whether `path` can only be seen when the mounts at `going` are gone. `hidden`: the targets of
/// which this is already known. A path inside a mount that will be there is seen in its source.
fn is_hidden(
    path: &JailPath,
    targets: &BTreeSet<&JailPath>,
    going: &BTreeSet<JailPath>,
    hidden: &BTreeSet<&JailPath>,
) -> bool {
    let above = path.directories_above();
    match above.iter().rev().find(|above| targets.contains(above)) {
        Some(target) => hidden.contains(target),
        None => above.iter().any(|above| going.contains(above)),
    }
}

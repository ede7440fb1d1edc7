//! Mounts inside of others: what becomes of them when the mount above them changes.

use std::collections::BTreeSet;

use super::Planner;
use crate::Error;
use crate::base::hints::unmount_tree;
use crate::base::{ErrorCode, Extent, JailPath};
use crate::plan::compare::is_taken_over;
use crate::plan::state::State;

impl Planner<'_> {
    /// Plans the mounts inside of those that change. Each of them would vanish with the old mount,
    /// or be hidden by the new one.
    pub(super) fn plan_nested(&mut self) {
        self.uncover();
        let changing = self.mount.keys().chain(self.detach.keys());
        let changing: BTreeSet<_> = changing.copied().collect();
        self.renew_inside(&changing);
        self.refuse_foreign_inside(&changing);
    }

    /// Detaches our mounts that hide others of ours. The next plan sees those.
    fn uncover(&mut self) {
        for above in self.uncovered.clone() {
            for seen in self.observed.stack(above).iter().rev() {
                self.add_detach(above, seen, Extent::Mount);
            }
            self.forget(above);
            self.mount.remove(above);
        }
    }

    /// None of the mounts at `target` stays.
    fn forget(&mut self, target: &JailPath) {
        self.plan.unchanged.retain(|keep| keep.target != *target);
    }

    /// Detaches our mounts inside of those at `changing`, and attaches them again afterwards.
    fn renew_inside(&mut self, changing: &BTreeSet<&JailPath>) {
        for mount in &self.desired.mounts {
            if above(&mount.target, changing).is_none() {
                continue;
            }
            for seen in self.observed.stack(&mount.target).iter().rev() {
                if !self.will_be_covered(seen) && !self.was_moved_to(&mount.target, seen) {
                    self.add_detach(&mount.target, seen, mount.extent());
                }
            }
            self.forget(&mount.target);
            self.add_attach(mount, None);
        }
    }

    /// Refuses to change a mount that a foreign one lies in.
    fn refuse_foreign_inside(&mut self, changing: &BTreeSet<&JailPath>) {
        for state in &self.plan.states {
            if state.state == State::Foreign
                && state.mount.is_none()
                && let Some(above) = above(&state.target, changing)
            {
                let error = self.on_the_way(&state.target, above);
                self.plan.conflicts.push(error);
            }
        }
    }

    /// The error of a `foreign` mount inside the one at `above`, which is to change.
    fn on_the_way(&self, foreign: &JailPath, above: &JailPath) -> Error {
        let cannot = if self.observed.mounts.contains_key(above) {
            "replaced"
        } else {
            "mounted on"
        };
        let root = &self.desired.root;
        // A mount in one that mountjail did not make may be at the source of that one as well.
        let first = match self.observed.top(above) {
            Some(top) if is_taken_over(self.observed, above, top) => above,
            _ => foreign,
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

    /// Postpones all mounts below one that is detached without a successor, and at or below one
    /// that was moved there: only the next plan can see what is beneath it. Returns the targets of
    /// those mounts.
    pub(super) fn postpone_hidden(
        &mut self,
        attach: &mut BTreeSet<&JailPath>,
    ) -> BTreeSet<JailPath> {
        let going = self.going();
        if going.is_empty() {
            return going;
        }

        let targets = self.desired.targets();
        let mut hidden = BTreeSet::new();
        for target in &targets {
            let mut uncovered = self.uncovered.iter();
            let uncovers = uncovered.any(|uncovered| uncovered.starts_with(target));
            if uncovers
                || self.moved_to.contains(target)
                || is_hidden(target, &targets, &going, &hidden)
            {
                hidden.insert(*target);
            }
        }

        let before = self.mount.len();
        self.mount.retain(|target, _| !hidden.contains(target));
        attach.retain(|target| !hidden.contains(target));
        self.plan.unfinished |= self.mount.len() < before || !self.uncovered.is_empty();
        going
    }

    /// The targets where a mount goes and none takes its place.
    fn going(&self) -> BTreeSet<JailPath> {
        let mut going = self.moved_to.clone();
        for target in self.detach.keys() {
            if self.desired.mount_at(target).is_none() || self.uncovered.contains(target) {
                going.insert(JailPath::clone(target));
            }
        }
        going
    }
}

/// The deepest of `paths` that is a directory above `target`.
fn above<'p>(target: &JailPath, paths: &BTreeSet<&'p JailPath>) -> Option<&'p JailPath> {
    for above in target.directories_above().iter().rev() {
        if let Some(path) = paths.get(above) {
            return Some(path);
        }
    }
    None
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

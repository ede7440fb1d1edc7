//! Mounts that are there and that the manifest does not ask for: orphans, foreign mounts, mounts
//! that were moved away, and mounts that others hide.

use std::collections::BTreeSet;
use std::path::Path;

use super::Planner;
use super::grafts::NOT_IN_MANIFEST;
use super::held::Held;
use crate::Error;
use crate::base::hints::unmount_tree;
use crate::base::{ErrorCode, JailPath};
use crate::observe::{ObservedMount, RecordedMount, Stray};
use crate::plan::compare::{MountedOn, came_along};
use crate::plan::state::{MountState, State};
use crate::plan::step::Step;

impl<'a> Planner<'a> {
    /// Plans the recorded mounts that the manifest no longer asks for.
    pub(super) fn plan_orphans(&mut self) {
        let desired = self.desired.targets();
        let mounts = self.observed.recorded_mounts();
        let recorded: BTreeSet<_> = mounts.map(|mount| &mount.target).collect();
        for target in recorded {
            // It may have been put back into a graft.
            let is_in_a_graft = self.grafts.iter().any(|graft| graft.has(target));
            if !desired.contains(target) && !is_in_a_graft {
                self.plan_orphans_at(target);
            }
        }
    }

    fn plan_orphans_at(&mut self, target: &'a JailPath) {
        let observed = self.observed;
        let stack = observed.stack(target);
        for (nth, seen) in stack.iter().enumerate().rev() {
            let Some(known) = observed.record_of(target, seen) else {
                if self.was_moved_to(target, seen) {
                    continue;
                }
                self.plan_beneath(target, seen, &stack[..nth]);
                return;
            };
            let (state, detail) = if self.observed.absent.contains(target) {
                (State::Absent, super::absent(&known.source))
            } else {
                (State::Orphan, NOT_IN_MANIFEST.to_owned())
            };
            if !known.is_graft() {
                self.add_undesired(target, Some(known), state, detail);
            }
            self.add_detach(target, seen, known.extent());
        }
    }

    /// Plans the mounts `below` the mount `foreign` at `target`. Ours can only be detached when
    /// that is gone, and are recorded until then.
    fn plan_beneath(
        &mut self,
        target: &'a JailPath,
        foreign: &ObservedMount,
        below: &[ObservedMount],
    ) {
        let mut on = MountedOn::Others;
        for seen in below {
            if let Some(known) = self.observed.own_record_of(target, seen) {
                on = MountedOn::Ours;
                self.hidden.insert(target);
                self.buried.push(known);
            }
        }
        self.add_foreign(target, foreign, on);
    }

    /// Plans the recorded mounts that were not seen where they were made.
    pub(super) fn plan_strays(&mut self) {
        for stray in &self.observed.strays {
            let made_at = self.desired.root.inside(&stray.target);
            if stray.point.as_deref() == Some(made_at.as_path()) {
                self.plan_unseen_one(stray);
                continue;
            }
            self.keep_beneath(stray);
            let detail = format!("moved away with a directory, to {}", stray.place());
            self.add_undesired(&stray.target, None, State::Orphan, detail);
            self.strays.push(Step::DetachStray(stray.clone()));
        }
    }

    /// Keeps the records of what `stray` was moved onto, if the manifest asks for a mount there.
    /// The next plan sees it.
    fn keep_beneath(&mut self, stray: &Stray) {
        let point = stray.point.as_deref();
        let Some(at) = point.and_then(|point| self.desired.root.path_inside(point)) else {
            return;
        };
        if self.desired.mount_at(&at).is_some() && self.is_taken(&at) {
            let stack = self.observed.stack(&at).iter();
            let known = stack.filter_map(|seen| self.observed.own_record_of(&at, seen));
            self.buried.extend(known);
        }
    }

    /// Plans a recorded mount that is where it was made and was not seen there.
    fn plan_unseen_one(&mut self, stray: &'a Stray) {
        let under_root = self.observed.under_root.contains(&stray.unique_id);
        if !under_root && self.is_covered(&stray.target) {
            self.add_covered(&stray.target, Some(stray.unique_id));
            return;
        }
        let mut recorded = self.observed.recorded_mounts();
        let known = recorded.find(|mount| mount.unique_id == Some(stray.unique_id));
        self.plan_hidden(&stray.target, known);
    }

    /// Whether a graft of ours hides a mount at `target`: a run was killed before it had detached
    /// that.
    fn is_covered(&self, target: &JailPath) -> bool {
        let Held::Ours(above) = self.held_by(target) else {
            return false;
        };
        let Some(top) = self.observed.top(above) else {
            return false;
        };
        match self.observed.record_of(above, top) {
            Some(known) => known.is_graft(),
            None => false,
        }
    }

    /// Plans the mounts at other paths below the root. Submounts that came along with a recursive
    /// mount are part of it.
    pub(super) fn plan_elsewhere(&mut self) {
        for (target, stack) in &self.observed.elsewhere {
            // A recorded mount is in the table, but was not found in the jail.
            let mut has_hidden = false;
            for seen in stack {
                if let Some(known) = self.observed.own_record_of(target, seen) {
                    self.plan_hidden(target, Some(known));
                    has_hidden = true;
                }
            }
            if has_hidden {
                continue;
            }
            let is_foreign = |seen: &&ObservedMount| {
                !came_along(self.observed, target, seen) && !self.is_in_moved_graft(target, seen)
            };
            if let Some(foreign) = stack.iter().rfind(is_foreign) {
                self.add_foreign(target, foreign, MountedOn::Others);
            }
        }
    }

    /// Plans a mount of ours that is where it was made, but hidden by a mount above it. If that
    /// mount is ours, it is detached, so that the next plan sees the hidden one. A foreign mount
    /// inside the root is a conflict. If the root itself is hidden, nothing is in the way in the
    /// root that is visible now; the mount stays recorded until it can be seen again.
    fn plan_hidden(&mut self, target: &'a JailPath, known: Option<&'a RecordedMount>) {
        let held = match known.and_then(|known| known.unique_id) {
            Some(id) if self.observed.under_root.contains(&id) => Held::Root,
            _ => self.held_by(target),
        };
        let (state, detail) = match held {
            Held::Theirs(above) if self.is_moved_to(&above) => {
                self.plan.unfinished = true;
                let above = above.display();
                (
                    State::Orphan,
                    format!("hidden by what was moved to {above}"),
                )
            }
            Held::Theirs(above) => (State::Orphan, self.refuse_hidden(target, &above)),
            Held::Volume(above) => (State::Orphan, self.refuse_hidden(target, above)),
            Held::Ours(above) => {
                let detail = format!("hidden by what is mounted on {above}");
                self.uncovered.insert(above);
                (State::Orphan, detail)
            }
            Held::Root => (State::Hidden, "by what is mounted over the root".to_owned()),
        };
        self.add_undesired(target, known, state, detail);
        self.hidden.insert(target);
        self.buried.extend(known);
    }

    /// Adds the conflict of a mount of ours at `target` that a foreign mount at `above` on the host
    /// hides, and gives the detail of its state.
    fn refuse_hidden(&mut self, target: &JailPath, above: &Path) -> String {
        let (site, at) = (&self.desired.site, self.desired.root.inside(target));
        let how = unmount_tree(above);
        let above = above.display();
        let error = Error::failed(format!("{site}: cannot detach {at}"))
            .at(&at)
            .coded(ErrorCode::Conflict)
            .because_of(format!("{above} is mounted above it, and not by mountjail"))
            .hint(format!("unmount it: {how}"));
        self.plan.conflicts.push(error);
        format!("{above} is mounted above it")
    }

    /// Adds the state of a mount at `target`, which has the record `known` if it is ours.
    pub(super) fn add_undesired(
        &mut self,
        target: &JailPath,
        known: Option<&RecordedMount>,
        state: State,
        detail: impl Into<String>,
    ) {
        let source = known.map(|known| &known.source);
        let state = MountState::undesired(target, source, state, detail);
        self.plan.states.push(state);
    }

    fn add_foreign(&mut self, target: &JailPath, seen: &ObservedMount, on: MountedOn) {
        let root = match &seen.fs_root {
            Some(root) => format!("{} of its file system; ", root.display()),
            None => String::new(),
        };
        let on_ours = match on {
            MountedOn::Ours => ", on top of one of ours",
            MountedOn::Others => "",
        };
        let detail = format!("{root}not mounted by mountjail{on_ours}");
        self.add_undesired(target, None, State::Foreign, detail);
    }
}

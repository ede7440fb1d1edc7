//! Mounts that are there and that the manifest does not ask for: orphans, foreign mounts, mounts
//! that were moved away, and mounts that others hide.

use std::collections::BTreeSet;

use super::Planner;
use super::grafts::{NOT_IN_MANIFEST, detach_covered};
use super::held::Held;
use crate::Error;
use crate::base::hints::unmount_tree;
use crate::base::{ErrorCode, JailPath};
use crate::observe::{ObservedMount, RecordedMount};
use crate::plan::compare::{came_along, recorded};
use crate::plan::step::{MountState, State, Step};

impl Planner<'_> {
    /// Plans the recorded mounts that the manifest no longer asks for.
    pub(super) fn plan_orphans(&mut self) {
        let mounts = self.desired.mounts.iter();
        let desired: BTreeSet<_> = mounts.map(|mount| &mount.target).collect();
        let mounts = self.observed.recorded_mounts();
        let recorded: BTreeSet<_> = mounts.map(|mount| &mount.target).collect();

        for target in recorded.difference(&desired) {
            // It may have been put back into a graft.
            if self.plan.graft_with(target).is_none() {
                self.plan_orphans_at(target);
            }
        }
    }

    fn plan_orphans_at(&mut self, target: &JailPath) {
        let stack = self.observed.stack(target);
        let record_of = |seen| recorded(self.observed, target, seen);
        for (nth, seen) in stack.iter().enumerate().rev() {
            let Some(known) = record_of(seen) else {
                let covers_ours = stack[..nth].iter().any(|seen| record_of(seen).is_some());
                self.add_foreign(target, seen, covers_ours);
                return;
            };
            let (state, detail) = if self.observed.absent.contains(target) {
                (State::Absent, super::absent(&known.source))
            } else {
                (State::Orphan, NOT_IN_MANIFEST.to_owned())
            };
            if known.template.is_none() {
                self.add_undesired(target, Some(known), state, detail);
            }
            self.add_detach(target, seen.clone(), known.extent());
        }
    }

    /// Plans the recorded mounts that were not seen where they were made.
    pub(super) fn plan_strays(&mut self) {
        for stray in &self.observed.strays {
            let made_at = self.desired.root.inside(&stray.target);
            if stray.point.as_deref() == Some(made_at.as_path()) {
                let mut recorded = self.observed.recorded_mounts();
                let known = recorded.find(|mount| mount.unique_id == Some(stray.unique_id));
                let under_root = self.observed.under_root.contains(&stray.unique_id);
                if !under_root && self.is_covered(&stray.target) {
                    self.covered
                        .extend(detach_covered(&stray.target, Some(stray.unique_id)));
                } else {
                    self.plan_hidden(&stray.target, known);
                }
                continue;
            }
            let detail = format!("moved away with a directory, to {}", stray.place());
            self.add_undesired(&stray.target, None, State::Orphan, detail);
            self.strays.push(Step::DetachStray(stray.clone()));
        }
    }

    /// Whether a graft of ours hides a mount at `target`: a run was killed before it had detached
    /// that.
    fn is_covered(&self, target: &JailPath) -> bool {
        let Held::Ours(above) = self.held_by(target) else {
            return false;
        };
        let mut top = self.observed.stack(&above).iter().rev();
        let known = top
            .next()
            .and_then(|top| recorded(self.observed, &above, top));
        known.is_some_and(|known| known.template.is_some())
    }

    /// Plans the mounts at other paths below the root. Submounts that came along with a recursive
    /// mount are part of it.
    pub(super) fn plan_elsewhere(&mut self) {
        for (target, stack) in &self.observed.elsewhere {
            // A recorded mount is in the table, but was not found in the jail.
            let ours = |seen| recorded(self.observed, target, seen);
            let hidden: Vec<_> = stack.iter().filter_map(ours).collect();
            if !hidden.is_empty() {
                for known in hidden {
                    self.plan_hidden(target, Some(known));
                }
                continue;
            }
            let is_foreign = |seen: &&ObservedMount| !came_along(self.observed, target, seen);
            if let Some(foreign) = stack.iter().rfind(is_foreign) {
                self.add_foreign(target, foreign, false);
            }
        }
    }

    /// Plans a mount of ours that is where it was made, but hidden by a mount above it. If that
    /// mount is ours, it is detached, so that the next plan sees the hidden one. A foreign mount
    /// inside the root is a conflict. If the root itself is hidden, nothing is in the way in the
    /// root that is visible now; the mount stays recorded until it can be seen again.
    fn plan_hidden(&mut self, target: &JailPath, known: Option<&RecordedMount>) {
        let id = known.and_then(|known| known.unique_id);
        let under_root = id.is_some_and(|id| self.observed.under_root.contains(&id));
        let held = if under_root {
            Held::Root
        } else {
            self.held_by(target)
        };
        let (state, detail) = match held {
            Held::Theirs(above) | Held::Volume(above) => {
                let (site, at) = (&self.desired.site, self.desired.root.inside(target));
                let how = unmount_tree(&above);
                let above = above.display();
                let error = Error::failed(format!("{site}: cannot detach {at}"))
                    .at(&at)
                    .coded(ErrorCode::Conflict)
                    .because_of(format!("{above} is mounted above it, and not by mountjail"))
                    .hint(format!("unmount it: {how}"));
                self.plan.conflicts.push(error);
                (State::Orphan, format!("{above} is mounted above it"))
            }
            Held::Ours(above) => {
                let detail = format!("hidden by what is mounted on {above}");
                self.uncovered.insert(above);
                (State::Orphan, detail)
            }
            Held::Root => (State::Hidden, "by what is mounted over the root".to_owned()),
        };
        self.add_undesired(target, known, state, detail);
        self.hidden.insert(target.clone());
        self.buried.extend(known.cloned());
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

    fn add_foreign(&mut self, target: &JailPath, seen: &ObservedMount, covers_ours: bool) {
        let root = seen.fs_root.as_ref();
        let root = root.map(|root| format!("{} of its file system; ", root.display()));
        let on_ours = if covers_ours {
            ", on top of one of ours"
        } else {
            ""
        };
        let root = root.unwrap_or_default();
        let detail = format!("{root}not mounted by mountjail{on_ours}");
        self.add_undesired(target, None, State::Foreign, detail);
    }
}

//! Mounts of ours that were moved to other paths in the root, with a directory or by themselves.
//! They go first; only the next plan can see what they hide.

use std::path::Path;

use super::Planner;
use crate::base::JailPath;
use crate::observe::ObservedMount;
use crate::plan::compare::{Verdict, graft_verdict, verdict};
use crate::plan::graft::Graft;
use crate::plan::placeholders::Placeholders;
use crate::resolve::Mount;

impl<'a> Planner<'a> {
    /// The verdict on the target of `mount`.
    pub(super) fn verdict(&self, mount: &Mount) -> Verdict<'a> {
        if self.is_taken(&mount.target) {
            return Verdict::Attach;
        }
        verdict(self.observed, mount)
    }

    /// The verdict on the target of `graft`.
    pub(super) fn graft_verdict(&self, graft: &Graft) -> Verdict<'a> {
        if self.is_taken(&graft.mount.target) {
            return Verdict::Attach;
        }
        graft_verdict(self.observed, graft)
    }

    /// Whether what is mounted at `target` was moved there. It shows nothing of what belongs there,
    /// even if it looks the same.
    pub(super) fn is_taken(&self, target: &JailPath) -> bool {
        let top = self.observed.top(target);
        top.is_some_and(|top| self.was_moved_to(target, top))
    }

    /// Whether `seen`, a mount at `target`, was moved there, or lies in one that was.
    pub(super) fn was_moved_to(&self, target: &JailPath, seen: &ObservedMount) -> bool {
        if self.moved_to.is_empty() || self.observed.is_ours(target, seen) {
            return false;
        }
        let mut strays = self.observed.strays.iter();
        let mut above = target.directories_above().into_iter();
        strays.any(|stray| seen.unique_id == Some(stray.unique_id))
            || above.any(|above| self.moved_to.contains(&above))
    }

    /// Whether `seen`, a mount at `target`, came along with a graft that was moved there.
    pub(super) fn is_in_moved_graft(&self, target: &JailPath, seen: &ObservedMount) -> bool {
        let mut members = self.observed.members();
        self.was_moved_to(target, seen)
            && members.any(|member| seen.master.is_some() && member.peer_group == seen.master)
    }

    /// Whether a mount of ours was moved to `point` on the host.
    pub(super) fn is_moved_to(&self, point: &Path) -> bool {
        let at = self.desired.root.path_inside(point);
        at.is_some_and(|at| self.moved_to.contains(&at))
    }

    /// Leaves it to the next plan to remove what was made where mounts of ours were moved to.
    pub(super) fn postpone_removals(&mut self, made: &mut Placeholders) {
        let before = made.remove.len();
        made.remove.retain(|step| match step.path() {
            Some(path) => !self.is_beneath_moved(path),
            None => true,
        });
        self.plan.unfinished |= made.remove.len() < before;
    }

    fn is_beneath_moved(&self, path: &JailPath) -> bool {
        let mut moved_to = self.moved_to.iter();
        moved_to.any(|moved_to| path.starts_with(moved_to))
    }
}

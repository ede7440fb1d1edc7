//! Grafts: the directories that a site has from a template, and the mounts that come along.

use std::collections::HashSet;
use std::sync::Arc;

use super::Planner;
use crate::base::JailPath;
use crate::observe::ObservedMount;
use crate::plan::change::GraftChange;
use crate::plan::compare::{Verdict, is_same};
use crate::plan::graft::Graft;
use crate::plan::state::State;
use crate::plan::step::Step;
use crate::resolve::Mount;

/// The detail of an orphan.
pub(super) const NOT_IN_MANIFEST: &str = "no longer in the manifest";

/// The graft that is mounted at a target already.
struct StandingGraft {
    /// Whether the graft that is there stays.
    stays: bool,
    /// Whether it stays, and its template shows the same.
    same: bool,
    /// Whether its template is gone. All of it is replaced then.
    cut_off: bool,
}

impl<'a> Planner<'a> {
    /// Plans a graft and the mounts that come along with it.
    pub(super) fn plan_graft(&mut self, graft: &'a Graft) {
        let verdict = self.graft_verdict(graft);
        match verdict {
            Verdict::Attach => self.cover(graft),
            Verdict::NotOurs {
                because: State::Shadowed,
                ..
            } => {
                self.add_shadowed(graft);
                self.carry_out(&graft.mount, None, &verdict);
                return;
            }
            _ => {}
        }
        let stays = matches!(verdict, Verdict::Keep(_));
        let found = StandingGraft {
            stays,
            same: stays && is_same(self.observed, graft),
            cut_off: self.observed.is_cut_off(&graft.mount.target),
        };
        let mut change = GraftChange {
            template: Arc::clone(&graft.template),
            attach: vec![],
            swap: vec![],
            detach: self.orphan_members(graft),
        };
        for member in &graft.template.mounts {
            self.plan_member(member, &found, &mut change);
        }

        if stays && (!found.same || !change.swap.is_empty()) {
            let step = Step::Refresh {
                graft: graft.clone(),
                change,
            };
            self.refresh.insert(&graft.mount.target, step);
            self.carry_out(&graft.mount, None, &verdict);
        } else {
            self.carry_out(&graft.mount, Some(change), &verdict);
        }
    }

    /// Adds the states of the mounts that came along with a graft on which somebody has mounted
    /// something.
    fn add_shadowed(&mut self, graft: &Graft) {
        let detail = format!("hidden by what is mounted on {}", graft.mount.target);
        for member in &graft.template.mounts {
            self.add_state(member, State::Shadowed, Some(detail.clone()));
        }
    }

    /// Plans a mount that comes along with a graft: by a `change` of the template, or, if only this
    /// site's copy is not right, where it is.
    fn plan_member(
        &mut self,
        member: &'a Arc<Mount>,
        found: &StandingGraft,
        change: &mut GraftChange,
    ) {
        if self.plan_absent(member) {
            return;
        }
        let verdict = self.verdict(member);
        match &verdict {
            Verdict::Keep(seen) => {
                if found.cut_off || seen.iter().any(|seen| self.will_be_covered(seen)) {
                    change.swap.push(Arc::clone(member));
                }
            }
            Verdict::Attach if !found.same => change.attach.push(Arc::clone(member)),
            _ if !found.stays || self.shows_its_template(member, &verdict) => {
                change.swap.push(Arc::clone(member));
            }
            _ => self.carry_out(member, None, &verdict),
        }
        self.add_state_by(member, verdict);
    }

    /// Plans the mounts that were made one by one where `graft` comes. They stay until it is there,
    /// so that nothing is ever absent.
    fn cover(&mut self, graft: &Graft) {
        let at = &graft.mount.target;
        for mount in self.observed.recorded_mounts() {
            if !mount.target.starts_with(at) {
                continue;
            }
            let mut stack = self.observed.stack(&mount.target).iter();
            if stack.any(|seen| seen.is(mount)) {
                self.add_covered(&mount.target, mount.unique_id);
                self.buried.push(mount);
            }
        }
    }

    /// Whether `seen`, which is right, goes beneath a graft that comes.
    pub(super) fn will_be_covered(&self, seen: &ObservedMount) -> bool {
        for step in &self.covered {
            if let Step::DetachCovered { unique_id, .. } = step
                && seen.unique_id == Some(*unique_id)
            {
                return true;
            }
        }
        false
    }

    /// Plans to detach a mount that a graft covers, once that is there.
    pub(super) fn add_covered(&mut self, target: &JailPath, unique_id: Option<u64>) {
        if let Some(unique_id) = unique_id {
            let target = target.clone();
            self.covered.push(Step::DetachCovered { target, unique_id });
        }
    }

    /// Whether the template shows the same as the site does at the target of `member`, where
    /// `verdict` found another file than the desired one.
    fn shows_its_template(&self, member: &Mount, verdict: &Verdict<'_>) -> bool {
        match verdict {
            Verdict::Swap {
                top,
                because: State::Stale | State::WrongSource,
                ..
            } => self.observed.member(&member.target, top).is_some(),
            _ => false,
        }
    }

    /// The targets of the mounts that came along with the graft at the same place and that are not
    /// in its template any more.
    fn orphan_members(&self, graft: &Graft) -> Vec<JailPath> {
        let wanted = graft.template.targets();
        let mut members = self.observed.members_at(&graft.mount.target);
        members
            .retain(|target| !wanted.contains(target) && self.observed.mounts.contains_key(target));
        members
    }

    /// Adds the states of mounts that came along with grafts and that the manifest no longer asks
    /// for. They go with the graft.
    pub(super) fn plan_orphan_members(&mut self) {
        let states = self.plan.states.iter();
        let known: HashSet<_> = states.map(|state| &state.target).collect();
        let mut orphans = vec![];
        for mount in self.observed.members() {
            let mut stack = self.observed.stack(&mount.target).iter();
            if !known.contains(&mount.target)
                && stack.any(|seen| self.observed.member(&mount.target, seen) == Some(mount))
            {
                orphans.push(mount);
            }
        }
        for orphan in orphans {
            self.add_undesired(&orphan.target, Some(orphan), State::Orphan, NOT_IN_MANIFEST);
        }
    }
}

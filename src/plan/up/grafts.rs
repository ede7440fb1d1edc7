//! Grafts: the directories that a site has from a template, and the mounts that come along.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::Planner;
use crate::base::JailPath;
use crate::observe::{Observed, ObservedMount};
use crate::plan::compare::{Verdict, graft_verdict, is_recorded, is_same, verdict};
use crate::plan::graft::{Graft, GraftChange};
use crate::plan::step::{State, Step};
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

impl Planner<'_> {
    /// Plans a graft and the mounts that come along with it.
    pub(super) fn plan_graft(&mut self, graft: &Graft) {
        let verdict = graft_verdict(self.observed, graft);
        if matches!(verdict, Verdict::Attach) {
            self.cover(graft);
        }
        let stays = matches!(verdict, Verdict::Keep(_));
        let found = StandingGraft {
            stays,
            same: stays && is_same(self.observed, graft),
            cut_off: self.observed.is_cut_off(&graft.mount.target),
        };
        let mut change = GraftChange {
            template: graft.template.clone(),
            attach: vec![],
            swap: vec![],
            detach: self.orphan_members(graft),
        };
        for member in &graft.template.mounts {
            self.plan_member(member, &found, &mut change);
        }

        let mount = graft.mount.clone();
        if stays && (!found.same || !change.swap.is_empty()) {
            let graft = graft.clone();
            let step = Step::Refresh { graft, change };
            self.refresh.insert(mount.target.clone(), step);
            self.carry_out(&mount, None, verdict);
        } else {
            self.carry_out(&mount, Some(change), verdict);
        }
    }

    /// Plans a mount that comes along with a graft: by a `change` of the template, or, if only this
    /// site's copy is not right, where it is.
    fn plan_member(
        &mut self,
        member: &Arc<Mount>,
        found: &StandingGraft,
        change: &mut GraftChange,
    ) {
        if self.plan_absent(member) {
            return;
        }
        let verdict = verdict(self.observed, member);
        self.add_state_by(member, &verdict);
        match verdict {
            Verdict::Keep(seen) if found.cut_off || self.will_be_covered(&seen) => {
                change.swap.push(member.clone());
            }
            Verdict::Keep(_) => {}
            Verdict::Attach if !found.same => change.attach.push(member.clone()),
            _ if !found.stays || self.shows_its_template(member, &verdict) => {
                change.swap.push(member.clone());
            }
            verdict => self.carry_out(member, None, verdict),
        }
    }

    /// Plans the mounts that were made one by one where `graft` comes. They stay until it is there,
    /// so that nothing is ever absent.
    fn cover(&mut self, graft: &Graft) {
        let at = &graft.mount.target;
        let recorded = self.observed.recorded_mounts();
        let standing = recorded.filter(|mount| {
            let mut stack = self.observed.stack(&mount.target).iter();
            mount.target.starts_with(at) && stack.any(|seen| is_recorded(seen, mount))
        });
        for mount in standing {
            self.buried.push(mount.clone());
            self.covered
                .extend(detach_covered(&mount.target, mount.unique_id));
        }
    }

    /// Whether one of these mounts, which are right, goes beneath a graft that comes.
    pub(super) fn will_be_covered(&self, seen: &[ObservedMount]) -> bool {
        let mut ids = seen.iter().filter_map(|seen| seen.unique_id);
        ids.any(|id| self.covered.iter().any(|step| is_of(step, id)))
    }

    /// Whether the template shows the same as the site does at the target of `member`, where
    /// `verdict` found another file than the desired one.
    fn shows_its_template(&self, member: &Mount, verdict: &Verdict) -> bool {
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
        let mounts = graft.template.mounts.iter();
        let wanted: BTreeSet<_> = mounts.map(|mount| &mount.target).collect();
        let mut members = members_of(self.observed, &graft.mount.target);
        members
            .retain(|target| !wanted.contains(target) && self.observed.mounts.contains_key(target));
        members
    }

    /// Adds the states of mounts that came along with grafts and that the manifest no longer asks
    /// for. They go with the graft.
    pub(super) fn plan_orphan_members(&mut self) {
        let states = self.plan.states.iter();
        let known: HashSet<_> = states.map(|state| &state.target).collect();
        let unknown = self.observed.members();
        let unknown: Vec<_> = unknown
            .filter(|mount| !known.contains(&mount.target))
            .collect();
        for mount in unknown {
            let mut stack = self.observed.stack(&mount.target).iter();
            if stack.any(|seen| self.observed.member(&mount.target, seen) == Some(mount)) {
                self.add_undesired(&mount.target, Some(mount), State::Orphan, NOT_IN_MANIFEST);
            }
        }
    }
}

pub(super) fn detach_covered(target: &JailPath, unique_id: Option<u64>) -> Option<Step> {
    let target = target.clone();
    unique_id.map(|unique_id| Step::DetachCovered { target, unique_id })
}

fn is_of(step: &Step, id: u64) -> bool {
    matches!(step, Step::DetachCovered { unique_id, .. } if *unique_id == id)
}

/// The targets of the mounts that came along with the graft at `target`.
pub(in crate::plan) fn members_of(observed: &Observed, target: &JailPath) -> Vec<JailPath> {
    let grafts = observed.grafts.iter();
    let members = grafts
        .filter(|graft| graft.target == *target)
        .flat_map(|graft| graft.members.iter());
    let mut targets: Vec<_> = members.map(|member| member.target.clone()).collect();
    targets.dedup();
    targets
}

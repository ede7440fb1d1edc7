//! The plan that takes a site down.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compare::{MountedOn, came_along, describe, is_right};
use super::placeholders::removal;
use super::state::{MountState, State};
use super::step::{Along, Plan, Step};
use crate::base::{HostPath, JailPath, SiteName};
use crate::observe::{Observed, ObservedMount};
use crate::resolve::{Desired, Mount};

/// The plan that removes everything that is recorded and has not been replaced since. If the
/// records are lost, our mounts are recognised by `known`, which the manifest asks for: they show
/// the files of its sources.
pub fn down(
    site: &SiteName,
    root: &HostPath,
    known: Option<&Desired>,
    observed: &Observed,
) -> Plan {
    let mut plan = Plan::empty(site.clone(), root.clone());
    // The deepest come first, so submounts are detached before their recursive mount.
    let all: BTreeMap<_, _> = observed.mounts.iter().chain(&observed.elsewhere).collect();
    for (target, stack) in all.into_iter().rev() {
        let place = DownTarget {
            observed,
            known,
            target,
            desired: known.and_then(|known| known.mount_at(target)),
        };
        place.plan(stack, &mut plan);
    }
    keep_whole(&mut plan, observed);

    for stray in &observed.strays {
        plan.steps.push(Step::DetachStray(stray.clone()));
    }
    if let Some(kept) = &observed.kept {
        plan.steps.extend(kept.made.iter().rev().map(removal));
        for file in &kept.files {
            plan.steps.push(Step::RemoveFile(file.clone()));
        }
    }
    plan.states.sort_by(|a, b| a.target.cmp(&b.target));
    plan
}

/// One target, and what the manifest asks for.
struct DownTarget<'o> {
    observed: &'o Observed,
    known: Option<&'o Desired>,
    target: &'o JailPath,
    /// The mount at the target that the manifest asks for.
    desired: Option<&'o Arc<Mount>>,
}

impl DownTarget<'_> {
    /// Plans the mounts that are there, a `stack` with the bottom first: ours go, as far as none
    /// that is not ours is on top of them.
    fn plan(&self, stack: &[ObservedMount], plan: &mut Plan) {
        for (nth, seen) in stack.iter().enumerate().rev() {
            let member = self.observed.member(self.target, seen);
            let known = self.observed.own_record_of(self.target, seen).or(member);
            let source = match known {
                Some(known) => Some(&known.source),
                None => self.desired_source(seen),
            };
            if source.is_none() && !self.came_along(seen) {
                let mut below = stack[..nth].iter();
                let on = MountedOn::ours_if(below.any(|below| self.is_ours(below)));
                plan.states.push(not_ours(self.target, seen, on));
                return;
            }

            plan.states.push(MountState {
                target: self.target.clone(),
                source: source.cloned(),
                state: State::Ok,
                detail: None,
                mount: self.desired.cloned(),
            });
            if member.is_some() {
                continue; // it goes with its graft
            }
            let along = match known {
                Some(known) if known.is_graft() => {
                    Along::Members(self.observed.members_at(self.target))
                }
                _ => Along::Nothing,
            };
            let step = Step::detach(self.target, seen, source, along);
            plan.steps.push(step);
        }
    }

    fn is_ours(&self, seen: &ObservedMount) -> bool {
        self.observed.is_ours(self.target, seen)
            || self.desired_source(seen).is_some()
            || self.came_along(seen)
    }

    /// The source in the manifest, if `seen` is the mount that it asks for.
    fn desired_source(&self, seen: &ObservedMount) -> Option<&HostPath> {
        match self.desired {
            Some(mount) if is_right(seen, mount) => Some(&mount.source),
            _ => None,
        }
    }

    fn came_along(&self, seen: &ObservedMount) -> bool {
        came_along(self.observed, self.target, seen) && !self.is_in_theirs()
    }

    /// Whether the target is in a recursive mount of the manifest in whose place a mount of
    /// somebody else is. Then its submounts are not ours, whatever they show.
    fn is_in_theirs(&self) -> bool {
        let Some(known) = self.known else {
            return false;
        };
        for mount in &known.mounts {
            if mount.recursive
                && self.target.starts_with(&mount.target)
                && let Some(top) = self.observed.top(&mount.target)
                && !self.observed.is_ours(&mount.target, top)
                && !is_right(top, mount)
            {
                return true;
            }
        }
        false
    }
}

/// Leaves the submounts of recursive mounts that cannot be detached, because foreign mounts are in
/// them. Such a mount stays whole.
fn keep_whole(plan: &mut Plan, observed: &Observed) {
    let mut whole = vec![];
    for mount in observed.recorded_mounts() {
        let has_foreign = |state: &MountState| {
            state.state == State::Foreign && state.target.starts_with(&mount.target)
        };
        if mount.recursive && plan.states.iter().any(has_foreign) {
            whole.push(&mount.target);
        }
    }
    plan.steps.retain(|step| match step {
        Step::Detach {
            target,
            source: None,
            ..
        } => !whole.iter().any(|whole| target.starts_with(whole)),
        _ => true,
    });
}

/// The state of a foreign mount.
fn not_ours(target: &JailPath, seen: &ObservedMount, on: MountedOn) -> MountState {
    let (state, place) = match on {
        MountedOn::Ours => (State::Shadowed, "on top of it"),
        MountedOn::Others => (State::Foreign, "there"),
    };
    let what = describe(seen, None);
    let detail = format!("{what} is mounted {place}, and not by mountjail");
    MountState::undesired(target, None, state, detail)
}

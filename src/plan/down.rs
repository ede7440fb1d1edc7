//! The plan that takes a site down.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compare::{came_along, describe, is_right, recorded};
use super::placeholders::removal;
use super::step::{Along, MountState, Plan, State, Step};
use super::up::members_of;
use crate::base::{HostPath, JailPath, SiteName};
use crate::observe::{Observed, ObservedMount};
use crate::resolve::{Desired, Mount};

/// The plan that removes everything that is recorded and has not been replaced since. If the
/// records are lost, our mounts are recognised by `known`, which the manifest asks for: they show
/// the files of its sources.
pub fn down(site: SiteName, root: HostPath, known: Option<&Desired>, observed: &Observed) -> Plan {
    let mut plan = Plan::empty(site, root);
    // The deepest come first, so submounts are detached before their recursive mount.
    let all: BTreeMap<_, _> = observed.mounts.iter().chain(&observed.elsewhere).collect();
    for (target, stack) in all.into_iter().rev() {
        let desired = known.and_then(|known| {
            let mut mounts = known.mounts.iter();
            mounts.find(|mount| mount.target == *target)
        });
        let came_along =
            |seen: &_| came_along(observed, target, seen) && !is_in_theirs(observed, known, target);
        plan_stack(&mut plan, observed, (target, stack), desired, &came_along);
    }
    keep_whole(&mut plan, observed);

    let strays = observed.strays.iter().cloned();
    plan.steps.extend(strays.map(Step::DetachStray));
    if let Some(kept) = &observed.kept {
        plan.steps.extend(kept.made.iter().rev().map(removal));
        let files = kept.files.iter().cloned();
        plan.steps.extend(files.map(Step::RemoveFile));
    }
    plan.states.sort_by(|a, b| a.target.cmp(&b.target));
    plan
}

/// Plans the mounts at one target, of which `desired` is in the manifest: ours go, as far as none
/// that is not ours is on top of them.
fn plan_stack(
    plan: &mut Plan,
    observed: &Observed,
    (target, stack): (&JailPath, &[ObservedMount]),
    desired: Option<&Arc<Mount>>,
    came_along: &dyn Fn(&ObservedMount) -> bool,
) {
    let desired_source = |seen: &ObservedMount| {
        let right = desired.filter(|mount| is_right(seen, mount));
        right.map(|mount| &mount.source)
    };
    for (nth, seen) in stack.iter().enumerate().rev() {
        let member = observed.member(target, seen);
        let known = recorded(observed, target, seen);
        let source = known.map(|known| &known.source);
        let source = source.or_else(|| desired_source(seen)).cloned();
        if source.is_none() && !came_along(seen) {
            let is_ours = |seen: &_| {
                recorded(observed, target, seen).is_some()
                    || desired_source(seen).is_some()
                    || came_along(seen)
            };
            let covers_ours = stack[..nth].iter().any(is_ours);
            plan.states.push(not_ours(target, seen, covers_ours));
            return;
        }

        plan.states.push(MountState {
            target: target.clone(),
            source: source.clone(),
            state: State::Ok,
            detail: None,
            mount: desired.cloned(),
        });
        if member.is_some() {
            continue; // it goes with its graft
        }
        let along = if known.is_some_and(|known| known.template.is_some()) {
            Along::Members(members_of(observed, target))
        } else {
            Along::Nothing
        };
        plan.steps.push(Step::Detach {
            target: target.clone(),
            expected: seen.clone(),
            source,
            along,
        });
    }
}

/// Whether `path` is in a recursive mount of the manifest in whose place a mount of somebody else
/// is. Then its submounts are not ours, whatever they show.
fn is_in_theirs(observed: &Observed, known: Option<&Desired>, path: &JailPath) -> bool {
    let mounts = known.into_iter().flat_map(|known| &known.mounts);
    let mut above = mounts.filter(|mount| mount.recursive && path.starts_with(&mount.target));
    above.any(|mount| {
        let top = observed.stack(&mount.target).last();
        top.is_some_and(|top| {
            recorded(observed, &mount.target, top).is_none() && !is_right(top, mount)
        })
    })
}

/// Leaves the submounts of recursive mounts that cannot be detached, because foreign mounts are in
/// them.
fn keep_whole(plan: &mut Plan, observed: &Observed) {
    let foreign = plan.states.iter();
    let foreign = foreign.filter(|state| state.state == State::Foreign);
    let foreign: Vec<_> = foreign.map(|state| state.target.clone()).collect();
    plan.steps
        .retain(|step| !is_part_of_one_that_stays(observed, step, &foreign));
}

/// Whether a step detaches a submount of a recursive mount that cannot be detached, because
/// `foreign` mounts are in it. Such a mount stays whole.
fn is_part_of_one_that_stays(observed: &Observed, step: &Step, foreign: &[JailPath]) -> bool {
    let Step::Detach {
        target,
        source: None,
        ..
    } = step
    else {
        return false;
    };
    let recorded = observed.recorded_mounts();
    let mut above = recorded.filter(|mount| mount.recursive && target.starts_with(&mount.target));
    above.any(|mount| {
        foreign
            .iter()
            .any(|foreign| foreign.starts_with(&mount.target))
    })
}

/// The state of a foreign mount. `covers`: it is mounted on one of ours.
fn not_ours(target: &JailPath, seen: &ObservedMount, covers: bool) -> MountState {
    let (state, place) = if covers {
        (State::Shadowed, "on top of it")
    } else {
        (State::Foreign, "there")
    };
    let what = describe(seen, None);
    let detail = format!("{what} is mounted {place}, and not by mountjail");
    MountState::undesired(target, None, state, detail)
}

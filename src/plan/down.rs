//! The plan that takes a site down.

use std::collections::BTreeMap;

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
    let mut plan = Plan {
        site,
        root,
        manifest: None,
        steps: vec![],
        states: vec![],
        grafts: vec![],
        up_without_mounts: false,
        unchanged: vec![],
        unfinished: false,
        conflicts: vec![],
        in_the_way: vec![],
    };
    let desired = |target: &JailPath| {
        known.and_then(|known| known.mounts.iter().find(|mount| mount.target == *target))
    };

    // The deepest come first, so submounts are detached before their recursive mount.
    let all: BTreeMap<_, _> = observed.mounts.iter().chain(&observed.elsewhere).collect();
    for (target, stack) in all.into_iter().rev() {
        let mount = desired(target);
        let source_of = |seen: &_| source_of(observed, target, seen, mount.map(|mount| &**mount));
        let is_ours = |seen: &_| source_of(seen).is_some() || came_along(observed, target, seen);
        for (nth, seen) in stack.iter().enumerate().rev() {
            if !is_ours(seen) {
                let covers_ours = stack[..nth].iter().any(is_ours);
                plan.states.push(not_ours(target, seen, covers_ours));
                break;
            }

            let source = source_of(seen);
            plan.states.push(MountState {
                target: target.clone(),
                source: source.clone(),
                state: State::Ok,
                detail: None,
                mount: mount.cloned(),
            });
            if observed.member(target, seen).is_some() {
                continue; // it goes with its graft
            }
            let known = recorded(observed, target, seen);
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

    let foreign = plan
        .states
        .iter()
        .filter(|state| state.state == State::Foreign);
    let foreign: Vec<_> = foreign.map(|state| state.target.clone()).collect();
    plan.steps
        .retain(|step| !is_part_of_one_that_stays(observed, step, &foreign));

    plan.steps
        .extend(observed.strays.iter().cloned().map(Step::DetachStray));
    if let Some(kept) = &observed.kept {
        plan.steps.extend(kept.made.iter().rev().map(removal));
        plan.steps
            .extend(kept.files.iter().cloned().map(Step::RemoveFile));
    }
    plan.states.sort_by(|a, b| a.target.cmp(&b.target));
    plan
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

/// The source of `seen`, a mount at `target`, if it is ours.
fn source_of(
    observed: &Observed,
    target: &JailPath,
    seen: &ObservedMount,
    mount: Option<&Mount>,
) -> Option<HostPath> {
    if let Some(known) = recorded(observed, target, seen) {
        return Some(known.source.clone());
    }
    mount
        .filter(|mount| is_right(seen, mount))
        .map(|mount| mount.source.clone())
}

/// The state of a foreign mount. `covers`: it is mounted on one of ours.
fn not_ours(target: &JailPath, seen: &ObservedMount, covers: bool) -> MountState {
    let (state, detail) = if covers {
        (
            State::Shadowed,
            format!(
                "{} is mounted on top of it, and not by mountjail",
                describe(seen, None)
            ),
        )
    } else {
        (
            State::Foreign,
            format!(
                "{} is mounted there, and not by mountjail",
                describe(seen, None)
            ),
        )
    };
    MountState {
        target: target.clone(),
        source: None,
        state,
        detail: Some(detail),
        mount: None,
    }
}

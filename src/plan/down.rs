//! The steps from what is to nothing.

use super::compare::{is_right, recorded};
use super::placeholders::removal;
use super::types::{MountState, Plan, State, Step};
use crate::manifest::{HostPath, JailPath, SiteName};
use crate::observe::{Observed, SeenMount};
use crate::resolve::{Desired, Mount};

/// What takes the site away: all that is recorded and still is what was recorded. Where the records are
/// lost, `known`, what the manifest asks for, tells which mounts are ours: those that show the very files.
pub fn down(site: SiteName, root: HostPath, known: Option<&Desired>, observed: &Observed) -> Plan {
    let mut plan = Plan {
        site,
        root,
        steps: vec![],
        states: vec![],
        keep: vec![],
        unfinished: false,
        conflicts: vec![],
    };
    let desired =
        |target: &JailPath| known.and_then(|known| known.mounts.iter().find(|mount| mount.target == *target));
    // The deepest first.
    for (target, stack) in observed.mounts.iter().rev() {
        let mut detached = false;
        for seen in stack.iter().rev() {
            let Some((source, recursive)) =
                ours(observed, target, seen, desired(target).map(|mount| &**mount))
            else {
                if !detached || observed.record.iter().flat_map(|r| &r.mounts).any(|m| m.target == *target) {
                    plan.states.push(foreign(target, seen));
                }
                break;
            };
            detached = true;
            plan.states.push(MountState {
                target: target.clone(),
                source: Some(source.clone()),
                state: State::Ok,
                detail: None,
                mount: desired(target).cloned(),
            });
            plan.steps.push(Step::Detach {
                target: target.clone(),
                expected: seen.clone(),
                source: Some(source),
                recursive,
            });
        }
    }
    plan.steps.extend(observed.strays.iter().cloned().map(Step::DetachStray));
    let came_along = |target: &JailPath| {
        plan.steps.iter().any(|step| {
            matches!(step, Step::Detach { target: above, recursive: true, .. } if target.starts_with(above))
        })
    };
    let elsewhere: Vec<_> = (observed.elsewhere.iter())
        .filter(|(target, _)| !came_along(target))
        .filter_map(|(target, stack)| stack.last().map(|seen| foreign(target, seen)))
        .collect();
    plan.states.extend(elsewhere);
    if let Some(kept) = &observed.kept {
        plan.steps.extend(kept.made.iter().rev().map(removal));
        plan.steps.extend(kept.files.iter().cloned().map(Step::RemoveFile));
    }
    plan.states.sort_by(|a, b| a.target.cmp(&b.target));
    plan
}

/// The source of a mount of ours, and whether submounts came along.
fn ours(
    observed: &Observed,
    target: &JailPath,
    seen: &SeenMount,
    mount: Option<&Mount>,
) -> Option<(HostPath, bool)> {
    if let Some(known) = recorded(observed, target, seen) {
        return Some((known.source.clone(), known.recursive));
    }
    let mount = mount.filter(|mount| is_right(seen, mount))?;
    Some((mount.source.clone(), mount.recursive))
}

fn foreign(target: &JailPath, seen: &SeenMount) -> MountState {
    let root = seen.fs_root.as_ref().map(|root| format!("{} of its file system; ", root.display()));
    MountState {
        target: target.clone(),
        source: None,
        state: State::Foreign,
        detail: Some(format!("{}not mounted by mountjail", root.unwrap_or_default())),
        mount: None,
    }
}

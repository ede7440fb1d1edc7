//! The steps from what is to what is desired.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compare::{Verdict, came_along, record_of, recorded, verdict};
use super::placeholders;
use super::types::{MountState, Plan, State, Step};
use crate::Error;
use crate::manifest::{HostPath, JailPath};
use crate::observe::{Observed, RecordedMount, SeenMount, Stray};
use crate::resolve::{Desired, Mount};

/// What makes `observed` as `desired`. Carried out, it leaves a site whose next plan is empty.
pub fn up(desired: &Desired, observed: &Observed) -> Plan {
    let mut planner = Planner {
        desired,
        observed,
        plan: Plan {
            site: desired.site.clone(),
            root: desired.root.clone(),
            steps: vec![],
            states: vec![],
            keep: vec![],
            unfinished: false,
            conflicts: vec![],
        },
        detach: vec![],
        mount: BTreeMap::new(),
    };
    for mount in &desired.mounts {
        planner.mount(mount);
    }
    planner.orphans();
    planner.strays();
    planner.elsewhere();
    planner.renew_children();
    planner.finish()
}

struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    plan: Plan,
    /// In any order; sorted at the end.
    detach: Vec<(JailPath, Step)>,
    /// Attaches and swaps.
    mount: BTreeMap<JailPath, Step>,
}

impl Planner<'_> {
    fn mount(&mut self, mount: &Arc<Mount>) {
        if self.observed.absent.contains(&mount.target) {
            self.state(mount, State::Absent, Some(absent(&mount.source)));
            return;
        }
        match verdict(self.observed, mount) {
            Verdict::Keep(seen) => {
                self.plan.keep.extend(seen.iter().filter_map(|seen| record_of(seen, mount, self.observed)));
                self.state(mount, State::Ok, None);
            }
            Verdict::Attach => {
                self.mount.insert(mount.target.clone(), Step::Attach(mount.clone()));
                self.state(mount, State::Missing, None);
            }
            Verdict::Swap { top, because, detail } => {
                let recursive = self.is_recursive(&mount.target, &top, mount.recursive);
                let step = Step::Swap { mount: mount.clone(), expected: top, recursive, because };
                self.mount.insert(mount.target.clone(), step);
                self.state(mount, because, Some(detail));
            }
            Verdict::Replace { top, because, detail } => {
                self.detach(&mount.target, top, mount.recursive);
                self.mount.insert(mount.target.clone(), Step::Attach(mount.clone()));
                self.state(mount, because, Some(detail));
            }
            Verdict::FinishSwap { top, below } => {
                self.detach(&mount.target, top, mount.recursive);
                self.plan.keep.extend(record_of(&below, mount, self.observed));
                let detail = "the new file is mounted beneath the old one: a swap was interrupted".to_owned();
                self.state(mount, State::Stale, Some(detail));
            }
            Verdict::NotOurs { state, detail } => {
                let at = self.desired.root.inside(&mount.target);
                self.plan.conflicts.push(
                    Error::failed(format!(
                        "{}: cannot mount {} on {at}: {detail}",
                        self.desired.site, mount.source
                    ))
                    .hint(format!("unmount it, if it is not needed: `umount {at}`")),
                );
                self.state(mount, state, Some(detail));
            }
        }
    }

    fn state(&mut self, mount: &Arc<Mount>, state: State, detail: Option<String>) {
        self.plan.states.push(MountState {
            target: mount.target.clone(),
            source: Some(mount.source.clone()),
            state,
            detail,
            mount: Some(mount.clone()),
        });
    }

    /// Whether submounts came along with `seen`; `wanted`: with what shall be there.
    fn is_recursive(&self, target: &JailPath, seen: &SeenMount, wanted: bool) -> bool {
        recorded(self.observed, target, seen).map_or(wanted, |known| known.recursive)
    }

    fn detach(&mut self, target: &JailPath, expected: SeenMount, recursive: bool) {
        let source = recorded(self.observed, target, &expected).map(|known| known.source.clone());
        let recursive = self.is_recursive(target, &expected, recursive);
        self.detach
            .push((target.clone(), Step::Detach { target: target.clone(), expected, source, recursive }));
    }

    /// Recorded mounts that the manifest no longer asks for.
    fn orphans(&mut self) {
        let desired: BTreeSet<_> = self.desired.mounts.iter().map(|mount| &mount.target).collect();
        let recorded_at: BTreeSet<_> = self
            .observed
            .record
            .iter()
            .flat_map(|record| &record.mounts)
            .map(|mount| &mount.target)
            .collect();
        for target in recorded_at.difference(&desired) {
            let Some(stack) = self.observed.mounts.get(*target) else { continue };
            for (nth, seen) in stack.iter().enumerate().rev() {
                let Some(known) = recorded(self.observed, target, seen) else {
                    self.foreign(
                        target,
                        seen,
                        stack[..nth].iter().any(|seen| recorded(self.observed, target, seen).is_some()),
                    );
                    break;
                };
                let (state, detail) = match self.observed.absent.contains(*target) {
                    true => (State::Absent, absent(&known.source)),
                    false => (State::Orphan, "no longer in the manifest".to_owned()),
                };
                self.plan.states.push(MountState {
                    target: (*target).clone(),
                    source: Some(known.source.clone()),
                    state,
                    detail: Some(detail),
                    mount: None,
                });
                self.detach(target, seen.clone(), known.recursive);
            }
        }
    }

    fn strays(&mut self) {
        let state = |stray: &Stray| MountState {
            target: stray.target.clone(),
            source: None,
            state: State::Orphan,
            detail: Some(format!("moved away with a directory, to {}", stray.place())),
            mount: None,
        };
        self.plan.states.extend(self.observed.strays.iter().map(state));
    }

    fn foreign(&mut self, target: &JailPath, seen: &SeenMount, covers_ours: bool) {
        let root = seen.fs_root.as_ref().map(|root| format!("{} of its file system; ", root.display()));
        let on_ours = if covers_ours { ", on top of one of ours" } else { "" };
        self.plan.states.push(MountState {
            target: target.clone(),
            source: None,
            state: State::Foreign,
            detail: Some(format!("{}not mounted by mountjail{on_ours}", root.unwrap_or_default())),
            mount: None,
        });
    }

    /// Mounts at other places below the root; what came along with a recursive one is part of it.
    fn elsewhere(&mut self) {
        for (target, stack) in &self.observed.elsewhere {
            if let Some(foreign) = stack.iter().rfind(|seen| !came_along(self.observed, target, seen)) {
                self.foreign(target, foreign, false);
            }
        }
    }

    /// A mount inside one that goes or is replaced goes with it: it is taken off before and put back after.
    fn renew_children(&mut self) {
        let swapped =
            self.mount.iter().filter(|(_, step)| matches!(step, Step::Swap { .. })).map(|(target, _)| target);
        let going: Vec<JailPath> =
            swapped.chain(self.detach.iter().map(|(target, _)| target)).cloned().collect();
        for mount in &self.desired.mounts {
            let inside = going.iter().any(|above| mount.target != *above && mount.target.starts_with(above));
            if !inside {
                continue;
            }
            let stack = self.observed.mounts.get(&mount.target).map(Vec::as_slice).unwrap_or_default();
            for seen in stack.iter().rev() {
                self.detach(&mount.target, seen.clone(), mount.recursive);
            }
            self.detach.dedup_by(|a, b| a.1 == b.1);
            self.plan.keep.retain(|keep| keep.target != mount.target);
            self.mount.insert(mount.target.clone(), Step::Attach(mount.clone()));
        }
        let foreign =
            self.plan.states.iter().filter(|state| state.state == State::Foreign && state.mount.is_none());
        let in_the_way = foreign.filter_map(|state| {
            let above =
                going.iter().find(|above| state.target != **above && state.target.starts_with(above))?;
            Some((state.target.clone(), above.clone()))
        });
        for (foreign, above) in in_the_way.collect::<Vec<_>>() {
            let (foreign, above) = (self.desired.root.inside(&foreign), self.desired.root.inside(&above));
            self.plan.conflicts.push(
                Error::failed(format!(
                    "{}: {above} cannot be replaced: {foreign} is mounted in it, and not by mountjail",
                    self.desired.site
                ))
                .hint(format!("unmount it: `umount {foreign}`")),
            );
        }
    }

    /// Puts off what lies below a mount that goes and that nothing follows: only then it is seen what stands
    /// there. Returns those mounts' targets.
    fn hide(&mut self, attach: &mut BTreeSet<JailPath>) -> BTreeSet<JailPath> {
        let stays = |target: &JailPath| self.desired.mounts.iter().any(|mount| mount.target == *target);
        let going = self.detach.iter().map(|(target, _)| target).filter(|target| !stays(target));
        let going: BTreeSet<_> = going.cloned().collect();
        let below = |target: &JailPath| target.ancestors().iter().any(|above| going.contains(above));
        let links = self.desired.links.iter().any(|link| below(&link.path));
        let before = self.mount.len();
        self.mount.retain(|target, _| !below(target));
        attach.retain(|target| !below(target));
        self.plan.unfinished = links || self.mount.len() < before;
        going
    }

    fn finish(mut self) -> Plan {
        let mut attach: BTreeSet<_> = self
            .mount
            .iter()
            .filter(|(_, step)| matches!(step, Step::Attach(_)))
            .map(|(target, _)| target.clone())
            .collect();
        let hidden = self.hide(&mut attach);
        let made = placeholders::plan(self.desired, self.observed, &attach, &hidden);
        let writes =
            self.desired.files.iter().filter(|file| !self.observed.current_files.contains(&file.path));
        let steps = &mut self.plan.steps;
        steps.extend(writes.cloned().map(Step::WriteFile));
        steps.extend(self.observed.strays.iter().cloned().map(Step::DetachStray));
        // The deepest first; of one place the topmost first, as they were found.
        self.detach.sort_by(|a, b| b.0.cmp(&a.0));
        steps.extend(self.detach.into_iter().map(|(_, step)| step));
        steps.extend(made.remove);
        steps.extend(unneeded_files(self.desired, self.observed));
        steps.extend(made.create);
        steps.extend(self.mount.into_values());
        self.plan.conflicts.extend(made.conflicts);
        self.plan.states.sort_by(|a, b| a.target.cmp(&b.target));
        sort_by_target(&mut self.plan.keep);
        self.plan
    }
}

/// Of a mount whose source is not there.
fn absent(source: &HostPath) -> String {
    format!("{source} is not there any more")
}

fn unneeded_files(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let known = observed.kept.iter().flat_map(|kept| &kept.files);
    let unneeded = known.filter(|path| desired.files.iter().all(|file| file.path != **path));
    unneeded.cloned().map(Step::RemoveFile).collect()
}

fn sort_by_target(mounts: &mut [RecordedMount]) {
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
}

//! The steps from what is to what is desired.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compare::{Verdict, came_along, record_of, recorded, verdict};
use super::placeholders;
use super::step::{MountState, Plan, State, Step};
use crate::Error;
use crate::base::{HostPath, JailPath};
use crate::observe::{Holder, Observed, ObservedMount, RecordedMount};
use crate::resolve::{Desired, Mount};

/// What makes `observed` as `desired`. Carried out, it leaves a site whose next plan is empty.
pub fn up(desired: &Desired, observed: &Observed) -> Plan {
    let mut planner = Planner {
        desired,
        observed,
        plan: Plan {
            site: desired.site.clone(),
            root: desired.root.clone(),
            manifest: desired.manifest.clone(),
            steps: vec![],
            states: vec![],
            keep: vec![],
            unfinished: false,
            conflicts: vec![],
        },
        detach: vec![],
        mount: BTreeMap::new(),
        uncovered: BTreeSet::new(),
        hidden: BTreeSet::new(),
        buried: vec![],
        strays: vec![],
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
    /// Where mounts of ours go because they hide others of ours.
    uncovered: BTreeSet<JailPath>,
    /// Where ours are that cannot be seen.
    hidden: BTreeSet<JailPath>,
    /// What is recorded of these: it stays so.
    buried: Vec<RecordedMount>,
    /// What was moved away.
    strays: Vec<Step>,
}

impl Planner<'_> {
    fn mount(&mut self, mount: &Arc<Mount>) {
        if self.observed.absent.contains(&mount.target) {
            self.state(mount, State::Absent, Some(absent(&mount.source)));
            return;
        }
        match verdict(self.observed, mount) {
            Verdict::Keep(seen) => {
                self.plan.keep.extend(
                    seen.iter()
                        .filter_map(|seen| record_of(seen, mount, self.observed)),
                );
                self.state(mount, State::Ok, None);
            }
            Verdict::Attach => {
                self.mount
                    .insert(mount.target.clone(), Step::Attach(mount.clone()));
                self.state(mount, State::Missing, None);
            }
            Verdict::Swap {
                top,
                because,
                detail,
            } => {
                let recursive = self.is_recursive(&mount.target, &top, mount.recursive);
                let step = Step::Swap {
                    mount: mount.clone(),
                    expected: top,
                    recursive,
                    because,
                };
                self.mount.insert(mount.target.clone(), step);
                self.state(mount, because, Some(detail));
            }
            Verdict::Replace {
                stack,
                because,
                detail,
            } => {
                for seen in stack.into_iter().rev() {
                    self.detach(&mount.target, seen, mount.recursive);
                }
                self.mount
                    .insert(mount.target.clone(), Step::Attach(mount.clone()));
                self.state(mount, because, Some(detail));
            }
            Verdict::FinishSwap { top, below } => {
                self.detach(&mount.target, top, mount.recursive);
                self.plan
                    .keep
                    .extend(record_of(&below, mount, self.observed));
                let detail = "the new file is mounted beneath the old one: a swap was interrupted"
                    .to_owned();
                self.state(mount, State::Stale, Some(detail));
            }
            Verdict::NotOurs {
                state,
                detail,
                count,
            } => {
                let at = self.desired.root.inside(&mount.target);
                let umount = vec![format!("umount {at}"); count].join(" && ");
                self.cannot_mount(
                    mount,
                    &detail,
                    format!("unmount it, if it is not needed: `{umount}`"),
                );
                self.state(mount, state, Some(detail));
            }
            Verdict::OnTheirs { because, detail } => {
                let (site, at) = (&self.desired.site, self.desired.root.inside(&mount.target));
                let hint = format!("`mountjail down {site}`, then `umount {at}`");
                self.cannot_mount(mount, &detail, hint);
                self.state(mount, because, Some(detail));
            }
        }
    }

    fn cannot_mount(&mut self, mount: &Mount, why: &str, hint: String) {
        let (site, at) = (&self.desired.site, self.desired.root.inside(&mount.target));
        let error = Error::failed(format!(
            "{site}: cannot mount {} on {at}: {why}",
            mount.source
        ));
        self.plan.conflicts.push(error.hint(hint));
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
    fn is_recursive(&self, target: &JailPath, seen: &ObservedMount, wanted: bool) -> bool {
        recorded(self.observed, target, seen).map_or(wanted, |known| known.recursive)
    }

    fn detach(&mut self, target: &JailPath, expected: ObservedMount, recursive: bool) {
        let known = |(at, step): &(JailPath, Step)| {
            at == target
                && matches!(step, Step::Detach { expected: known, .. } if *known == expected)
        };
        if self.detach.iter().any(known) {
            return;
        }
        let source = recorded(self.observed, target, &expected).map(|known| known.source.clone());
        let recursive = self.is_recursive(target, &expected, recursive);
        self.detach.push((
            target.clone(),
            Step::Detach {
                target: target.clone(),
                expected,
                source,
                recursive,
            },
        ));
    }

    /// Recorded mounts that the manifest no longer asks for.
    fn orphans(&mut self) {
        let desired: BTreeSet<_> = self
            .desired
            .mounts
            .iter()
            .map(|mount| &mount.target)
            .collect();
        let recorded_at: BTreeSet<_> = self
            .observed
            .record
            .iter()
            .flat_map(|record| &record.mounts)
            .map(|mount| &mount.target)
            .collect();
        for target in recorded_at.difference(&desired) {
            let Some(stack) = self.observed.mounts.get(*target) else {
                continue;
            };
            for (nth, seen) in stack.iter().enumerate().rev() {
                let Some(known) = recorded(self.observed, target, seen) else {
                    self.foreign(
                        target,
                        seen,
                        stack[..nth]
                            .iter()
                            .any(|seen| recorded(self.observed, target, seen).is_some()),
                    );
                    break;
                };
                let (state, detail) = if self.observed.absent.contains(*target) {
                    (State::Absent, absent(&known.source))
                } else {
                    (State::Orphan, "no longer in the manifest".to_owned())
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

    /// Recorded mounts that are not to be seen where they were made.
    fn strays(&mut self) {
        for stray in &self.observed.strays {
            let hidden =
                stray.point.as_deref() == Some(self.desired.root.inside(&stray.target).as_path());
            if hidden {
                let recorded = self
                    .observed
                    .record
                    .iter()
                    .flat_map(|record| &record.mounts);
                let mut recorded =
                    recorded.filter(|mount| mount.unique_id == Some(stray.unique_id));
                self.hidden(&stray.target, recorded.next());
                continue;
            }
            self.orphan(
                &stray.target,
                None,
                format!("moved away with a directory, to {}", stray.place()),
            );
            self.strays.push(Step::DetachStray(stray.clone()));
        }
    }

    /// A mount of ours where it was made, which another mount above hides. One of ours goes, so
    /// that the next plan sees this one; one of somebody else's inside the root is in the way. What
    /// hides the root itself is not in the way of what is mounted in the root that is there now:
    /// then it stays recorded, until it can be seen.
    fn hidden(&mut self, target: &JailPath, known: Option<&RecordedMount>) {
        let (site, at) = (&self.desired.site, self.desired.root.inside(target));
        let source = known.map(|known| known.source.clone());
        match self.held_by(target) {
            Held::Theirs(above) | Held::Volume(above) => {
                let above = above.display();
                let error = Error::failed(format!("{site}: cannot detach {at}"))
                    .because_of(format!("{above} is mounted above it, and not by mountjail"));
                self.plan
                    .conflicts
                    .push(error.hint(format!("unmount it: `umount {above}`")));
                self.orphan(target, source, format!("{above} is mounted above it"));
            }
            Held::Ours(above) => {
                self.orphan(
                    target,
                    source,
                    format!("hidden by what is mounted on {above}"),
                );
                self.uncovered.insert(above);
            }
            Held::Root => {
                self.orphan(
                    target,
                    source,
                    "hidden by what is mounted over the root".to_owned(),
                );
            }
        }
        self.hidden.insert(target.clone());
        self.buried.extend(known.cloned());
    }

    fn orphan(&mut self, target: &JailPath, source: Option<HostPath>, detail: String) {
        self.plan.states.push(MountState {
            target: target.clone(),
            source,
            state: State::Orphan,
            detail: Some(detail),
            mount: None,
        });
    }

    /// What the directory that holds `path` lies on, as far as there is one now.
    fn held_by(&self, path: &JailPath) -> Held {
        let above = path.directories_above();
        let mounted = above
            .iter()
            .rposition(|above| self.observed.mounts.contains_key(above));
        let holder = above.iter().enumerate().rev().find_map(|(depth, above)| {
            let holder = self.observed.holders.get(above)?;
            mounted
                .is_none_or(|mounted| mounted <= depth)
                .then_some(holder)
        });
        let target = mounted.map(|nth| &above[nth]);
        if let Some(holder) = holder {
            return self.holder(holder, target);
        }
        let Some(above) = target else {
            return Held::Root;
        };
        let theirs = |state: &MountState| {
            state.target == *above && matches!(state.state, State::Foreign | State::Shadowed)
        };
        if self.plan.states.iter().any(theirs) {
            return Held::Theirs(self.desired.root.inside(above).as_path().to_owned());
        }
        Held::Ours(above.clone())
    }

    /// One that is not at a target; `target` is the nearest mounted one above.
    fn holder(&self, holder: &Holder, target: Option<&JailPath>) -> Held {
        let at = self.desired.root.path_inside(&holder.point);
        let part_of_ours = at.as_ref().filter(|at| {
            let stack = self.observed.elsewhere.get(*at).into_iter().flatten();
            let mut same = stack.filter(|seen| holder.is(seen));
            same.any(|seen| came_along(self.observed, at, seen))
        });
        match (part_of_ours, target) {
            (Some(_), Some(target)) => Held::Ours(target.clone()),
            (None, None) if holder.own_volume => Held::Volume(holder.point.clone()),
            _ => Held::Theirs(holder.point.clone()),
        }
    }

    fn foreign(&mut self, target: &JailPath, seen: &ObservedMount, covers_ours: bool) {
        let root = seen
            .fs_root
            .as_ref()
            .map(|root| format!("{} of its file system; ", root.display()));
        let on_ours = if covers_ours {
            ", on top of one of ours"
        } else {
            ""
        };
        self.plan.states.push(MountState {
            target: target.clone(),
            source: None,
            state: State::Foreign,
            detail: Some(format!(
                "{}not mounted by mountjail{on_ours}",
                root.unwrap_or_default()
            )),
            mount: None,
        });
    }

    /// Mounts at other places below the root; what came along with a recursive one is part of it.
    fn elsewhere(&mut self) {
        for (target, stack) in &self.observed.elsewhere {
            // PathState in the table, and not in the jail.
            let hidden = stack
                .iter()
                .filter_map(|seen| recorded(self.observed, target, seen));
            let hidden: Vec<_> = hidden.collect();
            if !hidden.is_empty() {
                for known in hidden {
                    self.hidden(target, Some(known));
                }
                continue;
            }
            if let Some(foreign) = stack
                .iter()
                .rfind(|seen| !came_along(self.observed, target, seen))
            {
                self.foreign(target, foreign, false);
            }
        }
    }

    /// A mount of ours inside one that goes, comes or is replaced would go with it, or be hidden by
    /// it: it is taken off before and put back after.
    fn renew_children(&mut self) {
        for above in self.uncovered.clone() {
            for seen in self.observed.mounts.get(&above).into_iter().flatten().rev() {
                self.detach(&above, seen.clone(), false);
            }
            self.plan.keep.retain(|keep| keep.target != above);
            self.mount.remove(&above);
        }
        let changing: BTreeSet<JailPath> = self
            .mount
            .keys()
            .chain(self.detach.iter().map(|(target, _)| target))
            .cloned()
            .collect();
        let inside_of = |target: &JailPath| {
            target
                .directories_above()
                .into_iter()
                .rev()
                .find(|above| changing.contains(above))
        };
        for mount in &self.desired.mounts {
            if inside_of(&mount.target).is_none() {
                continue;
            }
            let stack = self
                .observed
                .mounts
                .get(&mount.target)
                .map(Vec::as_slice)
                .unwrap_or_default();
            for seen in stack.iter().rev() {
                self.detach(&mount.target, seen.clone(), mount.recursive);
            }
            self.plan.keep.retain(|keep| keep.target != mount.target);
            self.mount
                .insert(mount.target.clone(), Step::Attach(mount.clone()));
        }
        let foreign = self
            .plan
            .states
            .iter()
            .filter(|state| state.state == State::Foreign && state.mount.is_none());
        let in_the_way =
            foreign.filter_map(|state| Some((state.target.clone(), inside_of(&state.target)?)));
        for (foreign, above) in in_the_way.collect::<Vec<_>>() {
            let cannot = if self.observed.mounts.contains_key(&above) {
                "replaced"
            } else {
                "mounted on"
            };
            let (foreign, above) = (
                self.desired.root.inside(&foreign),
                self.desired.root.inside(&above),
            );
            self.plan.conflicts.push(
                Error::failed(format!(
                    "{}: {above} cannot be {cannot}: {foreign} is mounted in it, and not by mountjail",
                    self.desired.site
                ))
                .hint(format!("unmount it: `umount {foreign}`")),
            );
        }
    }

    /// Puts off what lies below a mount that goes and that nothing follows, or that was moved
    /// there: only then it is seen what stands there. Returns those mounts' targets.
    fn hide(&mut self, attach: &mut BTreeSet<JailPath>) -> BTreeSet<JailPath> {
        let stays = |target: &JailPath| {
            self.desired
                .mounts
                .iter()
                .any(|mount| mount.target == *target)
                && !self.uncovered.contains(target)
        };
        let going = self
            .detach
            .iter()
            .map(|(target, _)| target)
            .filter(|target| !stays(target));
        let moved = self.observed.strays.iter().filter_map(|stray| {
            self.desired
                .root
                .path_inside(stray.point.as_deref()?)
                .filter(|at| *at != stray.target)
        });
        let going: BTreeSet<_> = going.cloned().chain(moved).collect();
        if going.is_empty() {
            return going;
        }
        let targets: BTreeSet<_> = self
            .desired
            .mounts
            .iter()
            .map(|mount| &mount.target)
            .collect();
        let mut hidden = BTreeSet::new();
        for target in &targets {
            let uncovers = self
                .uncovered
                .iter()
                .any(|uncovered| uncovered.starts_with(target));
            if uncovers || is_hidden(target, &targets, &going, &hidden) {
                hidden.insert(*target);
            }
        }
        let links = self
            .desired
            .links
            .iter()
            .any(|link| is_hidden(&link.path, &targets, &going, &hidden));
        let before = self.mount.len();
        self.mount.retain(|target, _| !hidden.contains(target));
        attach.retain(|target| !hidden.contains(target));
        self.plan.unfinished = links || self.mount.len() < before || !self.uncovered.is_empty();
        going
    }

    /// What is to be made or mounted where it would not be in the root alone.
    fn outside(&mut self, made: &mut placeholders::Placeholders) {
        let theirs = |state: &MountState| matches!(state.state, State::Foreign | State::Shadowed);
        if self.observed.holders.is_empty() && !self.plan.states.iter().any(theirs) {
            return;
        }
        let paths = self
            .mount
            .keys()
            .chain(self.detach.iter().map(|(target, _)| target));
        let created = made.create.iter().filter_map(Step::path);
        let mut found: BTreeMap<PathBuf, Vec<&JailPath>> = BTreeMap::new();
        for path in paths.chain(created) {
            if let Held::Theirs(above) = self.held_by(path) {
                found.entry(above).or_default().push(path);
            }
        }
        let conflicts: Vec<_> = found
            .iter()
            .map(|(above, paths)| self.on_theirs(above, paths))
            .collect();
        self.plan.conflicts.extend(conflicts);
        // What cannot be removed now is removed when it can.
        made.remove.retain(|step| {
            step.path()
                .is_none_or(|path| !matches!(self.held_by(path), Held::Theirs(_)))
        });
    }

    fn on_theirs(&self, above: &Path, paths: &[&JailPath]) -> Error {
        let (site, above) = (&self.desired.site, above.display());
        let mut paths: Vec<_> = paths
            .iter()
            .map(|path| self.desired.root.inside(path).to_string())
            .collect();
        paths.sort();
        paths.dedup();
        let others = paths.len() - 1;
        let also = if others > 0 {
            format!(" (and {others} more)")
        } else {
            String::new()
        };
        Error::failed(format!("{site}: cannot change {}{also}", paths[0]))
            .because_of(format!(
                "{above} is mounted above it, and not by mountjail: what is done there may be done outside the root as well"
            ))
            .hint(format!("unmount it: `umount {above}`; or take what lies in it out of the manifest"))
    }

    fn finish(mut self) -> Plan {
        let mut attach: BTreeSet<_> = self
            .mount
            .iter()
            .filter(|(_, step)| matches!(step, Step::Attach(_)))
            .map(|(target, _)| target.clone())
            .collect();
        let hidden = self.hide(&mut attach);
        let mut made = placeholders::plan(self.desired, self.observed, &attach, &hidden);
        self.outside(&mut made);
        // Something of ours is still on it.
        let holds = |path: &JailPath| self.hidden.iter().any(|hidden| hidden.starts_with(path));
        made.remove
            .retain(|step| step.path().is_none_or(|path| !holds(path)));
        let writes = self
            .desired
            .files
            .iter()
            .filter(|file| !self.observed.current_files.contains(&file.path));
        let steps = &mut self.plan.steps;
        steps.extend(writes.cloned().map(Step::WriteFile));
        steps.extend(self.strays);
        // The deepest first; of one place the topmost first, as they were found.
        self.detach.sort_by(|a, b| b.0.cmp(&a.0));
        steps.extend(self.detach.into_iter().map(|(_, step)| step));
        steps.extend(made.remove);
        steps.extend(unneeded_files(self.desired, self.observed));
        steps.extend(made.create);
        steps.extend(self.mount.into_values());
        self.plan.conflicts.extend(made.conflicts);
        self.plan.states.sort_by(|a, b| a.target.cmp(&b.target));
        self.plan.keep.extend(self.buried);
        sort_by_target(&mut self.plan.keep);
        self.plan
    }
}

/// Of a mount whose source is not there.
fn absent(source: &HostPath) -> String {
    format!("{source} is not there any more")
}

/// What the directory that holds a path lies on.
enum Held {
    /// The root's own mount.
    Root,
    /// A mount of somebody else's at this path of the host, which shows the site's own.
    Volume(PathBuf),
    /// A mount of ours at this path.
    Ours(JailPath),
    /// Any other mount of somebody else's at this path of the host.
    Theirs(PathBuf),
}

/// Whether it is only seen what stands at `path` when the mounts at `going` are gone; `hidden` are
/// the targets above it of which that is known. What lies in a mount that is there then is seen in
/// its source.
fn is_hidden(
    path: &JailPath,
    targets: &BTreeSet<&JailPath>,
    going: &BTreeSet<JailPath>,
    hidden: &BTreeSet<&JailPath>,
) -> bool {
    let above = path.directories_above();
    match above.iter().rev().find(|above| targets.contains(above)) {
        Some(target) => hidden.contains(target),
        None => above.iter().any(|above| going.contains(above)),
    }
}

fn unneeded_files(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let known = observed.kept.iter().flat_map(|kept| &kept.files);
    let unneeded = known.filter(|path| desired.files.iter().all(|file| file.path != **path));
    unneeded.cloned().map(Step::RemoveFile).collect()
}

fn sort_by_target(mounts: &mut [RecordedMount]) {
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
}

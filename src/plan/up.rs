//! The plan that brings a site up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compare::{
    self, NOT_TO_BE_SEEN, Verdict, came_along, graft_verdict, is_same, record_of, recorded, verdict,
};
use super::graft::{Graft, GraftChange, Layout, layout};
use super::placeholders;
use super::step::{Along, MountState, Plan, State, Step};
use crate::Error;
use crate::base::{HostPath, JailPath};
use crate::observe::{Holder, Observed, ObservedMount, RecordedMount};
use crate::resolve::{Desired, Mount};

/// The plan that turns `observed` into `desired`. Once it is carried out, the next plan is empty,
/// unless this one is [unfinished](Plan::unfinished). `templates`: the directory of the templates;
/// `None`: there are none, and everything is mounted one by one.
pub fn up(desired: &Desired, observed: &Observed, templates: Option<&HostPath>) -> Plan {
    let Layout { desired, grafts } = layout(desired, observed, templates);
    let mut planner = Planner {
        desired: &desired,
        observed,
        refresh: BTreeMap::new(),
        plan: Plan {
            site: desired.site.clone(),
            root: desired.root.clone(),
            manifest: desired.manifest.clone(),
            steps: vec![],
            states: vec![],
            grafts: grafts.clone(),
            up_without_mounts: observed
                .record
                .as_ref()
                .is_some_and(|record| record.mounts.is_empty()),
            unchanged: vec![],
            unfinished: false,
            conflicts: vec![],
        },
        detach: BTreeMap::new(),
        mount: BTreeMap::new(),
        uncovered: BTreeSet::new(),
        hidden: BTreeSet::new(),
        buried: vec![],
        strays: vec![],
    };

    for mount in &desired.mounts {
        match grafts.iter().find(|graft| graft.mount == *mount) {
            Some(graft) => planner.plan_graft(graft),
            None => planner.plan_mount(mount),
        }
    }
    planner.plan_orphans();
    planner.plan_orphan_members();
    planner.plan_strays();
    planner.plan_elsewhere();
    planner.renew_children();
    planner.finish()
}

struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    plan: Plan,
    /// The detaches at each target, topmost mount first, which is the order of unmounting.
    detach: BTreeMap<JailPath, Vec<Step>>,
    /// The attach or swap at each target.
    mount: BTreeMap<JailPath, Step>,
    /// Targets where our mounts are detached because they hide others of ours.
    uncovered: BTreeSet<JailPath>,
    /// Targets of our mounts that are hidden.
    hidden: BTreeSet<JailPath>,
    /// The records of the hidden mounts, which are kept.
    buried: Vec<RecordedMount>,
    /// The detaches of mounts that were moved away.
    strays: Vec<Step>,
    /// The steps that refresh templates, by their grafts.
    refresh: BTreeMap<JailPath, Step>,
}

impl Planner<'_> {
    fn plan_mount(&mut self, mount: &Arc<Mount>) {
        if self.observed.absent.contains(&mount.target) {
            self.add_state(mount, State::Absent, Some(absent(&mount.source)));
            return;
        }
        if let Some(error) = self.observed.unseen.get(&mount.target)
            && self.plan_unseen(mount, error)
        {
            return;
        }
        let verdict = verdict(self.observed, mount);
        let (state, detail) = verdict.state();
        self.add_state(mount, state, detail);
        self.carry_out(mount, None, verdict);
    }

    /// Plans a graft and the mounts that come along with it.
    fn plan_graft(&mut self, graft: &Graft) {
        let verdict = graft_verdict(self.observed, graft);
        let stays = matches!(verdict, Verdict::Keep(_));
        let same = stays && is_same(self.observed, graft);
        let mut change = GraftChange {
            template: graft.template.clone(),
            attach: vec![],
            swap: vec![],
            detach: self.orphan_members(graft),
        };

        for member in &graft.template.mounts {
            if self.observed.absent.contains(&member.target) {
                self.add_state(member, State::Absent, Some(absent(&member.source)));
                continue;
            }
            let verdict = compare::verdict(self.observed, member);
            let (state, detail) = verdict.state();
            self.add_state(member, state, detail);

            // The template shows the same.
            let follows = match &verdict {
                Verdict::Swap { top, because, .. } => {
                    matches!(because, State::Stale | State::WrongSource)
                        && self.observed.member(&member.target, top).is_some()
                }
                _ => false,
            };
            match verdict {
                Verdict::Keep(_) => {}
                Verdict::Attach if !same => change.attach.push(member.clone()),
                _ if follows || !stays => change.swap.push(member.clone()),
                verdict => self.carry_out(member, None, verdict),
            }
        }

        if stays && (!same || !change.swap.is_empty()) {
            let (graft, mount) = (graft.clone(), graft.mount.clone());
            let step = Step::Refresh { graft, change };
            self.refresh.insert(mount.target.clone(), step);
            self.carry_out(&mount, None, verdict);
        } else {
            self.carry_out(&graft.mount, Some(change), verdict);
        }
    }

    /// The targets of the mounts that came along with the graft at the same place and that are not
    /// in its template any more.
    fn orphan_members(&self, graft: &Graft) -> Vec<JailPath> {
        let wanted: BTreeSet<_> = graft
            .template
            .mounts
            .iter()
            .map(|mount| &mount.target)
            .collect();
        let members = members_of(self.observed, &graft.mount.target);
        let is_there = |target: &JailPath| self.observed.mounts.contains_key(target);
        members
            .into_iter()
            .filter(|target| !wanted.contains(target) && is_there(target))
            .collect()
    }

    /// Plans what the verdict on the target of `mount` asks for.
    fn carry_out(&mut self, mount: &Arc<Mount>, graft: Option<GraftChange>, verdict: Verdict) {
        let attach = |graft| Step::Attach {
            mount: mount.clone(),
            graft,
        };
        match verdict {
            Verdict::Keep(seen) => {
                self.plan.unchanged.extend(
                    seen.iter()
                        .filter_map(|seen| record_of(seen, mount, self.observed)),
                );
            }
            Verdict::Attach => {
                self.mount.insert(mount.target.clone(), attach(graft));
            }
            Verdict::Swap { top, because, .. } => {
                let along = self.along(&mount.target, &top, mount.recursive);
                let step = Step::Swap {
                    mount: mount.clone(),
                    expected: top,
                    along,
                    because,
                    graft,
                };
                self.mount.insert(mount.target.clone(), step);
            }
            Verdict::Replace { stack, .. } => {
                for seen in stack.into_iter().rev() {
                    self.add_detach(&mount.target, seen, mount.recursive);
                }
                self.mount.insert(mount.target.clone(), attach(graft));
            }
            Verdict::FinishSwap { top, below } => {
                self.add_detach(&mount.target, top, mount.recursive);
                self.plan
                    .unchanged
                    .extend(record_of(&below, mount, self.observed));
            }
            Verdict::NotOurs { detail, count, .. } => {
                let at = self.desired.root.inside(&mount.target);
                // On a shared mount one umount(8) may take several away.
                let again = if count > 1 {
                    "; then run the command again"
                } else {
                    ""
                };
                self.cannot_mount(
                    mount,
                    &detail,
                    format!("unmount it, if it is not needed: `umount {at}`{again}"),
                );
            }
            Verdict::OnTheirs { detail, .. } => {
                let (site, at) = (&self.desired.site, self.desired.root.inside(&mount.target));
                let hint = format!("`mountjail down {site}`, then `umount {at}`");
                self.cannot_mount(mount, &detail, hint);
            }
        }
    }

    fn cannot_mount(&mut self, mount: &Mount, why: &str, hint: String) {
        let (site, at) = (&self.desired.site, self.desired.root.inside(&mount.target));
        let error = Error::failed(format!(
            "{site}: cannot mount {} on {at}: {why}",
            mount.what()
        ));
        self.plan.conflicts.push(error.hint(hint));
    }

    fn add_state(&mut self, mount: &Arc<Mount>, state: State, detail: Option<String>) {
        self.plan.states.push(MountState {
            target: mount.target.clone(),
            source: Some(mount.source.clone()),
            state,
            detail,
            mount: Some(mount.clone()),
        });
    }

    /// What came along with `seen`, by its record. Without a record, submounts if `recursive`.
    fn along(&self, target: &JailPath, seen: &ObservedMount, recursive: bool) -> Along {
        let known = recorded(self.observed, target, seen);
        if known.is_some_and(|known| known.template.is_some()) {
            return Along::Members(members_of(self.observed, target));
        }
        if known.map_or(recursive, |known| known.recursive) {
            Along::Submounts
        } else {
            Along::Nothing
        }
    }

    fn add_detach(&mut self, target: &JailPath, expected: ObservedMount, recursive: bool) {
        let is_planned = |step: &Step| match step {
            Step::Detach {
                expected: planned, ..
            } => *planned == expected,
            _ => false,
        };
        let planned = self.detach.get(target);
        if planned.is_some_and(|steps| steps.iter().any(is_planned)) {
            return;
        }

        let source = recorded(self.observed, target, &expected).map(|known| known.source.clone());
        let along = self.along(target, &expected, recursive);
        let steps = self.detach.entry(target.clone()).or_default();
        steps.push(Step::Detach {
            target: target.clone(),
            expected,
            source,
            along,
        });
    }

    /// Plans the recorded mounts that the manifest no longer asks for.
    fn plan_orphans(&mut self) {
        let desired: BTreeSet<_> = self
            .desired
            .mounts
            .iter()
            .map(|mount| &mount.target)
            .collect();
        let recorded_at: BTreeSet<_> = self
            .observed
            .recorded_mounts()
            .map(|mount| &mount.target)
            .collect();

        for target in recorded_at.difference(&desired) {
            if self.plan.graft_with(target).is_some() {
                continue; // it was put back into a graft
            }
            let Some(stack) = self.observed.mounts.get(*target) else {
                continue;
            };
            for (nth, seen) in stack.iter().enumerate().rev() {
                let Some(known) = recorded(self.observed, target, seen) else {
                    let covers_ours = stack[..nth]
                        .iter()
                        .any(|seen| recorded(self.observed, target, seen).is_some());
                    self.add_foreign(target, seen, covers_ours);
                    break;
                };
                let (state, detail) = if self.observed.absent.contains(*target) {
                    (State::Absent, absent(&known.source))
                } else {
                    (State::Orphan, "no longer in the manifest".to_owned())
                };
                if known.template.is_none() {
                    self.plan.states.push(MountState {
                        target: (*target).clone(),
                        source: Some(known.source.clone()),
                        state,
                        detail: Some(detail),
                        mount: None,
                    });
                }
                self.add_detach(target, seen.clone(), known.recursive);
            }
        }
    }

    /// Adds the states of mounts that came along with grafts and that the manifest no longer asks
    /// for. They go with the graft.
    fn plan_orphan_members(&mut self) {
        let known: BTreeSet<_> = self
            .plan
            .states
            .iter()
            .map(|state| state.target.clone())
            .collect();
        for member in &self.observed.members {
            let mount = &member.mount;
            let stack = self.observed.mounts.get(&mount.target);
            let is_there = stack.is_some_and(|stack| {
                stack
                    .iter()
                    .any(|seen| self.observed.member(&mount.target, seen) == Some(mount))
            });
            if is_there && !known.contains(&mount.target) {
                let detail = "no longer in the manifest".to_owned();
                self.add_orphan(&mount.target, Some(mount.source.clone()), detail);
            }
        }
    }

    /// Plans the target of `mount`, whose topmost mount cannot be looked at because of `error`.
    /// Returns `false` if that mount makes way: it is ours, its server is gone for good, and the
    /// source can be looked at.
    fn plan_unseen(&mut self, mount: &Arc<Mount>, error: &Error) -> bool {
        let stack = self.observed.mounts.get(&mount.target);
        let ours = stack
            .and_then(|stack| stack.last())
            .filter(|top| recorded(self.observed, &mount.target, top).is_some());
        match (ours, mount.file) {
            (Some(_), Some(_)) if error.is_server_gone() => return false,
            (Some(top), None) => {
                let kept = record_of(top, mount, self.observed);
                self.plan.unchanged.extend(kept);
            }
            _ => {
                let site = &self.desired.site;
                self.plan.conflicts.push(error.clone().context(site));
            }
        }
        self.add_state(mount, State::Stale, Some(NOT_TO_BE_SEEN.to_owned()));
        true
    }

    /// Plans the recorded mounts that were not seen where they were made.
    fn plan_strays(&mut self) {
        for stray in &self.observed.strays {
            let made_at = self.desired.root.inside(&stray.target);
            if stray.point.as_deref() == Some(made_at.as_path()) {
                let recorded = self.observed.recorded_mounts();
                let mut recorded =
                    recorded.filter(|mount| mount.unique_id == Some(stray.unique_id));
                self.plan_hidden(&stray.target, recorded.next());
                continue;
            }
            self.add_orphan(
                &stray.target,
                None,
                format!("moved away with a directory, to {}", stray.place()),
            );
            self.strays.push(Step::DetachStray(stray.clone()));
        }
    }

    /// Plans a mount of ours that is where it was made, but hidden by a mount above it. If that
    /// mount is ours, it is detached, so that the next plan sees the hidden one. A foreign mount
    /// inside the root is a conflict. If the root itself is hidden, nothing is in the way in the
    /// root that is visible now; the mount stays recorded until it can be seen again.
    fn plan_hidden(&mut self, target: &JailPath, known: Option<&RecordedMount>) {
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
                self.add_orphan(target, source, format!("{above} is mounted above it"));
            }
            Held::Ours(above) => {
                self.add_orphan(
                    target,
                    source,
                    format!("hidden by what is mounted on {above}"),
                );
                self.uncovered.insert(above);
            }
            Held::Root => {
                self.add_orphan(
                    target,
                    source,
                    "hidden by what is mounted over the root".to_owned(),
                );
            }
        }
        self.hidden.insert(target.clone());
        self.buried.extend(known.cloned());
    }

    fn add_orphan(&mut self, target: &JailPath, source: Option<HostPath>, detail: String) {
        self.plan.states.push(MountState {
            target: target.clone(),
            source,
            state: State::Orphan,
            detail: Some(detail),
            mount: None,
        });
    }

    /// The kind of mount that the directory of `path` is on, as far as that directory exists now.
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
            return self.kind_of_holder(holder, target);
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

    /// The kind of a mount that is not at a target. `target`: the nearest mounted target above it.
    fn kind_of_holder(&self, holder: &Holder, target: Option<&JailPath>) -> Held {
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

    fn add_foreign(&mut self, target: &JailPath, seen: &ObservedMount, covers_ours: bool) {
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

    /// Plans the mounts at other paths below the root. Submounts that came along with a recursive
    /// mount are part of it.
    fn plan_elsewhere(&mut self) {
        for (target, stack) in &self.observed.elsewhere {
            // A recorded mount is in the table, but was not found in the jail.
            let hidden: Vec<_> = stack
                .iter()
                .filter_map(|seen| recorded(self.observed, target, seen))
                .collect();
            if !hidden.is_empty() {
                for known in hidden {
                    self.plan_hidden(target, Some(known));
                }
                continue;
            }
            if let Some(foreign) = stack
                .iter()
                .rfind(|seen| !came_along(self.observed, target, seen))
            {
                self.add_foreign(target, foreign, false);
            }
        }
    }

    /// Detaches our mounts inside a mount that is attached, detached or replaced, and attaches them
    /// again afterwards. They would otherwise vanish with it, or be hidden by it.
    fn renew_children(&mut self) {
        for above in self.uncovered.clone() {
            for seen in self.observed.mounts.get(&above).into_iter().flatten().rev() {
                self.add_detach(&above, seen.clone(), false);
            }
            self.plan.unchanged.retain(|keep| keep.target != above);
            self.mount.remove(&above);
        }

        let changing: BTreeSet<JailPath> = self
            .mount
            .keys()
            .chain(self.detach.keys())
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
                self.add_detach(&mount.target, seen.clone(), mount.recursive);
            }
            self.plan
                .unchanged
                .retain(|keep| keep.target != mount.target);
            let step = Step::Attach {
                mount: mount.clone(),
                graft: None,
            };
            self.mount.insert(mount.target.clone(), step);
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
                    "{}: {above} cannot be {cannot}: {foreign} is mounted in it, and \
                     not by mountjail",
                    self.desired.site
                ))
                .hint(format!("unmount it: `umount {foreign}`")),
            );
        }
    }

    /// Postpones everything below a mount that is detached without a successor, or that was moved
    /// there: only the next plan can see what is beneath it. Returns the targets of those mounts.
    fn postpone_hidden(&mut self, attach: &mut BTreeSet<JailPath>) -> BTreeSet<JailPath> {
        let stays = |target: &JailPath| {
            self.desired
                .mounts
                .iter()
                .any(|mount| mount.target == *target)
                && !self.uncovered.contains(target)
        };
        let going = self.detach.keys().filter(|target| !stays(target));
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

    /// Refuses to change paths that are on foreign mounts, since the changes could also appear
    /// outside the root.
    fn refuse_outside(&mut self, made: &mut placeholders::Placeholders) {
        let theirs = |state: &MountState| matches!(state.state, State::Foreign | State::Shadowed);
        if self.observed.holders.is_empty() && !self.plan.states.iter().any(theirs) {
            return;
        }

        let paths = self.mount.keys().chain(self.detach.keys());
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

        // A later plan removes the rest, when that is possible.
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
                "{above} is mounted above it, and not by mountjail: what is done there may \
                 be done outside the root as well"
            ))
            .hint(format!(
                "unmount it: `umount {above}`; or take what lies in it out of the \
                 manifest"
            ))
    }

    fn finish(mut self) -> Plan {
        let mut attach: BTreeSet<_> = self
            .mount
            .iter()
            .filter(|(_, step)| matches!(step, Step::Attach { .. }))
            .map(|(target, _)| target.clone())
            .collect();
        let hidden = self.postpone_hidden(&mut attach);
        let mut made = placeholders::plan(self.desired, self.observed, &attach, &hidden);
        self.refuse_outside(&mut made);
        // A hidden mount of ours is still on these paths.
        let holds = |path: &JailPath| self.hidden.iter().any(|hidden| hidden.starts_with(path));
        made.remove
            .retain(|step| step.path().is_none_or(|path| !holds(path)));

        let writes = self
            .desired
            .files
            .iter()
            .filter(|file| !self.observed.current_files.contains(&file.path));
        let steps = &mut self.plan.steps;
        steps.extend(self.refresh.into_values());
        steps.extend(writes.cloned().map(Step::WriteFile));
        steps.extend(self.strays);
        // A mount inside another one is detached before it.
        steps.extend(self.detach.into_values().rev().flatten());
        steps.extend(made.remove);
        steps.extend(unneeded_files(self.desired, self.observed));
        steps.extend(made.create);
        steps.extend(self.mount.into_values());

        self.plan.conflicts.extend(made.conflicts);
        self.plan.states.sort_by(|a, b| a.target.cmp(&b.target));
        self.plan.unchanged.extend(self.buried);
        sort_by_target(&mut self.plan.unchanged);
        self.plan
    }
}

/// The detail of a mount whose source is not there.
fn absent(source: &HostPath) -> String {
    format!("{source} is not there any more")
}

/// The targets of the mounts that came along with the graft at `target`.
pub(super) fn members_of(observed: &Observed, target: &JailPath) -> Vec<JailPath> {
    let members = observed
        .members
        .iter()
        .filter(|member| member.graft == *target);
    let mut targets: Vec<_> = members.map(|member| member.mount.target.clone()).collect();
    targets.dedup();
    targets
}

/// The mount that the directory of a path is on.
enum Held {
    /// The root's own mount.
    Root,
    /// A foreign mount at this path on the host: a volume of the site's own.
    Volume(PathBuf),
    /// A mount of ours at this path in the jail.
    Ours(JailPath),
    /// Any other foreign mount at this path on the host.
    Theirs(PathBuf),
}

/// Whether `path` can only be seen when the mounts at `going` are gone. `hidden`: the targets of
/// which this is already known. A path inside a mount that will be there is seen in its source.
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

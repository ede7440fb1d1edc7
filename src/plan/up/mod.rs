//! The plan that brings a site up.

mod grafts;
mod held;
mod moved;
mod nested;
mod orphans;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::GraftChange;
use super::compare::{NOT_TO_BE_SEEN, Verdict, kept_record};
use super::graft::{Graft, GraftedSite, OwnMounts, Sharing, layout};
use super::placeholders;
use super::state::{MountState, State};
use super::step::{Along, Plan, Step, has_files_for};
use crate::Error;
use crate::base::hints::{unmount, unmount_tree};
use crate::base::quote::shell_path;
use crate::base::{ErrorCode, Extent, HostPath, JailPath};
use crate::observe::{Observed, ObservedMount, RecordedMount, Stray};
use crate::resolve::{Desired, FileKind, Mount};

/// The plan that turns `observed` into `desired`. Once it is carried out, the next plan is empty,
/// unless this one is [unfinished](Plan::unfinished). `sharing`: how sites share mounts; `None`:
/// they do not, and everything is mounted one by one.
///
/// Mounts that were made one by one, as an earlier version did, make way for grafts only if they
/// are to be renewed.
pub fn up(desired: &Desired, observed: &Observed, sharing: Option<&Sharing>) -> Plan {
    let templates = sharing.map(|sharing| &sharing.templates);
    let site = layout(desired, observed, templates, OwnMounts::Stay);
    let as_it_is = plan(site, observed);

    if let Some(Sharing { renew: true, .. }) = sharing
        && as_it_is.conflicts.is_empty()
        && observed.recorded_mounts().any(|mount| !mount.is_graft())
    {
        let site = layout(desired, observed, templates, OwnMounts::MakeWay);
        let anew = plan(site, observed);
        if anew.conflicts.is_empty() {
            return anew;
        }
    }
    as_it_is
}

fn plan(site: GraftedSite, observed: &Observed) -> Plan {
    let GraftedSite { desired, grafts } = site;
    let mut planner = Planner {
        desired: &desired,
        grafts: &grafts,
        observed,
        refresh: BTreeMap::new(),
        plan: Plan {
            manifest: desired.manifest.clone(),
            up_without_mounts: observed.is_up_without_mounts(),
            ..Plan::empty(desired.site.clone(), desired.root.clone())
        },
        detach: BTreeMap::new(),
        mount: BTreeMap::new(),
        moved_to: moved_to(&desired, observed),
        uncovered: BTreeSet::new(),
        hidden: BTreeSet::new(),
        buried: vec![],
        covered: vec![],
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
    planner.plan_nested();
    let mut plan = planner.finish();
    plan.grafts = grafts;
    plan
}

/// The paths in the root to which mounts of ours were moved.
fn moved_to(desired: &Desired, observed: &Observed) -> BTreeSet<JailPath> {
    let place = |stray: &Stray| {
        let at = desired.root.path_inside(stray.point.as_deref()?)?;
        (at != stray.target).then_some(at)
    };
    observed.strays.iter().filter_map(place).collect()
}

struct Planner<'a> {
    desired: &'a Desired,
    grafts: &'a [Graft],
    observed: &'a Observed,
    plan: Plan,
    /// The detaches at each target, topmost mount first, which is the order of unmounting.
    detach: BTreeMap<&'a JailPath, Vec<Step>>,
    /// The attach or swap at each target.
    mount: BTreeMap<&'a JailPath, Step>,
    /// Where mounts of ours lie that were moved there.
    moved_to: BTreeSet<JailPath>,
    /// Targets where our mounts are detached because they hide others of ours.
    uncovered: BTreeSet<&'a JailPath>,
    /// Targets of our mounts that are hidden.
    hidden: BTreeSet<&'a JailPath>,
    /// The records of the hidden mounts, which are kept.
    buried: Vec<&'a RecordedMount>,
    /// The detaches of mounts that a graft covers.
    covered: Vec<Step>,
    /// The detaches of mounts that were moved away.
    strays: Vec<Step>,
    /// The steps that refresh templates, by their grafts.
    refresh: BTreeMap<&'a JailPath, Step>,
}

impl<'a> Planner<'a> {
    fn plan_mount(&mut self, mount: &'a Arc<Mount>) {
        if self.plan_absent(mount) {
            return;
        }
        if let Some(error) = self.observed.unseen.get(&mount.target)
            && !self.is_taken(&mount.target)
            && self.plan_unseen(mount, error)
        {
            return;
        }
        let verdict = self.verdict(mount);
        self.carry_out(mount, None, &verdict);
        self.add_state_by(mount, verdict);
    }

    /// Whether the source of `mount` is not there. If so, the mount stays as it is.
    fn plan_absent(&mut self, mount: &Arc<Mount>) -> bool {
        let is_absent = self.observed.absent.contains(&mount.target);
        if is_absent {
            self.add_state(mount, State::Absent, Some(absent(&mount.source)));
        }
        is_absent
    }

    /// Plans what the verdict on the target of `mount` asks for.
    fn carry_out(
        &mut self,
        mount: &'a Arc<Mount>,
        graft: Option<GraftChange>,
        verdict: &Verdict<'_>,
    ) {
        match verdict {
            Verdict::Keep(stack) => {
                for seen in stack {
                    self.keep(seen, mount);
                }
            }
            Verdict::Attach => self.add_attach(mount, graft),
            Verdict::Swap { top, because, .. } => {
                let step = Step::Swap {
                    mount: Arc::clone(mount),
                    expected: (*top).clone(),
                    along: self.along(&mount.target, top, mount.extent()),
                    because: *because,
                    graft,
                };
                self.mount.insert(&mount.target, step);
            }
            Verdict::Replace { stack, .. } => {
                for seen in stack.iter().rev() {
                    self.add_detach(&mount.target, seen, mount.extent());
                }
                self.add_attach(mount, graft);
            }
            Verdict::FinishSwap { top, below } => {
                self.add_detach(&mount.target, top, mount.extent());
                self.keep(below, mount);
            }
            Verdict::NotOurs {
                because,
                detail,
                count,
            } => {
                let hint = self.making_way(mount, *because, *count);
                self.cannot_mount(mount, detail, hint);
            }
            Verdict::OnTheirs { detail, .. } => {
                let (site, how) = (&self.desired.site, self.unmounting(&mount.target));
                let hint = format!("`mountjail down {site}`, then {how}");
                self.cannot_mount(mount, detail, hint);
            }
        }
    }

    /// Records that `seen` stays as the mount that `mount` asks for.
    fn keep(&mut self, seen: &ObservedMount, mount: &Mount) {
        let record = kept_record(seen, mount, self.observed);
        self.plan.unchanged.extend(record);
    }

    /// Plans to mount what `mount` asks for. A tmpfs of ours that goes from there keeps its files.
    fn add_attach(&mut self, mount: &'a Arc<Mount>, graft: Option<GraftChange>) {
        let (observed, target) = (self.observed, &mount.target);
        let again = observed
            .top(target)
            .filter(|top| observed.is_ours(target, top) && has_files_for(top, mount));
        let step = Step::Attach {
            mount: Arc::clone(mount),
            graft,
            again: again.cloned(),
        };
        self.mount.insert(target, step);
    }

    /// What to do about the `count` mounts of somebody else in the place of `mount`.
    fn making_way(&self, mount: &Mount, state: State, count: usize) -> String {
        if state == State::WrongOptions
            && let Some(options) = self.remount_options(mount)
        {
            return format!(
                "give it the options: `mount -o remount,{options} {}`",
                shell_path(self.desired.root.inside(&mount.target))
            );
        }
        // On a shared mount one umount(8) may take several away.
        let again = if count > 1 {
            "; then run the command again"
        } else {
            ""
        };
        let how = self.unmounting(&mount.target);
        format!("unmount it, if it is not needed: {how}{again}")
    }

    /// The options of mount(8) that make what is mounted there as `mount` asks for. `None`: no
    /// remount can do that.
    fn remount_options(&self, mount: &Mount) -> Option<String> {
        let attributes = mount.attributes;
        let seen = self.observed.top(&mount.target)?.file_system;
        match (seen, mount.file_system) {
            (Some(seen), Some(wanted)) if !wanted.is(seen) => seen
                .can_become(wanted)
                .then(|| format!("{},{attributes}", wanted.remount_options())),
            _ => Some(format!("bind,{attributes}")),
        }
    }

    /// The command that takes away what somebody else has mounted at `target`.
    fn unmounting(&self, target: &JailPath) -> String {
        let at = self.desired.root.inside(target);
        let kind = self.observed.top(target).and_then(|top| top.kind);
        match kind {
            Some(FileKind::Directory) | None => unmount_tree(&at),
            Some(_) => unmount(&at),
        }
    }

    fn cannot_mount(&mut self, mount: &Mount, why: &str, hint: String) {
        let (site, at) = (&self.desired.site, self.desired.root.inside(&mount.target));
        let error = Error::failed(format!(
            "{site}: cannot mount {} on {at}: {why}",
            mount.what()
        ));
        let error = error.at(at).coded(ErrorCode::Conflict);
        self.plan.conflicts.push(error.hint(hint));
    }

    fn add_state(&mut self, mount: &Arc<Mount>, state: State, detail: Option<String>) {
        let state = MountState::desired(mount, state, detail);
        self.plan.states.push(state);
    }

    fn add_state_by(&mut self, mount: &Arc<Mount>, verdict: Verdict<'_>) {
        let (state, detail) = verdict.state();
        self.add_state(mount, state, detail);
    }

    /// What came along with `seen`, by its record. Without a record, `extent` decides.
    fn along(&self, target: &JailPath, seen: &ObservedMount, extent: Extent) -> Along {
        let extent = match self.observed.record_of(target, seen) {
            Some(known) if known.is_graft() => {
                return Along::Members(self.observed.members_at(target));
            }
            Some(known) => known.extent(),
            None => extent,
        };
        match extent {
            Extent::Mount => Along::Nothing,
            Extent::Tree => Along::Submounts,
        }
    }

    /// Plans to detach `seen`, a mount at `target`, unless that is planned already.
    fn add_detach(&mut self, target: &'a JailPath, seen: &ObservedMount, extent: Extent) {
        for step in self.detach.get(target).into_iter().flatten() {
            if let Step::Detach { expected, .. } = step
                && expected == seen
            {
                return;
            }
        }
        let known = self.observed.record_of(target, seen);
        let source = known.map(|known| &known.source);
        let step = Step::detach(target, seen, source, self.along(target, seen, extent));
        self.detach.entry(target).or_default().push(step);
    }

    /// Plans the target of `mount`, whose topmost mount cannot be looked at because of `error`.
    /// Returns `false` if that mount makes way: it is ours, its server is gone for good, and the
    /// source can be looked at.
    fn plan_unseen(&mut self, mount: &Arc<Mount>, error: &Error) -> bool {
        let observed = self.observed;
        let top = observed.top(&mount.target);
        let ours = top.filter(|top| observed.is_ours(&mount.target, top));
        match (ours, mount.file) {
            (Some(_), Some(_)) if error.is_server_gone() => return false,
            (Some(top), None) => self.keep(top, mount),
            _ => {
                let site = &self.desired.site;
                self.plan.conflicts.push(error.clone().context(site));
            }
        }
        self.add_state(mount, State::Stale, Some(NOT_TO_BE_SEEN.to_owned()));
        true
    }

    fn finish(mut self) -> Plan {
        let mut attach = BTreeSet::new();
        for (target, step) in &self.mount {
            if matches!(step, Step::Attach { .. }) {
                attach.insert(*target);
            }
        }
        let going = self.postpone_hidden(&mut attach);
        let mut made = placeholders::plan(self.desired, self.observed, &attach, &going);
        self.plan.unfinished |= made.postponed;
        self.postpone_removals(&mut made);
        self.refuse_outside(&mut made);
        made.remove.retain(|step| match step.path() {
            Some(path) => !self.holds_hidden(path),
            None => true,
        });
        let writes = self.files_to_write();

        let steps = &mut self.plan.steps;
        steps.extend(self.refresh.into_values());
        steps.extend(writes);
        steps.extend(self.strays);
        // A mount inside another one is detached before it.
        steps.extend(self.detach.into_values().rev().flatten());
        steps.extend(made.remove);
        steps.extend(unneeded_files(self.desired, self.observed));
        steps.extend(made.create);
        steps.extend(self.mount.into_values());
        steps.extend(self.covered);

        self.plan.conflicts.extend(made.conflicts);
        self.plan.in_the_way = made.in_the_way;
        self.plan.states.sort_by(|a, b| a.target.cmp(&b.target));
        self.plan.unchanged.extend(self.buried.into_iter().cloned());
        sort_by_target(&mut self.plan.unchanged);
        self.plan
    }

    /// Whether a hidden mount of ours is still on `path`, or below it.
    fn holds_hidden(&self, path: &JailPath) -> bool {
        self.hidden.iter().any(|hidden| hidden.starts_with(path))
    }

    fn files_to_write(&self) -> Vec<Step> {
        let mut steps = vec![];
        for file in &self.desired.files {
            if !self.observed.current_files.contains(&file.path) {
                steps.push(Step::WriteFile(file.clone()));
            }
        }
        steps
    }
}

/// The detail of a mount whose source is not there.
fn absent(source: &HostPath) -> String {
    format!("{source} is not there any more")
}

fn unneeded_files(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let mut steps = vec![];
    for path in observed.kept.iter().flat_map(|kept| &kept.files) {
        if desired.files.iter().all(|file| file.path != *path) {
            steps.push(Step::RemoveFile(path.clone()));
        }
    }
    steps
}

fn sort_by_target(mounts: &mut [RecordedMount]) {
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
}

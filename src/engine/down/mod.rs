//! `down`: checks whether anything is in use before the first change. After that, an error does not
//! stop it.
//!
//! It asks neither the file system that a mount shows nor one that somebody has mounted above it.
//! Mounts are recognised by their ids, and a mount that another one hides is reached through the
//! mount that it is on (`hidden.rs`).

mod detach;
mod foreign;
mod in_use;
mod remove;

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::outcome::{EngineFailure, Log, Outcome};
use super::root::{Root, Spot, Spots};
use super::setup::Engine;
use super::target::{
    clear_after, detach_stray, is_found, made_kind, part_from_sources, still_there,
};
use super::{hidden, journal};
use crate::base::{Error, HostPath, JailPath, Result};
use crate::observe::{
    self, BootRecord, CreatedKind, Identity, Observed, ObservedMount, PersistentRecord,
    RecordedMount,
};
use crate::plan::{Plan, State, Step};
use crate::sys::{self, IfInUse};

pub(super) fn carry_out(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    if_in_use: IfInUse,
    log: Log<'_>,
) -> Result<Outcome, Box<EngineFailure>> {
    let mut run = DownRun::new(engine, plan, observed, if_in_use, log)?;
    run.others = open_others(plan, &run.root);
    if if_in_use == IfInUse::Fail {
        run.stop_if_in_use()?;
    }
    run.carry_out()
}

/// As [`carry_out`], but returns `Ok(None)` and changes nothing unless every mount is as planned
/// and not in use.
pub(super) fn carry_out_if_quiet(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    log: Log<'_>,
) -> Result<Option<Outcome>, Box<EngineFailure>> {
    let run = DownRun::new(engine, plan, observed, IfInUse::Fail, log)?;
    if run.is_quiet() {
        run.carry_out().map(Some)
    } else {
        Ok(None)
    }
}

struct DownRun<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    observed: &'a Observed,
    root: Rc<Root>,
    /// The root as it is on other mounts, if a file system was mounted over it, and the site came
    /// up in that, too.
    others: Vec<Root>,
    /// The root without anything mounted in it, opened on first use. `None`: it cannot be opened.
    bare: OnceCell<Option<Root>>,
    if_in_use: IfInUse,
    log: Log<'a>,
    failed: Vec<Error>,
    /// Paths that have changed since they were made.
    left: Vec<JailPath>,
    outcome: Outcome,
}

/// The paths that a run has dealt with.
#[derive(Default)]
struct DoneSteps {
    /// The targets of the mounts that are gone.
    detached: HashSet<JailPath>,
    /// Placeholders and links that are gone or not ours any more.
    removed: HashSet<JailPath>,
}

impl DoneSteps {
    fn add(&mut self, step: &Step, path: Option<&JailPath>) {
        let done = if matches!(step, Step::Detach { .. }) {
            &mut self.detached
        } else {
            &mut self.removed
        };
        done.extend(path.cloned());
    }
}

impl<'a> DownRun<'a> {
    fn new(
        engine: &'a Engine,
        plan: &'a Plan,
        observed: &'a Observed,
        if_in_use: IfInUse,
        log: Log<'a>,
    ) -> Result<Self> {
        let root = Rc::new(open(plan)?);
        Ok(Self {
            engine,
            plan,
            observed,
            others: vec![],
            root,
            bare: OnceCell::new(),
            if_in_use,
            log,
            failed: vec![],
            left: vec![],
            outcome: Outcome::default(),
        })
    }

    fn carry_out(mut self) -> Result<Outcome, Box<EngineFailure>> {
        let done = self.run_steps();

        let written = self.write_records(&done);
        self.failed.extend(written.err());
        self.finish()
    }

    fn write_records(&self, done: &DoneSteps) -> Result<()> {
        let (remaining, kept) = (self.remaining(done), self.kept(done));
        let (state, site) = (&self.engine.state, &self.plan.site);
        journal::write_kept(state, site, &kept)?;
        if remaining.mounts.is_empty() {
            journal::remove_record(state, site)
        } else {
            journal::write_record(state, site, &remaining)
        }
    }

    fn finish(mut self) -> Result<Outcome, Box<EngineFailure>> {
        self.outcome
            .left
            .extend(still_there(&self.root, &self.left));
        if self.failed.is_empty() {
            return Ok(self.outcome);
        }

        let error = self.failed.remove(0);
        Err(Box::new(EngineFailure {
            also: self.failed,
            ..EngineFailure::from(error)
        }))
    }

    fn detaches(&self) -> impl Iterator<Item = (&'a JailPath, &'a ObservedMount)> + use<'a> {
        detaches(self.plan)
    }

    /// The targets of the mounts in this state.
    fn states(&self, state: State) -> impl Iterator<Item = &'a JailPath> + use<'a> {
        let states = self.plan.states.iter();
        states
            .filter(move |found| found.state == state)
            .map(|found| &found.target)
    }

    /// The spot of `target`, on the mount of the root or in one of ours.
    fn spot<'s>(&self, target: &JailPath, spots: &'s mut Spots<'_>) -> io::Result<&'s Spot> {
        for (above, _) in self.detaches() {
            if above != target && target.starts_with(above) {
                return spots.get(target);
            }
        }
        spots.on_mount(target)
    }

    /// Carries out every step that can be carried out.
    fn run_steps(&mut self) -> DoneSteps {
        let root = Rc::clone(&self.root);
        let mut spots = Spots::new(&root);
        let mut done = DoneSteps::default();
        if let Err(error) = part_from_sources(&root, self.plan, self.observed) {
            self.failed.push(error);
            return done;
        }
        self.failed = self.shadowed();
        let mut stuck: Vec<_> = self.states(State::Shadowed).collect();
        let hidden = self.hidden();

        for step in &self.plan.steps {
            let path = path_of(step);
            let holds = |mounts: &[&JailPath]| match path {
                Some(path) => mounts.iter().any(|mount| mount.starts_with(path)),
                None => false,
            };
            let is_removal = !matches!(step, Step::Detach { .. });
            if holds(&stuck) || is_removal && holds(&hidden) {
                continue; // something of ours is still in it or on it; the next run finishes that
            }
            if let Some(foreign) = self.foreign_on(step) {
                self.outcome.left.push(foreign);
                continue;
            }
            (self.log)(format_args!("{step}"));
            match self.step(step, &mut spots) {
                Ok(()) => done.add(step, path),
                Err(error) => {
                    if let Some(path) = path.or(stray_of(step)) {
                        stuck.push(path);
                        done.detached.remove(path); // one of two mounts there stays
                    }
                    self.failed.push(error);
                }
            }
        }
        done
    }

    /// The targets of the recorded mounts that exist and are not seen now.
    fn hidden(&self) -> Vec<&'a JailPath> {
        let detached: HashSet<_> = self.detaches().map(|(_, seen)| seen.unique_id).collect();
        let strays = self.observed.strays.iter();
        let strays: HashSet<_> = strays.map(|stray| Some(stray.unique_id)).collect();
        let mut hidden = vec![];
        for mount in self.observed.recorded_mounts() {
            let id = &mount.unique_id;
            if !detached.contains(id) && !strays.contains(id) && still_exists(mount) {
                hidden.push(&mount.target);
            }
        }
        hidden
    }

    /// The record of the mounts that remain.
    fn remaining(&self, done: &DoneSteps) -> BootRecord {
        let mut record = journal::known_record(&self.engine.boot, self.plan, self.observed);
        let mut standing: HashSet<_> = self.states(State::Shadowed).collect();
        for (target, _) in self.detaches() {
            if !done.detached.contains(target) {
                standing.insert(target);
            }
        }
        record
            .mounts
            .retain(|mount| standing.contains(&mount.target) || still_exists(mount));
        if let Some(history) = record.history.take() {
            record.history = Some(history.and(observe::now(), 0, 0, done.detached.len()));
        }
        record
    }

    /// The record of the placeholders, links and generated files that remain.
    fn kept(&self, done: &DoneSteps) -> PersistentRecord {
        let mut kept = journal::known_kept(self.plan, self.observed);
        kept.made.retain(|made| !done.removed.contains(&made.path));
        kept.files
            .retain(|file| !journal::is_to_go(self.plan, file) || file.as_path().exists());
        kept
    }

    /// The placeholders that are to be removed, as they were made.
    fn placeholders(&self) -> Vec<(&'a JailPath, CreatedKind, Identity)> {
        let mut made = vec![];
        for step in &self.plan.steps {
            if let Step::RemovePlaceholder {
                path,
                kind,
                file: Some(file),
            } = step
            {
                made.push((path, made_kind(*kind), *file));
            }
        }
        made
    }

    fn step(&mut self, step: &Step, spots: &mut Spots<'_>) -> Result<()> {
        self.take_away(step, spots)?;
        self.outcome.count(step);
        Ok(())
    }

    fn take_away(&mut self, step: &Step, spots: &mut Spots<'_>) -> Result<()> {
        match step {
            Step::DetachStray(stray) => {
                detach_stray(&self.plan.root, stray, self.observed)?;
                clear_after(&self.root, stray, self.placeholders());
                Ok(())
            }
            Step::Detach {
                target,
                expected,
                along,
                ..
            } => self.detach(target, expected, along, spots),
            Step::RemovePlaceholder { path, kind, file } => {
                self.remove(path, &made_kind(*kind), *file, spots)
            }
            Step::RemoveLink { path, destination } => {
                self.remove(path, &CreatedKind::Link(destination.clone()), None, spots)
            }
            Step::RemoveFile(path) => journal::remove(path.as_path()),
            Step::WriteFile(_)
            | Step::CreatePlaceholder { .. }
            | Step::CreateDirectory { .. }
            | Step::CreateLink { .. }
            | Step::Refresh { .. }
            | Step::DetachCovered { .. }
            | Step::Attach { .. }
            | Step::Swap { .. } => Ok(()), // `down` never plans these
        }
    }
}

/// Opens the root. If another file system was mounted over it later, this is the root that holds
/// the mounts.
fn open(plan: &Plan) -> Result<Root> {
    let visible = Root::open(&plan.root);
    let first = detaches(plan).next();
    if let Ok(root) = &visible
        && first.is_none_or(|(_, first)| is_on(first, root))
    {
        return visible;
    }
    let holder = detaches(plan).find_map(|(target, expected)| holder_of(plan, target, expected));
    let Some(id) = holder else {
        return visible;
    };

    if let Ok(root) = &visible
        && root.mount() == Some(id)
    {
        return visible;
    }
    open_hidden(id, &plan.root).or(visible)
}

/// Whether the mount `seen` is directly on the one that the root is on.
fn is_on(seen: &ObservedMount, root: &Root) -> bool {
    let holder = seen.unique_id.and_then(|id| sys::mount_outline(id).ok());
    holder.is_some_and(|mount| root.mount() == Some(mount.parent))
}

/// Opens the root as it is seen, and on each mount that holds mounts to detach, besides `root`.
fn open_others(plan: &Plan, root: &Root) -> Vec<Root> {
    let visible = Root::open(&plan.root).ok();
    let known = [Some(root), visible.as_ref()];
    let known = known.map(|root| root.and_then(Root::mount));
    let holders = detaches(plan).filter_map(|(target, seen)| holder_of(plan, target, seen));
    let holders: BTreeSet<_> = holders.filter(|id| !known.contains(&Some(*id))).collect();
    let mut others = vec![];
    others.extend(visible.filter(|visible| visible.mount() != root.mount()));
    for id in holders {
        others.extend(open_hidden(id, &plan.root).ok());
    }
    others
}

/// Opens the root as it is on the mount with the unique mount ID `id`.
fn open_hidden(id: u64, root: &HostPath) -> io::Result<Root> {
    Root::of(hidden::open(id, root.as_path())?, root)
}

/// The unique mount ID of the mount that the root is on, if the mount `expected` is still there.
fn holder_of(plan: &Plan, target: &JailPath, expected: &ObservedMount) -> Option<u64> {
    let mount = sys::stat_mount(expected.unique_id?).ok()?;
    if mount.point != plan.root.inside(target).as_path() {
        return None;
    }
    let holder = sys::stat_mount(mount.parent).ok()?;
    if !plan.root.as_path().starts_with(&holder.point) {
        return None;
    }
    Some(mount.parent)
}

fn detaches(plan: &Plan) -> impl Iterator<Item = (&JailPath, &ObservedMount)> {
    plan.steps.iter().filter_map(|step| match step {
        Step::Detach {
            target, expected, ..
        } => Some((target, expected)),
        _ => None,
    })
}

/// The pauses after which a mount in use is asked about again, one second in all. A path lookup
/// uses the mount that it passes for a moment, and so does ps(1), which reads the links of
/// `/proc/PID/fd`.
fn pauses() -> impl Iterator<Item = Duration> {
    (0..10).map(|power| Duration::from_millis(1 << power))
}

/// Whether the mount `expected` is visible at `spot`.
fn is_at(spot: &Spot, expected: &ObservedMount) -> io::Result<bool> {
    if let (Some(expected), Some(found)) = (expected.unique_id, spot.mounted()?) {
        return Ok(found == expected);
    }
    is_found(expected, spot.mount()?, || spot.stat())
}

/// Whether the mount still exists somewhere, known by its unique mount ID. Then it must stay
/// recorded.
fn still_exists(mount: &RecordedMount) -> bool {
    mount.unique_id.is_some_and(sys::mount_exists)
}

/// The path in the jail that a step of `down` acts on.
fn path_of(step: &Step) -> Option<&JailPath> {
    match step {
        Step::Detach { target, .. } => Some(target),
        Step::RemovePlaceholder { path, .. } | Step::RemoveLink { path, .. } => Some(path),
        _ => None,
    }
}

/// The target of a mount that was moved away, if `step` detaches one.
fn stray_of(step: &Step) -> Option<&JailPath> {
    match step {
        Step::DetachStray(stray) => Some(&stray.target),
        _ => None,
    }
}

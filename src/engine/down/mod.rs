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
use std::collections::HashSet;
use std::io;
use std::rc::Rc;

use super::outcome::{EngineFailure, Log, Outcome};
use super::root::{Root, Spot, Spots};
use super::setup::Engine;
use super::target::{
    clear_after, detach_stray, is_found, made_kind, part_from_sources, still_there,
};
use super::{hidden, journal};
use crate::base::{Error, HostPath, JailPath, Result};
use crate::observe::{
    self, BootRecord, CreatedKind, Observed, ObservedMount, PersistentRecord, RecordedMount,
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
    let run = DownRun::new(engine, plan, observed, if_in_use, log)?;
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

        let (remaining, kept) = (self.remaining(&done), self.kept(&done));
        let (state, site) = (&self.engine.state, &self.plan.site);
        let records = journal::write_kept(state, site, &kept).and_then(|()| {
            match remaining.mounts.as_slice() {
                [] => journal::remove_record(state, site),
                _ => journal::write_record(state, site, &remaining),
            }
        });
        self.failed.extend(records.err());

        self.finish()
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
        let is_above = |(above, _): (&JailPath, _)| above != target && target.starts_with(above);
        if self.detaches().any(is_above) {
            spots.get(target)
        } else {
            spots.on_mount(target)
        }
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
        self.failed = self.shadowed().collect();
        let mut stuck: Vec<_> = self.states(State::Shadowed).collect();

        for step in &self.plan.steps {
            let path = path_of(step);
            if path.is_some_and(|path| stuck.iter().any(|stuck| stuck.starts_with(path))) {
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
                    stuck.extend(path);
                    path.map(|path| done.detached.remove(path)); // one of two mounts there stays
                    self.failed.push(error);
                }
            }
        }
        done
    }

    /// The record of the mounts that remain.
    fn remaining(&self, done: &DoneSteps) -> BootRecord {
        let record = self.observed.record.clone();
        let mut record = record.unwrap_or_else(|| {
            BootRecord::nothing(self.engine.boot.clone(), self.plan.root.clone())
        });

        let planned = self.detaches().map(|(target, _)| target);
        let failed = planned.filter(|target| !done.detached.contains(*target));
        let standing: HashSet<_> = failed.chain(self.states(State::Shadowed)).collect();
        record
            .mounts
            .retain(|mount| standing.contains(&mount.target) || still_exists(mount));
        let detached = done.detached.len();
        record.history = record
            .history
            .map(|history| history.and(observe::now(), 0, 0, detached));
        record
    }

    /// The record of the placeholders, links and generated files that remain.
    fn kept(&self, done: &DoneSteps) -> PersistentRecord {
        let kept = self.observed.kept.clone();
        let mut kept = kept.unwrap_or_else(|| PersistentRecord::nothing(self.plan.root.clone()));
        kept.made.retain(|made| !done.removed.contains(&made.path));
        kept.files.retain(|file| !self.is_removed(file));
        kept
    }

    fn is_removed(&self, file: &HostPath) -> bool {
        let planned = |step: &Step| matches!(step, Step::RemoveFile(path) if path == file);
        self.plan.steps.iter().any(planned) && !file.as_path().exists()
    }

    fn step(&mut self, step: &Step, spots: &mut Spots<'_>) -> Result<()> {
        match step {
            Step::DetachStray(stray) => {
                detach_stray(&self.plan.root, stray)?;
                self.outcome.detached += 1;
                let made = self.plan.steps.iter().filter_map(|step| match step {
                    Step::RemovePlaceholder { path, kind, file } => {
                        Some((path, made_kind(*kind), (*file)?))
                    }
                    _ => None,
                });
                clear_after(&self.root, stray, made);
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
    let mut holders = detaches(plan).filter_map(|(target, expected)| {
        let mount = sys::stat_mount(expected.unique_id?).ok()?;
        if mount.point != plan.root.inside(target).as_path() {
            return None;
        }
        let holder = sys::stat_mount(mount.parent).ok()?;
        let holds_root = plan.root.as_path().starts_with(&holder.point);
        holds_root.then_some(mount.parent)
    });
    let Some(id) = holders.next() else {
        return visible;
    };

    if visible.as_ref().is_ok_and(|root| root.mount() == Some(id)) {
        return visible;
    }
    hidden::open(id, plan.root.as_path())
        .and_then(|fd| Root::of(fd, &plan.root))
        .or(visible)
}

fn detaches(plan: &Plan) -> impl Iterator<Item = (&JailPath, &ObservedMount)> {
    plan.steps.iter().filter_map(|step| match step {
        Step::Detach {
            target, expected, ..
        } => Some((target, expected)),
        _ => None,
    })
}

/// Whether the mount `expected` is visible at `spot`.
fn is_at(spot: &Spot, expected: &ObservedMount) -> io::Result<bool> {
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

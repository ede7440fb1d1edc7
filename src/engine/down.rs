//! `down`: looks whether anything is in use before the first change; then goes on past what fails.

use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;

use super::journal;
use super::root::{Root, Spot, Spots};
use super::target::{cannot, detach_stray, is_mount, made_kind, still_there};
use super::{Engine, Failure, Log, Outcome};
use crate::error::{Error, Result};
use crate::manifest::{HostPath, JailPath};
use crate::observe::{self, Kept, MadeKind, Observed, Record, RecordedMount, SeenMount};
use crate::plan::{Plan, State, Step};
use crate::resolve::FileId;
use crate::sys;

pub(super) fn carry_out(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    lazy: bool,
    log: Log<'_>,
) -> Result<Outcome, Box<Failure>> {
    let run = Run::new(engine, plan, lazy, log)?;
    if !lazy {
        run.stop_if_busy()?;
    }
    run.carry_out(observed)
}

/// As [`carry_out`]; but `Ok(None)`, and nothing changed, unless every mount is as planned and none is in use.
pub(super) fn carry_out_if_quiet(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    log: Log<'_>,
) -> Result<Option<Outcome>, Box<Failure>> {
    let run = Run::new(engine, plan, false, log)?;
    if run.is_quiet() { run.carry_out(observed).map(Some) } else { Ok(None) }
}

struct Run<'a> {
    engine: &'a Engine,
    plan: &'a Plan,
    root: Rc<Root>,
    lazy: bool,
    log: Log<'a>,
    failed: Vec<Error>,
    /// What was not as it was made.
    left: Vec<JailPath>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(engine: &'a Engine, plan: &'a Plan, lazy: bool, log: Log<'a>) -> Result<Self> {
        let root = Rc::new(Root::open(&plan.root)?);
        Ok(Self { engine, plan, root, lazy, log, failed: vec![], left: vec![], outcome: Outcome::default() })
    }

    fn carry_out(mut self, observed: &Observed) -> Result<Outcome, Box<Failure>> {
        let (remaining, kept) = self.all(observed);
        let (state, site) = (&self.engine.state, &self.plan.site);
        let records =
            journal::write_kept(state, site, &kept).and_then(|()| match remaining.mounts.as_slice() {
                [] => journal::remove_record(state, site),
                _ => journal::write_record(state, site, &remaining),
            });
        self.failed.extend(records.err());
        self.finish()
    }

    fn finish(mut self) -> Result<Outcome, Box<Failure>> {
        self.outcome.left = still_there(&self.root, &self.left);
        if self.failed.is_empty() {
            return Ok(self.outcome);
        }
        let error = self.failed.remove(0);
        Err(Box::new(Failure { also: self.failed, ..Failure::from(error) }))
    }

    fn detaches(&self) -> impl Iterator<Item = (&JailPath, &SeenMount, bool)> {
        self.plan.steps.iter().filter_map(|step| match step {
            Step::Detach { target, expected, recursive, .. } => Some((target, expected, *recursive)),
            _ => None,
        })
    }

    /// Asks the kernel about each mount before any is taken away. A mount with others of ours on it counts as
    /// used by these, so it is not asked; nor is one with submounts, or with another one at the same place.
    fn stop_if_busy(&self) -> Result<(), Box<Failure>> {
        let mut spots = Spots::new(&self.root);
        let above = self.above();
        let mut asked = HashSet::new();
        let busy: Vec<String> = self
            .detaches()
            .filter(|(target, _, recursive)| !recursive && !above.contains(target.as_path()))
            .filter(|(target, ..)| asked.insert(*target)) // asking twice in a row unmounts
            .filter(|(target, ..)| spots.get(target).and_then(Spot::is_busy).unwrap_or(false))
            .map(|(target, ..)| target.to_string())
            .collect();
        if busy.is_empty() {
            return Ok(());
        }
        let error = Error::failed(format!("in use: {}; nothing was unmounted", busy.join(", ")))
            .hint("end what uses them, or detach them all the same with `mountjail down --lazy`");
        Err(Box::new(Failure { busy: true, ..Failure::from(error) }))
    }

    /// Whether each mount is the one that is to be taken away, no other of ours is on it, and none is in use.
    fn is_quiet(&self) -> bool {
        let mut spots = Spots::new(&self.root);
        let above = self.above();
        self.detaches().all(|(target, expected, _)| {
            let quiet = |spot: &Spot| Ok(is_mount(expected, &spot.stat()?) && !spot.is_busy()?);
            !above.contains(target.as_path()) && spots.get(target).and_then(quiet).unwrap_or(false)
        })
    }

    /// The paths that mounts to be taken away are below.
    fn above(&self) -> HashSet<&Path> {
        self.detaches().flat_map(|(target, ..)| target.as_path().ancestors().skip(1)).collect()
    }

    /// Carries out every step that can be; returns what is still to be remembered.
    fn all(&mut self, observed: &Observed) -> (Record, Kept) {
        let root = Rc::clone(&self.root);
        let mut spots = Spots::new(&root);
        let mut gone = HashSet::new();
        let mut forgotten = HashSet::new();
        let mut stuck: Vec<&JailPath> = vec![];
        for step in &self.plan.steps {
            let path = path_of(step);
            if path.is_some_and(|path| stuck.iter().any(|stuck| stuck.starts_with(path))) {
                continue; // something of ours is still in it, or on it: the next run's to finish
            }
            (self.log)(format_args!("{}: {step}", self.plan.site));
            match (self.step(step, &mut spots), path) {
                (Ok(()), Some(path)) => {
                    let done = if matches!(step, Step::Detach { .. }) { &mut gone } else { &mut forgotten };
                    done.insert(path.clone());
                }
                (Ok(()), None) => {}
                (Err(error), path) => {
                    stuck.extend(path);
                    path.map(|path| gone.remove(path)); // of two mounts there one went, one stays
                    self.failed.push(error);
                }
            }
        }
        let mut record = observed.record.clone().unwrap_or_else(|| self.no_record());
        let standing: HashSet<_> =
            self.detaches().map(|(target, ..)| target).filter(|target| !gone.contains(*target)).collect();
        let stands = |mount: &RecordedMount| standing.contains(&mount.target) || still_exists(mount);
        record.mounts.retain(|mount| !gone.contains(&mount.target) && stands(mount));
        record.history = record.history.map(|history| history.and(observe::now(), 0, 0, gone.len()));
        let mut kept = observed.kept.clone().unwrap_or_else(|| Kept::nothing(self.plan.root.clone()));
        kept.made.retain(|made| !forgotten.contains(&made.path));
        kept.files.retain(|file| !self.removed(file));
        (record, kept)
    }

    fn no_record(&self) -> Record {
        Record {
            version: 1,
            boot: self.engine.boot.clone(),
            root: self.plan.root.clone(),
            mounts: vec![],
            history: None,
        }
    }

    fn removed(&self, file: &HostPath) -> bool {
        let planned = |step: &Step| matches!(step, Step::RemoveFile(path) if path == file);
        self.plan.steps.iter().any(planned) && !file.as_path().exists()
    }

    fn step(&mut self, step: &Step, spots: &mut Spots<'_>) -> Result<()> {
        match step {
            Step::DetachStray(stray) => {
                detach_stray(stray)?;
                self.outcome.detached += 1;
                Ok(())
            }
            Step::Detach { target, expected, recursive, .. } => {
                self.detach(target, expected, *recursive, spots)
            }
            Step::RemovePlaceholder { path, kind, file } => {
                self.remove(path, &made_kind(*kind), *file, spots)
            }
            Step::RemoveLink { path, text } => self.remove(path, &MadeKind::Link(text.clone()), None, spots),
            Step::RemoveFile(path) => journal::remove(path.as_path()),
            Step::WriteFile(_)
            | Step::CreatePlaceholder { .. }
            | Step::CreateLink { .. }
            | Step::Attach(_)
            | Step::Swap { .. } => Ok(()), // the plan to nothing has none of these
        }
    }

    fn detach(
        &mut self,
        target: &JailPath,
        expected: &SeenMount,
        recursive: bool,
        spots: &mut Spots<'_>,
    ) -> Result<()> {
        if let Some(foreign) = self.foreign_below(target) {
            let (path, foreign) = (self.root.path().inside(target), self.root.path().inside(foreign));
            return Err(Error::failed(format!(
                "{path} stays mounted: {foreign} is mounted on it, and not by mountjail"
            ))
            .hint(format!("unmount {foreign} first")));
        }
        let failed = |error: std::io::Error| cannot(&self.root, "unmount", target, &error);
        let spot = spots.get(target).map_err(failed)?;
        if !is_mount(expected, &spot.stat().map_err(failed)?) {
            let path = self.root.path().inside(target);
            return Err(Error::failed(format!(
                "{path} stays mounted: the mount there changed while the command ran"
            ))
            .hint("run the command again"));
        }
        spot.umount(self.lazy || recursive).map_err(failed)?;
        self.outcome.detached += 1;
        Ok(())
    }

    fn foreign_below(&self, target: &JailPath) -> Option<&JailPath> {
        let mut foreign = self.plan.states.iter().filter(|state| state.state == State::Foreign);
        foreign.find(|state| state.target.starts_with(target)).map(|state| &state.target)
    }

    fn remove(
        &mut self,
        path: &JailPath,
        kind: &MadeKind,
        file: Option<FileId>,
        spots: &mut Spots<'_>,
    ) -> Result<()> {
        let removed = match spots.get(path) {
            // Its directory is gone, and so is it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(true),
            spot => spot.and_then(|spot| spot.remove(kind, file)),
        };
        if !removed.map_err(|error| cannot(&self.root, "remove", path, &error))? {
            self.left.push(path.clone());
        }
        Ok(())
    }
}

/// Whether a mount with a never reused id is somewhere: then it must not be forgotten.
fn still_exists(mount: &RecordedMount) -> bool {
    mount.unique_id.is_some_and(sys::mount_exists)
}

/// The path in the jail that a step of `down` is about.
fn path_of(step: &Step) -> Option<&JailPath> {
    match step {
        Step::Detach { target, .. } => Some(target),
        Step::RemovePlaceholder { path, .. } | Step::RemoveLink { path, .. } => Some(path),
        _ => None,
    }
}

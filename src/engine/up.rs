//! `up`: everything that can fail before the first mount is done before it; what fails later is
//! undone.

use std::io;

use super::backend::{Backend, Ready};
use super::mount_op::{self, Work};
use super::root::{Root, Spots};
use super::target::{cannot, clear_after, detach_stray, made_kind, nothing_inside, still_there};
use super::undo::{Old, Told, Undo, save};
use super::{Engine, EngineFailure, Log, Outcome, check_signal, journal};
use crate::base::{Error, HostPath, JailPath, Result};
use crate::observe::{
    self, BootRecord, CreatedKind, CreatedPath, History, Identity, Observed, ObservedMount,
    PersistentRecord, RecordedMount, VERSION,
};
use crate::patience::Stop;
use crate::plan::{Plan, Step};
use crate::resolve::GeneratedFile;
use crate::sys;

pub(super) fn carry_out(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    stop: &Stop,
    log: Log<'_>,
) -> Result<Outcome, Box<EngineFailure>> {
    if plan.steps.is_empty() {
        return adopt(engine, plan, observed).map_err(Box::from);
    }
    let root = Root::of_plan(plan, observed)?;
    let mut run = Run {
        engine,
        backend: engine.backend()?,
        plan,
        observed,
        root,
        stop,
        log,
        kept: kept_before(plan, observed),
        written: observed
            .kept
            .clone()
            .unwrap_or_else(|| PersistentRecord::nothing(plan.root.clone())),
        intent: vec![],
        undo: vec![],
        left: vec![],
        outcome: Outcome::default(),
    };
    match run.all() {
        Ok(()) => {
            run.outcome.left = still_there(&run.root, &run.left);
            run.forget_old_files();
            Ok(run.outcome)
        }
        Err(error) => Err(Box::new(run.roll_back(error))),
    }
}

/// Nothing to mount; but the site is up from now on, and what an fstab or an earlier kernel session
/// mounted is ours.
fn adopt(engine: &Engine, plan: &Plan, observed: &Observed) -> Result<Outcome> {
    let record = record_of(engine, plan, observed, plan.keep.clone(), history(observed));
    if observed.record.as_ref() != Some(&record) {
        journal::write_record(&engine.state, &plan.site, &record)?;
    }
    Ok(Outcome::default())
}

fn record_of(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    mounts: Vec<RecordedMount>,
    history: Option<History>,
) -> BootRecord {
    let nothing = || BootRecord::nothing(engine.boot.clone(), plan.root.clone());
    let before = observed.record.clone().unwrap_or_else(nothing);
    let manifest = plan.manifest.clone();
    BootRecord {
        version: VERSION,
        manifest,
        mounts,
        history,
        ..before
    }
}

/// What earlier runs did.
fn history(observed: &Observed) -> Option<History> {
    observed
        .record
        .as_ref()
        .and_then(|record| record.history.clone())
}

/// What is recorded of what was made and is not gone, with what was found of it as it is known now:
/// a reboot gives it other numbers.
fn kept_before(plan: &Plan, observed: &Observed) -> PersistentRecord {
    let mut kept = observed
        .kept
        .clone()
        .unwrap_or_else(|| PersistentRecord::nothing(plan.root.clone()));
    kept.version = VERSION;
    kept.manifest.clone_from(&plan.manifest);
    kept.made.retain(|made| !observed.is_gone(made));
    for made in &mut kept.made {
        let seen = observed.paths.get(&made.path).map(|seen| seen.file);
        made.file = match (made.file, seen) {
            (Some(file), Some(seen)) if file.is(&seen) => Some(seen),
            (file, _) => file,
        };
    }
    kept
}

struct Run<'a> {
    engine: &'a Engine,
    backend: &'a dyn Backend,
    plan: &'a Plan,
    observed: &'a Observed,
    root: Root,
    stop: &'a Stop,
    log: Log<'a>,
    kept: PersistentRecord,
    /// As it was written last.
    written: PersistentRecord,
    /// The mounts that were recorded before the first change: those that stood, and those to come.
    intent: Vec<RecordedMount>,
    undo: Vec<Undo>,
    /// What was to be removed and was not as it was made.
    left: Vec<JailPath>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn all(&mut self) -> Result<()> {
        self.write_files()?;
        let mut work = self.prepare()?;
        self.record_intent(&work)?;
        self.clear_and_create()?;
        mount_op::open_targets(&self.root, &mut work)?;
        for item in &mut work {
            check_signal(self.stop)?;
            self.mount(item)?;
        }
        let mut spots = Spots::new(&self.root);
        for item in &mut work {
            item.verify(&self.root, &mut spots)?;
        }
        self.record_result(&work)
    }

    fn step(&self, step: &Step) {
        (self.log)(format_args!("{}: {step}", self.plan.site));
    }

    fn write_files(&mut self) -> Result<()> {
        for step in &self.plan.steps {
            if let Step::WriteFile(file) = step {
                self.step(step);
                self.write_file(file)?;
            }
        }
        Ok(())
    }

    fn write_file(&mut self, file: &GeneratedFile) -> Result<()> {
        if !self.kept.files.contains(&file.path) {
            self.kept.files.push(file.path.clone());
            self.write_kept()?;
        }
        let before = journal::write_generated(file.path.as_path(), &file.contents)?;
        self.undo.push(Undo::Restore {
            path: file.path.clone(),
            before,
        });
        Ok(())
    }

    /// When nothing can fail any more: old generated files need not be brought back. One that stays
    /// is the next run's.
    fn forget_old_files(&mut self) {
        let unneeded = |file: &HostPath| {
            self.plan
                .steps
                .iter()
                .any(|step| matches!(step, Step::RemoveFile(path) if path == file))
        };
        let before = self.kept.files.len();
        let mut failed = vec![];
        self.kept
            .files
            .retain(|file| match journal::clear_beside(file.as_path()) {
                Ok(()) => !unneeded(file),
                Err(error) => {
                    failed.push(error);
                    true
                }
            });
        if self.kept.files.len() < before {
            failed.extend(self.write_kept().err());
        }
        self.outcome
            .left
            .extend(failed.iter().map(ToString::to_string));
    }

    fn prepare(&self) -> Result<Vec<Work<'a>>> {
        let (mut work, now) = (vec![], observe::since_boot());
        for step in &self.plan.steps {
            check_signal(self.stop)?;
            work.extend(Work::prepare(self.engine, self.backend, step, |target| {
                self.since(target, now)
            })?);
        }
        Ok(work)
    }

    /// Since when `target`, which is mounted on `now`, shows something: a swap leaves no moment in
    /// which it does not.
    fn since(&self, target: &JailPath, now: u64) -> Option<u64> {
        if !self.observed.mounts.contains_key(target) {
            return Some(now);
        }
        let recorded = self
            .observed
            .record
            .iter()
            .flat_map(|record| &record.mounts);
        recorded
            .filter(|mount| mount.target == *target)
            .find_map(|mount| mount.since)
    }

    /// Before the first change: what stands, what will go and what will come, with its ids where
    /// they are known.
    fn record_intent(&mut self, work: &[Work<'_>]) -> Result<()> {
        let kept = self
            .plan
            .keep
            .iter()
            .filter(|keep| !self.recorded(keep))
            .cloned();
        let mounts = self
            .recorded_before()
            .into_iter()
            .chain(kept)
            .chain(work.iter().map(Work::record));
        self.intent = mounts.collect();
        self.write_record(self.intent.clone(), self.history_with_this_run())
    }

    fn recorded_before(&self) -> Vec<RecordedMount> {
        self.observed
            .record
            .as_ref()
            .map_or(vec![], |record| record.mounts.clone())
    }

    fn history_with_this_run(&self) -> Option<History> {
        let count = |is: fn(&Step) -> bool| self.plan.steps.iter().filter(|step| is(step)).count();
        let attached = count(|step| matches!(step, Step::Attach(_)));
        let swapped = count(|step| matches!(step, Step::Swap { .. }));
        let detached = count(|step| matches!(step, Step::Detach { .. } | Step::DetachStray(_)));
        let before = history(self.observed).unwrap_or_default();
        let history = before.and(observe::now(), attached, swapped, detached);
        Some(history).filter(|history| *history != History::default())
    }

    fn recorded(&self, mount: &RecordedMount) -> bool {
        self.observed
            .record
            .as_ref()
            .is_some_and(|record| record.mounts.contains(mount))
    }

    fn record_result(&self, work: &[Work<'_>]) -> Result<()> {
        let was_known = |item: &Work<'_>| {
            matches!(item.ready, Ready::Detached(_))
                && item.unique_id.is_some()
                && item.submounts.is_none()
        };
        let ids_were_known = work.iter().all(was_known);
        let old_is_gone = self
            .observed
            .record
            .as_ref()
            .is_some_and(|record| record.mounts != self.plan.keep);
        if ids_were_known && !old_is_gone {
            return Ok(()); // what was written as intent has come true to the letter
        }
        let mounts = self
            .plan
            .keep
            .iter()
            .cloned()
            .chain(work.iter().map(Work::record))
            .collect();
        self.write_record(mounts, self.history_with_this_run())
    }

    fn write_record(&self, mounts: Vec<RecordedMount>, history: Option<History>) -> Result<()> {
        let record = record_of(self.engine, self.plan, self.observed, mounts, history);
        journal::write_record(&self.engine.state, &self.plan.site, &record)
    }

    fn write_kept(&mut self) -> Result<()> {
        self.write_as_kept(self.kept.clone())
    }

    fn write_as_kept(&mut self, kept: PersistentRecord) -> Result<()> {
        journal::write_kept(&self.engine.state, &self.plan.site, &kept)?;
        self.written = kept;
        Ok(())
    }

    fn clear_and_create(&mut self) -> Result<()> {
        let plan = self.plan;
        self.record_planned_placeholders()?;
        for step in &plan.steps {
            check_signal(self.stop)?;
            match step {
                Step::Detach {
                    target,
                    expected,
                    recursive,
                    ..
                } => {
                    self.detach(step, target, expected, *recursive)?;
                }
                Step::DetachStray(stray) => {
                    self.step(step);
                    detach_stray(&self.plan.root, stray)?;
                    self.outcome.detached += 1;
                    let made = self.observed.kept.iter().flat_map(|kept| &kept.made);
                    let made =
                        made.filter_map(|made| Some((&made.path, made.kind.clone(), made.file?)));
                    clear_after(&self.root, stray, made.rev());
                }
                Step::RemovePlaceholder { path, kind, file } => {
                    self.remove(step, path, made_kind(*kind), *file)?;
                }
                Step::RemoveLink { path, destination } => {
                    self.remove(step, path, CreatedKind::Link(destination.clone()), None)?;
                }
                Step::RemoveFile(path) => self.remove_file(step, path)?,
                Step::CreatePlaceholder { path, kind } => {
                    self.create(step, path, &made_kind(*kind))?;
                }
                Step::CreateLink { path, destination } => {
                    self.create(step, path, &CreatedKind::Link(destination.clone()))?;
                }
                Step::WriteFile(_) | Step::Attach(_) | Step::Swap { .. } => {}
            }
        }
        if self.kept == self.written {
            Ok(())
        } else {
            self.write_kept()
        }
    }

    /// Before the first placeholder: all that will be made, so that a crash leaves nothing
    /// unrecorded.
    fn record_planned_placeholders(&mut self) -> Result<()> {
        let made = self.plan.steps.iter().filter_map(|step| match step {
            Step::CreatePlaceholder { path, kind } => Some((path, made_kind(*kind))),
            Step::CreateLink { path, destination } => {
                Some((path, CreatedKind::Link(destination.clone())))
            }
            _ => None,
        });
        let planned: Vec<_> = made
            .map(|(path, kind)| CreatedPath::planned(path.clone(), kind))
            .collect();
        if planned.is_empty() {
            return Ok(());
        }
        self.kept.made.retain(|made| {
            planned
                .iter()
                .all(|planned| planned.path != made.path || made.file.is_some())
        });
        let mut intent = self.kept.clone();
        intent.made.extend(planned);
        self.write_as_kept(intent)
    }

    fn detach(
        &mut self,
        step: &Step,
        target: &JailPath,
        expected: &ObservedMount,
        recursive: bool,
    ) -> Result<()> {
        self.step(step);
        let cannot = |error: io::Error| cannot(&self.root, "detach", target, &error);
        let top = self
            .root
            .spot(target)
            .and_then(|spot| spot.open_mounted())
            .map_err(cannot)?;
        mount_op::must_be(
            &self.root,
            target,
            expected,
            &sys::stat_fd(&top).map_err(cannot)?,
        )?;
        if !recursive {
            nothing_inside(&self.root, "detach", target, expected)?;
        }
        let saved = save(self.backend, &top, recursive).map_err(cannot)?;
        sys::umount_at(&top).map_err(cannot)?;
        self.root.unmounted(target, Some(expected));
        self.undo
            .push(Old::undo(target, expected.unique_id, recursive, saved));
        self.outcome.detached += 1;
        Ok(())
    }

    fn mount(&mut self, item: &mut Work<'_>) -> Result<()> {
        self.step(item.step);
        let gap = item.carry_out(self.backend, &self.root, &mut self.undo)?;
        item.make_known(&self.root)?;
        match gap {
            None => self.outcome.attached += 1,
            Some(gap) => {
                self.outcome.swapped += 1;
                self.outcome.gaps += usize::from(gap);
                if gap {
                    (self.log)(format_args!(
                        "{}: {} was absent for a moment: this kernel or engine has no MOVE_MOUNT_BENEATH",
                        self.plan.site, item.mount.target
                    ));
                }
            }
        }
        Ok(())
    }

    fn remove(
        &mut self,
        step: &Step,
        path: &JailPath,
        kind: CreatedKind,
        file: Option<Identity>,
    ) -> Result<()> {
        self.step(step);
        let failed = |error: io::Error| cannot(&self.root, "remove", path, &error);
        let removed = match self.root.spot(path) {
            // Its directory is gone, and so is it.
            Err(error) if is_absent(&error) => None,
            Ok(spot) if !spot.is_at_home() => {
                self.left.push(path.clone());
                return Ok(()); // it is remembered until it can be removed
            }
            spot => Some(
                spot.and_then(|spot| spot.remove(&kind, file))
                    .map_err(failed)?,
            ),
        };
        match removed {
            None => {}
            Some(true) => self.undo.push(Undo::Recreate {
                path: path.clone(),
                kind,
            }),
            Some(false) => self.left.push(path.clone()),
        }
        self.kept.made.retain(|made| made.path != *path);
        Ok(())
    }

    fn remove_file(&mut self, step: &Step, path: &HostPath) -> Result<()> {
        self.step(step);
        let before = journal::put_beside(path.as_path())?;
        self.undo.push(Undo::Restore {
            path: path.clone(),
            before,
        });
        Ok(())
    }

    fn create(&mut self, step: &Step, path: &JailPath, kind: &CreatedKind) -> Result<()> {
        self.step(step);
        let explained =
            |error: io::Error| explain_create(cannot(&self.root, "create", path, &error));
        let spot = self.root.spot(path).map_err(explained)?;
        let file = spot.create(kind).map_err(explained)?;
        let made = CreatedPath {
            file: Some(file),
            ..CreatedPath::planned(path.clone(), kind.clone())
        };
        self.kept.made.push(made.clone());
        self.undo.push(Undo::Remove { made, spot });
        Ok(())
    }

    fn roll_back(mut self, error: Error) -> EngineFailure {
        let mut failure = EngineFailure::from(error);
        // What fails here fails again at the end, and is said then.
        let _ = self.record_undo();
        let mut before = Told {
            mounts: self.recorded_before(),
            kept: kept_before(self.plan, self.observed),
        };
        while let Some(undo) = self.undo.pop() {
            let lasts = undo.lasts();
            match undo.apply(self.backend, &self.root, &mut before) {
                Ok(said) => {
                    (self.log)(format_args!("{}: undo: {said}", self.plan.site));
                    if lasts {
                        failure.lasting.push(said);
                    } else {
                        failure.undone.push(said);
                    }
                }
                Err(error) => failure.also.push(error),
            }
        }
        let records = self.restore_records(before);
        failure.also.extend(records.err());
        failure
    }

    /// Before anything is taken back: what will be made for that, so that a crash leaves nothing
    /// unrecorded.
    fn record_undo(&self) -> Result<()> {
        let mut intent = Told {
            mounts: self.intent.clone(),
            kept: self.kept.clone(),
        };
        self.undo
            .iter()
            .rev()
            .for_each(|undo| undo.announce(&mut intent));
        if self.undo.is_empty() {
            return Ok(());
        }
        self.write_records(intent, self.history_with_this_run())
    }

    fn write_records(&self, told: Told, history: Option<History>) -> Result<()> {
        self.write_record(told.mounts, history)?;
        journal::write_kept(&self.engine.state, &self.plan.site, &told.kept)
    }

    /// After an undo: a site that was down has no record, which would say that it is up.
    fn restore_records(&self, before: Told) -> Result<()> {
        if self.observed.record.is_some() || !before.mounts.is_empty() {
            return self.write_records(before, history(self.observed));
        }
        journal::remove_record(&self.engine.state, &self.plan.site)?;
        journal::write_kept(&self.engine.state, &self.plan.site, &before.kept)
    }
}

/// Nothing is there, or a link or a file on the way.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
    )
}

fn explain_create(error: Error) -> Error {
    match error.errno() {
        Some(libc::ELOOP | libc::ENOTDIR) => error.hint(
            "a symbolic link or a file is in its way; mountjail follows no link inside a root",
        ),
        Some(libc::ENOSPC | libc::EDQUOT) => {
            error.hint("make room on the disk that holds the root")
        }
        Some(libc::EROFS) => error.hint("the root is on a disk that is mounted read-only"),
        Some(libc::EEXIST) => error
            .overtaken()
            .hint("it appeared while the command ran; run the command again"),
        _ => error,
    }
}

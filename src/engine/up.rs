//! `up`: as much as possible is done before the first mount. If a later step fails, all changes are
//! undone.

use std::io;

use super::backend::{Backend, Prepared};
use super::mount_op::{self, Work};
use super::root::{Root, Spots};
use super::target::{
    cannot, clear_after, detach_stray, is_absent, made_kind, nothing_inside, still_there,
};
use super::undo::{Records, Replaced, Undo, save};
use super::{Engine, EngineFailure, Log, Mounter, Outcome, Then, Way, check_signal, journal};
use crate::base::hints::Doing;
use crate::base::{Error, HostPath, JailPath, Result, SiteName};
use crate::observe::{
    self, BootRecord, CreatedKind, CreatedPath, History, Identity, Observed, ObservedMount,
    PersistentRecord, RecordedMount, VERSION,
};
use crate::patience::Stop;
use crate::plan::{Along, Plan, Step};
use crate::resolve::{GeneratedFile, Ownership};
use crate::sys;

pub(super) fn carry_out(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    stop: &Stop,
    log: Log<'_>,
    then: Then<'_>,
) -> Result<Outcome, Box<EngineFailure>> {
    if plan.steps.is_empty() {
        let adopted = adopt(engine, plan, observed)?;
        return then().map(|()| adopted).map_err(Box::from);
    }
    match engine.way()? {
        Way::Detached(mounter) => {
            Run::new(engine, mounter, plan, observed, stop, log)?.carry_out(then)
        }
        Way::Classic(mounter) => {
            Run::new(engine, mounter, plan, observed, stop, log)?.carry_out(then)
        }
    }
}

/// Records the site as up when there is nothing to mount. Mounts that were made otherwise, for
/// example from an fstab, belong to mountjail from now on.
fn adopt(engine: &Engine, plan: &Plan, observed: &Observed) -> Result<Outcome> {
    let record = record_of(
        engine,
        plan,
        observed,
        plan.unchanged.clone(),
        history(observed),
    );
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
    let empty = || BootRecord::nothing(engine.boot.clone(), plan.root.clone());
    let before = observed.record.clone().unwrap_or_else(empty);

    BootRecord {
        version: VERSION,
        directory: observed.directory,
        manifest: plan.manifest.clone(),
        mounts,
        history,
        ..before
    }
}

/// The history of earlier runs.
fn history(observed: &Observed) -> Option<History> {
    observed
        .record
        .as_ref()
        .and_then(|record| record.history.clone())
}

/// The persistent record before this run, without the paths that are gone. The identities of the
/// others are refreshed, because a reboot gives them other numbers.
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

struct Run<'a, B: Backend> {
    engine: &'a Engine,
    mounter: &'a Mounter<B>,
    plan: &'a Plan,
    observed: &'a Observed,
    root: Root,
    stop: &'a Stop,
    log: Log<'a>,
    kept: PersistentRecord,
    /// The persistent record as it was last written.
    written: PersistentRecord,
    /// The mounts recorded before the first change: the existing ones and those to be made.
    intent: Vec<RecordedMount>,
    undo: Vec<Undo<B>>,
    /// Paths that were to be removed but have changed since they were made.
    left: Vec<JailPath>,
    outcome: Outcome,
}

impl<'a, B: Backend> Run<'a, B> {
    fn new(
        engine: &'a Engine,
        mounter: &'a Mounter<B>,
        plan: &'a Plan,
        observed: &'a Observed,
        stop: &'a Stop,
        log: Log<'a>,
    ) -> Result<Self> {
        let empty = || PersistentRecord::nothing(plan.root.clone());
        Ok(Self {
            engine,
            mounter,
            plan,
            observed,
            root: Root::of_plan(plan, observed)?,
            stop,
            log,
            kept: kept_before(plan, observed),
            written: observed.kept.clone().unwrap_or_else(empty),
            intent: vec![],
            undo: vec![],
            left: vec![],
            outcome: Outcome::default(),
        })
    }

    fn carry_out(mut self, then: Then<'_>) -> Result<Outcome, Box<EngineFailure>> {
        match self.run_steps().and_then(|()| then()) {
            Ok(()) => {
                self.outcome.left = still_there(&self.root, &self.left);
                self.forget_old_files();
                Ok(self.outcome)
            }
            Err(error) => Err(Box::new(self.roll_back(error))),
        }
    }

    fn run_steps(&mut self) -> Result<()> {
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

    fn log_step(&self, step: &Step) {
        (self.log)(format_args!("{}: {step}", self.plan.site));
    }

    fn write_files(&mut self) -> Result<()> {
        for step in &self.plan.steps {
            if let Step::WriteFile(file) = step {
                self.log_step(step);
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

    /// Removes the old generated files, which no undo needs any more. A file that cannot be removed
    /// is left to the next run.
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

    /// Prepares the mounts where their sources are.
    fn prepare(&self) -> Result<Vec<Work<'a, B>>> {
        let Self {
            engine,
            mounter,
            plan,
            observed,
            stop,
            ..
        } = *self;
        let now = observe::since_boot();
        engine.in_host(|| {
            let mut work = vec![];
            for step in &plan.steps {
                check_signal(stop)?;
                let since = |target: &JailPath| since(observed, target, now);
                let template = step
                    .path()
                    .and_then(|path| template_with(plan, observed, path));
                work.extend(Work::prepare(mounter, engine, step, template, since)?);
            }
            Ok(work)
        })
    }

    /// Records, before the first change, the mounts that exist, those that will go and those to be
    /// made, with their ids where these are known.
    fn record_intent(&mut self, work: &[Work<'_, B>]) -> Result<()> {
        let unrecorded = self
            .plan
            .unchanged
            .iter()
            .filter(|mount| !self.is_recorded(mount));
        let mut mounts = self.recorded_before();
        mounts.extend(unrecorded.cloned());
        mounts.extend(work.iter().filter(|item| !item.is_member).map(Work::record));

        self.intent = mounts;
        self.write_record(self.intent.clone(), self.history_with_this_run())
    }

    fn recorded_before(&self) -> Vec<RecordedMount> {
        self.observed
            .record
            .as_ref()
            .map_or(vec![], |record| record.mounts.clone())
    }

    fn history_with_this_run(&self) -> Option<History> {
        let (mut attached, mut swapped, mut detached) = (0, 0, 0);
        for step in &self.plan.steps {
            match step {
                Step::Refresh { .. } => {} // it is in the history of the template
                _ if step.change().is_some() => {
                    let change = step.change().into_iter();
                    for change in change {
                        attached += change.attach.len();
                        swapped += change.swap.len();
                        detached += change.detach.len();
                    }
                }
                Step::Attach { .. } => attached += 1,
                Step::Swap { .. } => swapped += 1,
                Step::Detach { along, .. } => detached += along.mounts(),
                Step::DetachStray(_) => detached += 1,
                _ => {}
            }
        }

        let before = history(self.observed).unwrap_or_default();
        let history = before.and(observe::now(), attached, swapped, detached);
        Some(history).filter(|history| *history != History::default())
    }

    fn is_recorded(&self, mount: &RecordedMount) -> bool {
        self.observed
            .record
            .as_ref()
            .is_some_and(|record| record.mounts.contains(mount))
    }

    fn record_result(&self, work: &[Work<'_, B>]) -> Result<()> {
        let was_known =
            |item: &Work<'_, B>| item.ready.unique_id().is_some() && item.submounts.is_none();
        let ids_were_known = work.iter().all(was_known);

        let old_is_gone = self
            .observed
            .record
            .as_ref()
            .is_some_and(|record| record.mounts != self.plan.unchanged);
        if ids_were_known && !old_is_gone {
            return Ok(()); // the recorded intent is exactly the result
        }

        let mut mounts = self.plan.unchanged.clone();
        mounts.extend(work.iter().filter(|item| !item.is_member).map(Work::record));
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
                    along,
                    ..
                } => {
                    self.detach(step, target, expected, along)?;
                }
                Step::DetachStray(stray) => {
                    self.log_step(step);
                    detach_stray(&self.plan.root, stray)?;
                    self.outcome.detached += 1;
                    let recorded = self.observed.kept.iter().flat_map(|kept| &kept.made);
                    let made = recorded
                        .filter_map(|made| Some((&made.path, made.kind.clone(), made.file?)));
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
                Step::CreateDirectory { path, owner } => {
                    self.create(step, path, &CreatedKind::Directory)?;
                    self.give(path, *owner)?;
                }
                Step::Refresh { .. }
                | Step::WriteFile(_)
                | Step::Attach { .. }
                | Step::Swap { .. } => {}
            }
        }

        if self.kept == self.written {
            Ok(())
        } else {
            self.write_kept()
        }
    }

    /// Records all placeholders and links before the first one is made, so that a crash leaves none
    /// unrecorded.
    fn record_planned_placeholders(&mut self) -> Result<()> {
        let made = self.plan.steps.iter().filter_map(|step| match step {
            Step::CreatePlaceholder { path, kind } => Some((path, made_kind(*kind))),
            Step::CreateDirectory { path, .. } => Some((path, CreatedKind::Directory)),
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
        along: &Along,
    ) -> Result<()> {
        self.log_step(step);
        let cannot = |error: io::Error| cannot(&self.root, "detach", target, &error);
        let top = self
            .root
            .spot(target)
            .and_then(|spot| spot.open_mounted())
            .map_err(cannot)?;
        mount_op::must_be(&self.root, target, expected, &top)?;
        if *along == Along::Nothing {
            nothing_inside(&self.root, "detach", target, expected)?;
        }

        let saved = save(&self.mounter.backend, &top, along).map_err(cannot)?;
        sys::umount_at(&top).map_err(cannot)?;

        self.root.unmounted(target, Some(expected));
        self.undo
            .push(Replaced::undo(target, expected.unique_id, along, saved));
        self.outcome.detached += along.mounts();
        Ok(())
    }

    fn mount(&mut self, item: &mut Work<'_, B>) -> Result<()> {
        self.log_step(item.step);
        let gap = item.carry_out(&self.mounter.backend, &self.root, &mut self.undo)?;
        item.make_known(&self.root)?;

        if let Some(change) = item.step.change() {
            self.outcome.attached += change.attach.len();
            self.outcome.swapped += change.swap.len();
            self.outcome.detached += change.detach.len();
        } else if gap.is_some() {
            self.outcome.swapped += 1;
        } else {
            self.outcome.attached += 1;
        }
        match gap {
            None => {}
            Some(gap) => {
                self.outcome.gaps += usize::from(gap);
                if gap {
                    (self.log)(format_args!(
                        "{}: {} was absent for a moment: this kernel or engine has no \
                         MOVE_MOUNT_BENEATH",
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
        self.log_step(step);
        let failed = |error: io::Error| cannot(&self.root, "remove", path, &error);
        let removed = match self.root.spot(path) {
            // Its directory is gone, so the path is gone too.
            Err(error) if is_absent(&error) => None,
            Ok(spot) if !spot.is_at_home() => {
                self.left.push(path.clone());
                return Ok(()); // it stays recorded until it can be removed
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
        self.log_step(step);
        let before = journal::put_beside(path.as_path())?;
        self.undo.push(Undo::Restore {
            path: path.clone(),
            before,
        });
        Ok(())
    }

    fn create(&mut self, step: &Step, path: &JailPath, kind: &CreatedKind) -> Result<()> {
        self.log_step(step);
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

    /// Gives the directory that was just made its owner and mode.
    fn give(&self, path: &JailPath, owner: Ownership) -> Result<()> {
        let spot = self.root.spot(path).and_then(|spot| spot.give(owner));
        spot.map_err(|error| cannot(&self.root, "give its owner to", path, &error))
    }

    fn roll_back(mut self, error: Error) -> EngineFailure {
        let mut failure = EngineFailure::from(error);
        // An error here recurs when the records are restored and is reported there.
        let _ = self.record_undo();

        let mut before = Records {
            mounts: self.recorded_before(),
            kept: kept_before(self.plan, self.observed),
        };
        while let Some(undo) = self.undo.pop() {
            let lasts = undo.lasts();
            match undo.apply(&self.mounter.backend, &self.root, &mut before) {
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

    /// Records, before the undo starts, what it will make, so that a crash leaves nothing
    /// unrecorded.
    fn record_undo(&self) -> Result<()> {
        if self.undo.is_empty() {
            return Ok(());
        }

        let mut intent = Records {
            mounts: self.intent.clone(),
            kept: self.kept.clone(),
        };
        for undo in self.undo.iter().rev() {
            undo.announce(&mut intent);
        }
        self.write_records(intent, self.history_with_this_run())
    }

    fn write_records(&self, records: Records, history: Option<History>) -> Result<()> {
        self.write_record(records.mounts, history)?;
        journal::write_kept(&self.engine.state, &self.plan.site, &records.kept)
    }

    /// Restores the records after an undo. A site that was down gets no boot record, because that
    /// would mark it as up.
    fn restore_records(&self, before: Records) -> Result<()> {
        if self.observed.record.is_some() || !before.mounts.is_empty() {
            return self.write_records(before, history(self.observed));
        }
        journal::remove_record(&self.engine.state, &self.plan.site)?;
        journal::write_kept(&self.engine.state, &self.plan.site, &before.kept)
    }
}

/// The template of the site's graft that brings a mount to `target`.
fn template_with<'o>(
    plan: &Plan,
    observed: &'o Observed,
    target: &JailPath,
) -> Option<&'o SiteName> {
    let graft = plan.graft_with(target)?;
    let mut known = observed.grafts.iter();
    let known = known.find(|known| known.target == graft.mount.target)?;
    Some(&known.template)
}

/// The time since which `target`, mounted on at `now`, has shown something. A swap keeps the time
/// of the old mount, because it leaves no moment without one.
fn since(observed: &Observed, target: &JailPath, now: u64) -> Option<u64> {
    if !observed.mounts.contains_key(target) {
        return Some(now);
    }
    let recorded = observed.recorded_mounts();
    recorded
        .filter(|mount| mount.target == *target)
        .find_map(|mount| mount.since)
}

fn explain_create(error: Error) -> Error {
    let error = match error.errno() {
        Some(libc::EEXIST) => error.overtaken(),
        _ => error,
    };
    error.hint_while(Doing::Creating)
}

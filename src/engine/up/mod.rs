//! `up`: as much as possible is done before the first mount. If a later step fails, all changes are
//! undone.

mod changes;
mod covered;
mod records;
mod roll_back;
mod run;
mod site_record;

use self::run::UpRun;
use self::site_record::{history, record_of};
use super::backend::Backend;
use super::journal;
use super::mount_op::{self, MountOp};
use super::mounter::Way;
use super::outcome::{EngineFailure, Log, Outcome, Then, check_signal};
use super::root::Spots;
use super::setup::Engine;
use super::target::{part_from_sources, still_there};
use crate::base::{JailPath, Result, SiteName};
use crate::observe::{self, Observed, RecordedMount};
use crate::patience::Stop;
use crate::plan::{Plan, Step};

pub(super) fn carry_out(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    stop: &Stop,
    log: Log<'_>,
    then: Then<'_>,
) -> Result<Outcome, Box<EngineFailure>> {
    restore_kept(engine, plan, observed)?;
    if plan.steps.is_empty() {
        let adopted = adopt(engine, plan, observed)?;
        then()?;
        return Ok(adopted);
    }
    match engine.way()? {
        Way::Detached(mounter) => {
            UpRun::new(engine, mounter, plan, observed, stop, log)?.carry_out(then)
        }
        Way::Classic(mounter) => {
            UpRun::new(engine, mounter, plan, observed, stop, log)?.carry_out(then)
        }
    }
}

/// Writes the persistent record anew if it is lost, with what is known of it.
fn restore_kept(engine: &Engine, plan: &Plan, observed: &Observed) -> Result<()> {
    match &observed.kept {
        Some(kept) if !engine.state.kept(&plan.site).exists() => {
            journal::write_kept(&engine.state, &plan.site, kept)
        }
        _ => Ok(()),
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

impl<'a, B: Backend> UpRun<'a, B> {
    fn carry_out(mut self, then: Then<'_>) -> Result<Outcome, Box<EngineFailure>> {
        let covered = match self.open_covered() {
            Ok(covered) => covered,
            Err(error) => return Err(Box::new(error.into())),
        };
        match self.run_steps_and(then) {
            Ok(mounts) => {
                self.detach_covered(covered, mounts);
                self.outcome.left = still_there(&self.root, &self.left);
                self.forget_old_files();
                Ok(self.outcome)
            }
            Err(error) => Err(Box::new(self.roll_back(error))),
        }
    }

    /// As [`run_steps`](Self::run_steps), and then does `then`.
    fn run_steps_and(&mut self, then: Then<'_>) -> Result<Vec<RecordedMount>> {
        let mounts = self.run_steps()?;
        then()?;
        Ok(mounts)
    }

    /// Returns the mounts that are there in the end.
    fn run_steps(&mut self) -> Result<Vec<RecordedMount>> {
        self.write_files()?;
        let mut work = self.prepare()?;
        self.record_intent(&work)?;

        part_from_sources(&self.root, self.plan, self.observed)?;
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
        (self.log)(format_args!("{step}"));
    }

    /// Prepares the mounts where their sources are: on the host, or, for a tmpfs that keeps its
    /// files, in the root.
    fn prepare(&self) -> Result<Vec<MountOp<'a, B>>> {
        let Self {
            engine,
            mounter,
            plan,
            observed,
            stop,
            ..
        } = *self;
        let now = observe::since_boot();
        let mut carried_over = vec![];
        let mut work = engine.in_host(|| {
            let mut work = vec![];
            for step in &plan.steps {
                check_signal(stop)?;
                let Some(mount) = step.mount() else {
                    continue;
                };
                let since = since(observed, &mount.target, now);
                if let Some(old) = step.carried_over() {
                    carried_over.push(((step, mount), old, since));
                    continue;
                }
                let template = template_with(plan, observed, &mount.target);
                let made = (step, mount);
                work.push(MountOp::prepare(mounter, engine, made, template, since)?);
            }
            Ok(work)
        })?;
        for (made, old, since) in carried_over {
            work.push(MountOp::carry_over(mounter, &self.root, made, old, since)?);
        }
        // A mount comes before those in it.
        work.sort_by(|a, b| a.mount.target.cmp(&b.mount.target));
        Ok(work)
    }

    fn mount(&mut self, item: &mut MountOp<'_, B>) -> Result<()> {
        self.log_step(item.step);
        let gap = item.carry_out(&self.mounter.backend, &self.root, &mut self.undo)?;
        item.make_known(&self.root)?;

        self.outcome.count(item.step);

        let target = &item.mount.target;
        let because = match gap {
            Some(true) => "this kernel or engine has no MOVE_MOUNT_BENEATH",
            None if item.step.change().is_none() && self.plan.covers(target) => {
                "it is mounted anew, on the graft"
            }
            _ => return Ok(()),
        };
        self.outcome.gaps += 1;
        (self.log)(format_args!("{target} was absent for a moment: {because}"));
        Ok(())
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
    for mount in observed.recorded_mounts() {
        if mount.target == *target && mount.since.is_some() {
            return mount.since;
        }
    }
    None
}

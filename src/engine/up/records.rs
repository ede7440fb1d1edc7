//! The records of a run: what is written down before the first change, and after the last one.

use super::run::UpRun;
use super::site_record::{history, record_of};
use crate::base::Result;
use crate::engine::backend::{Backend, Prepared};
use crate::engine::journal;
use crate::engine::mount_op::Work;
use crate::engine::target::made_kind;
use crate::observe::{self, CreatedKind, CreatedPath, History, PersistentRecord, RecordedMount};
use crate::plan::Step;

impl<B: Backend> UpRun<'_, B> {
    /// Records, before the first change, the mounts that exist, those that will go and those to be
    /// made, with their ids where these are known.
    pub(super) fn record_intent(&mut self, work: &[Work<'_, B>]) -> Result<()> {
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

    pub(super) fn recorded_before(&self) -> Vec<RecordedMount> {
        self.observed
            .record
            .as_ref()
            .map_or(vec![], |record| record.mounts.clone())
    }

    pub(super) fn history_with_this_run(&self) -> Option<History> {
        let (mut attached, mut swapped, mut detached) = (0, 0, 0);
        for step in &self.plan.steps {
            match step {
                // It is in the history of the template, or counts with its graft.
                Step::Refresh { .. } | Step::DetachCovered { .. } => {}
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

    /// Records the mounts that are there after the last change, and returns them.
    pub(super) fn record_result(&self, work: &[Work<'_, B>]) -> Result<Vec<RecordedMount>> {
        let mut mounts = self.plan.unchanged.clone();
        mounts.extend(work.iter().filter(|item| !item.is_member).map(Work::record));

        let was_known =
            |item: &Work<'_, B>| item.ready.unique_id().is_some() && item.submounts.is_none();
        let ids_were_known = work.iter().all(was_known);

        let old_is_gone = self
            .observed
            .record
            .as_ref()
            .is_some_and(|record| record.mounts != self.plan.unchanged);
        if !ids_were_known || old_is_gone {
            self.write_record(mounts.clone(), self.history_with_this_run())?;
        } // or else the recorded intent is exactly the result
        Ok(mounts)
    }

    pub(super) fn write_record(
        &self,
        mounts: Vec<RecordedMount>,
        history: Option<History>,
    ) -> Result<()> {
        let record = record_of(self.engine, self.plan, self.observed, mounts, history);
        journal::write_record(&self.engine.state, &self.plan.site, &record)
    }

    pub(super) fn write_kept(&mut self) -> Result<()> {
        self.write_as_kept(self.kept.clone())
    }

    /// As [`write_kept`](Self::write_kept), when all that was planned is made.
    pub(super) fn write_made(&mut self) -> Result<()> {
        journal::write_made(&self.engine.state, &self.plan.site, &self.kept)?;
        self.written = self.kept.clone();
        Ok(())
    }

    fn write_as_kept(&mut self, kept: PersistentRecord) -> Result<()> {
        journal::write_kept(&self.engine.state, &self.plan.site, &kept)?;
        self.written = kept;
        Ok(())
    }

    /// Records all placeholders and links before the first one is made, so that a crash leaves none
    /// unrecorded.
    pub(super) fn record_planned_placeholders(&mut self) -> Result<()> {
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
}

//! The records of a run: what is written down before the first change, and after the last one.

use super::run::UpRun;
use super::site_record::{history, record_of};
use crate::base::Result;
use crate::engine::backend::Backend;
use crate::engine::journal;
use crate::engine::mount_op::MountOp;
use crate::engine::outcome::Outcome;
use crate::engine::target::made_kind;
use crate::observe::{self, CreatedKind, CreatedPath, History, PersistentRecord, RecordedMount};
use crate::plan::Step;

impl<B: Backend> UpRun<'_, B> {
    /// Records, before the first change, the mounts that exist, those that will go and those to be
    /// made, with their ids where these are known.
    pub(super) fn record_intent(&mut self, work: &[MountOp<'_, B>]) -> Result<()> {
        let recorded = self.recorded_before();
        let mut mounts = recorded.to_vec();
        for mount in &self.plan.unchanged {
            if !recorded.contains(mount) {
                mounts.push(mount.clone());
            }
        }
        mounts.extend(made_mounts(work));

        self.intent = mounts;
        self.write_record(self.intent.clone(), self.history_with_this_run())
    }

    pub(super) fn recorded_before(&self) -> &[RecordedMount] {
        match &self.observed.record {
            Some(record) => &record.mounts,
            None => &[],
        }
    }

    pub(super) fn history_with_this_run(&self) -> Option<History> {
        let mut run = Outcome::default();
        for step in &self.plan.steps {
            run.count(step);
        }
        let before = history(self.observed).unwrap_or_default();
        let history = before.and(observe::now(), run.attached, run.swapped, run.detached);
        if history == History::default() {
            return None;
        }
        Some(history)
    }

    /// Records the mounts that are there after the last change, and returns them.
    pub(super) fn record_result(&self, work: &[MountOp<'_, B>]) -> Result<Vec<RecordedMount>> {
        let mut mounts = self.plan.unchanged.clone();
        mounts.extend(made_mounts(work));

        let ids_were_known = work.iter().all(MountOp::was_known);
        let old_is_gone = match &self.observed.record {
            Some(record) => record.mounts != self.plan.unchanged,
            None => false,
        };
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
        let mut planned = vec![];
        for step in &self.plan.steps {
            let (path, kind) = match step {
                Step::CreatePlaceholder { path, kind } => (path, made_kind(*kind)),
                Step::CreateDirectory { path, .. } => (path, CreatedKind::Directory),
                Step::CreateLink { path, destination } => {
                    (path, CreatedKind::Link(destination.clone()))
                }
                _ => continue,
            };
            planned.push(CreatedPath::planned(path.clone(), kind));
        }
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

/// The records of the mounts of this run that are not known by the record of a template.
fn made_mounts<B: Backend>(work: &[MountOp<'_, B>]) -> Vec<RecordedMount> {
    let mut mounts = vec![];
    for item in work {
        if !item.is_member {
            mounts.push(item.record());
        }
    }
    mounts
}

//! Undoes a run that failed, last change first.

use super::run::UpRun;
use super::site_record::kept_before;
use crate::base::{Error, Result};
use crate::engine::backend::Backend;
use crate::engine::journal;
use crate::engine::outcome::EngineFailure;
use crate::engine::undo::Records;
use crate::observe::History;

impl<B: Backend> UpRun<'_, B> {
    pub(super) fn roll_back(mut self, error: Error) -> EngineFailure {
        let mut failure = EngineFailure::from(error);
        // An error here recurs when the records are restored and is reported there.
        let _ = self.record_undo();

        let mut before = Records {
            mounts: self.recorded_before().to_vec(),
            kept: kept_before(self.plan, self.observed),
        };
        while let Some(undo) = self.undo.pop() {
            let lasts = undo.lasts();
            match undo.apply(&self.mounter.backend, &self.root, &mut before) {
                Ok(said) => {
                    (self.log)(format_args!("undo: {said}"));
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

    /// Restores the records after an undo, but for what could not be undone. A site that was down
    /// gets no boot record, because that would mark it as up.
    fn restore_records(&self, before: Records) -> Result<()> {
        let (state, site) = (&self.engine.state, &self.plan.site);
        match &self.observed.record {
            Some(record) => {
                let mut record = record.clone();
                record.mounts = before.mounts;
                journal::write_record(state, site, &record)?;
            }
            None if before.mounts.is_empty() => journal::remove_record(state, site)?,
            None => self.write_record(before.mounts, None)?,
        }
        journal::write_kept(state, site, &before.kept)
    }
}

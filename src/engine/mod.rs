//! Turns the steps of a plan into system calls. This is the only stage that changes anything.
//!
//! The input is a [`Plan`] and what was observed. The result is the site as planned or, if `up`
//! fails, the site as it was before, with an error that names the cause and all that could not be
//! undone. This stage decides nothing: the plan says which mounts belong to mountjail and what
//! happens to them. Every path below a root is opened beneath the descriptor of the root, and no
//! link is followed.

mod adopted;
mod backend;
mod classic;
mod create_root;
mod detached;
mod down;
mod drop_in;
mod edit;
mod features;
mod hidden;
mod image;
mod journal;
mod lock;
mod mount_op;
mod mounter;
mod namespaces;
mod ours;
mod outcome;
mod replace;
mod root;
mod scratch;
mod setup;
mod sources;
mod staged;
mod start_gate;
mod state_directories;
mod target;
mod template_place;
mod templates;
mod undo;
mod up;

use std::time::Duration;

use crate::base::{HostPath, Result, SiteName};
use crate::observe::{self, BootRecord, History, Observed, PersistentRecord};
use crate::patience::Stop;
use crate::plan::Plan;
use crate::sys::IfInUse;

pub(crate) use adopted::{GoesBack, PutBack, move_aside, put_back, settle};
pub(crate) use create_root::{MadeDirectories, create_root};
pub(crate) use drop_in::{read_drop_in, remove_drop_in, write_drop_in};
pub(crate) use edit::edit as edit_file;
pub(crate) use features::{Choice, Features};
pub(crate) use image::enter_image;
pub(crate) use journal::{remove_watch_state, write_watch_state};
pub(crate) use lock::{Lock, SiteLock};
pub(crate) use mounter::Serves;
pub(crate) use namespaces::{
    OwnNamespace, Unprotected, enter, leave_mount_namespace, own_namespace_id, record_namespace,
    swept, within,
};
pub(crate) use outcome::{EngineFailure, Log, Outcome, Then};
pub(crate) use replace::{create_file, replace_file};
pub(crate) use setup::Engine;
pub(crate) use staged::{FileVersion, StagedFile, file_version, remove_file};
pub(crate) use start_gate::{StartGate, open_gate};
pub(crate) use state_directories::{make_state_directories, make_watch_directory};
pub(crate) use templates::{ShownTemplate, TemplateStore, without_grafts};

impl Engine {
    /// Takes the lock of the site. If another mountjail has it, `on_wait` gets that one's name, and
    /// the wait lasts as long as that one is at work; if it sleeps, no longer than `limit`.
    pub(crate) fn lock(
        &self,
        site: &SiteName,
        limit: Option<Duration>,
        stop: &Stop,
        on_wait: impl FnOnce(&str),
    ) -> Result<SiteLock> {
        let lock = Lock::take_in_turn(&self.state.lock(site), limit, stop, on_wait)?;
        Ok(SiteLock::new(lock, &self.state, site))
    }

    /// Takes the lock of the site, or returns `None` if another mountjail holds it.
    pub(crate) fn lock_if_free(&self, site: &SiteName) -> Result<Option<SiteLock>> {
        match Lock::if_free(&self.state.lock(site))? {
            Some(lock) => Ok(Some(SiteLock::new(lock, &self.state, site))),
            None => Ok(None),
        }
    }

    /// Brings the site into the planned state, or leaves it as it was.
    pub(crate) fn up(
        &self,
        plan: &Plan,
        observed: &Observed,
        stop: &Stop,
        log: Log<'_>,
    ) -> Result<Outcome, Box<EngineFailure>> {
        self.up_then(plan, observed, stop, log, &mut || Ok(()))
    }

    /// As [`up`](Self::up), and then does `then`. If that fails, the site is left as it was.
    pub(crate) fn up_then(
        &self,
        plan: &Plan,
        observed: &Observed,
        stop: &Stop,
        log: Log<'_>,
        then: Then<'_>,
    ) -> Result<Outcome, Box<EngineFailure>> {
        up::carry_out(self, plan, observed, stop, log, then)
    }

    /// Detaches the mounts of a site whose root is gone; they were moved away with it. Returns
    /// their number.
    pub(crate) fn down_without_root(
        &self,
        site: &SiteName,
        root: &HostPath,
        observed: &Observed,
    ) -> Result<usize> {
        for stray in &observed.strays {
            target::detach_stray(root, stray, observed)?;
        }

        let mut recorded = observed.recorded_mounts();
        // Without unique mount IDs, a moved mount looks like one that is gone, so the
        // record is kept.
        if recorded.all(|mount| mount.unique_id.is_some()) {
            journal::remove(&self.state.record(site))?;
        }
        Ok(observed.strays.len())
    }

    /// Records that the lines in `fstab` need what was made for the site at `root`, even while the
    /// site is down. `None`: no longer.
    pub(crate) fn remember_fstab(
        &self,
        site: &SiteName,
        root: &HostPath,
        fstab: Option<HostPath>,
    ) -> Result<()> {
        let kept = match self.state.read(site, &self.boot)?.kept {
            Some(kept) if kept.root == *root => kept,
            _ => PersistentRecord::nothing(root.clone()),
        };
        if kept.fstab == fstab {
            return Ok(());
        }
        journal::write_kept(&self.state, site, &PersistentRecord { fstab, ..kept })
    }

    /// Has the record of a site be as it was, after a run that left its mounts alone. `None`: there
    /// was none, and the site is down as before.
    pub(crate) fn put_back_record(
        &self,
        site: &SiteName,
        record: Option<&BootRecord>,
    ) -> Result<()> {
        match record {
            Some(record) => journal::write_record(&self.state, site, record),
            None => journal::remove_record(&self.state, site),
        }
    }

    /// Adds to the history of the site what was done in templates that it has grafts of.
    pub(crate) fn remember(&self, site: &SiteName, done: &Outcome) -> Result<()> {
        let Some(mut record) = self.state.read(site, &self.boot)?.record else {
            return Ok(());
        };
        let Outcome {
            attached,
            swapped,
            detached,
            ..
        } = *done;
        let history = record.history.take().unwrap_or_default();
        let history = history.and(observe::now(), attached, swapped, detached);
        if history != History::default() {
            record.history = Some(history);
        }
        journal::write_record(&self.state, site, &record)
    }

    /// Takes the site down. It continues after errors and collects them. If they are not to be
    /// detached while in use, it stops before the first change if anything uses the mounts.
    pub(crate) fn down(
        &self,
        plan: &Plan,
        observed: &Observed,
        if_in_use: IfInUse,
        log: Log<'_>,
    ) -> Result<Outcome, Box<EngineFailure>> {
        down::carry_out(self, plan, observed, if_in_use, log)
    }

    /// Takes the site down if its mounts are exactly as planned and nothing uses them. Otherwise it
    /// changes nothing and returns `Ok(None)`.
    pub(crate) fn down_if_quiet(
        &self,
        plan: &Plan,
        observed: &Observed,
        log: Log<'_>,
    ) -> Result<Option<Outcome>, Box<EngineFailure>> {
        down::carry_out_if_quiet(self, plan, observed, log)
    }
}

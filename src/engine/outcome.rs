//! What a run reports: its steps, its outcome, or why it did not reach its goal.

use std::fmt;

use crate::base::{Error, Result};
use crate::patience::Stop;
use crate::plan::{MountChange, Step};

/// Receives one line per step, as `-v` prints them after the site's name.
pub(crate) type Log<'a> = &'a (dyn Fn(fmt::Arguments<'_>) + Sync);

/// A last step that has to succeed after a run, or the run is undone.
pub(crate) type Then<'a> = &'a mut (dyn FnMut() -> Result<()> + Send);

/// The changes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Mounts made where there were none.
    pub attached: usize,
    /// Mounts replaced.
    pub swapped: usize,
    /// The mounts that were absent for a moment: the kernel lacks `MOVE_MOUNT_BENEATH` for a swap,
    /// or the new mount is on a graft that covered the old one.
    pub gaps: usize,
    /// Mounts detached.
    pub detached: usize,
    /// Sentences about placeholders and links that stay, because they are no longer as mountjail
    /// made them.
    pub left: Vec<String>,
}

impl Outcome {
    /// Adds what `step` does, once it is done.
    pub(super) fn count(&mut self, step: &Step) {
        for (change, _) in step.mount_changes() {
            *match change {
                MountChange::Attached => &mut self.attached,
                MountChange::Swapped => &mut self.swapped,
                MountChange::Detached => &mut self.detached,
            } += 1;
        }
    }

    /// Adds what another run did.
    #[must_use]
    pub(crate) fn merge(mut self, more: Self) -> Self {
        self.attached += more.attached;
        self.swapped += more.swapped;
        self.gaps += more.gaps;
        self.detached += more.detached;
        self.left.extend(more.left);
        self
    }
}

/// A run that did not reach its goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFailure {
    /// The error that stopped the run.
    pub error: Error,
    /// For `up`: the steps undone, last first. It is empty if nothing had been changed.
    pub undone: Vec<String>,
    /// For `up`: sentences about changes that cannot be undone, although nothing failed.
    pub lasting: Vec<String>,
    /// Further errors: from undoing or, for `down`, from other mounts.
    pub also: Vec<Error>,
    /// For `down`: the mounts are in use, and nothing was unmounted.
    pub busy: bool,
}

impl From<Error> for EngineFailure {
    fn from(error: Error) -> Self {
        Self {
            error,
            undone: vec![],
            lasting: vec![],
            also: vec![],
            busy: false,
        }
    }
}

impl From<Error> for Box<EngineFailure> {
    fn from(error: Error) -> Self {
        Self::new(error.into())
    }
}

pub(super) fn check_signal(stop: &Stop) -> Result<()> {
    match stop.is_set() {
        false => Ok(()),
        true if stop.by_signal() => Err(Error::interrupted("stopped by a signal")),
        true => Err(Error::interrupted("given up")),
    }
}

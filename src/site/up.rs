//! The outcome for a site that was brought up.

use crate::base::JailPath;
use crate::base::text::plural;
use crate::engine::Outcome;
use crate::plan::{MountChange, Plan};
use crate::resolve::Desired;

/// A site that is as its manifest asks for.
pub(crate) struct Done {
    pub desired: Desired,
    /// The units that run inside.
    pub services: Vec<String>,
    pub changes: Changes,
}

/// The changes.
#[derive(Default)]
pub(crate) struct Changes {
    pub outcome: Outcome,
    /// The mounts that were made, replaced and taken away.
    pub mounts: Vec<Changed>,
    /// How many steps were carried out: also those that make files, placeholders and links.
    pub steps: usize,
}

/// A change to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// It was taken off and put on again, because no mount can be swapped for one of another type.
    Replaced,
    Attached,
    Swapped,
    Detached,
    /// It was taken off because its source is gone from the host.
    Gone,
}

impl From<MountChange> for Change {
    fn from(change: MountChange) -> Self {
        match change {
            MountChange::Attached => Self::Attached,
            MountChange::Swapped => Self::Swapped,
            MountChange::Detached => Self::Detached,
        }
    }
}

/// A change to one mount, and where it is.
pub(crate) type Changed = (Change, JailPath);

impl Changes {
    /// Adds what was done by carrying out `plan`.
    pub(super) fn add(&mut self, outcome: Outcome, plan: &Plan) {
        self.outcome = std::mem::take(&mut self.outcome).merge(outcome);
        for step in &plan.steps {
            for (change, target) in step.mount_changes() {
                self.mounts.push((change.into(), target.clone()));
            }
        }
        self.steps += plan.steps.len();
    }

    /// Adds the changes of another run.
    pub(super) fn extend(&mut self, more: Self) {
        self.outcome = std::mem::take(&mut self.outcome).merge(more.outcome);
        self.mounts.extend(more.mounts);
        self.steps += more.steps;
    }

    /// Whether nothing was changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.outcome == Outcome::default()
    }
}

impl Done {
    /// The changes, in one line.
    pub(crate) fn summary(&self) -> String {
        let Outcome {
            attached,
            swapped,
            detached,
            ..
        } = self.changes.outcome;
        let total = plural(self.desired.mounts.len(), "mount");
        let counts = [
            (attached, "attached"),
            (swapped, "swapped"),
            (detached, "detached"),
        ];
        let mut parts = vec![];
        for (count, what) in counts {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        if parts.is_empty() {
            return match self.changes.steps {
                0 => format!("in sync, {total}; nothing to do"),
                steps => format!("up, {total}: {}", plural(steps, "other step")),
            };
        }
        format!("up, {total}: {}", parts.join(", "))
    }
}

//! What became of a site that was brought up.

use crate::base::JailPath;
use crate::base::text::plural;
use crate::engine::Outcome;
use crate::plan::{Plan, Step};
use crate::resolve::Desired;

/// A site that is as its manifest asks for.
pub(crate) struct Done {
    pub desired: Desired,
    /// The units that run inside.
    pub services: Vec<String>,
    pub changes: Changes,
}

/// What was changed.
#[derive(Default)]
pub(crate) struct Changes {
    pub outcome: Outcome,
    /// The mounts that were made, replaced and taken away.
    pub mounts: Vec<Changed>,
}

/// What was done to a mount.
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

/// What was done to one mount, and where it is.
pub(crate) type Changed = (Change, JailPath);

impl Changes {
    /// Adds what was done by carrying out `plan`.
    pub(super) fn add(&mut self, outcome: Outcome, plan: &Plan) {
        self.outcome = std::mem::take(&mut self.outcome).merge(outcome);
        self.mounts.extend(plan.steps.iter().filter_map(change));
    }

    /// Whether nothing was changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.outcome == Outcome::default()
    }
}

impl Done {
    /// What was done, in one line.
    pub(crate) fn summary(&self) -> String {
        let Outcome {
            attached,
            swapped,
            detached,
            ..
        } = self.changes.outcome;
        let total = plural(self.desired.mounts.len(), "mount");
        let parts = [
            (attached, "attached"),
            (swapped, "swapped"),
            (detached, "detached"),
        ];
        let parts: Vec<_> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if parts.is_empty() {
            return format!("in sync, {total}; nothing to do");
        }
        format!("up, {total}: {}", parts.join(", "))
    }
}

fn change(step: &Step) -> Option<Changed> {
    match step {
        Step::Attach(mount) => Some((Change::Attached, mount.target.clone())),
        Step::Swap { mount, .. } => Some((Change::Swapped, mount.target.clone())),
        Step::Detach { target, .. } => Some((Change::Detached, target.clone())),
        Step::DetachStray(stray) => Some((Change::Detached, stray.target.clone())),
        _ => None,
    }
}

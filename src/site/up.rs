//! The outcome for a site that was brought up.

use crate::base::JailPath;
use crate::base::text::plural;
use crate::engine::Outcome;
use crate::plan::{Along, Plan, Step};
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

/// A change to one mount, and where it is.
pub(crate) type Changed = (Change, JailPath);

impl Changes {
    /// Adds what was done by carrying out `plan`.
    pub(super) fn add(&mut self, outcome: Outcome, plan: &Plan) {
        self.outcome = std::mem::take(&mut self.outcome).merge(outcome);
        for step in &plan.steps {
            for (change, target) in changes(step) {
                self.mounts.push((change, target.clone()));
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

/// The changes that the step makes, each with where it is.
fn changes(step: &Step) -> Vec<(Change, &JailPath)> {
    match step {
        // They are those of the template's own run, or count with their graft.
        Step::Refresh { .. } | Step::DetachCovered { .. } => vec![],
        _ if step.change().is_some() => in_graft(step),
        Step::Attach { mount, .. } => vec![(Change::Attached, &mount.target)],
        Step::Swap { mount, .. } => vec![(Change::Swapped, &mount.target)],
        Step::Detach { along, .. } if *along != Along::Nothing => going(step),
        Step::Detach { target, .. } => vec![(Change::Detached, target)],
        Step::DetachStray(stray) => vec![(Change::Detached, &stray.target)],
        _ => vec![],
    }
}

/// What changes in the graft that the step mounts.
fn in_graft(step: &Step) -> Vec<(Change, &JailPath)> {
    let Some(change) = step.change() else {
        return vec![];
    };
    let mut changes = vec![];
    for mount in &change.attach {
        changes.push((Change::Attached, &mount.target));
    }
    for mount in &change.swap {
        changes.push((Change::Swapped, &mount.target));
    }
    for target in &change.detach {
        changes.push((Change::Detached, target));
    }
    changes
}

/// The mounts that go with one that is detached.
fn going(step: &Step) -> Vec<(Change, &JailPath)> {
    match step {
        Step::Detach {
            along: Along::Members(members),
            ..
        } => members
            .iter()
            .map(|member| (Change::Detached, member))
            .collect(),
        Step::Detach { target, .. } => vec![(Change::Detached, target)],
        _ => vec![],
    }
}

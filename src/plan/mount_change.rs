//! What a step does to the mounts of a site, as it is counted and reported.

use super::step::{Along, Step};
use crate::base::JailPath;

/// A change to one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountChange {
    Attached,
    Swapped,
    Detached,
}

impl Step {
    /// The changes that the step makes, each with its target. A graft counts as the mounts in it.
    pub(crate) fn mount_changes(&self) -> Vec<(MountChange, &JailPath)> {
        if let Self::Refresh { .. } = self {
            return vec![]; // they are those of the template's own run
        }
        if let Some(change) = self.change() {
            let attach = change.attach.iter().map(|mount| &mount.target);
            let swap = change.swap.iter().map(|mount| &mount.target);
            let mut changes = all(MountChange::Attached, attach);
            changes.extend(all(MountChange::Swapped, swap));
            changes.extend(all(MountChange::Detached, &change.detach));
            return changes;
        }
        match self {
            Self::Attach { mount, .. } => vec![(MountChange::Attached, &mount.target)],
            Self::Swap { mount, .. } => vec![(MountChange::Swapped, &mount.target)],
            Self::Detach {
                along: Along::Members(members),
                ..
            } => all(MountChange::Detached, members),
            Self::Detach { target, .. } => vec![(MountChange::Detached, target)],
            Self::DetachStray(stray) => vec![(MountChange::Detached, &stray.target)],
            _ => vec![],
        }
    }
}

fn all<'s>(
    change: MountChange,
    targets: impl IntoIterator<Item = &'s JailPath>,
) -> Vec<(MountChange, &'s JailPath)> {
    targets.into_iter().map(|target| (change, target)).collect()
}

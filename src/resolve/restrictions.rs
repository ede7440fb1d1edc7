//! Programs, libraries and devices that the jail cannot use because the host itself cannot: they
//! lie on a mount with `noexec` or `nodev`, which a jail's mount keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dedup;
use super::desired::{Cause, Note};
use super::layout::{Layout, MountDraft};
use crate::base::quote::shell_path;
use crate::base::text::plural;
use crate::base::{HostPath, JailPath, MountAttributes};
use crate::manifest::Origin;

/// A use of one file that was requested, and that the mount on the host forbids.
pub(super) struct Restriction {
    target: JailPath,
    source: HostPath,
    origin: Arc<Origin>,
    forbidden: Use,
}

/// Why nothing of a root's own can be executed, and the command that changes that.
pub(crate) fn to_allow_execution(point: &HostPath) -> String {
    let command = remount_for_execution(point);
    format!("{point} is mounted noexec: `{command}`, and the same in fstab(5)")
}

/// The command that lets files on the mount at `point` be executed.
pub(crate) fn remount_for_execution(point: &HostPath) -> String {
    format!("mount -o remount,exec {}", shell_path(point.as_path()))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Execution,
    Devices,
}

/// Everything that the host forbids, before it is known what else shows the files.
pub(super) fn find(layout: &Layout<'_>) -> Vec<Restriction> {
    let mut drafts: Vec<_> = layout.mounts.values().collect();
    drafts.sort_by_key(|draft| draft.item.chain.len()); // a note names the line's own files first
    drafts.into_iter().filter_map(restriction).collect()
}

fn restriction(draft: &MountDraft) -> Option<Restriction> {
    let (requested, gets) = (draft.item.attributes, draft.item.effective());
    let forbidden = [Use::Execution, Use::Devices]
        .into_iter()
        .find(|usage| usage.is_forbidden_by(gets) && !usage.is_forbidden_by(requested))?;

    // Most of what links lead to is not a program, although the directory that it is for has some.
    let by_link = matches!(
        draft.item.chain.last(),
        Some(Cause::LinkedFrom(_) | Cause::ManyLinkedFrom { .. })
    );
    if by_link {
        return None;
    }
    Some(Restriction {
        target: draft.target.clone(),
        source: draft.item.source.clone(),
        origin: draft.reasons.first()?.origin.clone(),
        forbidden,
    })
}

/// A note for each line and each mount of the host, unless another mount of the jail shows the
/// files as requested.
pub(super) fn notes(layout: &Layout<'_>, restrictions: Vec<Restriction>) -> Vec<Note> {
    let mut alike: BTreeMap<_, Vec<HostPath>> = BTreeMap::new();
    for restriction in restrictions {
        let Restriction {
            target,
            source,
            origin,
            forbidden,
        } = restriction;
        let allowed = dedup::attributes_at(layout, &target)
            .is_some_and(|shown| !forbidden.is_forbidden_by(shown));
        if !allowed {
            let point = layout.host.mount_point(&source);
            let key = (origin, forbidden, point);
            alike.entry(key).or_default().push(source);
        }
    }

    let mut notes = vec![];
    for ((origin, forbidden, point), files) in alike {
        notes.push(Note {
            origin,
            text: forbidden.text(&point, &files),
            always: true,
        });
    }
    notes
}

impl Use {
    fn is_forbidden_by(self, attributes: MountAttributes) -> bool {
        match self {
            Self::Execution => attributes.noexec,
            Self::Devices => attributes.nodev,
        }
    }

    fn text(self, point: &HostPath, files: &[HostPath]) -> String {
        let (cannot, option, key) = match self {
            Self::Execution => ("be executed", "noexec", "executable"),
            Self::Devices => ("be opened", "nodev", "devices"),
        };
        let first = &files[0];
        let more = if files.len() == 1 {
            String::new()
        } else {
            format!(" and {}", plural(files.len() - 1, "more file"))
        };
        format!(
            "{first}{more} cannot {cannot} in the jail, because this host does not allow it \
             either: {point} is mounted {option}; \
             `mounts: [{{ source: {first}, {key}: true }}]` would allow it in the jail alone"
        )
    }
}

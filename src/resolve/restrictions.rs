//! Programs, libraries and devices that the jail cannot use because the host itself cannot: they
//! lie on a mount with `noexec` or `nodev`, which a jail's mount keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::builder::{Builder, Draft};
use super::desired::{Cause, Note};
use crate::base::{HostPath, JailPath, MountAttributes};
use crate::manifest::Origin;

/// What was asked for of one file and is forbidden on its mount of the host.
pub(super) struct Refused {
    target: JailPath,
    source: HostPath,
    origin: Arc<Origin>,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Execution,
    Devices,
}

impl Builder<'_> {
    /// Everything that the host forbids, before it is known what else shows it.
    pub(super) fn refused(&self) -> Vec<Refused> {
        let mut drafts: Vec<_> = self.drafts.values().collect();
        drafts.sort_by_key(|draft| draft.item.chain.len()); // what a line names itself is said first
        drafts.into_iter().filter_map(refused).collect()
    }

    /// A note for each line and each mount of the host, where no other mount of the jail shows the
    /// files as they were asked for.
    pub(super) fn say(&self, all: Vec<Refused>) -> Vec<Note> {
        let mut alike: BTreeMap<_, Vec<HostPath>> = BTreeMap::new();
        for Refused {
            target,
            source,
            origin,
            what,
        } in all
        {
            if self
                .shows(&target)
                .is_none_or(|shown| what.is_forbidden(shown))
            {
                let point = self.host.mount_point(&source);
                alike.entry((origin, what, point)).or_default().push(source);
            }
        }
        let note = |((origin, what, point), files): ((_, What, HostPath), Vec<HostPath>)| Note {
            origin,
            text: what.text(&point, &files),
            always: true,
        };
        alike.into_iter().map(note).collect()
    }
}

fn refused(draft: &Draft) -> Option<Refused> {
    let (asked, gets) = (draft.item.options, draft.item.effective());
    let what = [What::Execution, What::Devices]
        .into_iter()
        .find(|what| what.is_forbidden(gets) && !what.is_forbidden(asked))?;
    // Most of what links lead to is no program, though the directory that it is for has some.
    let by_link = matches!(
        draft.item.chain.last(),
        Some(Cause::LinkedFrom(_) | Cause::ManyLinkedFrom { .. })
    );
    let origin = draft.reasons.first().filter(|_| !by_link)?.origin.clone();
    Some(Refused {
        target: draft.target.clone(),
        source: draft.item.source.clone(),
        origin,
        what,
    })
}

impl What {
    fn is_forbidden(self, options: MountAttributes) -> bool {
        match self {
            Self::Execution => options.noexec,
            Self::Devices => options.nodev,
        }
    }

    fn text(self, point: &HostPath, files: &[HostPath]) -> String {
        let (cannot, option, key) = match self {
            Self::Execution => ("be executed", "noexec", "executable"),
            Self::Devices => ("be opened", "nodev", "devices"),
        };
        let first = &files[0];
        let more = match files.len() - 1 {
            0 => String::new(),
            1 => " and 1 more file".to_owned(),
            more => format!(" and {more} more files"),
        };
        format!(
            "{first}{more} cannot {cannot} in the jail, because this host does not allow it either: {point} is \
             mounted {option}; `mounts: [{{ source: {first}, {key}: true }}]` would allow it in the jail alone"
        )
    }
}

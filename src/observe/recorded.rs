//! A site by its records alone.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::clone_ids::CloneIds;
use super::observed::{Observed, ObservedMount};
use super::record::{KnownGraft, RecordedMount};
use super::state::SiteRecords;
use super::users::Users;
use crate::base::{HostPath, JailPath};
use crate::sys::{self, MountOutline};

/// The records of the root `root`, without looking at anything.
pub(super) fn only_of(root: &HostPath, records: SiteRecords) -> Observed {
    Observed {
        grafts: records.grafts,
        record: records.record.filter(|record| record.root == *root),
        kept: records.kept.filter(|kept| kept.root == *root),
        ..Observed::default()
    }
}

/// The site by its records, without looking at it. `None` if they are not enough: a mount has no
/// unique ID, has submounts, or is being swapped; or something else is in a graft than what came
/// along with it, by the outline of all mounts that `users` have.
pub(crate) fn as_recorded<'u>(
    records: &SiteRecords,
    users: impl FnOnce() -> &'u Users,
) -> Option<Observed> {
    let record = records.record.as_ref()?;
    let is_elsewhere = match &records.kept {
        Some(kept) => kept.root != record.root,
        None => false,
    };
    if record.mounts.is_empty() || is_elsewhere {
        return None;
    }
    let mut observed = Observed {
        record: records.record.clone(),
        kept: records.kept.clone(),
        grafts: records.grafts.clone(),
        ..Observed::default()
    };
    for mount in &record.mounts {
        let seen = ObservedMount {
            unique_id: Some(mount.unique_id?),
            ..seen_as(mount)
        };
        let before = observed.mounts.insert(mount.target.clone(), vec![seen]);
        if before.is_some() || mount.is_tree() {
            return None;
        }
    }
    if !records.grafts.is_empty() {
        let users = users();
        let outline = users.outline()?;
        observed.newest = Some(outline.newest());
        let own: HashSet<_> = record
            .mounts
            .iter()
            .filter_map(|own| own.unique_id)
            .collect();
        for graft in &records.grafts {
            let id = observed.mounts.get(&graft.target)?.last()?.unique_id?;
            let whole = outline.whole(id, &own);
            if let Some(clone) = whole.filter(|clone| clone.are_of(graft))
                && !users.may_have_copies(id)
            {
                observed.whole.insert(graft.target.clone(), clone);
                continue;
            }
            let mut inside = outline.inside(id);
            inside.retain(|(id, _)| !own.contains(id));
            observed.mounts.extend(came_along(graft, inside)?);
        }
    }
    Some(observed)
}

/// The grafts of a site, by its records, as they are if they have all that came along with them.
pub(crate) fn clones_of(records: &SiteRecords) -> Vec<CloneIds> {
    let mut clones = vec![];
    for graft in &records.grafts {
        let mounts = records.record.iter().flat_map(|record| &record.mounts);
        let mut ids = mounts.filter(|mount| mount.is_graft() && mount.target == graft.target);
        if let Some(id) = ids.next().and_then(|mount| mount.unique_id) {
            clones.extend(CloneIds::of(graft, id));
        }
    }
    clones
}

/// The mounts that came along with the graft, at their targets, by what is `inside` it besides the
/// site's own mounts. `None`: one is gone, or others are in it.
fn came_along(
    graft: &KnownGraft,
    inside: Vec<(u64, MountOutline)>,
) -> Option<Vec<(JailPath, Vec<ObservedMount>)>> {
    if inside.len() != graft.members.len() {
        return None;
    }
    let mut by_group = HashMap::new();
    for member in graft.members.iter() {
        by_group.insert(member.peer_group?, member);
    }
    let mut mounts = vec![];
    for (id, found) in inside {
        let member = by_group.remove(&found.master?)?;
        let seen = ObservedMount {
            id: found.id,
            unique_id: Some(id),
            file_system: None,
            master: found.master,
            ..seen_as(member)
        };
        mounts.push((member.target.clone(), vec![seen]));
    }
    Some(mounts)
}

/// The mount that was recorded, as far as its record tells about it.
fn seen_as(recorded: &RecordedMount) -> ObservedMount {
    ObservedMount {
        id: 0,
        unique_id: None,
        file: Some(recorded.file),
        kind: None,
        fs_root: None,
        device: None,
        file_system: recorded.file_system,
        attributes: recorded.attributes,
        made_shared: false,
        master: None,
    }
}

/// The unique mount IDs of what is visible at `targets` in the root. Those that cannot be looked at
/// are left out.
pub(crate) fn mount_ids<'t>(
    root: &HostPath,
    targets: impl Iterator<Item = &'t JailPath>,
) -> Vec<u64> {
    let Ok(root) = sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY) else {
        return vec![];
    };
    let mut last: Option<(JailPath, OwnedFd)> = None;
    let mut ids = vec![];
    for target in targets {
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            continue;
        };
        let is_open = matches!(&last, Some((known, _)) if *known == parent);
        if !is_open {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            last = match sys::open_beneath(&root, parent.relative(), flags) {
                Ok(directory) => Some((parent, directory)),
                Err(_) => None,
            };
        }
        if let Some((_, directory)) = &last
            && let Ok(stat) = sys::stat_at(directory, Path::new(name))
        {
            ids.extend(stat.unique_mount_id());
        }
    }
    ids
}

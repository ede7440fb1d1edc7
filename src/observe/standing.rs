//! The mounts of one site as they are now, to take the site down.

use std::collections::HashSet;

use super::look::listed;
use super::lost_grafts;
use super::mountinfo::MountInfo;
use super::observed::{Observed, ObservedMount};
use super::recorded::only_of;
use super::state::SiteRecords;
use super::strays::find_strays;
use super::submounts::{self, in_the_jail};
use super::table::{self, Table};
use crate::base::{HostPath, JailPath};
use crate::resolve::Desired;
use crate::sys;

/// Observes the mounts of the site by the table. Nothing is looked at if ids tell whose a mount is,
/// and a path that cannot be looked at is not an error. So a file system that hangs, is dead or is
/// private to its owner does not prevent a site from being taken down. `known` is what the manifest
/// asks for, in case the record is lost.
pub fn standing(known: &Desired, records: SiteRecords, table: &Table) -> Observed {
    let templates = records.templates.clone();
    let observed = look(known, records, table);
    if let Some(templates) = templates
        && let Some(records) = lost_grafts::found(&observed, known, &templates)
    {
        return look(known, records, table);
    }
    observed
}

fn look(known: &Desired, records: SiteRecords, table: &Table) -> Observed {
    let mut observed = only_of(&known.root, records);
    let targets: HashSet<_> = known.mounts.iter().map(|mount| &mount.target).collect();
    let recorded = observed.recorded_mounts();
    let recorded = recorded.map(|mount| &mount.target);
    let recorded: HashSet<_> = recorded.chain(observed.member_targets()).cloned().collect();

    for mounts in table
        .below(known.root.as_path())
        .chunk_by(|a, b| a.point == b.point)
    {
        let target = in_the_jail(&known.root, &mounts[0].point);
        let mut stack = without_echoes(table, mounts, |mount| {
            observed.own_record_of(&target, mount).is_some()
        });
        let asked_for = targets.contains(&target);
        if !asked_for && !recorded.contains(&target) {
            observed.elsewhere.insert(target, stack);
            continue;
        }
        if let Some(top) = stack.last_mut()
            && (asked_for || top.unique_id.is_none())
        {
            look_at(&known.root, &target, top);
        }
        observed.mounts.insert(target, stack);
    }
    look_into_unclear(&mut observed, &known.root);

    let ids = table.mounts().iter().filter_map(|mount| mount.unique_id);
    observed.newest = ids.max();
    let file_at = |path: &JailPath| {
        let stat = sys::stat_beneath(known.root.as_path(), path.relative());
        Some(stat.ok()?.file)
    };
    submounts::name_moved(&mut observed, file_at);
    submounts::compare(known, &mut observed, file_at);
    find_strays(&mut observed);
    observed
}

/// The mounts at one point, bottom first, without those that are hidden and came up there with the
/// recorded one that is visible: they are its peers, on a peer of the mount that it is on, and go
/// with it. The root has such a mount under it if it is bound on itself.
fn without_echoes(
    table: &Table,
    mounts: &[MountInfo],
    is_recorded: impl Fn(&ObservedMount) -> bool,
) -> Vec<ObservedMount> {
    let mut stack = table::stack(mounts);
    if mounts.len() > 1
        && let Some(top) = table.visible_at(&mounts[0].point)
        && let Some(visible) = table::stack_below(mounts, |mount| mount.id == top.id)
    {
        let is_visible = |mount: &MountInfo| visible.iter().any(|seen| seen.id == mount.id);
        let mut groups = vec![];
        for mount in &visible {
            if is_recorded(&listed(mount)) {
                groups.extend(mount.peer_group);
            }
        }
        stack.retain(|mount| {
            is_visible(mount)
                || mount
                    .peer_group
                    .is_none_or(|group| !groups.contains(&group))
        });
    }
    stack.into_iter().map(listed).collect()
}

/// Looks at the members of grafts that only their files tell: the graft follows no template any
/// more, or a run was killed that changed the template.
fn look_into_unclear(observed: &mut Observed, root: &HostPath) {
    let mut unclear = vec![];
    for graft in &observed.grafts {
        let is_cut_off = observed.is_cut_off(&graft.target);
        for member in graft.members.iter() {
            if is_cut_off || member.peer_group.is_none() {
                unclear.push(member.target.clone());
            }
        }
    }
    for target in unclear {
        if let Some(stack) = observed.mounts.get_mut(&target)
            && let Some(top) = stack.last_mut()
        {
            look_at(root, &target, top);
        }
    }
}

/// Adds the file that is visible at the root of the topmost mount at `target`, if it can be looked
/// at.
fn look_at(root: &HostPath, target: &JailPath, top: &mut ObservedMount) {
    if let Ok(stat) = sys::stat_beneath(root.as_path(), target.relative())
        && stat.mount_root != Some(false)
    {
        top.file = Some(stat.file);
        top.kind = Some(stat.kind);
        top.unique_id = stat.unique_mount_id();
    }
}

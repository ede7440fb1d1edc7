//! Grafts whose record is lost. They are recognised by what they show: a directory of a template.

use super::observed::{Observed, ObservedMount};
use super::record::{BootRecord, KnownGraft, RecordedMount, Unknown};
use super::state::{SiteRecords, TemplateRecords};
use crate::base::{HostPath, JailPath, MountAttributes, SiteName};
use crate::sys::FileId;

/// The records with the grafts in the root `root` that `observed` has and that are not recorded.
/// `None`: there are none.
pub(super) fn found(
    observed: &Observed,
    root: &HostPath,
    known: &TemplateRecords,
) -> Option<SiteRecords> {
    let candidates = candidates(observed, root);
    if candidates.is_empty() {
        return None;
    }

    let mut records = SiteRecords {
        record: observed.record.clone(),
        kept: observed.kept.clone(),
        grafts: observed.grafts.clone(),
        templates: None, // once is enough
        warnings: vec![],
    };
    let mut any = false;
    for name in known.state.recorded_sites().unwrap_or_default() {
        let Some(template) = known.state.known_template(&name, &known.boot) else {
            continue;
        };
        let contents = template.contents.as_ref();
        let Some((contents, directory)) =
            contents.and_then(|contents| Some((contents, contents.directory?)))
        else {
            continue;
        };
        for (target, seen) in &candidates {
            let shows_it = seen.device == Some(directory.dev)
                && seen.fs_root.as_deref() == Some(contents.at.as_path());
            if shows_it {
                any = true;
                let empty = || BootRecord::nothing(known.boot.clone(), root.clone());
                let record = records.record.get_or_insert_with(empty);
                record.mounts.retain(|mount| mount.target != *target);
                record
                    .mounts
                    .push(graft(root, target, seen, &name, directory));
                records.grafts.retain(|graft| graft.target != *target);
                records.grafts.push(KnownGraft {
                    target: target.clone(),
                    template: name.clone(),
                    contents: contents.key.clone(),
                    alone: false,
                    members: template.members.clone(),
                });
            }
        }
    }
    any.then_some(records)
}

/// The mounts in the root that could be grafts, at their paths.
fn candidates(observed: &Observed, root: &HostPath) -> Vec<(JailPath, ObservedMount)> {
    let is_recorded = |seen: &ObservedMount| {
        let mut recorded = observed.recorded_mounts();
        seen.unique_id.is_some() && recorded.any(|mount| mount.unique_id == seen.unique_id)
    };
    let stacks = observed.mounts.iter().chain(&observed.elsewhere);
    let could_be = |path: &JailPath, seen: &ObservedMount| {
        seen.fs_root.as_deref() == Some(path.as_path()) && !is_recorded(seen)
    };
    let tops = stacks.filter_map(|(path, stack)| Some((path, stack.last()?)));
    let tops = tops.filter(|(path, top)| could_be(path, top));
    let tops = tops.map(|(path, top)| (path.clone(), top.clone()));
    let holders = observed.holders.values().filter_map(|holder| {
        let path = root.path_inside(&holder.point)?;
        let seen = ObservedMount {
            file_system: None,
            id: holder.id,
            unique_id: holder.unique_id,
            file: None,
            kind: None,
            fs_root: Some(holder.root.clone()),
            device: Some(holder.device),
            attributes: MountAttributes::DATA,
            made_shared: false,
            master: None,
        };
        Some((path, seen))
    });
    let holders = holders.filter(|(path, seen)| could_be(path, seen));
    let mut all: Vec<_> = tops.chain(holders).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.dedup_by(|a, b| a.0 == b.0);
    all
}

fn graft(
    root: &HostPath,
    target: &JailPath,
    seen: &ObservedMount,
    template: &SiteName,
    directory: FileId,
) -> RecordedMount {
    RecordedMount {
        file_system: None,
        target: target.clone(),
        source: root.inside(target),
        file: directory,
        attributes: MountAttributes::DATA,
        recursive: true,
        submounts: None,
        unique_id: seen.unique_id,
        since: None,
        template: Some(template.clone()),
        peer_group: None,
        more: Unknown::new(),
    }
}

//! Grafts whose record is lost. They are recognised by what they show: a directory of a template.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use super::mountinfo;
use super::namespace::OWN_TABLE;
use super::observed::{Observed, ObservedMount};
use super::record::{BootRecord, KnownGraft, RecordedMount, Unknown};
use super::state::{SiteRecords, TemplateRecords};
use crate::base::{HostPath, JailPath, MountAttributes, SiteName};
use crate::resolve::{Desired, Mount};
use crate::sys::{self, FileId};

/// The source of the tmpfs of a template, as the mount table shows it.
pub(crate) const TEMPLATE_SOURCE: &str = "mountjail";

/// The name of every template whose record is lost. Those of others end in a hash.
const LOST_TEMPLATE: &str = "template-lost";

/// A graft whose record is lost.
struct LostGraft {
    target: JailPath,
    seen: ObservedMount,
    template: SiteName,
    /// The key of the template's contents, if they are known.
    contents: Option<String>,
    /// The directory that it shows.
    directory: FileId,
    members: Arc<[RecordedMount]>,
}

/// The records with the grafts in the root that `observed` has and that are not recorded.
/// `desired`: what comes along with those whose template is gone. `None`: there are none.
pub(super) fn found(
    observed: &Observed,
    desired: &Desired,
    known: &TemplateRecords,
) -> Option<SiteRecords> {
    let root = &desired.root;
    let mut candidates = candidates(observed, root);
    let mut lost = of_templates(&mut candidates, known);
    lost.extend(of_no_template(candidates, desired));
    if lost.is_empty() {
        return None;
    }

    let mut records = SiteRecords {
        record: observed.record.clone(),
        kept: observed.kept.clone(),
        grafts: observed.grafts.clone(),
        templates: None, // once is enough
        warnings: vec![],
    };
    let empty = || BootRecord::nothing(known.boot.clone(), root.clone());
    let record = records.record.get_or_insert_with(empty);
    for graft in lost {
        record.mounts.retain(|mount| mount.target != graft.target);
        record.mounts.push(graft.record(root));
        records.grafts.retain(|known| known.target != graft.target);
        records.grafts.push(graft.known());
    }
    Some(records)
}

/// Those of the `candidates` that show a directory of a template with a record. The others stay.
fn of_templates(
    candidates: &mut Vec<(JailPath, ObservedMount)>,
    known: &TemplateRecords,
) -> Vec<LostGraft> {
    let mut lost = vec![];
    if candidates.is_empty() {
        return lost;
    }
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
        candidates.retain(|(target, seen)| {
            let shows_it = seen.device == Some(directory.dev)
                && seen.fs_root.as_deref() == Some(contents.at.as_path());
            if shows_it {
                lost.push(LostGraft {
                    target: target.clone(),
                    seen: seen.clone(),
                    template: name.clone(),
                    contents: contents.key.clone(),
                    directory,
                    members: template.members.clone(),
                });
            }
            !shows_it
        });
    }
    lost
}

/// Those of the `candidates` that show a directory of a template whose record is lost, too. Only
/// root can mount a tmpfs of that name. What comes along with it is what the manifest asks for.
fn of_no_template(candidates: Vec<(JailPath, ObservedMount)>, desired: &Desired) -> Vec<LostGraft> {
    if candidates.is_empty() {
        return vec![];
    }
    let (root, ids) = (desired.root.as_path(), template_mounts());
    let ours = candidates.into_iter();
    let ours = ours.filter(|(_, seen)| ids.contains(&seen.id));
    let lost = ours.filter_map(|(target, seen)| {
        Some(LostGraft {
            directory: sys::stat_beneath(root, target.relative()).ok()?.file,
            template: SiteName::new(LOST_TEMPLATE).ok()?,
            contents: None,
            members: members_of(desired, &target),
            target,
            seen,
        })
    });
    lost.collect()
}

/// The ids, in mountinfo, of the mounts of file systems of templates.
fn template_mounts() -> HashSet<u64> {
    let text = fs::read(OWN_TABLE).unwrap_or_default();
    let templates = mountinfo::lines(&text)
        .filter(|line| line.kind == "tmpfs" && line.source == TEMPLATE_SOURCE);
    templates.map(|line| line.mount.id).collect()
}

/// The mounts that the manifest asks for in a graft at `target`, as records.
fn members_of(desired: &Desired, target: &JailPath) -> Arc<[RecordedMount]> {
    let inside = |mount: &&Arc<Mount>| mount.target.starts_with(target) && mount.target != *target;
    let member = |mount: &Arc<Mount>| {
        Some(RecordedMount {
            file_system: None,
            target: mount.target.clone(),
            source: mount.source.clone(),
            file: mount.file?,
            attributes: mount.attributes,
            recursive: mount.recursive,
            submounts: None,
            unique_id: None,
            since: None,
            template: None,
            peer_group: None,
            more: Unknown::new(),
        })
    };
    let mounts = desired.mounts.iter().filter(inside);
    let mut members: Vec<_> = mounts.filter_map(member).collect();
    members.sort_by(|a, b| a.target.cmp(&b.target));
    members.into()
}

/// The mounts in the root that could be grafts, at their paths.
fn candidates(observed: &Observed, root: &HostPath) -> Vec<(JailPath, ObservedMount)> {
    let is_recorded = |seen: &ObservedMount| {
        let mut recorded = observed.recorded_mounts();
        seen.unique_id.is_some() && recorded.any(|mount| mount.unique_id == seen.unique_id)
    };
    let stacks = observed.mounts.iter().chain(&observed.elsewhere);
    let could_be = |path: &JailPath, seen: &ObservedMount| {
        seen.fs_root.as_deref() == Some(path.as_path())
            && !is_recorded(seen)
            && observed.member(path, seen).is_none()
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

impl LostGraft {
    fn record(&self, root: &HostPath) -> RecordedMount {
        RecordedMount {
            file_system: None,
            target: self.target.clone(),
            source: root.inside(&self.target),
            file: self.directory,
            attributes: MountAttributes::DATA,
            recursive: true,
            submounts: None,
            unique_id: self.seen.unique_id,
            since: None,
            template: Some(self.template.clone()),
            peer_group: None,
            more: Unknown::new(),
        }
    }

    fn known(self) -> KnownGraft {
        KnownGraft {
            target: self.target,
            template: self.template,
            may_be_a_copy: self.contents.is_some(),
            contents: self.contents,
            alone: false,
            members: self.members,
        }
    }
}

//! Grafts whose record is lost. They are recognised by what they show: a directory of a template.

use std::collections::HashSet;
use std::sync::Arc;

use super::mountinfo;
use super::observed::{Holder, Observed, ObservedMount};
use super::record::{BootRecord, KnownGraft, RecordedMount, Unknown};
use super::state::{SiteRecords, TemplateRecords};
use super::template_files::templates_in;
use super::template_records::KnownTemplate;
use crate::base::{HostPath, JailPath, MountAttributes, SiteName};
use crate::resolve::Desired;
use crate::sys::{self, FileId};

/// The source of the tmpfs of a template, as the mount table shows it.
pub(crate) const TEMPLATE_SOURCE: &str = "mountjail";

/// The name of every template whose record is lost. Those of others end in a hash.
const LOST_TEMPLATE: &str = "template-lost";

/// A mount that could be a graft, at its path.
type Candidate = (JailPath, ObservedMount);

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

/// The records with the grafts in the root that `observed` has and that are not recorded, and with
/// what came along with those whose template is lost. `desired`: what comes along with them.
/// `None`: there are none.
pub(super) fn found(
    observed: &Observed,
    desired: &Desired,
    known: &TemplateRecords,
) -> Option<SiteRecords> {
    let root = &desired.root;
    let mut candidates = candidates(observed, root);
    let mut lost = of_templates(&mut candidates, known);
    lost.extend(of_no_template(candidates, desired));
    let has_lost_members = observed.grafts.iter().any(|graft| graft.members_are_lost);
    if lost.is_empty() && !has_lost_members {
        return None;
    }

    let mut records = SiteRecords {
        record: observed.record.clone(),
        kept: observed.kept.clone(),
        grafts: observed.grafts.clone(),
        templates: None, // once is enough
        warnings: vec![],
    };
    let record = records
        .record
        .get_or_insert_with(|| BootRecord::nothing(known.boot.clone(), root.clone()));
    for graft in lost {
        record.mounts.retain(|mount| mount.target != graft.target);
        record.mounts.push(graft.record(root));
        records.grafts.retain(|known| known.target != graft.target);
        records.grafts.push(graft.known());
    }
    for graft in &mut records.grafts {
        if graft.members_are_lost {
            graft.members = members_of(desired, &graft.target);
        }
    }
    Some(records)
}

/// Those of the `candidates` that show a directory of a template, which has a record or can be
/// looked at. The others stay.
fn of_templates(candidates: &mut Vec<Candidate>, known: &TemplateRecords) -> Vec<LostGraft> {
    let mut lost = vec![];
    if candidates.is_empty() {
        return lost;
    }
    for name in templates_in(&known.state.run) {
        // One that only a newer mountjail understands is also looked at.
        let recorded = known.state.known_template(&name, &known.boot);
        let recorded = recorded.ok().flatten();
        candidates.retain(|(target, seen)| {
            let template = recorded.clone().or_else(|| {
                let seen = known
                    .state
                    .template_by_looking(&name, &known.boot, target)?;
                Some(Arc::new(KnownTemplate::new(seen)))
            });
            let graft = template.and_then(|found| LostGraft::of(&name, &found, (target, seen)));
            let is_graft = graft.is_some();
            lost.extend(graft);
            !is_graft
        });
    }
    lost
}

/// Those of the `candidates` that show a directory of a template that is gone. Only
/// root can mount a tmpfs of that name. The mounts that come along with it are those that the
/// manifest asks for.
fn of_no_template(candidates: Vec<Candidate>, desired: &Desired) -> Vec<LostGraft> {
    if candidates.is_empty() {
        return vec![];
    }
    let ids = template_mounts();
    let mut lost = vec![];
    for (target, seen) in candidates {
        if !ids.contains(&seen.id) {
            continue;
        }
        let Ok(stat) = sys::stat_beneath(desired.root.as_path(), target.relative()) else {
            continue;
        };
        let Ok(template) = SiteName::new(LOST_TEMPLATE) else {
            continue;
        };
        lost.push(LostGraft {
            directory: stat.file,
            template,
            contents: None,
            members: members_of(desired, &target),
            target,
            seen,
        });
    }
    lost
}

/// The ids, in mountinfo, of the mounts of file systems of templates.
fn template_mounts() -> HashSet<u64> {
    let text = mountinfo::own_text().unwrap_or_default();
    let mut ids = HashSet::new();
    for line in mountinfo::lines(&text) {
        if line.kind == "tmpfs" && line.source == TEMPLATE_SOURCE {
            ids.insert(line.mount.id);
        }
    }
    ids
}

/// The mounts that the manifest asks for in a graft at `target`, as records.
fn members_of(desired: &Desired, target: &JailPath) -> Arc<[RecordedMount]> {
    let mut members = vec![];
    for mount in &desired.mounts {
        if mount.target.starts_with(target)
            && mount.target != *target
            && let Some(file) = mount.file
        {
            members.push(RecordedMount {
                file_system: None,
                ..RecordedMount::planned(mount, file)
            });
        }
    }
    members.sort_by(|a, b| a.target.cmp(&b.target));
    members.into()
}

/// The mounts in the root that could be grafts, at their paths.
fn candidates(observed: &Observed, root: &HostPath) -> Vec<Candidate> {
    let mut all = vec![];
    for (path, stack) in observed.mounts.iter().chain(&observed.elsewhere) {
        if let Some(top) = stack.last()
            && top.fs_root.as_deref() == Some(path.as_path())
            && !has_recorded_id(observed, top.unique_id)
            && observed.member(path, top).is_none()
        {
            all.push((path.clone(), top.clone()));
        }
    }
    for holder in observed.holders.values() {
        if let Some(path) = root.path_inside(&holder.point)
            && holder.root == path.as_path()
            && !has_recorded_id(observed, holder.unique_id)
        {
            all.push((path, seen_by(holder)));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.dedup_by(|a, b| a.0 == b.0);
    all
}

fn has_recorded_id(observed: &Observed, id: Option<u64>) -> bool {
    let mut recorded = observed.recorded_mounts();
    id.is_some() && recorded.any(|mount| mount.unique_id == id)
}

/// The mount that holds a directory, as far as it is known.
fn seen_by(holder: &Holder) -> ObservedMount {
    ObservedMount {
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
    }
}

impl LostGraft {
    /// The `candidate`, if it shows the directory of the template.
    fn of(
        name: &SiteName,
        template: &KnownTemplate,
        (target, seen): (&JailPath, &ObservedMount),
    ) -> Option<Self> {
        let contents = template.contents.as_ref()?;
        let directory = contents.directory?;
        let shows_it = seen.device == Some(directory.dev)
            && seen.fs_root.as_deref() == Some(contents.at.as_path());
        shows_it.then(|| Self {
            target: target.clone(),
            seen: seen.clone(),
            template: name.clone(),
            contents: contents.key.clone(),
            directory,
            members: Arc::clone(&template.members),
        })
    }

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
            members_are_lost: false,
            members: self.members,
        }
    }
}

//! Placeholders whose record is lost, as far as they are known otherwise.

use super::record::{BootRecord, CreatedKind, CreatedPath, PersistentRecord, RecordedMount};
use crate::sys;

/// The record of the directories that the grafts in `record` are mounted on: a graft is only put
/// where the root has nothing, or a directory that was made. `None`: there are none.
///
/// These directories are recorded before a graft is mounted and until it is gone, so a graft that
/// stands tells that their record is lost.
pub(super) fn beneath_grafts(record: &BootRecord) -> Option<PersistentRecord> {
    let mut made: Vec<CreatedPath> = vec![];
    for mount in &record.mounts {
        let is_new = made.iter().all(|made| made.path != mount.target);
        if mount.is_graft() && is_new && stands(mount) {
            let directory = CreatedKind::Directory;
            made.push(CreatedPath::planned(mount.target.clone(), directory));
        }
    }
    if made.is_empty() {
        return None;
    }
    Some(PersistentRecord {
        manifest: record.manifest.clone(),
        made,
        ..PersistentRecord::nothing(record.root.clone())
    })
}

/// Whether the mount is at its target.
fn stands(mount: &RecordedMount) -> bool {
    let Some(id) = mount.unique_id else {
        return false;
    };
    sys::stat_mount(id).is_ok_and(|seen| seen.point.ends_with(mount.target.relative()))
}

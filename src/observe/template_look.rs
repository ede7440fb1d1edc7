//! Templates whose records are lost, or are about another template of the same name. What such a
//! template shows is found by looking at it.

use std::path::{Path, PathBuf};

use super::mountinfo::MountInfo;
use super::record::{BootId, BootRecord, Contents, RecordedMount, Unknown};
use super::table::{self, Table};
use super::template_files::{contents_of, pin};
use crate::base::{HostPath, JailPath, SiteName};
use crate::sys::{self, FileId};

/// A template as it is.
struct Seen {
    /// The directory that the grafts show.
    directory: FileId,
    /// The mounts in it, with the files that they show.
    mounts: Vec<(MountInfo, FileId)>,
}

/// A record of the template as it is now, if its grafts show the directory `at`. `directory`: of
/// the templates.
pub(super) fn by_looking(
    directory: &Path,
    template: &SiteName,
    boot: &BootId,
    at: &JailPath,
) -> Option<BootRecord> {
    let root = HostPath::new(directory.join(template.as_str())).ok()?;
    let here = Table::read().ok()?;
    let seen = match look(&root, at, &here) {
        Some(seen) => seen,
        None => look_apart(directory, &root, at)?,
    };

    let mut record = BootRecord::nothing(boot.clone(), root);
    for (mount, file) in &seen.mounts {
        record
            .mounts
            .push(recorded(mount, *file, &record.root, &here)?);
    }
    record.mounts.sort_by(|a, b| a.target.cmp(&b.target));
    record.contents = Some(Contents {
        key: contents_of(directory, template),
        at: at.clone(),
        directory: Some(seen.directory),
        more: Unknown::new(),
    });
    Some(record)
}

/// Looks at a template in the mount namespace of the templates.
fn look_apart(directory: &Path, root: &HostPath, at: &JailPath) -> Option<Seen> {
    let namespace = sys::pinned_namespace(&pin(directory)).ok()??;
    let seen = sys::on_thread(|| {
        sys::enter_mount_namespace(&namespace)?;
        Ok(Table::read().ok().and_then(|table| look(root, at, &table)))
    });
    seen.ok()?
}

/// Looks at a template in this mount namespace. `None`: it is not here, or has no such directory.
fn look(root: &HostPath, at: &JailPath, table: &Table) -> Option<Seen> {
    table::stack(table.at(root.as_path())).last()?;
    let directory = sys::stat_beneath(root.as_path(), at.relative()).ok()?.file;
    let below = table.below(root.as_path());
    let mut mounts = vec![];
    for stack in below.chunk_by(|a, b| a.point == b.point) {
        if let Some(top) = table::stack(stack).last()
            && top.point != root.as_path()
        {
            let file = sys::open_host(&top.point, libc::O_PATH).and_then(sys::stat_fd);
            mounts.push(((*top).clone(), file.ok()?.file));
        }
    }
    Some(Seen { directory, mounts })
}

/// The record of a mount in the template at `root`.
fn recorded(
    seen: &MountInfo,
    file: FileId,
    root: &HostPath,
    host: &Table,
) -> Option<RecordedMount> {
    Some(RecordedMount {
        target: root.path_inside(&seen.point)?,
        source: source_of(seen, host)?,
        file,
        attributes: seen.attributes,
        recursive: false,
        submounts: None,
        unique_id: seen.unique_id,
        since: None,
        template: None,
        file_system: None,
        peer_group: seen.peer_group,
        more: Unknown::new(),
    })
}

/// The path on the host of what the mount shows; within its file system, if that is mounted
/// nowhere.
fn source_of(seen: &MountInfo, host: &Table) -> Option<HostPath> {
    let shown = seen
        .root
        .to_str()
        .and_then(|root| root.strip_suffix("//deleted"));
    let shown = shown.map_or(seen.root.as_path(), Path::new);
    let mut best: Option<(usize, PathBuf)> = None;
    for mount in host.mounts() {
        if mount.device == seen.device
            && let Ok(below) = shown.strip_prefix(&mount.root)
        {
            let length = mount.root.as_os_str().len();
            if best.as_ref().is_none_or(|(shortest, _)| length < *shortest) {
                best = Some((length, mount.point.join(below)));
            }
        }
    }
    HostPath::new(best.map_or_else(|| shown.to_owned(), |(_, path)| path)).ok()
}

//! How an administrator unmounts what mountjail did not mount, without harm to the host.

use std::path::Path;

use super::mountinfo::MountInfo;
use super::table::Table;
use crate::base::HostPath;
use crate::base::hints::{unmount, unmount_tree};

/// The command that takes away the topmost mount at `point`, which is in `root`. If that mount, or
/// the one that it is in, is a peer of one outside the root, what is unmounted in it would be
/// unmounted there as well (`mount_namespaces(7)`): then the command makes it private first.
pub(crate) fn unmount_command(root: &HostPath, point: &Path) -> String {
    let Ok(table) = Table::read_text() else {
        return unmount_tree(point);
    };
    let Some(mut mount) = table.at(point).last() else {
        return unmount(point);
    };
    let mut is_inside = false;
    while let Some(parent) = table.get(mount.parent)
        && parent.point != root.as_path()
        && parent.point.starts_with(root.as_path())
        && has_peer_outside(parent, root, &table)
    {
        mount = parent;
        is_inside = true;
    }
    if is_inside || !table.below(&mount.point).is_empty() {
        unmount_tree(&mount.point)
    } else {
        unmount(&mount.point)
    }
}

/// Whether `mount` is a peer of one outside of `root`.
fn has_peer_outside(mount: &MountInfo, root: &HostPath, table: &Table) -> bool {
    if mount.peer_group.is_none() {
        return false;
    }
    for other in table.mounts() {
        if other.peer_group == mount.peer_group && !other.point.starts_with(root.as_path()) {
            return true;
        }
    }
    false
}

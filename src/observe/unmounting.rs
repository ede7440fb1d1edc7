//! How an administrator unmounts what mountjail did not mount, without harm to the host.

use std::path::Path;

use super::mountinfo::MountInfo;
use super::table::{self, Table};
use crate::base::HostPath;
use crate::base::hints::{unmount, unmount_tree};

/// The command that takes away the topmost mount at `point`, which is in `root`. If that mount, or
/// the one that it is in, is a peer of one outside the root, what is unmounted in it would be
/// unmounted there as well (`mount_namespaces(7)`): then the command makes it private first.
pub(crate) fn unmount_command(root: &HostPath, point: &Path) -> String {
    match Table::read_text() {
        Ok(table) => command_by(&table, root, point),
        Err(_) => unmount_tree(point),
    }
}

fn command_by(table: &Table, root: &HostPath, point: &Path) -> String {
    let stack = table::stack(table.at(point));
    let Some(mut mount) = stack.last().copied() else {
        return unmount(point);
    };
    let mut is_inside = false;
    while let Some(parent) = table.get(mount.parent)
        && parent.point != root.as_path()
        && parent.point.starts_with(root.as_path())
        && has_peer_outside(parent, root, table)
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
    let mut others = table.mounts().iter();
    others.any(|other| {
        other.peer_group == mount.peer_group && !other.point.starts_with(root.as_path())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_counts_and_not_the_youngest() {
        // The mount 4 was made beneath 3 later, and is a peer of the host's.
        let text = b"1 0 8:1 / / rw - ext4 d rw\n\
            2 1 8:1 /data /data rw shared:7 - ext4 d rw\n\
            3 4 8:1 /own /srv/s/a rw - ext4 d rw\n\
            4 1 8:1 /data /srv/s/a rw shared:7 - ext4 d rw\n";
        let table = Table::parse(text).unwrap();
        let root = HostPath::new("/srv/s").unwrap();
        let point = Path::new("/srv/s/a");
        assert_eq!(command_by(&table, &root, point), unmount_tree(point));
    }
}

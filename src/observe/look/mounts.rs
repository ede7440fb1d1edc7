//! The mounts at one target, by the table or by asking the kernel.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::root::ObservedRoot;
use crate::base::{JailPath, MountAttributes};
use crate::observe::mountinfo::MountInfo;
use crate::observe::observed::ObservedMount;
use crate::observe::table::{self, Table};
use crate::sys::{self, OnMount, Stat};
use crate::{Error, Result};

impl ObservedRoot<'_> {
    /// The mounts at `target`, whose statx(2) is `stat`, bottom first.
    pub(super) fn mounts(
        &self,
        target: &JailPath,
        stat: Option<&Stat>,
    ) -> Result<Vec<ObservedMount>> {
        if let Some(table) = self.table
            && let Some(stat) = stat
            && let Some(seen) = self.mounts_by_table(self.at(target, table), stat)
        {
            return Ok(seen);
        }

        // Nothing is mounted there, or it was mounted after the table was read.
        self.mounts_by_asking(target, stat)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOSYS) => self.mounted_meanwhile(target),
                _ => self.cannot(target, &error),
            })
    }

    /// The mounts at `target`, whose topmost one cannot be looked at, bottom first; no server is
    /// asked. `None`: no mount is there.
    pub(super) fn mounts_unseen(&self, target: &JailPath) -> Result<Option<Vec<ObservedMount>>> {
        let Some(OnMount {
            id: Some(id),
            is_root: Some(true),
            ..
        }) = self.mount_of(target)
        else {
            return Ok(None);
        };
        let table = Table::read()?;
        let mounts = table.at(self.path.inside(target).as_path());
        match table::stack_below(mounts, |mount| mount.id == id) {
            Some(stack) => Ok(Some(stack.into_iter().map(listed).collect())),
            None => Ok(None),
        }
    }

    fn mount_of(&self, target: &JailPath) -> Option<OnMount> {
        let directory = self.directory_of(target).ok()?;
        sys::mount_of(&directory, Path::new(target.file_name()?)).ok()
    }

    /// The mounts of the table at `target`.
    fn at<'t>(&self, target: &JailPath, table: &'t [MountInfo]) -> &'t [MountInfo] {
        let target = target.as_path().as_os_str();
        let first = table.partition_point(|mount| self.in_the_jail(mount) < target);
        let from_here = &table[first..];
        let count = from_here.partition_point(|mount| self.in_the_jail(mount) == target);
        &from_here[..count]
    }

    /// The path in the jail of a mount below the root.
    fn in_the_jail<'m>(&self, mount: &'m MountInfo) -> &'m OsStr {
        let root = self.path.as_path().as_os_str().len();
        OsStr::from_bytes(&mount.point.as_os_str().as_bytes()[root..])
    }

    fn mounts_by_asking(
        &self,
        target: &JailPath,
        stat: Option<&Stat>,
    ) -> io::Result<Vec<ObservedMount>> {
        let Some(stat) = stat else { return Ok(vec![]) };
        let (Some(true), Some(id)) = (stat.mount_root, stat.mount_id) else {
            return Ok(vec![]);
        };
        if let Some(member) = self.member(target, stat, id)? {
            return Ok(vec![member]);
        }
        let stack = self.stack_by_asking(target, id)?;
        let stack: Vec<_> = stack.iter().collect();
        Ok(self.observed_stack(&stack, stat))
    }

    /// Whether the mount is shared, though the mount that it is on is not.
    fn is_made_shared(&self, mount: &MountInfo) -> bool {
        if mount.peer_group.is_none() {
            return false;
        }
        let on = mount.parent;
        let mut table = self.table.into_iter().flatten();
        *self.private == Some(on) || table.any(|other| other.id == on && other.peer_group.is_none())
    }

    /// The mount with the unique mount ID `id` at `target`, if it is on a graft and follows the
    /// mount there that came along with the graft. Its paths are not asked for.
    fn member(&self, target: &JailPath, stat: &Stat, id: u64) -> io::Result<Option<ObservedMount>> {
        let Some((on, groups)) = self.graft_with(target) else {
            return Ok(None);
        };
        let found = sys::mount_outline(id)?;
        let follows = match found.master {
            Some(master) => groups.contains(&master),
            None => false,
        };
        if !follows || !on.contains(&found.parent) {
            return Ok(None);
        }
        Ok(Some(ObservedMount {
            id: found.id,
            unique_id: Some(id),
            file: Some(stat.file),
            kind: Some(stat.kind),
            fs_root: None,
            device: None,
            file_system: None,
            attributes: MountAttributes::from_statmount(found.attributes),
            made_shared: found.shared && self.private.is_some(),
            master: found.master,
        }))
    }

    /// The unique mount IDs of the graft that brings mounts to `target`, and the peer groups that
    /// these follow.
    fn graft_with(&self, target: &JailPath) -> Option<(&[u64], Vec<u64>)> {
        for (graft, ids) in &self.grafts {
            let members = graft.members_at(target).iter();
            let groups: Vec<_> = members.filter_map(|mount| mount.peer_group).collect();
            if !groups.is_empty() {
                return Some((ids, groups));
            }
        }
        None
    }

    /// The mount with the id `top` and the mounts beneath it at the same place, bottom first.
    fn stack_by_asking(&self, target: &JailPath, top: u64) -> io::Result<Vec<MountInfo>> {
        let point = self.path.inside(target);
        let mut stack = vec![];
        let mut id = top;
        loop {
            let mount = match sys::stat_mount(id) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) && !stack.is_empty() => {
                    break;
                }
                result => result?,
            };
            if !stack.is_empty() && mount.point != point.as_path() {
                break;
            }
            let parent = mount.parent;
            stack.push(MountInfo::from_statmount(id, mount));
            if Some(parent) == self.root_mount || parent == id {
                break;
            }
            id = parent;
        }
        stack.reverse();
        Ok(stack)
    }

    fn mounted_meanwhile(&self, target: &JailPath) -> Error {
        let path = self.path.inside(target);
        Error::failed(format!(
            "something was mounted on {path} while the command ran"
        ))
        .overtaken()
    }

    /// The mounts at one point, bottom first. The topmost one is the mount that `stat` is of; the
    /// table may have others there that a mount above hides. `None` if none of them is that mount.
    fn mounts_by_table(&self, mounts: &[MountInfo], stat: &Stat) -> Option<Vec<ObservedMount>> {
        if stat.mount_root == Some(false) {
            return None;
        }
        let stack = table::stack_below(mounts, |mount| is_found(mount, stat))?;
        let mut seen = self.observed_stack(&stack, stat);
        if let Some(top) = seen.last_mut() {
            top.unique_id = stat.unique_mount_id();
        }
        Some(seen)
    }

    /// A stack of mounts, bottom first. `stat` is of the root of the topmost one.
    fn observed_stack(&self, stack: &[&MountInfo], stat: &Stat) -> Vec<ObservedMount> {
        let Some((top, below)) = stack.split_last() else {
            return vec![];
        };
        let mut seen = vec![];
        for mount in below {
            let shows_the_same = mount.device == top.device && mount.root == top.root;
            let stat = (shows_the_same && is_whole(&mount.root)).then_some(stat);
            seen.push(self.observed(mount, stat));
        }
        seen.push(self.observed(top, Some(stat)));
        seen
    }

    /// The `mount`; `stat`: its root, if that is known.
    fn observed(&self, mount: &MountInfo, stat: Option<&Stat>) -> ObservedMount {
        ObservedMount {
            file: stat.map(|stat| stat.file),
            kind: stat.map(|stat| stat.kind),
            made_shared: self.is_made_shared(mount),
            ..listed(mount)
        }
    }
}

/// Whether the path within a file system is that of a file which still has a name.
fn is_whole(root: &Path) -> bool {
    !root.as_os_str().as_bytes().ends_with(b"//deleted")
}

/// Whether `stat` is of the root of `mount`. The answer is yes if their ids are not of the same
/// kind and cannot be compared.
fn is_found(mount: &MountInfo, stat: &Stat) -> bool {
    let id = if stat.mount_id_is_unique {
        mount.unique_id
    } else {
        Some(mount.id)
    };
    id.is_none() || stat.mount_id.is_none() || id == stat.mount_id
}

/// A mount in the table, without the file that is visible at its root.
pub(in crate::observe) fn listed(mount: &MountInfo) -> ObservedMount {
    ObservedMount {
        id: mount.id,
        unique_id: mount.unique_id,
        file: None,
        kind: None,
        fs_root: Some(mount.root.clone()),
        device: Some(mount.device),
        file_system: None,
        attributes: mount.attributes,
        made_shared: false,
        master: mount.master,
    }
}

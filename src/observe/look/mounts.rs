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
        let in_table = self.table.map(|table| {
            let at = |mount: &MountInfo| {
                self.in_the_jail(mount)
                    .as_os_str()
                    .cmp(target.as_path().as_os_str())
            };
            let first = table.partition_point(|mount| at(mount).is_lt());
            let count = table[first..].partition_point(|mount| at(mount).is_eq());
            &table[first..first + count]
        });
        let made_shared = |mount: &MountInfo| self.is_made_shared(mount);
        let by_table = |mounts| mounts_by_table(mounts, stat, made_shared);
        if let Some(seen) = in_table.and_then(by_table) {
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
        let found = target.file_name().and_then(|name| {
            let directory = self.directory_of(target).ok()?;
            sys::mount_of(&directory, Path::new(name)).ok()
        });
        let Some(OnMount {
            id: Some(id),
            is_root: Some(true),
            ..
        }) = found
        else {
            return Ok(None);
        };
        let table = Table::read()?;
        let mounts = table.at(self.path.inside(target).as_path());
        let stack = table::stack_below(mounts, |mount| mount.id == id);
        Ok(stack.map(|stack| stack.into_iter().map(listed).collect()))
    }

    /// The path in the jail of a mount below the root.
    fn in_the_jail<'m>(&self, mount: &'m MountInfo) -> &'m Path {
        let root = self.path.as_path().as_os_str().len();
        Path::new(OsStr::from_bytes(
            &mount.point.as_os_str().as_bytes()[root..],
        ))
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
        let made_shared = |mount: &MountInfo| self.is_made_shared(mount);
        Ok(observed_stack(&stack, stat, made_shared))
    }

    /// Whether the mount is shared, though the mount that it is on is not.
    fn is_made_shared(&self, mount: &MountInfo) -> bool {
        let on = mount.parent;
        let is_private = |other: &MountInfo| other.id == on && other.peer_group.is_none();
        mount.peer_group.is_some()
            && (*self.private == Some(on) || self.table.into_iter().flatten().any(is_private))
    }

    /// The mount with the unique mount ID `id` at `target`, if it is on a graft and follows the
    /// mount there that came along with the graft. Its paths are not asked for.
    fn member(&self, target: &JailPath, stat: &Stat, id: u64) -> io::Result<Option<ObservedMount>> {
        let mut grafts = self.grafts.iter();
        let Some((on, groups)) = grafts.find_map(|(graft, on)| {
            let groups = graft.members_at(target).iter();
            let groups: Vec<_> = groups.filter_map(|mount| mount.peer_group).collect();
            (!groups.is_empty()).then_some((on, groups))
        }) else {
            return Ok(None);
        };
        let found = sys::mount_outline(id)?;
        let follows = found.master.is_some_and(|master| groups.contains(&master));
        Ok(
            (follows && on.contains(&found.parent)).then(|| ObservedMount {
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
            }),
        )
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
}

/// The mounts at one point, bottom first. The topmost one is the mount that `stat` is of; the table
/// may have others there that a mount above hides. `None` if none of them is that mount.
fn mounts_by_table(
    mounts: &[MountInfo],
    stat: Option<&Stat>,
    made_shared: impl Fn(&MountInfo) -> bool,
) -> Option<Vec<ObservedMount>> {
    let stat = stat.filter(|stat| stat.mount_root != Some(false))?;
    let stack = table::stack_below(mounts, |mount| is_found(mount, stat))?;
    let mut seen = observed_stack(&stack, stat, made_shared);
    if let Some(top) = seen.last_mut() {
        top.unique_id = stat.mount_id.filter(|_| stat.mount_id_is_unique);
    }
    Some(seen)
}

/// A stack of mounts, bottom first. `stat` is of the root of the topmost one.
fn observed_stack(
    stack: &[&MountInfo],
    stat: &Stat,
    made_shared: impl Fn(&MountInfo) -> bool,
) -> Vec<ObservedMount> {
    let top = stack.last().map(|top| (top.device, &top.root));
    let is_whole = |root: &Path| !root.as_os_str().as_bytes().ends_with(b"//deleted");
    let seen = stack.iter().enumerate().map(|(nth, mount)| {
        let same = nth + 1 == stack.len()
            || is_whole(&mount.root) && top == Some((mount.device, &mount.root));
        let (file, kind) = if same {
            (Some(stat.file), Some(stat.kind))
        } else {
            (None, None)
        };
        ObservedMount {
            file,
            kind,
            made_shared: made_shared(mount),
            ..listed(mount)
        }
    });
    seen.collect()
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

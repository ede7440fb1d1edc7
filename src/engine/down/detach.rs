//! Detaches mounts, also those that another one hides.

use std::collections::HashSet;
use std::io;
use std::thread;

use super::{DownRun, is_at, pauses};
use crate::base::quote::shell_path;
use crate::base::{Error, JailPath, Result};
use crate::engine::hidden;
use crate::engine::root::{Spot, Spots};
use crate::engine::target::{
    cannot, cannot_reach, explained, foreign_in, hides, holds_foreign, nothing_inside,
};
use crate::observe::ObservedMount;
use crate::plan::Along;
use crate::sys::{self, IfInUse};

impl DownRun<'_> {
    pub(super) fn detach(
        &mut self,
        target: &JailPath,
        expected: &ObservedMount,
        along: &Along,
        spots: &mut Spots<'_>,
    ) -> Result<()> {
        if let Some(error) = self.foreign_in(target) {
            return Err(error);
        }
        if let Along::Members(members) = along {
            self.only_members_in(target, expected, members)?;
        }
        match self.spot_of(target, expected, spots) {
            Ok(Some(spot)) => self.umount(spot, target, expected, along),
            Ok(None) => {
                let not_mounted = io::Error::from_raw_os_error(libc::EINVAL); // as umount(2)
                self.detach_hidden(target, expected, &not_mounted)
            }
            Err(error) => self.detach_hidden(target, expected, &error),
        }
    }

    /// The spot of `target`, if the mount `expected` is there.
    fn spot_of<'s>(
        &self,
        target: &JailPath,
        expected: &ObservedMount,
        spots: &'s mut Spots<'_>,
    ) -> io::Result<Option<&'s Spot>> {
        let spot = self.spot(target, spots)?;
        if is_at(spot, expected)? {
            Ok(Some(spot))
        } else {
            Ok(None)
        }
    }

    /// Unmounts what was found at `spot`.
    fn umount(
        &self,
        spot: &Spot,
        target: &JailPath,
        expected: &ObservedMount,
        along: &Along,
    ) -> Result<()> {
        let first = match along {
            Along::Members(_) => IfInUse::Detach,
            Along::Nothing | Along::Submounts => IfInUse::Fail,
        };
        let mut result = spot.umount(first);
        if is_busy(&result) && self.detach_uncovered(expected) {
            result = spot.umount(first);
        }
        if is_busy(&result) && self.if_in_use == IfInUse::Fail {
            result = umount_when_unused(spot, expected, first);
        }
        match result {
            result if self.if_in_use == IfInUse::Detach && is_busy(&result) => {
                nothing_inside(&self.root, "unmount", target, expected)?;
                let unmounted = spot.umount(IfInUse::Detach);
                explained(&self.root, "unmount", target, unmounted)
            }
            // Its owner has moved or unmounted it since it was found.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                self.detach_hidden(target, expected, &error)
            }
            result => explained(&self.root, "unmount", target, result),
        }
    }

    /// Detaches what is ours in the mount and could not be reached before: a mount on top of it,
    /// which is gone now, hid both. Returns whether there was any.
    fn detach_uncovered(&self, mount: &ObservedMount) -> bool {
        let Some(id) = mount.unique_id else {
            return false;
        };
        let Ok(inside) = sys::list_mounts_in(id) else {
            return false;
        };
        let mut is_any_gone = false;
        for (_, ours) in self.detaches() {
            if let Some(id) = ours.unique_id
                && inside.contains(&id)
                && hidden::detach(id).is_ok()
            {
                is_any_gone = true;
            }
        }
        is_any_gone
    }

    /// The unique mount IDs of the mounts that are to be detached.
    fn ids_of_ours(&self) -> HashSet<u64> {
        let mut ids = HashSet::new();
        for (_, ours) in self.detaches() {
            ids.extend(ours.unique_id);
        }
        ids
    }

    /// Makes sure that nobody has mounted anything in the graft since it was looked at.
    fn only_members_in(
        &self,
        target: &JailPath,
        graft: &ObservedMount,
        members: &[JailPath],
    ) -> Result<()> {
        let Some(id) = graft.unique_id else {
            return Ok(()); // before Linux 6.8 the plan checks this in the whole mount table
        };
        let newest = self.observed.newest.unwrap_or(0);
        let inside = sys::list_newer_mounts_in(id, newest);
        let inside = explained(&self.root, "look into", target, inside)?;
        if inside.is_empty() {
            return Ok(());
        }
        let mut known = HashSet::new();
        for member in members {
            let stack = self.observed.stack(member);
            known.extend(stack.iter().filter_map(|seen| seen.unique_id));
        }
        if inside.iter().all(|inside| known.contains(inside)) {
            return Ok(());
        }
        Err(Error::failed(format!(
            "{} changed while the command ran",
            self.root.path().inside(target)
        ))
        .overtaken()
        .hint("run the command again"))
    }

    /// Detaches a mount that was not found at its path; `why` is the error.
    fn detach_hidden(
        &self,
        target: &JailPath,
        expected: &ObservedMount,
        why: &io::Error,
    ) -> Result<()> {
        let Some(id) = expected.unique_id else {
            return Err(cannot_reach(&self.root, "unmount", target, why));
        };
        if !sys::mount_exists(id) {
            return Ok(());
        }

        let ours = self.ids_of_ours();
        if let Some(foreign) = foreign_in(id, &ours, self.observed) {
            return Err(holds_foreign(&self.root, "unmount", target, foreign));
        }

        match hidden::detach(id) {
            Ok(()) => Ok(()),
            // It goes with the mount that it is in, which is also hidden.
            Err(_) if sys::stat_mount(id).is_ok_and(|mount| ours.contains(&mount.parent)) => Ok(()),
            Err(error) => Err(self.stays_hidden(target, id, &error)),
        }
    }

    /// The error about a mount that could not be detached where another one hides it.
    fn stays_hidden(&self, target: &JailPath, id: u64, error: &io::Error) -> Error {
        if let Some(above) = hidden::hidden_by(id) {
            let path = self.root.path().inside(target);
            return hides(&path.to_string(), &above);
        }
        let parent = sys::stat_mount(id).and_then(|mount| sys::stat_mount(mount.parent));
        let hint = match parent {
            Ok(on) => format!(
                "the file system that it is on may not answer: `umount -l {}` takes that away \
                 with what is in it; then run the command again",
                shell_path(&on.point)
            ),
            Err(_) => "run the command again".to_owned(),
        };
        cannot(&self.root, "unmount", target, error).hint(hint)
    }
}

/// Unmounts `expected`, which was in use just now, as soon as it is not; an error if it stays so.
fn umount_when_unused(spot: &Spot, expected: &ObservedMount, if_in_use: IfInUse) -> io::Result<()> {
    let mut result = Err(io::Error::from_raw_os_error(libc::EBUSY));
    for pause in pauses() {
        thread::sleep(pause);
        if !is_at(spot, expected)? {
            return Err(io::Error::from_raw_os_error(libc::EINVAL)); // as umount(2)
        }
        result = spot.umount(if_in_use);
        if !is_busy(&result) {
            break;
        }
    }
    result
}

fn is_busy(result: &io::Result<()>) -> bool {
    let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
    errno == Some(libc::EBUSY)
}

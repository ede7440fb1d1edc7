//! Detaches mounts, also those that another one hides.

use std::collections::HashSet;
use std::io;

use super::{DownRun, is_at};
use crate::base::quote::shell_word;
use crate::base::{Error, JailPath, Result};
use crate::engine::hidden;
use crate::engine::root::{Spot, Spots};
use crate::engine::target::{cannot, cannot_reach, hides, nothing_inside};
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
        let found = self
            .spot(target, spots)
            .and_then(|spot| Ok(is_at(spot, expected)?.then_some(spot)));
        match found {
            Ok(Some(spot)) => self.umount(spot, target, expected, along)?,
            Ok(None) => {
                let not_mounted = io::Error::from_raw_os_error(libc::EINVAL); // as umount(2)
                self.detach_hidden(target, expected, &not_mounted)?;
            }
            Err(error) => self.detach_hidden(target, expected, &error)?,
        }
        self.outcome.detached += along.mounts();
        Ok(())
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
        let cannot = |error: io::Error| cannot(&self.root, "unmount", target, &error);
        let mut result = spot.umount(first);
        if is_busy(&result) && self.detach_uncovered(expected) {
            result = spot.umount(first);
        }
        match result {
            result if self.if_in_use == IfInUse::Detach && is_busy(&result) => {
                nothing_inside(&self.root, "unmount", target, expected)?;
                spot.umount(IfInUse::Detach).map_err(cannot)
            }
            // Its owner has moved or unmounted it since it was found.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                self.detach_hidden(target, expected, &error)
            }
            result => result.map_err(cannot),
        }
    }

    /// Detaches what is ours in the mount and could not be reached before: a mount on top of it,
    /// which is gone now, hid both. Returns whether there was any.
    fn detach_uncovered(&self, mount: &ObservedMount) -> bool {
        let inside = mount.unique_id.map(sys::list_mounts_in);
        let Some(Ok(inside)) = inside else {
            return false;
        };
        let ours = self.detaches().filter_map(|(_, ours)| ours.unique_id);
        let ours = ours.filter(|id| inside.contains(id));
        let gone: Vec<_> = ours.map(|id| hidden::detach(id).is_ok()).collect();
        gone.contains(&true)
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
        let seen = members
            .iter()
            .filter_map(|member| self.observed.mounts.get(member));
        let known: HashSet<_> = seen.flatten().filter_map(|seen| seen.unique_id).collect();
        let inside = sys::list_newer_mounts_in(id, self.observed.newest.unwrap_or(0))
            .map_err(|error| cannot(&self.root, "look into", target, &error))?;
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

        let detaches = self.detaches();
        let ours: HashSet<_> = detaches
            .filter_map(|(_, expected)| expected.unique_id)
            .collect();
        let grafts = self.observed.grafts.iter();
        let members = grafts.flat_map(|graft| graft.members.iter());
        let groups: HashSet<_> = members.filter_map(|member| member.peer_group).collect();
        let came_along = |inside: u64| {
            let master = sys::mount_outline(inside).map(|mount| mount.master);
            master.is_ok_and(|master| master.is_some_and(|master| groups.contains(&master)))
        };
        let is_foreign = |inside: &u64| !ours.contains(inside) && !came_along(*inside);
        if sys::list_mounts_in(id).is_ok_and(|inside| inside.iter().any(is_foreign)) {
            let unknown = ObservedMount {
                kind: None,
                ..expected.clone()
            };
            nothing_inside(&self.root, "unmount", target, &unknown)?;
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
                shell_word(&on.point.to_string_lossy())
            ),
            Err(_) => "run the command again".to_owned(),
        };
        cannot(&self.root, "unmount", target, error).hint(hint)
    }
}

fn is_busy(result: &io::Result<()>) -> bool {
    let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
    errno == Some(libc::EBUSY)
}

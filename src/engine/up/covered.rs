//! Mounts that a graft covers. They are opened before it comes, and detached when all else is done,
//! so that nothing is ever absent.

use std::os::fd::OwnedFd;

use super::run::UpRun;
use crate::base::{JailPath, Result};
use crate::engine::backend::Backend;
use crate::engine::hidden;
use crate::engine::target::{cannot, nothing_in};
use crate::observe::RecordedMount;
use crate::plan::Step;
use crate::sys;

/// A mount that is to go beneath a graft.
pub(super) struct Covered<'a> {
    step: &'a Step,
    target: &'a JailPath,
    unique_id: u64,
    /// Its root. `None`: the graft of an earlier run hides it.
    open: Option<OwnedFd>,
}

impl<'a, B: Backend> UpRun<'a, B> {
    /// Opens the mounts that grafts will cover.
    ///
    /// Errors: somebody has mounted something in one of them.
    pub(super) fn open_covered(&self) -> Result<Vec<Covered<'a>>> {
        let mut covered = vec![];
        for step in &self.plan.steps {
            let Step::DetachCovered { target, unique_id } = step else {
                continue;
            };
            nothing_in(&self.root, "cover", target, *unique_id)?;
            covered.push(Covered {
                step,
                target,
                unique_id: *unique_id,
                open: self.open_mount(target, *unique_id),
            });
        }
        Ok(covered)
    }

    /// Opens the mount with this id, if it is visible at `target`.
    fn open_mount(&self, target: &JailPath, unique_id: u64) -> Option<OwnedFd> {
        let open = self.root.open_mounted(target).ok()?;
        if sys::stat_fd(&open).ok()?.mount_id != Some(unique_id) {
            return None;
        }
        Some(open)
    }

    /// Detaches the mounts that grafts cover now. `recorded`: the mounts in the record. A mount
    /// that cannot be detached stays recorded, and is left to the next run.
    pub(super) fn detach_covered(
        &mut self,
        covered: Vec<Covered<'_>>,
        mut recorded: Vec<RecordedMount>,
    ) {
        if covered.is_empty() {
            return;
        }
        for mount in covered {
            self.log_step(mount.step);
            let detached = match mount.open {
                // It cannot be undone any more, so the only remedy is to try again.
                Some(open) => sys::umount_at(&open).or_else(|_| sys::umount_at(&open)),
                None => hidden::detach(mount.unique_id),
            };
            match detached {
                Err(error) if sys::mount_exists(mount.unique_id) => {
                    let error = cannot(&self.root, "detach the old", mount.target, &error);
                    self.outcome.left.push(error.to_string());
                }
                _ => recorded.retain(|known| known.unique_id != Some(mount.unique_id)),
            }
        }
        let written = self.write_record(recorded, self.history_with_this_run());
        if let Err(error) = written {
            self.outcome.left.push(error.to_string());
        }
    }
}

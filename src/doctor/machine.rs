//! The machine itself: what its kernel offers, which engine is used, how much room is left for
//! mounts.

use std::fs;

use crate::engine::{Choice, Features};
use crate::{Result, observe};

/// The machine is full if less than this part of `fs.mount-max` is left: a tenth.
const SCARCE: usize = 10;

#[derive(Debug)]
pub(crate) struct Machine {
    /// The kernel's release. It is only shown; nothing is decided by it.
    pub kernel: String,
    pub features: Features,
    /// The engine's name, or why none can be used.
    pub engine: Result<&'static str>,
    /// The number of mounts in this mount namespace.
    pub mounts: usize,
    /// `fs.mount-max` (Linux 4.9).
    pub mount_max: Option<usize>,
}

/// A system call that not every kernel has.
pub(crate) struct KernelCall {
    pub name: &'static str,
    pub is_there: bool,
    /// Its use, and since when it exists.
    pub used_for: &'static str,
}

impl Machine {
    /// Looks at this machine; `forced` is `MOUNTJAIL_ENGINE`.
    pub(crate) fn look(forced: Option<&str>) -> Result<Self> {
        let features = Features::probe();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mount_max = fs::read_to_string("/proc/sys/fs/mount-max").unwrap_or_default();
        Ok(Self {
            kernel: release.trim().to_owned(),
            features,
            engine: Choice::select(forced, features).map(Choice::name),
            mounts: observe::mount_count()?,
            mount_max: mount_max.trim().parse().ok(),
        })
    }

    /// The system calls that mountjail uses if the kernel has them.
    pub(crate) fn calls(&self) -> [KernelCall; 5] {
        let call = |name, is_there, used_for| KernelCall {
            name,
            is_there,
            used_for,
        };
        let has = &self.features;
        [
            call(
                "openat2",
                has.openat2,
                "opens targets beneath a root in one call (Linux 5.6)",
            ),
            call(
                "mount_setattr",
                has.mount_setattr,
                "makes a mount read-only before it is attached: the detached engine (Linux 5.12)",
            ),
            call(
                "move_mount_beneath",
                has.beneath,
                "swaps a stale mount without a gap (Linux 6.5)",
            ),
            call(
                "statmount",
                has.statmount,
                "gives unique mount IDs, which are never reused (Linux 6.8)",
            ),
            call(
                "clone_detached",
                has.clone_detached,
                "clones detached mounts: no scratch mount is needed (Linux 6.15)",
            ),
        ]
    }

    /// Whether there is little room for more mounts.
    pub(crate) fn is_full(&self) -> bool {
        self.mount_max
            .is_some_and(|most| most.saturating_sub(self.mounts) < most / SCARCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine() {
        let machine = Machine::look(None).unwrap();
        assert!(machine.mounts > 0 && !machine.kernel.is_empty());
        assert_eq!(
            machine.engine.is_ok_and(|name| name == "detached"),
            machine.features.mount_setattr
        );
    }

    #[test]
    fn a_tenth_is_little() {
        let mut machine = Machine::look(None).unwrap();
        (machine.mounts, machine.mount_max) = (899, Some(1000));
        assert!(!machine.is_full());
        machine.mounts = 901;
        assert!(machine.is_full());
    }
}

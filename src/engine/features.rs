//! The features of this kernel. They are found by probing system calls, never from version strings.

use crate::base::{Error, Result};
use crate::sys;

/// The system calls that decide how mountjail mounts. `doctor` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // one per system call
pub(crate) struct Features {
    /// `openat2(2)`, Linux 5.6.
    pub openat2: bool,
    /// `mount_setattr(2)`, Linux 5.12: needed by the detached engine.
    pub mount_setattr: bool,
    /// `MOVE_MOUNT_BENEATH`, Linux 6.5: allows swaps without a gap.
    pub beneath: bool,
    /// `statmount(2)`, `listmount(2)` and unique mount IDs, Linux 6.8.
    pub statmount: bool,
    /// Whether detached mounts can be cloned, Linux 6.15. Then runs over many sites need no scratch
    /// mount.
    pub clone_detached: bool,
}

impl Features {
    /// Probes the running kernel. A call that a seccomp filter forbids counts as absent.
    pub(crate) fn probe() -> Self {
        Self {
            openat2: sys::probe::openat2(),
            mount_setattr: sys::probe::mount_setattr(),
            beneath: sys::probe::move_mount_beneath(),
            statmount: sys::probe::statmount(),
            clone_detached: sys::probe::clone_detached(),
        }
    }
}

/// The engine that mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// `open_tree`, `mount_setattr`, `move_mount`.
    Detached,
    /// `mount(2)`.
    Classic,
}

impl Choice {
    /// Returns the engine for `features`, or the one that `forced` names (`MOUNTJAIL_ENGINE`).
    ///
    /// Errors: the name is unknown, or it is `detached` and the kernel lacks `mount_setattr`.
    pub(crate) fn select(forced: Option<&str>, features: Features) -> Result<Self> {
        match forced.filter(|name| !name.is_empty()) {
            None | Some("detached") if features.mount_setattr => Ok(Self::Detached),
            None | Some("classic") => Ok(Self::Classic),
            Some("detached") => Err(Error::failed(
                "MOUNTJAIL_ENGINE=detached cannot be used: this kernel has no \
                 mount_setattr(2) (Linux 5.12), \
                 or a seccomp filter forbids it",
            )
            .hint("unset MOUNTJAIL_ENGINE; the classic engine keeps the same promises")),
            Some(other) => Err(
                Error::usage(format!("MOUNTJAIL_ENGINE={other} is not an engine")).hint(
                    "the engines are `detached` and `classic`; unset it to choose by the \
                       kernel",
                ),
            ),
        }
    }

    /// Its name, as `MOUNTJAIL_ENGINE` accepts it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Classic => "classic",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Features = Features {
        openat2: true,
        mount_setattr: true,
        beneath: true,
        statmount: true,
        clone_detached: true,
    };
    const OLD: Features = Features {
        openat2: true,
        mount_setattr: false,
        beneath: false,
        statmount: false,
        clone_detached: false,
    };

    #[test]
    fn the_kernel_decides_unless_told_otherwise() {
        assert_eq!(Choice::select(None, NEW), Ok(Choice::Detached));
        assert_eq!(Choice::select(Some(""), OLD), Ok(Choice::Classic));
        assert_eq!(Choice::select(Some("classic"), NEW), Ok(Choice::Classic));
        assert!(
            Choice::select(Some("detached"), OLD)
                .unwrap_err()
                .hint_text()
                .is_some()
        );
        assert_eq!(
            Choice::select(Some("fast"), NEW).unwrap_err().exit_code(),
            2
        );
    }
}

//! The two ways to mount. Both make a copy of a mount out of sight, with its final attributes, and
//! attach the finished copy in one system call, so it is never visible writable.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::base::MountAttributes;
use crate::sys;

/// A finished mount that nothing shows yet.
#[derive(Debug)]
pub(super) enum Ready {
    /// Detached, in an anonymous namespace of its own.
    Detached(OwnedFd),
    /// At this path of the private scratch mount.
    Scratch(PathBuf),
}

impl Ready {
    /// The id that the mount will have when attached, if that is known before.
    pub(super) fn unique_id(&self) -> Option<u64> {
        let Self::Detached(fd) = self else {
            return None;
        };
        let stat = sys::stat_fd(fd).ok()?;
        stat.mount_id.filter(|_| stat.mount_id_is_unique)
    }
}

/// How mounts are copied and attached.
pub(super) trait Backend: Send + Sync {
    /// A copy of the mount that `source` is on, with `source` as its root, exactly `options`, and
    /// private: cut from the host's peer groups. With its submounts if `recursive`.
    fn prepare(
        &self,
        source: BorrowedFd<'_>,
        options: MountAttributes,
        recursive: bool,
    ) -> io::Result<Ready>;

    /// A copy as it is of the mount whose root `top` is, private: to bring it back if the run
    /// fails.
    fn save(&self, top: BorrowedFd<'_>, recursive: bool) -> io::Result<Ready>;

    /// One more copy of a prepared mount.
    fn copy(&self, prepared: &Ready, recursive: bool) -> io::Result<Ready>;

    /// Attaches `ready` on `target`, whose type fits.
    fn attach(&self, ready: &Ready, target: BorrowedFd<'_>, recursive: bool) -> io::Result<()>;

    /// Attaches `ready` beneath the mount whose root `top` is; `Ok(false)` where that cannot be
    /// done.
    fn attach_beneath(&self, ready: &Ready, top: BorrowedFd<'_>) -> io::Result<bool>;

    /// Makes a prepared mount ready to be copied many times, where that needs something.
    fn share(&self, prepared: &Ready, recursive: bool) -> io::Result<()>;
}

/// `mount_setattr`'s argument for exactly these options and `MS_PRIVATE`.
pub(super) fn attributes(options: MountAttributes) -> sys::MountAttr {
    let mut attr = sys::MountAttr {
        propagation: libc::MS_PRIVATE,
        ..Default::default()
    };
    for (wanted, flag) in [
        (options.read_only, libc::MOUNT_ATTR_RDONLY),
        (options.nosuid, libc::MOUNT_ATTR_NOSUID),
        (options.nodev, libc::MOUNT_ATTR_NODEV),
        (options.noexec, libc::MOUNT_ATTR_NOEXEC),
    ] {
        if wanted {
            attr.set |= flag;
        } else {
            attr.clear |= flag;
        }
    }
    attr
}

/// A copy of a mount by `open_tree(2)`.
pub(super) fn clone_of(fd: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    if recursive {
        sys::clone_mount_recursive(fd)
    } else {
        sys::clone_mount(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_set_what_is_wanted_and_clear_the_rest() {
        let attr = attributes(MountAttributes::DEVICE);
        assert_eq!(
            attr.set,
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC
        );
        assert_eq!(attr.clear, libc::MOUNT_ATTR_NODEV);
        assert_eq!(attr.propagation, libc::MS_PRIVATE);
    }
}

//! The two ways to mount. Both make a copy of a mount out of sight, with its final attributes, and
//! attach the finished copy in one system call, so it is never visible writable.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys_mount::{Mount, MountFlags};

use crate::base::MountAttributes;
use crate::sys;

/// A finished mount that nothing shows yet.
pub(super) trait Prepared: Send + Sync {
    /// The unique id that the mount will have when it is attached, if that is known before.
    fn unique_id(&self) -> Option<u64>;

    /// Its attributes, as the kernel made it, if they can be asked for before it is attached.
    fn attributes(&self) -> io::Result<Option<MountAttributes>>;
}

/// How mounts are copied and attached.
pub(super) trait Backend: Send + Sync {
    /// What it prepares.
    type Ready: Prepared;

    /// A copy of the mount that `source` is on, with `source` as its root, exactly `options`, and
    /// private: cut from the host's peer groups. With its submounts if `recursive`.
    fn prepare(
        &self,
        source: BorrowedFd<'_>,
        options: MountAttributes,
        recursive: bool,
    ) -> io::Result<Self::Ready>;

    /// A copy as it is of the mount whose root `top` is, private: to bring it back if the run
    /// fails.
    fn save(&self, top: BorrowedFd<'_>, recursive: bool) -> io::Result<Self::Ready>;

    /// One more copy of a prepared mount.
    fn copy(&self, prepared: &Self::Ready, recursive: bool) -> io::Result<Self::Ready>;

    /// Attaches `ready` on `target`, whose type fits.
    fn attach(
        &self,
        ready: &Self::Ready,
        target: BorrowedFd<'_>,
        recursive: bool,
    ) -> io::Result<()>;

    /// Makes sure that `ready` can be attached: the kernel attaches no mount of a file that has
    /// been deleted (ENOENT). For a swap with a gap, before the old mount is taken off.
    fn stage(&self, ready: &Self::Ready) -> io::Result<()>;

    /// Attaches `ready` beneath the mount whose root `top` is; `Ok(false)` where that cannot be
    /// done.
    fn attach_beneath(&self, ready: &Self::Ready, top: BorrowedFd<'_>) -> io::Result<bool>;

    /// Makes a prepared mount ready to be copied many times, where that needs something.
    fn share(&self, prepared: &Self::Ready, recursive: bool) -> io::Result<()>;
}

/// One `mount(2)` through sys-mount. The type is named always: without one the crate would try them
/// all.
pub(super) fn mount(source: &Path, target: &Path, flags: MountFlags) -> io::Result<()> {
    Mount::builder()
        .fstype("none")
        .flags(flags)
        .mount(source, target)
        .map(drop)
}

/// Cuts the mount at `target` from its peer group, with all below it if `recursive`.
pub(super) fn make_private(target: &Path, recursive: bool) -> io::Result<()> {
    // sys-mount's flags have no name for the propagation types; its type takes the bits as they
    // are.
    let private = MountFlags::from_bits_retain(libc::MS_PRIVATE);
    mount(
        Path::new("none"),
        target,
        private
            | if recursive {
                MountFlags::REC
            } else {
                MountFlags::empty()
            },
    )
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

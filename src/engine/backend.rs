//! The interface of the two ways to mount. Both make a copy of a mount out of sight, with its final
//! attributes, and attach the finished copy in one system call, so it is never visible writable.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use sys_mount::{Mount, MountFlags};

use crate::base::{Extent, FileSystem, MountAttributes};
use crate::sys::{self, FileId, proc};

/// A finished mount that is not visible anywhere yet.
pub(super) trait Prepared: Send + Sync {
    /// The unique ID that the mount will have when it is attached, if it is known before.
    fn unique_id(&self) -> Option<u64>;

    /// Its attributes as the kernel made it, if the kernel can be asked before it is attached.
    fn attributes(&self) -> io::Result<Option<MountAttributes>>;
}

/// How mounts are copied and attached.
pub(super) trait Backend: Send + Sync {
    /// A mount that it has prepared.
    type Ready: Prepared;

    /// Copies the mount that `source` is on, with `source` as the root of the copy, with exactly
    /// `attributes`, and private, that is, cut from the peer groups of the host.
    fn prepare(
        &self,
        source: BorrowedFd<'_>,
        attributes: MountAttributes,
        extent: Extent,
    ) -> io::Result<Self::Ready>;

    /// Makes a new file system and a mount of it with exactly `attributes`. Its root directory is
    /// returned as well.
    fn make(
        &self,
        file_system: FileSystem,
        attributes: MountAttributes,
    ) -> io::Result<(Self::Ready, FileId)>;

    /// Copies the mount whose root `top` is, unchanged but private, to bring it back if the run
    /// fails.
    fn save(&self, top: BorrowedFd<'_>, extent: Extent) -> io::Result<Self::Ready>;

    /// Copies the mount that `source` is on, with `source` as the root of the copy, so that it
    /// follows the mount and whatever is mounted in it later: as a slave (`mount_namespaces(7)`).
    /// The copy gets exactly `attributes`, if they are given; mounts in it keep theirs.
    fn follow(
        &self,
        source: BorrowedFd<'_>,
        attributes: Option<MountAttributes>,
        extent: Extent,
    ) -> io::Result<Self::Ready>;

    /// Makes one more copy of a prepared mount.
    fn copy(&self, prepared: &Self::Ready, extent: Extent) -> io::Result<Self::Ready>;

    /// Attaches `ready` on `target`, which is of a fitting type.
    fn attach(&self, ready: &Self::Ready, target: BorrowedFd<'_>, extent: Extent)
    -> io::Result<()>;

    /// Makes sure that `ready` can be attached: the kernel attaches no mount of a deleted file
    /// (ENOENT). It is called for a swap with a gap, before the old mount is detached.
    fn stage(&self, ready: &Self::Ready) -> io::Result<()>;

    /// Attaches `ready` beneath the mount whose root `top` is. `Ok(false)`: this is not supported.
    fn attach_beneath(&self, ready: &Self::Ready, top: BorrowedFd<'_>) -> io::Result<bool>;

    /// Attaches a prepared mount out of sight. A mount from another mount namespace can be copied
    /// in this one afterwards.
    fn settle(&self, prepared: &Self::Ready) -> io::Result<()>;

    /// Makes a prepared mount ready to be copied many times, if that needs a step of its own.
    fn share(&self, prepared: &Self::Ready) -> io::Result<()>;
}

/// Calls `mount(2)` once through sys-mount. The type is always given, because without one the crate
/// would try all types.
pub(super) fn mount(source: &Path, target: &Path, flags: MountFlags) -> io::Result<()> {
    Mount::builder()
        .fstype("none")
        .flags(flags)
        .mount(source, target)
        .map(drop)
}

/// Gives the file system of the site's own that is mounted at `at`, and this mount of it, these
/// options: `mount(2)` with `MS_REMOUNT`.
pub(super) fn remount(
    at: impl AsFd,
    file_system: FileSystem,
    attributes: MountAttributes,
) -> io::Result<()> {
    Mount::builder()
        .fstype(file_system.name())
        .flags(MountFlags::REMOUNT | flags(attributes))
        .data(&file_system.remount_options())
        .mount(file_system.name(), proc::path_of_descriptor(&at))
        .map(drop)
}

/// The attributes as flags of `mount(2)`.
pub(super) fn flags(attributes: MountAttributes) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, attributes.read_only);
    flags.set(MountFlags::NOSUID, attributes.nosuid);
    flags.set(MountFlags::NODEV, attributes.nodev);
    flags.set(MountFlags::NOEXEC, attributes.noexec);
    flags
}

/// Cuts the mount at `target` from its peer group.
pub(super) fn make_private(target: &Path, extent: Extent) -> io::Result<()> {
    set_propagation(target, libc::MS_PRIVATE, extent)
}

/// Sets the propagation type of the mount at `target`: `MS_SHARED`, `MS_SLAVE` or `MS_PRIVATE`.
pub(super) fn set_propagation(
    target: &Path,
    propagation: libc::c_ulong,
    extent: Extent,
) -> io::Result<()> {
    // The flags of sys-mount have no names for the propagation types, but their type accepts the
    // bits.
    let mut flags = MountFlags::from_bits_retain(propagation);
    flags.set(MountFlags::REC, extent.is_recursive());
    mount(Path::new("none"), target, flags)
}

/// The argument of `mount_setattr` for exactly these attributes and `MS_PRIVATE`.
pub(super) fn to_kernel(attributes: MountAttributes) -> sys::MountAttr {
    let mut attr = sys::MountAttr {
        propagation: libc::MS_PRIVATE,
        ..Default::default()
    };
    for (wanted, flag) in [
        (attributes.read_only, libc::MOUNT_ATTR_RDONLY),
        (attributes.nosuid, libc::MOUNT_ATTR_NOSUID),
        (attributes.nodev, libc::MOUNT_ATTR_NODEV),
        (attributes.noexec, libc::MOUNT_ATTR_NOEXEC),
    ] {
        if wanted {
            attr.set |= flag;
        } else {
            attr.clear |= flag;
        }
    }
    attr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_set_what_is_wanted_and_clear_the_rest() {
        let attr = to_kernel(MountAttributes::DEVICE);
        assert_eq!(
            attr.set,
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC
        );
        assert_eq!(attr.clear, libc::MOUNT_ATTR_NODEV);
        assert_eq!(attr.propagation, libc::MS_PRIVATE);
    }

    #[test]
    fn attributes_become_the_flags_of_mount_2() {
        assert_eq!(
            flags(MountAttributes::CODE),
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV
        );
        let writable = MountAttributes {
            read_only: false,
            ..MountAttributes::DATA
        };
        assert_eq!(
            flags(writable),
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC
        );
    }
}

//! Mount attributes: `MOUNT_ATTR_*` of `mount_setattr(2)`.

use std::fmt;

use nix::sys::statvfs::FsFlags;
use serde::{Deserialize, Serialize};

/// A mount's attributes, as mount(8) names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // they are the kernel's independent flags
pub struct MountAttributes {
    /// `ro`.
    pub read_only: bool,
    /// `nosuid`.
    pub nosuid: bool,
    /// `nodev`.
    pub nodev: bool,
    /// `noexec`.
    pub noexec: bool,
}

impl MountAttributes {
    /// Libraries and programs: `ro,nosuid,nodev`.
    pub const CODE: Self = Self {
        read_only: true,
        nosuid: true,
        nodev: true,
        noexec: false,
    };
    /// Devices: `ro,nosuid,noexec`; writing to `/dev/null` works on a read-only mount.
    pub const DEVICE: Self = Self {
        read_only: true,
        nosuid: true,
        nodev: false,
        noexec: true,
    };
    /// Everything else: `ro,nosuid,nodev,noexec`.
    pub const DATA: Self = Self {
        read_only: true,
        nosuid: true,
        nodev: true,
        noexec: true,
    };

    /// Nothing is forbidden.
    pub const OPEN: Self = Self {
        read_only: false,
        nosuid: false,
        nodev: false,
        noexec: false,
    };

    /// The attributes of a mount from `statfs(2)`; `ro` also if its file system is read-only.
    pub(crate) fn from_statfs(flags: FsFlags) -> Self {
        Self {
            read_only: flags.contains(FsFlags::ST_RDONLY),
            nosuid: flags.contains(FsFlags::ST_NOSUID),
            nodev: flags.contains(FsFlags::ST_NODEV),
            noexec: flags.contains(FsFlags::ST_NOEXEC),
        }
    }

    /// The attributes of a mount from `statmount(2)`: `MOUNT_ATTR_*`.
    pub(crate) fn from_statmount(attributes: u64) -> Self {
        let has = |attribute| attributes & attribute != 0;
        Self {
            read_only: has(libc::MOUNT_ATTR_RDONLY),
            nosuid: has(libc::MOUNT_ATTR_NOSUID),
            nodev: has(libc::MOUNT_ATTR_NODEV),
            noexec: has(libc::MOUNT_ATTR_NOEXEC),
        }
    }

    /// The same, but set-user-ID bits, devices and programs work only if they also do on a mount
    /// with `host`.
    pub(crate) fn within(self, host: Self) -> Self {
        Self {
            nosuid: self.nosuid || host.nosuid,
            nodev: self.nodev || host.nodev,
            noexec: self.noexec || host.noexec,
            ..self
        }
    }

    /// Whether a mount with `self` allows all that one with `other` allows.
    pub fn allows(self, other: Self) -> bool {
        (!self.read_only || other.read_only)
            && (!self.nosuid || other.nosuid)
            && (!self.nodev || other.nodev)
            && (!self.noexec || other.noexec)
    }
}

impl fmt::Display for MountAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.read_only { "ro" } else { "rw" })?;
        for (set, name) in [
            (self.nosuid, "nosuid"),
            (self.nodev, "nodev"),
            (self.noexec, "noexec"),
        ] {
            if set {
                write!(f, ",{name}")?;
            }
        }
        Ok(())
    }
}

//! Finds facts about mounts, and reaches files below other mounts, without asking the server of a
//! file system.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::NixPath;

/// The mount that a file is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnMount {
    /// The id of the mount in `/proc/self/mountinfo`; `None` before Linux 5.8.
    pub id: Option<u64>,
    /// The device of the file system.
    pub device: u64,
    /// Whether the file is the root of the mount; `None` before Linux 5.8.
    pub is_root: Option<bool>,
}

/// Finds the mount that `path`, from the directory `dir`, is on; a link at the end is not followed.
/// `statx(2)` is asked for nothing else, so no server of a file system at `path` is asked, not even
/// one that hangs, is dead, or serves only its owner. Servers of directories on the way are asked.
pub fn mount_of(dir: impl AsFd, path: &Path) -> io::Result<OnMount> {
    let flags = libc::AT_SYMLINK_NOFOLLOW
        | libc::AT_NO_AUTOMOUNT
        | libc::AT_STATX_DONT_SYNC
        | if path.as_os_str().is_empty() {
            libc::AT_EMPTY_PATH
        } else {
            0
        };
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    path.with_nix_path(|path| {
        // SAFETY: `path` is NUL-terminated; `buffer` has room for a `struct statx`, which the
        // kernel fills.
        let result = unsafe {
            libc::statx(
                dir.as_fd().as_raw_fd(),
                path.as_ptr(),
                flags,
                0,
                buffer.as_mut_ptr(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    })??;

    // SAFETY: zeroed at first and filled by the successful call; every bit pattern is valid.
    let stx = unsafe { buffer.assume_init() };
    let root_bit = libc::STATX_ATTR_MOUNT_ROOT as u64;
    Ok(OnMount {
        id: (stx.stx_mask & libc::STATX_MNT_ID != 0).then_some(stx.stx_mnt_id),
        device: libc::makedev(stx.stx_dev_major, stx.stx_dev_minor),
        is_root: (stx.stx_attributes_mask & root_bit != 0)
            .then_some(stx.stx_attributes & root_bit != 0),
    })
}

/// Room for a handle: `MAX_HANDLE_SZ` of `linux/exportfs.h`.
const MAX_HANDLE_SIZE: usize = 128;

/// `struct file_handle`, with the room for its handle.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    room: [u8; MAX_HANDLE_SIZE],
}

/// Opens the file `file` as it is on the mount that `mount` is on, whatever is mounted on it or
/// above it: `name_to_handle_at(2)` and `open_by_handle_at(2)` with `O_PATH`, which needs
/// `CAP_DAC_READ_SEARCH`. `mount` is open for reading, not with `O_PATH`. `file` is in the same
/// file system, for example in a copy of that mount.
///
/// Errors: EOPNOTSUPP for a file system without handles; ESTALE.
pub fn reopen_on(mount: impl AsFd, file: impl AsFd) -> io::Result<OwnedFd> {
    let mut handle = Handle {
        bytes: MAX_HANDLE_SIZE as u32,
        kind: 0,
        room: [0; MAX_HANDLE_SIZE],
    };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: the path is static. The handle has the room that it claims. The kernel writes to
    // both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }

    // SAFETY: the handle was filled by the kernel, which only reads it here.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_fd().as_raw_fd(),
            &raw mut handle,
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_directory_of_proc_is_on_its_mount() {
        let root = File::open("/").unwrap();
        let proc = mount_of(&root, Path::new("proc")).unwrap();
        let inside = mount_of(&root, Path::new("proc/self/fd")).unwrap();
        assert_eq!(
            (proc.id, proc.is_root, inside.is_root),
            (inside.id, Some(true), Some(false))
        );
        assert_ne!(mount_of(&root, Path::new("")).unwrap().id, proc.id);
    }
}

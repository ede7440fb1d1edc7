//! Finds facts about mounts, and reaches files below other mounts, without asking the server of a
//! file system.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use super::result::{checked, new_descriptor};
use super::stat::{STATX_MNT_ID_UNIQUE, device, is_mount_root, raw_statx, with_c_path};

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
    let stx = ask(dir, path, 0)?;
    Ok(OnMount {
        id: (stx.stx_mask & libc::STATX_MNT_ID != 0).then_some(stx.stx_mnt_id),
        device: device(&stx),
        is_root: is_mount_root(&stx),
    })
}

/// The unique ID of the topmost mount at `path` (Linux 6.8), found as [`mount_of`] does. `None`:
/// there is none, or the kernel has no such IDs.
pub fn mounted_at(dir: impl AsFd, path: &Path) -> io::Result<Option<u64>> {
    let stx = ask(dir, path, STATX_MNT_ID_UNIQUE)?;
    let is_known = stx.stx_mask & STATX_MNT_ID_UNIQUE != 0 && is_mount_root(&stx) == Some(true);
    Ok(is_known.then_some(stx.stx_mnt_id))
}

fn ask(dir: impl AsFd, path: &Path, mask: libc::c_uint) -> io::Result<libc::statx> {
    let mut flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC;
    if path.as_os_str().is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    let dir = dir.as_fd().as_raw_fd();
    with_c_path(path, |path: &CStr| raw_statx(dir, path, flags, mask))
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
    checked(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    })?;

    // SAFETY: the handle was filled by the kernel, which only reads it here. The call returns a new
    // descriptor.
    unsafe {
        new_descriptor(libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_fd().as_raw_fd(),
            &raw mut handle,
            libc::O_PATH | libc::O_CLOEXEC,
        ))
    }
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

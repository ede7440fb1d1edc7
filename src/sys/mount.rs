//! The mount calls of Linux 5.2 and later, by file descriptor; `umount2(2)`.

use std::cell::OnceCell;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::NixPath;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::fchdir;

use super::proc;
use super::result::{checked, new_descriptor};
use crate::base::Extent;

const MOVE_MOUNT_BENEATH: libc::c_uint = 0x200; // linux/mount.h, Linux 6.5
const SYS_OPEN_TREE_ATTR: libc::c_long = 467; // Linux 6.15; see `SYS_STATMOUNT`

/// `struct mount_attr` of `mount_setattr(2)`: the `MOUNT_ATTR_*` to set and to clear, and the
/// propagation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, or 0 to leave it.
    pub propagation: u64,
    /// The user namespace of an id-mapped mount; 0 here.
    pub userns_fd: u64,
}

fn open_tree(dir: RawFd, path: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: `path` is NUL-terminated and lives across the call; the kernel only reads it. It
    // returns a new descriptor.
    unsafe {
        new_descriptor(libc::syscall(
            libc::SYS_open_tree,
            dir,
            path.as_ptr(),
            flags,
        ))
    }
}

const CLONE: libc::c_uint =
    libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;

fn at_recursive(extent: Extent) -> libc::c_int {
    match extent {
        Extent::Mount => 0,
        Extent::Tree => libc::AT_RECURSIVE,
    }
}

/// Makes a detached copy of the mount that `source` is on, with `source` as its root, and of the
/// mounts in `extent`: `open_tree(2)` with `OPEN_TREE_CLONE` (Linux 5.2; for a detached mount since
/// 6.15).
pub fn clone_mount(source: impl AsFd, extent: Extent) -> io::Result<OwnedFd> {
    let flags = CLONE | at_recursive(extent) as libc::c_uint;
    open_tree(source.as_fd().as_raw_fd(), c"", flags)
}

/// Changes attributes of the mounts in `extent` of `mount`: `mount_setattr(2)` (Linux 5.12).
pub fn mount_setattr(mount: impl AsFd, extent: Extent, attr: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | at_recursive(extent);
    // SAFETY: `attr` is a valid `struct mount_attr` of the size given; the kernel only reads it.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

fn move_mount_flags(mount: RawFd, target: RawFd, flags: libc::c_uint) -> io::Result<()> {
    let flags = flags | libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are static and NUL-terminated; descriptors that are not open give EBADF.
    checked(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount,
            c"".as_ptr(),
            target,
            c"".as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Attaches the detached `mount` on `target`: `move_mount(2)` (Linux 5.2).
pub fn move_mount(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    move_mount_flags(mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd(), 0)
}

/// Attaches the detached `mount` beneath the topmost mount at `target`, where `target` must be the
/// root of that mount: `move_mount(2)` with `MOVE_MOUNT_BENEATH` (Linux 6.5).
pub fn move_mount_beneath(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    move_mount_flags(
        mount.as_fd().as_raw_fd(),
        target.as_fd().as_raw_fd(),
        MOVE_MOUNT_BENEATH,
    )
}

/// Calls `call` with `dir` as the working directory of this thread alone, and restores the previous
/// one. It is for calls that take no directory descriptor. (Through `/proc/self/fd` they take five
/// times as long.)
fn in_directory<T>(dir: BorrowedFd<'_>, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    thread_local! {
        static BEFORE: OnceCell<OwnedFd> = const { OnceCell::new() };
    }

    BEFORE.with(|before| {
        if before.get().is_none() {
            unshare(CloneFlags::CLONE_FS)?; // otherwise all threads would change
            let here = open(
                ".",
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            before.get_or_init(|| here);
        }

        fchdir(dir)?;
        let result = call();
        before.get().map_or(Ok(()), fchdir)?;
        result
    })
}

/// The fate of a mount that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfInUse {
    /// It stays: `EBUSY`.
    Fail,
    /// It leaves the tree now, and ends with its last user: `MNT_DETACH`, a lazy unmount.
    Detach,
}

/// Unmounts the topmost mount at `name` in the directory `dir`, without following a link:
/// `umount2(2)` with `UMOUNT_NOFOLLOW`.
pub fn umount(dir: impl AsFd, name: &Path, if_in_use: IfInUse) -> io::Result<()> {
    let lazily = match if_in_use {
        IfInUse::Fail => 0,
        IfInUse::Detach => libc::MNT_DETACH,
    };
    umount_in(dir.as_fd(), name, libc::UMOUNT_NOFOLLOW | lazily)
}

fn umount_in(dir: BorrowedFd<'_>, name: &Path, flags: libc::c_int) -> io::Result<()> {
    let call = |name: &CStr| {
        // SAFETY: `name` is NUL-terminated and lives across the call.
        in_directory(dir, || {
            checked(unsafe { libc::umount2(name.as_ptr(), flags) }).map(drop)
        })
    };
    name.with_nix_path(call)?
}

/// Detaches the topmost mount whose root or mount point is the open file `at`: `umount2(2)` with
/// `MNT_DETACH` through the descriptor itself. This works wherever the mount has been moved to.
pub fn umount_at(at: impl AsFd) -> io::Result<()> {
    let path = CString::new(proc::path_of_descriptor(&at).into_os_string().into_vec())?;
    // SAFETY: `path` is NUL-terminated and lives across the call.
    checked(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Asks whether any of the mounts at `names` in `dir` is in use, without unmounting it:
/// `umount2(2)` with `MNT_EXPIRE`. The first call only marks the mount, until something accesses
/// it. `Ok(true)`: one is in use, or something is mounted on it.
pub fn umount_expire_probe<'n>(
    dir: impl AsFd,
    names: impl IntoIterator<Item = &'n OsStr>,
) -> io::Result<bool> {
    in_directory(dir.as_fd(), || {
        for name in names {
            if name.with_nix_path(is_busy)?? {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Asks whether the mount at `name` in the working directory is in use.
fn is_busy(name: &CStr) -> io::Result<bool> {
    let flags = libc::UMOUNT_NOFOLLOW | libc::MNT_EXPIRE;
    // SAFETY: `name` is NUL-terminated and lives across the call.
    match checked(unsafe { libc::umount2(name.as_ptr(), flags) }) {
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(true),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other(
            "the mount was already marked and is now unmounted",
        )),
    }
}

/// Finds which of the newer calls this kernel (and its seccomp filter) permits. Each probe passes
/// arguments that a kernel with the call refuses in a known way, so nothing happens.
pub mod probe {
    use super::super::result::checked;
    use super::super::statmount::{SYS_LISTMOUNT, SYS_STATMOUNT};
    use super::{MOVE_MOUNT_BENEATH, SYS_OPEN_TREE_ATTR, move_mount_flags};

    fn errno(result: libc::c_long) -> Option<i32> {
        checked(result).err()?.raw_os_error()
    }

    /// `openat2(2)`, Linux 5.6.
    pub fn openat2() -> bool {
        // SAFETY: the null `how` with size 0 is refused with EINVAL before it is read.
        errno(unsafe { libc::syscall(libc::SYS_openat2, -1, c"".as_ptr(), 0, 0) })
            == Some(libc::EINVAL)
    }

    /// `mount_setattr(2)`, Linux 5.12.
    pub fn mount_setattr() -> bool {
        // SAFETY: the null attr with size 0 is refused with EINVAL before it is read.
        errno(unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, 0, 0) })
            == Some(libc::EINVAL)
    }

    /// `MOVE_MOUNT_BENEATH`, Linux 6.5: a kernel without it returns EINVAL, one with it EBADF.
    pub fn move_mount_beneath() -> bool {
        let refused = move_mount_flags(-1, -1, MOVE_MOUNT_BENEATH);
        refused.is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
    }

    /// `statmount(2)` and `listmount(2)`, Linux 6.8.
    pub fn statmount() -> bool {
        [SYS_STATMOUNT, SYS_LISTMOUNT].iter().all(|call| {
            // SAFETY: the null request is refused with EFAULT.
            errno(unsafe { libc::syscall(*call, 0, 0, 0, 0, 0) }) == Some(libc::EFAULT)
        })
    }

    /// `open_tree_attr(2)`, Linux 6.15: kernels that have it also clone detached mounts.
    pub fn clone_detached() -> bool {
        // SAFETY: the descriptor -1 is refused with EBADF; the null attr has size 0.
        errno(unsafe {
            libc::syscall(
                SYS_OPEN_TREE_ATTR,
                -1,
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                0,
                0,
            )
        }) == Some(libc::EBADF)
    }
}

//! Finds facts about files: `statx(2)`.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::file::{FileId, FileKind};
use super::proc;

pub(super) const STATX_MNT_ID_UNIQUE: u32 = 0x4000; // linux/stat.h, Linux 6.8

/// The answer of `statx(2)` about one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device and inode.
    pub file: FileId,
    /// The type of the file.
    pub kind: FileKind,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// The time when it was made, in nanoseconds since 1970 (`STATX_BTIME`); `None` if the file
    /// system does not record it.
    pub born: Option<i64>,
    /// The mount that it is on: the unique mount ID (Linux 6.8), else the id of mountinfo (5.8);
    /// `None` before.
    pub mount_id: Option<u64>,
    /// Whether `mount_id` is the unique one.
    pub mount_id_is_unique: bool,
    /// Whether it is the root of a mount (5.8); `None` if the kernel does not report it.
    pub mount_root: Option<bool>,
}

impl Stat {
    /// The unique ID of the mount that it is on; `None` if the kernel has none (before Linux 6.8).
    pub fn unique_mount_id(&self) -> Option<u64> {
        if self.mount_id_is_unique {
            self.mount_id
        } else {
            None
        }
    }

    /// Whether this is on the same mount as `other`; before Linux 5.8: on the same file system.
    pub fn is_on_mount_of(&self, other: &Self) -> bool {
        match (self.mount_id, other.mount_id) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.file.dev == other.file.dev,
        }
    }
}

fn statx(dir: libc::c_int, path: &CStr, flags: libc::c_int) -> io::Result<Stat> {
    let mask =
        libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
    let flags = flags | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let stx = raw_statx(dir, path, flags, mask)?;
    let mode = u32::from(stx.stx_mode);
    let unique = stx.stx_mask & STATX_MNT_ID_UNIQUE != 0;
    Ok(Stat {
        file: file_id(&stx),
        kind: FileKind::from_mode(mode)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?,
        mode,
        uid: stx.stx_uid,
        gid: stx.stx_gid,
        size: stx.stx_size,
        born: (stx.stx_mask & libc::STATX_BTIME != 0).then(|| nanoseconds(&stx.stx_btime)),
        mount_id: (unique || stx.stx_mask & libc::STATX_MNT_ID != 0).then_some(stx.stx_mnt_id),
        mount_id_is_unique: unique,
        mount_root: is_mount_root(&stx),
    })
}

fn file_id(stx: &libc::statx) -> FileId {
    FileId {
        dev: device(stx),
        ino: stx.stx_ino,
    }
}

pub(super) fn device(stx: &libc::statx) -> u64 {
    libc::makedev(stx.stx_dev_major, stx.stx_dev_minor)
}

/// Whether the file is the root of a mount; `None` before Linux 5.8.
pub(super) fn is_mount_root(stx: &libc::statx) -> Option<bool> {
    let bit = libc::STATX_ATTR_MOUNT_ROOT as u64;
    (stx.stx_attributes_mask & bit != 0).then_some(stx.stx_attributes & bit != 0)
}

pub(super) fn raw_statx(
    dir: libc::c_int,
    path: &CStr,
    flags: libc::c_int,
    mask: libc::c_uint,
) -> io::Result<libc::statx> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` is NUL-terminated; `buffer` has room for a `struct statx`, which the kernel
    // fills.
    if unsafe { libc::statx(dir, path.as_ptr(), flags, mask, buffer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed at first and filled by the successful call; every bit pattern is valid.
    Ok(unsafe { buffer.assume_init() })
}

fn nanoseconds(time: &libc::statx_timestamp) -> i64 {
    time.tv_sec
        .wrapping_mul(1_000_000_000)
        .wrapping_add(i64::from(time.tv_nsec))
}

/// Calls `call` with `path` as the kernel takes it; a short path is kept on the stack.
///
/// Errors: EINVAL for a NUL byte, ENAMETOOLONG.
pub(super) fn with_c_path<T>(
    path: &Path,
    call: impl FnOnce(&CStr) -> io::Result<T>,
) -> io::Result<T> {
    path.with_nix_path(call)?
}

/// Calls `statx(2)` for `path` from the directory `dir`. A link at the end is not followed; links
/// on the way are.
pub fn stat_at(dir: impl AsFd, path: &Path) -> io::Result<Stat> {
    with_c_path(path, |path| statx(dir.as_fd().as_raw_fd(), path, 0))
}

/// The file at `path` from the directory `dir`, and, if it is a link, where that leads. Both are of
/// the same file, even if `path` is replaced at this moment.
pub fn entry_at(dir: impl AsFd, path: &Path) -> io::Result<(Stat, Option<PathBuf>)> {
    let stat = stat_at(&dir, path)?;
    if stat.kind != FileKind::Symlink {
        return Ok((stat, None));
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(&dir, path, flags, Mode::empty())?;
    let stat = stat_fd(&file)?;
    let link = match stat.kind {
        FileKind::Symlink => Some(readlinkat(&file, "")?.into()), // Linux 2.6.39
        _ => None,
    };
    Ok((stat, link))
}

/// Returns which file is at `path`, with all links followed, as the kernel already knows it:
/// `statx(2)` with `AT_STATX_DONT_SYNC`, so that no server is asked for the file itself.
pub fn file_known_at(path: &Path) -> io::Result<FileId> {
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    let ask = |path: &CStr| raw_statx(libc::AT_FDCWD, path, flags, libc::STATX_INO);
    Ok(file_id(&with_c_path(path, ask)?))
}

/// Calls `statx(2)` for an open file, also one opened with `O_PATH`. Before Linux 5.8 the mount id
/// comes from `/proc/self/fdinfo`.
pub fn stat_fd(fd: impl AsFd) -> io::Result<Stat> {
    let stat = statx(fd.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
    let mount_id = stat.mount_id.or_else(|| mount_id_in_table(fd).ok());
    Ok(Stat { mount_id, ..stat })
}

/// Whether nothing can be made or removed in the open directory, because it has the attribute `i`
/// of `chattr(1)`: `STATX_ATTR_IMMUTABLE` of `statx(2)`. File systems without the attribute have
/// none that is.
pub fn is_immutable(directory: impl AsFd) -> io::Result<bool> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let stx = raw_statx(directory.as_fd().as_raw_fd(), c"", flags, 0)?;
    let bit = libc::STATX_ATTR_IMMUTABLE as u64;
    Ok(stx.stx_attributes & stx.stx_attributes_mask & bit != 0)
}

/// Returns the id in `/proc/self/mountinfo` of the mount that an open file is on: `mnt_id` of
/// `/proc/self/fdinfo` (Linux 3.15).
pub fn mount_id_in_table(fd: impl AsFd) -> io::Result<u64> {
    let info = proc::descriptor_info(fd.as_fd().as_raw_fd())?;
    let id = info.get("mnt_id").and_then(|id| id.parse().ok());
    id.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// As [`stat_fd`], but with what the kernel already knows: a network file system does not ask its
/// server (`AT_STATX_DONT_SYNC`).
pub fn stat_fd_unsynced(fd: impl AsFd) -> io::Result<Stat> {
    statx(
        fd.as_fd().as_raw_fd(),
        c"",
        libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn an_entry_that_is_replaced_is_seen_as_one_file_or_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let is_over = AtomicBool::new(false);
        let flip = || {
            while !is_over.load(Ordering::Relaxed) {
                fs::write(path("new"), "text").unwrap();
                fs::rename(path("new"), path("it")).unwrap();
                symlink("elsewhere", path("new")).unwrap();
                fs::rename(path("new"), path("it")).unwrap();
            }
        };
        fs::write(path("it"), "text").unwrap();
        let directory = fs::File::open(dir.path()).unwrap();

        std::thread::scope(|scope| {
            scope.spawn(flip);
            let (mut links, mut files) = (0, 0);
            while links < 100 || files < 100 {
                let (stat, link) = entry_at(&directory, Path::new("it")).unwrap();
                if let Some(link) = link {
                    assert_eq!((stat.kind, link), (FileKind::Symlink, "elsewhere".into()));
                    links += 1;
                } else {
                    assert_eq!((stat.kind, stat.size), (FileKind::File, 4));
                    files += 1;
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}

//! Opens files and finds facts about files and mounts: `openat2(2)`, `statx(2)`, `statmount(2)`,
//! `listmount(2)`.

use std::ffi::{CStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::file::{FileId, FileKind};
use super::proc;

// Linux 6.8. The numbers are the same on every architecture that Rust supports except mips, where
// they are not system calls (ENOSYS).
pub(super) const SYS_STATMOUNT: libc::c_long = 457;
pub(super) const SYS_LISTMOUNT: libc::c_long = 458;
const LSMT_ROOT: u64 = u64::MAX; // linux/mount.h
const STATX_MNT_ID_UNIQUE: u32 = 0x4000; // linux/stat.h, Linux 6.8

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
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` is NUL-terminated; `buffer` has room for a `struct statx`, which the kernel
    // fills.
    if unsafe { libc::statx(dir, path.as_ptr(), flags, mask, buffer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }

    // SAFETY: zeroed at first and filled by the successful call; every bit pattern is valid.
    let stx = unsafe { buffer.assume_init() };
    let mode = u32::from(stx.stx_mode);
    let unique = stx.stx_mask & STATX_MNT_ID_UNIQUE != 0;
    let root_bit = libc::STATX_ATTR_MOUNT_ROOT as u64;
    Ok(Stat {
        file: FileId {
            dev: libc::makedev(stx.stx_dev_major, stx.stx_dev_minor),
            ino: stx.stx_ino,
        },
        kind: FileKind::from_mode(mode)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?,
        mode,
        uid: stx.stx_uid,
        gid: stx.stx_gid,
        size: stx.stx_size,
        born: (stx.stx_mask & libc::STATX_BTIME != 0).then(|| nanoseconds(&stx.stx_btime)),
        mount_id: (unique || stx.stx_mask & libc::STATX_MNT_ID != 0).then_some(stx.stx_mnt_id),
        mount_id_is_unique: unique,
        mount_root: (stx.stx_attributes_mask & root_bit != 0)
            .then_some(stx.stx_attributes & root_bit != 0),
    })
}

fn nanoseconds(time: &libc::statx_timestamp) -> i64 {
    time.tv_sec
        .wrapping_mul(1_000_000_000)
        .wrapping_add(i64::from(time.tv_nsec))
}

/// Calls `call` with `path` as the kernel takes it; a short path is kept on the stack.
///
/// Errors: EINVAL for a NUL byte, ENAMETOOLONG.
fn with_c_path<T>(path: &Path, call: impl FnOnce(&CStr) -> io::Result<T>) -> io::Result<T> {
    path.with_nix_path(call)?
}

/// Calls `statx(2)` for `path` from the directory `dir`. A link at the end is not followed; links
/// on the way are.
pub fn stat_at(dir: impl AsFd, path: &Path) -> io::Result<Stat> {
    with_c_path(path, |path| statx(dir.as_fd().as_raw_fd(), path, 0))
}

/// What is at `path` from the directory `dir`, and, if it is a link, where that leads. Both are of
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
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    with_c_path(path, |path| {
        // SAFETY: `path` is NUL-terminated; `buffer` has room for a `struct statx`, which the
        // kernel fills.
        match unsafe {
            libc::statx(
                libc::AT_FDCWD,
                path.as_ptr(),
                flags,
                libc::STATX_INO,
                buffer.as_mut_ptr(),
            )
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })?;

    // SAFETY: zeroed at first and filled by the successful call; every bit pattern is valid.
    let stx = unsafe { buffer.assume_init() };
    Ok(FileId {
        dev: libc::makedev(stx.stx_dev_major, stx.stx_dev_minor),
        ino: stx.stx_ino,
    })
}

/// Calls `statx(2)` for an open file, also one opened with `O_PATH`. Before Linux 5.8 the mount id
/// comes from `/proc/self/fdinfo`.
pub fn stat_fd(fd: impl AsFd) -> io::Result<Stat> {
    let stat = statx(fd.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH)?;
    let mount_id = stat.mount_id.or_else(|| mount_id_in_table(fd).ok());
    Ok(Stat { mount_id, ..stat })
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

/// Opens `path` beneath the directory `root` with `flags` (`O_CLOEXEC` is added). No component,
/// including the last one, may be a link or lead out: `openat2(2)` with `RESOLVE_BENEATH |
/// RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS` (Linux 5.6). Without that call, and for a path
/// longer than `PATH_MAX`, it walks with `openat(O_PATH | O_NOFOLLOW)`.
///
/// Errors: ELOOP for a link, ENOENT, ENOTDIR, EACCES.
pub fn open_beneath(root: impl AsFd, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    let flags = flags | libc::O_CLOEXEC;
    match with_c_path(path, |path| openat2(root.as_raw_fd(), path, flags, BENEATH)) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOSYS | libc::ENAMETOOLONG)
            ) =>
        {
            walk_beneath(root.as_raw_fd(), path, flags)
        }
        result => result,
    }
}

/// Opens an absolute path of the host in which no component is a link. Otherwise as
/// [`open_beneath`].
pub fn open_host(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let slash = open_at(
        libc::AT_FDCWD,
        c"/",
        libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
    )?;
    let relative = match path.strip_prefix("/").unwrap_or(path) {
        empty if empty.as_os_str().is_empty() => Path::new("."),
        relative => relative,
    };
    open_beneath(slash, relative, flags)
}

/// Opens `name` in the directory `dir` with `flags` (`O_CLOEXEC` is added), if it is not a link and
/// is on the same mount as `dir`: as [`open_beneath`], with `RESOLVE_NO_XDEV`.
///
/// Errors: EXDEV if something is mounted on it; ELOOP for a link; ENOENT.
pub fn open_unmounted(dir: impl AsFd, name: &Path, flags: i32) -> io::Result<OwnedFd> {
    let dir = dir.as_fd();
    let flags = flags | libc::O_CLOEXEC;
    match with_c_path(name, |name| {
        openat2(
            dir.as_raw_fd(),
            name,
            flags,
            BENEATH | libc::RESOLVE_NO_XDEV,
        )
    }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let found = walk_beneath(dir.as_raw_fd(), name, flags)?;
            let same_mount = stat_fd(&found)?.mount_id == stat_fd(dir)?.mount_id;
            if same_mount {
                Ok(found)
            } else {
                Err(io::Error::from_raw_os_error(libc::EXDEV))
            }
        }
        result => result,
    }
}

const BENEATH: u64 =
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

fn openat2(dir: libc::c_int, path: &CStr, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    // SAFETY: `open_how` is plain integers, for which zero is valid.
    let mut how = unsafe { MaybeUninit::<libc::open_how>::zeroed().assume_init() };
    how.flags = flags as u64;
    how.resolve = resolve;
    loop {
        // SAFETY: `path` is NUL-terminated and `how` is a valid `struct open_how` of the size
        // given.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir,
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        if fd >= 0 {
            // SAFETY: a new descriptor that nothing else owns.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        }
        let error = io::Error::last_os_error();
        // A rename elsewhere raced with the walk. The manual page openat2(2) says to try again on
        // EAGAIN.
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) {
            return Err(error);
        }
    }
}

fn open_at(dir: libc::c_int, name: &CStr, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: `name` is NUL-terminated.
    let fd = unsafe { libc::openat(dir, name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Keeps the promise of openat2 without that call: opens one component at a time with `O_NOFOLLOW`,
/// each from the one before.
fn walk_beneath(root: libc::c_int, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let on_the_way = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut names = path
        .components()
        .filter(|component| *component != std::path::Component::CurDir)
        .peekable();

    let mut at = open_at(root, c".", on_the_way)?;
    while let Some(component) = names.next() {
        let std::path::Component::Normal(name) = component else {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        };
        let flags = if names.peek().is_none() {
            flags | libc::O_NOFOLLOW
        } else {
            on_the_way
        };
        let next = with_c_path(Path::new(name), |name| open_at(at.as_raw_fd(), name, flags))?;
        if stat_fd(&next)?.kind == FileKind::Symlink {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        at = next;
    }
    Ok(at)
}

/// The answer of `statmount(2)` (Linux 6.8) about one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatMount {
    /// The device of its file system, as in `/proc/self/mountinfo`; on btrfs this is not `st_dev`.
    pub device: u64,
    /// Whether its file system is served by a process, which can show anything there.
    pub fuse: bool,
    /// The id in `/proc/self/mountinfo`.
    pub id: u64,
    /// The unique mount ID of the mount it is attached to.
    pub parent: u64,
    /// That mount's id in `/proc/self/mountinfo`.
    pub parent_in_mountinfo: u64,
    /// `MOUNT_ATTR_*`.
    pub attributes: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`.
    pub propagation: u64,
    /// The peer group that it is in, if it is shared: `shared:N` in `/proc/self/mountinfo`.
    pub peer_group: Option<u64>,
    /// The peer group that it is a slave of: `master:N`.
    pub master: Option<u64>,
    /// The path of its root within its file system; empty if `point` is.
    pub root: PathBuf,
    /// The mount point, from the root directory of this process. It is empty, that is, unknown, if
    /// it is longer than about 8 KiB, for example after somebody moved a directory on the way.
    pub point: PathBuf,
}

#[repr(C)]
struct MntIdReq {
    size: u32,
    spare: u32,
    mnt_id: u64,
    param: u64,
}

const FUSE_SUPER_MAGIC: u64 = 0x6573_5546; // linux/magic.h
const STATMOUNT_SB_BASIC: u64 = 0x1;
const STATMOUNT_MNT_BASIC: u64 = 0x2;
const STATMOUNT_MNT_ROOT: u64 = 0x8;
const STATMOUNT_MNT_POINT: u64 = 0x10;

/// The usual room for the paths of a mount.
const USUAL_ROOM: usize = 8704;
/// The room for the longest path that is requested. The kernel has no limit, and the owner of a
/// directory can make the paths in it as long as he likes.
const MAX_ROOM: usize = 1 << 20;

/// `struct statmount`, without the strings that follow it.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawStatMount {
    size: u32,
    mnt_opts: u32,
    mask: u64,
    sb_dev_major: u32,
    sb_dev_minor: u32,
    sb_magic: u64,
    sb_flags: u32,
    fs_type: u32,
    mnt_id: u64,
    mnt_parent_id: u64,
    mnt_id_old: u32,
    mnt_parent_id_old: u32,
    mnt_attr: u64,
    mnt_propagation: u64,
    mnt_peer_group: u64,
    mnt_master: u64,
    propagate_from: u64,
    mnt_root: u32,
    mnt_point: u32,
    rest: [u64; 50],
}

const _: () = assert!(size_of::<RawStatMount>() == 512);

/// An answer of `statmount(2)`: the structure, followed by its strings.
struct Answer(Vec<u64>);

impl Answer {
    /// Calls `statmount(2)` with room for strings of `room` bytes.
    ///
    /// Errors: EOVERFLOW if that is too little.
    fn of(unique_id: u64, mask: u64, room: usize) -> io::Result<Self> {
        let request = MntIdReq {
            size: 24,
            spare: 0,
            mnt_id: unique_id,
            param: mask,
        };
        let mut buffer = vec![0u64; (size_of::<RawStatMount>() + room).div_ceil(size_of::<u64>())];
        let size = size_of_val(buffer.as_slice());
        // SAFETY: the request has the size that it claims (MNT_ID_REQ_SIZE_VER0). The kernel writes
        // at most the size of the buffer into it.
        let result = unsafe {
            libc::syscall(
                SYS_STATMOUNT,
                &raw const request,
                buffer.as_mut_ptr(),
                size,
                0,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(buffer))
    }

    fn fixed(&self) -> &RawStatMount {
        // SAFETY: `of` made the buffer longer than the structure, aligned to its widest field, and
        // initialised. Every bit pattern is valid for plain integers.
        unsafe { &*self.0.as_ptr().cast() }
    }

    fn text(&self, offset: u32) -> PathBuf {
        // SAFETY: any initialised memory is bytes.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), size_of_val(self.0.as_slice()))
        };
        let bytes = bytes
            .get(size_of::<RawStatMount>() + offset as usize..)
            .unwrap_or_default();
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        PathBuf::from(OsString::from_vec(bytes[..end].to_vec()))
    }
}

fn is_overflow<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EOVERFLOW))
}

/// Calls `statmount(2)` for the mount with the unique ID `unique_id`.
///
/// Errors: ENOENT if there is no such mount in this namespace; ENOSYS before Linux 6.8.
pub fn stat_mount(unique_id: u64) -> io::Result<StatMount> {
    let paths = STATMOUNT_MNT_ROOT | STATMOUNT_MNT_POINT;
    let numbers = STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC;

    let mut answer = Answer::of(unique_id, numbers | paths, USUAL_ROOM);
    let has_paths = !is_overflow(&answer);
    if !has_paths {
        answer = Answer::of(unique_id, numbers, 0);
    }
    let answer = answer?;

    let raw = answer.fixed();
    let some = |group| Some(group).filter(|group| *group != 0);
    let text = |offset| {
        if has_paths {
            answer.text(offset)
        } else {
            PathBuf::new()
        }
    };
    Ok(StatMount {
        device: libc::makedev(raw.sb_dev_major, raw.sb_dev_minor),
        fuse: raw.sb_magic == FUSE_SUPER_MAGIC,
        id: u64::from(raw.mnt_id_old),
        parent: raw.mnt_parent_id,
        parent_in_mountinfo: u64::from(raw.mnt_parent_id_old),
        attributes: raw.mnt_attr,
        propagation: raw.mnt_propagation,
        peer_group: some(raw.mnt_peer_group),
        master: some(raw.mnt_master),
        root: text(raw.mnt_root),
        point: text(raw.mnt_point),
    })
}

/// The part of the answer of `statmount(2)` that walks no path. Walking paths takes most of its
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountOutline {
    /// As [`StatMount::device`].
    pub device: u64,
    /// The type of its file system, as in `statfs(2)`.
    pub magic: u64,
    /// The id in `/proc/self/mountinfo`.
    pub id: u64,
    /// The unique mount ID of the mount it is attached to.
    pub parent: u64,
    /// `MOUNT_ATTR_*`.
    pub attributes: u64,
    /// The peer group that it is a slave of.
    pub master: Option<u64>,
}

/// Returns the outline of the mount with the unique ID `unique_id`.
///
/// Errors: as [`stat_mount`].
pub fn mount_outline(unique_id: u64) -> io::Result<MountOutline> {
    let answer = Answer::of(unique_id, STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC, 0)?;
    let raw = answer.fixed();
    Ok(MountOutline {
        device: libc::makedev(raw.sb_dev_major, raw.sb_dev_minor),
        magic: raw.sb_magic,
        id: u64::from(raw.mnt_id_old),
        parent: raw.mnt_parent_id,
        attributes: raw.mnt_attr,
        master: Some(raw.mnt_master).filter(|group| *group != 0),
    })
}

/// Returns the mount point of the mount with the unique ID `unique_id`, from the root
/// directory of this process.
///
/// Errors: as [`stat_mount`]; EOVERFLOW if the path is longer than 1 MiB.
pub fn mount_point(unique_id: u64) -> io::Result<PathBuf> {
    let mut room = USUAL_ROOM;
    loop {
        let answer = Answer::of(unique_id, STATMOUNT_MNT_POINT, room);
        if !is_overflow(&answer) || room >= MAX_ROOM {
            return answer.map(|answer| answer.text(answer.fixed().mnt_point));
        }
        room *= 2;
    }
}

/// Whether a mount with the unique mount ID `unique_id` exists in this namespace. A mount that
/// could not be asked about may exist. If the kernel or a seccomp filter does not permit
/// `statmount(2)` at all, ids say nothing, and the answer is no.
pub fn mount_exists(unique_id: u64) -> bool {
    match Answer::of(unique_id, STATMOUNT_MNT_BASIC, 0) {
        Ok(_) => true,
        Err(error) => !matches!(
            error.raw_os_error(),
            Some(libc::ENOENT | libc::ENOSYS | libc::EPERM)
        ),
    }
}

/// Lists the unique mount IDs of all mounts below the root directory of this process, at any depth,
/// without the mount that it is on: `listmount(2)` with `LSMT_ROOT` (Linux 6.8).
pub fn list_mounts() -> io::Result<Vec<u64>> {
    list_mounts_in(LSMT_ROOT)
}

/// Lists the unique mount IDs of all mounts in the mount with the unique ID `unique_id`, at
/// any depth: `listmount(2)` (Linux 6.8). The kernel examines every mount of the namespace for
/// this.
pub fn list_mounts_in(unique_id: u64) -> io::Result<Vec<u64>> {
    list_newer_mounts_in(unique_id, 0)
}

/// As [`list_mounts_in`], but only those with higher ids than `newest`, which are younger. The
/// kernel examines only younger mounts.
pub fn list_newer_mounts_in(unique_id: u64, newest: u64) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    let mut chunk = vec![0u64; if newest == 0 { 4096 } else { 16 }];
    loop {
        let last = ids.last().copied().unwrap_or(newest);
        let request = MntIdReq {
            size: 24,
            spare: 0,
            mnt_id: unique_id,
            param: last,
        };
        // SAFETY: the request has the size that it claims. The kernel writes at most `chunk.len()`
        // ids.
        let count = unsafe {
            libc::syscall(
                SYS_LISTMOUNT,
                &raw const request,
                chunk.as_mut_ptr(),
                chunk.len(),
                0,
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;

        ids.extend_from_slice(&chunk[..count]);
        if count < chunk.len() {
            return Ok(ids);
        }
    }
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

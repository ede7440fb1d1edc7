//! Finds facts about mounts by their unique mount IDs: `statmount(2)`, `listmount(2)`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::result::checked;

// Linux 6.8. The numbers are the same on every architecture that Rust supports except mips, where
// they are not system calls (ENOSYS).
pub(super) const SYS_STATMOUNT: libc::c_long = 457;
pub(super) const SYS_LISTMOUNT: libc::c_long = 458;
const LSMT_ROOT: u64 = u64::MAX; // linux/mount.h

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

impl MntIdReq {
    /// A request of the first size, `MNT_ID_REQ_SIZE_VER0`.
    fn new(mnt_id: u64, param: u64) -> Self {
        Self {
            size: 24,
            spare: 0,
            mnt_id,
            param,
        }
    }
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
struct MountReply(Vec<u64>);

impl MountReply {
    /// Calls `statmount(2)` with room for strings of `room` bytes.
    ///
    /// Errors: EOVERFLOW if that is too little.
    fn of(unique_id: u64, mask: u64, room: usize) -> io::Result<Self> {
        let mut buffer = vec![0u64; (size_of::<RawStatMount>() + room).div_ceil(size_of::<u64>())];
        ask(unique_id, mask, &mut buffer)?;
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

/// Calls `statmount(2)`, whose answer is written to `buffer`.
fn ask(unique_id: u64, mask: u64, buffer: &mut [u64]) -> io::Result<()> {
    let request = MntIdReq::new(unique_id, mask);
    // SAFETY: the request has the size that it claims. The kernel writes at most the size of the
    // buffer into it.
    checked(unsafe {
        libc::syscall(
            SYS_STATMOUNT,
            &raw const request,
            buffer.as_mut_ptr(),
            size_of_val(buffer),
            0,
        )
    })
    .map(drop)
}

/// The part of the answer of `statmount(2)` without strings.
fn ask_for_numbers(unique_id: u64, mask: u64) -> io::Result<RawStatMount> {
    let mut buffer = [0u64; size_of::<RawStatMount>() / size_of::<u64>()];
    ask(unique_id, mask, &mut buffer)?;
    // SAFETY: the buffer is as long as the structure, whose fields are plain integers.
    Ok(unsafe { std::mem::transmute::<[u64; 64], RawStatMount>(buffer) })
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

    let mut answer = MountReply::of(unique_id, numbers | paths, USUAL_ROOM);
    let has_paths = !is_overflow(&answer);
    if !has_paths {
        answer = MountReply::of(unique_id, numbers, 0);
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
    /// It is in a peer group (`mount_namespaces(7)`).
    pub shared: bool,
    /// The peer group that it is a slave of.
    pub master: Option<u64>,
}

/// Returns the outline of the mount with the unique ID `unique_id`.
///
/// Errors: as [`stat_mount`].
pub fn mount_outline(unique_id: u64) -> io::Result<MountOutline> {
    let raw = ask_for_numbers(unique_id, STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC)?;
    Ok(MountOutline {
        device: libc::makedev(raw.sb_dev_major, raw.sb_dev_minor),
        magic: raw.sb_magic,
        id: u64::from(raw.mnt_id_old),
        parent: raw.mnt_parent_id,
        attributes: raw.mnt_attr,
        shared: raw.mnt_peer_group != 0,
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
        let answer = MountReply::of(unique_id, STATMOUNT_MNT_POINT, room);
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
    match ask_for_numbers(unique_id, STATMOUNT_MNT_BASIC) {
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

/// As [`list_mounts`], but only those with higher ids than `newest`, which are younger.
pub fn list_newer_mounts(newest: u64) -> io::Result<Vec<u64>> {
    list_newer_mounts_in(LSMT_ROOT, newest)
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
        let some = list_some(unique_id, last, &mut chunk)?;
        ids.extend_from_slice(some);
        if some.len() < chunk.len() {
            return Ok(ids);
        }
    }
}

/// As [`list_newer_mounts_in`], but no more than `count`, those with the lowest ids. The kernel
/// examines none after these.
pub fn list_some_mounts_in(unique_id: u64, newest: u64, count: usize) -> io::Result<Vec<u64>> {
    let mut ids = vec![0u64; count];
    let found = list_some(unique_id, newest, &mut ids)?.len();
    ids.truncate(found);
    Ok(ids)
}

/// Lists the next mounts after the id `last` in the one with the unique ID `unique_id`, as many as
/// `chunk` has room for.
fn list_some(unique_id: u64, last: u64, chunk: &mut [u64]) -> io::Result<&[u64]> {
    let request = MntIdReq::new(unique_id, last);
    // SAFETY: the request has the size that it claims. The kernel writes at most `chunk.len()` ids.
    let count = checked(unsafe {
        libc::syscall(
            SYS_LISTMOUNT,
            &raw const request,
            chunk.as_mut_ptr(),
            chunk.len(),
            0,
        )
    })? as usize;
    Ok(&chunk[..count])
}

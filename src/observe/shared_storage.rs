//! Whether the file system of a root is one that several hosts mount.

use std::io;

use super::namespace::Namespace;
use crate::Result;
use crate::base::HostPath;
use crate::sys;

/// The type of the file system that `root` is on, if other hosts may also have it mounted, as with
/// NFS.
///
/// Errors: this process's own table of mounts cannot be read.
pub fn shared_storage(root: &HostPath) -> Result<Option<String>> {
    if is_on_local_storage(root).unwrap_or(false) {
        return Ok(None);
    }
    let table = Namespace::own()?;
    match table.mount_of(root.as_path()) {
        Some(line) if SHARED_TYPES.contains(&line.kind.as_str()) => Ok(Some(line.kind.clone())),
        _ => Ok(None),
    }
}

/// Whether statmount(2) reports that `root` is on a type of file system that no other kernel mounts
/// at the same time.
fn is_on_local_storage(root: &HostPath) -> io::Result<bool> {
    let root = sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY)?;
    let stat = sys::stat_fd_unsynced(root)?;
    let id = stat.unique_mount_id().ok_or(io::ErrorKind::Unsupported)?;
    let magic = sys::mount_outline(id)?.magic;
    Ok(LOCAL_MAGICS.contains(&magic))
}

/// The magic numbers of such types, as in statfs(2): ext2 to ext4, XFS, btrfs, tmpfs, F2FS,
/// overlay, ZFS, bcachefs.
const LOCAL_MAGICS: [u64; 8] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0xf2f5_2010,
    0x794c_7630,
    0x2fc1_2fc1,
    0xca45_1a4e,
];

/// The types of file systems that several kernels may mount at once.
const SHARED_TYPES: [&str; 34] = [
    "9p",
    "acfs",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "fhgfs",
    "fuse.ceph-fuse",
    "fuse.gcsfuse",
    "fuse.glusterfs",
    "fuse.juicefs",
    "fuse.lizardfs",
    "fuse.mfs",
    "fuse.moosefs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.seaweedfs",
    "fuse.sshfs",
    "fuse.vmhgfs-fuse",
    "gfs2",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "prl_fs",
    "pvfs2",
    "smb3",
    "smbfs",
    "vboxsf",
    "virtiofs",
];

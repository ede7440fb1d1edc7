//! The remedies for the kernel's errors: one table.

use std::io;
use std::path::Path;

use super::quote::shell_path;

/// The command that unmounts what is at `point`, in which nothing is mounted.
pub(crate) fn unmount(point: impl AsRef<Path>) -> String {
    format!("`umount {}`", shell_path(point))
}

/// The command that unmounts what is at `point`, with all mounts in it. Without the first part, the
/// mounts in a recursive bind mount would also be unmounted at its source.
pub(crate) fn unmount_tree(point: impl AsRef<Path>) -> String {
    let point = shell_path(point);
    format!("`mount --make-rprivate {point} && umount -R {point}`")
}

/// `hint`, whose commands that mount and unmount are to be typed in the mount namespace of the
/// process `pid`: those of [`unmount`] and [`unmount_tree`].
pub(crate) fn inside(hint: &str, pid: u32) -> String {
    let mut hint = hint.to_owned();
    for before in ["`", "&& "] {
        for command in ["mount --make-rprivate ", "umount "] {
            let there = format!("{before}nsenter --target {pid} --mount -- {command}");
            hint = hint.replace(&format!("{before}{command}"), &there);
        }
    }
    hint
}

/// The command that makes a site's root, while it brings the site up.
pub(crate) const CREATE_ROOT: &str = "`mountjail up --create`";

/// The command that shows what stands in the way of a site.
pub(crate) fn adopt(site: impl std::fmt::Display) -> String {
    format!("`mountjail adopt {site}`")
}

/// `hint` about `site`, whose manifest is not yet in its `file`: it is being applied.
pub(crate) fn while_applied(hint: &str, site: impl std::fmt::Display, file: &Path) -> String {
    let hint = hint.replace(CREATE_ROOT, "`mountjail apply --create`");
    let adopt = adopt(site);
    if hint.contains(&adopt) {
        format!("write the manifest to {}; then {hint}", file.display())
    } else {
        hint
    }
}

/// The work that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Mounting a source on a target.
    Mounting,
    /// Making or changing a template: mounts, files beside them, and a mount namespace.
    MakingTemplates,
    /// Making a placeholder or a link in a root.
    Creating,
    /// Writing a record or a generated file.
    Recording,
    /// Replacing a file that others also write.
    Editing,
}

/// The hint about `errno`, where one helps.
pub(crate) fn hint(doing: Doing, errno: i32) -> Option<&'static str> {
    use Doing::{Creating, Editing, MakingTemplates, Mounting, Recording};
    Some(match (doing, errno) {
        (Mounting, libc::ENOSPC) => "the limit fs.mount-max is reached: see `sysctl fs.mount-max`",
        (MakingTemplates, libc::ENOSPC) => {
            "a limit is reached, or the disk is full: see `sysctl fs.mount-max \
             user.max_mnt_namespaces` and `df /run`"
        }
        (Mounting, libc::EPERM) => {
            "mountjail needs CAP_SYS_ADMIN in the host's mount namespace; run it as root"
        }
        (Mounting, libc::ENOENT) => {
            "one of them was removed or replaced meanwhile; run the command again"
        }
        (Mounting | Creating, libc::ELOOP | libc::ENOTDIR) => {
            "a symbolic link or a file is in its way; mountjail follows no link inside a root"
        }
        (Creating, libc::ENOSPC | libc::EDQUOT) => "make room on the disk that holds the root",
        (Creating, libc::EROFS) => {
            "the root is on a disk that is mounted read-only: `findmnt --target ROOT` names it"
        }
        (Creating, libc::EPERM) => {
            "is it, or its directory, immutable? see `lsattr -d`; file systems such as FAT have no \
             links"
        }
        (Creating, libc::EEXIST) => "it appeared while the command ran; run the command again",
        (Recording, libc::ENOSPC | libc::EDQUOT) => "make room on the disk that holds it",
        (Recording, libc::EROFS) => "the disk is mounted read-only; name another with --state-dir",
        (Editing, libc::ENOSPC | libc::EDQUOT) => "make room on its disk; the file is as it was",
        (Editing, libc::EROFS) => "its disk is mounted read-only; the file is as it was",
        (Editing, libc::EPERM) => "is it immutable? see `lsattr`; the file is as it was",
        (Editing, libc::EBUSY) => {
            "something is mounted on it, so it cannot be replaced; the file is as it was"
        }
        (Editing, libc::EAGAIN) => "run the command again; the file is as the other one wrote it",
        _ => return None,
    })
}

/// The hint about a limit of this process or the host, whatever was being done: no other helps.
pub(super) fn of_limit(errno: Option<i32>) -> Option<&'static str> {
    match errno? {
        libc::EMFILE => {
            Some("raise the limit: `LimitNOFILE=` of the service, `ulimit -n` in a shell")
        }
        libc::ENFILE => Some("raise the limit: `sysctl fs.file-max`"),
        libc::EFBIG => {
            Some("raise the limit: `LimitFSIZE=` of the service, `ulimit -f` in a shell")
        }
        _ => None,
    }
}

/// Whether the server of a file system is gone, or does not know the file any more.
pub(crate) fn is_server_gone(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::ENOTCONN | libc::ESTALE))
}

/// Whether nothing is at a path, or a link or a file is on the way.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
    )
}

/// The hint about a file system whose server is gone, where nothing more is known.
pub(super) fn of_server(errno: Option<i32>) -> Option<&'static str> {
    is_server_gone(errno).then_some(
        "the server of the file system there is gone: start it again, or unmount the file system \
         with `umount --lazy`; `findmnt --types fuse,nfs,nfs4,cifs` lists these",
    )
}

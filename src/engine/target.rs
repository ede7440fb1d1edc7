//! What `up` and `down` ask about a target, and say about it.

use std::io;
use std::path::Path;

use super::root::Root;
use crate::error::{Error, Result};
use crate::manifest::JailPath;
use crate::observe::{MadeKind, SeenMount, Stray};
use crate::resolve::FileKind;
use crate::sys::{self, Stat};

/// An error about `path` in the jail.
pub(super) fn cannot(root: &Root, what: &str, path: &JailPath, error: &io::Error) -> Error {
    Error::failed(format!("cannot {what} {}", root.path().inside(path))).because(error)
}

pub(super) fn made_kind(kind: FileKind) -> MadeKind {
    if kind == FileKind::Directory { MadeKind::Directory } else { MadeKind::File }
}

/// Whether the file `found` is the root of the mount `expected`.
pub(super) fn is_mount(expected: &SeenMount, found: &Stat) -> bool {
    let id = if found.mount_id_is_unique { expected.unique_id } else { Some(expected.id) };
    match (id, found.mount_id) {
        (Some(id), Some(found)) => id == found,
        // Before Linux 5.8 statx(2) has no mount id: the file that is visible is what can be compared.
        _ => expected.file.is_none_or(|file| file == found.file),
    }
}

/// Unmounts a mount of ours where it has been moved to. It may be moved again meanwhile: then it is found again.
pub(super) fn detach_stray(stray: &Stray) -> Result<()> {
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for _ in 0..100 {
        match sys::mount_point(stray.unique_id).and_then(|point| umount_if(&point, stray.unique_id)) {
            Ok(()) => return Ok(()),
            Err(_) if !sys::mount_exists(stray.unique_id) => return Ok(()), // it is gone
            Err(error) => last = error,
        }
        if last.raw_os_error() == Some(libc::EOVERFLOW) {
            last = io::Error::other("it is more than 1 MiB of path names deep");
            break;
        }
    }
    let (place, target) = (stray.place(), &stray.target);
    Err(Error::failed(format!("cannot detach what was moved away from {target} to {place}"))
        .because(&last)
        .hint(
            "something may be mounted over the root, which hides it (`findmnt`); or somebody moves the directories of \
             this root: find out who before trying again",
        ))
}

fn umount_if(point: &Path, unique_id: u64) -> io::Result<()> {
    let fd = sys::open_host(point, libc::O_PATH)?;
    let stat = sys::stat_fd(&fd)?;
    if stat.mount_id != Some(unique_id) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY)); // another mount is on top of it
    }
    sys::umount_at(fd)
}

/// Sentences about those of `paths` that are there: something may have been recorded twice by a crashed run,
/// once as what it is.
pub(super) fn still_there(root: &Root, paths: &[JailPath]) -> Vec<String> {
    let there = |path: &&JailPath| root.spot(path).and_then(|spot| spot.stat()).is_ok();
    let sentence =
        |path: &JailPath| format!("{} stays: it is no longer as mountjail made it", root.path().inside(path));
    paths.iter().filter(there).map(sentence).collect()
}

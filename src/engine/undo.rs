//! What takes a change back. Each change of `up` pushes one; a failing run applies them, last first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::backend::{Backend, Ready};
use super::journal::{self, Durability};
use super::root::{Root, Spot, proc_path};
use crate::error::{Error, Result};
use crate::manifest::{HostPath, JailPath};
use crate::observe::MadeKind;
use crate::sys::{self, FileId};

pub(super) enum Undo {
    /// A mount was attached on the open file `on`.
    Unmount { target: JailPath, on: OwnedFd },
    /// A mount was detached; `saved` is a copy of it.
    Reattach { target: JailPath, saved: Ready, recursive: bool },
    /// A mount was replaced; `saved` is a copy of the old one.
    SwapBack { target: JailPath, saved: Ready, recursive: bool },
    /// A mount was replaced whose file has been deleted: the kernel attaches no such mount again, so the new
    /// one stays.
    Stays { target: JailPath },
    /// A placeholder or link was made at `spot`, wherever that has been moved to since.
    Remove { path: JailPath, spot: Spot, kind: MadeKind, file: FileId },
    /// A placeholder or link was removed.
    Recreate { path: JailPath, kind: MadeKind },
    /// A generated file was written or removed; `old` is what it said before.
    Restore { path: HostPath, old: Option<Vec<u8>> },
}

impl Undo {
    /// Takes the change back; what was done, in words.
    pub(super) fn apply(self, backend: &dyn Backend, root: &Root) -> Result<String> {
        let (what, result) = match self {
            Self::Unmount { target, on } => (format!("detached {target}"), sys::umount_at(on)),
            Self::Reattach { target, saved, recursive } => {
                let result = reattach(backend, root, &target, &saved, recursive);
                (format!("attached {target} again"), result)
            }
            Self::SwapBack { target, saved, recursive } => {
                (format!("swapped {target} back"), swap_back(backend, root, &target, &saved, recursive))
            }
            Self::Stays { target } => (format!("left the new {target}: the old file is deleted"), Ok(())),
            Self::Remove { path, spot, kind, file } => {
                (format!("removed {path}"), spot.remove(&kind, Some(file)).map(drop))
            }
            Self::Recreate { path, kind } => {
                let result = root.spot(&path).and_then(|spot| spot.create(&kind)).map(drop);
                (format!("made {path} again"), result)
            }
            Self::Restore { path, old } => {
                let result = match old {
                    Some(old) => journal::replace(path.as_path(), &old, 0o644, Durability::Reboot),
                    None => journal::remove(path.as_path()),
                };
                return result.map(|()| format!("restored {path}"));
            }
        };
        match result {
            Ok(()) => Ok(what),
            Err(error) => {
                Err(Error::failed(format!("not undone, which would have been: {what}")).because(&error))
            }
        }
    }
}

/// A copy of the mount that the open file `top` is on, to attach again; `None`: its file has been deleted,
/// and the kernel attaches no mount of a deleted file (ENOENT).
pub(super) fn save(backend: &dyn Backend, top: &OwnedFd, recursive: bool) -> io::Result<Option<Ready>> {
    let shown = std::fs::read_link(proc_path(top))?;
    if shown.as_os_str().as_bytes().ends_with(b" (deleted)") {
        return Ok(None);
    }
    backend.save(top.as_fd(), recursive).map(Some)
}

fn reattach(
    backend: &dyn Backend,
    root: &Root,
    target: &JailPath,
    saved: &Ready,
    recursive: bool,
) -> io::Result<()> {
    backend.attach(saved, root.open_at(target)?.as_fd(), recursive)
}

fn swap_back(
    backend: &dyn Backend,
    root: &Root,
    target: &JailPath,
    saved: &Ready,
    recursive: bool,
) -> io::Result<()> {
    let current = save(backend, &root.open_at(target)?, recursive)?;
    swap(backend, root, target, saved, current.as_ref(), recursive).map(drop)
}

/// Replaces the topmost mount at `target`, of which `old` is a copy, by `new`: beneath it and the old one
/// off, so there is no moment without the file; where that cannot be done, off and on. Returns whether
/// there was a gap.
pub(super) fn swap(
    backend: &dyn Backend,
    root: &Root,
    target: &JailPath,
    new: &Ready,
    old: Option<&Ready>,
    recursive: bool,
) -> io::Result<bool> {
    let top = root.open_at(target)?;
    // Between the two calls the old mount is on the very file that the new one shows, and the kernel lets nobody
    // rename or remove a file that is mounted on: EBUSY, for whoever replaces it again just now.
    let swapped = sys::undisturbed(|| -> io::Result<bool> {
        if !backend.attach_beneath(new, top.as_fd())? {
            return Ok(false);
        }
        // The new one can go no more without the old one, so there is one way to be whole: try again.
        sys::umount_at(&top).or_else(|_| sys::umount_at(&top)).map(|()| true)
    });
    if swapped? {
        return Ok(false);
    }
    sys::umount_at(&top)?;
    let attach = |ready: &Ready| backend.attach(ready, root.open_at(target)?.as_fd(), recursive);
    if let Err(error) = attach(new) {
        if let Some(old) = old {
            attach(old)?;
        }
        return Err(error);
    }
    Ok(true)
}

//! What takes a change back. Each change of `up` pushes one; a failing run applies them, last first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::backend::{Backend, Ready};
use super::journal::{self, Durability};
use super::root::Root;
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
    /// A placeholder or link was made.
    Remove { path: JailPath, kind: MadeKind, file: FileId },
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
                let result = swap(backend, root, &target, &saved, recursive).map(drop);
                (format!("swapped {target} back"), result)
            }
            Self::Remove { path, kind, file } => {
                let result = root.spot(&path).and_then(|spot| spot.remove(&kind, Some(file))).map(drop);
                (format!("removed {path}"), result)
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

fn reattach(
    backend: &dyn Backend,
    root: &Root,
    target: &JailPath,
    saved: &Ready,
    recursive: bool,
) -> io::Result<()> {
    backend.attach(saved, root.open_at(target)?.as_fd(), recursive)
}

/// Replaces the topmost mount at `target` by `ready`: beneath it and the old one off, so there is no moment
/// without the file; where that cannot be done, off and on. Returns whether there was a gap.
pub(super) fn swap(
    backend: &dyn Backend,
    root: &Root,
    target: &JailPath,
    ready: &Ready,
    recursive: bool,
) -> io::Result<bool> {
    let top = root.open_at(target)?;
    if backend.attach_beneath(ready, top.as_fd())? {
        sys::umount_at(&top)?;
        return Ok(false);
    }
    let old = backend.save(top.as_fd(), recursive)?;
    sys::umount_at(&top)?;
    let placeholder = root.open_at(target)?;
    if let Err(error) = backend.attach(ready, placeholder.as_fd(), recursive) {
        backend.attach(&old, placeholder.as_fd(), recursive)?;
        return Err(error);
    }
    Ok(true)
}

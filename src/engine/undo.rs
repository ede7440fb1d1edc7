//! What takes a change back. Each change of `up` pushes one; a failing run applies them, last
//! first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::backend::{Backend, Prepared};
use super::journal;
use super::root::{Root, Spot, proc_path};
use super::target::unique_id_at;
use crate::base::{Error, HostPath, JailPath, Result};
use crate::observe::{self, CreatedKind, CreatedPath, PersistentRecord, RecordedMount};
use crate::sys;

pub(super) enum Undo<B: Backend> {
    /// A mount was attached on the open file `on`.
    Unmount { mount: RecordedMount, on: OwnedFd },
    /// A mount was taken off.
    Reattach(Old<B>),
    /// A mount was replaced by `new`.
    SwapBack { old: Old<B>, new: RecordedMount },
    /// A mount was taken off whose file has been deleted, and `new` is in its place, if it was
    /// replaced. The kernel attaches no mount of a deleted file, so it stays so.
    Stays {
        target: JailPath,
        id: Option<u64>,
        new: Option<RecordedMount>,
    },
    /// A mount was put beneath the one that it was to replace, and that could not be taken off. It
    /// can go no more without the other one: the next run takes that off.
    Beneath(RecordedMount),
    /// A placeholder or link was made at `spot`, wherever that has been moved to since.
    Remove { made: CreatedPath, spot: Spot },
    /// A placeholder or link was removed.
    Recreate { path: JailPath, kind: CreatedKind },
    /// A generated file was written or removed.
    Restore {
        path: HostPath,
        before: journal::Before,
    },
}

/// A mount that was taken off.
pub(super) struct Old<B: Backend> {
    pub(super) target: JailPath,
    /// Its never reused id.
    pub(super) id: Option<u64>,
    pub(super) recursive: bool,
    /// A copy, to attach again.
    pub(super) saved: B::Ready,
}

impl<B: Backend> Old<B> {
    /// What takes back that the mount with the never reused id `id` was taken off; `saved` is a
    /// copy of it.
    pub(super) fn undo(
        target: &JailPath,
        id: Option<u64>,
        recursive: bool,
        saved: Option<B::Ready>,
    ) -> Undo<B> {
        let target = target.clone();
        match saved {
            Some(saved) => Undo::Reattach(Self {
                target,
                id,
                recursive,
                saved,
            }),
            None => Undo::Stays {
                target,
                id,
                new: None,
            },
        }
    }

    /// What `mounts` tell of it, with the id of the copy, if that is known before.
    fn record(&self, mounts: &[RecordedMount]) -> Option<RecordedMount> {
        let known = mounts
            .iter()
            .find(|mount| is_at(mount, &self.target, self.id))?;
        Some(RecordedMount {
            unique_id: self.saved.unique_id(),
            ..known.clone()
        })
    }
}

/// What the records say.
pub(super) struct Told {
    pub(super) mounts: Vec<RecordedMount>,
    pub(super) kept: PersistentRecord,
}

fn is_at(mount: &RecordedMount, target: &JailPath, id: Option<u64>) -> bool {
    mount.target == *target && id.is_some() && mount.unique_id == id
}

impl<B: Backend> Undo<B> {
    /// Whether it only says what cannot be taken back.
    pub(super) fn lasts(&self) -> bool {
        matches!(self, Self::Stays { .. } | Self::Beneath(_))
    }

    /// Adds to `intent` what taking this back will make anew.
    pub(super) fn announce(&self, intent: &mut Told) {
        match self {
            Self::Reattach(old) | Self::SwapBack { old, .. } => {
                intent.mounts.extend(old.record(&intent.mounts));
            }
            Self::Recreate { path, kind } => {
                intent
                    .kept
                    .made
                    .push(CreatedPath::planned(path.clone(), kind.clone()));
            }
            _ => {}
        }
    }

    /// Takes the change back; what was done, in words. `before`, what the records said before the
    /// run, is brought in line with what that leaves.
    pub(super) fn apply(self, backend: &B, root: &Root, before: &mut Told) -> Result<String> {
        let (what, result) = match self {
            Self::Unmount { mount, on } => {
                let (what, result) = (format!("detached {}", mount.target), sys::umount_at(on));
                root.unmounted(&mount.target, None);
                before.mounts.extend(result.is_err().then_some(mount));
                (what, result)
            }
            Self::Reattach(old) => (
                format!("attached {} again", old.target),
                reattach(backend, root, &old, before),
            ),
            Self::SwapBack { old, new } => {
                let what = format!("swapped {} back", old.target);
                let result = swap_back(backend, root, &old, &new, before);
                before.mounts.extend(result.is_err().then_some(new));
                (what, result)
            }
            Self::Stays { target, id, new } => {
                let what = match new {
                    Some(_) => {
                        format!("the new {target} stays: the file of the old one is deleted")
                    }
                    None => format!("{target} is gone: its file is deleted"),
                };
                before.mounts.retain(|mount| !is_at(mount, &target, id));
                before.mounts.extend(new);
                (what, Ok(()))
            }
            Self::Beneath(new) => {
                let what = format!("the new {} stays beneath the old one", new.target);
                before.mounts.push(new);
                (what, Ok(()))
            }
            Self::Remove { made, spot } => {
                let what = format!("removed {}", made.path);
                let result = match spot.remove(&made.kind, made.file) {
                    Ok(false) => Err(io::Error::other("it is no longer as it was made")),
                    result => result.map(drop),
                };
                if result.is_err() {
                    before.kept.made.push(made);
                    before.kept.made.sort_by(|a, b| a.path.cmp(&b.path)); // parents before children
                }
                (what, result)
            }
            Self::Recreate { path, kind } => (
                format!("made {path} again"),
                recreate(root, &path, &kind, before),
            ),
            Self::Restore { path, before } => {
                return journal::put_back(path.as_path(), before)
                    .map(|()| format!("restored {path}"));
            }
        };
        match result {
            Ok(()) => Ok(what),
            Err(error) => Err(
                Error::failed(format!("not undone, which would have been: {what}")).because(&error),
            ),
        }
    }
}

/// A copy of the mount that the open file `top` is on, to attach again; `None`: its file has been
/// deleted, and the kernel attaches no mount of a deleted file (ENOENT).
pub(super) fn save<B: Backend>(
    backend: &B,
    top: &OwnedFd,
    recursive: bool,
) -> io::Result<Option<B::Ready>> {
    let shown = std::fs::read_link(proc_path(top))?;
    if shown.as_os_str().as_bytes().ends_with(b" (deleted)") {
        return Ok(None);
    }
    backend.save(top.as_fd(), recursive).map(Some)
}

fn reattach<B: Backend>(
    backend: &B,
    root: &Root,
    old: &Old<B>,
    before: &mut Told,
) -> io::Result<()> {
    backend.attach(
        &old.saved,
        root.spot(&old.target)?.open_bare()?.as_fd(),
        old.recursive,
    )?;
    renew(root, old, before);
    root.mounted(&old.target, old.saved.unique_id(), None)
}

fn swap_back<B: Backend>(
    backend: &B,
    root: &Root,
    old: &Old<B>,
    new: &RecordedMount,
    before: &mut Told,
) -> io::Result<()> {
    let top = root.spot(&old.target)?.open_mounted()?;
    if sys::stat_fd(&top)?.mount_id != new.unique_id {
        return Err(io::Error::other("another mount is there now"));
    }
    let result = swap(backend, &old.saved, &top)?;
    renew(root, old, before);
    match result {
        Swapped::Whole => root.mounted(&old.target, old.saved.unique_id(), None),
        Swapped::Beneath(error) => Err(error),
        Swapped::NotOffered => Err(io::Error::from_raw_os_error(libc::EINVAL)), // it was before
    }
}

/// A copy that was attached in the place of the old mount has another id, and so has what came
/// along with it. What cannot be found out is told by what is seen.
fn renew<B: Backend>(root: &Root, old: &Old<B>, before: &mut Told) {
    let id = old
        .saved
        .unique_id()
        .or_else(|| unique_id_at(root, &old.target).ok().flatten());
    for mount in before
        .mounts
        .iter_mut()
        .filter(|mount| is_at(mount, &old.target, old.id))
    {
        mount.unique_id = id;
        if old.recursive {
            mount.submounts = observe::submounts(root.path(), &old.target, id).unwrap_or_default();
            root.came_along(mount);
        }
    }
}

fn recreate(root: &Root, path: &JailPath, kind: &CreatedKind, before: &mut Told) -> io::Result<()> {
    let file = root.spot(path)?.create(kind)?;
    for made in before
        .kept
        .made
        .iter_mut()
        .filter(|made| made.path == *path)
    {
        made.file = Some(file);
    }
    Ok(())
}

/// What came of a swap.
pub(super) enum Swapped {
    /// There was no moment without the file.
    Whole,
    /// This kernel or engine has no `MOVE_MOUNT_BENEATH`; nothing was changed.
    NotOffered,
    /// The new mount is beneath the old one, which cannot be taken off.
    Beneath(io::Error),
}

/// Replaces the mount whose root `top` is by `new`: beneath it, and the old one off.
pub(super) fn swap<B: Backend>(backend: &B, new: &B::Ready, top: &OwnedFd) -> io::Result<Swapped> {
    // Between the two calls the old mount is on the very file that the new one shows, and the
    // kernel lets nobody rename or remove a file that is mounted on: EBUSY, for whoever replaces it
    // again just now.
    sys::undisturbed(|| {
        if !backend.attach_beneath(new, top.as_fd())? {
            return Ok(Swapped::NotOffered);
        }
        // The new one can go no more without the old one, so there is one way to be whole: try
        // again.
        let off = sys::umount_at(top).or_else(|_| sys::umount_at(top));
        Ok(off.map_or_else(Swapped::Beneath, |()| Swapped::Whole))
    })
}

//! Undoes changes. Each change of `up` pushes an [`Undo`]; a failing run applies them, last first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::backend::{Backend, Prepared};
use super::journal;
use super::root::{Root, Spot};
use super::target::unique_id_at;
use crate::base::hints::is_server_gone;
use crate::base::{Error, HostPath, JailPath, Result};
use crate::observe::{self, CreatedKind, CreatedPath, PersistentRecord, RecordedMount};
use crate::plan::Along;
use crate::sys::{self, proc};

pub(super) enum Undo<B: Backend> {
    /// A mount was attached on the open file `on`.
    Unmount { mount: RecordedMount, on: OwnedFd },
    /// A mount was detached.
    Reattach(Replaced<B>),
    /// A mount was replaced by `new`.
    SwapBack {
        old: Replaced<B>,
        new: RecordedMount,
    },
    /// A mount was detached that cannot be attached again ([`save`]); `new` took its place, if it
    /// was replaced. So it stays that way.
    Stays {
        target: JailPath,
        id: Option<u64>,
        new: Option<RecordedMount>,
    },
    /// A mount was put beneath the one that it was to replace, which could then not be detached. It
    /// cannot be removed without the other one; the next run detaches that.
    Beneath(RecordedMount),
    /// A placeholder or link was made at `spot`. The undo finds it wherever that was moved to
    /// since.
    Remove { made: CreatedPath, spot: Spot },
    /// A placeholder or link was removed.
    Recreate { path: JailPath, kind: CreatedKind },
    /// A generated file was written or removed.
    Restore {
        path: HostPath,
        before: journal::Before,
    },
}

/// A mount that was detached.
pub(super) struct Replaced<B: Backend> {
    pub(super) target: JailPath,
    /// Its unique mount ID.
    pub(super) id: Option<u64>,
    pub(super) along: Along,
    /// A copy, to attach again.
    pub(super) saved: B::Ready,
}

impl<B: Backend> Replaced<B> {
    /// Returns the undo for detaching the mount with the unique ID `id`; `saved` is a copy of
    /// it.
    pub(super) fn undo(
        target: &JailPath,
        id: Option<u64>,
        along: &Along,
        saved: Option<B::Ready>,
    ) -> Undo<B> {
        let target = target.clone();
        match saved {
            Some(saved) => Undo::Reattach(Self {
                target,
                id,
                along: along.clone(),
                saved,
            }),
            None => Undo::Stays {
                target,
                id,
                new: None,
            },
        }
    }

    /// Its entry in `mounts`, with the id of the copy if that is already known.
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

/// The contents of the two records.
pub(super) struct Records {
    pub(super) mounts: Vec<RecordedMount>,
    pub(super) kept: PersistentRecord,
}

fn is_at(mount: &RecordedMount, target: &JailPath, id: Option<u64>) -> bool {
    mount.target == *target && id.is_some() && mount.unique_id == id
}

impl<B: Backend> Undo<B> {
    /// Whether it only reports what cannot be undone.
    pub(super) fn lasts(&self) -> bool {
        matches!(self, Self::Stays { .. } | Self::Beneath(_))
    }

    /// Adds to `intent` what this undo will make.
    pub(super) fn announce(&self, intent: &mut Records) {
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

    /// Undoes the change. Returns what was done, in words. `before` holds the records from before
    /// the run; it is updated to match the result.
    pub(super) fn apply(self, backend: &B, root: &Root, before: &mut Records) -> Result<String> {
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
                        format!("the new {target} stays: the old one cannot be mounted again")
                    }
                    None => format!("{target} is gone: it cannot be mounted again"),
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

/// Copies the mount that the open file `top` is on, to attach it again. `None`: its file has been
/// deleted, and the kernel attaches no mount of a deleted file (ENOENT); or its server is gone.
pub(super) fn save<B: Backend>(
    backend: &B,
    top: &OwnedFd,
    along: &Along,
) -> io::Result<Option<B::Ready>> {
    let shown = std::fs::read_link(proc::path_of_descriptor(top))?;
    if shown.as_os_str().as_bytes().ends_with(b" (deleted)") {
        return Ok(None);
    }
    let saved = match along {
        Along::Nothing => backend.save(top.as_fd(), false),
        Along::Submounts => backend.save(top.as_fd(), true),
        Along::Members(_) => backend.follow(top.as_fd(), None, true),
    };
    match saved {
        Err(error) if is_server_gone(error.raw_os_error()) => Ok(None),
        saved => saved.map(Some),
    }
}

fn reattach<B: Backend>(
    backend: &B,
    root: &Root,
    old: &Replaced<B>,
    before: &mut Records,
) -> io::Result<()> {
    backend.attach(
        &old.saved,
        root.spot(&old.target)?.open_bare()?.as_fd(),
        old.along != Along::Nothing,
    )?;
    renew(root, old, before);
    root.mounted(&old.target, old.saved.unique_id(), None)
}

fn swap_back<B: Backend>(
    backend: &B,
    root: &Root,
    old: &Replaced<B>,
    new: &RecordedMount,
    before: &mut Records,
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
        // This cannot happen: it was offered for the first swap.
        Swapped::NotOffered => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Updates the record of a mount that was attached again: the copy has another id, and so have its
/// submounts. Submounts that cannot be determined are recognised by their files.
fn renew<B: Backend>(root: &Root, old: &Replaced<B>, before: &mut Records) {
    let id = old
        .saved
        .unique_id()
        .or_else(|| unique_id_at(root, &old.target).ok().flatten());

    let recorded = before.mounts.iter_mut();
    for mount in recorded.filter(|mount| is_at(mount, &old.target, old.id)) {
        mount.unique_id = id;
        if old.along == Along::Submounts {
            mount.submounts = observe::submounts(root.path(), &old.target, id).unwrap_or_default();
            root.came_along(mount);
        }
    }
}

fn recreate(
    root: &Root,
    path: &JailPath,
    kind: &CreatedKind,
    before: &mut Records,
) -> io::Result<()> {
    let file = root.spot(path)?.create(kind)?;
    let recorded = before.kept.made.iter_mut();
    for made in recorded.filter(|made| made.path == *path) {
        made.file = Some(file);
    }
    Ok(())
}

/// The result of a swap.
pub(super) enum Swapped {
    /// The file was never absent.
    Whole,
    /// This kernel or engine has no `MOVE_MOUNT_BENEATH`; nothing was changed.
    NotOffered,
    /// The new mount is beneath the old one, which cannot be detached.
    Beneath(io::Error),
}

/// Replaces the mount whose root `top` is by `new`: attaches `new` beneath it and detaches the old
/// one.
pub(super) fn swap<B: Backend>(backend: &B, new: &B::Ready, top: &OwnedFd) -> io::Result<Swapped> {
    // Between the two calls the old mount is on the very file that the new one shows. The kernel
    // refuses to rename or remove a file that is mounted on (EBUSY), which would affect anyone who
    // replaces it at this moment.
    sys::undisturbed(|| {
        if !backend.attach_beneath(new, top.as_fd())? {
            return Ok(Swapped::NotOffered);
        }
        // The new mount cannot be removed without the old one, so the only remedy is to try again.
        let detached = sys::umount_at(top).or_else(|_| sys::umount_at(top));
        Ok(detached.map_or_else(Swapped::Beneath, |()| Swapped::Whole))
    })
}

//! Undoes changes. Each change of `up` pushes an [`Undo`]; a failing run applies them, last first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::backend::{Backend, Prepared, remount};
use super::journal;
use super::root::{Root, Spot};
use super::target::{UNMOUNTED_MEANWHILE, is_not_mounted, unique_id_at};
use crate::base::hints::is_server_gone;
use crate::base::{Error, Extent, FileSystem, HostPath, JailPath, MountAttributes, Result};
use crate::observe::{self, CreatedKind, CreatedPath, PersistentRecord, RecordedMount};
use crate::plan::Along;
use crate::resolve::Ownership;
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
        mount: OldMount,
        new: Option<RecordedMount>,
    },
    /// A mount was put beneath the one that it was to replace, which could then not be detached. It
    /// cannot be removed without the other one; the next run detaches that.
    Beneath(RecordedMount),
    /// A tmpfs was remounted. It had these options.
    Remount {
        target: JailPath,
        file_system: FileSystem,
        attributes: MountAttributes,
    },
    /// A placeholder or link was made at `spot`. The undo finds it wherever that was moved to
    /// since.
    Remove { made: CreatedPath, spot: Spot },
    /// A placeholder, link or directory was removed. `owner`: whose the directory was.
    Recreate {
        path: JailPath,
        kind: CreatedKind,
        owner: Option<Ownership>,
    },
    /// A generated file was written or removed.
    Restore {
        path: HostPath,
        before: journal::Before,
    },
}

/// A mount that was detached, or replaced.
#[derive(Clone)]
pub(super) struct OldMount {
    pub(super) target: JailPath,
    /// Its unique mount ID.
    pub(super) id: Option<u64>,
    pub(super) along: Along,
}

impl OldMount {
    /// The undo of detaching it. `saved` is a copy of it.
    pub(super) fn detached<B: Backend>(self, saved: Option<B::Ready>) -> Undo<B> {
        match saved {
            Some(saved) => Undo::Reattach(Replaced { mount: self, saved }),
            None => Undo::Stays {
                mount: self,
                new: None,
            },
        }
    }

    /// The undo of replacing it by `new`. `saved` is a copy of it.
    pub(super) fn swapped<B: Backend>(
        self,
        saved: Option<B::Ready>,
        new: RecordedMount,
    ) -> Undo<B> {
        match saved {
            Some(saved) => Undo::SwapBack {
                old: Replaced { mount: self, saved },
                new,
            },
            None => Undo::Stays {
                mount: self,
                new: Some(new),
            },
        }
    }

    fn is(&self, recorded: &RecordedMount) -> bool {
        recorded.target == self.target && self.id.is_some() && recorded.unique_id == self.id
    }
}

/// A mount that was detached, with a copy to attach again.
pub(super) struct Replaced<B: Backend> {
    mount: OldMount,
    saved: B::Ready,
}

impl<B: Backend> Replaced<B> {
    /// Its entry in `mounts`, with the id of the copy if that is already known.
    fn record(&self, mounts: &[RecordedMount]) -> Option<RecordedMount> {
        let known = mounts.iter().find(|mount| self.mount.is(mount))?;
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
            Self::Recreate { path, kind, .. } => {
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
        let what = self.in_words();
        let result = match self {
            Self::Unmount { mount, on } => {
                let result = unmount(&mount, &on);
                root.unmounted(&mount.target, None);
                before.mounts.extend(result.is_err().then_some(mount));
                result
            }
            Self::Reattach(old) => reattach(backend, root, &old, before).map_err(explain),
            Self::SwapBack { old, new } => {
                let result = swap_back(backend, root, &old, &new, before).map_err(explain);
                before.mounts.extend(result.is_err().then_some(new));
                result
            }
            Self::Stays { mount, new } => {
                before.mounts.retain(|recorded| !mount.is(recorded));
                before.mounts.extend(new);
                Ok(())
            }
            Self::Beneath(new) => {
                before.mounts.push(new);
                Ok(())
            }
            Self::Remount {
                target,
                file_system,
                attributes,
            } => root
                .open_mounted(&target)
                .and_then(|top| remount(top, file_system, attributes)),
            Self::Remove { made, spot } => remove(made, &spot, before),
            Self::Recreate { path, kind, owner } => recreate(root, &path, &kind, owner, before),
            Self::Restore { path, before } => {
                journal::put_back(path.as_path(), before)?;
                return Ok(what);
            }
        };
        match result {
            Ok(()) => Ok(what),
            Err(error) => {
                let what = format!("not undone, which would have been: {what}");
                Err(Error::failed(what).because(&error))
            }
        }
    }

    /// The change that it makes, once that is done.
    fn in_words(&self) -> String {
        match self {
            Self::Unmount { mount, .. } => format!("detached {}", mount.target),
            Self::Reattach(old) => format!("attached {} again", old.mount.target),
            Self::SwapBack { old, .. } => format!("swapped {} back", old.mount.target),
            Self::Stays { mount, new: None } => {
                format!("{} is gone: it cannot be mounted again", mount.target)
            }
            Self::Stays { mount, .. } => {
                let target = &mount.target;
                format!("the new {target} stays: the old one cannot be mounted again")
            }
            Self::Beneath(new) => format!("the new {} stays beneath the old one", new.target),
            Self::Remount { target, .. } => format!("gave the tmpfs {target} its options again"),
            Self::Remove { made, .. } => format!("removed {}", made.path),
            Self::Recreate { path, .. } => format!("made {path} again"),
            Self::Restore { path, .. } => format!("restored {path}"),
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
        Along::Nothing => backend.save(top.as_fd(), Extent::Mount),
        Along::Submounts => backend.save(top.as_fd(), Extent::Tree),
        Along::Members(_) => backend.follow(top.as_fd(), None, Extent::Tree),
    };
    match saved {
        Err(error) if is_server_gone(error.raw_os_error()) => Ok(None),
        saved => saved.map(Some),
    }
}

/// Unmounts `mount`, which was attached on the open file `on`. It may be gone: when a directory is
/// removed in a namespace where nothing is mounted in it, the kernel unmounts what other namespaces
/// have there (Linux 3.18).
fn unmount(mount: &RecordedMount, on: &OwnedFd) -> io::Result<()> {
    let result = sys::umount_at(on);
    if result.as_ref().is_err_and(is_not_mounted) && !mount.unique_id.is_some_and(sys::mount_exists)
    {
        return Ok(());
    }
    result
}

/// Replaces an error that means that a mount is gone by one that says it.
fn explain(error: io::Error) -> io::Error {
    if is_not_mounted(&error) {
        return io::Error::other(UNMOUNTED_MEANWHILE);
    }
    error
}

/// Removes what was made at `spot`. If it cannot be removed, it stays recorded.
fn remove(made: CreatedPath, spot: &Spot, before: &mut Records) -> io::Result<()> {
    let result = match spot.remove(&made.kind, made.file) {
        Ok(false) => Err(io::Error::other("it is no longer as it was made")),
        result => result.map(drop),
    };
    if result.is_err() {
        before.kept.made.push(made);
        before.kept.made.sort_by(|a, b| a.path.cmp(&b.path)); // parents before children
    }
    result
}

fn reattach<B: Backend>(
    backend: &B,
    root: &Root,
    old: &Replaced<B>,
    before: &mut Records,
) -> io::Result<()> {
    let target = &old.mount.target;
    let on = root.spot(target)?.open_bare()?;
    let extent = Extent::from_recursive(old.mount.along != Along::Nothing);
    backend.attach(&old.saved, on.as_fd(), extent)?;
    renew(root, old, before);
    root.mounted(target, old.saved.unique_id(), None)
}

fn swap_back<B: Backend>(
    backend: &B,
    root: &Root,
    old: &Replaced<B>,
    new: &RecordedMount,
    before: &mut Records,
) -> io::Result<()> {
    let top = root.spot(&old.mount.target)?.open_mounted()?;
    if sys::stat_fd(&top)?.mount_id != new.unique_id {
        return Err(io::Error::other("another mount is there now"));
    }

    let result = swap(backend, &old.saved, &top)?;
    renew(root, old, before);
    match result {
        Swapped::Whole => root.mounted(&old.mount.target, old.saved.unique_id(), None),
        Swapped::Beneath(error) => Err(error),
        // This cannot happen: it was offered for the first swap.
        Swapped::NotOffered => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Updates the record of a mount that was attached again: the copy has another id, and so have its
/// submounts. Submounts that cannot be determined are recognised by their files.
fn renew<B: Backend>(root: &Root, old: &Replaced<B>, before: &mut Records) {
    let id = match old.saved.unique_id() {
        Some(id) => Some(id),
        None => unique_id_at(root, &old.mount.target).unwrap_or_default(),
    };
    for mount in &mut before.mounts {
        if !old.mount.is(mount) {
            continue;
        }
        mount.unique_id = id;
        if old.mount.along == Along::Submounts {
            mount.submounts =
                observe::submounts(root.path(), &old.mount.target, id).unwrap_or_default();
            root.came_along(mount);
        }
    }
}

fn recreate(
    root: &Root,
    path: &JailPath,
    kind: &CreatedKind,
    owner: Option<Ownership>,
    before: &mut Records,
) -> io::Result<()> {
    let spot = root.spot(path)?;
    let file = spot.create(kind)?;
    for made in &mut before.kept.made {
        if made.path == *path {
            made.file = Some(file);
        }
    }
    match owner {
        Some(owner) => spot.give(owner),
        None => Ok(()),
    }
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
        match sys::umount_at(top).or_else(|_| sys::umount_at(top)) {
            Ok(()) => Ok(Swapped::Whole),
            Err(error) => Ok(Swapped::Beneath(error)),
        }
    })
}

//! One mount of a run: it is prepared out of sight, attached or swapped in, and verified.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::backend::{Backend, Prepared, remount};
use super::mounter::Mounter;
use super::root::{Root, Spot, Spots};
use super::setup::Engine;
use super::sources;
use super::target::{
    UNMOUNTED_MEANWHILE, attributes_of, cannot, explained, is_not_mounted, must_be, nothing_inside,
    unique_id_at,
};
use super::templates::TemplateStore;
use super::undo::{OldMount, Swapped, Undo, save, swap};
use crate::base::hints::{Doing, is_absent};
use crate::base::{Error, Extent, JailPath, Result, SiteName};
use crate::observe::{self, ObservedMount, RecordedMount, Submount, Unknown};
use crate::plan::{Along, Step, Template};
use crate::resolve::{FileId, Mount};
use crate::sys;

pub(super) struct MountOp<'a, B: Backend> {
    pub(super) step: &'a Step,
    pub(super) mount: &'a Arc<Mount>,
    /// The mount that it replaces, and what goes with that mount.
    replaces: Option<(&'a ObservedMount, &'a Along)>,
    /// The template, if it is a graft.
    template: Option<SiteName>,
    /// It is put back into a graft, and known by the record of the template.
    pub(super) is_member: bool,
    pub(super) ready: B::Ready,
    file: FileId,
    pub(super) unique_id: Option<u64>,
    /// Its submounts, once it is attached.
    pub(super) submounts: Option<Vec<Submount>>,
    /// The time since which the target has shown something.
    since: Option<u64>,
    /// The open target. `None`: another mount of this run must be attached first.
    target: Option<OwnedFd>,
    /// Whether other mounts of this run are made in it.
    holds: bool,
    /// The tmpfs that goes, if this mount has its files.
    carried_over: Option<&'a ObservedMount>,
}

impl<'a, B: Backend> MountOp<'a, B> {
    /// Returns the work of `step`, which makes `mount`. `since`: the time since which the target
    /// has shown something.
    pub(super) fn prepare(
        mounter: &Mounter<B>,
        engine: &Engine,
        (step, mount): (&'a Step, &'a Arc<Mount>),
        member_of: Option<&SiteName>,
        since: Option<u64>,
    ) -> Result<Self> {
        let (backend, sources) = (&mounter.backend, &mounter.sources);
        let mut template = None;
        let ready = if let Some(change) = step.change() {
            let store = engine.templates()?;
            let name = template.insert(name_of(store, &change.template)?);
            sources.graft(backend, store, name, &change.template)?
        } else if let Some(name) = member_of {
            sources::follow(backend, engine.templates()?, name, &mount.target, None)?
        } else {
            sources.ready(backend, mount)?
        };
        Ok(Self {
            template,
            is_member: step.change().is_none() && member_of.is_some(),
            ..Self::new(step, mount, ready, since)
        })
    }

    /// Returns the work of `step`, which makes `mount`, a tmpfs with the files of `old`, which
    /// goes. `since`: as with [`prepare`](Self::prepare).
    pub(super) fn carry_over(
        mounter: &Mounter<B>,
        root: &Root,
        (step, mount): (&'a Step, &'a Arc<Mount>),
        old: &'a ObservedMount,
        since: Option<u64>,
    ) -> Result<Self> {
        let target = &mount.target;
        let top = explained(root, "look at", target, root.open_mounted(target))?;
        must_be(root, target, old, &top)?;
        let file = explained(root, "look at", target, sys::stat_fd(&top))?.file;
        let backend = &mounter.backend;
        let ready = backend.prepare(top.as_fd(), mount.attributes, Extent::Mount);
        let ready = explained(root, "copy the mount at", target, ready)?;
        Ok(Self {
            carried_over: Some(old),
            ..Self::new(step, mount, (ready, file), since)
        })
    }

    /// The work of a step that mounts `ready`.
    fn new(
        step: &'a Step,
        mount: &'a Arc<Mount>,
        (ready, file): (B::Ready, FileId),
        since: Option<u64>,
    ) -> Self {
        let unique_id = ready.unique_id();
        let replaces = match step {
            Step::Swap {
                expected, along, ..
            } => Some((expected, along)),
            _ => None,
        };
        Self {
            step,
            mount,
            replaces,
            template: None,
            is_member: false,
            ready,
            file,
            unique_id,
            submounts: None,
            since,
            target: None,
            holds: false,
            carried_over: None,
        }
    }

    /// Whether all ids in its record were known before it was attached.
    pub(super) fn was_known(&self) -> bool {
        self.ready.unique_id().is_some() && self.submounts.is_none()
    }

    pub(super) fn record(&self) -> RecordedMount {
        RecordedMount {
            target: self.mount.target.clone(),
            source: self.mount.source.clone(),
            file: self.file,
            attributes: self.mount.attributes,
            recursive: self.mount.recursive,
            submounts: self.submounts.clone(),
            unique_id: self.unique_id,
            since: self.since,
            template: self.template.clone(),
            file_system: self.mount.file_system,
            peer_group: None,
            more: Unknown::new(),
        }
    }

    /// Opens the target, which is not a link, in its directory `spot`: with nothing mounted on it,
    /// or with exactly the mount to replace. The plan has checked that its type fits, and the
    /// kernel does not mount a file on a directory.
    fn open_target(&self, root: &Root, spot: io::Result<&Spot>) -> Result<OwnedFd> {
        let target = &self.mount.target;
        let opened = match self.replaces {
            None => spot.and_then(Spot::open_bare),
            Some(_) => spot.and_then(Spot::open_mounted),
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(error) => return Err(explain(cannot(root, "mount on", target, &error))),
        };
        let Some((expected, along)) = self.replaces else {
            return Ok(fd);
        };
        must_be(root, target, expected, &fd)?;
        if *along == Along::Nothing {
            nothing_inside(root, "replace", target, expected)?;
        }
        Ok(fd)
    }

    /// Attaches the mount or swaps it in. Returns whether a swap had a gap; `None`: it was not a
    /// swap. Everything that was done, also before an error, is added to `undo`.
    pub(super) fn carry_out(
        &mut self,
        backend: &B,
        root: &Root,
        undo: &mut Vec<Undo<B>>,
    ) -> Result<Option<bool>> {
        let on = match self.target.take() {
            Some(target) => target,
            None => match root.spot(&self.mount.target) {
                Ok(spot) => self.open_target(root, Ok(&spot))?,
                Err(error) => self.open_target(root, Err(error))?,
            },
        };

        let gap = self
            .attach_or_swap(backend, root, on, undo)
            .map_err(|error| explain(self.failed(root, &error)))?;
        self.remount(root, undo)?;
        Ok(gap)
    }

    /// Gives a tmpfs that was carried over the options that the manifest asks for.
    fn remount(&self, root: &Root, undo: &mut Vec<Undo<B>>) -> Result<()> {
        let Some(old) = self.carried_over else {
            return Ok(());
        };
        let (Some(before), Some(wanted)) = (old.file_system, self.mount.file_system) else {
            return Ok(());
        };
        let target = &self.mount.target;
        let top = found(root, target, root.open_mounted(target))?;
        match remount(&top, wanted, self.mount.attributes) {
            Ok(()) => {
                undo.push(Undo::Remount {
                    target: target.clone(),
                    file_system: before,
                    attributes: old.attributes,
                });
                Ok(())
            }
            Err(error) => {
                let (at, options) = (root.path().inside(target), self.mount.options());
                let failed = Error::failed(format!("cannot remount the tmpfs on {at} ({options})"));
                Err(match error.raw_os_error() {
                    Some(libc::EINVAL) => failed
                        .because_of("its files need more room")
                        .hint(format!("remove files in {at}, or ask for a larger size")),
                    _ => failed.because(&error),
                })
            }
        }
    }

    /// As [`carry_out`](Self::carry_out), on the open target `on`.
    fn attach_or_swap(
        &self,
        backend: &B,
        root: &Root,
        on: OwnedFd,
        undo: &mut Vec<Undo<B>>,
    ) -> io::Result<Option<bool>> {
        let Some((expected, along)) = self.replaces else {
            self.attach(backend, on, undo)?;
            return Ok(None);
        };

        let old = OldMount {
            target: self.mount.target.clone(),
            id: expected.unique_id,
            along: along.clone(),
        };
        let saved = save(backend, &on, along)?;
        match swap(backend, &self.ready, &on)? {
            Swapped::Whole => {
                undo.push(old.swapped(saved, self.record()));
                Ok(Some(false))
            }
            Swapped::Beneath(error) => {
                undo.push(Undo::Beneath(self.record()));
                Err(error)
            }
            Swapped::NotOffered => {
                backend.stage(&self.ready)?;
                sys::umount_at(&on)?;
                self.take_place(backend, root, old, saved, undo)?;
                Ok(Some(true))
            }
        }
    }

    /// Attaches the mount where the `old` one, of which `saved` is a copy, was detached.
    fn take_place(
        &self,
        backend: &B,
        root: &Root,
        old: OldMount,
        saved: Option<B::Ready>,
        undo: &mut Vec<Undo<B>>,
    ) -> io::Result<()> {
        let on = root.spot(&old.target).and_then(|spot| spot.open_bare());
        if saved.is_some() {
            undo.push(old.detached(saved));
            return self.attach(backend, on?, undo);
        }
        let attached = on.and_then(|on| self.attach_on(backend, &on));
        // The old mount cannot come back: keep the new one rather than none.
        undo.push(match attached {
            Ok(()) => old.swapped(None, self.record()),
            Err(_) => old.detached(None),
        });
        attached
    }

    fn attach(&self, backend: &B, on: OwnedFd, undo: &mut Vec<Undo<B>>) -> io::Result<()> {
        self.attach_on(backend, &on)?;
        undo.push(Undo::Unmount {
            mount: self.record(),
            on,
        });
        Ok(())
    }

    fn attach_on(&self, backend: &B, on: &OwnedFd) -> io::Result<()> {
        backend.attach(&self.ready, on.as_fd(), self.mount.extent())
    }

    /// Registers the new mount, with its submounts, as one in which others may be made.
    pub(super) fn make_known(&mut self, root: &Root) -> Result<()> {
        self.find_submounts(root)?;
        if let Some((expected, _)) = self.replaces {
            root.unmounted(&self.mount.target, Some(expected));
        }
        if self.holds {
            let target = &self.mount.target;
            let known = root.mounted(target, self.unique_id, Some(self.file));
            found(root, target, known)?;
            root.came_along(&self.record());
        }
        Ok(())
    }

    /// Finds the submounts that came along with a recursive mount.
    fn find_submounts(&mut self, root: &Root) -> Result<()> {
        if self.mount.recursive && self.template.is_none() {
            let target = &self.mount.target;
            let id = found(root, target, unique_id_at(root, target))?;
            self.submounts = observe::submounts(root.path(), target, id)?;
        }
        Ok(())
    }

    fn failed(&self, root: &Root, error: &io::Error) -> Error {
        let verb = if self.replaces.is_some() {
            "swap"
        } else {
            "attach"
        };
        let target = root.path().inside(&self.mount.target);
        let failed = Error::failed(format!("cannot {verb} {} on {target}", self.mount.what()));
        // All else that the kernel calls invalid was ruled out.
        if is_not_mounted(error) {
            return failed.because_of(UNMOUNTED_MEANWHILE).overtaken();
        }
        failed.because(error)
    }

    /// Checks again, from the root, that our mount is visible at the target, as restricted as
    /// requested. It is not if somebody moved a directory on the way meanwhile. A mount whose id
    /// was known before has the attributes that it was prepared with; those of other mounts are
    /// checked.
    pub(super) fn verify(&mut self, root: &Root, spots: &mut Spots<'_>) -> Result<()> {
        let target = &self.mount.target;
        let spot = found(root, target, spots.get(target))?;
        let stat = found(root, target, spot.stat())?;
        let is_ours = spot.is_at_home()
            && match self.unique_id {
                Some(id) => stat.mount_id == Some(id),
                None => stat.file == self.file && stat.mount_root != Some(false),
            };
        if !is_ours {
            return Err(moved(root, target));
        }

        if self.unique_id.is_none() {
            let fd = found(root, target, root.open_at(target))?;
            self.verify_attributes(root, fd)?;
        }
        if stat.mount_id_is_unique {
            self.unique_id = stat.mount_id;
        }
        Ok(())
    }

    fn verify_attributes(&self, root: &Root, fd: OwnedFd) -> Result<()> {
        let target = &self.mount.target;
        let found = explained(root, "look at the new mount at", target, attributes_of(fd))?;
        if self.mount.attributes.allows(found) {
            return Ok(());
        }
        let (path, wanted) = (root.path().inside(target), self.mount.attributes);
        Err(Error::failed(format!(
            "{path} is mounted {found} in place of {wanted}"
        )))
    }
}

/// The `result` of looking for a new mount at `target`.
fn found<T>(root: &Root, target: &JailPath, result: io::Result<T>) -> Result<T> {
    match result {
        Err(error) if is_absent(&error) => Err(moved(root, target)),
        result => explained(root, "find the new mount at", target, result),
    }
}

/// The error about a new mount that is not at `target`.
fn moved(root: &Root, target: &JailPath) -> Error {
    let path = root.path().inside(target);
    let failed = Error::failed(format!(
        "{path} was moved or removed while it was being mounted on"
    ));
    failed
        .overtaken()
        .hint("somebody changes the directories of this root; find out who before trying again")
}

/// The name of the template.
fn name_of(store: &TemplateStore, template: &Template) -> Result<SiteName> {
    if let Some(name) = store.held(&template.contents) {
        return Ok(name);
    }
    let gone = Error::failed(format!("the template of {} is gone", template.at));
    Err(gone.overtaken().hint("run the command again"))
}

/// Opens every target that is not inside another mount of this run.
pub(super) fn open_targets<B: Backend>(root: &Root, work: &mut [MountOp<'_, B>]) -> Result<()> {
    let mounts: Vec<_> = work.iter().map(|item| item.mount).collect();
    let targets: HashSet<_> = mounts.iter().map(|mount| mount.target.as_path()).collect();
    let mut holders = vec![];
    for target in mounts.iter().map(|mount| mount.target.as_path()) {
        let mut above = target.ancestors().skip(1);
        holders.push(above.find(|path| targets.contains(path)));
    }
    let holding: HashSet<_> = holders.iter().flatten().collect();

    let mut spots = Spots::new(root);
    for (item, holder) in work.iter_mut().zip(&holders) {
        item.holds = holding.contains(&item.mount.target.as_path());
        if holder.is_none() {
            item.target = Some(item.open_target(root, spots.get(&item.mount.target))?);
        }
    }
    Ok(())
}

fn explain(error: Error) -> Error {
    let error = match error.errno() {
        Some(libc::ENOENT) => error.overtaken(),
        _ => error,
    };
    error.hint_while(Doing::Mounting)
}

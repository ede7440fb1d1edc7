//! The detached engine: `open_tree(2)`, `mount_setattr(2)`, `move_mount(2)` (Linux 5.12).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::backend::{Backend, Prepared, to_kernel};
use super::features::Features;
use super::scratch::{Scratch, ScratchDir};
use super::target::attributes_of;
use crate::base::{Extent, FileSystem, MountAttributes};
use crate::sys::{self, FileId};

pub(super) struct Detached {
    features: Features,
    scratch_dir: ScratchDir,
    /// The place where prepared mounts are attached if detached mounts cannot be cloned, and where
    /// deleted files are detected before a swap with a gap.
    scratch: OnceLock<Scratch>,
}

impl Detached {
    pub(super) fn new(features: Features, scratch_dir: ScratchDir) -> Self {
        Self {
            features,
            scratch_dir,
            scratch: OnceLock::new(),
        }
    }

    fn attach_in_scratch(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        let spot = self
            .scratch_dir
            .get(&self.scratch)?
            .spot(sys::stat_fd(mount)?.kind)?;
        let target = nix::fcntl::open(&spot, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        sys::move_mount(mount, target)
    }
}

/// Makes a file system, and a mount of it that is not attached: `fsopen(2)`, `fsmount(2)` (Linux
/// 5.2). Nobody can reach it before it has its attributes.
fn new_mount(file_system: FileSystem) -> io::Result<OwnedFd> {
    let name = file_system.name();
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", name)?;
    for (option, value) in file_system.options() {
        fsconfig_set_string(&context, option, value.as_str())?;
    }
    fsconfig_create(&context)?;
    let (flags, attributes) = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    Ok(fsmount(&context, flags, attributes)?)
}

/// A mount in its own anonymous namespace.
pub(super) struct DetachedMount(OwnedFd);

impl Prepared for DetachedMount {
    fn unique_id(&self) -> Option<u64> {
        sys::stat_fd(&self.0).ok()?.unique_mount_id()
    }

    fn attributes(&self) -> io::Result<Option<MountAttributes>> {
        attributes_of(&self.0).map(Some)
    }
}

impl Backend for Detached {
    type Ready = DetachedMount;

    fn prepare(
        &self,
        source: BorrowedFd<'_>,
        attributes: MountAttributes,
        extent: Extent,
    ) -> io::Result<DetachedMount> {
        let clone = sys::clone_mount(source, extent)?;
        sys::mount_setattr(&clone, extent, &to_kernel(attributes))?;
        Ok(DetachedMount(clone))
    }

    fn make(
        &self,
        file_system: FileSystem,
        attributes: MountAttributes,
    ) -> io::Result<(DetachedMount, FileId)> {
        let made = new_mount(file_system)?;
        sys::mount_setattr(&made, Extent::Mount, &to_kernel(attributes))?;
        let file = sys::stat_fd(&made)?.file;
        Ok((DetachedMount(made), file))
    }

    fn save(&self, top: BorrowedFd<'_>, extent: Extent) -> io::Result<DetachedMount> {
        let clone = sys::clone_mount(top, extent)?;
        let private = sys::MountAttr {
            propagation: libc::MS_PRIVATE,
            ..Default::default()
        };
        sys::mount_setattr(&clone, extent, &private)?;
        Ok(DetachedMount(clone))
    }

    fn follow(
        &self,
        source: BorrowedFd<'_>,
        attributes: Option<MountAttributes>,
        extent: Extent,
    ) -> io::Result<DetachedMount> {
        let clone = sys::clone_mount(source, extent)?;
        let slave = sys::MountAttr {
            propagation: libc::MS_SLAVE,
            ..Default::default()
        };
        sys::mount_setattr(&clone, extent, &slave)?;
        if let Some(attributes) = attributes {
            let top = sys::MountAttr {
                propagation: 0,
                ..to_kernel(attributes)
            };
            sys::mount_setattr(&clone, Extent::Mount, &top)?;
        }
        Ok(DetachedMount(clone))
    }

    fn copy(&self, prepared: &DetachedMount, extent: Extent) -> io::Result<DetachedMount> {
        sys::clone_mount(&prepared.0, extent).map(DetachedMount)
    }

    fn attach(
        &self,
        ready: &DetachedMount,
        target: BorrowedFd<'_>,
        _extent: Extent,
    ) -> io::Result<()> {
        sys::move_mount(&ready.0, target)
    }

    fn stage(&self, ready: &DetachedMount) -> io::Result<()> {
        self.attach_in_scratch(ready.0.as_fd())
    }

    fn attach_beneath(&self, ready: &DetachedMount, top: BorrowedFd<'_>) -> io::Result<bool> {
        if !self.features.beneath {
            return Ok(false);
        }
        sys::move_mount_beneath(&ready.0, top).map(|()| true)
    }

    fn settle(&self, prepared: &DetachedMount) -> io::Result<()> {
        self.attach_in_scratch(prepared.0.as_fd())
    }

    fn share(&self, prepared: &DetachedMount) -> io::Result<()> {
        if self.features.clone_detached {
            return Ok(());
        }
        self.attach_in_scratch(prepared.0.as_fd())
    }
}

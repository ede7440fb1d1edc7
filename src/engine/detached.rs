//! The detached engine: `open_tree(2)`, `mount_setattr(2)`, `move_mount(2)` (Linux 5.12).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::backend::{Backend, Ready, attributes, clone_of};
use super::features::Features;
use super::scratch::{Scratch, ScratchDir};
use crate::base::MountAttributes;
use crate::sys;

pub(super) struct Detached {
    features: Features,
    scratch_dir: ScratchDir,
    /// Only where detached mounts cannot be cloned: the prepared ones are attached here.
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
}

fn detached(ready: &Ready) -> io::Result<BorrowedFd<'_>> {
    match ready {
        Ready::Detached(fd) => Ok(fd.as_fd()),
        Ready::Scratch(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

impl Backend for Detached {
    fn prepare(
        &self,
        source: BorrowedFd<'_>,
        options: MountAttributes,
        recursive: bool,
    ) -> io::Result<Ready> {
        let clone = clone_of(source, recursive)?;
        sys::mount_setattr(&clone, recursive, &attributes(options))?;
        Ok(Ready::Detached(clone))
    }

    fn save(&self, top: BorrowedFd<'_>, recursive: bool) -> io::Result<Ready> {
        let clone = clone_of(top, recursive)?;
        let private = sys::MountAttr {
            propagation: libc::MS_PRIVATE,
            ..Default::default()
        };
        sys::mount_setattr(&clone, recursive, &private)?;
        Ok(Ready::Detached(clone))
    }

    fn copy(&self, prepared: &Ready, recursive: bool) -> io::Result<Ready> {
        clone_of(detached(prepared)?, recursive).map(Ready::Detached)
    }

    fn attach(&self, ready: &Ready, target: BorrowedFd<'_>, _recursive: bool) -> io::Result<()> {
        sys::move_mount(detached(ready)?, target)
    }

    fn attach_beneath(&self, ready: &Ready, top: BorrowedFd<'_>) -> io::Result<bool> {
        if !self.features.beneath {
            return Ok(false);
        }
        sys::move_mount_beneath(detached(ready)?, top).map(|()| true)
    }

    fn share(&self, prepared: &Ready, _recursive: bool) -> io::Result<()> {
        if self.features.clone_detached {
            return Ok(());
        }
        let prepared = detached(prepared)?;
        let spot = self
            .scratch_dir
            .get(&self.scratch)?
            .spot(sys::stat_fd(prepared)?.kind)?;
        let target = nix::fcntl::open(&spot, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        sys::move_mount(prepared, target)
    }
}

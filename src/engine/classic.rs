//! The classic engine: `mount(2)`, for kernels without `mount_setattr(2)`.
//!
//! A classic bind is writable until it is remounted read-only. This happens in a private scratch
//! mount that only root can reach. A bind of the finished read-only bind is read-only from its
//! first moment.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sys_mount::{Mount, MountFlags};

use super::backend::{Backend, Prepared, flags, make_private, mount, set_propagation};
use super::scratch::{Scratch, ScratchDir};
use crate::base::{Extent, FileSystem, MountAttributes};
use crate::observe::{self, Table};
use crate::sys::{self, FileId, FileKind, proc};

pub(super) struct Classic {
    scratch_dir: ScratchDir,
    scratch: OnceLock<Scratch>,
}

impl Classic {
    pub(super) fn new(scratch_dir: ScratchDir) -> Self {
        Self {
            scratch_dir,
            scratch: OnceLock::new(),
        }
    }

    /// Binds the file `fd` into the scratch mount and cuts it from its peer group.
    fn bind_aside(&self, fd: BorrowedFd<'_>, extent: Extent) -> io::Result<PathBuf> {
        let spot = self
            .scratch_dir
            .get(&self.scratch)?
            .spot(sys::stat_fd(fd)?.kind)?;
        bind(&proc::path_of_descriptor(&fd), &spot, extent)?;
        make_private(&spot, extent)?;
        Ok(spot)
    }
}

fn bind(source: &Path, target: &Path, extent: Extent) -> io::Result<()> {
    let mut flags = MountFlags::BIND;
    flags.set(MountFlags::REC, extent.is_recursive());
    mount(source, target, flags)
}

/// Remounts the bind at `path` with `attributes`, and so every mount in `extent`. The
/// kernel ignores `MS_REC` on a remount, so each mount is remounted separately; none may be missed
/// but those that another one hides: nothing reaches them.
fn set_attributes(path: &Path, attributes: MountAttributes, extent: Extent) -> io::Result<()> {
    let remount = MountFlags::REMOUNT | MountFlags::BIND | flags(attributes);
    mount(Path::new("none"), path, remount)?;
    if extent.is_recursive() {
        let table = Table::read_text().map_err(io::Error::other)?;
        for below in table.points_below(path) {
            let remounted = mount(Path::new("none"), &below, remount);
            if remounted.is_err() && !is_hidden(&below) {
                return remounted;
            }
        }
    }
    Ok(())
}

/// Whether the mount at `point` is hidden by one that is mounted above it.
fn is_hidden(point: &Path) -> bool {
    let look = || {
        let found = sys::open_host(point, libc::O_PATH)?;
        Ok::<_, io::Error>(sys::mount_of(&found, Path::new(""))?.is_root == Some(false))
    };
    look().unwrap_or_else(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Errors: EINVAL if the kernel did not make what was asked for, as Linux before 5.8 with options
/// of proc.
fn must_be(wanted: FileSystem, at: &Path) -> io::Result<()> {
    let shown = observe::file_system_at(at)?;
    if shown.is_some_and(|shown| wanted.is(shown)) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

/// A mount at this path in the private scratch mount.
pub(super) struct InScratch(PathBuf);

impl Prepared for InScratch {
    /// `None`: a copy is attached, which has an id of its own.
    fn unique_id(&self) -> Option<u64> {
        None
    }

    fn attributes(&self) -> io::Result<Option<MountAttributes>> {
        Ok(None) // they are verified after the mount is attached
    }
}

impl Backend for Classic {
    type Ready = InScratch;

    fn prepare(
        &self,
        source: BorrowedFd<'_>,
        attributes: MountAttributes,
        extent: Extent,
    ) -> io::Result<InScratch> {
        let spot = self.bind_aside(source, extent)?;
        set_attributes(&spot, attributes, extent)?;
        Ok(InScratch(spot))
    }

    fn make(
        &self,
        file_system: FileSystem,
        attributes: MountAttributes,
    ) -> io::Result<(InScratch, FileId)> {
        let spot = self
            .scratch_dir
            .get(&self.scratch)?
            .spot(FileKind::Directory)?;
        let options = file_system.options();
        let options: Vec<_> = options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Mount::builder()
            .fstype(file_system.name())
            .data(&options.join(","))
            .mount(file_system.name(), &spot)?;
        make_private(&spot, Extent::Mount)?;
        must_be(file_system, &spot)?;
        set_attributes(&spot, attributes, Extent::Mount)?;
        let file = sys::stat_fd(sys::open_host(&spot, libc::O_PATH)?)?.file;
        Ok((InScratch(spot), file))
    }

    fn save(&self, top: BorrowedFd<'_>, extent: Extent) -> io::Result<InScratch> {
        self.bind_aside(top, extent).map(InScratch)
    }

    fn follow(
        &self,
        source: BorrowedFd<'_>,
        attributes: Option<MountAttributes>,
        extent: Extent,
    ) -> io::Result<InScratch> {
        let kind = sys::stat_fd(source)?.kind;
        let spot = self.scratch_dir.get(&self.scratch)?.spot(kind)?;
        bind(&proc::path_of_descriptor(&source), &spot, extent)?;
        set_propagation(&spot, libc::MS_SLAVE, extent)?;
        if let Some(attributes) = attributes {
            set_attributes(&spot, attributes, Extent::Mount)?;
        }
        Ok(InScratch(spot))
    }

    fn copy(&self, prepared: &InScratch, _extent: Extent) -> io::Result<InScratch> {
        Ok(InScratch(prepared.0.clone()))
    }

    fn attach(&self, ready: &InScratch, target: BorrowedFd<'_>, extent: Extent) -> io::Result<()> {
        bind(&ready.0, &proc::path_of_descriptor(&target), extent)
    }

    fn stage(&self, ready: &InScratch) -> io::Result<()> {
        let path = &ready.0;
        let kind = sys::stat_fd(sys::open_host(path, libc::O_PATH)?)?.kind;
        bind(
            path,
            &self.scratch_dir.get(&self.scratch)?.spot(kind)?,
            Extent::Mount,
        )
    }

    fn attach_beneath(&self, _ready: &InScratch, _top: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(false)
    }

    fn settle(&self, _prepared: &InScratch) -> io::Result<()> {
        Ok(())
    }

    fn share(&self, _prepared: &InScratch) -> io::Result<()> {
        Ok(())
    }
}

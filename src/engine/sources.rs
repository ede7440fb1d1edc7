//! Sources → finished mounts, out of sight. Each distinct source is prepared once a run; a site's
//! mount is a copy of that prepared one. A copy taken straight from the host's mount would cost
//! time for every mount the host has; one of a prepared, childless mount does not.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};

use super::backend::{Backend, Ready};
use super::mount_op::options_of;
use crate::base::sync::lock;
use crate::base::{Error, MountAttributes, Result};
use crate::resolve::{FileId, Mount};
use crate::sys;

/// The prepared mounts of this run.
pub(super) struct Sources {
    /// More than one site will ask: keep what is prepared.
    sharing: bool,
    prepared: Mutex<HashMap<Key, Arc<OnceLock<Result<Ready>>>>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    file: FileId,
    options: MountAttributes,
    recursive: bool,
}

impl Sources {
    pub(super) fn new(sharing: bool) -> Self {
        Self {
            sharing,
            prepared: Mutex::default(),
        }
    }

    /// A finished mount for `mount`, and which file it shows.
    pub(super) fn ready(&self, backend: &dyn Backend, mount: &Mount) -> Result<(Ready, FileId)> {
        match mount.file {
            Some(file) if self.sharing => self
                .copy_of_prepared(backend, mount, file)
                .map(|ready| (ready, file)),
            _ => prepare(backend, mount),
        }
    }

    fn copy_of_prepared(
        &self,
        backend: &dyn Backend,
        mount: &Mount,
        file: FileId,
    ) -> Result<Ready> {
        let key = Key {
            file,
            options: mount.options,
            recursive: mount.recursive,
        };
        let cell = {
            let mut prepared = lock(&self.prepared);
            Arc::clone(prepared.entry(key).or_default())
        };
        let prepared = cell.get_or_init(|| {
            let (ready, _) = prepare(backend, mount)?;
            backend
                .share(&ready, mount.recursive)
                .map_err(|error| cannot_copy(mount).because(&error))?;
            Ok(ready)
        });
        let prepared = prepared.as_ref().map_err(Clone::clone)?;
        backend
            .copy(prepared, mount.recursive)
            .map_err(|error| cannot_copy(mount).because(&error))
    }
}

fn prepare(backend: &dyn Backend, mount: &Mount) -> Result<(Ready, FileId)> {
    let (source, file) = open(mount)?;
    let ready = backend
        .prepare(source.as_fd(), mount.options, mount.recursive)
        .map_err(|error| explain(cannot_copy(mount).because(&error), mount))?;
    if let Ready::Detached(fd) = &ready {
        let found = options_of(fd).map_err(|error| cannot_copy(mount).because(&error))?;
        if !mount.options.allows(found) {
            return Err(cannot_copy(mount).because_of(format!("the kernel made it {found}")));
        }
    }
    Ok((ready, file))
}

/// Opens the source and makes sure that it still is the file that was resolved.
fn open(mount: &Mount) -> Result<(OwnedFd, FileId)> {
    let cannot = |error: io::Error| {
        let error =
            Error::failed(format!("cannot open the source {}", mount.source)).because(&error);
        explain(error, mount)
    };
    let fd = sys::open_host(mount.source.as_path(), libc::O_PATH).map_err(cannot)?;
    let stat = sys::stat_fd(&fd).map_err(cannot)?;
    if stat.kind != mount.kind || mount.file.is_some_and(|file| file != stat.file) {
        return Err(Error::failed(format!(
            "{} was replaced while it was being mounted",
            mount.source
        ))
        .overtaken());
    }
    Ok((fd, stat.file))
}

fn cannot_copy(mount: &Mount) -> Error {
    Error::failed(format!(
        "cannot prepare the mount of {} ({})",
        mount.source, mount.options
    ))
}

fn explain(error: Error, mount: &Mount) -> Error {
    match error.errno() {
        Some(libc::ENOENT | libc::ESTALE) => error.overtaken(), // it was there when it was resolved
        Some(libc::EPERM) => error
            .hint("mountjail needs CAP_SYS_ADMIN in the host's mount namespace; run it as root"),
        Some(libc::EINVAL) => error.hint(format!(
            "{} may lie on an unbindable mount: see `findmnt -o TARGET,PROPAGATION`",
            mount.source
        )),
        Some(libc::ENOSPC) => {
            error.hint("the limit fs.mount-max is reached: see `sysctl fs.mount-max`")
        }
        _ => error,
    }
}

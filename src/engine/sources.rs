//! Turns sources into finished mounts, out of sight. Each distinct source is prepared once per run,
//! and the mount of a site is a copy of the prepared one. A copy taken directly from a mount of the
//! host would take time for every mount of the host; a copy of a prepared mount without submounts
//! does not.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};

use super::backend::{Backend, Prepared};
use super::templates::{ShownTemplate, TemplateStore};
use crate::base::hints::Doing;
use crate::base::sync::lock;
use crate::base::{
    Error, ErrorContext, Extent, FileSystem, HostPath, JailPath, MountAttributes, Result, SiteName,
};
use crate::plan::Template;
use crate::resolve::{FileId, Mount};
use crate::sys::{self, Stat};

/// The prepared mounts of this run.
pub(super) struct Sources<B: Backend> {
    /// Whether prepared mounts are kept, because several sites use them.
    sharing: bool,
    prepared: Mutex<HashMap<SourceKey, Cell<B::Ready>>>,
    /// Grafts, by their templates and the files that these show: a copy that is mounted nowhere
    /// does not follow.
    grafts: Mutex<HashMap<ShownTemplate, GraftCell<B>>>,
}

/// The place of a prepared graft, with the directory that it shows.
type GraftCell<B> = Cell<(<B as Backend>::Ready, FileId)>;

/// The place of a prepared mount. The first thread that needs it prepares it, and others wait.
type Cell<T> = Arc<OnceLock<Result<T>>>;

#[derive(PartialEq, Eq, Hash)]
struct SourceKey {
    file: FileId,
    attributes: MountAttributes,
    extent: Extent,
}

impl<B: Backend> Sources<B> {
    pub(super) fn new(sharing: bool) -> Self {
        Self {
            sharing,
            prepared: Mutex::default(),
            grafts: Mutex::default(),
        }
    }

    /// Returns a finished mount for `mount`, and the file that it shows.
    pub(super) fn ready(&self, backend: &B, mount: &Mount) -> Result<(B::Ready, FileId)> {
        if let Some(file_system) = mount.file_system {
            return make(backend, mount, file_system);
        }
        match mount.file {
            Some(file) if self.sharing => {
                let ready = self.copy_of_prepared(backend, mount, file)?;
                Ok((ready, file))
            }
            _ => prepare(backend, mount),
        }
    }

    /// Returns a graft of `template`, which has this name, and the directory that it shows.
    pub(super) fn graft(
        &self,
        backend: &B,
        store: &TemplateStore,
        name: &SiteName,
        template: &Template,
    ) -> Result<(B::Ready, FileId)> {
        let (at, attributes) = (&template.at, Some(MountAttributes::DATA));
        if !self.sharing {
            return follow(backend, store, name, at, attributes);
        }

        let files = template.mounts.iter().map(|mount| mount.file).collect();
        let shown = (name.clone(), files);
        let cell = Arc::clone(lock(&self.grafts).entry(shown).or_default());
        let prepared = cell.get_or_init(|| {
            let (ready, file) = follow(backend, store, name, at, attributes)?;
            followed(name, at, backend.settle(&ready))?;
            Ok((ready, file))
        });
        let (prepared, file) = prepared.as_ref().map_err(Clone::clone)?;
        let copy = followed(name, at, backend.copy(prepared, Extent::Tree))?;
        Ok((copy, *file))
    }

    fn copy_of_prepared(&self, backend: &B, mount: &Mount, file: FileId) -> Result<B::Ready> {
        let key = SourceKey {
            file,
            attributes: mount.attributes,
            extent: mount.extent(),
        };

        let cell = Arc::clone(lock(&self.prepared).entry(key).or_default());
        let prepared = cell.get_or_init(|| {
            let (ready, _) = prepare(backend, mount)?;
            copied(mount, backend.share(&ready))?;
            Ok(ready)
        });

        let prepared = prepared.as_ref().map_err(Clone::clone)?;
        copied(mount, backend.copy(prepared, mount.extent()))
    }
}

/// Returns a mount that follows the one that `path` of `template` is on, and the file that it
/// shows: with `attributes`, a graft with all mounts in it; without, a single mount as it is.
pub(super) fn follow<B: Backend>(
    backend: &B,
    store: &TemplateStore,
    template: &SiteName,
    path: &JailPath,
    attributes: Option<MountAttributes>,
) -> Result<(B::Ready, FileId)> {
    let extent = Extent::from_recursive(attributes.is_some());
    let follow = || {
        let source = store.open_in(template, path)?;
        let file = sys::stat_fd(&source)?.file;
        let ready = backend.follow(source.as_fd(), attributes, extent)?;
        Ok((ready, file))
    };
    followed(template, path, store.within(template, follow)?)
}

/// `result`, of which an error names what could not be copied.
fn followed<T>(template: &SiteName, path: &JailPath, result: io::Result<T>) -> Result<T> {
    result
        .context(format_args!("cannot copy {path} of {template}"))
        .map_err(|error| error.hint_while(Doing::Mounting))
}

/// Makes a file system of the site's own.
fn make<B: Backend>(
    backend: &B,
    mount: &Mount,
    file_system: FileSystem,
) -> Result<(B::Ready, FileId)> {
    let made = backend.make(file_system, mount.attributes);
    let error = match made.context(format_args!("cannot make {}", mount.what())) {
        Ok(made) => return Ok(made),
        Err(error) => error,
    };
    Err(match error.errno() {
        // Before Linux 5.8 all mounts of a PID namespace's proc have the same options.
        Some(libc::EINVAL) if file_system == FileSystem::Proc => error.hint(
            "`proc` needs Linux 5.8; before that, take it out and mount /proc by other means",
        ),
        _ => error.hint_while(Doing::Mounting),
    })
}

fn prepare<B: Backend>(backend: &B, mount: &Mount) -> Result<(B::Ready, FileId)> {
    let (source, file) = open(mount)?;
    let ready = backend.prepare(source.as_fd(), mount.attributes, mount.extent());
    let ready = copied(mount, ready)?;

    let found = match ready.attributes() {
        Ok(found) => found,
        Err(error) => return Err(cannot_copy(mount).because(&error)),
    };
    if let Some(found) = found
        && !mount.attributes.allows(found)
    {
        return Err(cannot_copy(mount).because_of(format!("the kernel made it {found}")));
    }
    Ok((ready, file))
}

/// Opens the source and makes sure that it is still the file that was resolved.
fn open(mount: &Mount) -> Result<(OwnedFd, FileId)> {
    let cannot = format_args!("cannot open the source {}", mount.source);
    let (fd, stat) = match open_with_stat(&mount.source).context(cannot) {
        Ok(opened) => opened,
        Err(error) => return Err(explain(error, mount)),
    };
    if stat.kind != mount.kind || mount.file.is_some_and(|file| file != stat.file) {
        return Err(Error::failed(format!(
            "{} was replaced while it was being mounted",
            mount.source
        ))
        .overtaken());
    }
    Ok((fd, stat.file))
}

fn open_with_stat(path: &HostPath) -> io::Result<(OwnedFd, Stat)> {
    let fd = sys::open_host(path.as_path(), libc::O_PATH)?;
    let stat = sys::stat_fd(&fd)?;
    Ok((fd, stat))
}

/// `result`, of which an error names the mount that could not be prepared.
fn copied<T>(mount: &Mount, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| explain(cannot_copy(mount).because(&error), mount))
}

fn cannot_copy(mount: &Mount) -> Error {
    Error::failed(format!(
        "cannot prepare the mount of {} ({})",
        mount.source, mount.attributes
    ))
}

fn explain(error: Error, mount: &Mount) -> Error {
    match error.errno() {
        Some(libc::ENOENT | libc::ESTALE) => error.overtaken(), // it existed when it was resolved
        Some(libc::EINVAL) => error.hint(format!(
            "{} may lie on an unbindable mount: see `findmnt -o TARGET,PROPAGATION`",
            mount.source
        )),
        Some(libc::EPERM | libc::ENOSPC) => error.hint_while(Doing::Mounting),
        _ => error,
    }
}

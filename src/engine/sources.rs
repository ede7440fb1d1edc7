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
use crate::base::{Error, Extent, FileSystem, JailPath, MountAttributes, Result, SiteName};
use crate::plan::Template;
use crate::resolve::{FileId, Mount};
use crate::sys;

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
            Some(file) if self.sharing => self
                .copy_of_prepared(backend, mount, file)
                .map(|ready| (ready, file)),
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
        let at = &template.at;
        let follow = || follow(backend, store, name, at, Some(MountAttributes::DATA));
        if !self.sharing {
            return follow();
        }

        let files = template.mounts.iter().map(|mount| mount.file).collect();
        let shown = (name.clone(), files);
        let cell = Arc::clone(lock(&self.grafts).entry(shown).or_default());
        let cannot = |error: io::Error| cannot_follow(name, at, &error);
        let prepared = cell.get_or_init(|| {
            let (ready, file) = follow()?;
            backend.settle(&ready).map_err(cannot)?;
            Ok((ready, file))
        });
        let (prepared, file) = prepared.as_ref().map_err(Clone::clone)?;
        let copy = backend.copy(prepared, Extent::Tree).map_err(cannot)?;
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
            backend
                .share(&ready)
                .map_err(|error| explain(cannot_copy(mount).because(&error), mount))?;
            Ok(ready)
        });

        let prepared = prepared.as_ref().map_err(Clone::clone)?;
        backend
            .copy(prepared, mount.extent())
            .map_err(|error| explain(cannot_copy(mount).because(&error), mount))
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
    store
        .within(template, follow)?
        .map_err(|error: io::Error| cannot_follow(template, path, &error))
}

fn cannot_follow(template: &SiteName, path: &JailPath, error: &io::Error) -> Error {
    Error::failed(format!("cannot copy {path} of {template}"))
        .because(error)
        .hint_while(Doing::Mounting)
}

/// Makes a file system of the site's own.
fn make<B: Backend>(
    backend: &B,
    mount: &Mount,
    file_system: FileSystem,
) -> Result<(B::Ready, FileId)> {
    let cannot = |error: io::Error| {
        let error = Error::failed(format!("cannot make {}", mount.what())).because(&error);
        match error.errno() {
            // Before Linux 5.8 all mounts of a PID namespace's proc have the same options.
            Some(libc::EINVAL) if file_system == FileSystem::Proc => error.hint(
                "`proc` needs Linux 5.8; before that, take it out and mount /proc by other means",
            ),
            _ => error.hint_while(Doing::Mounting),
        }
    };
    backend.make(file_system, mount.attributes).map_err(cannot)
}

fn prepare<B: Backend>(backend: &B, mount: &Mount) -> Result<(B::Ready, FileId)> {
    let (source, file) = open(mount)?;
    let ready = backend
        .prepare(source.as_fd(), mount.attributes, mount.extent())
        .map_err(|error| explain(cannot_copy(mount).because(&error), mount))?;

    let found = ready
        .attributes()
        .map_err(|error| cannot_copy(mount).because(&error))?;
    if let Some(found) = found.filter(|found| !mount.attributes.allows(*found)) {
        return Err(cannot_copy(mount).because_of(format!("the kernel made it {found}")));
    }
    Ok((ready, file))
}

/// Opens the source and makes sure that it is still the file that was resolved.
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

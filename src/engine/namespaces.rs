//! Mount namespaces of services: making one, working in one, and forgetting those that are gone.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::journal::write_json;
use super::replace::Durability;
use super::state_directories::make_state_directories;
use crate::base::{Error, ErrorContext, Extent, Result};
use crate::observe::{
    BootId, NAMESPACE_VERSION, NamespaceId, NamespaceRecord, RunNamespace, RunNamespaces, StateDir,
    Table, namespace_inode, namespace_record,
};
use crate::patience;
use crate::sys::{self, MountAttr, proc};

/// Gives this process a mount namespace of its own, into which the mounts of the old one propagate,
/// and none out of it: `unshare(2)`. The process must have one thread.
pub(crate) fn leave_mount_namespace() -> Result<()> {
    let none: Option<&Path> = None;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none))
        .map_err(|error| {
            let failed = Error::failed("cannot make a mount namespace").because(&error.into());
            match error {
                nix::Error::ENOSPC => failed.hint("see `sysctl user.max_mnt_namespaces`"),
                nix::Error::EPERM | nix::Error::ENOSYS => failed.hint(
                    "that needs root with CAP_SYS_ADMIN; of a service, `mountjail units --check` \
                     names the line that lets it",
                ),
                _ => failed,
            }
        })
}

/// Records the namespace of this process, which `pid` made for one of `units`; returns the
/// directories for the sites in it.
pub(crate) fn record_namespace(
    state: &StateDir,
    boot: BootId,
    pid: u32,
    units: &[String],
) -> Result<StateDir> {
    let id = own_id()?;
    let record = NamespaceRecord {
        version: NAMESPACE_VERSION,
        boot,
        id,
        pid,
        started: proc::start_time(&proc::of(pid)),
        pid_namespace: namespace_inode(Path::new("/proc/self/ns/pid")),
        units: units.to_vec(),
    };
    let own = state.of_namespace(&id.to_string());
    make_state_directories(state)?;
    forget_earlier(&own)?;
    make_state_directories(&own)?;
    write_json(&namespace_record(&own.run), &record, Durability::ThisBoot)?;
    Ok(own)
}

/// Removes the records of an earlier namespace with the same id (before Linux 6.8).
fn forget_earlier(own: &StateDir) -> Result<()> {
    match fs::remove_dir_all(&own.run) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let records = own.run.display();
            Err(Error::failed(format!("cannot remove the old records {records}")).because(&error))
        }
        _ => Ok(()),
    }
}

/// The id of the mount namespace of this process, as the directory of its records is called.
pub(crate) fn own_namespace_id() -> Result<String> {
    own_id().map(|id| id.to_string())
}

/// Does `work` in a thread that is in `namespace`, as are the threads that it starts.
///
/// Errors: the namespace is gone.
pub(crate) fn within<T: Send>(
    namespace: &RunNamespace,
    work: impl FnOnce() -> T + Send,
) -> Result<T> {
    let opened = open(namespace)?;
    let expected = namespace.record.id;
    let checked = move || match own_id() {
        Ok(id) if id == expected => Ok(work()),
        Ok(_) => Err(gone(namespace)),
        Err(error) => Err(error),
    };
    in_namespace(opened.as_fd(), checked)?
}

/// Puts this process, which has one thread, into `namespace`.
pub(crate) fn enter(namespace: &RunNamespace) -> Result<()> {
    let opened = open(namespace)?;
    setns(opened, CloneFlags::CLONE_NEWNS)
        .map_err(|error| cannot_enter(namespace, &error.into()))?;
    if own_id()? == namespace.record.id {
        Ok(())
    } else {
        Err(gone(namespace))
    }
}

fn open(namespace: &RunNamespace) -> Result<File> {
    let path = format!("/proc/{}/ns/mnt", namespace.process.pid);
    let opened = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => gone(namespace),
        _ => cannot_enter(namespace, &error),
    })?;
    let inode = opened.metadata().map(|found| found.ino());
    match inode {
        Ok(inode) if inode == namespace.record.id.inode => Ok(opened),
        _ => Err(gone(namespace)),
    }
}

fn gone(namespace: &RunNamespace) -> Error {
    Error::failed(format!(
        "the mount namespace of {namespace} is gone: the service has ended"
    ))
    .overtaken()
}

fn cannot_enter(namespace: &RunNamespace, error: &io::Error) -> Error {
    Error::failed(format!("cannot enter the mount namespace of {namespace}")).because(error)
}

fn cannot_find(error: &io::Error) -> Error {
    Error::failed("cannot find out the mount namespace of this process")
        .because(error)
        .hint("is /proc mounted?")
}

/// Does `work` in a thread of its own in `namespace`.
fn in_namespace<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T> {
    sys::on_thread(|| {
        sys::enter_mount_namespace(namespace)?;
        Ok(work())
    })
    .context("cannot enter a mount namespace")
}

/// The mount namespace of a thread, to go back to from another one.
pub(crate) struct OwnNamespace(OwnedFd);

impl OwnNamespace {
    /// That of this thread.
    pub(crate) fn open() -> Result<Self> {
        let opened = sys::mount_namespace().map_err(|error| cannot_find(&error))?;
        Ok(Self(opened))
    }

    /// Does `work` in a thread that is in it.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_namespace(self.0.as_fd(), work)
    }
}

/// The id of the mount namespace of this thread, whose root directory is the namespace's.
fn own_id() -> Result<NamespaceId> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let root = sys::open_host(Path::new("/"), flags).and_then(sys::stat_fd);
    let root = root.map_err(|error| cannot_find(&error))?;
    let namespace = sys::mount_namespace().and_then(sys::stat_fd_unsynced);
    let namespace = namespace.map_err(|error| cannot_find(&error))?;
    Ok(NamespaceId {
        inode: namespace.file.ino,
        root_mount: root.mount_id.unwrap_or(0),
    })
}

/// Removes what is left of namespaces that are gone; returns those that exist. What cannot be
/// removed is left to the next run.
pub(crate) fn swept(state: &StateDir, boot: &BootId) -> Vec<RunNamespace> {
    let found = RunNamespaces::find(state, boot);
    for directory in found.gone {
        let _ = fs::remove_dir_all(directory);
    }
    found.living
}

/// Mounts that a service's sandbox has read-only (`ProtectSystem=strict`), and that are writable
/// for a while, in a namespace that nobody else is in yet.
pub(crate) struct Unprotected(Vec<OwnedFd>);

impl Unprotected {
    /// Makes those of the mounts that `paths` are on writable that are read-only.
    /// Paths that do not answer within `limit` are left out.
    pub(crate) fn new(paths: Vec<PathBuf>, limit: Option<Duration>) -> Result<Self> {
        let table = Table::read_text()?;
        let found = patience::each_within(paths, limit, move |path| read_only_mount(path, &table));
        let mut mounts: Vec<(u64, OwnedFd)> = vec![];
        for (id, mount) in found.into_iter().flatten().flatten() {
            if mounts.iter().all(|(known, _)| *known != id) {
                mounts.push((id, mount));
            }
        }
        let mounts = Self(mounts.into_iter().map(|(_, mount)| mount).collect());
        mounts.set(MountAttr {
            clear: libc::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        })?;
        Ok(mounts)
    }

    /// Makes them read-only again.
    pub(crate) fn protect(self) -> Result<()> {
        self.set(MountAttr {
            set: libc::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        })
    }

    fn set(&self, attributes: MountAttr) -> Result<()> {
        for mount in &self.0 {
            sys::mount_setattr(mount, Extent::Mount, &attributes).map_err(|error| {
                Error::failed("cannot change whether a mount of the service is read-only")
                    .because(&error)
                    .hint("`ReadWritePaths=` in the unit makes the site's root writable")
            })?;
        }
        Ok(())
    }
}

/// The mount that `path`, or the nearest directory above it, is on, if it is read-only and its root
/// can be reached.
fn read_only_mount(path: &Path, table: &Table) -> Option<(u64, OwnedFd)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let mut above = path.ancestors();
    let found = above.find_map(|above| sys::open_host(above, flags).ok())?;
    let is_read_only = fstatvfs(&found).is_ok_and(|vfs| vfs.flags().contains(FsFlags::ST_RDONLY));
    if !is_read_only {
        return None;
    }
    let id = sys::mount_id_in_table(&found).ok()?;
    let mount = sys::open_host(&table.point_of(id)?, libc::O_PATH).ok()?;
    let is_visible = sys::mount_id_in_table(&mount).is_ok_and(|visible| visible == id);
    is_visible.then_some((id, mount))
}

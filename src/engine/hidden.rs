//! Mounts and directories that another mount hides. They are reached through the mount that they
//! are on, not by their paths.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::base::Extent;
use crate::sys::{self, proc};

/// A mount as its own file system shows it, without anything that is mounted on it.
struct Bare {
    /// Its root, open for reading.
    mount: OwnedFd,
    /// A copy of it that nobody else can see.
    copy: OwnedFd,
    point: PathBuf,
}

impl Bare {
    /// Opens the mount with the unique ID `id`.
    ///
    /// Errors: it is itself hidden, or cannot be opened or copied.
    fn of(id: u64) -> io::Result<Self> {
        let mount = sys::stat_mount(id)?;
        let root = sys::open_host(&mount.point, libc::O_RDONLY | libc::O_DIRECTORY)?;
        if sys::mount_of(&root, Path::new(""))?.id != Some(mount.id) {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }

        let copy = sys::clone_mount(&root, Extent::Mount)?;
        Ok(Self {
            mount: root,
            copy,
            point: mount.point,
        })
    }

    /// Opens the file at `path` with `O_PATH`. `path` is a path on the host in this mount.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let below = path.strip_prefix(&self.point).map_err(io::Error::other)?;
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        sys::open_beneath(&self.copy, below, libc::O_PATH)
    }
}

/// Opens the directory at `path` as it is on the mount with the unique ID `mount`, without
/// anything mounted in it.
pub(super) fn open(mount: u64, path: &Path) -> io::Result<OwnedFd> {
    Bare::of(mount)?.open(path)
}

/// Detaches the mount with the unique ID `id`, whatever hides it. A mount that is gone is not
/// an error. The caller has made sure that nothing is mounted in it.
///
/// Errors: the mount that it is on cannot be reached.
pub(super) fn detach(id: u64) -> io::Result<()> {
    match detach_below(id) {
        Err(error) if sys::mount_exists(id) => Err(error),
        Ok(()) if sys::mount_exists(id) => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        _ => Ok(()),
    }
}

fn detach_below(id: u64) -> io::Result<()> {
    let mount = sys::stat_mount(id)?;
    let bare = Bare::of(mount.parent)?;
    let on = sys::reopen_on(&bare.mount, bare.open(&mount.point)?)?;
    if std::fs::read_link(proc::path_of_descriptor(&on))? != mount.point {
        // It has moved, or the handle led to another name of the same file.
        return Err(io::Error::other("it has moved"));
    }
    sys::umount_at(on.as_fd())
}

/// Returns the mount point of a mount that hides the one with the unique ID `id`, if there is
/// one.
pub(super) fn hidden_by(id: u64) -> Option<PathBuf> {
    let point = sys::stat_mount(id).ok()?.point;

    let mut below = vec![id]; // the mounts that it is on, which do not hide it
    while let Ok(mount) = sys::stat_mount(*below.last()?) {
        if below.contains(&mount.parent) {
            break;
        }
        below.push(mount.parent);
    }

    let mut others = sys::list_mounts().ok()?;
    others.retain(|other| !below.contains(other));
    let points = others
        .into_iter()
        .filter_map(|other| sys::stat_mount(other).ok())
        .map(|mount| mount.point);
    points
        .filter(|other| !other.as_os_str().is_empty() && point.starts_with(other))
        .min()
}

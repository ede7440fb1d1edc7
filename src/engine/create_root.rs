//! The directory of a new site.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};

use super::root::{acls, must_be_new};
use crate::base::{ErrorContext, HostPath};
use crate::resolve::{nearest_existing, refuse_system};
use crate::{Error, Result, sys};

/// Makes the directory `root` and its missing parents (mode 0755), as `up --create` does. `false`:
/// it already exists.
pub(crate) fn create_root(root: &HostPath) -> Result<bool> {
    refuse_system(root)?;
    let Some((existing, rest)) = nearest_existing(root)? else {
        return Ok(false);
    };

    // Links on the way may lead into the system, so this is checked before anything is made.
    let real = existing
        .join(rest)
        .map_err(|why| Error::usage(root.to_string()).because_of(why))?;
    refuse_system(&real)?;

    make_below(&existing, rest)
        .map(|()| true)
        .context(format_args!("cannot make the root {root}"))
}

/// The directories that are made for a root which does not exist.
#[derive(Default)]
pub(crate) struct MadeDirectories(Vec<HostPath>);

impl MadeDirectories {
    /// Those that are missing now, the root first.
    pub(crate) fn above(root: &HostPath) -> Self {
        let is_missing = |path: &HostPath| path.as_path().symlink_metadata().is_err();
        let above = std::iter::successors(Some(root.clone()), HostPath::parent);
        Self(above.take_while(is_missing).collect())
    }

    /// Removes them, as far as they are empty.
    pub(crate) fn remove(self) {
        for directory in self.0 {
            if std::fs::remove_dir(directory.as_path()).is_err() {
                return; // somebody uses it meanwhile
            }
        }
    }
}

/// Makes the directories `path` in `directory`. No link is followed.
fn make_below(directory: &HostPath, path: &Path) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o755);
    let mut at = sys::open_host(directory.as_path(), libc::O_PATH | libc::O_DIRECTORY)?;
    for name in path {
        mkdirat(&at, name, mode)?;
        at = openat(&at, name, flags, Mode::empty())?;
        give_back(&at, mode)?;
    }
    Ok(())
}

/// Adds the permissions in `mode` that the umask took from the new directory. Where a default ACL
/// is inherited, it decides in place of the umask: acl(5).
fn give_back(new: &OwnedFd, mode: Mode) -> io::Result<()> {
    let found = sys::stat_fd(new)?;
    if found.mode & mode.bits() == mode.bits() || !acls(new).is_empty() {
        return Ok(());
    }
    must_be_new(new, &found)?;
    Ok(fchmod(new, Mode::from_bits_truncate(found.mode) | mode)?)
}

//! Names in open directories of a root: made, renamed and removed without following a link.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, unlinkat};
use rustix::fs::{RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use crate::sys::{self, FileKind, Stat};

/// A name in an open directory.
pub(super) struct Slot {
    pub dir: OwnedFd,
    pub name: OsString,
}

impl Slot {
    /// The file that is here. Links are not followed.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        sys::stat_at(&self.dir, Path::new(&self.name))
    }

    /// This slot, and the status of what is here.
    pub(super) fn with_stat(self) -> io::Result<(Self, Stat)> {
        let stat = self.stat()?;
        Ok((self, stat))
    }
}

/// Makes a directory that is root's alone, whatever it would inherit.
pub(super) fn make_directory(dir: &OwnedFd, name: &Path) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(0o700);
    mkdirat(dir, name, mode)?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let closed = match sys::open_unmounted(dir, name, flags) {
        Ok(new) => super::super::root::set_mode(&new, mode).map(drop),
        Err(error) => Err(error),
    };
    if closed.is_err() {
        let _ = unlinkat(dir, name, UnlinkatFlags::RemoveDir); // the first error counts
    }
    closed
}

/// Renames what is at `from`, if nothing is at `to`.
pub(super) fn rename(from: &Slot, to: &Slot) -> io::Result<()> {
    match renameat_with(
        &from.dir,
        &from.name,
        &to.dir,
        &to.name,
        RenameFlags::NOREPLACE,
    ) {
        Err(Errno::INVAL | Errno::NOSYS) => rename_without_flags(from, to),
        result => Ok(result?),
    }
}

/// For file systems without `RENAME_NOREPLACE`. A directory cannot take the place of anything but
/// an empty directory, and link(2) never replaces.
fn rename_without_flags(from: &Slot, to: &Slot) -> io::Result<()> {
    if from.stat()?.kind == FileKind::Directory {
        return Ok(renameat(&from.dir, &from.name, &to.dir, &to.name)?);
    }
    let (old, new) = (from.name.as_os_str(), to.name.as_os_str());
    linkat(&from.dir, old, &to.dir, new, LinkatFlags::empty())?;
    Ok(unlinkat(&from.dir, old, UnlinkatFlags::NoRemoveDir)?)
}

/// Removes the directory `name` and the empty directories in it.
pub(super) fn remove_empty(dir: &OwnedFd, name: &Path) -> io::Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let inner = match sys::open_unmounted(dir, name, flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    let mut directories = BTreeSet::new();
    for entry in std::fs::read_dir(sys::proc::path_of_descriptor(&inner))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.insert(entry.file_name());
        }
    }
    for directory in directories {
        remove_empty(&inner, Path::new(&directory))?;
    }
    match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
        Err(nix::errno::Errno::ENOTEMPTY | nix::errno::Errno::ENOENT) => Ok(()),
        result => Ok(result?),
    }
}

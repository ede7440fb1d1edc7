//! The contents of files and directories of the host.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::dependencies::Aspect;
use super::host::{Host, HostEntry, look, seen, unreadable};
use super::lookup_error::{LookupError, found};
use crate::base::HostPath;
use crate::sys::{self, FileKind};

/// The most that [`Host::read`] takes in, in bytes. `/etc/ld.so.cache` is the largest file that it
/// reads.
const MAX_READ: u64 = 64 << 20;

/// An entry of a directory that is root's alone.
pub(super) enum RootsEntry {
    /// A regular file.
    File(HostPath),
    /// A directory of the same file system.
    Directory(HostPath),
    Link(RootsLink),
}

/// A link of root's.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RootsLink {
    pub at: PathBuf,
    pub destination: PathBuf,
}

impl Host {
    /// Opens the regular file that `path` leads to. A FIFO or device is refused: opening one can
    /// block or act.
    pub fn open(&self, path: &HostPath) -> Result<File, LookupError> {
        let walk = self.walk(path)?;
        match walk.stat.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(LookupError::unreadable(path, libc::EISDIR)),
            _ => return Err(LookupError::unreadable(path, libc::EINVAL)),
        }

        self.note(walk.real.as_path(), Aspect::CONTENTS);
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(self.on_disk(walk.real.as_path()))
            .map_err(|error| unreadable(path, &error))
    }

    /// All bytes of a regular file; EFBIG above 64 MiB.
    pub fn read(&self, path: &HostPath) -> Result<Vec<u8>, LookupError> {
        self.read_up_to(path, MAX_READ)
    }

    /// As [`Host::read`]; EFBIG above `limit` bytes.
    pub(super) fn read_up_to(&self, path: &HostPath, limit: u64) -> Result<Vec<u8>, LookupError> {
        let file = self.open(path)?;
        sys::read_at_most(file, limit).map_err(|error| unreadable(path, &error))
    }

    /// The names in the directory that `path` leads to, sorted by byte, without `.` and `..`.
    pub fn read_dir(&self, path: &HostPath) -> Result<Vec<OsString>, LookupError> {
        let real = self.walk(path)?.real;
        self.note(real.as_path(), Aspect::NAMES);
        names_in(&self.on_disk(real.as_path())).map_err(|error| unreadable(path, &error))
    }

    /// The files, subdirectories and links in the real directory `path`, if it belongs to root and
    /// nobody else can write to it. Links of other users are left out. `None`: others can write to
    /// it, or it is gone.
    ///
    /// Errors: it cannot be looked at.
    pub(super) fn roots_entries(
        &self,
        path: &HostPath,
    ) -> Result<Option<Vec<RootsEntry>>, LookupError> {
        let on_disk = self.on_disk(path.as_path());
        let Some(HostEntry { stat, .. }) = seen(path, look(&on_disk))? else {
            return Ok(None);
        };
        if stat.kind != FileKind::Directory || !sys::is_roots(stat.uid) || stat.mode & 0o022 != 0 {
            return Ok(None);
        }

        self.note(path.as_path(), Aspect::NAMES);
        let unreadable = |error: io::Error| unreadable(path, &error);
        let Some(listed) = found(fs::read_dir(&on_disk).map_err(unreadable))? else {
            return Ok(None);
        };
        let mut entries = vec![];
        for entry in listed {
            let entry = entry.map_err(unreadable)?;
            let Some(kind) = found(entry.file_type().map_err(unreadable))? else {
                continue; // it is gone
            };
            let Ok(inside) = path.join(entry.file_name()) else {
                continue;
            };
            if kind.is_file() {
                entries.push(RootsEntry::File(inside));
                continue;
            }
            if !kind.is_dir() && !kind.is_symlink() {
                continue;
            }
            let Some(node) = seen(&inside, look(&entry.path()))? else {
                continue;
            };
            if kind.is_dir() && node.stat.file.dev == stat.file.dev {
                entries.push(RootsEntry::Directory(inside));
            } else if let Some(destination) = node.link
                && sys::is_roots(node.stat.uid)
            {
                let at = inside.as_path().to_owned();
                entries.push(RootsEntry::Link(RootsLink { at, destination }));
            }
        }
        Ok(Some(entries))
    }
}

/// The names in the directory, sorted.
fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = vec![];
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_sees_one_state_and_directories_are_listed_sorted() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["c", "a", "b"] {
            fs::create_dir_all(dir.path().join("etc").join(name)).unwrap();
        }
        let (host, a) = (Host::at(dir.path()), HostPath::new("/etc/a").unwrap());
        assert_eq!(host.is_there(&a), Ok(true));
        fs::remove_dir(dir.path().join("etc/a")).unwrap();
        assert_eq!(host.is_there(&a), Ok(true));
        assert_eq!(
            host.read_dir(&HostPath::new("/etc").unwrap()).unwrap(),
            ["b", "c"]
        );
    }
}

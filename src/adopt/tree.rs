//! Which files a path in a root names: the path alone, or a directory with everything in it. It
//! tells whether what was moved is what was looked at.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::sys::{self, FileId, FileKind, proc};

/// How deep directories are looked into.
pub(super) const DEEPEST: usize = 64;

/// How many files are looked at in one root.
pub(super) const MOST: usize = 100_000;

/// Files by their paths below the one that is looked at, sorted.
pub(crate) type Tree = Vec<(PathBuf, FileId)>;

/// The tree of `name` in the directory `dir`.
///
/// Errors: EXDEV if something is mounted in it; E2BIG if it is too large or too deep.
pub(crate) fn tree(dir: &OwnedFd, name: &Path) -> io::Result<Tree> {
    let mut found = vec![];
    add(dir, name, Path::new(""), &mut found)?;
    found.sort();
    Ok(found)
}

fn add(dir: &OwnedFd, name: &Path, below: &Path, found: &mut Tree) -> io::Result<()> {
    if found.len() >= MOST || below.components().count() > DEEPEST {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let stat = sys::stat_at(dir, name)?;
    found.push((below.to_owned(), stat.file));
    if stat.kind == FileKind::Directory {
        let inner = open_directory(dir, name)?;
        for entry in entries(&inner)? {
            add(&inner, Path::new(&entry), &below.join(&entry), found)?;
        }
    }
    Ok(())
}

/// Opens the directory `name` in `dir`, to read it.
///
/// Errors: EXDEV if something is mounted on it; ELOOP for a link.
pub(super) fn open_directory(dir: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK;
    sys::open_unmounted(dir, name, flags)
}

/// The names in an open directory, sorted.
pub(super) fn entries(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = vec![];
    for entry in fs::read_dir(proc::path_of_descriptor(dir))? {
        names.push(entry?.file_name());
        if names.len() > MOST {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
    }
    names.sort();
    Ok(names)
}

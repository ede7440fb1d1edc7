//! The things that were moved aside. The record is in the directory that it is about, so it goes
//! where the root goes.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};
use serde::{Deserialize, Serialize};

use crate::base::quote::shell_path;
use crate::base::{Error, ErrorContext, HostPath, JailPath, Result};
use crate::observe::{Identity, Unknown};
use crate::sys::{self, FileKind, Stat};

/// The directory in a root into which copies are moved.
pub(crate) const DIRECTORY: &str = "/.mountjail-adopted";

/// [`DIRECTORY`], from the root.
pub(crate) fn name_of_directory() -> &'static Path {
    let path = Path::new(DIRECTORY);
    path.strip_prefix("/").unwrap_or(path)
}

/// The record in it.
pub(crate) const RECORD: &str = "record.json";

/// The version of the record that this mountjail writes.
const VERSION: u32 = 1;

/// The longest record that is read.
const LONGEST: u64 = 64 << 20;

/// The things that were moved aside in a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AsideRecord {
    pub version: u32,
    pub moved: Vec<Moved>,
    /// The directories that changed with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<ChangedDirectory>,
    /// Fields of a newer mountjail.
    #[serde(flatten)]
    pub more: Unknown,
}

/// A directory that something was moved out of, or one above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangedDirectory {
    pub path: JailPath,
    /// When it was last changed before.
    pub modified: Modified,
}

/// The time of a directory's last change, in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Modified(i64, i64);

impl Modified {
    pub(crate) fn of(dir: &OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(dir)?;
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Ok(Self(stat.st_mtime, nanoseconds))
    }

    /// Gives the open directory this time. Its time of access stays.
    pub(crate) fn set(self, dir: &OwnedFd) -> io::Result<()> {
        let time = |seconds, nanoseconds| Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let times = Timestamps {
            last_access: time(0, UTIME_OMIT),
            last_modification: time(self.0, self.1),
        };
        Ok(futimens(dir, &times)?)
    }
}

/// One thing that was moved aside, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moved {
    /// Where it was.
    pub path: JailPath,
    /// Where it is: below [`DIRECTORY`].
    pub to: JailPath,
    pub file: Identity,
    /// Whether the site has come up without it.
    pub settled: bool,
    /// Fields of a newer mountjail.
    #[serde(flatten)]
    pub more: Unknown,
}

impl AsideRecord {
    pub(crate) fn new() -> Self {
        Self {
            version: VERSION,
            moved: vec![],
            directories: vec![],
            more: Unknown::new(),
        }
    }

    /// Remembers when the directory was last changed, unless something was moved before.
    pub(crate) fn remember(&mut self, path: &JailPath, modified: Modified) {
        if !self.directories.iter().any(|known| known.path == *path) {
            let path = path.clone();
            self.directories.push(ChangedDirectory { path, modified });
        }
    }

    /// Whether a run was killed before the site came up.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.moved.iter().any(|moved| !moved.settled)
    }
}

/// The record of what was moved aside in `root`. `None`: there is no directory for it.
///
/// Errors: it cannot be read, or the directory is not root's alone.
pub(crate) fn read(root: &HostPath) -> Result<Option<AsideRecord>> {
    let fd = match sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.context(format_args!("cannot open the root {root}"))?,
    };
    let Some(dir) = open_directory(&fd, root)? else {
        return Ok(None);
    };
    // A killed run may have left the directory alone.
    Ok(Some(read_in(&dir, root)?.unwrap_or_else(AsideRecord::new)))
}

/// The record in the open directory `dir` of `root`.
pub(crate) fn read_in(dir: &OwnedFd, root: &HostPath) -> Result<Option<AsideRecord>> {
    let name = format!("{root}{DIRECTORY}/{RECORD}");
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let bytes = match sys::open_unmounted(dir, Path::new(RECORD), flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.and_then(|file| sys::read_at_most(std::fs::File::from(file), LONGEST)),
    };
    let bytes = bytes.context(format_args!("cannot read {name}"))?;
    let record: AsideRecord = serde_json::from_slice(&bytes)
        .map_err(|error| Error::failed(format!("{name} is damaged")).because_of(error))?;
    if record.version > VERSION {
        let (version, known) = (record.version, VERSION);
        return Err(
            Error::failed(format!("cannot use {name}")).because_of(format!(
                "it is of version {version}, and this mountjail knows versions up to {known}"
            )),
        );
    }
    let directory = Path::new(DIRECTORY);
    for moved in &record.moved {
        if !moved.to.as_path().starts_with(directory) || moved.path.as_path().starts_with(directory)
        {
            return Err(Error::failed(format!("{name} is damaged"))
                .because_of(format!("it names something outside of {DIRECTORY}")));
        }
    }
    Ok(Some(record))
}

/// Opens the directory of what was moved aside in `root`, which is open as `fd`. `None`: there is
/// none.
///
/// Errors: it is not root's alone, such as one that the site's owner made.
pub(crate) fn open_directory(fd: &OwnedFd, root: &HostPath) -> Result<Option<OwnedFd>> {
    let name = name_of_directory();
    let place = root.as_path().join(name);
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK;
    let dir = match sys::open_unmounted(fd, name, flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result,
    };
    let opened = dir.and_then(|dir| Ok((sys::stat_fd(&dir)?, dir)));
    match opened {
        Ok((stat, dir)) if is_private(&stat) => Ok(Some(dir)),
        Ok(_) => Err(not_roots(&place)),
        Err(error) => match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENOTDIR | libc::EXDEV) => Err(not_roots(&place)),
            _ => Err(Error::failed(format!("cannot open {}", place.display())).because(&error)),
        },
    }
}

fn is_private(stat: &Stat) -> bool {
    stat.kind == FileKind::Directory && sys::is_roots(stat.uid) && stat.mode & 0o777 & !0o700 == 0
}

fn not_roots(place: &Path) -> Error {
    let (from, place) = (shell_path(place), place.display());
    let to = shell_path(format!("{place}.old"));
    Error::failed(format!("cannot use {place}"))
        .because_of("it is not a directory that root made for itself alone (0700)")
        .hint(format!("move it away: `mv {from} {to}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_can_be_typed_whatever_the_root_is_called() {
        let error = not_roots(Path::new("/srv/a b"));
        let remedy = "move it away: `mv '/srv/a b' '/srv/a b.old'`";
        assert_eq!(error.hint_text(), Some(remedy));
    }
}

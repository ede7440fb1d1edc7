//! The identity and the type of a file.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The identity of a file: device and inode of stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

impl FileId {
    /// Returns the identity in this metadata.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
        }
    }
}

/// The type of a file, as far as it matters for mounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A block or character device.
    Device,
    /// A Unix socket.
    Socket,
    /// A FIFO.
    Fifo,
    /// A symbolic link. It is never a source or a target, but it may be in the way.
    Symlink,
}

impl FileKind {
    /// Reads it from `st_mode`. `None`: Linux has no such type.
    pub fn from_mode(mode: u32) -> Option<Self> {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Some(Self::Directory),
            libc::S_IFREG => Some(Self::File),
            libc::S_IFBLK | libc::S_IFCHR => Some(Self::Device),
            libc::S_IFSOCK => Some(Self::Socket),
            libc::S_IFIFO => Some(Self::Fifo),
            libc::S_IFLNK => Some(Self::Symlink),
            _ => None,
        }
    }

    /// Whether something of kind `self` can be mounted on something of kind `target`. The kernel
    /// mounts directories on directories, and other files on other files.
    pub fn fits_on(self, target: FileKind) -> bool {
        target != Self::Symlink && (self == Self::Directory) == (target == Self::Directory)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::File => "regular file",
            Self::Device => "device",
            Self::Socket => "socket",
            Self::Fifo => "FIFO",
            Self::Symlink => "symbolic link",
        })
    }
}

/// Opens the regular file at `path` for reading; links are followed. Nothing else is opened,
/// because that could wait for another process, as a FIFO does, or trigger an action, as some
/// devices do.
///
/// Errors: EISDIR for a directory, EINVAL for anything else that is not a regular file; as open(2).
pub fn open_regular(path: &Path) -> io::Result<File> {
    is_regular(&fs::metadata(path)?)?;
    // The file may have been replaced meanwhile.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    is_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads all of the regular file at `path`; links are followed.
///
/// Errors: EFBIG if it has more than `limit` bytes; as [`open_regular`].
pub fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_at_most(open_regular(path)?, limit)
}

/// Reads all of `file`.
///
/// Errors: EFBIG if it has more than `limit` bytes; as read(2).
pub fn read_at_most(file: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        Err(io::Error::from_raw_os_error(libc::EFBIG))
    } else {
        Ok(bytes)
    }
}

fn is_regular(metadata: &fs::Metadata) -> io::Result<()> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

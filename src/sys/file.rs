//! What a file is to the kernel: identity and type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A file's identity: stat(2)'s device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// What a path is, as far as mounting cares.
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
    /// A symbolic link; never a source or target, but what may stand in the way.
    Symlink,
}

impl FileKind {
    /// From `st_mode`; `None` for a type that Linux does not have.
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

    /// Whether something of kind `self` can be mounted on something of kind `target`: the kernel wants
    /// directory on directory and non-directory on non-directory.
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

//! Devices, sockets and directories, tried with the user's rights.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::probe::{InsideError, Probe};
use crate::base::JailPath;
use crate::jail::{self, ClosedDirectory};

/// How deep sockets are looked for.
const DEPTH: usize = 2;

/// Among how many entries of directories.
const MAX_ENTRIES: usize = 20_000;

/// Whether the user may enter the root, and pass through these directories.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Enter(pub Vec<JailPath>);

impl Probe for Enter {
    /// The first directory that is closed, and why.
    type Answer = Result<(), (JailPath, InsideError)>;

    fn run(&self) -> Self::Answer {
        match jail::first_closed(&self.0) {
            Some((directory, error)) => Err((directory, error.into())),
            None => Ok(()),
        }
    }
}

/// Where the user's way to a path ends for want of rights.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Denied(pub PathBuf);

/// The place that the user may not pass or read.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct DeniedAt {
    pub path: PathBuf,
    pub is_directory: bool,
    /// The permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub has_acl: bool,
}

impl Probe for Denied {
    type Answer = Option<DeniedAt>;

    fn run(&self) -> Option<DeniedAt> {
        let mut above: Vec<_> = self.0.ancestors().collect();
        above.reverse();
        for path in above {
            let metadata = fs::metadata(path).ok()?;
            let is_directory = metadata.is_dir();
            let right = if is_directory {
                AccessFlags::X_OK
            } else {
                AccessFlags::R_OK
            };
            if access(path, right) == Err(nix::Error::EACCES) {
                return Some(DeniedAt {
                    path: path.to_owned(),
                    is_directory,
                    mode: metadata.mode() & 0o7777,
                    uid: metadata.uid(),
                    gid: metadata.gid(),
                    has_acl: ClosedDirectory::at(path).is_ok_and(|closed| closed.has_acl),
                });
            }
        }
        None
    }
}

/// Whether each of these paths is there.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Exist(pub Vec<PathBuf>);

impl Probe for Exist {
    type Answer = Vec<bool>;

    fn run(&self) -> Vec<bool> {
        self.0.iter().map(|path| path.exists()).collect()
    }
}

/// The fault of each of these devices, which are named as below `/dev`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Devices(pub Vec<String>);

impl Probe for Devices {
    type Answer = Vec<Option<InsideError>>;

    fn run(&self) -> Self::Answer {
        let mut errors = vec![];
        for name in &self.0 {
            errors.push(device(name).err().map(InsideError::from));
        }
        errors
    }
}

/// The device numbers that the kernel's documentation fixes (admin-guide/devices.txt).
fn number(name: &str) -> Option<u64> {
    let minor = match name {
        "null" => 3,
        "zero" => 5,
        "full" => 7,
        "random" => 8,
        "urandom" => 9,
        _ => return None,
    };
    Some(nix::sys::stat::makedev(1, minor))
}

fn device(name: &str) -> io::Result<()> {
    let path = Path::new("/dev").join(name);
    let metadata = fs::metadata(&path)?;
    if !metadata.file_type().is_char_device() {
        return Err(io::Error::other("it is not a device"));
    }
    if let Some(number) = number(name)
        && number != metadata.rdev()
    {
        return Err(io::Error::other("it is another device"));
    }
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match name {
        "null" => options.write(true).open(&path)?.write_all(b"x"),
        "zero" | "urandom" => options.read(true).open(&path)?.read_exact(&mut [0]),
        "random" | "full" => options.read(true).open(&path).map(drop),
        _ => Ok(()), // opening another device may have an effect
    }
}

/// Whether a server listens at a socket.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Connect(pub PathBuf);

impl Probe for Connect {
    type Answer = Result<(), InsideError>;

    fn run(&self) -> Self::Answer {
        Ok(connect(&self.0)?)
    }
}

/// A socket's type can only be found out by trying. A socket that refuses both types is one for
/// sequenced packets, which is taken as good.
fn connect(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Err(error) if is_of_another_type(&error) => {}
        other => return other.map(drop),
    }
    match UnixDatagram::unbound()?.connect(path) {
        Err(error) if !is_of_another_type(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_of_another_type(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPROTOTYPE)
}

/// All sockets in these directories, and those of these paths that are sockets themselves.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Sockets(pub Vec<PathBuf>);

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Socket {
    pub path: PathBuf,
    /// Why it cannot be connected to.
    pub error: Option<InsideError>,
}

impl Probe for Sockets {
    type Answer = Vec<Socket>;

    fn run(&self) -> Vec<Socket> {
        let (mut found, mut left) = (vec![], MAX_ENTRIES);
        for path in &self.0 {
            find_sockets(path, DEPTH, &mut left, &mut found);
        }
        found.sort();
        found.dedup();
        let mut sockets = vec![];
        for path in found {
            let error = connect(&path).err().map(InsideError::from);
            sockets.push(Socket { path, error });
        }
        sockets
    }
}

fn find_sockets(path: &Path, depth: usize, left: &mut usize, found: &mut Vec<PathBuf>) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    if metadata.file_type().is_socket() {
        found.push(path.to_owned());
    }
    if depth == 0 || !metadata.is_dir() {
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        *left = left.saturating_sub(1);
        if let Ok(kind) = entry.file_type()
            && *left > 0
            && (kind.is_socket() || kind.is_dir())
        {
            find_sockets(&entry.path(), depth - 1, left, found);
        }
    }
}

/// The use that a user makes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::doctor) enum PathUse {
    /// Makes files in this directory.
    WriteIn,
    /// Appends to this file, or makes it.
    Append,
    /// Reads this file, or enters this directory.
    Read,
}

/// Whether the user can use each of these paths so.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Usable(pub Vec<(PathBuf, PathUse)>);

impl Probe for Usable {
    type Answer = Vec<Option<InsideError>>;

    fn run(&self) -> Self::Answer {
        let mut errors = vec![];
        for (path, use_) in &self.0 {
            let tried = match use_ {
                PathUse::WriteIn => writable(path),
                PathUse::Append => appendable(path),
                PathUse::Read => readable(path),
            };
            errors.push(tried.err().map(InsideError::from));
        }
        errors
    }
}

fn writable(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    access(path, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
}

fn appendable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(file) if file.is_dir() => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        Ok(_) => access(path, AccessFlags::W_OK).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            writable(path.parent().unwrap_or(path))
        }
        Err(error) => Err(error),
    }
}

fn readable(path: &Path) -> io::Result<()> {
    let right = if fs::metadata(path)?.is_dir() {
        AccessFlags::X_OK
    } else {
        AccessFlags::R_OK
    };
    access(path, right).map_err(io::Error::from)
}

/// The files in `/` that a web server would serve as a site's first page.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct WebRoot;

impl Probe for WebRoot {
    type Answer = Vec<String>;

    fn run(&self) -> Vec<String> {
        let mut found = vec![];
        for path in ["/index.php", "/index.html", "/index.htm", "/.htaccess"] {
            if Path::new(path).is_file() {
                found.push(path.to_owned());
            }
        }
        found
    }
}

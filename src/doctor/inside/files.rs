//! Devices, sockets and directories, tried with the rights of the user.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::{InsideError, Probe};
use crate::base::JailPath;
use crate::jail;

/// How deep sockets are looked for, and among how many entries.
const DEPTH: usize = 2;
const MAX_ENTRIES: usize = 20_000;

/// Whether the user may be in the root at all, and go through these directories.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Enter(pub Vec<JailPath>);

impl Probe for Enter {
    /// The first one that is closed, and why.
    type Answer = Result<(), (JailPath, InsideError)>;

    fn run(&self) -> Self::Answer {
        access("/", AccessFlags::X_OK)
            .map_err(|error| (JailPath::slash(), InsideError::from(io::Error::from(error))))?;
        jail::first_closed(&self.0).map_or(Ok(()), |(way, error)| Err((way, error.into())))
    }
}

/// Which of these paths are there.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Exist(pub Vec<PathBuf>);

impl Probe for Exist {
    type Answer = Vec<bool>;

    fn run(&self) -> Vec<bool> {
        self.0.iter().map(|path| path.exists()).collect()
    }
}

/// What is wrong with devices, by their names below `/dev`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Devices(pub Vec<String>);

impl Probe for Devices {
    type Answer = Vec<Option<InsideError>>;

    fn run(&self) -> Self::Answer {
        self.0
            .iter()
            .map(|name| device(name).err().map(InsideError::from))
            .collect()
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
        return Err(io::Error::other("it is no device"));
    }
    if number(name).is_some_and(|number| number != metadata.rdev()) {
        return Err(io::Error::other("it is another device"));
    }
    let open = |write: bool| {
        OpenOptions::new()
            .read(!write)
            .write(write)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&path)
    };
    match name {
        "null" => open(true)?.write_all(b"x"),
        "zero" | "urandom" => open(false)?.read_exact(&mut [0]),
        "random" | "full" => open(false).map(drop),
        _ => Ok(()), // to open another one may do something
    }
}

/// Whether somebody listens at a socket.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Connect(pub PathBuf);

impl Probe for Connect {
    type Answer = Result<(), InsideError>;

    fn run(&self) -> Self::Answer {
        Ok(connect(&self.0)?)
    }
}

/// A socket's type is only known by trying. A packet socket is taken as good when it refuses both.
fn connect(path: &Path) -> io::Result<()> {
    let wrong_type = |error: &io::Error| error.raw_os_error() == Some(libc::EPROTOTYPE);
    match UnixStream::connect(path) {
        Err(error) if wrong_type(&error) => {}
        other => return other.map(drop),
    }
    match UnixDatagram::unbound()?.connect(path) {
        Err(error) if !wrong_type(&error) => Err(error),
        _ => Ok(()),
    }
}

/// All sockets in these directories, and those that these paths are.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Sockets(pub Vec<PathBuf>);

/// One socket.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Socket {
    pub path: PathBuf,
    pub trouble: Option<InsideError>,
}

impl Probe for Sockets {
    type Answer = Vec<Socket>;

    fn run(&self) -> Vec<Socket> {
        let (mut found, mut left) = (vec![], MAX_ENTRIES);
        for path in &self.0 {
            sockets(path, DEPTH, &mut left, &mut found);
        }
        found.sort();
        found.dedup();
        let tried = found.into_iter().map(|path| {
            let trouble = connect(&path).err().map(InsideError::from);
            Socket { path, trouble }
        });
        tried.collect()
    }
}

fn sockets(path: &Path, depth: usize, left: &mut usize, found: &mut Vec<PathBuf>) {
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
        let of_interest = entry
            .file_type()
            .is_ok_and(|kind| kind.is_socket() || kind.is_dir());
        if *left > 0 && of_interest {
            sockets(&entry.path(), depth - 1, left, found);
        }
    }
}

/// Whether these are directories that the user can write to.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Directories(pub Vec<PathBuf>);

impl Probe for Directories {
    type Answer = Vec<Option<InsideError>>;

    fn run(&self) -> Self::Answer {
        self.0
            .iter()
            .map(|path| writable(path).err().map(InsideError::from))
            .collect()
    }
}

fn writable(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    access(path, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
}

/// Files in `/` that a web server would serve as a site's first page.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct WebRoot;

impl Probe for WebRoot {
    type Answer = Vec<String>;

    fn run(&self) -> Vec<String> {
        let names = ["index.php", "index.html", "index.htm", ".htaccess"];
        let there = names
            .iter()
            .filter(|name| Path::new("/").join(name).is_file());
        there.map(|name| format!("/{name}")).collect()
    }
}

//! A path that was missed → what it is on the host, and whether a jail should get it at all.
//!
//! A process in a jail can look up whatever it likes, so what it missed is no reason by itself to
//! bring it in. What is not for everybody, or not root's, is shown, and left to the administrator;
//! so is a daemon's socket that no preset brings ([`super::advise`]).

use std::path::Path;

use super::miss::Miss;
use crate::base::HostPath;
use crate::resolve::ldso::Code;
use crate::resolve::{Host, Roots, may_be_brought};
use crate::sys::FileKind;

/// Devices that harm nobody.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// A path that a jail missed and that is on the host.
#[derive(Clone, Debug)]
pub struct Found {
    /// What was looked up.
    pub miss: Miss,
    /// The same file on the host, all links followed.
    pub real: HostPath,
    /// What it is.
    pub nature: Nature,
    /// Its directory may be brought as a whole.
    pub directory: bool,
    /// Why it is not for a program to ask for it.
    pub refusal: Option<String>,
}

/// What a path is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// A node below `/dev`.
    Device,
    /// A daemon listens there.
    Socket,
    /// It can be executed.
    Program,
    /// An ELF object that programs load.
    Library,
    /// A directory.
    Directory,
    /// Any other file.
    Data,
}

/// What `miss` is on the host, for the jail at `root`; `None`: it is not there either.
pub fn look(host: &Host, roots: &Roots, root: &HostPath, miss: &Miss) -> Option<Found> {
    let path = miss.path.on_host();
    let walk = host.walk(&path).ok()?;
    let nature = nature(host, &walk.real, walk.stat.kind, walk.stat.mode)?;
    let refusal = refusal(host, roots, root, miss, &walk.real, nature);
    let directory = path
        .parent()
        .is_some_and(|parent| is_brought(host, &parent) && is_roots(host, &parent));
    Some(Found {
        miss: miss.clone(),
        real: walk.real,
        nature,
        directory,
        refusal,
    })
}

fn nature(host: &Host, real: &HostPath, kind: FileKind, mode: u32) -> Option<Nature> {
    match kind {
        FileKind::Device => Some(Nature::Device),
        FileKind::Socket => Some(Nature::Socket),
        FileKind::Directory => Some(Nature::Directory),
        FileKind::File => Some(code(host, real, mode & 0o111 != 0).unwrap_or(Nature::Data)),
        FileKind::Fifo | FileKind::Symlink => None,
    }
}

/// What a file of code is; `None`: it is not code.
fn code(host: &Host, real: &HostPath, executable: bool) -> Option<Nature> {
    let file = host.open(real).ok()?;
    match Code::of(&file, real.file_name()?, executable)? {
        Code::Program => Some(Nature::Program),
        Code::Library | Code::RunnableLibrary => Some(Nature::Library),
    }
}

fn refusal(
    host: &Host,
    roots: &Roots,
    root: &HostPath,
    miss: &Miss,
    real: &HostPath,
    nature: Nature,
) -> Option<String> {
    let path = miss.path.on_host();
    if let Some(inside) = path.below(root).or_else(|| real.below(root)) {
        let inside = Path::new("/").join(inside);
        return Some(format!(
            "it is the host's name of {} in this jail",
            inside.display()
        ));
    }
    if let Some(site) = roots.site_of(&path).or_else(|| roots.site_of(real)) {
        return Some(format!("it belongs to the site {site}"));
    }
    if path.as_path().to_str().is_none() {
        return Some("its name is not UTF-8, which no manifest can say".to_owned());
    }
    if ["/proc", "/sys"]
        .iter()
        .any(|system| path.as_path().starts_with(system))
    {
        return Some("it shows the whole system".to_owned());
    }
    match nature {
        Nature::Device => device(&path),
        Nature::Socket => socket(host, &path),
        _ if miss.writes => Some(
            "it was opened for writing, and mounts are read-only unless told otherwise".to_owned(),
        ),
        _ if !is_brought(host, &path) => {
            Some("it is not for everybody, or more than a site should get".to_owned())
        }
        _ if !is_roots(host, &path) => Some("somebody other than root can change it".to_owned()),
        _ => None,
    }
}

fn device(path: &HostPath) -> Option<String> {
    let name = path
        .as_path()
        .strip_prefix("/dev")
        .ok()
        .and_then(Path::to_str);
    let harmless = name.is_some_and(|name| DEVICES.contains(&name));
    (!harmless)
        .then(|| "it is a device that can do more than those which every jail may have".to_owned())
}

/// The daemon's directory may be its own, but not what leads there.
fn socket(host: &Host, path: &HostPath) -> Option<String> {
    let directory = path.parent()?;
    if !is_brought(host, &directory) {
        return Some(format!(
            "its directory {directory} is not for everybody, or more than a site should get"
        ));
    }
    let fixed = directory
        .parent()
        .is_some_and(|above| is_roots(host, &above))
        && host.walk(&directory).is_ok_and(|walk| {
            walk.real
                .parent()
                .is_some_and(|above| is_roots(host, &above))
        });
    (!fixed).then(|| {
        format!("somebody other than root can put another directory in the place of {directory}")
    })
}

/// Whether nobody but root can change what is at `path`, or make it lead elsewhere: all on the way
/// is root's alone.
fn is_roots(host: &Host, path: &HostPath) -> bool {
    host.others(path).is_ok_and(|others| others.is_none())
}

/// As [`may_be_brought`]; what cannot be looked at may not.
fn is_brought(host: &Host, path: &HostPath) -> bool {
    may_be_brought(host, path).unwrap_or(false)
}

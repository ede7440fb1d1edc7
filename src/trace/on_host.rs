//! A path that was missed → what it is on the host, and whether a jail should get it at all.
//!
//! A process in a jail can look up any path, so a miss alone is not a reason to bring the
//! path in. Paths that not everybody may read, or that users other than root can change, are shown
//! and left to the administrator. So is a daemon's socket that no preset brings
//! ([`super::advise`]).

use std::path::Path;

use super::denied::user_name;
use super::miss::{Miss, READLINK};
use super::packages;
use crate::base::{HostPath, JailPath};
use crate::manifest::yaml_scalar;
use crate::resolve::ldso::Code;
use crate::resolve::{Host, Roots, may_be_brought};
use crate::sys::FileKind;

/// Harmless devices.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// A path that a jail missed and that the host has.
#[derive(Clone, Debug)]
pub(crate) struct MissOnHost {
    pub miss: Miss,
    /// The same file on the host, all links followed.
    pub real: HostPath,
    pub kind: MissKind,
    /// Its directory may be brought as a whole.
    pub whole_directory: bool,
    /// The directories of the package or the interpreter that it is a part of, each with whether
    /// there are objects in it.
    pub part_of: Vec<(HostPath, bool)>,
    /// The directory that it is, or that it is to be made in, if it is one in which programs keep
    /// what they make for themselves: the site can have one of its own.
    pub scratch: Option<TemporaryDirectory>,
    /// Why the jail should not get it just because a program looked for it.
    pub refusal: Option<String>,
}

/// A directory of the host that programs make files in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemporaryDirectory {
    pub path: JailPath,
    /// The id of its user; `None`: everybody may write to it.
    pub user: Option<u32>,
    pub mode: u32,
}

/// Directories in which the files of many packages are, besides those that no site gets as a whole.
const COMMON: [&str; 16] = [
    "/bin",
    "/lib",
    "/lib64",
    "/sbin",
    "/usr/games",
    "/usr/include",
    "/usr/libexec",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/etc",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/sbin",
    "/usr/local/share",
    "/usr/share/man",
    "/var/spool",
];

/// Where programs keep what they can make again.
const SCRATCH: [&str; 5] = ["/dev/shm", "/tmp", "/var/tmp", "/var/cache", "/var/log"];

/// The names of such directories in other places.
const SCRATCH_NAMES: [&str; 4] = ["cache", "sessions", "temp", "tmp"];

/// The kind of a missed path on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissKind {
    Device,
    Socket,
    /// It can be executed.
    Program,
    /// An ELF object that programs load.
    Library,
    Directory,
    /// Any other file.
    Data,
}

/// The path of `miss` on the host, for the jail at `root`; `None`: the host does not have it
/// either.
pub(super) fn look(host: &Host, roots: &Roots, root: &HostPath, miss: &Miss) -> Option<MissOnHost> {
    let path = miss.path.on_host();
    let Ok(walk) = host.walk(&path) else {
        return created(host, root, miss);
    };
    if walk.stat.kind == FileKind::Directory && miss.call == READLINK {
        return None; // on the host it is no link either, and nobody looked into it
    }
    let is_executable = walk.stat.mode & 0o111 != 0;
    let kind = match walk.stat.kind {
        FileKind::Device => MissKind::Device,
        FileKind::Socket => MissKind::Socket,
        FileKind::Directory => MissKind::Directory,
        FileKind::File => code_kind(host, &walk.real, is_executable).unwrap_or(MissKind::Data),
        FileKind::Fifo | FileKind::Symlink => return None,
    };

    let refusal = refusal_of_place(roots, root, &path, &walk.real)
        .or_else(|| refusal_of_kind(host, &path, kind, miss));
    let whole_directory = match path.parent() {
        Some(parent) => is_harmless(host, &parent),
        None => false,
    };
    let part_of = match refusal {
        None => parts(host, &path, kind),
        Some(_) => vec![],
    };
    Some(MissOnHost {
        miss: miss.clone(),
        real: walk.real,
        kind,
        whole_directory,
        part_of,
        scratch: scratch(host, &miss.path, miss),
        refusal,
    })
}

/// The directories that `path` is a part of and that a jail may get, each with whether there are
/// objects in it.
fn parts(host: &Host, path: &HostPath, kind: MissKind) -> Vec<(HostPath, bool)> {
    match kind {
        MissKind::Data | MissKind::Library | MissKind::Directory => {}
        MissKind::Device | MissKind::Socket | MissKind::Program => return vec![],
    }
    let mut parts = vec![];
    for directory in packages::directories_of(path) {
        if is_harmless(host, &directory) {
            let has_objects = packages::has_objects(&directory);
            parts.push((directory, has_objects));
        }
    }
    parts
}

/// A file that was to be made in a directory which the host has and the jail has not.
fn created(host: &Host, root: &HostPath, miss: &Miss) -> Option<MissOnHost> {
    if !miss.is_written {
        return None;
    }
    let directory = miss.path.parent()?;
    let is_inside = root.inside(&directory).as_path().exists();
    let walk = host.walk(&directory.on_host()).ok()?;
    if is_inside || walk.stat.kind != FileKind::Directory {
        return None;
    }
    let user = miss.users.first().copied().unwrap_or_default();
    let user = user_name(user).unwrap_or_else(|| user.to_string());
    let shown = yaml_scalar(&directory.to_string());
    Some(MissOnHost {
        miss: miss.clone(),
        real: walk.real,
        kind: MissKind::Directory,
        whole_directory: false,
        part_of: vec![],
        scratch: scratch(host, &directory, miss),
        refusal: Some(format!(
            "it was to be made, and its directory {directory} is not inside: \
             `directories: [{{ path: {shown}, user: {user} }}]` makes one of the site's own"
        )),
    })
}

/// The host's directory at `path`, if it is one for what programs make, and the user who looked for
/// it may write to it.
fn scratch(host: &Host, path: &JailPath, miss: &Miss) -> Option<TemporaryDirectory> {
    let stat = host.walk(&path.on_host()).ok()?.stat;
    if stat.kind != FileKind::Directory || !is_scratch(path.as_path()) {
        return None;
    }
    let user = if stat.mode & 0o1002 == 0o1002 {
        None
    } else if miss.users.contains(&stat.uid) && stat.uid != 0 && stat.mode & 0o200 != 0 {
        Some(stat.uid)
    } else {
        return None;
    };
    Some(TemporaryDirectory {
        path: path.clone(),
        user,
        mode: stat.mode & 0o7777,
    })
}

fn is_scratch(path: &Path) -> bool {
    SCRATCH.iter().any(|above| path.starts_with(above))
        || path.starts_with("/var") && SCRATCH_NAMES.iter().any(|name| path.ends_with(name))
}

/// The kind of a file with code; `None`: it has none.
fn code_kind(host: &Host, real: &HostPath, is_executable: bool) -> Option<MissKind> {
    let file = host.open(real).ok()?;
    match Code::of(&file, real.file_name()?, is_executable)? {
        Code::Program | Code::Script => Some(MissKind::Program),
        Code::Library | Code::RunnableLibrary => Some(MissKind::Library),
    }
}

/// Why a jail should not get `path`, which leads to `real`, because of where it is.
fn refusal_of_place(
    roots: &Roots,
    root: &HostPath,
    path: &HostPath,
    real: &HostPath,
) -> Option<String> {
    let in_jail = path.below(root).or_else(|| real.below(root));
    if let Some(inside) = in_jail {
        let inside = Path::new("/").join(inside);
        let inside = inside.display();
        return Some(format!("it is the host's name of {inside} in this jail"));
    }
    if let Some(site) = roots.site_of(path).or_else(|| roots.site_of(real)) {
        return Some(format!("it belongs to the site {site}"));
    }
    if path.as_path().to_str().is_none() {
        return Some("its name is not UTF-8, as a manifest has to be".to_owned());
    }
    if path.as_path().starts_with("/proc") || path.as_path().starts_with("/sys") {
        return Some("it shows the whole system".to_owned());
    }
    None
}

/// Why a jail should not get `path`, which `miss` is about, because of what it is.
fn refusal_of_kind(host: &Host, path: &HostPath, kind: MissKind, miss: &Miss) -> Option<String> {
    match kind {
        MissKind::Directory if is_of_every_host(path.as_path()) => Some(
            "every host has this directory; lines for what is looked for in it bring it, too"
                .to_owned(),
        ),
        MissKind::Device => refusal_of_device(path),
        MissKind::Socket => refusal_of_socket(host, path),
        MissKind::Program | MissKind::Library | MissKind::Directory | MissKind::Data => {
            refusal_of_written(miss).or_else(|| refusal_of_file(host, path))
        }
    }
}

/// Why a jail should not get what nobody wanted to read.
fn refusal_of_written(miss: &Miss) -> Option<String> {
    miss.writes.then(|| {
        "it was opened for writing, and mounts are read-only unless the manifest says otherwise"
            .to_owned()
    })
}

fn refusal_of_file(host: &Host, path: &HostPath) -> Option<String> {
    if !may_be_given(host, path) {
        return Some("not everybody may read it, or it is more than a site should get".to_owned());
    }
    (!is_only_roots(host, path)).then(|| "users other than root can change it".to_owned())
}

/// Whether it is a directory in which the files of many packages are: programs look at it on the
/// way to others, or because the loader did not find a library in it.
fn is_of_every_host(path: &Path) -> bool {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return true;
    };
    let is_of_libraries = above.ends_with("lib") && name.to_string_lossy().contains("-linux-");
    is_of_libraries || COMMON.iter().any(|common| Path::new(common) == path)
}

fn refusal_of_device(path: &HostPath) -> Option<String> {
    let is_harmless = DEVICES
        .iter()
        .any(|name| path.as_path() == Path::new("/dev").join(name));
    if is_harmless {
        return None;
    }
    Some("it is a device that can do more than those that every jail may have".to_owned())
}

/// The daemon's directory may be its own, but what is above it must be root's.
fn refusal_of_socket(host: &Host, path: &HostPath) -> Option<String> {
    if path.as_path() == Path::new("/dev/log") {
        return None; // a preset brings it
    }
    let directory = path.parent()?;
    if !may_be_given(host, &directory) {
        return Some(format!(
            "not everybody may read its directory {directory}, or it is more than a site should get"
        ));
    }

    if above_is_only_roots(host, &directory)
        && let Ok(walk) = host.walk(&directory)
        && above_is_only_roots(host, &walk.real)
    {
        return None;
    }
    Some(format!(
        "users other than root can put another directory in the place of {directory}"
    ))
}

/// Whether only root can change what is at `path`, or make it lead elsewhere: everything on the way
/// is root's.
fn is_only_roots(host: &Host, path: &HostPath) -> bool {
    matches!(host.others(path), Ok(None))
}

fn above_is_only_roots(host: &Host, path: &HostPath) -> bool {
    match path.parent() {
        Some(above) => is_only_roots(host, &above),
        None => false,
    }
}

/// Whether a jail may get the whole directory.
fn is_harmless(host: &Host, directory: &HostPath) -> bool {
    may_be_given(host, directory) && is_only_roots(host, directory)
}

/// [`may_be_brought`], and no for a path that cannot be examined.
fn may_be_given(host: &Host, path: &HostPath) -> bool {
    may_be_brought(host, path).unwrap_or(false)
}

//! Things that stay in a root beside the mounts and should not: copies that a loader or a program
//! prefers to ours, programs with the rights of others, device nodes, and directories on the way to
//! a mount in which other people can exchange it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::compare::{are_equal, forms, open};
use super::judge::is_of_packages;
use super::tree::{entries, open_directory};
use crate::base::text::few;
use crate::base::{HostPath, JailPath, is_searched};
use crate::manifest::yaml_scalar;
use crate::resolve::ldso::is_library_name;
use crate::resolve::{Desired, FileId, FileKind, Host, to_allow_execution, why};
use crate::sys::{self, Stat};

/// How many files are named.
const SHOWN: usize = 10;

/// How many copies are compared with the host's files.
const COMPARED: usize = 500;

/// Where programs and the loader look, besides the directories in which mounts are.
const PLACES: [&str; 12] = [
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/local/lib",
    "/dev",
];

/// Where the host's programs are.
const PROGRAMS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// Where the host's libraries are, besides directories such as `/usr/lib/x86_64-linux-gnu`.
const LIBRARIES: [&str; 4] = ["/usr/lib64", "/lib64", "/usr/lib", "/lib"];

/// The libraries that the loader loads into each program.
const PRELOAD: &str = "/etc/ld.so.preload";

/// The longest such file that is read.
const LONGEST: u64 = 1 << 16;

/// Sentences about what stays in the root of `desired`, as far as it can be looked at.
pub(crate) fn leftovers(host: &Host, desired: &Desired) -> Vec<String> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let Ok(root) = sys::open_host(desired.root.as_path(), flags) else {
        return vec![];
    };
    let Ok(stat) = sys::stat_fd(&root) else {
        return vec![];
    };
    let libraries = directories_of_libraries();
    let mut look = Leftovers {
        desired,
        libraries: &libraries,
        root: stat,
        looked_into: BTreeSet::new(),
        found: FoundLeftovers::default(),
    };
    let mut places = desired.ways();
    for way in &places {
        look.way(&root, way);
    }
    places.extend(PLACES.iter().flat_map(JailPath::new));
    places.extend(libraries.iter().flat_map(JailPath::new));
    for place in &places {
        look.directory(&root, place);
    }
    look.found.preloaded = preloaded(&root, desired);
    look.found.without_execution = host.without_execution(&desired.root);
    look.found.sentences(desired)
}

/// The host's directories of libraries, those of an architecture first.
fn directories_of_libraries() -> Vec<PathBuf> {
    let mut directories = vec![];
    for above in ["/usr/lib", "/lib", "/usr/local/lib"] {
        for entry in fs::read_dir(above).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains("-linux-") && entry.path().is_dir() {
                directories.push(entry.path());
            }
        }
    }
    directories.sort_by_key(|path| (!path.starts_with("/usr/lib"), path.clone()));
    directories.extend(LIBRARIES.map(PathBuf::from));
    directories
}

/// What the root's own [`PRELOAD`] names, each with whether it is inside.
fn preloaded(root: &OwnedFd, desired: &Desired) -> Vec<(String, bool)> {
    let Some(text) = own_preload(root, desired) else {
        return vec![];
    };
    let is_inside = |name: &str| {
        JailPath::new(name).is_ok_and(|path| {
            is_brought(desired, &path)
                || sys::open_beneath(root, path.relative(), libc::O_PATH).is_ok()
        })
    };
    let mut named = vec![];
    for line in String::from_utf8_lossy(&text).lines() {
        let line = line.split('#').next().unwrap_or_default();
        let words = line.split([' ', '\t', ':', ',']);
        for name in words.filter(|name| !name.is_empty()) {
            named.push((name.to_owned(), is_inside(name) || !name.starts_with('/')));
        }
    }
    named
}

/// The text of the root's own [`PRELOAD`], if it is a regular file.
fn own_preload(root: &OwnedFd, desired: &Desired) -> Option<Vec<u8>> {
    let path = JailPath::new(PRELOAD).ok()?;
    if is_brought(desired, &path) {
        return None;
    }
    let file = sys::open_unmounted(root, path.relative(), libc::O_PATH).ok()?;
    if sys::stat_fd(&file).ok()?.kind != FileKind::File {
        return None;
    }
    sys::read_at_most(open(&file).ok()?, LONGEST).ok()
}

/// Whether a mount or a link is to be there, or a mount above.
fn is_brought(desired: &Desired, path: &JailPath) -> bool {
    why(desired, path).mount.is_some() || desired.links.iter().any(|link| link.path == *path)
}

struct Leftovers<'d> {
    desired: &'d Desired,
    /// The host's directories of libraries.
    libraries: &'d [PathBuf],
    /// That of the root directory.
    root: Stat,
    looked_into: BTreeSet<FileId>,
    found: FoundLeftovers,
}

#[derive(Default)]
struct FoundLeftovers {
    /// Copies.
    copies: BTreeMap<JailPath, Copied>,
    /// The libraries that the root's own [`PRELOAD`] names, and whether they are inside.
    preloaded: Vec<(String, bool)>,
    /// The root's own programs.
    programs: BTreeSet<JailPath>,
    /// The mount point of the root, if nothing can be executed there.
    without_execution: Option<HostPath>,
    with_rights: BTreeSet<JailPath>,
    nodes: BTreeSet<JailPath>,
    writable: BTreeSet<JailPath>,
}

/// A copy of a file of the host.
struct Copied {
    host: HostPath,
    is_same: bool,
}

impl Leftovers<'_> {
    /// Whether people other than root and the site's owner can exchange what is in the directory.
    fn way(&mut self, root: &OwnedFd, way: &JailPath) {
        let Ok(dir) = sys::open_unmounted(root, way.relative(), libc::O_PATH) else {
            return;
        };
        let Ok(stat) = sys::stat_fd(&dir) else {
            return;
        };
        let is_sticky = stat.mode & 0o1000 != 0;
        let by_all = stat.mode & 0o002 != 0 && !is_sticky;
        let by_group =
            stat.mode & 0o020 != 0 && ![0, self.root.gid].contains(&stat.gid) && !is_sticky;
        let by_owner = ![0, self.root.uid].contains(&stat.uid);
        if stat.kind == FileKind::Directory && (by_all || by_group || by_owner) {
            self.found.writable.insert(way.clone());
        }
    }

    /// The host's file in whose place the file at `path` is used inside: that at the same path, or
    /// that of the same name where the loader or `PATH` comes to it later.
    fn hosts_file(&self, path: &JailPath) -> Option<HostPath> {
        let (at, name) = (path.as_path(), path.file_name()?);
        let is_local = at.starts_with("/usr/local");
        if !is_local && !is_of_packages(at) {
            return None;
        }
        let mut places = vec![];
        if is_library_name(name) {
            places.extend(self.libraries.iter().map(|place| place.join(name)));
        } else if is_local {
            places.extend(PROGRAMS.iter().map(|place| Path::new(place).join(name)));
        }
        let mut candidates = vec![at.to_owned()];
        candidates.extend(places);
        let host = candidates
            .into_iter()
            .find(|host| fs::metadata(host).is_ok_and(|found| found.is_file()))?;
        HostPath::new(host).ok()
    }

    fn directory(&mut self, root: &OwnedFd, path: &JailPath) {
        let Ok(dir) = open_directory(root, path.relative()) else {
            return;
        };
        let (Ok(stat), Ok(names)) = (sys::stat_fd(&dir), entries(&dir)) else {
            return;
        };
        if !self.looked_into.insert(stat.file) {
            return;
        }
        for name in &names {
            let inside = JailPath::normal(path.as_path().join(name));
            if let Ok(stat) = sys::stat_at(&dir, Path::new(name))
                && !is_brought(self.desired, &inside)
                && stat.is_on_mount_of(&self.root)
            {
                self.entry(&dir, name, inside, &stat);
            }
        }
    }

    fn entry(&mut self, dir: &OwnedFd, name: &OsStr, path: JailPath, stat: &Stat) {
        match stat.kind {
            FileKind::Device => drop(self.found.nodes.insert(path)),
            FileKind::File => {
                if stat.mode & 0o6000 != 0 {
                    self.found.with_rights.insert(path.clone());
                }
                let is_program = path.as_path().parent().is_some_and(is_searched);
                if is_program && stat.mode & 0o111 != 0 {
                    self.found.programs.insert(path.clone());
                }
                if let Some(host) = self.hosts_file(&path)
                    && self.found.copies.len() < COMPARED
                    && let Ok(mine) = sys::open_unmounted(dir, Path::new(name), libc::O_PATH)
                    && let Some(copied) = copied(&mine, host)
                {
                    self.found.copies.insert(path, copied);
                }
            }
            _ => {}
        }
    }
}

/// The copy `mine` of the host's file. `None`: it has another form, so it is the site's own.
fn copied(mine: &OwnedFd, host: HostPath) -> Option<Copied> {
    let is_same = are_equal(mine, host.as_path()).unwrap_or(true);
    if !is_same && forms(mine, host.as_path()).is_ok_and(|(mine, hosts)| mine != hosts) {
        return None;
    }
    Some(Copied { host, is_same })
}

impl FoundLeftovers {
    fn sentences(&self, desired: &Desired) -> Vec<String> {
        let mut said = vec![];
        let (mut same, mut other) = (vec![], vec![]);
        for (path, copied) in &self.copies {
            if copied.is_same {
                same.push(path);
            } else {
                other.push(path);
            }
        }
        let loaders: Vec<_> = other.iter().filter(|path| is_loader(path)).collect();
        if !loaders.is_empty() && has_c_library(desired) {
            said.push(format!(
                "the root has a dynamic loader of another version than the host's C library, \
                 which is mounted beside it, so programs that use it do not start: {}; a line \
                 under `programs:` for one of them brings the host's, and `mountjail adopt` moves \
                 the other aside",
                few(loaders, SHOWN)
            ));
        }
        if !other.is_empty() {
            said.push(format!(
                "old copies of the host's files stay in the root, and are used there: {}; {}",
                few(&other, SHOWN),
                self.remedy(&other, desired)
            ));
        }
        if !same.is_empty() {
            said.push(format!(
                "copies of the host's files stay in the root, which no upgrade reaches: {}; {}",
                few(&same, SHOWN),
                self.remedy(&same, desired)
            ));
        }
        if !self.preloaded.is_empty() {
            let mut named = vec![];
            for (name, is_inside) in &self.preloaded {
                let not = if *is_inside { "" } else { " (not inside)" };
                named.push(format!("{name}{not}"));
            }
            said.push(format!(
                "the root's own {PRELOAD} has the loader load these into each program: {}; remove \
                 {} if the site does not need them",
                few(named, SHOWN),
                desired.root.as_path().join(&PRELOAD[1..]).display()
            ));
        }
        if let Some(point) = &self.without_execution
            && !self.programs.is_empty()
        {
            said.push(format!(
                "programs of the root's own cannot be executed: {}; {}",
                few(&self.programs, SHOWN),
                to_allow_execution(point)
            ));
        }
        if !self.with_rights.is_empty() {
            said.push(format!(
                "programs in the root run with the rights of their owners (setuid, setgid): {}",
                few(&self.with_rights, SHOWN)
            ));
        }
        if !self.nodes.is_empty() {
            said.push(format!(
                "the root has device nodes of its own: {}; `devices:` brings the host's",
                few(&self.nodes, SHOWN)
            ));
        }
        if !self.writable.is_empty() {
            said.push(format!(
                "users other than root and the root's owner can replace what is mounted in: {}",
                few(&self.writable, SHOWN)
            ));
        }
        said
    }
}

impl FoundLeftovers {
    /// How the copies at `paths` come to their end: by lines for what the host has at the same
    /// path, else by hand.
    fn remedy(&self, paths: &[&JailPath], desired: &Desired) -> String {
        let (mut lines, mut by_hand) = (BTreeMap::<_, Vec<_>>::new(), vec![]);
        for path in paths {
            let copied = self.copies.get(*path);
            if copied.is_some_and(|copied| copied.host.as_path() == path.as_path()) {
                lines.entry(key_of(path)).or_default().push(*path);
            } else {
                by_hand.push(desired.root.inside(path));
            }
        }
        let mut remedies = vec![];
        if !lines.is_empty() {
            let mut said = vec![];
            for (key, paths) in &lines {
                // The next ones are named once these are gone.
                let shown = paths.iter().take(SHOWN);
                let shown: Vec<_> = shown.map(|path| yaml_scalar(&path.to_string())).collect();
                said.push(format!("`{key}: [{}]`", shown.join(", ")));
            }
            let lines = few(said, SHOWN);
            remedies.push(format!(
                "{lines} in the manifest brings the host's, and `mountjail adopt` then moves the \
                 copies aside"
            ));
        }
        if !by_hand.is_empty() {
            remedies.push(format!(
                "remove what the site does not need: {}",
                few(by_hand, SHOWN)
            ));
        }
        remedies.join("; ")
    }
}

/// The key of a manifest under which a line for the file belongs.
fn key_of(path: &JailPath) -> &'static str {
    let is_library = path.file_name().is_some_and(is_library_name);
    let mut programs = PROGRAMS.iter();
    if is_library {
        "libraries"
    } else if programs.any(|place| {
        path.parent()
            .is_some_and(|it| it.as_path() == Path::new(place))
    }) {
        "programs"
    } else {
        "mounts"
    }
}

fn is_loader(path: &JailPath) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.starts_with("ld-linux") || name.starts_with("ld.so.") || name.starts_with("ld64.so.")
}

fn has_c_library(desired: &Desired) -> bool {
    let mut mounts = desired.mounts.iter();
    mounts.any(|mount| mount.target.file_name() == Some(OsStr::new("libc.so.6")))
}

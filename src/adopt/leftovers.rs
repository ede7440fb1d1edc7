//! Things that stay in a root beside the mounts and should not: copies that a loader or a program
//! prefers to ours, programs with the rights of others, device nodes, and directories on the way to
//! a mount in which other people can exchange it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::compare::are_equal;
use super::judge::is_of_packages;
use super::tree::{entries, open_directory};
use crate::base::text::few;
use crate::base::{HostPath, JailPath};
use crate::resolve::{Desired, FileId, FileKind};
use crate::sys::{self, Stat};

/// How many files are named.
const SHOWN: usize = 10;

/// How many copies are compared with the host's files.
const COMPARED: usize = 500;

/// Where programs and the loader look, besides the directories in which mounts are.
const PLACES: [&str; 9] = [
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/dev",
];

/// Sentences about what stays in the root of `desired`, as far as it can be looked at.
pub(crate) fn leftovers(desired: &Desired) -> Vec<String> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let Ok(root) = sys::open_host(desired.root.as_path(), flags) else {
        return vec![];
    };
    let Ok(stat) = sys::stat_fd(&root) else {
        return vec![];
    };
    let mut look = Leftovers {
        targets: desired.targets(),
        root: stat,
        looked_into: BTreeSet::new(),
        found: FoundLeftovers::default(),
    };
    let mut places = desired.ways();
    for way in &places {
        look.way(&root, way);
    }
    places.extend(PLACES.iter().flat_map(JailPath::new));
    for place in &places {
        look.directory(&root, place);
    }
    look.found.sentences(desired)
}

struct Leftovers<'d> {
    targets: BTreeSet<&'d JailPath>,
    /// That of the root directory.
    root: Stat,
    looked_into: BTreeSet<FileId>,
    found: FoundLeftovers,
}

#[derive(Default)]
struct FoundLeftovers {
    /// Copies, and whether they have the host's contents.
    copies: BTreeMap<JailPath, bool>,
    with_rights: BTreeSet<JailPath>,
    nodes: BTreeSet<JailPath>,
    writable: BTreeSet<JailPath>,
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
                && !self.targets.contains(&inside)
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
                if is_of_packages(path.as_path())
                    && let Some(host) = hosts_file(&path)
                    && self.found.copies.len() < COMPARED
                {
                    let mine = sys::open_unmounted(dir, Path::new(name), libc::O_PATH);
                    let equal = mine.and_then(|mine| are_equal(&mine, host.as_path()));
                    self.found.copies.insert(path, equal.unwrap_or(true));
                }
            }
            _ => {}
        }
    }
}

/// The host's file at the same path, if it is a regular one.
fn hosts_file(path: &JailPath) -> Option<HostPath> {
    let host = path.on_host();
    fs::metadata(&host).ok()?.is_file().then_some(host)
}

impl FoundLeftovers {
    fn sentences(&self, desired: &Desired) -> Vec<String> {
        let mut said = vec![];
        let (mut same, mut other) = (vec![], vec![]);
        for (path, equal) in &self.copies {
            if *equal {
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
                "old copies of the host's files stay in the root, and are used there: {}; lines \
                 under `programs:` or `libraries:` bring the host's",
                few(&other, SHOWN)
            ));
        }
        if !same.is_empty() {
            said.push(format!(
                "copies of the host's files stay in the root, which no upgrade reaches: {}",
                few(same, SHOWN)
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

fn is_loader(path: &JailPath) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.starts_with("ld-linux") || name.starts_with("ld.so.") || name.starts_with("ld64.so.")
}

fn has_c_library(desired: &Desired) -> bool {
    let mut mounts = desired.mounts.iter();
    mounts.any(|mount| mount.target.file_name() == Some(OsStr::new("libc.so.6")))
}

//! The host's file system, read only, as one run sees it.
//!
//! In: paths. Out: what is there, with every symbolic link met on the way. What was once looked up
//! is remembered, so a run sees one state of the host and asks the kernel once a name. A base
//! prefix puts a made tree in the host's place: every absolute path and every absolute link text is
//! then taken from the base, and `..` stops there. Where somebody wants to know it, what was asked
//! for is written down. Nothing here writes, mounts or executes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::fcntl::AT_FDCWD;
use nix::sys::statvfs::fstatvfs;

use super::dependencies::{Aspect, Dependencies};
use super::expand::lexical;
use super::ldso::State;
use super::users::Accounts;
use super::walk::{LookupError, Walk, Walker, found};
use crate::base::{HostPath, MountAttributes};
use crate::patience;
use crate::sys::{self, FileKind, Stat};

/// The most that [`Host::read`] takes in, in bytes; the largest file it is for is
/// `/etc/ld.so.cache`.
const MAX_READ: u64 = 64 << 20;

/// The file system of this host, or of a made tree.
pub struct Host {
    known: Arc<Known>,
    /// What was asked for through this value; `None`: nobody wants to know.
    lookups: Option<Mutex<Dependencies>>,
}

/// Something that is made of the host once, with what it looked up; or why it cannot be.
type Once<T> = OnceLock<(Result<T, LookupError>, Dependencies)>;

/// What was found out, whoever asked.
struct Known {
    base: PathBuf,
    nodes: Mutex<HashMap<PathBuf, Result<Node, i32>>>,
    loader: Once<State>,
    accounts: Once<Accounts>,
    top: Once<Vec<TopLink>>,
    run: Once<Vec<TopLink>>,
    /// What mounts forbid, by their ids.
    mounts: Mutex<HashMap<u64, MountAttributes>>,
}

/// A link straight to a directory: `/lib -> usr/lib`.
#[derive(Clone, Debug)]
pub(super) struct TopLink {
    pub path: HostPath,
    pub text: PathBuf,
    /// The directory.
    pub real: HostPath,
}

/// What is of interest in a directory.
pub(super) enum Entry {
    /// A directory of the same file system.
    Directory(HostPath),
    /// A link of root's, and what it says.
    Link(PathBuf, PathBuf),
}

/// What one name is, no link followed.
#[derive(Clone)]
pub(super) struct Node {
    pub stat: Stat,
    pub link: Option<PathBuf>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// This host.
    pub fn new() -> Self {
        Self::at("/")
    }

    /// The tree below `base` as if it were a whole host.
    pub fn at(base: impl Into<PathBuf>) -> Self {
        let known = Known {
            base: base.into(),
            nodes: Mutex::default(),
            loader: OnceLock::new(),
            accounts: OnceLock::new(),
            top: OnceLock::new(),
            run: OnceLock::new(),
            mounts: Mutex::default(),
        };
        Self {
            known: Arc::new(known),
            lookups: None,
        }
    }

    /// The same, but what is looked up is written down.
    #[must_use]
    pub fn tracked(mut self) -> Self {
        self.lookups = Some(Mutex::default());
        self
    }

    /// The same host, with all that is known of it, whose lookups are written down apart.
    #[must_use]
    pub fn scope(&self) -> Self {
        Self {
            known: self.known.clone(),
            lookups: self.lookups.as_ref().map(|_| Mutex::default()),
        }
    }

    /// What was looked up through this value; nothing, if nobody wanted to know.
    pub fn into_lookups(self) -> Dependencies {
        self.lookups
            .map(|lookups| lookups.into_inner().unwrap_or_else(PoisonError::into_inner))
            .unwrap_or_default()
    }

    /// Remembers that `real`, whose directory has no links in it, was looked up.
    pub(super) fn note(&self, real: &Path, interest: Aspect) {
        if let Some(lookups) = &self.lookups {
            lookups
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(real, interest);
        }
    }

    /// Remembers that somebody depends on `path` who reads it by himself.
    pub fn depend_on(&self, path: &HostPath, interest: Aspect) {
        if let Ok(walk) = self.walk(path) {
            self.note(walk.real.as_path(), interest);
        }
    }

    /// Remembers what somebody else looked up, whose result is used again.
    pub(super) fn note_all(&self, others: &Dependencies) {
        if let Some(lookups) = &self.lookups {
            lookups
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add_all(others);
        }
    }

    /// What `read` makes of this host, made once, with what it looked up.
    fn once<'a, T>(
        &self,
        cell: &'a Once<T>,
        read: impl FnOnce(&Self) -> Result<T, LookupError>,
    ) -> Result<&'a T, LookupError> {
        let (made, lookups) = cell.get_or_init(|| {
            let scope = self.scope();
            let made = read(&scope);
            (made, scope.into_lookups())
        });
        self.note_all(lookups);
        made.as_ref().map_err(Clone::clone)
    }

    /// What the dynamic loader knows of this host, read once.
    pub(super) fn loader_state(&self) -> Result<&State, LookupError> {
        self.once(&self.known.loader, State::read)
    }

    /// Follows `path` component by component, and says which links were on the way.
    pub fn walk(&self, path: &HostPath) -> Result<Walk, LookupError> {
        Walker::new(self, path).run()
    }

    /// What `path` is, all links followed.
    pub fn stat(&self, path: &HostPath) -> Result<Stat, LookupError> {
        self.walk(path).map(|walk| walk.stat)
    }

    /// Whether `path` leads to something.
    ///
    /// Errors: that cannot be told.
    pub fn is_there(&self, path: &HostPath) -> Result<bool, LookupError> {
        found(self.walk(path)).map(|walk| walk.is_some())
    }

    /// What the mount forbids that `real` lies on, where `stat` was found; whether it is read-only
    /// does not count.
    pub(super) fn mount_options(
        &self,
        real: &HostPath,
        stat: &Stat,
    ) -> Result<MountAttributes, LookupError> {
        let mounts = || {
            self.known
                .mounts
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let known = stat.mount_id.and_then(|id| mounts().get(&id).copied());
        let options = match known {
            Some(options) => options,
            None => options_at(&self.on_disk(real.as_path()), stat).map_err(|error| {
                LookupError::Unreadable {
                    at: real.clone(),
                    errno: errno_of(&error),
                }
            })?,
        };
        let Some(id) = stat.mount_id else {
            return Ok(options);
        };
        mounts().insert(id, options);
        if let (Some(lookups), true) = (&self.lookups, stat.mount_id_is_unique) {
            lookups
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add_mount(id, options);
        }
        Ok(options)
    }

    /// Where the mount is that `real` lies on.
    pub(super) fn mount_point(&self, real: &HostPath) -> HostPath {
        let (mut point, mut above) = (real.clone(), real.parent());
        while let Some(directory) = above {
            let same = |node: Node| {
                self.node(point.as_path())
                    .is_ok_and(|on| on.stat.is_on_mount_of(&node.stat))
            };
            if !self.node(directory.as_path()).is_ok_and(same) {
                break;
            }
            above = directory.parent();
            point = directory;
        }
        point
    }

    /// Opens the regular file that `path` leads to. A FIFO or device is refused: opening one can
    /// block or act.
    pub fn open(&self, path: &HostPath) -> Result<File, LookupError> {
        let walk = self.walk(path)?;
        let refused = |errno| LookupError::Unreadable {
            at: path.clone(),
            errno,
        };
        match walk.stat.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(refused(libc::EISDIR)),
            _ => return Err(refused(libc::EINVAL)),
        }
        self.note(walk.real.as_path(), Aspect::CONTENTS);
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(self.on_disk(walk.real.as_path()))
            .map_err(|error| refused(errno_of(&error)))
    }

    /// All of a regular file's bytes; EFBIG above 64 MiB.
    pub fn read(&self, path: &HostPath) -> Result<Vec<u8>, LookupError> {
        self.read_up_to(path, MAX_READ)
    }

    /// As [`Host::read`]; EFBIG above `limit` bytes.
    pub(super) fn read_up_to(&self, path: &HostPath, limit: u64) -> Result<Vec<u8>, LookupError> {
        let refused = |errno| LookupError::Unreadable {
            at: path.clone(),
            errno,
        };
        let mut bytes = Vec::new();
        self.open(path)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| refused(errno_of(&error)))?;
        if bytes.len() as u64 > limit {
            Err(refused(libc::EFBIG))
        } else {
            Ok(bytes)
        }
    }

    /// The names in the directory that `path` leads to, sorted by byte, without `.` and `..`.
    pub fn read_dir(&self, path: &HostPath) -> Result<Vec<OsString>, LookupError> {
        let real = self.walk(path)?.real;
        self.note(real.as_path(), Aspect::NAMES);
        let list = || -> io::Result<Vec<OsString>> {
            std::fs::read_dir(self.on_disk(real.as_path()))?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect()
        };
        let mut names = list().map_err(|error| LookupError::Unreadable {
            at: path.clone(),
            errno: errno_of(&error),
        })?;
        names.sort();
        Ok(names)
    }

    /// The accounts of this host, read once.
    pub(super) fn accounts(&self) -> Result<&Accounts, LookupError> {
        self.once(&self.known.accounts, Accounts::read)
    }

    /// The links in `/` to directories, read once. All sites ask for them.
    pub(super) fn top_links(&self) -> Result<&Vec<TopLink>, LookupError> {
        self.once(&self.known.top, |host| {
            let slash = HostPath::slash();
            host.note(slash.as_path(), Aspect::NAMES);
            let unreadable = |error| LookupError::Unreadable {
                at: slash.clone(),
                errno: errno_of(&error),
            };
            let mut paths = vec![];
            for entry in std::fs::read_dir(host.on_disk(slash.as_path())).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                // By the directory alone: another one, such as a mount of a server that is gone,
                // concerns nobody here.
                if entry.file_type().map_err(unreadable)?.is_symlink() {
                    paths.extend(slash.join(entry.file_name()));
                }
            }
            paths.sort();
            host.directory_links_that_answer(paths)
        })
    }

    /// `/var/run` and `/var/lock`, where they are links, as in the Filesystem Hierarchy Standard
    /// 3.0. Programs know sockets below `/run` by these names.
    pub(super) fn run_links(&self) -> Result<&Vec<TopLink>, LookupError> {
        self.once(&self.known.run, |host| {
            let paths = ["/var/run", "/var/lock"]
                .into_iter()
                .filter_map(|path| HostPath::new(path).ok());
            host.directory_links(paths.collect())
        })
    }

    /// As [`Host::directory_links`]; but one that leads to a file system which does not answer soon
    /// keeps nobody.
    fn directory_links_that_answer(
        &self,
        paths: Vec<HostPath>,
    ) -> Result<Vec<TopLink>, LookupError> {
        let scope = self.scope();
        let look = move |path: &HostPath| {
            let scope = scope.scope();
            let links = scope.directory_links(vec![path.clone()]);
            (links, scope.into_lookups())
        };
        let mut links = vec![];
        let found = patience::each_within(paths.clone(), Some(patience::SHORT), look);
        for (path, found) in paths.into_iter().zip(found) {
            if let Some((found, lookups)) = found {
                self.note_all(&lookups);
                links.extend(found?);
            } else if let Some(text) = self.node(path.as_path()).ok().and_then(|node| node.link) {
                links.extend(by_text(path, text));
            }
        }
        Ok(links)
    }

    /// Those of `paths` that are links straight to a directory.
    fn directory_links(&self, paths: Vec<HostPath>) -> Result<Vec<TopLink>, LookupError> {
        let mut links = vec![];
        for path in paths {
            let unreadable = |errno| LookupError::Unreadable {
                at: path.clone(),
                errno,
            };
            let Some(node) = found(self.node(path.as_path()).map_err(unreadable))? else {
                continue;
            };
            let Some(text) = node.link else { continue };
            let real = match self.walk(&path) {
                Ok(walk) => {
                    let straight = walk.links.len() == 1 && walk.stat.kind == FileKind::Directory;
                    straight.then_some(walk.real)
                }
                // What cannot be looked at is taken by the text: who needs what is there will hear
                // of it.
                Err(error) if error.is_unknown() => {
                    links.extend(by_text(path, text));
                    continue;
                }
                Err(_) => None,
            };
            links.extend(real.map(|real| TopLink { path, text, real }));
        }
        Ok(links)
    }

    /// Whether this is the running system, and not a made tree.
    pub(super) fn is_real(&self) -> bool {
        self.known.base == Path::new("/")
    }

    /// The subdirectories and links in the real directory `path`, if root owns it and nobody else
    /// can write to it; links that are not root's are left out. `None`: it is somebody else's, or
    /// is gone.
    ///
    /// Errors: it cannot be looked at.
    pub(super) fn roots_entries(&self, path: &HostPath) -> Result<Option<Vec<Entry>>, LookupError> {
        let unreadable = |error: io::Error| LookupError::Unreadable {
            at: path.clone(),
            errno: errno_of(&error),
        };
        let on_disk = self.on_disk(path.as_path());
        let Some(Node { stat, .. }) = seen(path, look(&on_disk))? else {
            return Ok(None);
        };
        if stat.kind != FileKind::Directory || !sys::is_roots(stat.uid) || stat.mode & 0o022 != 0 {
            return Ok(None);
        }
        self.note(path.as_path(), Aspect::NAMES);
        let Some(listed) = found(std::fs::read_dir(&on_disk).map_err(unreadable))? else {
            return Ok(None);
        };
        let mut entries = vec![];
        for entry in listed {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            let Ok(inside) = path.join(entry.file_name()) else {
                continue;
            };
            if kind.is_dir() {
                let node = seen(&inside, look(&entry.path()))?
                    .filter(|node| node.stat.file.dev == stat.file.dev);
                entries.extend(node.map(|_| Entry::Directory(inside)));
            } else if kind.is_symlink() {
                let node =
                    seen(&inside, look(&entry.path()))?.filter(|node| sys::is_roots(node.stat.uid));
                let text = node.and_then(|node| node.link);
                entries.extend(text.map(|text| Entry::Link(inside.as_path().to_owned(), text)));
            }
        }
        Ok(Some(entries))
    }

    /// What is at `path` at this moment, the last link not followed; what was found out before does
    /// not count. `None`: nothing.
    ///
    /// Errors: that cannot be told.
    pub(super) fn now(&self, path: &HostPath) -> Result<Option<Node>, LookupError> {
        self.note(path.as_path(), Aspect::NAME);
        seen(path, look(&self.on_disk(path.as_path())))
    }

    /// As [`Host::now`], for what a site's owner may change as he likes: no link on the way is
    /// followed, and it is not written down.
    pub(super) fn glimpse(&self, path: &HostPath) -> Result<Option<Node>, LookupError> {
        seen(path, look_beneath(&self.known.base, path.as_path()))
    }

    /// Where a path without links is on the disk: below the base.
    pub(super) fn on_disk(&self, real: &Path) -> PathBuf {
        self.known.base.join(real.strip_prefix("/").unwrap_or(real))
    }

    /// What `real`, whose directory has no links in it, is; a link is not followed.
    pub(super) fn node(&self, real: &Path) -> Result<Node, i32> {
        self.note(real, Aspect::NAME);
        let nodes = &self.known.nodes;
        if let Some(known) = nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(real)
        {
            return known.clone();
        }
        let node = look(&self.on_disk(real)).map_err(|error| errno_of(&error));
        let mut nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(real.to_owned()).or_insert(node).clone()
    }
}

/// How often a name is looked at that is a link and then none.
const LOOKS: usize = 10;

/// What is at `path`. One that is replaced just then is looked at again.
fn look(path: &Path) -> io::Result<Node> {
    steadily(|| {
        let stat = sys::stat_at(AT_FDCWD, path)?;
        let link = if stat.kind == FileKind::Symlink {
            Some(std::fs::read_link(path)?)
        } else {
            None
        };
        Ok(Node { stat, link })
    })
}

/// Looks again while readlink(2) says EINVAL: what was a link is none any more.
fn steadily(look: impl Fn() -> io::Result<Node>) -> io::Result<Node> {
    let again = |looked: &io::Result<Node>| {
        looked
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
    };
    (1..LOOKS)
        .map(|_| look())
        .find(|looked| !again(looked))
        .unwrap_or_else(&look)
}

/// As [`look`], of `path` below `base`, where no link may be on the way.
fn look_beneath(base: &Path, path: &Path) -> io::Result<Node> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let base = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(base)?;
    let inside = path.strip_prefix("/").unwrap_or(path);
    let (Some(directory), Some(name)) = (inside.parent(), inside.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let directory = sys::open_beneath(&base, directory, flags)?;
    steadily(|| {
        let stat = sys::stat_at(&directory, Path::new(name))?;
        let link = match stat.kind {
            FileKind::Symlink => Some(nix::fcntl::readlinkat(&directory, name)?.into()),
            _ => None,
        };
        Ok(Node { stat, link })
    })
}

/// What was seen at `path`; `None`: nothing is there.
fn seen(path: &HostPath, looked: io::Result<Node>) -> Result<Option<Node>, LookupError> {
    found(looked.map_err(|error| LookupError::Unreadable {
        at: path.clone(),
        errno: errno_of(&error),
    }))
}

/// The link at `path` as its text says.
fn by_text(path: HostPath, text: PathBuf) -> Option<TopLink> {
    let directory = path.as_path().parent().unwrap_or(Path::new("/"));
    let real = HostPath::new(lexical(directory, &text)).ok()?;
    Some(TopLink { path, text, real })
}

/// What the mount of the file at `path` forbids, if that still is the file of `stat`.
fn options_at(path: &Path, stat: &Stat) -> io::Result<MountAttributes> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    let found = sys::stat_fd(&file)?;
    if (found.file, found.mount_id) != (stat.file, stat.mount_id) {
        return Err(io::Error::from_raw_os_error(libc::ESTALE)); // somebody changes it just now
    }
    Ok(MountAttributes::OPEN.within(MountAttributes::of_statfs(fstatvfs(&file)?.flags())))
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_becomes_a_file_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let count = std::cell::Cell::new(0);
        let replaced = |times: usize| {
            count.set(0);
            steadily(|| {
                count.set(count.get() + 1);
                let node = look(&link)?;
                // What is a file by now.
                std::fs::read_link(if count.get() <= times { &file } else { &link })?;
                Ok(node)
            })
        };
        assert_eq!(
            replaced(3).ok().and_then(|node| node.link),
            Some("file".into())
        );
        assert_eq!(count.get(), 4);
        assert_eq!(
            replaced(usize::MAX)
                .err()
                .and_then(|error| error.raw_os_error()),
            Some(libc::EINVAL)
        );
        assert_eq!(count.get(), LOOKS, "there is an end");
    }

    #[test]
    fn a_run_sees_one_state_and_directories_are_listed_sorted() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["c", "a", "b"] {
            std::fs::create_dir_all(dir.path().join("etc").join(name)).unwrap();
        }
        let (host, a) = (Host::at(dir.path()), HostPath::new("/etc/a").unwrap());
        assert_eq!(host.is_there(&a), Ok(true));
        std::fs::remove_dir(dir.path().join("etc/a")).unwrap();
        assert_eq!(host.is_there(&a), Ok(true));
        assert_eq!(
            host.read_dir(&HostPath::new("/etc").unwrap()).unwrap(),
            ["b", "c"]
        );
    }
}

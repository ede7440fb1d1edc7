//! The host's file system, read only, as one run sees it.
//!
//! In: paths. Out: what is there, with every symbolic link met on the way. What was once looked up is
//! remembered, so a run sees one state of the host and asks the kernel once a name. A base prefix puts a
//! made tree in the host's place: every absolute path and every absolute link text is then taken from
//! the base, and `..` stops there. Where somebody wants to know it, what was asked for is written down. Nothing
//! here writes, mounts or executes.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::fcntl::AT_FDCWD;

use super::ldso::State;
use super::lookups::{Interest, Lookups};
use super::users::Accounts;
use crate::Error;
use crate::manifest::HostPath;
use crate::sys::{self, FileKind, Stat};

/// Links followed in one lookup before the kernel says ELOOP (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// The most that [`Host::read`] takes in, in bytes; the largest file it is for is `/etc/ld.so.cache`.
const MAX_READ: u64 = 64 << 20;

/// The file system of this host, or of a made tree.
pub struct Host {
    known: Arc<Known>,
    /// What was asked for through this value; `None`: nobody wants to know.
    lookups: Option<Mutex<Lookups>>,
}

/// What was found out, whoever asked.
struct Known {
    base: PathBuf,
    nodes: Mutex<HashMap<PathBuf, Result<Node, i32>>>,
    loader: OnceLock<(State, Lookups)>,
    accounts: OnceLock<(Accounts, Lookups)>,
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
struct Node {
    stat: Stat,
    link: Option<PathBuf>,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The path with all links followed.
    pub real: HostPath,
    /// What is there.
    pub stat: Stat,
    /// The links met, in order.
    pub links: Vec<LinkOnTheWay>,
}

/// A symbolic link met in a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOnTheWay {
    /// Where the link is; the directories before it are real ones.
    pub path: HostPath,
    /// What it says.
    pub text: PathBuf,
    /// Nothing of the path was left behind it: it stands for the file itself, not for a directory.
    pub last: bool,
}

/// Why a path leads nowhere; `Display` is a clause that can follow `path: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// `at` does not exist (ENOENT).
    Missing {
        /// The first component that is not there.
        at: HostPath,
    },
    /// `at` exists and is not a directory, although the path goes on (ENOTDIR).
    NotDirectory {
        /// The component in the way.
        at: HostPath,
    },
    /// A link exists, what it says does not (ENOENT).
    Dangling {
        /// The link.
        link: HostPath,
        /// What it says.
        text: PathBuf,
    },
    /// More links than the kernel follows, most likely a cycle (ELOOP).
    Cycle {
        /// The link that was one too many.
        link: HostPath,
    },
    /// The kernel refused for another reason: no permission, a failing disk, a file too large.
    Unreadable {
        /// What could not be read.
        at: HostPath,
        /// The errno.
        errno: i32,
    },
}

impl LookupError {
    /// Whether simply nothing has that name: neither a broken link nor a refusal.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::NotDirectory { .. })
    }

    /// What the kernel answers to such a lookup.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Missing { .. } | Self::Dangling { .. } => libc::ENOENT,
            Self::NotDirectory { .. } => libc::ENOTDIR,
            Self::Cycle { .. } => libc::ELOOP,
            Self::Unreadable { errno, .. } => *errno,
        }
    }

    /// An error of the host's with this reason; `message` says what could not be done, on which paths.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> Error {
        let message = message.into();
        let reason = io::Error::from_raw_os_error(self.errno());
        let error = Error::failed(&message).because(&reason);
        match self {
            Self::Unreadable { at, .. } if message.contains(&at.to_string()) => error,
            _ => error.because_of(self),
        }
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { at } => write!(f, "{at} does not exist"),
            Self::NotDirectory { at } => write!(f, "{at} is not a directory"),
            Self::Dangling { link, text } => {
                write!(f, "the link {link} leads to {}, which does not exist", text.display())
            }
            Self::Cycle { link } => write!(f, "too many links at {link}; do they lead in a circle?"),
            Self::Unreadable { at, errno } => {
                write!(f, "cannot read {at}: {}", nix::errno::Errno::from_raw(*errno).desc())
            }
        }
    }
}

impl std::error::Error for LookupError {}

impl From<LookupError> for io::Error {
    fn from(error: LookupError) -> Self {
        Self::from_raw_os_error(error.errno())
    }
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
        };
        Self { known: Arc::new(known), lookups: None }
    }

    /// The same, but what is looked up is written down.
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.lookups = Some(Mutex::default());
        self
    }

    /// Whether what is looked up is written down.
    pub(super) fn is_recording(&self) -> bool {
        self.lookups.is_some()
    }

    /// The same host, with all that is known of it, whose lookups are written down apart.
    #[must_use]
    pub fn scope(&self) -> Self {
        Self { known: self.known.clone(), lookups: self.lookups.as_ref().map(|_| Mutex::default()) }
    }

    /// What was looked up through this value; nothing, if nobody wanted to know.
    pub fn into_lookups(self) -> Lookups {
        self.lookups
            .map(|lookups| lookups.into_inner().unwrap_or_else(PoisonError::into_inner))
            .unwrap_or_default()
    }

    /// Remembers that `real`, whose directory has no links in it, was looked up.
    pub(super) fn note(&self, real: &Path, interest: Interest) {
        if let Some(lookups) = &self.lookups {
            lookups.lock().unwrap_or_else(PoisonError::into_inner).add(real, interest);
        }
    }

    /// Remembers that somebody depends on `path` who reads it by himself.
    pub fn depend_on(&self, path: &HostPath, interest: Interest) {
        if let Ok(walk) = self.walk(path) {
            self.note(walk.real.as_path(), interest);
        }
    }

    /// Remembers what somebody else looked up, whose result is used again.
    pub(super) fn note_all(&self, others: &Lookups) {
        if let Some(lookups) = &self.lookups {
            lookups.lock().unwrap_or_else(PoisonError::into_inner).add_all(others);
        }
    }

    /// What `read` makes of this host, made once, with what it looked up.
    fn once<'a, T>(&self, cell: &'a OnceLock<(T, Lookups)>, read: impl FnOnce(&Self) -> T) -> &'a T {
        let (made, lookups) = cell.get_or_init(|| {
            let scope = self.scope();
            let made = read(&scope);
            (made, scope.into_lookups())
        });
        self.note_all(lookups);
        made
    }

    /// What the dynamic loader knows of this host, read once.
    pub(super) fn loader_state(&self) -> &State {
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

    /// Whether `path` leads to something. What cannot be read counts as absent; ask [`Host::walk`] why.
    pub fn exists(&self, path: &HostPath) -> bool {
        self.walk(path).is_ok()
    }

    /// Opens the regular file that `path` leads to. A FIFO or device is refused: opening one can block or act.
    pub fn open(&self, path: &HostPath) -> Result<File, LookupError> {
        let walk = self.walk(path)?;
        let refused = |errno| LookupError::Unreadable { at: path.clone(), errno };
        match walk.stat.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(refused(libc::EISDIR)),
            _ => return Err(refused(libc::EINVAL)),
        }
        self.note(walk.real.as_path(), Interest::CONTENTS);
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(self.on_disk(walk.real.as_path()))
            .map_err(|error| refused(errno_of(&error)))
    }

    /// All of a regular file's bytes; EFBIG above 64 MiB.
    pub fn read(&self, path: &HostPath) -> Result<Vec<u8>, LookupError> {
        let refused = |errno| LookupError::Unreadable { at: path.clone(), errno };
        let mut bytes = Vec::new();
        self.open(path)?
            .take(MAX_READ + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| refused(errno_of(&error)))?;
        if bytes.len() as u64 > MAX_READ { Err(refused(libc::EFBIG)) } else { Ok(bytes) }
    }

    /// The names in the directory that `path` leads to, sorted by byte, without `.` and `..`.
    pub fn read_dir(&self, path: &HostPath) -> Result<Vec<OsString>, LookupError> {
        let real = self.walk(path)?.real;
        self.note(real.as_path(), Interest::NAMES);
        let list = || -> io::Result<Vec<OsString>> {
            std::fs::read_dir(self.on_disk(real.as_path()))?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect()
        };
        let mut names =
            list().map_err(|error| LookupError::Unreadable { at: path.clone(), errno: errno_of(&error) })?;
        names.sort();
        Ok(names)
    }

    /// The accounts of this host, read once.
    pub(super) fn accounts(&self) -> &Accounts {
        self.once(&self.known.accounts, Accounts::read)
    }

    /// Whether this is the running system, and not a made tree.
    pub(super) fn is_real(&self) -> bool {
        self.known.base == Path::new("/")
    }

    /// The subdirectories and links in the real directory `path`, if root owns it and nobody else can write
    /// to it; links that are not root's are left out. `None`: it is somebody else's, or cannot be read.
    pub(super) fn roots_entries(&self, path: &HostPath) -> Option<Vec<Entry>> {
        let on_disk = self.on_disk(path.as_path());
        let stat = look(&on_disk).ok()?.stat;
        if stat.kind != FileKind::Directory || stat.uid != 0 || stat.mode & 0o022 != 0 {
            return None;
        }
        self.note(path.as_path(), Interest::NAMES);
        let mut entries = vec![];
        for entry in std::fs::read_dir(&on_disk).ok()?.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let Ok(inside) = path.join(entry.file_name()) else { continue };
            if kind.is_dir() {
                let same = look(&entry.path()).is_ok_and(|node| node.stat.file.dev == stat.file.dev);
                entries.extend(same.then_some(Entry::Directory(inside)));
            } else if kind.is_symlink() {
                let node = look(&entry.path()).ok().filter(|node| node.stat.uid == 0);
                let text = node.and_then(|node| node.link);
                entries.extend(text.map(|text| Entry::Link(inside.as_path().to_owned(), text)));
            }
        }
        Some(entries)
    }

    /// What is at `path` at this moment, the last link not followed; what was found out before does not count.
    pub(super) fn now(&self, path: &HostPath) -> io::Result<(Stat, Option<PathBuf>)> {
        self.note(path.as_path(), Interest::NAME);
        self.glimpse(path)
    }

    /// As [`Host::now`], for what a site's owner may change as he likes: it is not written down.
    pub(super) fn glimpse(&self, path: &HostPath) -> io::Result<(Stat, Option<PathBuf>)> {
        look(&self.on_disk(path.as_path())).map(|node| (node.stat, node.link))
    }

    /// Where a path without links is on the disk: below the base.
    pub(super) fn on_disk(&self, real: &Path) -> PathBuf {
        self.known.base.join(real.strip_prefix("/").unwrap_or(real))
    }

    /// What `real`, whose directory has no links in it, is; a link is not followed.
    fn node(&self, real: &Path) -> Result<Node, i32> {
        self.note(real, Interest::NAME);
        let nodes = &self.known.nodes;
        if let Some(known) = nodes.lock().unwrap_or_else(PoisonError::into_inner).get(real) {
            return known.clone();
        }
        let node = look(&self.on_disk(real)).map_err(|error| errno_of(&error));
        let mut nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.entry(real.to_owned()).or_insert(node).clone()
    }
}

fn look(path: &Path) -> io::Result<Node> {
    let stat = sys::stat_at(AT_FDCWD, path)?;
    let link = if stat.kind == FileKind::Symlink { Some(std::fs::read_link(path)?) } else { None };
    Ok(Node { stat, link })
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// One lookup on its way.
struct Walker<'a> {
    host: &'a Host,
    /// Real directories all the way.
    at: PathBuf,
    /// What is still to follow, each with the index of the link whose text it is from.
    rest: VecDeque<(OsString, Option<usize>)>,
    links: Vec<LinkOnTheWay>,
}

impl<'a> Walker<'a> {
    fn new(host: &'a Host, path: &HostPath) -> Self {
        let mut walker = Self { host, at: PathBuf::from("/"), rest: VecDeque::new(), links: Vec::new() };
        walker.push(path.as_path(), None);
        walker
    }

    fn run(mut self) -> Result<Walk, LookupError> {
        let mut stat = self.look(None)?.stat;
        while let Some((name, from)) = self.rest.pop_front() {
            if name == ".." {
                self.at.pop();
                stat = self.look(from)?.stat;
                continue;
            }
            self.at.push(name);
            let node = self.look(from)?;
            stat = node.stat;
            match node.link {
                Some(text) => self.follow(text)?,
                None if stat.kind != FileKind::Directory && !self.rest.is_empty() => {
                    return Err(LookupError::NotDirectory { at: self.here()? });
                }
                None => {}
            }
        }
        if stat.kind == FileKind::Symlink {
            // A link that led to its own directory (`.` or `/`) leaves no component behind to look at.
            stat = self.look(None)?.stat;
        }
        Ok(Walk { real: self.here()?, stat, links: self.links })
    }

    fn look(&self, from: Option<usize>) -> Result<Node, LookupError> {
        self.host.node(&self.at).map_err(|errno| match self.here() {
            Err(error) => error,
            Ok(at) if errno == libc::ENOENT => self.missing(at, from),
            Ok(at) if errno == libc::ENOTDIR => LookupError::NotDirectory { at },
            Ok(at) => LookupError::Unreadable { at, errno },
        })
    }

    fn missing(&self, at: HostPath, from: Option<usize>) -> LookupError {
        match from.and_then(|index| self.links.get(index)) {
            Some(link) => LookupError::Dangling { link: link.path.clone(), text: link.text.clone() },
            None => LookupError::Missing { at },
        }
    }

    fn follow(&mut self, text: PathBuf) -> Result<(), LookupError> {
        let link = self.here()?;
        if self.links.len() == MAX_LINKS {
            return Err(LookupError::Cycle { link });
        }
        self.at.pop();
        if text.is_absolute() {
            self.at = PathBuf::from("/");
        }
        let last = self.rest.is_empty();
        self.push(&text, Some(self.links.len()));
        self.links.push(LinkOnTheWay { path: link, text, last });
        Ok(())
    }

    fn push(&mut self, text: &Path, from: Option<usize>) {
        for component in text.components().rev() {
            match component {
                Component::Normal(name) => self.rest.push_front((name.to_owned(), from)),
                Component::ParentDir => self.rest.push_front(("..".into(), from)),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    /// The path so far. Links can make it longer than the kernel takes in one piece.
    fn here(&self) -> Result<HostPath, LookupError> {
        HostPath::new(&self.at)
            .map_err(|_| LookupError::Unreadable { at: HostPath::slash(), errno: libc::ENAMETOOLONG })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(text: &str) -> HostPath {
        HostPath::new(text).unwrap()
    }

    fn tree() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("usr/lib/a.so"), "a").unwrap();
        symlink("usr/lib", dir.path().join("lib")).unwrap();
        symlink("/lib/a.so", dir.path().join("etc/a")).unwrap();
        symlink("../../../../../etc/a", dir.path().join("etc/up")).unwrap();
        symlink("/run/none/stub", dir.path().join("etc/dangling")).unwrap();
        symlink("b", dir.path().join("etc/c")).unwrap();
        symlink("c", dir.path().join("etc/b")).unwrap();
        symlink("/", dir.path().join("slash")).unwrap();
        symlink(".", dir.path().join("usr/here")).unwrap();
        let host = Host::at(dir.path());
        (dir, host)
    }

    #[test]
    fn every_link_on_the_way_is_reported_and_absolute_ones_stay_in_the_base() {
        let (_dir, host) = tree();
        for (start, links) in [
            ("/usr/lib/a.so", vec![]),
            ("/lib/a.so", vec![("/lib", "usr/lib", false)]),
            ("/etc/a", vec![("/etc/a", "/lib/a.so", true), ("/lib", "usr/lib", false)]),
            (
                "/slash/etc/up",
                vec![
                    ("/slash", "/", false),
                    ("/etc/up", "../../../../../etc/a", true),
                    ("/etc/a", "/lib/a.so", true),
                    ("/lib", "usr/lib", false),
                ],
            ),
        ] {
            let walk = host.walk(&path(start)).unwrap();
            assert_eq!(walk.real, path("/usr/lib/a.so"), "{start}");
            assert_eq!(walk.stat.kind, FileKind::File);
            let seen: Vec<_> =
                walk.links.iter().map(|l| (l.path.to_string(), l.text.to_str().unwrap(), l.last)).collect();
            let expected: Vec<_> = links.into_iter().map(|(p, t, last)| (p.to_owned(), t, last)).collect();
            assert_eq!(seen, expected, "{start}");
        }
        assert_eq!(host.read(&path("/etc/up")).unwrap(), b"a");
    }

    #[test]
    fn a_link_to_its_own_directory_is_that_directory() {
        let (_dir, host) = tree();
        for (start, real) in [("/slash", "/"), ("/usr/here", "/usr"), ("/usr/here/here/lib", "/usr/lib")] {
            let walk = host.walk(&path(start)).unwrap();
            assert_eq!((walk.real, walk.stat.kind), (path(real), FileKind::Directory), "{start}");
        }
    }

    #[test]
    fn each_way_to_fail_has_its_own_words() {
        let (dir, host) = tree();
        let said = |text: &str| host.walk(&path(text)).unwrap_err().to_string();
        assert_eq!(said("/etc/none/x"), "/etc/none does not exist");
        assert_eq!(said("/lib/none"), "/usr/lib/none does not exist");
        assert_eq!(said("/etc/a/x"), "/usr/lib/a.so is not a directory");
        assert_eq!(
            said("/etc/dangling"),
            "the link /etc/dangling leads to /run/none/stub, which does not exist"
        );
        assert!(said("/etc/b").starts_with("too many links at /etc/"), "{}", said("/etc/b"));
        assert_eq!(host.walk(&path("/etc/b")).unwrap_err().errno(), libc::ELOOP);
        assert_eq!(host.read(&path("/etc")).unwrap_err().to_string(), "cannot read /etc: Is a directory");
        let error = host.read(&path("/etc")).unwrap_err().error("cannot list the certificates in /etc");
        assert_eq!(error.to_string(), "cannot list the certificates in /etc: Is a directory");
        let error = host.walk(&path("/etc/none")).unwrap_err().error("cannot bind /etc/none");
        assert_eq!(error.to_string(), "cannot bind /etc/none: /etc/none does not exist");
        assert_eq!(error.errno(), Some(libc::ENOENT));
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(host.read(&path("/fifo")).unwrap_err().errno(), libc::EINVAL);
    }

    #[test]
    fn forty_links_are_followed_and_one_more_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0"), "").unwrap();
        for n in 1..=41 {
            symlink(format!("{}", n - 1), dir.path().join(format!("{n}"))).unwrap();
        }
        let host = Host::at(dir.path());
        assert_eq!(host.walk(&path("/40")).unwrap().links.len(), 40);
        assert_eq!(host.walk(&path("/41")).unwrap_err().errno(), libc::ELOOP);
        assert!(fs::metadata(dir.path().join("40")).is_ok(), "the kernel agrees");
        assert!(fs::metadata(dir.path().join("41")).is_err(), "the kernel agrees");
    }

    #[test]
    fn a_run_sees_one_state_and_directories_are_listed_sorted() {
        let (dir, host) = tree();
        assert!(host.exists(&path("/etc/a")));
        fs::remove_file(dir.path().join("etc/a")).unwrap();
        assert!(host.exists(&path("/etc/a")));
        assert_eq!(host.read_dir(&path("/etc")).unwrap(), ["b", "c", "dangling", "up"]);
    }
}

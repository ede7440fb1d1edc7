//! One path looked up on the host, component by component, with every symbolic link met on the way.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::host::{Host, Node};
use super::others::Others;
use crate::Error;
use crate::base::HostPath;
use crate::sys::{FileKind, Stat, may_look_everywhere};

/// Links followed in one lookup before the kernel says ELOOP (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

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
    /// The link is in the hands of others than root, who do not own what it leads to.
    Strange {
        /// The link.
        link: HostPath,
        /// In whose hands it is, and why.
        others: Others,
        /// Where it leads.
        to: HostPath,
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

    /// Whether it is not known if anything has that name: the kernel, the disk or a server could
    /// not tell. It never counts as absence. Who is not root cannot look everywhere: what is closed
    /// to them counts as absent.
    pub fn is_unknown(&self) -> bool {
        use libc::{EACCES, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM};
        match self {
            Self::Unreadable {
                errno: ENOENT | ENOTDIR | ELOOP | ENAMETOOLONG | EINVAL | EISDIR,
                ..
            } => false,
            Self::Unreadable {
                errno: EACCES | EPERM,
                ..
            } => may_look_everywhere(),
            Self::Unreadable { .. } => true,
            _ => false,
        }
    }

    /// The component that it ended at.
    pub fn at(&self) -> &HostPath {
        match self {
            Self::Missing { at } | Self::NotDirectory { at } | Self::Unreadable { at, .. } => at,
            Self::Dangling { link, .. } | Self::Cycle { link } | Self::Strange { link, .. } => link,
        }
    }

    /// What the kernel answers to such a lookup.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Missing { .. } | Self::Dangling { .. } => libc::ENOENT,
            Self::NotDirectory { .. } => libc::ENOTDIR,
            Self::Cycle { .. } => libc::ELOOP,
            Self::Strange { .. } => libc::EACCES, // as of links in /tmp: protected_symlinks in proc_sys_fs(5)
            Self::Unreadable { errno, .. } => *errno,
        }
    }

    /// An error of the host's with this reason; `message` says what could not be done, on which
    /// paths.
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
                write!(
                    f,
                    "the link {link} leads to {}, which does not exist",
                    text.display()
                )
            }
            Self::Cycle { link } => {
                write!(f, "too many links at {link}; do they lead in a circle?")
            }
            Self::Strange { link, others, to } => {
                match others.user {
                    Some(uid) => write!(
                        f,
                        "the link {link} is user {uid}'s, who does not own {to}, to which it leads ({others})"
                    ),
                    None => write!(f, "the link {link} leads to {to}, and {others}"),
                }?;
                f.write_str(": it is not followed, or they could have anything mounted")
            }
            Self::Unreadable { at, errno } => {
                write!(
                    f,
                    "cannot read {at}: {}",
                    nix::errno::Errno::from_raw(*errno).desc()
                )
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

/// What was found; `None`: it is certain that nothing is there, or not what was looked for.
///
/// Errors: it could not be told ([`LookupError::is_unknown`]).
pub(crate) fn found<T>(result: Result<T, LookupError>) -> Result<Option<T>, LookupError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_unknown() => Err(error),
        Err(_) => Ok(None),
    }
}

/// One lookup on its way.
pub(super) struct Walker<'a> {
    host: &'a Host,
    /// Real directories all the way.
    at: PathBuf,
    /// What is still to follow, each with the index of the link whose text it is from.
    rest: VecDeque<(OsString, Option<usize>)>,
    links: Vec<LinkOnTheWay>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(host: &'a Host, path: &HostPath) -> Self {
        let mut walker = Self {
            host,
            at: PathBuf::from("/"),
            rest: VecDeque::new(),
            links: Vec::new(),
        };
        walker.push(path.as_path(), None);
        walker
    }

    pub(super) fn run(mut self) -> Result<Walk, LookupError> {
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
            // A link that led to its own directory (`.` or `/`) leaves no component behind to look
            // at.
            stat = self.look(None)?.stat;
        }
        Ok(Walk {
            real: self.here()?,
            stat,
            links: self.links,
        })
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
            Some(link) => LookupError::Dangling {
                link: link.path.clone(),
                text: link.text.clone(),
            },
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
        self.links.push(LinkOnTheWay {
            path: link,
            text,
            last,
        });
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
        HostPath::new(&self.at).map_err(|_| LookupError::Unreadable {
            at: HostPath::slash(),
            errno: libc::ENAMETOOLONG,
        })
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
            (
                "/etc/a",
                vec![("/etc/a", "/lib/a.so", true), ("/lib", "usr/lib", false)],
            ),
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
            let seen: Vec<_> = walk
                .links
                .iter()
                .map(|l| (l.path.to_string(), l.text.to_str().unwrap(), l.last))
                .collect();
            let expected: Vec<_> = links
                .into_iter()
                .map(|(p, t, last)| (p.to_owned(), t, last))
                .collect();
            assert_eq!(seen, expected, "{start}");
        }
        assert_eq!(host.read(&path("/etc/up")).unwrap(), b"a");
    }

    #[test]
    fn a_link_to_its_own_directory_is_that_directory() {
        let (_dir, host) = tree();
        for (start, real) in [
            ("/slash", "/"),
            ("/usr/here", "/usr"),
            ("/usr/here/here/lib", "/usr/lib"),
        ] {
            let walk = host.walk(&path(start)).unwrap();
            assert_eq!(
                (walk.real, walk.stat.kind),
                (path(real), FileKind::Directory),
                "{start}"
            );
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
        assert!(
            said("/etc/b").starts_with("too many links at /etc/"),
            "{}",
            said("/etc/b")
        );
        assert_eq!(host.walk(&path("/etc/b")).unwrap_err().errno(), libc::ELOOP);
        assert_eq!(
            host.read(&path("/etc")).unwrap_err().to_string(),
            "cannot read /etc: Is a directory"
        );
        let error = host
            .read(&path("/etc"))
            .unwrap_err()
            .error("cannot list the certificates in /etc");
        assert_eq!(
            error.to_string(),
            "cannot list the certificates in /etc: Is a directory"
        );
        let error = host
            .walk(&path("/etc/none"))
            .unwrap_err()
            .error("cannot bind /etc/none");
        assert_eq!(
            error.to_string(),
            "cannot bind /etc/none: /etc/none does not exist"
        );
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
        assert!(
            fs::metadata(dir.path().join("40")).is_ok(),
            "the kernel agrees"
        );
        assert!(
            fs::metadata(dir.path().join("41")).is_err(),
            "the kernel agrees"
        );
    }
}

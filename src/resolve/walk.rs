//! One path looked up on the host, component by component, with every symbolic link on the way.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::dependencies::Aspect;
use super::host::{Host, HostEntry};
use super::lookup_error::{LookupError, found};
use crate::base::{HostPath, MAX_LINKS};
use crate::sys::{FileKind, Stat};

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The path with all links followed.
    pub real: HostPath,
    pub(crate) stat: Stat,
    /// The links on the way, in order.
    pub links: Vec<LinkOnTheWay>,
}

/// A symbolic link on the way of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOnTheWay {
    /// Where the link is; the directories above it are real ones.
    pub path: HostPath,
    /// Where it leads, as readlink(2) has it.
    pub destination: PathBuf,
    /// Nothing of the path was left behind it: it stands for the file itself, not for a directory.
    pub last: bool,
}

impl Host {
    /// Follows `path` component by component.
    pub fn walk(&self, path: &HostPath) -> Result<Walk, LookupError> {
        let walk = Walker::new(self, path).run()?;
        if walk.links.is_empty()
            && let Some(directory) = path.parent()
            && !self.is_plain(&directory)
        {
            self.remember_plain(&directory);
        }
        Ok(walk)
    }

    /// The file `path`, all links followed.
    pub fn stat(&self, path: &HostPath) -> Result<Stat, LookupError> {
        self.walk(path).map(|walk| walk.stat)
    }

    /// Whether `path` leads to something.
    ///
    /// Errors: it is unknown.
    pub fn is_there(&self, path: &HostPath) -> Result<bool, LookupError> {
        found(self.walk(path)).map(|walk| walk.is_some())
    }

    /// Remembers that something depends on `path` that reads it without this value.
    pub fn depend_on(&self, path: &HostPath, aspect: Aspect) {
        if let Ok(walk) = self.walk(path) {
            self.note(walk.real.as_path(), aspect);
        }
    }
}

/// A lookup in progress.
struct Walker<'a> {
    host: &'a Host,
    /// Real directories all the way.
    at: PathBuf,
    /// The names still to follow, each with the index of the link that it is from.
    rest: VecDeque<(OsString, Option<usize>)>,
    links: Vec<LinkOnTheWay>,
}

impl<'a> Walker<'a> {
    fn new(host: &'a Host, path: &HostPath) -> Self {
        let plain = path.parent().filter(|directory| host.is_plain(directory));
        let (at, rest) = match (&plain, path.file_name()) {
            (Some(directory), Some(name)) => (directory, Path::new(name)),
            _ => (&HostPath::slash(), path.as_path()),
        };
        let mut walker = Self {
            host,
            at: at.as_path().to_owned(),
            rest: VecDeque::new(),
            links: Vec::new(),
        };
        walker.push(rest, None);
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
                Some(destination) => self.follow(destination)?,
                None if stat.kind != FileKind::Directory && !self.rest.is_empty() => {
                    return Err(LookupError::NotDirectory { at: self.here()? });
                }
                None => {}
            }
        }
        if stat.kind == FileKind::Symlink {
            // A link to its own directory (`.` or `/`) leaves no component to look at.
            stat = self.look(None)?.stat;
        }
        Ok(Walk {
            real: self.here()?,
            stat,
            links: self.links,
        })
    }

    fn look(&self, from: Option<usize>) -> Result<HostEntry, LookupError> {
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
                destination: link.destination.clone(),
            },
            None => LookupError::Missing { at },
        }
    }

    fn follow(&mut self, destination: PathBuf) -> Result<(), LookupError> {
        let link = self.here()?;
        if self.links.len() == MAX_LINKS {
            return Err(LookupError::Cycle { link });
        }
        self.at.pop();
        if destination.is_absolute() {
            self.at = PathBuf::from("/");
        }
        let last = self.rest.is_empty();
        self.push(&destination, Some(self.links.len()));
        self.links.push(LinkOnTheWay {
            path: link,
            destination,
            last,
        });
        Ok(())
    }

    fn push(&mut self, path: &Path, from: Option<usize>) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.rest.push_front((name.to_owned(), from)),
                Component::ParentDir => self.rest.push_front(("..".into(), from)),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    /// The path so far. Links can make it longer than the kernel accepts.
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
                .map(|l| (l.path.to_string(), l.destination.to_str().unwrap(), l.last))
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

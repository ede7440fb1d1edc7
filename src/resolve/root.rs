//! The site's root: where it really is, and whether a jail may be there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use super::host::Host;
use super::types::{Desired, FileId, FileKind};
use super::walk::{LookupError, Walk};
use crate::manifest::{HostPath, Manifest, SiteName};
use crate::{Error, Result, sys};

/// Directories that hold the system, and those in which sites are kept.
const SYSTEM: [&str; 29] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/mail",
    "/var/spool",
    "/var/tmp",
];

/// Directories below which no jail can be.
const SYSTEM_BELOW: [&str; 15] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run/mountjail",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/usr/share",
    "/var/lib/mountjail",
];

/// The roots of all sites, links on the way followed.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    by_path: BTreeMap<HostPath, Vec<SiteName>>,
    /// Those without a manifest.
    recorded: BTreeSet<SiteName>,
}

impl Roots {
    /// Adds the root of `site`.
    pub fn add(&mut self, site: SiteName, root: HostPath) {
        self.by_path.entry(root).or_default().push(site);
    }

    /// Adds the root of a site that only the records know: its manifest was renamed, removed, or is elsewhere.
    pub fn add_recorded(&mut self, site: SiteName, root: HostPath) {
        self.recorded.insert(site.clone());
        self.add(site, root);
    }

    /// The site whose root is `root`.
    pub fn site_at(&self, root: &HostPath) -> Option<&SiteName> {
        self.by_path.get(root).and_then(|sites| sites.first())
    }

    /// The site that the path is in, if any.
    pub fn site_of(&self, path: &HostPath) -> Option<&SiteName> {
        let at_or_above = path.as_path().ancestors().filter_map(|above| HostPath::new(above).ok());
        at_or_above.filter_map(|above| self.by_path.get(&above)).flatten().next()
    }

    /// Another site with the same root, one above or one below.
    fn in_the_way(&self, site: &SiteName, root: &HostPath) -> Option<(&SiteName, &HostPath)> {
        let at_or_above = root.as_path().ancestors().filter_map(|above| HostPath::new(above).ok());
        let at_or_above = at_or_above.filter_map(|above| self.by_path.get_key_value(&above));
        let below = self.by_path.range((Bound::Excluded(root), Bound::Unbounded));
        let below = below.take_while(|(path, _)| path.starts_with(root));
        at_or_above
            .chain(below)
            .find_map(|(path, sites)| sites.iter().find(|other| *other != site).map(|other| (other, path)))
    }
}

/// Which directory the root of a site is.
pub fn root_id(root: &HostPath) -> Result<FileId> {
    let stat = sys::open_host(root.as_path(), libc::O_PATH).and_then(sys::stat_fd);
    let stat = stat.map_err(|error| Error::failed(format!("cannot open the root {root}")).because(&error))?;
    Ok(stat.file)
}

/// A root in which a jail may be.
#[derive(Debug)]
pub(super) struct Checked {
    /// With all links on the way followed.
    pub path: HostPath,
    pub warnings: Vec<String>,
}

/// Where the root of `manifest` really is.
pub(super) fn check(host: &Host, manifest: &Manifest, roots: &Roots) -> Result<Checked> {
    let root = &manifest.root;
    refuse_system(root)?;
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return Err(Error::usage(format!("the root {root} holds the system")));
    };
    let parent = walk_to(host, &parent).map_err(|error| missing(root, &error))?;
    let path =
        parent.real.join(name).map_err(|why| Error::usage(format!("the root {root}")).because_of(why))?;
    let (stat, _) = host.now(&path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => missing(root, &LookupError::Missing { at: root.clone() }),
        _ => Error::failed(format!("cannot look at the root {root}")).because(&error),
    })?;
    match stat.kind {
        FileKind::Directory => {}
        FileKind::Symlink => {
            return Err(Error::usage(format!("the root {root} is a symbolic link"))
                .hint("name the directory that it leads to"));
        }
        kind => return Err(Error::usage(format!("the root {root} is a {kind}, not a directory"))),
    }
    refuse_system(&path)?;
    if let Some((other, theirs)) = roots.in_the_way(&manifest.site, &path) {
        let root = &path;
        return Err(if theirs == root && roots.recorded.contains(other) {
            Error::failed(format!(
                "the root {root} is set up as the site {other}, whose manifest is gone or elsewhere"
            ))
            .hint(format!("`mountjail down {other}`, then this again"))
        } else if theirs == root {
            Error::usage(format!("the root {root} is the root of the site {other} as well"))
                .hint("make one manifest of the two")
        } else {
            let (inner, outer) = if root.starts_with(theirs) { (root, theirs) } else { (theirs, root) };
            Error::usage(format!(
                "the roots {root} and {theirs} (of the site {other}) overlap: {inner} is in {outer}"
            ))
            .hint("a jail inside another jail could be reached, and changed, from there")
        });
    }
    Ok(Checked { warnings: who_can_write(host, &path), path })
}

/// Refuses a root that holds the system.
pub fn refuse_system(root: &HostPath) -> Result<()> {
    let at = root.as_path();
    let below = SYSTEM_BELOW.iter().find(|system| at.starts_with(system) && at != Path::new(system));
    if SYSTEM.iter().any(|system| at == Path::new(system))
        || SYSTEM_BELOW.iter().any(|system| at == Path::new(system))
    {
        return Err(Error::usage(format!(
            "the root {root} is a directory of the system; a jail must not be there"
        ))
        .hint("make a directory of the site's own, such as /srv/www/SITE"));
    }
    match below {
        Some(system) => {
            Err(Error::usage(format!("the root {root} is inside {system}, which holds the system"))
                .hint("make a directory of the site's own, such as /srv/www/SITE"))
        }
        None => Ok(()),
    }
}

/// Where `directory`, which leads to a root, really is.
fn walk_to(host: &Host, directory: &HostPath) -> Result<Walk, LookupError> {
    let walk = host.walk(directory)?;
    host.refuse_strange_links(&walk).map(|()| walk)
}

fn missing(root: &HostPath, error: &LookupError) -> Error {
    let refused = matches!(error, LookupError::Strange { .. });
    let error = error.error(format!("cannot find the root {root}"));
    if refused {
        return error.hint("name the directory that is meant, without links");
    }
    error.hint("mount the disk that it is on, make the directory, or let `mountjail up --create` make it")
}

/// Who besides root could put something else in the root's place.
fn who_can_write(host: &Host, root: &HostPath) -> Vec<String> {
    let mut warnings = vec![];
    let mut above = root.parent();
    while let Some(directory) = above {
        if let Ok(stat) = host.stat(&directory) {
            let sticky = stat.mode & 0o1000 != 0;
            if stat.uid != 0 {
                warnings.push(format!(
                    "{directory}, which leads to the root, belongs to user {}, who can rename what is in it \
                     while the site is up; `chown root {directory}`",
                    stat.uid
                ));
            } else if stat.mode & 0o022 != 0 && !sticky {
                warnings.push(format!(
                    "{directory}, which leads to the root, can be written by others than root, who can rename \
                     what is in it while the site is up; `chmod go-w {directory}`"
                ));
            }
        }
        above = directory.parent();
    }
    warnings
}

/// Errors for every source that shows the jail to itself.
pub(super) fn contains_a_source(desired: &Desired) -> Vec<Error> {
    let root = &desired.root;
    let overlaps = desired.mounts.iter().filter(|mount| {
        mount.source.starts_with(root)
            || (mount.kind == FileKind::Directory && root.starts_with(&mount.source))
    });
    overlaps
        .map(|mount| {
            let origin = mount.reasons.first().map(|reason| reason.origin.to_string()).unwrap_or_default();
            let relation = if mount.source.starts_with(root) { "is in the root" } else { "holds the root" };
            Error::usage(format!("the source {} {relation} {root}: {origin}", mount.source))
                .hint("a jail cannot be shown to itself; name a source elsewhere")
        })
        .collect()
}

/// Makes the directory `root` and those above it (mode 0755) if it is missing: what `--create` does.
pub fn create_root(root: &HostPath) -> Result<bool> {
    refuse_system(root)?;
    if std::fs::symlink_metadata(root).is_ok() {
        return Ok(false);
    }
    let host = Host::new();
    let above = root.as_path().ancestors().skip(1).filter_map(|above| HostPath::new(above).ok());
    let Some(above) = above.into_iter().find(|above| host.exists(above)) else { return Ok(false) };
    // Where it will really be, before anything is made there.
    let real = walk_to(&host, &above).map_err(|error| missing(root, &error))?.real;
    let rest = root.below(&above).unwrap_or(Path::new(""));
    refuse_system(&real.join(rest).map_err(|why| Error::usage(root.to_string()).because_of(why))?)?;
    make_below(&real, rest)
        .map(|()| true)
        .map_err(|error| Error::failed(format!("cannot make the root {root}")).because(&error))
}

/// Makes the directories `path` in `directory`, following no link.
fn make_below(directory: &HostPath, path: &Path) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = sys::open_host(directory.as_path(), libc::O_PATH | libc::O_DIRECTORY)?;
    for name in path {
        mkdirat(&at, name, Mode::from_bits_truncate(0o755))?;
        at = openat(&at, name, flags, Mode::empty())?;
    }
    Ok(())
}

//! The site's root: where it really is, and whether a jail may be there.

use std::io;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use super::desired::{Desired, FileId, FileKind};
use super::host::Host;
use super::others::Others;
use super::roots::Roots;
use super::walk::LookupError;
use crate::base::HostPath;
use crate::manifest::Manifest;
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

/// Which directory the root of a site is.
pub fn root_id(root: &HostPath) -> Result<FileId> {
    let stat = sys::open_host(root.as_path(), libc::O_PATH).and_then(sys::stat_fd);
    let stat = stat
        .map_err(|error| Error::failed(format!("cannot open the root {root}")).because(&error))?;
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
    let parent = host
        .walk_strictly(&parent)
        .map_err(|error| missing(root, &error))?;
    let path = parent
        .real
        .join(name)
        .map_err(|why| Error::usage(format!("the root {root}")).because_of(why))?;
    let there = host
        .now(&path)
        .map_err(|error| error.error(format!("cannot look at the root {root}")))?;
    let there = there.ok_or_else(|| missing(root, &LookupError::Missing { at: root.clone() }))?;
    match there.stat.kind {
        FileKind::Directory => {}
        FileKind::Symlink => {
            return Err(Error::usage(format!("the root {root} is a symbolic link"))
                .hint("name the directory that it leads to"));
        }
        kind => {
            return Err(Error::usage(format!(
                "the root {root} is a {kind}, not a directory"
            )));
        }
    }
    refuse_system(&path)?;
    let mut warnings = who_can_write(host, &path)?;
    warnings.extend(roots.check(&manifest.site, &path)?);
    Ok(Checked { path, warnings })
}

/// Refuses a root that holds the system.
pub fn refuse_system(root: &HostPath) -> Result<()> {
    let at = root.as_path();
    let below = SYSTEM_BELOW
        .iter()
        .find(|system| at.starts_with(system) && at != Path::new(system));
    if SYSTEM.iter().any(|system| at == Path::new(system))
        || SYSTEM_BELOW.iter().any(|system| at == Path::new(system))
    {
        return Err(Error::usage(format!(
            "the root {root} is a directory of the system; a jail must not be there"
        ))
        .hint("make a directory of the site's own, such as /srv/www/SITE"));
    }
    match below {
        Some(system) => Err(Error::usage(format!(
            "the root {root} is inside {system}, which holds the system"
        ))
        .hint("make a directory of the site's own, such as /srv/www/SITE")),
        None => Ok(()),
    }
}

fn missing(root: &HostPath, error: &LookupError) -> Error {
    let refused = matches!(error, LookupError::Strange { .. });
    let error = error.error(format!("cannot find the root {root}"));
    if refused {
        return error.hint("name the directory that is meant, without links");
    }
    error.hint(
        "mount the disk that it is on, make the directory, or let `mountjail up --create` make it",
    )
}

/// Who besides root could put something else in the root's place.
fn who_can_write(host: &Host, root: &HostPath) -> Result<Vec<String>> {
    let cannot =
        |error: LookupError| error.error(format!("cannot look at what leads to the root {root}"));
    let others = host.others_on_each_name(root).map_err(cannot)?;
    let warning = |others: Others| {
        format!(
            "{others}, on the way to the root: what is in it can be renamed while the site is up; `{}`",
            others.remedy()
        )
    };
    Ok(others.into_iter().map(warning).collect())
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
            let origin = mount
                .reasons
                .first()
                .map(|reason| reason.origin.to_string())
                .unwrap_or_default();
            let relation = if mount.source.starts_with(root) {
                "is in the root"
            } else {
                "holds the root"
            };
            Error::usage(format!(
                "the source {} {relation} {root}: {origin}",
                mount.source
            ))
            .hint("a jail cannot be shown to itself; name a source elsewhere")
        })
        .collect()
}

/// Makes the directory `root` and those above it (mode 0755) if it is missing: what `--create`
/// does.
pub fn create_root(root: &HostPath) -> Result<bool> {
    refuse_system(root)?;
    let host = Host::new();
    let cannot = |error: &LookupError| missing(root, error);
    let mut above = root.clone();
    // Where it will really be, before anything is made there.
    let real = loop {
        match host.walk_strictly(&above) {
            Ok(_) if above == *root => return Ok(false),
            Ok(walk) => break walk.real,
            Err(error) if error.is_missing() => {
                above = above.parent().ok_or_else(|| cannot(&error))?;
            }
            Err(error) => return Err(cannot(&error)),
        }
    };
    let rest = root.below(&above).unwrap_or(Path::new(""));
    refuse_system(
        &real
            .join(rest)
            .map_err(|why| Error::usage(root.to_string()).because_of(why))?,
    )?;
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

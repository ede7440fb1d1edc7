//! The site's root: where it really is, and whether a jail may be there.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::desired::{Desired, FileId, FileKind};
use super::host::Host;
use super::layout::first_origin;
use super::lookup_error::LookupError;
use super::roots::{InSystem, Roots};
use super::system_directories::{SYSTEM, SYSTEM_BELOW};
use crate::base::hints::{CREATE_ROOT, is_absent};
use crate::base::{ErrorContext, HostPath};
use crate::manifest::Manifest;
use crate::{Error, Result, sys};

/// The identity of a site's root.
pub fn root_id(root: &HostPath) -> Result<FileId> {
    let stat = sys::open_host(root.as_path(), libc::O_PATH).and_then(sys::stat_fd);
    let stat = stat.context(format_args!("cannot open the root {root}"))?;
    Ok(stat.file)
}

/// A root in which a jail may be.
#[derive(Debug)]
pub(super) struct CheckedRoot {
    /// With all links on the way followed.
    pub path: HostPath,
    pub warnings: Vec<String>,
}

/// The meaning of a root that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MissingRoot {
    IsError,
    /// It is taken as empty.
    IsMade,
}

/// Where the root of `manifest` really is, or will be if it is made.
pub(super) fn check(
    host: &Host,
    manifest: &Manifest,
    roots: &Roots,
    missing: MissingRoot,
) -> Result<CheckedRoot> {
    let root = &manifest.root;
    refuse_system(root)?;
    if missing == MissingRoot::IsMade
        && let Some((existing, rest)) = nearest_existing(root)?
    {
        return check_new(host, manifest, roots, (&existing, rest));
    }
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return Err(Error::usage(format!("the root {root} holds the system")));
    };
    let parent = host
        .walk_strictly(&parent)
        .map_err(|error| not_found(root, &error))?;
    let path = parent
        .real
        .join(name)
        .map_err(|why| Error::usage(format!("the root {root}")).because_of(why))?;
    let found = host
        .now(&path)
        .context(format_args!("cannot look at the root {root}"))?;
    let Some(node) = found else {
        return Err(not_found(root, &LookupError::missing(root)));
    };
    refuse_other_than_directory(root, node.stat.kind)?;

    refuse_system(&path)?;
    refuse_alias_of_system(&path, roots)?;
    let mut warnings = who_can_write(host, &path)?;
    warnings.extend(roots.check(&manifest.site, &path)?);
    Ok(CheckedRoot { path, warnings })
}

fn refuse_other_than_directory(root: &HostPath, kind: FileKind) -> Result<()> {
    match kind {
        FileKind::Directory => Ok(()),
        FileKind::Symlink => Err(Error::usage(format!("the root {root} is a symbolic link"))
            .hint("name the directory that it leads to")),
        kind => Err(Error::usage(format!(
            "the root {root} is a {kind}, not a directory"
        ))),
    }
}

/// As [`check`], for a root that is to be made as `rest` in the directory `existing`.
fn check_new(
    host: &Host,
    manifest: &Manifest,
    roots: &Roots,
    (existing, rest): (&HostPath, &Path),
) -> Result<CheckedRoot> {
    let path = existing
        .join(rest)
        .map_err(|why| Error::usage(format!("the root {}", manifest.root)).because_of(why))?;
    refuse_system(&path)?;
    match system_at(existing, roots)? {
        Some(InSystem::Below(system)) => {
            return Err(alias_of_system(&path, InSystem::Below(system)));
        }
        Some(InSystem::At(system)) if SYSTEM_BELOW.contains(&system) => {
            return Err(alias_of_system(&path, InSystem::Below(system)));
        }
        _ => {}
    }
    let mut warnings = who_can_write(host, existing)?;
    warnings.extend(roots.check(&manifest.site, &path)?);
    Ok(CheckedRoot { path, warnings })
}

/// Returns the nearest existing directory above `root`, with links followed, and the missing path
/// below it. `None`: nothing is missing.
pub(crate) fn nearest_existing(root: &HostPath) -> Result<Option<(HostPath, &Path)>> {
    let host = Host::new();
    let mut above = root.clone();
    loop {
        match host.walk_strictly(&above) {
            Ok(_) if above == *root => return Ok(None),
            Ok(walk) => {
                let rest = root.below(&above).unwrap_or(Path::new(""));
                return Ok(Some((walk.real, rest)));
            }
            Err(error) if error.is_missing() => {
                above = above.parent().ok_or_else(|| not_found(root, &error))?;
            }
            Err(error) => return Err(not_found(root, &error)),
        }
    }
}

/// Refuses a root that holds the system.
pub(crate) fn refuse_system(root: &HostPath) -> Result<()> {
    let at = root.as_path().as_os_str();
    let mut all = SYSTEM.iter().chain(&SYSTEM_BELOW);
    let holds = |system: &&&str| {
        let below = at.as_bytes().strip_prefix(system.as_bytes());
        matches!(below, Some([b'/', ..]))
    };
    let refusal = if all.any(|system| at == *system) {
        format!("the root {root} is a directory of the system; a jail must not be there")
    } else if let Some(system) = SYSTEM_BELOW.iter().find(holds) {
        format!("the root {root} is inside {system}, which holds the system")
    } else {
        return Ok(());
    };
    Err(Error::usage(refusal).hint("make a directory of the site's own, such as /srv/www/SITE"))
}

/// Refuses a root that holds the system by another path, such as a bind mount.
fn refuse_alias_of_system(root: &HostPath, roots: &Roots) -> Result<()> {
    match system_at(root, roots)? {
        Some(system) => Err(alias_of_system(root, system)),
        None => Ok(()),
    }
}

/// The directory of the system that `directory` is or is below, by whatever path.
fn system_at(directory: &HostPath, roots: &Roots) -> Result<Option<InSystem>> {
    match roots.system_at(directory) {
        Ok(found) => Ok(found),
        Err(error) if is_absent(&error) => Ok(None), // it was removed meanwhile
        Err(error) => {
            Err(Error::failed(format!("cannot look at the directory {directory}")).because(&error))
        }
    }
}

fn alias_of_system(root: &HostPath, system: InSystem) -> Error {
    let where_it_is = match system {
        InSystem::Below(system) => {
            format!("is inside {system} by another path, such as a bind mount: it holds the system")
        }
        InSystem::At(system) => {
            format!("is {system} by another path, such as a bind mount; a jail must not be there")
        }
    };
    Error::usage(format!("the root {root} {where_it_is}"))
        .hint("make a directory of the site's own, such as /srv/www/SITE")
}

/// The error for a root that could not be looked up, because of `reason`.
pub(crate) fn not_found(root: &HostPath, reason: &LookupError) -> Error {
    let error = reason.error(format!("cannot find the root {root}"));
    if matches!(reason, LookupError::Strange { .. }) {
        return error.hint("name the directory that is meant, without links");
    }
    error.hint(format!(
        "mount the disk that it is on, make the directory, or let {CREATE_ROOT} make it"
    ))
}

/// Warnings about users besides root who could put something else in the root's place.
fn who_can_write(host: &Host, root: &HostPath) -> Result<Vec<String>> {
    let others = host
        .others_on_each_name(root)
        .context(format_args!("cannot look at what leads to the root {root}"))?;
    let mut warnings = vec![];
    for others in others {
        warnings.push(format!(
            "{others}, on the way to the root: \
             what is in it can be renamed while the site is up; `{}`",
            others.remedy()
        ));
    }
    Ok(warnings)
}

/// Errors for every source that shows the jail to itself.
pub(super) fn contains_a_source(desired: &Desired) -> Vec<Error> {
    let root = &desired.root;
    let mut errors = vec![];
    for mount in &desired.mounts {
        if mount.file_system.is_some() {
            continue;
        }
        let relation = if mount.source.starts_with(root) {
            "is in the root"
        } else if mount.kind == FileKind::Directory && root.starts_with(&mount.source) {
            "holds the root"
        } else {
            continue;
        };
        let error = Error::usage(format!(
            "the source {} {relation} {root}: {}",
            mount.source,
            first_origin(&mount.reasons)
        ));
        errors.push(error.hint("a jail cannot be shown to itself; name a source elsewhere"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_not_below_what_holds_programs_or_libraries() {
        let is_refused = |root: &str| refuse_system(&HostPath::new(root).unwrap()).is_err();
        for root in [
            "/usr",
            "/lib32/a",
            "/usr/lib64/a",
            "/usr/libexec/a",
            "/usr/share/a/b",
        ] {
            assert!(is_refused(root), "{root}");
        }
        for root in ["/srv/a", "/usr/local/a", "/usr/lib64x", "/var/lib/a"] {
            assert!(!is_refused(root), "{root}");
        }
    }
}

//! Why a path is in a jail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::desired::{Desired, Link, Mount, OwnDirectory, Reason};
use crate::base::hints::is_absent;
use crate::base::{JailPath, follow_links, lexical};
use crate::manifest::Origin;

/// The lines that bring a path into a jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explanation<'d> {
    /// The first link that the path goes through or is.
    pub link: Option<&'d Link>,
    /// The path with the links of the jail followed.
    pub leads_to: JailPath,
    /// The mount that shows it.
    pub mount: Option<&'d Mount>,
    /// The directory of the site's own that it is.
    pub directory: Option<&'d OwnDirectory>,
}

/// The part of `desired` that brings `path`.
pub(crate) fn why<'d>(desired: &'d Desired, path: &JailPath) -> Explanation<'d> {
    let mut first = None;
    let at = follow_links(path.clone(), |at| {
        let link = link_on_the_way(desired, at)?;
        first = first.or(Some(link));
        through(link, at)
    });

    let mount = mount_at(desired, &at);
    let mut directories = desired.directories.iter();
    let directory = directories.find(|directory| directory.path == at);
    Explanation {
        link: first,
        leads_to: at,
        mount,
        directory,
    }
}

/// Where `path`, which something brings, leads by the links in mounted directories, if nothing is
/// there: neither in a mount nor in the root itself.
pub(crate) fn nothing_at(desired: &Desired, path: &JailPath) -> Option<JailPath> {
    let end = follow_links(path.clone(), |at| through_mounted_link(desired, at));
    let answer = why(desired, &end);
    let at = answer.leads_to;
    let is_there = if let Some(mount) = answer.mount {
        shown_at(mount, &at).is_none_or(|shown| is_no_dead_end(&shown))
    } else {
        let own = desired.root.inside(&at);
        answer.directory.is_some() || own.as_path().symlink_metadata().is_ok()
    };
    (!is_there).then_some(at)
}

/// Where `path` leads if it is a link in a mounted directory.
fn through_mounted_link(desired: &Desired, path: &JailPath) -> Option<JailPath> {
    let answer = why(desired, path);
    let at = answer.leads_to;
    let destination = shown_at(answer.mount?, &at)?.read_link().ok()?;
    JailPath::new(lexical(at.parent()?.as_path(), &destination)).ok()
}

/// The host's file that `mount` shows at `path`, which is in the mounted directory.
fn shown_at(mount: &Mount, path: &JailPath) -> Option<PathBuf> {
    if mount.file_system.is_some() || mount.target == *path {
        return None;
    }
    Some(mount.source.as_path().join(path.below(&mount.target)?))
}

/// Whether something is at `path`, whose links have been followed as far as they can be.
fn is_no_dead_end(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(found) => !found.is_symlink(),
        Err(error) => !is_absent(&error),
    }
}

/// A line of a manifest or preset, and what it puts below a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Below<'d> {
    pub origin: &'d Origin,
    /// The mount points, links and directories of the site's own.
    pub paths: BTreeSet<&'d JailPath>,
}

/// The lines that put something below the directory `path`, whose path has no links. Empty:
/// it is not a directory, or is not made for anything.
pub(crate) fn below<'d>(desired: &'d Desired, path: &JailPath) -> Vec<Below<'d>> {
    let mut by_line = ByLine::new();
    for mount in &desired.mounts {
        add_below(path, &mount.target, &mount.reasons, &mut by_line);
    }
    for link in &desired.links {
        add_below(path, &link.path, &link.reasons, &mut by_line);
    }
    for directory in &desired.directories {
        add_below(path, &directory.path, &directory.reasons, &mut by_line);
    }

    let mut below = vec![];
    for (origin, paths) in by_line {
        below.push(Below { origin, paths });
    }
    below
}

/// Adds `at`, if it is below `directory`, to the lines of its `reasons`.
fn add_below<'d>(
    directory: &JailPath,
    at: &'d JailPath,
    reasons: &'d [Reason],
    by_line: &mut ByLine<'d>,
) {
    if at == directory || !at.starts_with(directory) {
        return;
    }
    for reason in reasons {
        by_line.entry(&reason.origin).or_default().insert(at);
    }
}

/// Paths by the lines that ask for them.
type ByLine<'d> = BTreeMap<&'d Origin, BTreeSet<&'d JailPath>>;

/// The mount that shows `path`, whose path has no links.
pub(super) fn mount_at<'d>(desired: &'d Desired, path: &JailPath) -> Option<&'d Mount> {
    let above = desired.mounts.iter();
    let above = above.filter(|mount| path.starts_with(&mount.target));
    Some(above.max_by_key(|mount| mount.target.as_path().components().count())?)
}

/// The outermost link that `path` goes through or is.
fn link_on_the_way<'d>(desired: &'d Desired, path: &JailPath) -> Option<&'d Link> {
    let mut links = desired.links.iter();
    links.find(|link| path.starts_with(&link.path))
}

/// `path`, which goes through `link`, with it followed.
fn through(link: &Link, path: &JailPath) -> Option<JailPath> {
    let directory = link.path.parent()?;
    let to = lexical(directory.as_path(), &link.destination);
    JailPath::new(to.join(path.below(&link.path)?)).ok()
}

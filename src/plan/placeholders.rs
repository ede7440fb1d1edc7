//! The placeholders and links that must be in the root, and those that mountjail made and no longer
//! needs.

use std::collections::{BTreeMap, BTreeSet};

use super::step::Step;
use crate::Error;
use crate::base::{ErrorCode, HostPath, JailPath};
use crate::observe::{CreatedKind, CreatedPath, Observed, PathState};
use crate::resolve::{Desired, FileKind, Mount, Ownership};

/// The steps on the root's own file system.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    pub remove: Vec<Step>,
    pub create: Vec<Step>,
    pub conflicts: Vec<Error>,
    /// Where something stands that cannot be used.
    pub in_the_way: Vec<JailPath>,
}

/// The kind that is needed at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need<'d> {
    /// A directory on the way to a target or a link.
    Way,
    /// A directory or a file to mount on.
    Target(&'d Mount),
    /// A directory or a file that others mount on.
    Placeholder(FileKind),
    /// A directory of the site's own.
    Own(Ownership),
    /// A link.
    Link(&'d std::path::Path),
}

/// Plans what has to be made for the mounts at `attach`, and what can be removed of what was made
/// for others. Everything below `going`, the targets of mounts that are detached, is left to the
/// next plan.
pub(super) fn plan(
    desired: &Desired,
    observed: &Observed,
    attach: &BTreeSet<JailPath>,
    going: &BTreeSet<JailPath>,
) -> Placeholders {
    let needs = needs(desired);
    let targets: BTreeSet<_> = desired.mounts.iter().map(|mount| &mount.target).collect();
    let mut steps = Placeholders::default();
    let removed = removals(&needs, observed, &mut steps.remove);

    for (path, need) in &needs {
        let above = path.directories_above();
        let is_covered = above
            .iter()
            .any(|above| targets.contains(above) || going.contains(above));
        if is_covered {
            continue; // it is in a source, where `resolve` checked it, or it cannot be seen yet
        }

        let seen = observed.paths.get(path).filter(|_| !removed.contains(path));
        let mounted = observed.mounts.contains_key(path);
        match (need, seen) {
            (Need::Target(_), _) if !attach.contains(path) => {}
            // The placeholder beneath has the type of the mounts on it.
            (Need::Target(mount), None) if mounted && !removed.contains(path) => {
                let stack = observed.mounts.get(path).into_iter().flatten();
                let fits = stack
                    .filter_map(|seen| seen.kind)
                    .all(|kind| mount.kind.fits_on(kind));
                steps
                    .conflicts
                    .extend((!fits).then(|| wrong_type(desired, path, mount)));
            }
            (Need::Placeholder(_) | Need::Own(_), None) if mounted => {}
            (Need::Way, None) if !is_needed_on_the_way(path, desired, observed, attach) => {}
            (need, None) => steps.create.push(create(path, *need)),
            (need, Some(seen)) => {
                if let Some(error) = conflict(desired, path, *need, seen) {
                    steps.conflicts.push(error);
                    steps.in_the_way.push(path.clone());
                }
            }
        }
    }
    steps
}

fn needs(desired: &Desired) -> BTreeMap<JailPath, Need<'_>> {
    let mut needs = BTreeMap::new();
    for mount in &desired.mounts {
        needs.insert(mount.target.clone(), Need::Target(mount));
    }
    for link in &desired.links {
        needs.insert(link.path.clone(), Need::Link(&link.destination));
    }
    for (path, kind) in &desired.placeholders {
        needs.insert(path.clone(), Need::Placeholder(*kind));
    }
    for directory in &desired.directories {
        needs.insert(directory.path.clone(), Need::Own(directory.owner));
    }
    let paths: Vec<_> = needs.keys().flat_map(JailPath::directories_above).collect();
    for path in paths {
        needs.entry(path).or_insert(Need::Way);
    }
    needs
}

/// Whether something below the directory `path` still has to be made. The directories on the way to
/// a mount that is already there were not looked at.
fn is_needed_on_the_way(
    path: &JailPath,
    desired: &Desired,
    observed: &Observed,
    attach: &BTreeSet<JailPath>,
) -> bool {
    attach
        .iter()
        .any(|target| target.starts_with(path) && !observed.mounts.contains_key(target))
        || desired
            .links
            .iter()
            .any(|link| link.path.starts_with(path) && !observed.paths.contains_key(&link.path))
        || desired
            .placeholders
            .iter()
            .any(|(needed, _)| needed.starts_with(path) && !observed.paths.contains_key(needed))
        || desired
            .directories
            .iter()
            .any(|own| own.path.starts_with(path) && !observed.paths.contains_key(&own.path))
}

/// Adds the steps that remove what was made and is no longer needed, or needed as something else.
/// Returns the paths that this frees. A file that took the place of something made, such as one
/// that a crashed run left, is not removed; the record is corrected when the plan is carried out.
fn removals(
    needs: &BTreeMap<JailPath, Need<'_>>,
    observed: &Observed,
    steps: &mut Vec<Step>,
) -> BTreeSet<JailPath> {
    let mut removed = BTreeSet::new();
    for made in observed.kept.iter().flat_map(|kept| &kept.made).rev() {
        let fits = match (needs.get(&made.path), &made.kind) {
            (Some(Need::Way | Need::Own(_)), kind) => *kind == CreatedKind::Directory,
            (Some(Need::Target(mount)), kind) => {
                (mount.kind == FileKind::Directory) == (*kind == CreatedKind::Directory)
                    && !matches!(kind, CreatedKind::Link(_))
            }
            (Some(Need::Link(destination)), CreatedKind::Link(made)) => *destination == made,
            (None, _) => is_below_a_mount(&made.path, needs, observed),
            (Some(Need::Placeholder(needed)), kind) => {
                (*needed == FileKind::Directory) == (*kind == CreatedKind::Directory)
                    && !matches!(kind, CreatedKind::Link(_))
            }
            (Some(Need::Link(_)), _) => false,
        };
        if !fits && !observed.is_gone(made) {
            removed.insert(made.path.clone());
            steps.push(removal(made));
        }
    }
    removed
}

/// Whether a desired mount hides the path, or will hide it: the placeholders for submounts in
/// fstab(5) are inside the placeholder of a recursive mount. They can be removed when that mount is
/// gone.
fn is_below_a_mount(
    path: &JailPath,
    needs: &BTreeMap<JailPath, Need<'_>>,
    observed: &Observed,
) -> bool {
    path.directories_above()
        .iter()
        .any(|above| match needs.get(above) {
            Some(Need::Target(mount)) => mount.recursive || observed.mounts.contains_key(above),
            _ => false,
        })
}

pub(super) fn removal(made: &CreatedPath) -> Step {
    match &made.kind {
        CreatedKind::Directory => Step::RemovePlaceholder {
            path: made.path.clone(),
            kind: FileKind::Directory,
            file: made.file,
        },
        CreatedKind::File => Step::RemovePlaceholder {
            path: made.path.clone(),
            kind: FileKind::File,
            file: made.file,
        },
        CreatedKind::Link(destination) => Step::RemoveLink {
            path: made.path.clone(),
            destination: destination.clone(),
        },
    }
}

fn create(path: &JailPath, need: Need<'_>) -> Step {
    let kind = match need {
        Need::Link(destination) => {
            return Step::CreateLink {
                path: path.clone(),
                destination: destination.to_owned(),
            };
        }
        Need::Own(owner) => {
            return Step::CreateDirectory {
                path: path.clone(),
                owner,
            };
        }
        Need::Placeholder(kind) => kind,
        Need::Target(mount) if mount.kind != FileKind::Directory => FileKind::File,
        Need::Target(_) | Need::Way => FileKind::Directory,
    };
    Step::CreatePlaceholder {
        path: path.clone(),
        kind,
    }
}

/// The reason why `seen`, which is at `path`, cannot be used.
fn conflict(desired: &Desired, path: &JailPath, need: Need<'_>, seen: &PathState) -> Option<Error> {
    let at = desired.root.inside(path);
    match need {
        Need::Way | Need::Own(_) if seen.kind == FileKind::Directory => None,
        Need::Placeholder(kind) if seen.kind == kind => None,
        Need::Link(destination) if seen.link.as_deref() == Some(destination) => None,
        Need::Target(mount) if mount.kind.fits_on(seen.kind) && seen.empty => None,
        Need::Placeholder(kind) => {
            let needed = format!("a {kind} is needed there");
            Some(in_the_way(desired, &at, seen, &needed))
        }
        Need::Way | Need::Own(_) => Some(in_the_way(
            desired,
            &at,
            seen,
            "a directory is needed there",
        )),
        Need::Link(destination) => Some(in_the_way(
            desired,
            &at,
            seen,
            &format!("a link to {} is needed there", destination.display()),
        )),
        Need::Target(mount) if mount.kind.fits_on(seen.kind) => {
            let what = if seen.kind == FileKind::Directory {
                "directory that is not empty"
            } else {
                "file that is not empty"
            };
            Some(
                Error::failed(format!(
                    "{}: cannot mount {} on {at}: it is a {what}, which the mount would hide",
                    desired.site,
                    mount.what()
                ))
                .at(&at)
                .coded(ErrorCode::Conflict)
                .hint(adopt(desired)),
            )
        }
        Need::Target(mount) => Some(in_the_way(
            desired,
            &at,
            seen,
            &format!(
                "{} is to be mounted there, which is a {}",
                mount.what(),
                mount.kind
            ),
        )),
    }
}

/// The error for a target whose present mount is of another type and whose placeholder is the
/// site's own.
fn wrong_type(desired: &Desired, path: &JailPath, mount: &Mount) -> Error {
    let at = desired.root.inside(path);
    Error::failed(format!(
        "{}: cannot mount {}, a {}, on {at}: what stands there is of another \
         type, and not mountjail's",
        desired.site, mount.source, mount.kind
    ))
    .at(&at)
    .coded(ErrorCode::Conflict)
    .hint(
        "take the line out of the manifest, run `mountjail up`, move away what stands there, \
         and put it back",
    )
}

fn in_the_way(desired: &Desired, at: &HostPath, seen: &PathState, needed: &str) -> Error {
    let found = match &seen.link {
        Some(destination) => format!("a symbolic link to {}", destination.display()),
        None => format!("a {}", seen.kind),
    };
    let error = Error::failed(format!("{}: {at} is {found}, but {needed}", desired.site));
    error.at(at).coded(ErrorCode::Conflict).hint(adopt(desired))
}

/// What to do about things in the way; the same for all of a site.
fn adopt(desired: &Desired) -> String {
    format!(
        "`mountjail adopt {}` shows what stands in the way, and moves copies of the host's files \
         aside",
        desired.site
    )
}

//! The placeholders and links that must be in the root, and those that mountjail made and no longer
//! needs.

use std::collections::{BTreeMap, BTreeSet};

use super::step::Step;
use crate::Error;
use crate::base::{ErrorCode, HostPath, JailPath, hints};
use crate::observe::{CreatedKind, CreatedPath, Observed, ObservedMount, PathState};
use crate::resolve::{Desired, FileKind, Mount, Ownership};

/// The steps on the root's own file system.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    pub remove: Vec<Step>,
    pub create: Vec<Step>,
    pub conflicts: Vec<Error>,
    /// The paths at which something stands that cannot be used.
    pub in_the_way: Vec<JailPath>,
    /// Only the next plan can see whether something has to be made.
    pub postponed: bool,
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
    attach: &BTreeSet<&JailPath>,
    going: &BTreeSet<JailPath>,
) -> Placeholders {
    let needs = needs(desired);
    let targets = desired.targets();
    let mut steps = Placeholders::default();
    let removed = removals(&needs, observed, &mut steps.remove);

    for (path, need) in &needs {
        let above = path.directories_above();
        if above.iter().any(|above| targets.contains(above)) {
            continue; // it is in a source, where `resolve` checked it
        }
        if above.iter().any(|above| going.contains(above)) {
            steps.postponed |= !matches!(need, Need::Way | Need::Target(_));
            continue;
        }
        if matches!(need, Need::Target(_)) && !attach.contains(path) {
            continue;
        }

        let is_removed = removed.contains(path);
        let mounted = observed.mounts.contains_key(path);
        if let Some(seen) = observed.paths.get(path)
            && !is_removed
        {
            if let Some(error) = conflict(desired, path, *need, seen) {
                steps.conflicts.push(error);
                steps.in_the_way.push(path.clone());
            }
            continue;
        }
        match need {
            // The placeholder beneath has the type of the mounts on it.
            Need::Target(mount) if mounted && !is_removed => {
                if !fits_on_all(mount, observed.stack(path)) {
                    steps.conflicts.push(wrong_type(desired, path, mount));
                }
            }
            Need::Placeholder(_) | Need::Own(_) if mounted => {}
            Need::Way if !is_needed_on_the_way(path, desired, observed, attach) => {}
            need => steps.create.push(create(path, *need)),
        }
    }
    steps
}

/// Whether `mount` is of the type of all mounts of `stack`, as far as that is known.
fn fits_on_all(mount: &Mount, stack: &[ObservedMount]) -> bool {
    let mut kinds = stack.iter().filter_map(|seen| seen.kind);
    kinds.all(|kind| mount.kind.fits_on(kind))
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
    attach: &BTreeSet<&JailPath>,
) -> bool {
    for target in attach {
        if target.starts_with(path) && !observed.mounts.contains_key(target) {
            return true;
        }
    }
    let links = desired.links.iter().map(|link| &link.path);
    let placeholders = desired.placeholders.iter().map(|(path, _)| path);
    let directories = desired.directories.iter().map(|own| &own.path);
    let mut needed = links.chain(placeholders).chain(directories);
    needed.any(|needed| needed.starts_with(path) && !observed.paths.contains_key(needed))
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
        let is_needed = match needs.get(&made.path) {
            Some(need) => can_be(&made.kind, *need),
            None => is_below_a_mount(&made.path, needs, observed),
        };
        if !is_needed && !observed.is_gone(made) {
            removed.insert(made.path.clone());
            steps.push(removal(made));
        }
    }
    removed
}

/// Whether something that was made can be what is needed now.
fn can_be(made: &CreatedKind, need: Need<'_>) -> bool {
    let needed = match need {
        Need::Way | Need::Own(_) => FileKind::Directory,
        Need::Target(mount) => mount.kind,
        Need::Placeholder(kind) => kind,
        Need::Link(destination) => {
            return matches!(made, CreatedKind::Link(made) if made == destination);
        }
    };
    match made {
        CreatedKind::Directory => needed == FileKind::Directory,
        CreatedKind::File => needed != FileKind::Directory,
        CreatedKind::Link(_) => false,
    }
}

/// Whether a desired mount hides the path, or will hide it: the placeholders for submounts in
/// fstab(5) are inside the placeholder of a recursive mount. They can be removed when that mount is
/// gone.
fn is_below_a_mount(
    path: &JailPath,
    needs: &BTreeMap<JailPath, Need<'_>>,
    observed: &Observed,
) -> bool {
    for above in path.directories_above() {
        if let Some(Need::Target(mount)) = needs.get(&above)
            && (mount.recursive || observed.mounts.contains_key(&above))
        {
            return true;
        }
    }
    false
}

pub(super) fn removal(made: &CreatedPath) -> Step {
    let path = made.path.clone();
    let kind = match &made.kind {
        CreatedKind::Directory => FileKind::Directory,
        CreatedKind::File => FileKind::File,
        CreatedKind::Link(destination) => {
            let destination = destination.clone();
            return Step::RemoveLink { path, destination };
        }
    };
    let file = made.file;
    Step::RemovePlaceholder { path, kind, file }
}

fn create(path: &JailPath, need: Need<'_>) -> Step {
    let path = path.clone();
    let kind = match need {
        Need::Link(destination) => {
            let destination = destination.to_owned();
            return Step::CreateLink { path, destination };
        }
        Need::Own(owner) => return Step::CreateDirectory { path, owner },
        Need::Placeholder(kind) => kind,
        Need::Target(mount) if mount.kind != FileKind::Directory => FileKind::File,
        Need::Target(_) | Need::Way => FileKind::Directory,
    };
    Step::CreatePlaceholder { path, kind }
}

/// The reason why `seen`, which is at `path`, cannot be used.
fn conflict(desired: &Desired, path: &JailPath, need: Need<'_>, seen: &PathState) -> Option<Error> {
    if serves(seen, need) {
        return None;
    }
    let at = desired.root.inside(path);
    let needed = match need {
        Need::Target(mount) if mount.kind.fits_on(seen.kind) => {
            return Some(not_empty(desired, &at, mount, seen));
        }
        Need::Target(mount) => {
            let (what, kind) = (mount.what(), mount.kind);
            format!("{what} is to be mounted there, which is a {kind}")
        }
        Need::Placeholder(kind) => format!("a {kind} is needed there"),
        Need::Way | Need::Own(_) => "a directory is needed there".to_owned(),
        Need::Link(destination) => format!("a link to {} is needed there", destination.display()),
    };
    Some(in_the_way(desired, &at, seen, &needed))
}

/// Whether `seen` is what is needed.
fn serves(seen: &PathState, need: Need<'_>) -> bool {
    match need {
        Need::Way | Need::Own(_) => seen.kind == FileKind::Directory,
        Need::Placeholder(kind) => seen.kind == kind,
        Need::Link(destination) => seen.link.as_deref() == Some(destination),
        Need::Target(mount) => mount.kind.fits_on(seen.kind) && seen.empty,
    }
}

/// The error for a target that has something in it.
fn not_empty(desired: &Desired, at: &HostPath, mount: &Mount, seen: &PathState) -> Error {
    let kind = match seen.kind {
        FileKind::Directory => "directory",
        _ => "file",
    };
    Error::failed(format!(
        "{}: cannot mount {} on {at}: it is a {kind} that is not empty, which the mount would hide",
        desired.site,
        mount.what()
    ))
    .at(at)
    .coded(ErrorCode::Conflict)
    .hint(adopt(desired))
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
        "{} shows what stands in the way, and moves copies of the host's files aside",
        hints::adopt(&desired.site)
    )
}

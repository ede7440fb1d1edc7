//! The links of a jail: those of the host on the way to its mounts, and those that spare a mount.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::desired::{Cause, FileKind, Link, Reason};
use super::item::{Item, WayTo};
use super::layout::{Layout, MountDraft, stands_in};
use super::route::Route;
use super::walk::LinkOnTheWay;
use crate::base::{HostPath, JailPath, follow_links, lexical};
use crate::manifest::Origin;

/// Adds the host's links on the way to the item, and gives its target.
pub(super) fn add_way(layout: &mut Layout<'_>, origin: &Arc<Origin>, item: &Item) -> JailPath {
    if let Some(links) = &item.links
        && !has_own_among(layout, links)
        && let Ok(real) = JailPath::new(item.source.as_path())
    {
        for link in links {
            add_link(layout, origin, item, link);
        }
        return real;
    }
    let (Some(way), Some(name)) = (&item.way, item.path.file_name()) else {
        return item.path.clone();
    };
    if way.links.is_empty() {
        return item.path.clone();
    }

    let (directory, count) = if has_own_among(layout, &way.links) {
        way_until_own(layout, &item.path, way)
    } else {
        (way.directory.as_path().to_owned(), way.links.len())
    };
    for link in &way.links[..count] {
        add_link(layout, origin, item, link);
    }
    JailPath::new(directory.join(name)).unwrap_or_else(|_| item.path.clone())
}

/// Whether roots have a directory or file of their own in place of one of the links.
fn has_own_among(layout: &Layout<'_>, links: &[LinkOnTheWay]) -> bool {
    let mut links = links.iter();
    links.any(|link| layout.has_own_file(link.path.as_path()))
}

/// Where a path's directory is if some of the links on the way are directories in the root, and how
/// many links are passed before the first of those.
fn way_until_own(layout: &Layout<'_>, path: &JailPath, way: &WayTo) -> (PathBuf, usize) {
    let mut passed = 0;
    let mut route = Route::new(path.as_path().parent().unwrap_or(Path::new("/")));
    while let Some(at) = route.next() {
        let Some(link) = way.links.get(passed) else {
            continue;
        };
        if link.path.as_path() != at {
            continue;
        }
        if layout.has_own_file(at) {
            break;
        }
        route.follow(&link.destination);
        passed += 1;
    }
    (route.end(), passed)
}

fn add_link(layout: &mut Layout<'_>, origin: &Arc<Origin>, item: &Item, link: &LinkOnTheWay) {
    let Ok(path) = JailPath::new(link.path.as_path()) else {
        return;
    };
    let own = layout.own_link(link.path.as_path());
    let link = layout.links.entry(path.clone()).or_insert_with(|| Link {
        path,
        destination: own.unwrap_or(&link.destination).to_owned(),
        reasons: vec![],
    });

    // One reason per line is enough: a link such as /lib is on the way to everything.
    if link.reasons.iter().all(|known| known.origin != *origin) {
        let cause = Cause::OnTheWayTo(item.path.as_path().to_owned());
        link.reasons
            .push(Reason::chain(origin, item.chain_to(cause)));
    }
}

/// `target` with the links above it followed, so that none of its components is one.
pub(super) fn follow_links_above(layout: &Layout<'_>, target: JailPath) -> JailPath {
    follow_links(target, |target| follow_link_above(layout, target))
}

fn follow_link_above(layout: &Layout<'_>, target: &JailPath) -> Option<JailPath> {
    let above = target.directories_above();
    for directory in above {
        if let Some(link) = layout.links.get(&directory) {
            let leads_to = lexical(link.path.parent()?.as_path(), &link.destination);
            let rest = target.below(&link.path)?;
            return JailPath::new(leads_to.join(rest)).ok();
        }
    }
    None
}

/// Adds a link of the host's that leads to what is mounted, unless something else is to be there.
pub(super) fn add_top_link(layout: &mut Layout<'_>, link: &Link) {
    let next = layout.mounts.range(&link.path..).next();
    let has_mounts = next.is_some_and(|(at, _)| at.starts_with(&link.path));
    if has_mounts || layout.has_own_file(link.path.as_path()) {
        return;
    }
    let mut link = link.clone();
    if let Some(destination) = layout.own_link(link.path.as_path()) {
        destination.clone_into(&mut link.destination);
    }
    layout.links.entry(link.path.clone()).or_insert(link);
}

/// Replaces mounts by links: a link to a file that the jail has anyway, in a bound directory, stays
/// a link. That is one mount less, and the file behind it is always the host's newest.
pub(super) fn keep_links(layout: &mut Layout<'_>) {
    let mut kept = vec![];
    for draft in layout.mounts.values() {
        if let Some(link) = spared_by(layout, draft) {
            kept.push((draft.target.clone(), link.destination.clone()));
        }
    }
    for (path, destination) in kept {
        if let Some(draft) = layout.mounts.remove(&path) {
            let link = Link {
                path: draft.target,
                destination,
                reasons: draft.reasons,
            };
            layout.links.insert(path, link);
        }
    }
}

/// The host's link that can stand in the place of the mount.
fn spared_by<'d>(layout: &Layout<'_>, draft: &'d MountDraft) -> Option<&'d LinkOnTheWay> {
    let item = &draft.item;
    let link = item.leaf.as_ref()?;
    let is_free = !item.fixed
        && !item.recursive
        && link.path.as_path() == draft.target.as_path()
        && !layout.has_own(link.path.as_path())
        && layout.above(&draft.target).is_none();
    if !is_free {
        return None;
    }
    let shown_elsewhere = layout.mounts.values().any(|other| {
        other.target != draft.target
            && shows_under_same_name(other, &item.source)
            && stands_in(&other.item, item)
    });
    shown_elsewhere.then_some(link)
}

/// Whether the jail has the host's `file` by its own name because of the mount.
fn shows_under_same_name(mount: &MountDraft, file: &HostPath) -> bool {
    mount.item.kind == FileKind::Directory
        && mount.target.as_path() == mount.item.source.as_path()
        && file.starts_with(&mount.item.source)
}

/// Drops links that a mount covers.
pub(super) fn drop_covered(layout: &mut Layout<'_>) {
    let mut links = std::mem::take(&mut layout.links);
    links.retain(|path, _| layout.above(path).is_none() && !layout.mounts.contains_key(path));
    layout.links = links;
}

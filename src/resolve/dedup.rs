//! Drops mounts that another mount already shows, also through links.

use std::path::PathBuf;

use super::item::Item;
use super::layout::{Layout, MountDraft, stands_in};
use super::route::Route;
use crate::base::{HostPath, JailPath, MountAttributes};

/// Where a lookup in the finished jail ends.
struct JailLookup<'l> {
    /// The path with the links followed.
    at: JailPath,
    /// The mount that shows something there, and which file of the host; `None`: no mount does.
    file: Option<(&'l Item, HostPath)>,
}

/// The fate of a mount inside another one.
enum Fate {
    Stays,
    IsDropped,
    MovesTo(JailPath),
}

/// Drops what another mount shows already, also where links lead there. Nothing can be mounted on a
/// link inside another mount: such a mount moves to where the link leads.
pub(super) fn dedup(layout: &mut Layout<'_>) {
    let targets: Vec<_> = layout.mounts.keys().cloned().collect();
    for target in targets {
        match fate(layout, &target) {
            Fate::Stays => {}
            Fate::IsDropped => drop(layout.mounts.remove(&target)),
            Fate::MovesTo(at) => layout.move_to(&target, &at),
        }
    }
}

fn fate(layout: &Layout<'_>, target: &JailPath) -> Fate {
    let draft = &layout.mounts[target];
    if layout.above(target).is_none() {
        return Fate::Stays;
    }
    let JailLookup { at, file } = look_up(layout, target, Some(draft));
    let moves = at != *target;
    match file {
        Some((mount, file)) if file == draft.item.source => {
            let with_submounts = mount.recursive || !draft.item.recursive;
            if with_submounts && stands_in(mount, &draft.item) {
                Fate::IsDropped
            } else if moves {
                Fate::MovesTo(at)
            } else {
                Fate::Stays
            }
        }
        // Another line put something else there. It has precedence over what only comes along; and
        // with another line there is a conflict at `at`.
        Some(_) if moves && !draft.item.chain.is_empty() => Fate::IsDropped,
        Some(_) if moves && layout.mounts.contains_key(&at) => Fate::MovesTo(at),
        None if moves => Fate::MovesTo(at),
        _ => Fate::Stays,
    }
}

/// The attributes of the mount that shows what `path` leads to in the finished jail.
pub(super) fn attributes_at(layout: &Layout<'_>, path: &JailPath) -> Option<MountAttributes> {
    let (mount, _) = look_up(layout, path, None).file?;
    Some(mount.effective())
}

/// Where `path` leads in the finished jail, if `without` is not mounted.
fn look_up<'l>(
    layout: &'l Layout<'_>,
    path: &JailPath,
    without: Option<&MountDraft>,
) -> JailLookup<'l> {
    let mut route = Route::new(path.as_path());
    while let Some(at) = route.next() {
        let at = JailPath::new(at).ok();
        if let Some(destination) = at.and_then(|at| link_at(layout, &at, without)) {
            route.follow(&destination);
        }
    }

    let at = JailPath::new(route.end()).unwrap_or_else(|_| path.clone());
    let file = layout
        .shown_at(&at, without)
        .filter(|(mount, file)| layout.in_mount(mount, file).is_some());
    JailLookup { at, file }
}

/// The destination of the link at `at`, whose path has no links.
fn link_at(layout: &Layout<'_>, at: &JailPath, without: Option<&MountDraft>) -> Option<PathBuf> {
    match layout.shown_at(at, without) {
        Some((mount, file)) => layout.in_mount(mount, &file)?.link,
        None => Some(layout.links.get(at)?.destination.clone()),
    }
}

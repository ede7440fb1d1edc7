//! Compares the desired mount at one target with what is mounted there.

use super::graft::Graft;
use super::step::State;
use crate::base::{FileSystem, HostPath, JailPath};
use crate::observe::{Observed, ObservedMount, RecordedMount, Submount, Unknown};
use crate::resolve::Mount;

/// The detail of a mount that cannot be looked at.
pub(super) const NOT_TO_BE_SEEN: &str = "the mount there cannot be looked at";

/// The detail of a mount of ours that is shared, though the mount that it is on is not.
const MADE_SHARED: &str = "somebody made it shared, wanted private";

/// Whether `seen`, a mount at the target of `recorded`, is the recorded one.
///
/// The unique IDs decide if both have one. Otherwise the file that the mount shows decides, or, for
/// a mount that another one covers, the path within its file system.
pub(super) fn is_recorded(seen: &ObservedMount, recorded: &RecordedMount) -> bool {
    if let (Some(seen), Some(recorded)) = (seen.unique_id, recorded.unique_id) {
        return seen == recorded;
    }
    match (seen.file, &seen.fs_root) {
        (Some(file), _) => file == recorded.file,
        (None, Some(root)) => {
            let below = root.strip_prefix("/").unwrap_or(root);
            recorded.source.as_path().ends_with(below) && seen.attributes == recorded.attributes
        }
        (None, None) => false,
    }
}

/// The record of `seen`, a mount at `target`.
pub(super) fn recorded<'o>(
    observed: &'o Observed,
    target: &JailPath,
    seen: &ObservedMount,
) -> Option<&'o RecordedMount> {
    let mut mounts = observed.recorded_mounts();
    mounts
        .find(|mount| mount.target == *target && is_recorded(seen, mount))
        .or_else(|| observed.member(target, seen))
}

/// Whether somebody else made `seen`, a mount at `target`: mountjail has only taken it over, or has
/// not even recorded it.
pub(crate) fn is_taken_over(observed: &Observed, target: &JailPath, seen: &ObservedMount) -> bool {
    let known = recorded(observed, target, seen);
    known.is_none_or(|known| known.since.is_none() && known.template.is_none())
}

/// Whether `seen`, a mount at `target`, came along with a recursive mount of ours.
pub(super) fn came_along(observed: &Observed, target: &JailPath, seen: &ObservedMount) -> bool {
    let recorded = observed.recorded_mounts();
    let mut submounts = recorded.flat_map(|mount| {
        mount
            .submounts
            .iter()
            .flatten()
            .map(|submount| (submount, mount.attributes))
    });
    let is_recorded =
        submounts.any(
            |(submount, attributes)| match (seen.unique_id, submount.unique_id) {
                (Some(seen), Some(recorded)) => seen == recorded,
                _ => submount.target == *target && seen.attributes == attributes,
            },
        );
    is_recorded || observed.as_in_source.contains(target) || observed.member(target, seen).is_some()
}

/// Whether `seen` shows the file of `mount` with the desired attributes.
pub(super) fn is_right(seen: &ObservedMount, mount: &Mount) -> bool {
    shows_its_file(seen, mount) && seen.attributes == mount.attributes
}

fn shows_its_file(seen: &ObservedMount, mount: &Mount) -> bool {
    match mount.file_system {
        Some(wanted) => seen.file_system.is_some_and(|shown| wanted.is(shown)),
        None => seen.file.is_some() && seen.file == mount.file,
    }
}

/// Whether `seen` is a file system that has the same contents as the one that `mount` asks for,
/// though with other options.
fn is_as_good(seen: &ObservedMount, mount: &Mount) -> bool {
    seen.file_system
        .zip(mount.file_system)
        .is_some_and(|(seen, wanted)| wanted.can_be_replaced() && seen.name() == wanted.name())
}

/// The change that one target needs.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// The topmost mount is right. These mounts are ours and stay, bottom first.
    Keep(Vec<ObservedMount>),
    /// Nothing is mounted there.
    Attach,
    /// The topmost mount is ours and not right.
    Swap {
        top: ObservedMount,
        because: State,
        detail: String,
    },
    /// These mounts (bottom first) are all ours, but cannot be swapped: the desired one is of
    /// another type, or there are several of them.
    Replace {
        stack: Vec<ObservedMount>,
        because: State,
        detail: String,
    },
    /// The topmost mount is ours and the one below it is right: a crash interrupted a swap.
    FinishSwap {
        top: ObservedMount,
        below: ObservedMount,
    },
    /// The topmost `count` mounts are not ours.
    NotOurs {
        state: State,
        detail: String,
        count: usize,
    },
    /// The topmost mount is ours and not right, and a mount beneath it is not ours.
    OnTheirs { because: State, detail: String },
}

impl Verdict {
    /// The state of the mount, and what was found if that is not `ok`.
    pub(super) fn state(&self) -> (State, Option<String>) {
        match self {
            Self::Keep(_) => (State::Ok, None),
            Self::Attach => (State::Missing, None),
            Self::FinishSwap { .. } => {
                let detail = "the new file is mounted beneath the old one: a swap was interrupted";
                (State::Stale, Some(detail.to_owned()))
            }
            Self::Swap {
                because, detail, ..
            }
            | Self::Replace {
                because, detail, ..
            }
            | Self::OnTheirs { because, detail }
            | Self::NotOurs {
                state: because,
                detail,
                ..
            } => (*because, Some(detail.clone())),
        }
    }
}

/// What to do at the target of `mount`.
pub(super) fn verdict(observed: &Observed, mount: &Mount) -> Verdict {
    let stack = observed.stack(&mount.target);
    let Some((top, below)) = stack.split_last() else {
        return Verdict::Attach;
    };
    let ours = recorded(observed, &mount.target, top);

    if is_right(top, mount) {
        return match ours.and_then(|known| wrong_with(known, top, mount)) {
            Some(detail) => change(observed, mount, stack, State::WrongOptions, detail),
            None => keep(observed, mount, stack),
        };
    }
    let Some(known) = ours else {
        return not_ours(observed, mount, stack);
    };
    match below.last() {
        Some(next) if is_the_new_one(observed, next, mount) => Verdict::FinishSwap {
            top: top.clone(),
            below: next.clone(),
        },
        _ => {
            let (because, detail) = difference(top, mount, Some(&known.source));
            change(observed, mount, stack, because, detail)
        }
    }
}

/// The fault of `top`, a mount of ours that shows the right file with the right attributes.
fn wrong_with(known: &RecordedMount, top: &ObservedMount, mount: &Mount) -> Option<String> {
    if known.recursive != mount.recursive {
        let submounts = |recursive| if recursive { "with" } else { "without" };
        let (found, wanted) = (submounts(known.recursive), submounts(mount.recursive));
        return Some(format!("mounted {found} submounts, wanted {wanted}"));
    }
    // A mount that was only taken over may be shared: whoever mounted it made it so.
    (top.made_shared && known.since.is_some()).then(|| MADE_SHARED.to_owned())
}

/// The topmost mount stays, with those of ours beneath it.
fn keep(observed: &Observed, mount: &Mount, stack: &[ObservedMount]) -> Verdict {
    let Some((top, below)) = stack.split_last() else {
        return Verdict::Attach;
    };
    let ours = |seen: &&ObservedMount| recorded(observed, &mount.target, seen).is_some();
    let covered = below.iter().filter(ours);
    Verdict::Keep(covered.chain([top]).cloned().collect())
}

/// What to do where the topmost mount of `stack` is not ours, and not right.
fn not_ours(observed: &Observed, mount: &Mount, stack: &[ObservedMount]) -> Verdict {
    let Some(top) = stack.last() else {
        return Verdict::Attach;
    };
    let theirs = |seen: &&ObservedMount| recorded(observed, &mount.target, seen).is_none();
    let count = stack.iter().rev().take_while(theirs).count();
    if count == 1 && stack.len() == 1 && (shows_its_file(top, mount) || is_as_good(top, mount)) {
        let (because, detail) = difference(top, mount, None);
        if mount.file_system.is_none_or(FileSystem::can_be_replaced) {
            return change(observed, mount, stack, because, detail);
        }
        // Another file system in its place would be empty.
        return Verdict::NotOurs {
            state: because,
            detail: format!("{detail}; it was not mounted by mountjail, and may have files"),
            count,
        };
    }

    let what = describe(top, Some(mount));
    let (state, detail) = if count < stack.len() {
        let detail = format!("{what} is mounted on top of it, and not by mountjail");
        (State::Shadowed, detail)
    } else if shows_its_file(top, mount) {
        // Each one is mounted on the one before, which may be a peer of its source's mount.
        let detail = format!("{count} mounts are there, one on the other, and none by mountjail");
        (State::Foreign, detail)
    } else {
        let detail = format!("{what} is mounted there, and not by mountjail");
        (State::Foreign, detail)
    };
    Verdict::NotOurs {
        state,
        detail,
        count,
    }
}

/// Whether the topmost mount at the target of `graft` shows the same as `graft`.
pub(super) fn is_same(observed: &Observed, graft: &Graft) -> bool {
    let target = &graft.mount.target;
    let top = observed.stack(target).last();
    let known = top.and_then(|top| recorded(observed, target, top));
    known.is_some_and(|known| shows(observed, known, graft))
}

/// Whether the template of the recorded graft shows the same as `graft`.
fn shows(observed: &Observed, known: &RecordedMount, graft: &Graft) -> bool {
    let mut grafts = observed.grafts.iter();
    let known = grafts.find(|of| Some(&of.template) == known.template.as_ref());
    known.is_some_and(|known| known.contents.as_ref() == Some(&graft.template.contents))
}

/// What to do at the target of `graft`. The mounts that come along with it are compared one by one.
pub(super) fn graft_verdict(observed: &Observed, graft: &Graft) -> Verdict {
    let mount = &graft.mount;
    let stack = observed.stack(&mount.target);
    let Some((top, below)) = stack.split_last() else {
        return Verdict::Attach;
    };
    let ours = |seen| recorded(observed, &mount.target, seen);
    let is_it = |known: &RecordedMount| shows(observed, known, graft);
    let Some(known) = ours(top) else {
        return not_ours(observed, mount, stack);
    };

    let cut_off = observed.is_cut_off(&mount.target);
    match below.last() {
        None if top.made_shared => change(
            observed,
            mount,
            stack,
            State::WrongOptions,
            MADE_SHARED.to_owned(),
        ),
        _ if is_it(known) && !cut_off => keep(observed, mount, stack),
        Some(next) if ours(next).is_some_and(is_it) => Verdict::FinishSwap {
            top: top.clone(),
            below: next.clone(),
        },
        _ if cut_off => {
            let detail = "it follows no template any more".to_owned();
            change(observed, mount, stack, State::Stale, detail)
        }
        None if known.template.is_some() && observed.is_alone(&mount.target) => {
            Verdict::Keep(vec![top.clone()])
        }
        _ => {
            let detail = "the manifest asks for other mounts in it now".to_owned();
            change(observed, mount, stack, State::WrongSource, detail)
        }
    }
}

/// How `mount` replaces `stack`, whose topmost mount has to go. Nothing is ever mounted on a
/// foreign mount, because it could also appear at the source of that mount.
fn change(
    observed: &Observed,
    mount: &Mount,
    stack: &[ObservedMount],
    because: State,
    detail: String,
) -> Verdict {
    let ours = |seen: &&ObservedMount| {
        recorded(observed, &mount.target, seen).is_some() || shows_its_file(seen, mount)
    };
    match stack {
        [top] if top.kind.is_none_or(|kind| mount.kind.fits_on(kind)) => Verdict::Swap {
            top: top.clone(),
            because,
            detail,
        },
        [below @ .., _] => match below.iter().rfind(|seen| !ours(seen)) {
            None => Verdict::Replace {
                stack: stack.to_vec(),
                because,
                detail,
            },
            Some(theirs) => {
                let theirs = format!(
                    "{} is mounted beneath it, and not by mountjail",
                    describe(theirs, None)
                );
                Verdict::OnTheirs {
                    because,
                    detail: format!("{detail}; {theirs}"),
                }
            }
        },
        [] => Verdict::Attach,
    }
}

/// Whether a swap put the covered mount `seen` beneath the old one: its record names the file that
/// is desired now.
fn is_the_new_one(observed: &Observed, seen: &ObservedMount, mount: &Mount) -> bool {
    let known = recorded(observed, &mount.target, seen);
    known.is_some_and(|known| Some(known.file) == mount.file && seen.attributes == mount.attributes)
}

fn difference(top: &ObservedMount, mount: &Mount, source: Option<&HostPath>) -> (State, String) {
    if shows_its_file(top, mount) {
        return (
            State::WrongOptions,
            format!("mounted {}, wanted {}", top.attributes, mount.attributes),
        );
    }
    if mount.file_system.is_some() {
        return other_file_system(top, mount);
    }
    if top.file.is_none() {
        return (State::Stale, NOT_TO_BE_SEEN.to_owned());
    }
    match source {
        Some(source) if *source != mount.source => (
            State::WrongSource,
            format!("mounted from {source}, wanted {}", mount.source),
        ),
        _ => (
            State::Stale,
            format!(
                "{} is another file now than the one that is mounted",
                mount.source
            ),
        ),
    }
}

/// How the mount `top` differs from `mount`, which is a file system of the site's own.
fn other_file_system(top: &ObservedMount, mount: &Mount) -> (State, String) {
    if let Some(found) = top.file_system {
        let wanted = mount.options();
        let detail = format!("mounted {found},{}, wanted {wanted}", top.attributes);
        return (State::WrongOptions, detail);
    }
    let detail = format!("mounted something else, wanted {}", mount.what());
    (State::WrongSource, detail)
}

/// Describes a foreign mount at the target of `mount`.
pub(super) fn describe(seen: &ObservedMount, mount: Option<&Mount>) -> String {
    if mount.is_some_and(|mount| shows_its_file(seen, mount)) {
        return "the same file once more".to_owned();
    }
    match &seen.fs_root {
        Some(root) => format!("something else ({} of its file system)", root.display()),
        None => "something else".to_owned(),
    }
}

/// The record of a mount that stays.
pub(super) fn record_of(
    seen: &ObservedMount,
    mount: &Mount,
    observed: &Observed,
) -> Option<RecordedMount> {
    let known = recorded(observed, &mount.target, seen);
    let file = seen.file.or(known.map(|known| known.file)).or(mount.file)?;
    Some(RecordedMount {
        target: mount.target.clone(),
        source: known.map_or(&mount.source, |known| &known.source).clone(),
        file,
        attributes: seen.attributes,
        recursive: mount.recursive,
        submounts: submounts(known, mount, observed),
        unique_id: seen.unique_id.or(known.and_then(|known| known.unique_id)),
        since: known.and_then(|known| known.since),
        template: known.and_then(|known| known.template.clone()),
        file_system: mount.file_system,
        peer_group: None,
        more: known.map(|known| known.more.clone()).unwrap_or_default(),
    })
}

/// The submounts that came along with a mount that stays: the recorded ones, else the ones seen.
/// `None` if none is seen, because a directory above may have been moved meanwhile.
fn submounts(
    known: Option<&RecordedMount>,
    mount: &Mount,
    observed: &Observed,
) -> Option<Vec<Submount>> {
    if !mount.recursive || known.is_some_and(|known| known.template.is_some()) {
        return None;
    }
    if let Some(recorded) = known.and_then(|known| known.submounts.clone()) {
        return Some(recorded);
    }

    let mut seen = vec![];
    for (path, stack) in &observed.elsewhere {
        if !path.starts_with(&mount.target) {
            continue;
        }
        let ours = stack
            .iter()
            .filter(|mount| came_along(observed, path, mount));
        seen.extend(ours.map(|mount| Submount {
            target: path.clone(),
            unique_id: mount.unique_id,
            more: Unknown::new(),
        }));
    }
    (!seen.is_empty()).then_some(seen)
}

//! Compares the desired mount at one target with what is mounted there.

use super::altered::{self, MADE_SHARED};
use super::graft::Graft;
use super::state::State;
use super::step::has_files_for;
use crate::base::{HostPath, JailPath};
use crate::observe::{Observed, ObservedMount, RecordedMount, Submount, Unknown};
use crate::resolve::Mount;

/// The detail of a mount that cannot be looked at.
pub(super) const NOT_TO_BE_SEEN: &str = "the mount there cannot be looked at";

/// What is beneath a foreign mount.
#[derive(Clone, Copy)]
pub(super) enum MountedOn {
    /// A mount of ours.
    Ours,
    /// Nothing of ours.
    Others,
}

impl MountedOn {
    pub(super) fn ours_if(has_ours: bool) -> Self {
        if has_ours { Self::Ours } else { Self::Others }
    }
}

/// Whether somebody else made `seen`, a mount at `target`: mountjail has only taken it over, or has
/// not even recorded it.
pub(crate) fn is_taken_over(observed: &Observed, target: &JailPath, seen: &ObservedMount) -> bool {
    match observed.record_of(target, seen) {
        Some(known) => known.since.is_none() && !known.is_graft(),
        None => true,
    }
}

/// Whether `seen`, a mount at `target`, came along with a recursive mount of ours.
pub(super) fn came_along(observed: &Observed, target: &JailPath, seen: &ObservedMount) -> bool {
    for mount in observed.recorded_mounts() {
        for submount in mount.submounts.iter().flatten() {
            let is_it = match (seen.unique_id, submount.unique_id) {
                (Some(seen), Some(recorded)) => seen == recorded,
                _ => submount.target == *target && seen.attributes == mount.attributes,
            };
            if is_it {
                return true;
            }
        }
    }
    observed.as_in_source.contains(target) || observed.member(target, seen).is_some()
}

/// Whether `seen` shows the file of `mount` with the desired attributes.
pub(super) fn is_right(seen: &ObservedMount, mount: &Mount) -> bool {
    shows_its_file(seen, mount) && seen.attributes == mount.attributes
}

fn shows_its_file(seen: &ObservedMount, mount: &Mount) -> bool {
    match (mount.file_system, seen.file_system) {
        (Some(wanted), Some(shown)) => wanted.is(shown),
        (Some(_), None) => false,
        (None, _) => seen.file.is_some() && seen.file == mount.file,
    }
}

/// Whether `seen` is a file system that has the same contents as the one that `mount` asks for,
/// though with other options.
fn is_as_good(seen: &ObservedMount, mount: &Mount) -> bool {
    match (seen.file_system, mount.file_system) {
        (Some(seen), Some(wanted)) => wanted.can_be_replaced() && seen.name() == wanted.name(),
        _ => false,
    }
}

/// The change that one target needs.
#[derive(Debug)]
pub(super) enum Verdict<'o> {
    /// The topmost mount is right. These mounts are ours and stay, bottom first.
    Keep(Vec<&'o ObservedMount>),
    /// Nothing is mounted there.
    Attach,
    /// The topmost mount is ours and not right.
    Swap {
        top: &'o ObservedMount,
        because: State,
        detail: String,
    },
    /// These mounts (bottom first) are all ours, but cannot be swapped: the desired one is of
    /// another type, or there are several of them.
    Replace {
        stack: &'o [ObservedMount],
        because: State,
        detail: String,
    },
    /// The topmost mount is ours and the one below it is right: a crash interrupted a swap.
    FinishSwap {
        top: &'o ObservedMount,
        below: &'o ObservedMount,
    },
    /// The topmost `count` mounts are not ours.
    NotOurs {
        because: State,
        detail: String,
        count: usize,
    },
    /// The topmost mount is ours and not right, and a mount beneath it is not ours.
    OnTheirs { because: State, detail: String },
}

impl Verdict<'_> {
    /// The state of the mount, and what was found if that is not `ok`.
    pub(super) fn state(self) -> (State, Option<String>) {
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
                because, detail, ..
            } => (because, Some(detail)),
        }
    }
}

/// The verdict on the target of `mount`.
pub(super) fn verdict<'o>(observed: &'o Observed, mount: &Mount) -> Verdict<'o> {
    match MountedTarget::of(observed, mount) {
        Some(place) => place.verdict(),
        None => Verdict::Attach,
    }
}

/// The verdict on the target of `graft`. The mounts that come along with it are compared one by
/// one.
pub(super) fn graft_verdict<'o>(observed: &'o Observed, graft: &Graft) -> Verdict<'o> {
    match MountedTarget::of(observed, &graft.mount) {
        Some(place) => place.graft_verdict(graft),
        None => Verdict::Attach,
    }
}

/// Whether the topmost mount at the target of `graft` shows the same as `graft`.
pub(super) fn is_same(observed: &Observed, graft: &Graft) -> bool {
    match observed.top(&graft.mount.target) {
        Some(top) => shows(observed, top, graft),
        None => false,
    }
}

/// The target of a desired mount at which something is mounted.
struct MountedTarget<'o, 'm> {
    observed: &'o Observed,
    /// The desired mount.
    mount: &'m Mount,
    /// The mounts there, bottom first.
    stack: &'o [ObservedMount],
    /// The topmost one.
    top: &'o ObservedMount,
    /// The others.
    below: &'o [ObservedMount],
}

impl<'o, 'm> MountedTarget<'o, 'm> {
    /// `None`: nothing is mounted there.
    fn of(observed: &'o Observed, mount: &'m Mount) -> Option<Self> {
        let stack = observed.stack(&mount.target);
        let (top, below) = stack.split_last()?;
        Some(Self {
            observed,
            mount,
            stack,
            top,
            below,
        })
    }

    fn verdict(&self) -> Verdict<'o> {
        let ours = self.record_of(self.top);
        if is_right(self.top, self.mount) {
            return match ours.and_then(|known| self.wrong_with(known)) {
                Some(detail) => self.change(State::WrongOptions, detail),
                None => self.keep(),
            };
        }
        let Some(known) = ours else {
            return self.not_ours();
        };
        if let Some(below) = self.below.last()
            && self.is_the_new_one(below)
        {
            let top = self.top;
            return Verdict::FinishSwap { top, below };
        }
        let (because, detail) = difference(self.top, self.mount, Some(&known.source));
        self.change(because, detail)
    }

    fn graft_verdict(&self, graft: &Graft) -> Verdict<'o> {
        let (observed, top) = (self.observed, self.top);
        let Some(known) = self.record_of(top) else {
            return self.not_ours();
        };
        if self.below.is_empty()
            && let Some(detail) = altered::graft(top, self.mount)
        {
            return self.change(State::WrongOptions, detail);
        }
        let cut_off = observed.is_cut_off(&self.mount.target);
        let (because, detail) = match self.below.last() {
            _ if shows(observed, top, graft) && !cut_off => return self.keep(),
            Some(below) if shows(observed, below, graft) => {
                return Verdict::FinishSwap { top, below };
            }
            _ if cut_off => (State::Stale, "it follows no template any more"),
            None if known.is_graft() && observed.is_alone(&self.mount.target) => {
                return Verdict::Keep(vec![top]);
            }
            _ => (
                State::WrongSource,
                "the manifest asks for other mounts in it now",
            ),
        };
        self.change(because, detail.to_owned())
    }

    /// The fault of the topmost mount, which is ours by the record `known` and shows the right file
    /// with the right attributes.
    fn wrong_with(&self, known: &RecordedMount) -> Option<String> {
        let wrong = match (known.recursive, self.mount.recursive) {
            (true, false) => "mounted with submounts, wanted without submounts",
            (false, true) => "mounted without submounts, wanted with submounts",
            // A mount that was only taken over may be shared: whoever mounted it made it so.
            _ if self.top.made_shared && known.since.is_some() => MADE_SHARED,
            _ => return altered::submounts(self.observed, known, self.mount.attributes),
        };
        Some(wrong.to_owned())
    }

    /// The record of `seen`, one of the mounts there. `None`: it is not ours.
    fn record_of(&self, seen: &ObservedMount) -> Option<&'o RecordedMount> {
        self.observed.record_of(&self.mount.target, seen)
    }

    fn is_ours(&self, seen: &ObservedMount) -> bool {
        self.record_of(seen).is_some()
    }

    /// Whether a swap put the covered mount `seen` beneath the old one: its record names the file
    /// that is desired now.
    fn is_the_new_one(&self, seen: &ObservedMount) -> bool {
        match self.record_of(seen) {
            Some(known) => {
                Some(known.file) == self.mount.file && seen.attributes == self.mount.attributes
            }
            None => false,
        }
    }

    /// The topmost mount stays, with those of ours beneath it.
    fn keep(&self) -> Verdict<'o> {
        let mut kept = vec![];
        for seen in self.below {
            if self.is_ours(seen) {
                kept.push(seen);
            }
        }
        kept.push(self.top);
        Verdict::Keep(kept)
    }

    /// The topmost mount is not ours, and not right.
    fn not_ours(&self) -> Verdict<'o> {
        let (mount, top) = (self.mount, self.top);
        let is_close =
            shows_its_file(top, mount) || is_as_good(top, mount) || has_files_for(top, mount);
        if is_close && self.below.is_empty() {
            return self.almost_right();
        }

        let count = match self.stack.iter().rposition(|seen| self.is_ours(seen)) {
            Some(ours) => self.stack.len() - 1 - ours,
            None => self.stack.len(),
        };
        let what = describe(top, Some(mount));
        let (because, detail) = if count < self.stack.len() {
            let detail = format!("{what} is mounted on top of it, and not by mountjail");
            (State::Shadowed, detail)
        } else if shows_its_file(top, mount) {
            // Each one is mounted on the one before, which may be a peer of its source's mount.
            let detail =
                format!("{count} mounts are there, one on the other, and none by mountjail");
            (State::Foreign, detail)
        } else {
            let detail = format!("{what} is mounted there, and not by mountjail");
            (State::Foreign, detail)
        };
        Verdict::NotOurs {
            because,
            detail,
            count,
        }
    }

    /// Somebody else mounted all that is there, and only its options are wrong.
    fn almost_right(&self) -> Verdict<'o> {
        let (because, detail) = difference(self.top, self.mount, None);
        if let Some(file_system) = self.mount.file_system
            && !file_system.can_be_replaced()
        {
            // Another file system in its place would be empty.
            return Verdict::NotOurs {
                because,
                detail: format!("{detail}; it was not mounted by mountjail, and may have files"),
                count: 1,
            };
        }
        self.change(because, detail)
    }

    /// The topmost mount has to go. Nothing is ever mounted on a foreign mount, because it could
    /// also appear at the source of that mount.
    fn change(&self, because: State, detail: String) -> Verdict<'o> {
        if self.below.is_empty() && can_take_the_place_of(self.mount, self.top) {
            return Verdict::Swap {
                top: self.top,
                because,
                detail,
            };
        }
        for seen in self.below.iter().rev() {
            if !self.is_ours(seen) && !shows_its_file(seen, self.mount) {
                let theirs = describe(seen, None);
                let detail =
                    format!("{detail}; {theirs} is mounted beneath it, and not by mountjail");
                return Verdict::OnTheirs { because, detail };
            }
        }
        Verdict::Replace {
            stack: self.stack,
            because,
            detail,
        }
    }
}

/// Whether `seen`, a mount at the target of `graft`, shows the same as `graft`, by the record of
/// its template.
fn shows(observed: &Observed, seen: &ObservedMount, graft: &Graft) -> bool {
    let Some(known) = observed.record_of(&graft.mount.target, seen) else {
        return false;
    };
    let mut grafts = observed.grafts.iter();
    match grafts.find(|of| known.template.as_ref() == Some(&of.template)) {
        Some(of) => of.contents.as_ref() == Some(&graft.template.contents),
        None => false,
    }
}

/// Whether `mount` can be put where `seen` is: directories and files do not mix.
fn can_take_the_place_of(mount: &Mount, seen: &ObservedMount) -> bool {
    match seen.kind {
        Some(kind) => mount.kind.fits_on(kind),
        None => true,
    }
}

/// The state of `mount` where `top` is mounted, and how they differ. `source`: the recorded one.
fn difference(top: &ObservedMount, mount: &Mount, source: Option<&HostPath>) -> (State, String) {
    if shows_its_file(top, mount) {
        return (State::WrongOptions, altered::attributes(top, mount));
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
    if let Some(mount) = mount
        && shows_its_file(seen, mount)
    {
        return "the same file once more".to_owned();
    }
    if let Some(file_system) = seen.file_system {
        return format!("something else ({file_system})");
    }
    match &seen.fs_root {
        Some(root) => format!("something else ({} of its file system)", root.display()),
        None => "something else".to_owned(),
    }
}

/// The record of a mount that stays.
pub(super) fn kept_record(
    seen: &ObservedMount,
    mount: &Mount,
    observed: &Observed,
) -> Option<RecordedMount> {
    let Some(known) = observed.record_of(&mount.target, seen) else {
        let file = seen.file.or(mount.file)?;
        return Some(RecordedMount {
            attributes: seen.attributes,
            submounts: seen_submounts(mount, observed),
            unique_id: seen.unique_id,
            ..RecordedMount::planned(mount, file)
        });
    };
    let mut record = RecordedMount {
        file: seen.file.unwrap_or(known.file),
        attributes: seen.attributes,
        recursive: mount.recursive,
        unique_id: seen.unique_id.or(known.unique_id),
        file_system: mount.file_system,
        peer_group: None,
        ..known.clone()
    };
    if !mount.recursive || known.is_graft() {
        record.submounts = None;
    } else if record.submounts.is_none() {
        record.submounts = seen_submounts(mount, observed);
    }
    Some(record)
}

/// The submounts that are seen in `mount`. `None` if none is seen, because a directory above may
/// have been moved meanwhile.
fn seen_submounts(mount: &Mount, observed: &Observed) -> Option<Vec<Submount>> {
    if !mount.recursive {
        return None;
    }
    let mut submounts = vec![];
    for (path, stack) in &observed.elsewhere {
        if !path.starts_with(&mount.target) {
            continue;
        }
        for seen in stack {
            if came_along(observed, path, seen) {
                submounts.push(Submount {
                    target: path.clone(),
                    unique_id: seen.unique_id,
                    more: Unknown::new(),
                });
            }
        }
    }
    (!submounts.is_empty()).then_some(submounts)
}

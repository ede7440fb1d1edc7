//! The mounts and links of a jail while they are put together, and what they show.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::desired::{Link, Mount, Reason};
use super::host::{Host, HostEntry};
use super::item::Item;
use super::lookup_error::{LookupError, found};
use super::own::Own;
use crate::base::{HostPath, JailPath, MountAttributes};
use crate::manifest::Origin;
use crate::{Error, Result};

/// One target's mount while it is put together.
pub(super) struct MountDraft {
    pub item: Item,
    pub target: JailPath,
    pub reasons: Vec<Reason>,
}

/// The mounts and links so far, for roots that have `own` in the place of the host's links.
pub(super) struct Layout<'o> {
    pub host: &'o Host,
    own: HashMap<&'o Path, Option<&'o Path>>,
    pub mounts: BTreeMap<JailPath, MountDraft>,
    pub links: BTreeMap<JailPath, Link>,
    pub errors: Vec<Error>,
    /// The paths that could not be looked at on the host.
    unknown: RefCell<Vec<LookupError>>,
}

/// Both sorted, each mount by its target.
type MountsAndLinks = (Vec<Arc<Mount>>, Vec<Link>);

impl<'o> Layout<'o> {
    pub(super) fn new(host: &'o Host, own: &'o [Own]) -> Self {
        let own = own
            .iter()
            .map(|own| (own.at.as_path(), own.link.as_deref()));
        Self {
            host,
            own: own.collect(),
            mounts: BTreeMap::new(),
            links: BTreeMap::new(),
            errors: vec![],
            unknown: RefCell::default(),
        }
    }

    /// Whether roots have something of their own at `at`.
    pub(super) fn has_own(&self, at: &Path) -> bool {
        self.own.contains_key(at)
    }

    /// Whether roots have a directory or file of their own at `at`, where the host has a link.
    pub(super) fn has_own_file(&self, at: &Path) -> bool {
        matches!(self.own.get(at), Some(None))
    }

    /// The destination of the link of their own that roots have at `at`.
    pub(super) fn own_link(&self, at: &Path) -> Option<&'o Path> {
        self.own.get(at).copied().flatten()
    }

    /// Adds a mount, or a reason for it if it is there already.
    pub(super) fn add(&mut self, target: JailPath, item: &Item, reason: Reason) {
        let Some(draft) = self.mounts.get_mut(&target) else {
            let draft = MountDraft::new(target.clone(), item, reason);
            self.mounts.insert(target, draft);
            return;
        };
        if draft.item.file != item.file {
            // A path that a line names takes precedence over one that a link or a library brings
            // along.
            match (draft.item.chain.is_empty(), item.chain.is_empty()) {
                (false, true) => *draft = MountDraft::new(target, item, reason),
                (true, false) => {}
                _ => {
                    let (known, origins) = (&draft.item.source, &draft.reasons);
                    let error = conflict(&target, known, origins, &item.source, &reason.origin);
                    self.errors.push(error);
                }
            }
            return;
        }

        if let Err(error) = draft.merge_attributes(item, &reason) {
            self.errors.push(error);
            return;
        }
        draft.item.host = widest(draft.item.host, item.host);
        if !draft.reasons.contains(&reason) {
            draft.reasons.push(reason);
        }
    }

    /// Mounts the draft at `target` on `at` instead.
    pub(super) fn move_to(&mut self, target: &JailPath, at: &JailPath) {
        let Some(draft) = self.mounts.remove(target) else {
            return;
        };
        for reason in draft.reasons {
            self.add(at.clone(), &draft.item, reason);
        }
    }

    /// The nearest mount above `target`, and the way from there.
    pub(super) fn above(&self, target: &JailPath) -> Option<(&MountDraft, PathBuf)> {
        for above in target.directories_above().iter().rev() {
            if let Some(draft) = self.mounts.get(above) {
                return Some((draft, target.below(above)?.to_owned()));
            }
        }
        None
    }

    /// The nearest mount at or above `at` but for `without`, and what of the host it shows there.
    pub(super) fn shown_at(
        &self,
        at: &JailPath,
        without: Option<&MountDraft>,
    ) -> Option<(&Item, HostPath)> {
        let mut candidates = at.directories_above();
        candidates.push(at.clone());
        for candidate in candidates.iter().rev() {
            if without.is_some_and(|without| without.target == *candidate) {
                continue;
            }
            if let Some(draft) = self.mounts.get(candidate) {
                let file = draft.item.source.join(at.below(candidate)?).ok()?;
                return Some((&draft.item, file));
            }
        }
        None
    }

    /// The host's file at `path`, whose path has no links. If that is unknown, it is an
    /// error of the whole layout.
    pub(super) fn node(&self, path: &HostPath) -> Option<HostEntry> {
        found(self.host.entry(path)).unwrap_or_else(|error| {
            self.unknown.borrow_mut().push(error);
            None
        })
    }

    /// The kind of the host's `file`, which is below the source of `mount`; `None`: the mount does
    /// not show it.
    pub(super) fn in_mount(&self, mount: &Item, file: &HostPath) -> Option<HostEntry> {
        let node = self.node(file)?;
        let source = self.node(&mount.source)?;
        (mount.recursive || node.stat.is_on_mount_of(&source.stat)).then_some(node)
    }

    /// The mounts and links.
    ///
    /// Errors: all that were found.
    pub(super) fn finish(mut self) -> Result<MountsAndLinks, Vec<Error>> {
        for error in self.unknown.take() {
            let error = error.error("cannot tell what the mounts will show");
            self.errors.push(error);
        }
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let mut mounts = vec![];
        for draft in self.mounts.into_values() {
            mounts.push(Arc::new(draft.finish()));
        }
        Ok((mounts, self.links.into_values().collect()))
    }
}

impl MountDraft {
    fn new(target: JailPath, item: &Item, reason: Reason) -> Self {
        Self {
            item: item.clone(),
            target,
            reasons: vec![reason],
        }
    }

    /// Takes over the attributes of `item`, the same file for the same target. Those that the
    /// manifest sets override others.
    ///
    /// Errors: it sets both, differently.
    fn merge_attributes(&mut self, item: &Item, reason: &Reason) -> Result<()> {
        let known = &mut self.item;
        if known.attributes == item.attributes && known.recursive == item.recursive {
            return Ok(());
        }
        match (known.fixed, item.fixed) {
            (true, true) => return Err(differing(self, item, reason)),
            (false, true) => *known = item.clone(),
            (true, false) => {}
            (false, false) => {
                known.attributes = widest(known.attributes, item.attributes);
                known.recursive |= item.recursive;
            }
        }
        Ok(())
    }

    /// As [`first_origin`].
    pub(super) fn origin(&self) -> String {
        first_origin(&self.reasons)
    }

    fn finish(self) -> Mount {
        let attributes = self.item.effective();
        Mount {
            target: self.target,
            source: self.item.source,
            file_system: None,
            file: Some(self.item.file),
            kind: self.item.kind,
            attributes,
            recursive: self.item.recursive,
            reasons: self.reasons,
        }
    }
}

/// Whether the directory `above` gives `item` what it needs, and nothing more than execution.
pub(super) fn stands_in(above: &Item, item: &Item) -> bool {
    let (shown, wanted) = (above.effective(), item.effective());
    let shown_without_execution = MountAttributes {
        noexec: true,
        ..shown
    };
    let wanted_without_execution = MountAttributes {
        noexec: true,
        ..wanted
    };
    shown == wanted
        || (!item.fixed && !shown.noexec && shown_without_execution == wanted_without_execution)
}

/// The attributes that allow all that either allows.
fn widest(a: MountAttributes, b: MountAttributes) -> MountAttributes {
    MountAttributes {
        read_only: a.read_only && b.read_only,
        nosuid: a.nosuid && b.nosuid,
        nodev: a.nodev && b.nodev,
        noexec: a.noexec && b.noexec,
    }
}

/// The file and line of the first of `reasons`.
pub(super) fn first_origin(reasons: &[Reason]) -> String {
    match reasons.first() {
        Some(reason) => reason.origin.to_string(),
        None => String::new(),
    }
}

/// The error that there are two sources for one target.
pub(super) fn conflict(
    target: &JailPath,
    one: &HostPath,
    because: &[Reason],
    other: &HostPath,
    origin: &Arc<Origin>,
) -> Error {
    let because = first_origin(because);
    Error::usage(format!(
        "two sources for {target}: {one}, from {because}; and {other}, from {origin}"
    ))
    .hint("take one of the two lines out, or give one another `target`")
}

fn differing(draft: &MountDraft, item: &Item, reason: &Reason) -> Error {
    Error::usage(format!(
        "two ways to mount {}: {}, from {}; and {}, from {}",
        draft.target,
        options(&draft.item),
        draft.origin(),
        options(item),
        reason.origin
    ))
    .hint("make the two lines agree, or take one out")
}

fn options(item: &Item) -> String {
    let recursive = if item.recursive { ",recursive" } else { "" };
    format!("{}{recursive}", item.attributes)
}

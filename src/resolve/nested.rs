//! Mounts inside other mounts that lie on files which the host uses itself. While they are there, a
//! process that replaces or removes such a file gets EBUSY: a package manager above all.

use std::collections::BTreeMap;
use std::path::Path;

use super::desired::Note;
use super::layout::{Layout, MountDraft};
use crate::base::text::plural;
use crate::base::{JailPath, MountAttributes};

/// A note for each mount inside which files of its own are mounted once more, with other
/// attributes.
pub(super) fn notes(layout: &Layout<'_>) -> Vec<Note> {
    let mut inside: BTreeMap<&JailPath, Vec<&MountDraft>> = BTreeMap::new();
    for draft in layout.mounts.values() {
        let Some((above, rest)) = layout.above(&draft.target) else {
            continue;
        };
        let source = &draft.item.source;
        let is_its_own = above.item.source.join(rest).as_ref() == Ok(source);
        if is_its_own && layout.in_mount(&above.item, source).is_some() {
            inside.entry(&above.target).or_default().push(draft);
        }
    }
    inside
        .into_iter()
        .filter_map(|(above, drafts)| note(&layout.mounts[above], &drafts))
        .collect()
}

fn note(above: &MountDraft, inside: &[&MountDraft]) -> Option<Note> {
    let first = inside.first()?.target.as_path();
    let mut text = busy(first, inside.len() - 1, &above.target);
    let executable = MountAttributes {
        noexec: false,
        ..above.item.effective()
    };
    let mut effective = inside.iter().map(|draft| draft.item.effective());
    if effective.all(|attributes| attributes == executable) {
        text = format!(
            "{text}; with `executable: true`, {} would show all of it by itself",
            above.item.source
        );
    }
    Some(Note::always(&above.reasons.first()?.origin, text))
}

/// The host cannot replace what is at `first`, and at `more` other places, in the jail's `above`.
pub(super) fn busy(first: &Path, more: usize, above: &JailPath) -> String {
    let files = if more == 0 {
        " is".to_owned()
    } else {
        format!(" and {} are", plural(more, "more file"))
    };
    format!(
        "{}{files} mounted inside {above}, on the host's own: \
         while the site is up, the host cannot replace or remove what is there (EBUSY)",
        first.display()
    )
}

//! Mounts inside other mounts that lie on files which the host uses itself: while they are there,
//! the kernel answers EBUSY to whoever replaces or removes such a file, a package manager above
//! all.

use std::collections::BTreeMap;
use std::path::Path;

use super::builder::{Builder, Draft};
use super::desired::Note;
use crate::base::{JailPath, MountAttributes};

impl Builder<'_> {
    /// A note for each mount inside which files of its own are mounted once more, with other
    /// attributes.
    pub(super) fn nested(&self) -> Vec<Note> {
        let mut inside: BTreeMap<&JailPath, Vec<&Draft>> = BTreeMap::new();
        for draft in self.drafts.values() {
            let Some((above, rest)) = self.above(&draft.target) else {
                continue;
            };
            let same = above
                .item
                .source
                .join(rest)
                .is_ok_and(|shown| shown == draft.item.source);
            if same && self.in_mount(&above.item, &draft.item.source).is_some() {
                inside.entry(&above.target).or_default().push(draft);
            }
        }
        inside
            .into_iter()
            .filter_map(|(above, drafts)| note(&self.drafts[above], &drafts))
            .collect()
    }
}

fn note(above: &Draft, inside: &[&Draft]) -> Option<Note> {
    let text = in_the_way(
        inside.first()?.target.as_path(),
        inside.len() - 1,
        &above.target,
    );
    let executable = MountAttributes {
        noexec: false,
        ..above.item.effective()
    };
    let text = if inside
        .iter()
        .all(|draft| draft.item.effective() == executable)
    {
        format!(
            "{text}; with `executable: true`, {} would show all of it by itself",
            above.item.source
        )
    } else {
        text
    };
    Some(Note {
        origin: above.reasons.first()?.origin.clone(),
        text,
        always: true,
    })
}

/// That the host cannot replace what is at `first`, and as many more places, in the jail's `above`.
pub(super) fn in_the_way(first: &Path, more: usize, above: &JailPath) -> String {
    let more = match more {
        0 => " is".to_owned(),
        1 => " and 1 more file are".to_owned(),
        more => format!(" and {more} more files are"),
    };
    format!(
        "{}{more} mounted inside {above}, on the host's own: while the site is up, the host cannot replace or remove \
         what is there (EBUSY)",
        first.display()
    )
}

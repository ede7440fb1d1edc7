//! Mounts inside other mounts need something to mount on, because nothing is ever made in a source.

use super::desired::FileKind;
use super::host::HostEntry;
use super::item::Item;
use super::layout::{Layout, MountDraft};
use crate::Error;
use crate::base::HostPath;

/// Errors for the mounts that have nothing to be mounted on.
pub(super) fn check(layout: &mut Layout<'_>) {
    let drafts = layout.mounts.values();
    let errors: Vec<_> = drafts
        .filter_map(|draft| why_not_inside(layout, draft))
        .collect();
    layout.errors.extend(errors);
}

/// Why nothing can be mounted at the draft's target, if it is inside another mount.
fn why_not_inside(layout: &Layout<'_>, draft: &MountDraft) -> Option<Error> {
    let (above, rest) = layout.above(&draft.target)?;
    let on_host = above.item.source.join(&rest).ok()?;
    let _ = layout.host.walk(&on_host); // so that the result depends on every name on the way
    let found = match layout.host.glimpse(&on_host) {
        Ok(found) => found,
        Err(error) => return Some(error.error(format!("cannot look at {on_host}"))),
    };
    if let Some(point) = hidden_below(layout, &above.item, &on_host) {
        let why = format!("without what the host has mounted at {point}");
        return Some(cannot_mount(draft, above, &why).hint(format!(
            "add {point} to `mounts`, or say `recursive: true` of {}",
            above.item.source
        )));
    }
    let why = why_not_on(found, draft, &on_host)?;
    Some(cannot_mount(draft, above, &why).hint(
        "nothing is ever made inside a source; choose another target, or mount fewer files above",
    ))
}

/// Why the draft cannot be mounted on what was `found` at `on_host`; `None`: it can.
fn why_not_on(found: Option<HostEntry>, draft: &MountDraft, on_host: &HostPath) -> Option<String> {
    let kind = draft.item.kind;
    match found {
        Some(node) if kind.fits_on(node.stat.kind) => None,
        Some(HostEntry {
            link: Some(destination),
            ..
        }) => Some(format!(
            "and {on_host} is a link there, to {}",
            destination.display()
        )),
        _ if kind == FileKind::Directory => {
            Some(format!("and {on_host} is not a directory to mount on"))
        }
        _ => Some(format!("and {on_host} is not a file to mount on")),
    }
}

fn cannot_mount(draft: &MountDraft, above: &MountDraft, why: &str) -> Error {
    Error::failed(format!(
        "cannot mount {} on {} ({}): {} is mounted on {} ({}), {why}",
        draft.item.source,
        draft.target,
        draft.origin(),
        above.item.source,
        above.target,
        above.origin(),
    ))
}

/// The outermost mount point of the host between the source of `mount` and the directory of `file`,
/// whose contents the jail does not have.
fn hidden_below(layout: &Layout<'_>, mount: &Item, file: &HostPath) -> Option<HostPath> {
    let mut hidden = None;
    for path in file.ancestors().skip(1) {
        if !path.starts_with(&mount.source) {
            break;
        }
        if layout.node(&path).is_some() && layout.in_mount(mount, &path).is_none() {
            hidden = Some(path);
        }
    }
    hidden
}

//! The things that a root has of its own where the host has a link.

use std::path::{Path, PathBuf};

use super::dependencies::Aspect;
use super::desired::FileKind;
use super::host::{Host, HostEntry};
use super::lookup_error::LookupError;
use crate::base::{HostPath, JailPath, lexical};

/// The thing that a root has in the place of one of the host's links.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Own {
    pub at: PathBuf,
    /// `None`: a directory, or a file in the place of a link to a file; else the destination of a
    /// link that leads to the same place as the host's.
    pub link: Option<PathBuf>,
}

impl Own {
    fn of_itself(at: &Path) -> Self {
        Self {
            at: at.to_owned(),
            link: None,
        }
    }
}

/// The thing that the root has at `at`, where the host has a link to `destination` on the way to
/// something that is needed; `None`: nothing, the same link, or something that is in the way.
pub(super) fn in_place_of_needed(
    host: &Host,
    root: &HostPath,
    at: &Path,
    destination: &Path,
) -> Result<Option<Own>, LookupError> {
    let node = node_in(host, root, at)?;
    Ok(node.and_then(|node| instead_of(at, destination, node)))
}

/// The thing at `at` in the root now.
fn node_in(host: &Host, root: &HostPath, at: &Path) -> Result<Option<HostEntry>, LookupError> {
    match JailPath::new(at) {
        Ok(path) => host.glimpse(&root.inside(&path)),
        Err(_) => Ok(None),
    }
}

fn instead_of(at: &Path, destination: &Path, found: HostEntry) -> Option<Own> {
    let Some(link) = found.link else {
        return (found.stat.kind == FileKind::Directory).then(|| Own::of_itself(at));
    };
    let directory = at.parent()?;
    let leads_there = lexical(directory, &link) == lexical(directory, destination);
    (leads_there && link != destination).then(|| Own {
        at: at.to_owned(),
        link: Some(link),
    })
}

/// The thing that the root has at `at`, where the host has a link that nothing needs: whatever it
/// is, it is left alone.
pub(super) fn in_place_of_optional(
    host: &Host,
    root: &HostPath,
    at: &Path,
    destination: &Path,
) -> Result<Option<Own>, LookupError> {
    match node_in(host, root, at)? {
        Some(node) if node.link.as_deref() != Some(destination) => {
            let own = instead_of(at, destination, node);
            Ok(own.or_else(|| Some(Own::of_itself(at))))
        }
        _ => Ok(None),
    }
}

/// The file that the root has at `at`, where the host has a link to a file: one to mount on, such
/// as a placeholder.
pub(super) fn file_in_place_of(
    host: &Host,
    root: &HostPath,
    at: &Path,
) -> Result<Option<Own>, LookupError> {
    let Ok(path) = JailPath::new(at) else {
        return Ok(None);
    };
    let inside = root.inside(&path);
    host.note(inside.as_path(), Aspect::NAME);
    let found = host.glimpse(&inside)?;
    let is_file = found.is_some_and(|node| node.stat.kind == FileKind::File);
    Ok(is_file.then(|| Own::of_itself(at)))
}

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
    match node_in(host, root, at)? {
        Some(node) => Ok(instead_of(at, destination, node)),
        None => Ok(None),
    }
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
        return match found.stat.kind {
            FileKind::Directory => Some(Own::of_itself(at)),
            _ => None,
        };
    };
    let directory = at.parent()?;
    if link == destination || lexical(directory, &link) != lexical(directory, destination) {
        return None;
    }
    Some(Own {
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
            match instead_of(at, destination, node) {
                Some(own) => Ok(Some(own)),
                None => Ok(Some(Own::of_itself(at))),
            }
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
    match host.glimpse(&inside)? {
        Some(node) if node.stat.kind == FileKind::File => Ok(Some(Own::of_itself(at))),
        _ => Ok(None),
    }
}

//! The findings of a pass about a site.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::index::Dependent;
use crate::base::HostPath;
use crate::resolve::Dependencies;

/// The findings of a pass about one dependent.
pub(super) struct PassResult {
    pub user: Dependent,
    /// Whether it is a site that is up, or may come up by itself.
    pub is_up: bool,
    /// The dependencies of its state; empty if it is not watched any more.
    pub lookups: Vec<Arc<Dependencies>>,
    /// The root, if it is a site.
    pub root: Option<HostPath>,
    /// The unique mount IDs of its mounts.
    pub ids: Vec<u64>,
    /// Its record as it is now. A later one was written by another process.
    pub record: Option<RecordId>,
}

/// Identifies the file of a record. Records are replaced, never changed, and an inode may be
/// reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordId(u64, i64, i64);

impl RecordId {
    /// That of the record at `path`; `None`: it does not exist.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        Some(Self(found.ino(), found.mtime(), found.mtime_nsec()))
    }
}

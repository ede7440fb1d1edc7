//! What a pass finds out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::index::Dependent;
use crate::base::HostPath;
use crate::resolve::Dependencies;

/// What a pass found out about one user.
pub struct PassResult {
    /// Who.
    pub user: Dependent,
    /// What its state depends on; nothing, if it is not of interest any more.
    pub lookups: Vec<Arc<Dependencies>>,
    /// Of a site: where it is.
    pub root: Option<HostPath>,
    /// The never reused ids of its mounts.
    pub ids: Vec<u64>,
    /// Its record as it is now: another one will be somebody else's.
    pub record: Option<RecordId>,
}

/// Which file a record is. It is replaced, never changed; its inode may be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId(u64, i64, i64);

impl RecordId {
    /// The record at `path`; `None`: there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        Some(Self(found.ino(), found.mtime(), found.mtime_nsec()))
    }
}

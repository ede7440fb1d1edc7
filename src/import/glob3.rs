//! Patterns of file names as glob(3) reads them.

use std::path::{Path, PathBuf};

use crate::{Error, Result, sys};

/// The files that glob(3) finds, in its order.
pub(super) fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    sys::files_matching(pattern).map_err(|error| {
        let failed = format!("cannot look for {}", pattern.display());
        Error::failed(failed).because(&error)
    })
}

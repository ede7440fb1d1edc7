//! A site and the file of its manifest.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::manifest_error::ManifestError;
use crate::base::{HostPath, SiteName};
use crate::engine;
use crate::manifest::{self, SourceFile};
use crate::{Error, Result, sys};

/// A site that a command is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub name: SiteName,
    pub file: PathBuf,
}

impl Site {
    /// The name of the instance, if the file is a template of sites.
    pub(crate) fn instance(&self) -> Option<&str> {
        manifest::instance_of(&self.name, &self.file)
    }
}

/// Room for most manifests.
const USUAL_BYTES: usize = 4096;

/// The text of a manifest or preset. FIFOs and devices are refused, and no more is read than a
/// manifest may have.
pub(super) fn text(file: &Path) -> Result<String, ManifestError> {
    manifest::decode(&SourceFile::File(file.to_owned()), read(file)?)
        .map_err(ManifestError::Mistakes)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let cannot = |error: io::Error| match error.raw_os_error() {
        Some(libc::EISDIR | libc::EINVAL) => {
            Error::usage(format!("{} is not a regular file", file.display()))
        }
        _ => Error::failed(format!("cannot read {}", file.display()))
            .at(file)
            .because(&error),
    };
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    sys::open_regular(file)
        .and_then(|open| {
            open.take(manifest::MAX_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(cannot)?;
    Ok(bytes)
}

/// A value that differs after the file of the site's manifest was replaced or written to; `None`:
/// there is none.
pub(super) fn version(site: &Site) -> Option<engine::FileVersion> {
    let file = fs::metadata(&site.file).ok()?;
    Some(engine::file_version(&file))
}

/// The bytes of the site's manifest, no more than one may have and one more; `None`: there is none.
pub(super) fn bytes(file: &Path) -> Result<Option<Vec<u8>>> {
    match file.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => read(file).map(Some),
    }
}

/// The root that a manifest names, whatever else is wrong with it.
pub(crate) fn root_of(site: &Site) -> Option<HostPath> {
    manifest::root_of(&site.name, &site.file, &text(&site.file).ok()?)
}

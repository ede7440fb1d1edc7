//! Reads the files of records.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::AT_FDCWD;

use super::record::Unreadable;
use crate::base::ErrorContext;
use crate::base::quote::shell_path;
use crate::sys::{self, FileId};
use crate::{Error, Result};

/// A size larger than any record. A record of 100,000 mounts has about 40 MB.
const MAX_RECORD_BYTES: u64 = 256 << 20;

/// What can be done about a template without its record.
pub(super) const WITHOUT_TEMPLATE_RECORD: &str =
    "the mounts that come from this template are found by looking at it";

/// Tells a record from the one that replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    file: FileId,
    born: Option<i64>,
    size: u64,
}

impl Version {
    /// That of the record at `path`. `None` if there is no record.
    pub(super) fn at(path: &Path) -> Result<Option<Self>> {
        let stat = match sys::stat_at(AT_FDCWD, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            stat => stat.context(format_args!("cannot look at the record {}", path.display()))?,
        };
        Ok(Some(Self {
            file: stat.file,
            born: stat.born,
            size: stat.size,
        }))
    }
}

/// The bytes of the record at `path`. `None` if there is no record.
pub(super) fn record_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    match read_regular(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(
            Error::failed(format!("cannot read the record {}", path.display()))
                .because(&error)
                .hint(
                    "if that lasts, remove it: mounts are found by looking, its placeholders stay",
                ),
        ),
    }
}

/// Refuses records that only a newer mountjail understands. The hint tells how to go on without
/// them; `then` is what follows.
pub(super) fn refuse_newer(versions: &[(&Path, Option<u32>)], then: &str) -> Result<()> {
    let mut first = None;
    let mut aside = vec![];
    for (path, version) in versions {
        if let Some(version) = version {
            let (from, to) = (
                shell_path(path),
                shell_path(format!("{}.newer", path.display())),
            );
            aside.push(format!("mv {from} {to}"));
            first = first.or(Some((path.display(), version)));
        }
    }
    let Some((first, version)) = first else {
        return Ok(());
    };
    Err(Error::failed(format!(
        "the record {first} was written by a newer mountjail"
    ))
    .because_of(Unreadable::Newer(*version))
    .hint(format!(
        "use the newer one; or go on without its records: `{}`; then {then}",
        aside.join(" && ")
    )))
}

/// Reads a regular file that is not larger than a record can be. It never waits for a FIFO.
pub(super) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.len() > MAX_RECORD_BYTES {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }

    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

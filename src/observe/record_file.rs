//! Reads the files of records.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Error, Result};

/// A size larger than any record. A record of 100,000 mounts has about 40 MB.
const MAX_RECORD_BYTES: u64 = 256 << 20;

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

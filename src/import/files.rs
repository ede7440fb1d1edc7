//! The files that are imported.

use std::path::{Path, PathBuf};

use super::daemons::sshd;
use super::file_format::FileFormat;
use super::glob3;
use crate::{Error, Result, sys};

/// No configuration file is longer.
const MAX_BYTES: u64 = 4 << 20;

/// The files that an `Include` of `sshd_config(5)` names. Relative paths begin in /etc/ssh.
///
/// Errors: one of them cannot be read.
pub(super) fn included_by_sshd(pattern: &str) -> Result<Vec<sshd::IncludedFile>> {
    let files = glob3::matching(&Path::new("/etc/ssh").join(pattern))?;
    let read = |file: PathBuf| {
        let text = text(&file)?;
        Ok((file, String::from_utf8_lossy(&text).into_owned()))
    };
    files.into_iter().map(read).collect()
}

/// Whether a directory has configuration of PHP-FPM.
///
/// Errors: it has none; one of its files cannot be read.
pub(super) fn is_of_fpm(directory: &Path) -> Result<()> {
    if directory.join("php-fpm.conf").exists() {
        return Ok(());
    }
    for file in glob3::matching(&directory.join("*.conf"))? {
        if FileFormat::detect(&file, &text(&file)?) == Some(FileFormat::Fpm) {
            return Ok(());
        }
    }
    let failed = Error::failed(format!(
        "{} has no configuration of PHP-FPM, and import reads no other directory",
        directory.display()
    ));
    Err(failed.hint("name the files in it that `mountjail import` should read"))
}

/// The text of a file. A FIFO or device is refused, and so is a file that is too long for a
/// configuration.
pub(super) fn text(path: &Path) -> Result<Vec<u8>> {
    let file = path.display();
    sys::read_regular(path, MAX_BYTES).map_err(|error| match error.raw_os_error() {
        Some(libc::EISDIR | libc::EINVAL) => Error::failed(format!("{file} is not a regular file")),
        Some(libc::EFBIG) => Error::failed(format!(
            "{file} is longer than 4 MiB, which no configuration is"
        )),
        _ => Error::failed(format!("cannot read {file}")).because(&error),
    })
}

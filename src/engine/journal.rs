//! Writing records: before and after each change, atomically.
//!
//! A record replaces the old one by rename, so a crash leaves the old or the new one whole. What stands in
//! `/run` needs no fsync, because it dies with the boot anyway; what a reboot keeps is synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::manifest::SiteName;
use crate::observe::{Kept, Record, StateDir, WatchState};

/// Whether a file must survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    ThisBoot,
    Reboot,
}

/// Writes the record of a site that is up, or about to be.
pub(super) fn write_record(state: &StateDir, site: &SiteName, record: &Record) -> Result<()> {
    write_json(&state.record(site), record, Durability::ThisBoot)
}

/// Removes the record of a site that is down.
pub(super) fn remove_record(state: &StateDir, site: &SiteName) -> Result<()> {
    remove(&state.record(site))
}

/// Writes the record of placeholders, links and generated files; an empty one is removed.
pub(super) fn write_kept(state: &StateDir, site: &SiteName, kept: &Kept) -> Result<()> {
    let path = state.kept(site);
    if kept.is_empty() { remove(&path) } else { write_json(&path, kept, Durability::Reboot) }
}

/// Writes what the watcher says of itself.
pub fn write_watch_state(state: &StateDir, said: &WatchState) -> Result<()> {
    write_json(&state.watch_state(), said, Durability::ThisBoot)
}

/// Removes what the watcher said of itself.
pub fn remove_watch_state(state: &StateDir) -> Result<()> {
    remove(&state.watch_state())
}

/// Removes the file at `path`; one that is absent is as good.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::failed(format!("cannot remove {}", path.display())).because(&error))
        }
        _ => Ok(()),
    }
}

fn write_json(path: &Path, value: &impl Serialize, durability: Durability) -> Result<()> {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|error| Error::failed(format!("cannot write {}", path.display())).because_of(error))?;
    bytes.push(b'\n');
    replace(path, &bytes, 0o600, durability)
}

/// Replaces `path` by a file with `contents`: a new file beside it, then rename(2). Missing parent
/// directories are made with mode 0755.
pub(super) fn replace(path: &Path, contents: &[u8], mode: u32, durability: Durability) -> Result<()> {
    replace_io(path, contents, mode, durability).map_err(|error| {
        let failed = Error::failed(format!("cannot write {}", path.display())).because(&error);
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => failed.hint("make room on the disk that holds it"),
            Some(libc::EROFS) => failed.hint("the disk is mounted read-only; name another with --state-dir"),
            _ => failed,
        }
    })
}

fn replace_io(path: &Path, contents: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let mut temporary = name.to_owned();
    temporary.push(".new");
    let temporary = dir.join(temporary);
    let mut file = open_new(&temporary, dir, mode)?;
    let result = file
        .write_all(contents)
        .and_then(|()| if durability == Durability::Reboot { file.sync_all() } else { Ok(()) })
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    } else if durability == Durability::Reboot {
        File::open(dir)?.sync_all()?;
    }
    result
}

fn open_new(path: &Path, dir: &Path, mode: u32) -> io::Result<File> {
    let open = || {
        OpenOptions::new().write(true).create_new(true).mode(mode).custom_flags(libc::O_NOFOLLOW).open(path)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
            open()
        }
        // What a killed run left is ours to replace: the site's lock is held.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            open()
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/site.json");
        replace(&path, b"one", 0o600, Durability::Reboot).unwrap();
        fs::write(path.with_file_name("site.json.new"), "left by a crash").unwrap();
        replace(&path, b"two", 0o644, Durability::ThisBoot).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_file_and_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.json");
        fs::create_dir(&path).unwrap();
        let error = replace(&path, b"x", 0o600, Durability::ThisBoot).unwrap_err().to_string();
        assert!(error.contains("site.json: Is a directory"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

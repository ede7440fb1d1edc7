//! Writes records before and after each change, atomically.
//!
//! A record replaces the old one by rename, so a crash leaves either the old or the new one
//! complete. Files in `/run` need no fsync, because they do not survive a reboot anyway; files that
//! survive one are synced. Beside a file `NAME` there may be `NAME.new`, which a killed run left.
//! While a run is in progress, it may also be the old generated file, which is still mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;

use super::replace::{
    Durability, FileAccess, make_parents, rename_over, sync_directory_of, write_new,
};
use crate::base::hints::Doing;
use crate::base::{Error, HostPath, Result, SiteName};
use crate::observe::{BootId, BootRecord, Observed, PersistentRecord, StateDir, WatchState};
use crate::plan::{Plan, Step};

/// The record of a site before a run; an empty one, if the site is down.
pub(super) fn known_record(boot: &BootId, plan: &Plan, observed: &Observed) -> BootRecord {
    match &observed.record {
        Some(record) => record.clone(),
        None => BootRecord::nothing(boot.clone(), plan.root.clone()),
    }
}

/// The persistent record of a site before a run; an empty one, if there is none.
pub(super) fn known_kept(plan: &Plan, observed: &Observed) -> PersistentRecord {
    match &observed.kept {
        Some(kept) => kept.clone(),
        None => PersistentRecord::nothing(plan.root.clone()),
    }
}

/// Whether `plan` removes the generated file.
pub(super) fn is_to_go(plan: &Plan, file: &HostPath) -> bool {
    let mut steps = plan.steps.iter();
    steps.any(|step| matches!(step, Step::RemoveFile(path) if path == file))
}

/// Writes the record of a site that is up or about to be.
pub(super) fn write_record(state: &StateDir, site: &SiteName, record: &BootRecord) -> Result<()> {
    write_json(&state.record(site), record, Durability::ThisBoot)
}

/// Removes the record of a site that is down.
pub(super) fn remove_record(state: &StateDir, site: &SiteName) -> Result<()> {
    remove(&state.record(site))
}

/// Writes the record of placeholders, links and generated files. An empty record is removed.
pub(super) fn write_kept(state: &StateDir, site: &SiteName, kept: &PersistentRecord) -> Result<()> {
    write_kept_as(state, site, kept, Durability::Reboot)
}

/// As [`write_kept`], after everything in `kept` was made. A power cut may bring back the record of
/// what was planned, which knows all of it by its path: as a crash just before this would.
pub(super) fn write_made(state: &StateDir, site: &SiteName, kept: &PersistentRecord) -> Result<()> {
    write_kept_as(state, site, kept, Durability::RebootOrOld)
}

fn write_kept_as(
    state: &StateDir,
    site: &SiteName,
    kept: &PersistentRecord,
    durability: Durability,
) -> Result<()> {
    let path = state.kept(site);
    if kept.is_empty() {
        remove(&path)
    } else {
        write_json(&path, kept, durability)
    }
}

/// Writes the state that the watcher publishes.
pub(crate) fn write_watch_state(state: &StateDir, watch: &WatchState) -> Result<()> {
    write_json(&state.watch_state(), watch, Durability::ThisBoot)
}

/// Removes the state that the watcher published.
pub(crate) fn remove_watch_state(state: &StateDir) -> Result<()> {
    remove(&state.watch_state())
}

/// Removes the file at `path` and the one beside it. An absent file is not an error.
pub(super) fn remove(path: &Path) -> Result<()> {
    [path, &beside(path)].into_iter().try_for_each(remove_file)
}

/// Removes the file at `path`. An absent file is not an error, also on a read-only file system,
/// which is what the kernel reports first.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound && is_there(path) => {
            let cannot = Error::failed(format!("cannot remove {}", path.display()));
            Err(cannot.because(&error).hint_while(Doing::Recording))
        }
        _ => Ok(()),
    }
}

/// Also if it cannot be looked at.
fn is_there(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// `NAME.new` for `NAME`.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// The file at the path of a generated file before that was written or removed.
pub(super) enum Before {
    Nothing,
    /// The same file, which is now beside the path. Mounts show it, and new mounts of it can be
    /// made.
    Beside,
    /// A file with these contents; the file system cannot exchange two files.
    Contained(Vec<u8>),
}

/// Writes a generated file.
pub(super) fn write_generated(path: &Path, contents: &[u8]) -> Result<Before> {
    explained(path, write_generated_io(path, contents))
}

fn write_generated_io(path: &Path, contents: &[u8]) -> io::Result<Before> {
    let new = write_beside(path, contents, 0o644, Durability::Reboot)?;
    let before = move_in(&new, path).inspect_err(|_| drop(fs::remove_file(&new)))?;

    match sync_directory_of(path) {
        Ok(()) => Ok(before),
        Err(error) => {
            let _ = put_back(path, before); // the first error is the one to report
            Err(error)
        }
    }
}

fn move_in(new: &Path, path: &Path) -> io::Result<Before> {
    let before = match renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => return Ok(Before::Beside),
        Err(Errno::NOENT) => Before::Nothing,
        Err(Errno::INVAL | Errno::NOSYS) => match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Before::Nothing,
            old => Before::Contained(old?),
        },
        Err(error) => return Err(error.into()),
    };

    fs::rename(new, path).map(|()| before)
}

/// Moves a generated file aside. `Before::Nothing`: it did not exist.
pub(super) fn put_beside(path: &Path) -> Result<Before> {
    match fs::rename(path, beside(path)) {
        Ok(()) => Ok(Before::Beside),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Before::Nothing),
        Err(error) => {
            Err(Error::failed(format!("cannot remove {}", path.display())).because(&error))
        }
    }
}

/// Restores what was at `path` before.
pub(super) fn put_back(path: &Path, before: Before) -> Result<()> {
    match before {
        Before::Nothing => remove(path),
        Before::Beside => explained(
            path,
            fs::rename(beside(path), path).and_then(|()| sync_directory_of(path)),
        ),
        Before::Contained(old) => replace(path, &old, 0o644, Durability::Reboot),
    }
}

/// Removes the file beside the generated file `path`, which no mount shows any more.
pub(super) fn clear_beside(path: &Path) -> Result<()> {
    remove_file(&beside(path))
}

pub(super) fn write_json(
    path: &Path,
    value: &impl Serialize,
    durability: Durability,
) -> Result<()> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| {
        Error::failed(format!("cannot write {}", path.display())).because_of(error)
    })?;
    bytes.push(b'\n');
    replace(path, &bytes, 0o600, durability)
}

/// Replaces `path` by a file with `contents`: writes a new file beside it, then calls rename(2).
/// Missing parent directories are made with mode 0755.
pub(super) fn replace(
    path: &Path,
    contents: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<()> {
    explained(path, replace_io(path, contents, mode, durability))
}

fn explained<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| {
        Error::failed(format!("cannot write {}", path.display()))
            .because(&error)
            .hint_while(Doing::Recording)
    })
}

fn replace_io(path: &Path, contents: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let new = write_beside(path, contents, mode, durability)?;
    rename_over(&new, path, durability)
}

/// Writes a new file beside `path` and returns its path.
fn write_beside(
    path: &Path,
    contents: &[u8],
    mode: u32,
    durability: Durability,
) -> io::Result<PathBuf> {
    let (new, access) = (beside(path), FileAccess::of_mode(mode));
    match write_new(&new, contents, access, durability) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_parents(path)?;
            write_new(&new, contents, access, durability)?;
        }
        result => result?,
    }
    Ok(new)
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
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_file_and_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.json");
        fs::create_dir(&path).unwrap();
        let error = replace(&path, b"x", 0o600, Durability::ThisBoot)
            .unwrap_err()
            .to_string();
        assert!(error.contains("site.json: Is a directory"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

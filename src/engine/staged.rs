//! A file that is written beside another one, and takes its place when everything else is ready.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::replace::{
    Durability, FileAccess, make_parents, rename_over, sync_directory_of, write_new,
};
use crate::base::hints::Doing;
use crate::base::{Error, Result};

/// The permissions of a file that takes nobody's place.
const MODE: u32 = 0o644;

/// A complete file beside its place. Unless it takes the place, it is removed again.
pub(crate) struct StagedFile {
    /// The file as the caller names it, for messages.
    path: PathBuf,
    /// The place: links are followed.
    real: PathBuf,
    temporary: PathBuf,
    /// The file that had the place when this one was written.
    before: Option<FileVersion>,
    is_done: bool,
}

/// A value that differs after the file was replaced or written to.
pub(crate) type FileVersion = (u64, u64, u64, i64, i64);

impl StagedFile {
    /// Writes `contents` beside the file `path`, for its owner and with its mode, and syncs it. A
    /// link is followed to the file that it names. If there is no file, the new one is root's, with
    /// the mode 0644, and missing directories are made.
    ///
    /// After a crash there may be `.NAME.mountjail`, which the next run replaces.
    pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<Self> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                written(path, make_parents(path))?;
                Self::beside(path, path.to_owned(), None, contents)
            }
            _ => {
                let real = real_path(path)?;
                let before = written(path, fs::metadata(&real))?;
                Self::beside(path, real, Some(&before), contents)
            }
        }
    }

    /// As [`write`](Self::write), where `path` is known to lead to `real`, the file `before`.
    pub(super) fn beside(
        path: &Path,
        real: PathBuf,
        before: Option<&fs::Metadata>,
        contents: &[u8],
    ) -> Result<Self> {
        let temporary = temporary_of(&real);
        let access = before.map_or(FileAccess::of_mode(MODE), FileAccess::like);
        let new = write_new(&temporary, contents, access, Durability::Reboot);
        written(path, new)?;
        Ok(Self {
            path: path.to_owned(),
            real,
            temporary,
            before: before.map(file_version),
            is_done: false,
        })
    }

    /// Takes the place, in a way that survives a power cut.
    ///
    /// Errors: somebody else wrote the file meanwhile; it cannot be replaced. Then it is as it was.
    pub(crate) fn take_place(mut self) -> Result<()> {
        written(&self.path, self.take_place_io())?;
        self.is_done = true;
        Ok(())
    }

    fn take_place_io(&self) -> io::Result<()> {
        let now = match fs::symlink_metadata(&self.real) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            found => Some(file_version(&found?)),
        };
        if now != self.before {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        match self.before {
            None => self.move_in(),
            Some(_) => self.change_places(),
        }
    }

    /// Takes the place of nothing.
    fn move_in(&self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.real)?;
        match sync_directory_of(&self.real) {
            Err(error) if fs::remove_file(&self.real).is_ok() => Err(error),
            _ => Ok(()),
        }
    }

    /// Changes places with the old file, which goes when that is sure to last.
    fn change_places(&self) -> io::Result<()> {
        match self.exchange() {
            // The file system cannot exchange files.
            Err(Errno::INVAL | Errno::NOSYS) => {
                return rename_over(&self.temporary, &self.real, Durability::Reboot);
            }
            exchanged => exchanged?,
        }
        match sync_directory_of(&self.real) {
            Err(error) if self.exchange().is_ok() => Err(error),
            _ => {
                let _ = fs::remove_file(&self.temporary); // the next run replaces it
                Ok(())
            }
        }
    }

    fn exchange(&self) -> rustix::io::Result<()> {
        let (new, old) = (&self.temporary, &self.real);
        renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.temporary); // the next run replaces it
        }
    }
}

/// Removes the file `path`, and what a killed run left beside it. Of a link, the link goes. Returns
/// whether the file existed.
pub(crate) fn remove_file(path: &Path) -> Result<bool> {
    remove_synced(path).map_err(|error| {
        let failed = Error::failed(format!("cannot remove {}", path.display())).at(path);
        failed.because(&error).hint_while(Doing::Editing)
    })
}

fn remove_synced(path: &Path) -> io::Result<bool> {
    remove_if_there(&temporary_of(path))?;
    let existed = remove_if_there(path)?;
    if existed {
        sync_directory_of(path)?;
    }
    Ok(existed)
}

fn remove_if_there(file: &Path) -> io::Result<bool> {
    match fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The regular file that `path` leads to.
pub(super) fn real_path(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    match real_with_metadata(path) {
        Ok((real, found)) if found.is_file() => Ok(real),
        Ok(_) => Err(Error::failed(format!("{shown} is not a regular file"))),
        Err(error) => {
            let failed = Error::failed(format!("cannot open {shown}")).at(path);
            Err(explain(failed, &error))
        }
    }
}

fn real_with_metadata(path: &Path) -> io::Result<(PathBuf, fs::Metadata)> {
    let real = fs::canonicalize(path)?;
    let found = fs::metadata(&real)?;
    Ok((real, found))
}

pub(super) fn temporary_of(real: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(real.file_name().unwrap_or_default());
    name.push(".mountjail");
    real.with_file_name(name)
}

/// A value that differs after the file was replaced or written to.
pub(crate) fn file_version(file: &fs::Metadata) -> FileVersion {
    (
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
    )
}

/// `result`, of which an error says that the file `path` cannot be written.
pub(super) fn written<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| {
        let failed = Error::failed(format!("cannot write {}", path.display())).at(path);
        explain(failed, &error)
    })
}

fn explain(failed: Error, error: &io::Error) -> Error {
    let failed = failed.because(error).hint_while(Doing::Editing);
    match error.raw_os_error() {
        Some(libc::EAGAIN) => failed.because_of("somebody else wrote it at the same moment"),
        _ => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_new_file_is_there_when_it_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sites/s.yaml");
        let staged = StagedFile::write(&path, b"new\n").unwrap();
        assert!(!path.exists());
        staged.take_place().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
        assert_eq!(names(path.parent().unwrap()), ["s.yaml"]);
    }

    #[test]
    fn a_file_that_does_not_take_the_place_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.yaml");
        fs::write(&path, "old\n").unwrap();
        fs::write(temporary_of(&path), "left by a killed run").unwrap();
        drop(StagedFile::write(&path, b"new\n").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old\n");
        assert_eq!(names(dir.path()), ["s.yaml"]);
    }

    #[test]
    fn a_link_and_the_mode_of_its_file_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("s.yaml"), dir.path().join("elsewhere"));
        fs::write(&file, "old\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        let staged = StagedFile::write(&link, b"new\n").unwrap();
        staged.take_place().unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("elsewhere"));
        assert_eq!(fs::read(&file).unwrap(), b"new\n");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.yaml");
        let staged = StagedFile::write(&path, b"ours\n").unwrap();
        fs::write(&path, "theirs\n").unwrap();
        let error = staged.take_place().unwrap_err().to_string();
        assert!(error.ends_with("wrote it at the same moment"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"theirs\n");
        assert_eq!(names(dir.path()), ["s.yaml"]);
    }

    #[test]
    fn a_link_is_removed_and_not_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("s.yaml"), dir.path().join("elsewhere"));
        fs::write(&file, "old\n").unwrap();
        fs::write(temporary_of(&link), "left by a killed run").unwrap();
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        assert!(remove_file(&link).unwrap());
        assert!(!remove_file(&link).unwrap());
        assert_eq!(names(dir.path()), ["elsewhere"]);
    }
}

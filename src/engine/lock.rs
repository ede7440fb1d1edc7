//! One lock a site: `flock(2)` on `<run>/<site>.lock`.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Held until dropped; the kernel lets go of it when the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`, waiting for another holder; `on_wait` is called once before waiting.
    ///
    /// The file stays: removing it would let two processes hold locks on two files of one name.
    pub fn take(path: &Path, on_wait: impl FnOnce()) -> Result<Self> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                on_wait();
                file.lock().map_err(|error| cannot(path).because(&error))?;
            }
            Err(TryLockError::Error(error)) => return Err(cannot(path).because(&error)),
        }
        Ok(Self { _file: file })
    }

    /// Takes the lock at `path`, or `None` if it is held.
    pub fn if_free(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(cannot(path).because(&error)),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| cannot(path).because(&error))
}

fn cannot(path: &Path) -> Error {
    Error::failed(format!("cannot lock {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_waits_and_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.lock");
        let first = Lock::take(&path, || panic!("nobody holds it")).unwrap();
        assert!(Lock::if_free(&path).unwrap().is_none());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take(&path, || tell.send(()).unwrap()).unwrap());
            told.recv().unwrap();
            drop(first);
            second.join().unwrap();
        });
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.lock");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        let error = Lock::take(&path, || ()).unwrap_err().to_string();
        assert!(error.starts_with("cannot lock ") && error.contains("symbolic links"), "{error}");
    }
}

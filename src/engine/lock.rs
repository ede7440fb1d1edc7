//! One lock a site: `flock(2)` on `<run>/<site>.lock`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};

/// Held until dropped; the kernel lets go of it when the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    _flock: Flock<File>,
}

impl Lock {
    /// Takes the lock at `path`, waiting for another holder; `on_wait` is called once before waiting.
    ///
    /// The file stays: removing it would let two processes hold locks on two files of one name.
    pub fn take(path: &Path, on_wait: impl FnOnce()) -> Result<Self> {
        match Self::try_take(path)? {
            Ok(lock) => Ok(lock),
            Err(file) => {
                on_wait();
                Flock::lock(file, FlockArg::LockExclusive)
                    .map(|flock| Self { _flock: flock })
                    .map_err(|(_, errno)| cannot(path).because(&errno.into()))
            }
        }
    }

    /// Takes the lock at `path` if nobody holds it; else gives back the open file.
    fn try_take(path: &Path) -> Result<std::result::Result<Self, File>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|error| cannot(path).because(&error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(flock) => Ok(Ok(Self { _flock: flock })),
            Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
            Err((_, errno)) => Err(cannot(path).because(&errno.into())),
        }
    }

    /// Takes the lock at `path`, or `None` if it is held.
    pub fn if_free(path: &Path) -> Result<Option<Self>> {
        Self::try_take(path).map(std::result::Result::ok)
    }
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

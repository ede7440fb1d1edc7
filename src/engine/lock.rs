//! One lock per site: `flock(2)` on `<run>/<site>.lock`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::{Error, Result};

/// The interval at which a lock with a time limit is tried.
const PAUSE: Duration = Duration::from_millis(5);

/// A lock that is held until it is dropped. The kernel releases it when the process ends in any
/// way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path` and waits for another holder; `on_wait` is called once before
    /// waiting.
    ///
    /// The file stays. If it were removed, two processes could hold locks on two files of the same
    /// name.
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

    /// As [`Lock::take`], but waits no longer than `limit`.
    pub fn take_within(path: &Path, limit: Duration, on_wait: impl FnOnce()) -> Result<Self> {
        let start = Instant::now();
        let mut on_wait = Some(on_wait);
        loop {
            if let Some(lock) = Self::if_free(path)? {
                return Ok(lock);
            }
            if let Some(on_wait) = on_wait.take() {
                on_wait();
            }
            if start.elapsed() >= limit {
                let holder = holder(path).map_or_else(
                    || "another mountjail".to_owned(),
                    |pid| format!("another mountjail (pid {pid})"),
                );
                let error = Error::failed(format!(
                    "{holder} has had the lock {} for {} s",
                    path.display(),
                    limit.as_secs()
                ));
                return Err(error.hint(
                    "run the command again when that one is done, or give it longer with --timeout",
                ));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Takes the lock at `path`, or returns `None` if it is held.
    pub fn if_free(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(cannot(path).because(&error)),
        }
    }
}

/// The process that holds the lock at `path`, from `/proc/locks` (`proc_locks(5)`): `1: FLOCK
/// ADVISORY WRITE 812 00:1a:4711 0 EOF`.
fn holder(path: &Path) -> Option<u32> {
    let (locks, found) = (
        fs::read_to_string("/proc/locks").ok()?,
        fs::metadata(path).ok()?,
    );

    let (major, minor) = (libc::major(found.dev()), libc::minor(found.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", found.ino());
    let line = locks
        .lines()
        .find(|line| line.split_ascii_whitespace().any(|field| field == file))?;
    line.split_ascii_whitespace()
        .skip_while(|field| *field != "FLOCK")
        .nth(3)?
        .parse()
        .ok()
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
        thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take(&path, || tell.send(()).unwrap()).unwrap());
            told.recv().unwrap();
            drop(first);
            second.join().unwrap();
        });
    }

    #[test]
    fn a_lock_that_is_not_let_go_of_is_waited_for_so_long_and_its_holder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.lock");
        let _first = Lock::take(&path, || ()).unwrap();
        let mut waited = 0;
        let error = Lock::take_within(&path, Duration::from_millis(20), || waited += 1)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("another mountjail (pid {})", std::process::id())),
            "{error}"
        );
        assert_eq!(waited, 1);
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.lock");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        let error = Lock::take(&path, || ()).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot lock ") && error.contains("symbolic links"),
            "{error}"
        );
    }
}

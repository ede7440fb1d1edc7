//! One lock per site: `flock(2)` on `<run>/<site>.lock`.
//!
//! The file goes when the site is down and its lock is given up. Only a holder removes it, and
//! whoever gets a lock whose file is not at its path any more takes the new one: so there are never
//! two holders. A run that is killed leaves the file, which does no harm.
//!
//! The file names the process and the thread that had the lock last. So whoever waits can see
//! whether that thread is at work.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, getpid, gettid};

use crate::base::hints::Doing;
use crate::base::{Error, Result, SiteName};
use crate::observe::StateDir;
use crate::patience::{Glimpse, Sleep, Stop, in_a_queue};

/// The interval at which a lock is tried first, and later.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A lock that is held until it is dropped. The kernel releases it when the process ends in any
/// way.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    waited: bool,
}

impl Lock {
    /// Takes the lock at `path` and waits for another holder; `on_wait` is called once before
    /// waiting.
    pub(crate) fn take(path: &Path, on_wait: impl FnOnce()) -> Result<Self> {
        let (mut waited, mut on_wait) = (false, Some(on_wait));
        loop {
            let file = open(path)?;
            if !try_lock(&file, path)? {
                waited = true;
                if let Some(on_wait) = on_wait.take() {
                    on_wait();
                }
                file.lock().map_err(|error| cannot(path).because(&error))?;
            }
            if is_at(&file, path) {
                return Ok(Self { file, waited });
            }
            waited = true; // its holder removed it
        }
    }

    /// As [`Lock::take`], but waits no longer than `limit`; `None`: another holder still has it.
    /// This file stays.
    pub(crate) fn take_within(path: &Path, limit: Duration) -> Result<Option<Self>> {
        let file = open(path)?;
        let start = Instant::now();
        let mut waited = false;
        while !try_lock(&file, path)? {
            if start.elapsed() >= limit {
                return Ok(None);
            }
            waited = true;
            thread::sleep(PAUSE);
        }
        Ok(Some(Self { file, waited }))
    }

    /// As [`Lock::take`], but waits only for a holder that is at work: for one that sleeps, no
    /// longer than `limit`. `on_wait` gets the holder, in words.
    ///
    /// Errors: the holder has slept as long as `limit`; `stop` was set.
    pub(crate) fn take_in_turn(
        path: &Path,
        limit: Option<Duration>,
        stop: &Stop,
        on_wait: impl FnOnce(&str),
    ) -> Result<Self> {
        let (mut waited, mut on_wait) = (false, Some(on_wait));
        loop {
            let file = open(path)?;
            if !try_lock(&file, path)? {
                waited = true;
                let mut holder = LockHolder::of(path, &file);
                if let Some(on_wait) = on_wait.take() {
                    on_wait(&holder.to_string());
                }
                in_a_queue(|| wait(path, &file, limit, stop, &mut holder))?;
            }
            if is_at(&file, path) {
                sign(&file);
                return Ok(Self { file, waited });
            }
            waited = true; // its holder removed it
        }
    }

    /// Takes the lock at `path`, or returns `None` if it is held.
    pub(crate) fn if_free(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        if !try_lock(&file, path)? || !is_at(&file, path) {
            return Ok(None);
        }
        sign(&file);
        let waited = false;
        Ok(Some(Self { file, waited }))
    }

    /// Whether another holder had it first: what was looked at before may have changed.
    pub(crate) fn is_from_another(&self) -> bool {
        self.waited
    }

    /// Removes the file at `path`, if it is that of this lock, which is held. If it cannot be
    /// removed, it stays.
    pub(super) fn remove_file(&self, path: &Path) {
        if is_at(&self.file, path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The lock of a site.
#[derive(Debug)]
pub(crate) struct SiteLock {
    lock: Lock,
    path: PathBuf,
    record: PathBuf,
}

impl SiteLock {
    pub(super) fn new(lock: Lock, state: &StateDir, site: &SiteName) -> Self {
        Self {
            lock,
            path: state.lock(site),
            record: state.record(site),
        }
    }

    /// As [`Lock::is_from_another`].
    pub(crate) fn is_from_another(&self) -> bool {
        self.lock.is_from_another()
    }
}

impl Drop for SiteLock {
    /// The file of a site that is down goes.
    fn drop(&mut self) {
        let found = self.record.symlink_metadata();
        if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            self.lock.remove_file(&self.path);
        }
    }
}

fn wait(
    path: &Path,
    file: &File,
    limit: Option<Duration>,
    stop: &Stop,
    holder: &mut LockHolder,
) -> Result<()> {
    let mut pause = PAUSE;
    while !try_lock(file, path)? {
        if stop.is_set() {
            return Err(Error::interrupted(format!(
                "stopped by a signal, while waiting for {holder}"
            )));
        }

        let now = LockHolder::of(path, file);
        if !now.is(holder) {
            *holder = now;
        }
        holder.look();
        if let Some(limit) = limit
            && holder.sleep.lasts(limit)
        {
            let error = Error::failed(format!(
                "{holder} has the lock {} and has not moved for {} s",
                path.display(),
                limit.as_secs_f32()
            ));
            return Err(error.hint(
                "see what it waits for; run the command again when that one is done, or give it \
                 longer with --timeout",
            ));
        }

        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// The thread that holds a lock.
struct LockHolder {
    /// Its process, by `/proc/locks`.
    process: Option<Pid>,
    /// The thread, by the file. It may be unknown: the holder could not write, or is not
    /// mountjail.
    thread: Option<Pid>,
    sleep: Sleep,
}

impl LockHolder {
    fn of(path: &Path, file: &File) -> Self {
        let process = process(path);
        let thread = match signed(file) {
            Some((signed, thread)) if Some(signed) == process => Some(thread),
            _ => None,
        };
        Self {
            process,
            thread,
            sleep: Sleep::default(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        (self.process, self.thread) == (other.process, other.thread)
    }

    /// Notes whether the holder is at work. One that is unknown counts as asleep.
    fn look(&mut self) {
        let glimpse = self.thread.and_then(Glimpse::of_any);
        self.sleep
            .look(glimpse.unwrap_or_else(Glimpse::asleep), Instant::now());
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(pid) => write!(f, "another mountjail (pid {pid})"),
            None => f.write_str("another mountjail"),
        }
    }
}

/// Writes into the lock's file who holds it: always as many bytes, over those of the holder before.
/// On a full disk it stays unknown.
fn sign(file: &File) {
    let text = format!("{:010} {:010}\n", getpid().as_raw(), gettid().as_raw());
    let _ = file.write_all_at(text.as_bytes(), 0);
}

/// The process and the thread in the lock's file.
fn signed(file: &File) -> Option<(Pid, Pid)> {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let (process, thread) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((pid(process)?, pid(thread)?))
}

fn pid(text: &str) -> Option<Pid> {
    text.parse().ok().map(Pid::from_raw)
}

/// The process that holds the lock at `path`, from `/proc/locks` (`proc_locks(5)`): `1: FLOCK
/// ADVISORY WRITE 812 00:1a:4711 0 EOF`.
fn process(path: &Path) -> Option<Pid> {
    let (locks, found) = (
        fs::read_to_string("/proc/locks").ok()?,
        fs::metadata(path).ok()?,
    );

    let (major, minor) = (libc::major(found.dev()), libc::minor(found.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", found.ino());
    for line in locks.lines() {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        if fields.contains(&file.as_str()) {
            let kind = fields.iter().position(|field| *field == "FLOCK")?;
            return pid(fields.get(kind + 3)?);
        }
    }
    None
}

/// Whether the open `file` is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Takes the lock, or returns `false` if it is held.
fn try_lock(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(cannot(path).because(&error)),
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| cannot(path).because(&error).hint_while(Doing::Recording))
}

fn cannot(path: &Path) -> Error {
    Error::failed(format!("cannot lock {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    /// What a waiter gets after `limit`, if `work` is what the holder's thread does meanwhile.
    fn while_another(limit: Duration, work: impl FnOnce(&Path) + Send) -> Result<Lock> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.lock");
        let (tell, told) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let lock = Lock::if_free(&path).unwrap().unwrap();
                tell.send(()).unwrap();
                work(&path);
                drop(lock);
            });
            told.recv().unwrap();
            let mut waits = 0;
            let taken = Lock::take_in_turn(&path, Some(limit), &Stop::default(), |holder| {
                assert_eq!(holder, format!("another mountjail (pid {})", getpid()));
                waits += 1;
            });
            assert_eq!(waits, 1);
            holder.thread().unpark();
            taken
        })
    }

    #[test]
    fn a_holder_at_work_is_waited_for() {
        let limit = Duration::from_millis(300);
        let works = |_: &Path| {
            let start = Instant::now();
            while start.elapsed() < 4 * limit {
                thread::sleep(Duration::from_millis(1));
            }
        };
        while_another(limit, works).unwrap();
    }

    #[test]
    fn a_holder_that_sleeps_is_given_up_and_named() {
        let limit = Duration::from_millis(20);
        let sleeps = [
            |_: &Path| thread::park(),
            |path: &Path| {
                fs::write(path, "").unwrap(); // as another program would leave it
                thread::park();
            },
        ];
        for sleep in sleeps {
            let error = while_another(limit, sleep).unwrap_err().to_string();
            let says = format!("another mountjail (pid {}) has the lock", getpid());
            assert!(error.starts_with(&says), "{error}");
        }
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.lock");
        let _first = Lock::take(&path, || ()).unwrap();
        let signal = std::sync::Arc::default();
        let stop = Stop::by(&signal);
        let told = |_: &str| signal.store(true, Ordering::SeqCst);
        let error = Lock::take_in_turn(&path, None, &stop, told).unwrap_err();
        assert!(
            error.to_string().starts_with("stopped by a signal"),
            "{error}"
        );
    }

    #[test]
    fn a_waiter_takes_the_new_lock_of_a_site_that_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.lock");
        let first = Lock::if_free(&path).unwrap().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                let waiting = |_: &str| tell.send(()).unwrap();
                Lock::take_in_turn(&path, None, &Stop::default(), waiting).unwrap()
            });
            told.recv().unwrap();
            fs::remove_file(&path).unwrap();
            drop(first);
            let second = second.join().unwrap();
            assert!(second.is_from_another());
            assert!(Lock::if_free(&path).unwrap().is_none());
        });
    }

    /// Threads take the lock in every way, and give it up with its file, or without as if killed.
    #[test]
    fn a_lock_whose_file_comes_and_goes_has_one_holder() {
        const ROUNDS: usize = 600;
        let dir = tempfile::tempdir().unwrap();
        let site = &SiteName::new("site").unwrap();
        let state = &StateDir::under(dir.path());
        let (path, record) = (&state.lock(site), &state.record(site));
        fs::create_dir(&state.run).unwrap();
        let [holders, waits, removals] = &[(); 3].map(|()| AtomicUsize::new(0));
        let add = |count: &AtomicUsize, number| count.fetch_add(number, Ordering::SeqCst);

        let take = |round: usize| match round % 3 {
            0 => Some(Lock::take(path, || ()).unwrap()),
            1 => Some(Lock::take_in_turn(path, None, &Stop::default(), |_| ()).unwrap()),
            _ => Lock::if_free(path).unwrap(),
        };
        let contend = |round: usize| {
            let Some(lock) = take(round) else { return };
            assert_eq!(add(holders, 1), 0, "another one holds it, too");
            add(waits, usize::from(lock.waited));
            let is_recorded = round.is_multiple_of(5);
            if is_recorded {
                fs::write(record, "").unwrap();
            } else {
                let _ = fs::remove_file(record);
            }
            thread::yield_now();
            holders.fetch_sub(1, Ordering::SeqCst);
            if round.is_multiple_of(7) {
                drop(lock);
            } else {
                add(removals, usize::from(!is_recorded));
                drop(SiteLock::new(lock, state, site));
            }
        };
        thread::scope(|scope| {
            for first in 0..8 {
                scope.spawn(move || (first..first + ROUNDS).for_each(contend));
            }
        });
        assert!([waits, removals].iter().all(|count| add(count, 0) > 0));

        let _ = fs::remove_file(record);
        let last = SiteLock::new(Lock::take(path, || ()).unwrap(), state, site);
        assert!(path.exists());
        drop(last);
        assert!(!path.exists());
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

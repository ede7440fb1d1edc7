//! Locks without poison, and the number of threads that work at once.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Locks `mutex`. It does not matter whether a thread panicked with the lock: either the program
/// ended with it, or all that it had begun was given up.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value of `mutex`, as [`lock`] sees it.
pub(crate) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `news` while `condition` holds of what `guard` locks, and no longer than `limit`.
pub(crate) fn wait_while<T>(
    news: &Condvar,
    guard: MutexGuard<'_, T>,
    limit: Duration,
    condition: impl FnMut(&mut T) -> bool,
) {
    let waited = news.wait_timeout_while(guard, limit, condition);
    drop(waited.unwrap_or_else(PoisonError::into_inner));
}

/// The number of threads for so many pieces of work. The processors are not counted for a single
/// piece.
pub(crate) fn threads_for(pieces: usize) -> usize {
    if pieces > 1 {
        processors().min(pieces)
    } else {
        1
    }
}

/// As [`threads_for`], for work that waits for a disk half of the time.
pub(crate) fn threads_for_disk(pieces: usize) -> usize {
    (2 * threads_for(pieces)).min(pieces.max(1))
}

/// The number of processors, which is the usual number of threads. The control groups that may
/// limit it are read once.
pub(crate) fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

//! Locks without poison, and the number of threads that work at once.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Locks `mutex`. It does not matter whether a thread panicked with the lock: either the program
/// ended with it, or all that it had begun was given up.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The number of processors, which is the usual number of threads. The control groups that may
/// limit it are read once.
pub(crate) fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

//! Locks without poison, and the number of threads that work at once.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Locks `mutex`. A thread that panicked with the lock ended the program, or was given up with all
/// that it had begun: what it left is as good as before.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many threads do so many pieces of work. For a single one, nobody asks how many there can be.
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

//! Threads that wait their turn, behind another process that is at work.

use std::sync::Mutex;

use nix::unistd::{Pid, gettid};

use crate::base::sync::lock;

static QUEUE: Mutex<Vec<Pid>> = Mutex::new(vec![]);

/// Calls `wait`, which waits until another process has done its work, and notices if that process
/// ends. Meanwhile this thread is not given up, and another one works in its place.
pub(crate) fn in_a_queue<T>(wait: impl FnOnce() -> T) -> T {
    let thread = gettid();
    lock(&QUEUE).push(thread);
    let result = wait();
    lock(&QUEUE).retain(|waiting| *waiting != thread);
    result
}

/// Whether the thread is in [`in_a_queue`].
pub(super) fn waits(thread: Pid) -> bool {
    lock(&QUEUE).contains(&thread)
}

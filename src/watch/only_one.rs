//! One watcher per state directory.

use std::time::Duration;

use crate::engine::{Lock, make_watch_directory};
use crate::observe::WatchState;
use crate::site::context::Context;
use crate::{Error, Result};

/// How long a watcher that was killed may take to end.
const DYING: Duration = Duration::from_secs(5);

/// The lock of the one watcher.
///
/// Errors: another watcher has it; it cannot be opened.
pub(super) fn lock(context: &Context) -> Result<Lock> {
    make_watch_directory(&context.state)?;
    Lock::take_within(&context.state.watch_lock(), DYING)?.ok_or_else(|| another_runs(context))
}

fn another_runs(context: &Context) -> Error {
    let pid = match WatchState::read(&context.state) {
        Some(other) => format!(" (pid {})", other.pid),
        None => String::new(),
    };
    Error::failed(format!("another `mountjail watch` is running already{pid}"))
        .hint("`systemctl status mountjail-watch`; `mountjail watch --once` can run beside it")
}

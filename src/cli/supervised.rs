//! Commands run in workers, which can be given up.

use std::time::Duration;

use crate::Error;
use crate::patience::supervisor;
use crate::patience::worker::WorkerEnd;
use crate::site::Out;

/// Runs `command` in a worker; returns its exit code.
pub(super) fn run_in_worker(
    out: &'static Out,
    limit: Option<Duration>,
    command: impl FnOnce() -> anyhow::Result<u8> + Send + 'static,
) -> u8 {
    match supervise(out, limit, command) {
        WorkerEnd::Exit(code) => code,
        WorkerEnd::HandOver(_) => 1, // no such command hands anything over
    }
}

/// Runs `command` in a worker, and reports its error; returns how the worker ended.
pub(super) fn supervise(
    out: &'static Out,
    limit: Option<Duration>,
    command: impl FnOnce() -> anyhow::Result<u8> + Send + 'static,
) -> WorkerEnd {
    let command = move || out.exit_code(command().unwrap_or_else(|error| out.failure(&error)));
    let report = |error: &Error| out.failure(&error.clone().into());
    supervisor::run(&report, limit, command).unwrap_or_else(|error| {
        let cannot = Error::failed("cannot start a process").because(&error);
        WorkerEnd::Exit(report(&cannot))
    })
}

/// Raises the limit of open files: a run over many sites has a descriptor per distinct source.
pub(super) fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard); // a limit too low is an error later
    }
}

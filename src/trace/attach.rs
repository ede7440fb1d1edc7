//! Beginning to follow a process that runs already, and saying why that is refused.

use std::collections::BTreeSet;
use std::fs;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::follow::Follower;
use crate::observe::Process;
use crate::{Error, Result};

/// Follows the process `pid` with all its threads, and what it starts from now on.
///
/// Errors: it is not there, or has ended; somebody else follows it; the system forbids it.
pub fn attach(follower: &mut Follower, pid: u32) -> Result<()> {
    let process = Pid::from_raw(i32::try_from(pid).map_err(|_| gone(pid))?);
    let (mut known, mut any) = (BTreeSet::new(), false);
    loop {
        // A thread that is not followed yet may start another one meanwhile.
        let new: Vec<_> = threads(process)
            .into_iter()
            .filter(|thread| known.insert(*thread))
            .collect();
        if new.is_empty() {
            break;
        }
        for thread in new {
            match follower.seize(thread) {
                Ok(()) => any = true,
                // It was started by a thread that is followed, and its first stop is still to come.
                Err(Errno::EPERM) if tracer(thread) == Some(std::process::id()) => any = true,
                Err(Errno::EPERM) if has_ended(thread) => {}
                Err(Errno::ESRCH) => {}
                Err(error) => return Err(refused(process, error)),
            }
        }
    }
    if any { Ok(()) } else { Err(gone(pid)) }
}

fn threads(process: Pid) -> Vec<Pid> {
    let entries = fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .collect()
}

fn gone(pid: u32) -> Error {
    Error::failed(format!("cannot follow the process {pid}"))
        .because_of("there is no such process, or it has ended")
}

/// A field of `proc_pid_status(5)`.
fn status(thread: Pid, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .map(|value| value.trim().to_owned())
}

/// Who follows the thread.
pub(super) fn tracer(thread: Pid) -> Option<u32> {
    status(thread, "TracerPid:")?
        .parse()
        .ok()
        .filter(|pid| *pid != 0)
}

/// Whether the thread is gone, but for its parent's last look at it.
fn has_ended(thread: Pid) -> bool {
    status(thread, "State:").is_none_or(|state| state.starts_with(['Z', 'X']))
}

/// Why the kernel did not let us follow `pid`.
pub(super) fn refused(pid: Pid, error: Errno) -> Error {
    let shown = u32::try_from(pid.as_raw()).ok().and_then(Process::of);
    let shown = shown.map_or_else(
        || format!("the process {pid}"),
        |process| process.to_string(),
    );
    let failed = Error::failed(format!("cannot follow {shown}")).because(&error.into());
    if error != Errno::EPERM {
        return failed;
    }
    if pid == Pid::this() {
        return failed.because_of("it is this mountjail itself");
    }
    match tracer(pid) {
        Some(tracer) => {
            let tracer =
                Process::of(tracer).map_or_else(|| tracer.to_string(), |process| process.to_string());
            failed.because_of(format_args!("{tracer} follows it already")).hint("end that one first")
        }
        None => failed.hint(
            "following another user's process needs CAP_SYS_PTRACE, which a container may withhold; \
             kernel.yama.ptrace_scope = 3 forbids it to everybody",
        ),
    }
}

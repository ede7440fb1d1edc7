//! Facts from /proc about a thread that is followed, or is to be followed.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::Error;
use crate::observe::{self, Process};
use crate::sys::proc;

/// The threads that the process has now.
pub(super) fn threads(process: Pid) -> Vec<Pid> {
    proc::threads(&directory(process))
        .map(Pid::from_raw)
        .collect()
}

/// The directory of a process or thread in `/proc`.
pub(super) fn directory(thread: Pid) -> PathBuf {
    Path::new("/proc").join(thread.to_string())
}

/// The process that follows the thread.
pub(super) fn tracer(thread: Pid) -> Option<u32> {
    let tracer = proc::status(&directory(thread))?
        .get("TracerPid")?
        .parse()
        .ok()?;
    (tracer != 0).then_some(tracer)
}

/// Whether this process follows the thread.
pub(super) fn is_ours(thread: Pid) -> bool {
    tracer(thread) == Some(std::process::id())
}

/// Whether the thread has ended, even if its parent has not waited for it yet.
pub(super) fn has_ended(thread: Pid) -> bool {
    match proc::status(&directory(thread)) {
        Some(status) => status
            .get("State")
            .is_none_or(|state| state.starts_with(['Z', 'X'])),
        None => true,
    }
}

/// Whether the thread still runs systemd's own program, not yet that of a service.
pub(super) fn is_managers(thread: Pid) -> bool {
    u32::try_from(thread.as_raw()).is_ok_and(observe::is_managers)
}

/// The program's name, as `ps` shows it.
pub(super) fn name(thread: Pid) -> String {
    proc::name(&directory(thread)).unwrap_or_default()
}

/// The id of the user that the thread looks up files as.
pub(super) fn user(thread: Pid) -> Option<u32> {
    // Real, effective, saved, and that for the file system.
    let status = proc::status(&directory(thread))?;
    status.get("Uid")?.split_whitespace().nth(3)?.parse().ok()
}

/// The error for a process that has ended or never was there.
pub(super) fn gone(pid: u32) -> Error {
    Error::failed(format!("cannot follow the process {pid}"))
        .because_of("there is no such process, or it has ended")
}

/// The error for a process that the kernel does not allow to follow.
pub(super) fn refused(pid: Pid, error: Errno) -> Error {
    let process = u32::try_from(pid.as_raw()).ok().and_then(Process::of);
    let failed = match process {
        Some(process) => Error::failed(format!("cannot follow {process}")),
        None => Error::failed(format!("cannot follow the process {pid}")),
    };
    let failed = failed.because(&error.into());

    if error != Errno::EPERM {
        return failed;
    }
    if pid == Pid::this() {
        return failed.because_of("it is this mountjail itself");
    }
    match tracer(pid) {
        Some(tracer) => {
            let tracer = match Process::of(tracer) {
                Some(process) => process.to_string(),
                None => format!("the process {tracer}"),
            };
            failed
                .because_of(format_args!("{tracer} already follows it"))
                .hint("end that process first")
        }
        None => failed.hint(
            "following another user's process needs CAP_SYS_PTRACE, which a container may \
             withhold; kernel.yama.ptrace_scope = 3 forbids it to everybody",
        ),
    }
}

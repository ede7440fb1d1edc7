//! Attaching to a process that is already running.

use std::collections::BTreeSet;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::follow::Follower;
use super::tracee;
use crate::Result;

/// Follows the process `pid` with all its threads, and what it starts from now on.
///
/// Errors: it is not there, or has ended; another process follows it; the system forbids it.
pub(crate) fn attach(follower: &mut Follower, pid: u32) -> Result<()> {
    let process = Pid::from_raw(i32::try_from(pid).map_err(|_| tracee::gone(pid))?);
    let mut known = BTreeSet::new();
    let mut follows_any = false;

    // A thread that is not followed yet may start another one meanwhile: look again until there is
    // no new one.
    loop {
        let mut new = tracee::threads(process);
        new.retain(|thread| known.insert(*thread));
        if new.is_empty() {
            break;
        }
        for thread in new {
            follows_any |= attach_thread(follower, process, thread)?;
        }
    }

    if follows_any {
        Ok(())
    } else {
        Err(tracee::gone(pid))
    }
}

/// Whether the thread is followed; otherwise it has ended.
fn attach_thread(follower: &mut Follower, process: Pid, thread: Pid) -> Result<bool> {
    match follower.seize(thread) {
        Ok(()) => Ok(true),
        // A followed thread started it, and its first stop is still to come.
        Err(Errno::EPERM) if tracee::is_ours(thread) => Ok(true),
        Err(Errno::EPERM) if tracee::has_ended(thread) => Ok(false),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(tracee::refused(process, error)),
    }
}

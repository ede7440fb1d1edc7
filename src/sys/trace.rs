//! What following another process needs besides `nix::sys::ptrace`: real-time signals and stops of groups, which
//! that module has no words for, and a wait that can end by a signal or a timeout without a race.

use std::io;
use std::ptr;
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

/// How a stopped tracee goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// To the next entry into a system call or exit from one: `PTRACE_SYSCALL`.
    UntilSystemCall,
    /// It stays stopped, as its group is, and is waited for: `PTRACE_LISTEN` (Linux 3.4).
    Listen,
    /// By itself: `PTRACE_DETACH`.
    Free,
}

/// Lets the stopped tracee `pid` go on, with the signal `signal`, or none for 0: `ptrace(2)`.
///
/// Errors: ESRCH when it is not stopped, or not there any more.
pub fn resume(pid: Pid, how: Resume, signal: i32) -> io::Result<()> {
    let request = match how {
        Resume::UntilSystemCall => libc::PTRACE_SYSCALL,
        Resume::Listen => libc::PTRACE_LISTEN,
        Resume::Free => libc::PTRACE_DETACH,
    };
    // SAFETY: these requests take a signal's number, or nothing, in place of a pointer; no memory is touched.
    let result = unsafe {
        libc::ptrace(
            request,
            pid.as_raw(),
            ptr::null_mut::<libc::c_void>(),
            signal as usize as *mut libc::c_void,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A child or tracee that stopped or ended, with its status word; `None`: none has now. `waitpid(2)` with `WNOHANG`
/// and `__WALL`.
///
/// Errors: ECHILD when there is nothing to wait for.
pub fn stopped_or_ended() -> io::Result<Option<(Pid, i32)>> {
    let mut status = 0;
    // SAFETY: `status` is an int that the kernel may write.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    match pid {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some((Pid::from_raw(pid), status))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The next signal of `set`, which must be blocked; `None` after `timeout`: `sigtimedwait(2)`.
pub fn next_signal(set: &SigSet, timeout: Duration) -> io::Result<Option<i32>> {
    let timeout = TimeSpec::from_duration(timeout);
    // SAFETY: both point to valid values of their types; the place for details may be null.
    let signal = unsafe { libc::sigtimedwait(set.as_ref(), ptr::null_mut(), timeout.as_ref()) };
    if signal >= 0 {
        return Ok(Some(signal));
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(None),
        error => Err(error),
    }
}

/// `fork(2)`: the child's id in the parent, `None` in the child.
///
/// Errors: EBUSY when this process has more than one thread, of which a child would have only one, with the
/// others' locks held.
pub fn fork() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: there is one thread, so the child is a whole copy of this process.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(Pid::from_raw(pid))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where a system call stopped a tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemCall {
    /// Before it.
    Entry {
        /// `AUDIT_ARCH_*`: whose numbers these are.
        arch: u32,
        /// Its number.
        number: u64,
        /// Its arguments.
        arguments: [u64; 6],
    },
    /// After it.
    Exit {
        /// The errno that it failed with.
        errno: Option<i32>,
    },
    /// Not at a system call.
    Elsewhere,
}

/// What the tracee `pid` is stopped at: `PTRACE_GET_SYSCALL_INFO` of `ptrace(2)` (Linux 5.3).
///
/// Errors: EIO before Linux 5.3, ESRCH when it is not stopped.
pub fn system_call(pid: Pid) -> io::Result<SystemCall> {
    let info = nix::sys::ptrace::syscall_info(pid)?;
    match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: `op` says that the kernel filled this member.
            let entry = unsafe { info.u.entry };
            Ok(SystemCall::Entry { arch: info.arch, number: entry.nr, arguments: entry.args })
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: as above.
            let exit = unsafe { info.u.exit };
            Ok(SystemCall::Exit { errno: (exit.is_error != 0).then_some(-exit.sval as i32) })
        }
        _ => Ok(SystemCall::Elsewhere),
    }
}

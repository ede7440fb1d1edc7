//! Parts of tracing that `nix::sys::ptrace` lacks: real-time signals and group stops, which that
//! module does not represent; system calls, which it represents only with glibc; and a wait that a
//! signal or a timeout can end without a race.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

use super::result::checked;

// linux/ptrace.h, Linux 5.3. C libraries differ in the type of a request, but all their types can
// hold these values.
const PTRACE_GET_SYSCALL_INFO: u16 = 0x420e;
const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;
const PTRACE_SYSCALL_INFO_EXIT: u8 = 2;

/// The way in which a stopped tracee continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It runs to the next entry into a system call or exit from one: `PTRACE_SYSCALL`.
    UntilSystemCall,
    /// It stays stopped, like its group, and can be waited for: `PTRACE_LISTEN` (Linux 3.4).
    Listen,
    /// It runs on without the tracer: `PTRACE_DETACH`.
    Free,
}

/// Lets the stopped tracee `pid` continue, with the signal `signal` (0 for none): `ptrace(2)`.
///
/// Errors: ESRCH if it is not stopped or no longer exists.
pub fn resume(pid: Pid, how: Resume, signal: i32) -> io::Result<()> {
    let request = match how {
        Resume::UntilSystemCall => libc::PTRACE_SYSCALL,
        Resume::Listen => libc::PTRACE_LISTEN,
        Resume::Free => libc::PTRACE_DETACH,
    };
    // SAFETY: these requests take the number of a signal, or nothing, in place of a pointer; no
    // memory is accessed.
    checked(unsafe {
        libc::ptrace(
            request,
            pid.as_raw(),
            ptr::null_mut::<libc::c_void>(),
            signal as usize as *mut libc::c_void,
        )
    })
    .map(drop)
}

/// Returns a child or tracee that stopped or ended, with its status word; `None` if there is none
/// now: `waitpid(2)` with `WNOHANG` and `__WALL`.
///
/// Errors: ECHILD if there is nothing to wait for.
pub fn stopped_or_ended() -> io::Result<Option<(Pid, i32)>> {
    let mut status = 0;
    // SAFETY: `status` is an int that the kernel may write.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    checked(pid)?;
    Ok((pid != 0).then_some((Pid::from_raw(pid), status)))
}

/// Waits for the next signal of `set`, which must be blocked; `None` after `timeout`:
/// `sigtimedwait(2)`.
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

/// Forks: `fork(2)`. Returns the id of the child in the parent, `None` in the child.
///
/// Errors: EBUSY if this process has several threads. The child would have only one of them, with
/// the locks of the others held.
pub fn fork() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: there is one thread, so the child is a whole copy of this process.
    let pid = unsafe { libc::fork() };
    checked(pid)?;
    Ok((pid != 0).then_some(Pid::from_raw(pid)))
}

/// The place at which a tracee is stopped, with regard to system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemCall {
    /// Before a system call.
    Entry {
        /// The architecture whose number this is: `AUDIT_ARCH_*`.
        arch: u32,
        /// Its number.
        number: u64,
        /// Its arguments.
        arguments: [u64; 6],
    },
    /// After a system call.
    Exit {
        /// The errno that it failed with.
        errno: Option<i32>,
    },
    /// Not at a system call.
    Elsewhere,
}

/// `struct ptrace_syscall_info`, with its union as plain words.
#[repr(C)]
struct RawSystemCall {
    op: u8,
    reserved: [u8; 3],
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    words: [u64; 8],
}

impl RawSystemCall {
    fn read(&self) -> SystemCall {
        let [first, rest @ ..] = self.words;
        match self.op {
            PTRACE_SYSCALL_INFO_ENTRY => {
                let [arguments @ .., _] = rest;
                SystemCall::Entry {
                    arch: self.arch,
                    number: first,
                    arguments,
                }
            }
            PTRACE_SYSCALL_INFO_EXIT => {
                // The flag is one byte, at the same address on any byte order.
                let is_error = rest[0].to_ne_bytes()[0] != 0;
                SystemCall::Exit {
                    errno: is_error.then_some((first as i32).wrapping_neg()),
                }
            }
            _ => SystemCall::Elsewhere,
        }
    }
}

/// Returns where the tracee `pid` is stopped: `PTRACE_GET_SYSCALL_INFO` of `ptrace(2)` (Linux 5.3).
///
/// Errors: EIO before Linux 5.3; ESRCH if it is not stopped.
pub fn system_call(pid: Pid) -> io::Result<SystemCall> {
    let mut info = MaybeUninit::<RawSystemCall>::zeroed();
    // SAFETY: this request takes the size of the buffer as its address, and the kernel writes at
    // most that much into it.
    checked(unsafe {
        libc::ptrace(
            PTRACE_GET_SYSCALL_INFO.into(),
            pid.as_raw(),
            size_of::<RawSystemCall>(),
            info.as_mut_ptr(),
        )
    })?;
    // SAFETY: zeroed at first, and every bit pattern is valid for plain integers.
    Ok(unsafe { info.assume_init_ref() }.read())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let info = |op, words| RawSystemCall {
            op,
            reserved: [0; 3],
            arch: 0xc000_003e,
            instruction_pointer: 1,
            stack_pointer: 2,
            words,
        };
        assert_eq!(size_of::<RawSystemCall>(), 88);
        let entry = info(PTRACE_SYSCALL_INFO_ENTRY, [257, 1, 2, 3, 4, 5, 6, 7]).read();
        let arguments = [1, 2, 3, 4, 5, 6];
        assert_eq!(
            entry,
            SystemCall::Entry {
                arch: 0xc000_003e,
                number: 257,
                arguments
            }
        );
        let flag = |byte| u64::from_ne_bytes([byte, 0, 0, 0, 0, 0, 0, 0]);
        let exit = |value: i64, byte| {
            info(
                PTRACE_SYSCALL_INFO_EXIT,
                [value as u64, flag(byte), 0, 0, 0, 0, 0, 0],
            )
            .read()
        };
        assert_eq!(
            exit(-2, 1),
            SystemCall::Exit {
                errno: Some(libc::ENOENT)
            }
        );
        assert_eq!(exit(-2, 0), SystemCall::Exit { errno: None });
        assert_eq!(info(0, [0; 8]).read(), SystemCall::Elsewhere);
    }

    #[test]
    fn who_is_not_followed_is_not_asked() {
        let error = system_call(Pid::this()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}

//! The end of a process in which a thread may never come back from the kernel.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Closes what `fd` is, and makes it mean the file of `instead`, by `dup3(2)`: for a process that
/// ends now, and whose other threads may be about to use or to close `fd`.
pub fn abandon(fd: RawFd, instead: BorrowedFd<'_>) {
    // SAFETY: no pointers. The descriptor stays open for whoever owns it.
    unsafe { libc::dup3(instead.as_raw_fd(), fd, libc::O_CLOEXEC) };
}

/// `_exit(2)`: ends all threads, and runs nothing more of this program. One that the kernel holds
/// ends when it lets go of it, without another step of its own.
pub fn leave(code: u8) -> ! {
    // SAFETY: no pointers; it does not return.
    unsafe { libc::_exit(libc::c_int::from(code)) }
}

/// Whether this process ignores `signal`, as one that nohup(1) started ignores SIGHUP:
/// `sigaction(2)`.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set; `action` has room for a `struct sigaction`, for which zero is valid.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: zeroed at first, and filled by a successful call.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

//! Ends a process in which a thread may never return from the kernel.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Closes the file behind `fd` and makes `fd` refer to the file of `instead`: `dup3(2)`. It is for
/// a process that ends now, and whose other threads may be about to use or to close `fd`.
pub fn abandon(fd: RawFd, instead: BorrowedFd<'_>) {
    // SAFETY: there are no pointers, and the descriptor stays open for its owner.
    unsafe { libc::dup3(instead.as_raw_fd(), fd, libc::O_CLOEXEC) };
}

/// Ends all threads and runs nothing more of this program: `_exit(2)`. A thread that is held by the
/// kernel ends when the kernel releases it, without another step of its own.
pub fn leave(code: u8) -> ! {
    // SAFETY: there are no pointers, and it does not return.
    unsafe { libc::_exit(libc::c_int::from(code)) }
}

/// Whether this process ignores `signal`, as nohup(1) makes a program ignore SIGHUP:
/// `sigaction(2)`.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set. `action` has room for a `struct sigaction`, for which zero is valid.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: zeroed at first, and filled by a successful call.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

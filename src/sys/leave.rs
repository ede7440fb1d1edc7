//! Ends a process in which a thread may never return from the kernel.

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

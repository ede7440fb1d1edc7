//! The open files of this process.

use std::io;
use std::os::fd::RawFd;

use super::proc;

/// Marks every descriptor from `first` on close-on-exec, so that no program that this process
/// becomes or starts inherits it: `close_range(2)` with `CLOSE_RANGE_CLOEXEC` (Linux 5.11), else
/// `FD_CLOEXEC` of fcntl(2) for each entry of `/proc/self/fd`.
pub fn close_on_exec(first: RawFd) -> io::Result<()> {
    // SAFETY: there are no pointers, and nothing is closed now.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first as u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        one_by_one(first)
    }
}

fn one_by_one(first: RawFd) -> io::Result<()> {
    for fd in proc::own_descriptors()?.filter(|fd| *fd >= first) {
        // SAFETY: there are no pointers. A descriptor that is no longer open gives EBADF, which is
        // harmless.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

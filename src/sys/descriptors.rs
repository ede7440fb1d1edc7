//! The open files of this process.

use std::io;
use std::os::fd::RawFd;

/// Whatever is open from the descriptor `first` on, no other program gets that this process becomes
/// or starts: `close_range(2)` with `CLOSE_RANGE_CLOEXEC` (Linux 5.11), else `FD_CLOEXEC` of
/// fcntl(2) for all in `/proc/self/fd`.
pub fn close_on_exec(first: RawFd) -> io::Result<()> {
    // SAFETY: no pointers; nothing is closed now.
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
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let fd = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(fd) = fd.filter(|fd| *fd >= first) {
            // SAFETY: no pointers; what is not open any more gives EBADF, and needs nothing.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

//! The results of system calls.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The result of a call that returns a negative number if it fails, for the reason in `errno`.
pub(super) fn checked(result: impl Into<i64>) -> io::Result<i64> {
    let result = result.into();
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The descriptor that a call returned.
///
/// # Safety
///
/// If the call succeeded, the descriptor is new, and nothing else owns it.
pub(super) unsafe fn new_descriptor(result: impl Into<i64>) -> io::Result<OwnedFd> {
    let fd = checked(result)? as RawFd;
    // SAFETY: the caller says so.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

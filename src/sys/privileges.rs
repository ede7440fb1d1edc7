//! The privileges of a process besides its user and groups: capabilities and the keys that it
//! possesses.

use std::io;

use super::result::checked;

/// `KEYCTL_GET_KEYRING_ID` and `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h, and the session
/// keyring's special id.
const GET_KEYRING_ID: libc::c_long = 0;
const JOIN_SESSION_KEYRING: libc::c_long = 1;
const SESSION_KEYRING: libc::c_long = -3;

/// Gives this process an empty session keyring of its own, so that neither it nor a program that it
/// becomes possesses the inherited keys: `keyctl_join_session_keyring(3)`.
///
/// Errors: EDQUOT, ENOMEM, and all others that leave the old keyring in place. A kernel without
/// keys is not an error, and neither is a filter that refuses keyctl(2) completely, as in
/// containers: no key can be reached there.
pub fn leave_session_keyring() -> io::Result<()> {
    let keyctl = |operation: libc::c_long, argument: libc::c_long| {
        // SAFETY: the argument is a special id or the null pointer, for which the kernel reads no
        // name.
        checked(unsafe { libc::syscall(libc::SYS_keyctl, operation, argument, 0, 0, 0) }).map(drop)
    };

    keyctl(JOIN_SESSION_KEYRING, 0).or_else(|error| {
        let refused =
            |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM));
        match keyctl(GET_KEYRING_ID, SESSION_KEYRING) {
            Err(also) if refused(&also) && refused(&error) => Ok(()),
            _ => Err(error),
        }
    })
}

/// Drops all capabilities of this thread: `capset(2)`. Ambient capabilities, which would survive an
/// execve(2), are dropped with the inheritable ones. A change of the user does the same, but only
/// if the securebits of capabilities(7) do not prevent it.
pub fn drop_capabilities() -> io::Result<()> {
    /// `struct __user_cap_header_struct`, and `struct __user_cap_data_struct` twice, of
    /// linux/capability.h.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let no_capabilities = [0_u32; 6];
    // SAFETY: both live across the call. The kernel reads a header, and as much data as its version
    // has.
    checked(unsafe {
        libc::syscall(
            libc::SYS_capset,
            &raw const header,
            &raw const no_capabilities,
        )
    })
    .map(drop)
}

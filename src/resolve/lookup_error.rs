//! Why a path leads nowhere, and which of the reasons mean that nothing is there.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::others::Others;
use crate::Error;
use crate::base::quote::shell_path;
use crate::base::{ErrorContext, HostPath};
use crate::sys::may_look_everywhere;

/// Why a path leads nowhere; `Display` is a clause that can follow `path: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// `at` does not exist (ENOENT).
    Missing {
        /// The first component that is not there.
        at: HostPath,
    },
    /// `at` exists and is not a directory, although the path goes on (ENOTDIR).
    NotDirectory {
        /// The component in the way.
        at: HostPath,
    },
    /// A link exists, its destination does not (ENOENT).
    Dangling {
        /// The link.
        link: HostPath,
        /// Where it leads.
        destination: PathBuf,
    },
    /// More links than the kernel follows, most likely a cycle (ELOOP).
    Cycle {
        /// The link that was one too many.
        link: HostPath,
    },
    /// The link is in the hands of others than root, who do not own what it leads to.
    Strange {
        /// The link.
        link: HostPath,
        /// In whose hands it is, and why.
        others: Others,
        /// Where it leads.
        to: HostPath,
    },
    /// The kernel refused for another reason: no permission, a failing disk, a file too large.
    Unreadable {
        /// The path that could not be read.
        at: HostPath,
        /// The errno.
        errno: i32,
    },
}

impl LookupError {
    /// The kernel refused to tell what `at` is.
    pub(super) fn unreadable(at: &HostPath, errno: i32) -> Self {
        let at = at.clone();
        Self::Unreadable { at, errno }
    }

    /// `at` does not exist.
    pub(super) fn missing(at: &HostPath) -> Self {
        Self::Missing { at: at.clone() }
    }

    /// Whether nothing has that name: neither a broken link nor a refusal.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::NotDirectory { .. })
    }

    /// Whether it is unknown if anything has that name: the kernel, the disk or a server could not
    /// tell. The unknown never counts as absent. But a user who is not root cannot look everywhere:
    /// to them, a closed directory is empty.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Unreadable {
                errno: libc::EACCES | libc::EPERM,
                ..
            } => may_look_everywhere(),
            Self::Unreadable { errno, .. } => is_unknown(*errno),
            _ => false,
        }
    }

    /// The component at which the lookup ended.
    pub fn at(&self) -> &HostPath {
        match self {
            Self::Missing { at } | Self::NotDirectory { at } | Self::Unreadable { at, .. } => at,
            Self::Dangling { link, .. } | Self::Cycle { link } | Self::Strange { link, .. } => link,
        }
    }

    /// The kernel's answer to such a look-up.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Missing { .. } | Self::Dangling { .. } => libc::ENOENT,
            Self::NotDirectory { .. } => libc::ENOTDIR,
            Self::Cycle { .. } => libc::ELOOP,
            // As for links in /tmp: protected_symlinks in proc_sys_fs(5).
            Self::Strange { .. } => libc::EACCES,
            Self::Unreadable { errno, .. } => *errno,
        }
    }

    /// The path that could not be looked up.
    fn path(&self) -> &Path {
        match self {
            Self::Missing { at } | Self::NotDirectory { at } | Self::Unreadable { at, .. } => {
                at.as_ref()
            }
            Self::Dangling { link, .. } | Self::Cycle { link } | Self::Strange { link, .. } => {
                link.as_ref()
            }
        }
    }

    /// An error with this reason; `message` tells what could not be done, on which paths.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> Error {
        let message = message.into();
        let reason = io::Error::from_raw_os_error(self.errno());
        let error = Error::failed(&message).because(&reason).at(self.path());
        match self {
            Self::Unreadable { at, .. } if message.contains(&at.to_string()) => error,
            Self::Dangling { link, .. } => error.because_of(self).hint(format!(
                "start what makes it, such as its daemon, or let the link lead elsewhere: \
                 `ln -sfn FILE {}`",
                shell_path(link)
            )),
            _ => error.because_of(self),
        }
    }
}

impl<T> ErrorContext<T> for Result<T, LookupError> {
    /// As [`LookupError::error`].
    fn context(self, context: impl fmt::Display) -> crate::Result<T> {
        self.map_err(|reason| reason.error(context.to_string()))
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { at } => write!(f, "{at} does not exist"),
            Self::NotDirectory { at } => write!(f, "{at} is not a directory"),
            Self::Dangling { link, destination } => {
                write!(
                    f,
                    "the link {link} leads to {}, which does not exist",
                    destination.display()
                )
            }
            Self::Cycle { link } => {
                write!(f, "too many links at {link}; do they lead in a circle?")
            }
            Self::Strange { link, others, to } => {
                match others.user {
                    Some(uid) => write!(
                        f,
                        "the link {link} is user {uid}'s, \
                         who does not own {to}, to which it leads ({others})"
                    ),
                    None => write!(f, "the link {link} leads to {to}, and {others}"),
                }?;
                f.write_str(": it is not followed, or they could have anything mounted")
            }
            Self::Unreadable { at, errno } => {
                write!(
                    f,
                    "cannot read {at}: {}",
                    nix::errno::Errno::from_raw(*errno).desc()
                )
            }
        }
    }
}

impl std::error::Error for LookupError {}

impl From<LookupError> for io::Error {
    fn from(error: LookupError) -> Self {
        Self::from_raw_os_error(error.errno())
    }
}

/// Whether `errno` leaves it open what is there: the kernel, a disk or a server could not tell.
pub(super) fn is_unknown(errno: i32) -> bool {
    use libc::{EACCES, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM};
    !matches!(
        errno,
        ENOENT | ENOTDIR | ELOOP | ENAMETOOLONG | EINVAL | EISDIR | EACCES | EPERM
    )
}

/// `None` in place of an error that means that nothing is there, or not what was looked for.
///
/// Errors: it is unknown ([`LookupError::is_unknown`]).
pub(crate) fn found<T>(result: Result<T, LookupError>) -> Result<Option<T>, LookupError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_unknown() => Err(error),
        Err(_) => Ok(None),
    }
}

//! The error type: what was being done, why that failed, what to do next.

use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::hints::{self, Doing};

/// The class of an error, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line or a manifest is wrong: exit code 2.
    Usage,
    /// The host did not allow it, or something is missing: exit code 1.
    Failed,
    /// A signal stopped the work, and what was begun has been undone: exit code 1.
    Interrupted,
    /// Something did not answer in time: exit code 1.
    Silent,
}

/// An error as an administrator reads it.
///
/// `Display` gives `message: reason`. The command line prints the hint on a line of its own. The
/// message names the operation, the site and the paths; the reason is the kernel's, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    reason: Option<String>,
    errno: Option<i32>,
    hint: Option<String>,
    path: Option<Box<Path>>,
    code: Option<ErrorCode>,
    overtaken: bool,
}

/// The class of an error, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The command line is wrong.
    Usage,
    /// A manifest has a mistake.
    Manifest,
    /// There is no such site.
    NoSuchSite,
    /// Something that is not mountjail's is in the way.
    Conflict,
    /// The site is in use; nothing was changed.
    InUse,
    /// Something changed after it was looked at: the same may succeed now.
    Overtaken,
    /// A signal stopped the work.
    Interrupted,
    /// Something did not answer in time.
    Silent,
    /// Anything else.
    Failed,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Usage,
        Self::Manifest,
        Self::NoSuchSite,
        Self::Conflict,
        Self::InUse,
        Self::Overtaken,
        Self::Interrupted,
        Self::Silent,
        Self::Failed,
    ];
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says in the error of a result what was being done: `work().context(&site.name)?`.
pub(crate) trait ErrorContext<T> {
    /// Puts `context` before the error, if there is one: `context: reason`.
    fn context(self, context: impl fmt::Display) -> Result<T>;
}

impl<T> ErrorContext<T> for Result<T> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.context(context))
    }
}

impl<T> ErrorContext<T> for io::Result<T> {
    /// The error that `context`, such as "cannot read /etc/fstab", failed for the system's reason.
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.map_err(|reason| Error::failed(context.to_string()).because(&reason))
    }
}

impl Error {
    /// The host did not allow something: `message` tells what could not be done, on which paths.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// The command line or a manifest is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// A signal stopped the work.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Interrupted, message)
    }

    /// Something did not answer in time.
    pub fn silent(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Silent, message)
    }

    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            reason: None,
            errno: None,
            hint: None,
            path: None,
            code: None,
            overtaken: false,
        }
    }

    /// Adds the system's reason, in its own words ("No such file or directory").
    #[must_use]
    pub fn because(mut self, reason: &io::Error) -> Self {
        self.errno = reason.raw_os_error();
        self.reason = Some(in_words(reason));
        if let Some(hint) = hints::of_limit(self.errno) {
            self.hint = Some(hint.to_owned());
        } else if let Some(hint) = hints::of_server(self.errno)
            && self.hint.is_none()
        {
            self.hint = Some(hint.to_owned());
        }
        self
    }

    /// Adds a reason that is not an errno.
    #[must_use]
    pub fn because_of(mut self, reason: impl fmt::Display) -> Self {
        self.reason = Some(reason.to_string());
        self
    }

    /// Adds what to do next. If a limit was reached, [`because`](Self::because) has added that
    /// already.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if hints::of_limit(self.errno).is_none() {
            self.hint = Some(hint.into());
        }
        self
    }

    /// Adds what to do next about the kernel's reason, if anything helps.
    #[must_use]
    pub(crate) fn hint_while(self, doing: Doing) -> Self {
        match self.errno.and_then(|errno| hints::hint(doing, errno)) {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Marks an error because something changed after it was looked at: the same command may
    /// succeed now, which is the hint.
    #[must_use]
    pub fn overtaken(mut self) -> Self {
        self.overtaken = true;
        self.hint("run the command again")
    }

    /// Whether the same may succeed now: see [`Self::overtaken`].
    pub fn is_overtaken(&self) -> bool {
        self.overtaken
    }

    /// Adds the path that it is about, for programs. The first one counts.
    #[must_use]
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.path = self.path.or_else(|| Some(path.as_ref().into()));
        self
    }

    /// The path that it is about, where one is known.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Adds what went wrong, for programs. The first code counts.
    #[must_use]
    pub fn coded(mut self, code: ErrorCode) -> Self {
        self.code = self.code.or(Some(code));
        self
    }

    /// What went wrong, for programs.
    pub fn code(&self) -> ErrorCode {
        self.code.unwrap_or(match self.kind {
            _ if self.overtaken => ErrorCode::Overtaken,
            ErrorKind::Usage => ErrorCode::Usage,
            ErrorKind::Failed => ErrorCode::Failed,
            ErrorKind::Interrupted => ErrorCode::Interrupted,
            ErrorKind::Silent => ErrorCode::Silent,
        })
    }

    /// Puts `context` before the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The same about `site` at `place`, which follows the site's name in the message.
    #[must_use]
    pub(crate) fn in_place(mut self, site: impl fmt::Display, place: &str) -> Self {
        let site = format!("{site}: ");
        let (named, what) = match self.message.strip_prefix(&site) {
            Some(what) => (site.as_str(), what),
            None => ("", self.message.as_str()),
        };
        self.message = format!("{named}in {place}: {what}");
        self
    }

    /// Changes what to do next, if that is known.
    #[must_use]
    pub(crate) fn map_hint(mut self, change: impl FnOnce(&str) -> String) -> Self {
        self.hint = self.hint.map(|hint| change(&hint));
        self
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do next, if it is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The errno that the kernel gave, where there was one.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// Whether the server of a file system is gone, or does not know the file any more.
    pub fn is_server_gone(&self) -> bool {
        hints::is_server_gone(self.errno)
    }

    /// The exit code of a process that ends because of this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Usage => 2,
            ErrorKind::Failed | ErrorKind::Interrupted | ErrorKind::Silent => 1,
        }
    }
}

/// The system's reason in its own words. [`io::Error`] appends "(os error N)", which tells an
/// administrator nothing.
pub(crate) fn in_words(reason: &io::Error) -> String {
    match reason.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => reason.to_string(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

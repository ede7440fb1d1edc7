//! What all probes share: a question, its answer, and errors.

use std::fmt;
use std::io;

use nix::errno::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most bytes of a job or a reply.
pub(in crate::doctor) const MAX_BYTES: u64 = 4 << 20;

/// A question that is answered inside.
pub(in crate::doctor) trait Probe {
    type Answer: Serialize + DeserializeOwned;

    /// Finds the answer. It runs inside.
    fn run(&self) -> Self::Answer;
}

/// The output of the process inside: its answer, or why it has none.
pub(in crate::doctor) type Reply = Result<Value, String>;

/// Why something failed inside, in the kernel's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::doctor) struct InsideError {
    text: String,
    pub errno: Option<i32>,
}

impl fmt::Display for InsideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<io::Error> for InsideError {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error();
        let text = match errno {
            Some(errno) => Errno::from_raw(errno).desc().to_owned(),
            None => error.to_string(),
        };
        Self { text, errno }
    }
}

impl InsideError {
    /// Whether rights are lacking.
    pub(in crate::doctor) fn is_denied(&self) -> bool {
        self.errno == Some(libc::EACCES)
    }

    /// Whether there is nothing by that name.
    pub(in crate::doctor) fn is_missing(&self) -> bool {
        matches!(self.errno, Some(libc::ENOENT | libc::ENOTDIR))
    }
}

/// Only the reason. The standard library turns the errors of `getaddrinfo(3)` into "failed to
/// lookup address information: Name or service not known".
pub(super) fn reason(error: io::Error) -> String {
    let text = InsideError::from(error).text;
    match text.rsplit_once(": ") {
        Some((_, reason)) => reason.to_owned(),
        None => text,
    }
}

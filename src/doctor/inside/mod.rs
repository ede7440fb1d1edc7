//! What runs inside: one question a process, asked and answered as JSON.
//!
//! The process is this program, started anew by [`ask`](super::ask): it enters the root, becomes
//! the user, looks, prints what it saw and ends. Modules that the C library opens meanwhile are the
//! jail's, as in a worker of PHP-FPM. The answer counts as the site's word, not as the truth: the
//! site's owner may have made it up.

mod code;
mod files;
mod network;
mod text;
mod tls;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::setsid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::HostPath;
use crate::jail::{self, JailUser};
use crate::{Error, Result};

pub(super) use code::{Libraries, Mailer};
pub(super) use files::{Connect, Devices, Directories, Enter, Exist, Sockets, WebRoot};
pub(super) use network::{Nameserver, Nameservers, Resolve};
pub(super) use text::{Account, Convert, Locale, NameServices, Zone};
pub(super) use tls::{Anchors, Certificates, Handshake, HandshakeResult};

/// The most bytes of a job or an answer.
pub(super) const MAX_BYTES: u64 = 4 << 20;

/// A question that is answered inside.
pub(super) trait Probe: Into<Question> {
    /// What comes back.
    type Answer: Serialize + DeserializeOwned;

    /// Looks, inside.
    fn run(&self) -> Self::Answer;
}

macro_rules! questions {
    ($($name:ident),* $(,)?) => {
        /// Any question, as it travels.
        #[derive(Debug, Serialize, Deserialize)]
        pub(super) enum Question { $($name($name)),* }

        impl Question {
            fn answer(&self) -> serde_json::Result<Value> {
                match self { $(Self::$name(probe) => serde_json::to_value(probe.run())),* }
            }
        }

        $(impl From<$name> for Question {
            fn from(probe: $name) -> Self {
                Self::$name(probe)
            }
        })*
    };
}

questions!(
    Account,
    Certificates,
    Connect,
    Convert,
    Devices,
    Directories,
    Enter,
    Exist,
    Handshake,
    Libraries,
    Locale,
    Mailer,
    NameServices,
    Nameserver,
    Nameservers,
    Resolve,
    Sockets,
    WebRoot,
    Zone,
);

/// What the process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub root: HostPath,
    pub who: JailUser,
    pub question: Question,
}

/// What the process says: its answer, or why it has none.
pub(super) type Reply = std::result::Result<Value, String>;

/// What went wrong inside, in the kernel's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InsideError {
    pub text: String,
    pub errno: Option<i32>,
}

impl From<io::Error> for InsideError {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error();
        let text = errno.map(|errno| nix::errno::Errno::from_raw(errno).desc().to_owned());
        Self {
            text: text.unwrap_or_else(|| error.to_string()),
            errno,
        }
    }
}

impl InsideError {
    /// Whether simply nothing has that name.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno, Some(libc::ENOENT | libc::ENOTDIR))
    }
}

/// The reason alone. Of what `getaddrinfo(3)` says the standard library makes "failed to lookup
/// address information: Name or service not known".
fn reason(error: io::Error) -> String {
    let text = InsideError::from(error).text;
    text.rsplit_once(": ")
        .map_or(text.clone(), |(_, reason)| reason.to_owned())
}

/// The process inside: reads its job from the standard input, and prints the reply.
pub fn main() -> ExitCode {
    let reply: Reply = work().map_err(|error| error.to_string());
    let text = serde_json::to_vec(&reply).unwrap_or_default(); // it is JSON already
    match io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // whoever asked is gone
    }
}

fn work() -> Result<Value> {
    let for_doctor = || Error::usage("this command is for `mountjail doctor` alone");
    // The jail's code shall have no terminal. A person's shell makes each command a group's leader,
    // which cannot leave.
    setsid().map_err(|error| for_doctor().because(&error.into()))?;
    let mut text = vec![];
    let read = io::stdin().take(MAX_BYTES).read_to_end(&mut text);
    read.map_err(|error| Error::failed("cannot read what to look for").because(&error))?;
    let job: Job = serde_json::from_slice(&text).map_err(|error| for_doctor().because_of(error))?;
    jail::enter(&job.root, &job.who)?;
    // Only now, because a change of the user takes it back: nothing stays behind when doctor is
    // killed.
    let _ = set_pdeathsig(Signal::SIGKILL);
    job.question
        .answer()
        .map_err(|error| Error::failed("cannot say what was seen inside").because_of(error))
}

//! The probes that run inside: one process per question, asked and answered as JSON.
//!
//! The process is this program, started again by [`ask`](super::ask): it enters the root, becomes
//! the user, looks, prints its answer and ends. Modules that the C library opens meanwhile are the
//! jail's, as in a worker of PHP-FPM. The answer is the site's word, not the truth: the site's
//! owner may have made it up.

mod code;
mod files;
mod interpreters;
mod network;
mod php;
mod probe;
mod text;
mod tls;
mod tls_library;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, close, setsid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::HostPath;
use crate::jail::{self, JailUser};
use crate::{Error, Result, sys};

pub(super) use code::{CheckLibraries, Mailer, MailerState};
pub(super) use files::{
    Connect, Denied, DeniedAt, Devices, Enter, Exist, PathUse, Socket, Sockets, Usable, WebRoot,
};
pub(super) use interpreters::{Interpreters, is_known as is_interpreter};
pub(super) use network::{Nameserver, Nameservers, Resolve};
pub(super) use php::{Php, PhpState};
pub(super) use probe::{InsideError, MAX_BYTES, Probe, Reply};
pub(super) use text::{AccountIds, Convert, Locale, NameServices, Zone};
pub(super) use tls::{
    Anchors, Certificates, DanglingLink, FoundCertificates, Handshake, HandshakeResult,
};

macro_rules! questions {
    ($($name:ident),* $(,)?) => {
        /// Any question, as it is sent to the process inside.
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
    AccountIds,
    Certificates,
    Connect,
    Convert,
    Denied,
    Devices,
    Enter,
    Exist,
    Handshake,
    Interpreters,
    CheckLibraries,
    Locale,
    Mailer,
    NameServices,
    Nameserver,
    Nameservers,
    Php,
    Resolve,
    Sockets,
    Usable,
    WebRoot,
    Zone,
);

/// The question that the process inside gets on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub root: HostPath,
    pub who: JailUser,
    pub question: Question,
}

/// The process inside: reads its job from standard input, and prints the reply.
///
/// It is the first of a PID namespace, and so the parent of all that have lost theirs. A child does
/// the work. This process reaps, since whatever the site's owner has started there could otherwise
/// fill the host's table of processes with dead ones.
pub(crate) fn main() -> ExitCode {
    if let Err(error) = be_apart() {
        return reply(Err(error));
    }
    match sys::fork() {
        Ok(None) => reply(enter_and_answer()),
        Ok(Some(worker)) => reap_until(worker),
        Err(error) => reply(Err(Error::failed("cannot start a process").because(&error))),
    }
}

fn not_by_hand() -> Error {
    Error::usage("this command is only for `mountjail doctor`")
}

/// Leaves the session of the caller, and ends with it.
///
/// Errors: the caller is not `mountjail doctor`.
fn be_apart() -> Result<()> {
    // The jail's code must not have a terminal. This fails in a command that a shell starts,
    // because the shell makes each command the leader of a process group.
    setsid().map_err(|error| not_by_hand().because(&error.into()))?;
    let _ = set_pdeathsig(Signal::SIGKILL); // there is such a signal
    Ok(())
}

/// Reaps all children until `worker` has ended; the kernel then ends the others.
fn reap_until(worker: Pid) -> ExitCode {
    // The caller reads until nobody has the other end any more.
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        let _ = close(standard); // it was open
    }
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, 0)) if pid == worker => return ExitCode::SUCCESS,
            Ok(ended) if ended.pid() == Some(worker) => return ExitCode::FAILURE,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ExitCode::FAILURE, // there are no children
        }
    }
}

fn reply(answer: Result<Value>) -> ExitCode {
    let reply: Reply = answer.map_err(|error| error.to_string());
    let text = serde_json::to_vec(&reply).unwrap_or_default(); // it is JSON already
    match io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // the other end is gone
    }
}

fn enter_and_answer() -> Result<Value> {
    let mut text = vec![];
    io::stdin()
        .take(MAX_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| Error::failed("cannot read the question").because(&error))?;
    let job: Job =
        serde_json::from_slice(&text).map_err(|error| not_by_hand().because_of(error))?;

    if let Question::Php(php) = &job.question {
        return php.answer(&job.root, &job.who);
    }
    jail::enter(&job.root, &job.who)?;

    job.question
        .answer()
        .map_err(|error| Error::failed("cannot write the answer").because_of(error))
}

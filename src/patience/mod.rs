//! Work that may wait for a server which never answers (FUSE, NFS, autofs). It is done in threads
//! that are given up after a limit.
//!
//! In: items, the work per item, a limit. Out: the result per item or, after the limit, what the
//! thread waits for. A thread that waits in the kernel cannot be ended, not even by SIGKILL. So it
//! is left behind, told to do nothing more if it ever wakes up, and other threads do the rest.
//!
//! The time that work takes says nothing: a machine may be busy, and a site may have a thousand
//! mounts. What counts is how long a thread sleeps in the kernel without being woken up once
//! ([`glimpse`]).

pub(crate) mod apart;
mod crew;
mod each;
mod glimpse;
mod question;
mod queue;
pub(crate) mod supervisor;
pub(crate) mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::Error;
use crate::base::quote::shell_path;

pub(crate) use crew::{Crew, Lost};
pub(crate) use each::each_within;
pub(crate) use glimpse::{Glimpse, Sleep};
pub(crate) use question::asked_by;
pub(crate) use queue::in_a_queue;

/// The longest wait for anything after a signal asked to stop.
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(1);

/// The limit for what is looked up on behalf of other sites.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

/// The number of threads that were given up and have not woken up.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Whether there are threads that were given up and have not woken up: then this process cannot end
/// in the usual way.
pub(crate) fn leaves_threads_behind() -> bool {
    LEFT_BEHIND.load(Ordering::SeqCst) > 0
}

/// Tells work to stop: a signal asked for it, or the work was given up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    signal: Arc<AtomicBool>,
    given_up: Arc<AtomicBool>,
}

impl Stop {
    /// One that is set when `signal` is.
    pub(crate) fn by(signal: &Arc<AtomicBool>) -> Self {
        Self {
            signal: signal.clone(),
            given_up: Arc::default(),
        }
    }

    /// Whether to stop.
    pub(crate) fn is_set(&self) -> bool {
        self.by_signal() || self.given_up.load(Ordering::SeqCst)
    }

    /// Whether a signal asked for it.
    pub(crate) fn by_signal(&self) -> bool {
        self.signal.load(Ordering::SeqCst)
    }

    /// The same without the signal: the work that was begun is finished.
    #[must_use]
    pub(crate) fn whatever_the_signal(&self) -> Self {
        Self {
            signal: Arc::default(),
            given_up: self.given_up.clone(),
        }
    }

    fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }
}

/// A file system did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    /// The path that was asked for, if it is known.
    pub path: Option<PathBuf>,
    /// How long an answer may take.
    pub limit: Duration,
}

impl Silence {
    /// As an error that names the file system and the remedy.
    pub(crate) fn error(&self) -> Error {
        let Some(path) = &self.path else {
            return Error::silent(self.to_string());
        };
        let error = Error::silent(self.to_string());
        match question::mount_of(path) {
            None => error,
            Some((point, kind)) => error
                .because_of(format!("it is on {}, of type {kind}", point.display()))
                .hint(format!(
                    "repair its server, or `umount -f -l {}`",
                    shell_path(point)
                )),
        }
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit.as_secs_f32();
        match &self.path {
            Some(path) => write!(f, "{} did not answer within {limit} s", path.display()),
            None => write!(f, "something did not answer within {limit} s"),
        }
    }
}

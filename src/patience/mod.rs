//! Work that may wait for a server which never answers (FUSE, NFS, autofs): in threads that are
//! given up after a limit.
//!
//! In: items, what is to be done with each, a limit. Out: what came of each, or, after the limit,
//! what it waits for. Such a thread cannot be ended: not even SIGKILL takes it out of the kernel.
//! So it is left behind, told to do nothing more should it ever come back, and others do its work.
//!
//! How long something takes is no measure: a machine may be busy, and a site may have a thousand
//! mounts. What counts is how long a thread sleeps in the kernel without being woken once
//! ([`glimpse`]).

mod crew;
mod glimpse;
mod question;
pub(crate) mod supervisor;
pub(crate) mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::Error;
use crate::base::quote::word;

pub use crew::{Crew, Lost};
pub use glimpse::{Glimpse, Sleep};
pub use question::asked_by;

/// Once a signal asked to stop, nobody is waited for longer.
pub const LAST_WAIT: Duration = Duration::from_secs(1);

/// How long something may be silent that is of interest to others than the one it belongs to.
pub const SHORT: Duration = Duration::from_secs(2);

/// Threads that were given up and have not come back.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Whether there are threads that were given up and have not come back: then this process cannot
/// end as others do.
pub fn leaves_threads_behind() -> bool {
    LEFT_BEHIND.load(Ordering::SeqCst) > 0
}

/// What `work` makes of each of `items`, one after the other; `None` of those with which it sleeps
/// as long as `limit`. These do not keep the others.
pub fn each_within<T: Send + Sync + 'static, R: Send + 'static>(
    items: Vec<T>,
    limit: Option<Duration>,
    work: impl Fn(&T) -> R + Send + Sync + 'static,
) -> Vec<Option<R>> {
    let threads = Crew::start(items, 1, limit, &Arc::default(), move |item, _| work(item));
    threads.finish().into_iter().map(Result::ok).collect()
}

/// When work is to be left off: a signal asked for it, or nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    signal: Arc<AtomicBool>,
    given_up: Arc<AtomicBool>,
}

impl Stop {
    /// One that is set when `signal` is.
    pub fn by(signal: &Arc<AtomicBool>) -> Self {
        Self {
            signal: signal.clone(),
            given_up: Arc::default(),
        }
    }

    /// Whether to leave off.
    pub fn is_set(&self) -> bool {
        self.by_signal() || self.given_up.load(Ordering::SeqCst)
    }

    /// Whether a signal asked for it.
    pub fn by_signal(&self) -> bool {
        self.signal.load(Ordering::SeqCst)
    }

    /// The same, but whatever a signal asks for, what was begun is finished.
    #[must_use]
    pub fn whatever_the_signal(&self) -> Self {
        Self {
            signal: Arc::default(),
            given_up: self.given_up.clone(),
        }
    }

    fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }
}

/// Somebody did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// What was asked for; `None`: it is not known.
    pub path: Option<PathBuf>,
    /// How long it may take.
    pub limit: Duration,
}

impl Silence {
    /// As an error, which names the file system, and what can be done.
    pub fn error(&self) -> Error {
        let Some(path) = &self.path else {
            return Error::silent(self.to_string());
        };
        let error = Error::silent(self.to_string());
        match question::mount_of(path) {
            None => error,
            Some((point, kind)) => error
                .because_of(format!("it is on {}, of type {kind}", point.display()))
                .hint(format!(
                    "mend its server, or `umount -f -l {}`",
                    word(&point.to_string_lossy())
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

//! Asks a question inside: starts the process, waits no longer than it may take, and leaves nothing
//! behind.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

use super::inside::{Job, MAX_BYTES, Probe, Reply};
use crate::base::HostPath;
use crate::jail::JailUser;

/// The argument by which this program knows that it is to look inside.
pub const SUBCOMMAND: &str = "probe-inside";

/// How long a killed process may take to be gone: one that waits for a dead disk never is.
const DYING: Duration = Duration::from_secs(1);

/// How soon a signal to stop is heard.
const HEARING: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// It took longer than it may.
    TimedOut(Duration),
    /// The process could not be started or ended before its answer.
    Broken(String),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerLimit<'p> {
    /// At most this long,
    pub limit: Duration,
    /// and no longer once this is set.
    pub stop: &'p AtomicBool,
}

/// Asks `probe` in the jail at `root` as `who`.
pub(super) fn ask<P: Probe>(
    root: &HostPath,
    who: &JailUser,
    probe: P,
    patience: AnswerLimit<'_>,
) -> Result<P::Answer, NoAnswer> {
    let broken =
        |why: &dyn std::fmt::Display| NoAnswer::Broken(format!("cannot look inside: {why}"));
    let job = Job {
        root: root.clone(),
        who: who.clone(),
        question: probe.into(),
    };
    let job = serde_json::to_vec(&job).map_err(|error| broken(&error))?;
    let mut running = ProbeProcess::start().map_err(|error| broken(&error))?;
    if let Some(mut stdin) = running.0.stdin.take() {
        stdin.write_all(&job).map_err(|error| broken(&error))?;
    }
    let text = match running.0.stdout.take() {
        Some(stdout) => read(stdout, patience).map_err(|error| broken(&error))?,
        None => None,
    };
    let text = text.ok_or(NoAnswer::TimedOut(patience.limit))?;
    drop(running);
    let reply: Reply = serde_json::from_slice(&text)
        .map_err(|_| broken(&"the process that looks ended before it had an answer"))?;
    serde_json::from_value(reply.map_err(NoAnswer::Broken)?).map_err(|error| broken(&error))
}

/// All that is written until the other end is closed; `None` if that takes too long.
fn read(mut stdout: ChildStdout, patience: AnswerLimit<'_>) -> std::io::Result<Option<Vec<u8>>> {
    let (start, mut text, mut buffer) = (Instant::now(), vec![], vec![0; 64 << 10]);
    loop {
        if patience.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("stopped by a signal"));
        }
        let left = patience.limit.saturating_sub(start.elapsed()).min(HEARING);
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match stdout.read(&mut buffer)? {
            0 => return Ok(Some(text)),
            count => text.extend_from_slice(&buffer[..count]),
        }
        if text.len() as u64 > MAX_BYTES {
            return Err(std::io::Error::other("the answer is too long"));
        }
    }
}

/// The process inside, the first of a PID namespace of its own: with it the kernel ends all that it
/// started, wherever that tried to hide. Dropped, none of it is left.
struct ProbeProcess(Child);

impl ProbeProcess {
    /// An environment would be the administrator's, not the daemon's.
    fn start() -> std::io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND).env_clear();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let own = File::open("/proc/self/ns/pid")?;
        // Both are about what this thread starts next.
        unshare(CloneFlags::CLONE_NEWPID).map_err(|error| {
            std::io::Error::other(format!(
                "it gets no PID namespace of its own: {}",
                error.desc()
            ))
        })?;
        let running = command.spawn().map(Self);
        setns(own, CloneFlags::CLONE_NEWPID)?;
        running
    }
}

impl Drop for ProbeProcess {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended by itself
        let start = Instant::now();
        // The kernel lets it be waited for once all others of its namespace are gone.
        while start.elapsed() < DYING && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

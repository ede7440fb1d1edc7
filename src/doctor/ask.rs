//! Runs a probe inside: starts the process, waits no longer than allowed, and leaves nothing
//! behind.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

use super::inside::{Job, MAX_BYTES, Probe, Question, Reply};
use crate::base::HostPath;
use crate::jail::JailUser;

/// The hidden subcommand by which this program is started to run a probe.
pub(crate) const SUBCOMMAND: &str = "probe-inside";

/// How long to wait for a killed process. One that waits for a dead disk never ends.
const KILL_WAIT: Duration = Duration::from_secs(1);

/// How often the flag that asks to stop is read.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The limit has passed.
    TimedOut(Duration),
    /// The process could not be started, or ended before its answer.
    Failed(String),
}

impl NoAnswer {
    fn failed(why: impl fmt::Display) -> Self {
        Self::Failed(format!("cannot look inside: {why}"))
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// When to stop waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerLimit<'l> {
    /// After this time,
    pub limit: Duration,
    /// or once this is set.
    pub stop: &'l AtomicBool,
}

/// Runs `probe` in the jail at `root` as `user`, and returns its answer.
pub(super) fn ask<P: Probe + Into<Question>>(
    root: &HostPath,
    user: &JailUser,
    probe: P,
    limit: AnswerLimit<'_>,
) -> Result<P::Answer, NoAnswer> {
    let job = Job {
        root: root.clone(),
        who: user.clone(),
        question: probe.into(),
    };
    let job = serde_json::to_vec(&job).map_err(NoAnswer::failed)?;

    let text = run(&job, limit).map_err(NoAnswer::failed)?;
    let text = text.ok_or(NoAnswer::TimedOut(limit.limit))?;

    let reply: Reply = serde_json::from_slice(&text)
        .map_err(|_| NoAnswer::failed("the process inside ended before its answer"))?;
    let answer = reply.map_err(NoAnswer::Failed)?;
    serde_json::from_value(answer).map_err(NoAnswer::failed)
}

/// The output of a process inside that gets `job`; `None` if it takes too long.
fn run(job: &[u8], limit: AnswerLimit<'_>) -> io::Result<Option<Vec<u8>>> {
    let mut process = ProbeProcess::start()?;
    if let Some(mut stdin) = process.0.stdin.take() {
        stdin.write_all(job)?;
    }
    match process.0.stdout.take() {
        Some(stdout) => read(stdout, limit),
        None => Ok(None),
    }
}

/// All that is written until the other end is closed; `None` if that takes too long.
fn read(mut stdout: ChildStdout, limit: AnswerLimit<'_>) -> io::Result<Option<Vec<u8>>> {
    let start = Instant::now();
    let mut text = vec![];
    let mut buffer = vec![0; 64 << 10];

    loop {
        if limit.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped by a signal"));
        }
        let left = limit.limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        if !is_readable(&stdout, left.min(STOP_INTERVAL))? {
            continue;
        }
        match stdout.read(&mut buffer)? {
            0 => return Ok(Some(text)),
            count => text.extend_from_slice(&buffer[..count]),
        }
        if text.len() as u64 > MAX_BYTES {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

/// Waits no longer than `timeout`.
fn is_readable(stdout: &ChildStdout, timeout: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
    let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ready, timeout) {
        Ok(0) | Err(Errno::EINTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The process inside, the first of a PID namespace of its own: when it ends, the kernel also ends
/// all that it started, wherever that tried to hide. Dropped, it is killed.
struct ProbeProcess(Child);

impl ProbeProcess {
    /// The environment is empty: it would be the administrator's, not the daemon's.
    fn start() -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(SUBCOMMAND)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());

        // unshare(2) and setns(2) concern the processes that this thread starts next.
        let own = File::open("/proc/self/ns/pid")?;
        unshare(CloneFlags::CLONE_NEWPID).map_err(|error| {
            let why = error.desc();
            io::Error::other(format!("it gets no PID namespace of its own: {why}"))
        })?;
        let process = command.spawn().map(Self);
        setns(own, CloneFlags::CLONE_NEWPID)?;
        process
    }
}

impl Drop for ProbeProcess {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended by itself
        let start = Instant::now();
        // The kernel lets it be waited for once all others of its namespace are gone.
        while start.elapsed() < KILL_WAIT && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

//! Asks a question inside: starts the process, waits no longer than it may take, and leaves nothing behind.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::inside::{Job, MAX_BYTES, Probe, Reply};
use crate::jail::Who;
use crate::manifest::HostPath;

/// The argument by which this program knows that it is to look inside.
pub const SUBCOMMAND: &str = "probe-inside";

/// How long a killed process may take to be gone: one that waits for a dead disk never is.
const DYING: Duration = Duration::from_secs(1);

/// How soon a signal to stop is heard.
const HEARING: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// It took longer than it may.
    TimedOut(Duration),
    /// The process could not be started or ended before its answer.
    Broken(String),
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience<'p> {
    /// At most this long,
    pub limit: Duration,
    /// and no longer once this is set.
    pub stop: &'p AtomicBool,
}

/// Asks `probe` in the jail at `root` as `who`.
pub(super) fn ask<P: Probe>(
    root: &HostPath,
    who: &Who,
    probe: P,
    patience: Patience<'_>,
) -> Result<P::Answer, Silence> {
    let broken = |why: &dyn std::fmt::Display| Silence::Broken(format!("cannot look inside: {why}"));
    let job = Job { root: root.clone(), who: who.clone(), question: probe.into() };
    let job = serde_json::to_vec(&job).map_err(|error| broken(&error))?;
    let mut running = Running::start().map_err(|error| broken(&error))?;
    if let Some(mut stdin) = running.0.stdin.take() {
        stdin.write_all(&job).map_err(|error| broken(&error))?;
    }
    let text = match running.0.stdout.take() {
        Some(stdout) => read(stdout, patience).map_err(|error| broken(&error))?,
        None => None,
    };
    let text = text.ok_or(Silence::TimedOut(patience.limit))?;
    drop(running);
    let reply: Reply = serde_json::from_slice(&text)
        .map_err(|_| broken(&"the process that looks ended before it had an answer"))?;
    serde_json::from_value(reply.map_err(Silence::Broken)?).map_err(|error| broken(&error))
}

/// All that is written until the other end is closed; `None` if that takes too long.
fn read(mut stdout: ChildStdout, patience: Patience<'_>) -> std::io::Result<Option<Vec<u8>>> {
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

/// The process inside with what it started: a process group. Dropped, none of it is left.
struct Running(Child);

impl Running {
    /// An environment would be the administrator's, not the daemon's.
    fn start() -> std::io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND).env_clear().process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Running {
    /// As long as the leader is not reaped its id, which names the group, is nobody else's.
    fn drop(&mut self) {
        let Ok(id) = i32::try_from(self.0.id()) else { return };
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL); // it may have ended by itself
        let start = Instant::now();
        while start.elapsed() < DYING {
            match waitpid(Pid::from_raw(-id), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(1)),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return, // nobody is left
            }
        }
    }
}

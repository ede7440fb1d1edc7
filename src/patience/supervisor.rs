//! Two processes per command: the worker does the work, and the supervisor, which the caller
//! started, never asks a file system anything.
//!
//! A thread that waits for a server which does not answer cannot be ended, and neither can its
//! process: whoever waits for that process hangs, too. So the supervisor ends as soon as the worker
//! tells it to. Before that, the worker closes whatever others could wait for: the standard streams
//! and locks. The kernel ends the rest of the worker when the server answers; it does nothing more.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, getpid};
use sd_notify::NotifyState;

use super::worker::{self, Supervisor, WorkerEnd, message};
use crate::sys::proc;
use crate::{Error, sys};

/// The signals that the supervisor passes on to the worker.
pub(super) const FORWARDED: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// After a signal, how often the supervisor checks whether the worker is about to end.
const PERIOD: Duration = Duration::from_millis(250);

/// How long a worker that was sent a signal may take to end.
const DYING: Duration = Duration::from_secs(5);

/// The first signal that the supervisor got.
#[derive(Clone, Copy)]
pub(super) struct FirstSignal {
    pub signal: Signal,
    since: Instant,
}

/// The longest message between the two.
pub(super) const MESSAGE: usize = 64 << 10;

/// How the supervisor ends.
enum SupervisorEnd {
    /// With what the worker left.
    Worker(WorkerEnd),
    /// By the same signal as the worker.
    Signal(Signal),
}

/// Runs `command` in a worker, and returns in the supervisor how it ended. The calling process must
/// have one thread.
///
/// `report` shows an error to the administrator, and returns the exit code. `limit`: how long the
/// command may wait for a file system, where it waits for no single site.
///
/// Errors: the processes cannot communicate.
pub(crate) fn run(
    report: &dyn Fn(&Error) -> u8,
    limit: Option<Duration>,
    command: impl FnOnce() -> u8 + Send + 'static,
) -> io::Result<WorkerEnd> {
    let (line, to_supervisor) = UnixDatagram::pair()?;
    let (supervisor, mask) = (getpid(), SigSet::thread_get_mask()?);
    let signals: SigSet = FORWARDED.into_iter().chain([Signal::SIGCHLD]).collect();
    signals.thread_block()?;

    let Ok(child) = sys::fork() else {
        // No more processes can be started: this one does the work itself, and waits for servers
        // that do not answer.
        mask.thread_set_mask()?;
        return Ok(worker::run_unsupervised(command));
    };
    let Some(worker) = child else {
        drop(line);
        let _ = mask.thread_set_mask(); // it was valid before
        worker::run(
            Supervisor::parent(supervisor, to_supervisor),
            report,
            limit,
            command,
        )
    };

    drop(to_supervisor);
    // A working directory keeps a file system from being unmounted.
    let _ = chdir("/");
    let end = supervise(worker, &line, &signals);
    mask.thread_set_mask()?;
    Ok(match end? {
        SupervisorEnd::Worker(end) => end,
        SupervisorEnd::Signal(signal) => die_by(signal),
    })
}

/// Waits until the worker ends or tells how to end, and passes signals and messages on.
fn supervise(worker: Pid, line: &UnixDatagram, signals: &SigSet) -> io::Result<SupervisorEnd> {
    let arriving = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    line.set_nonblocking(true)?;
    let (mut first_signal, mut handed_over) = (None, None);
    loop {
        let mut fds = [
            PollFd::new(line.as_fd(), PollFlags::POLLIN),
            PollFd::new(arriving.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout_after(first_signal)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }

        // In this order: the SIGCHLD of its end, the end itself, the messages sent before it.
        forward_signals(&arriving, Some(worker), &mut first_signal);
        let status = waitpid(worker, Some(WaitPidFlag::WNOHANG));
        if let Some(end) = read_messages(line, &mut handed_over) {
            return Ok(end);
        }

        match status {
            Ok(WaitStatus::Exited(_, code)) => {
                let code = u8::try_from(code).unwrap_or(1);
                return Ok(SupervisorEnd::Worker(worker_end(code, handed_over)));
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(SupervisorEnd::Signal(signal)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }

        if let Some(first) = first_signal
            && first.is_survived_by(worker)
        {
            return Ok(SupervisorEnd::Signal(first.signal));
        }
    }
}

impl FirstSignal {
    /// Whether the worker cannot end, although it was sent the signal long ago: a fatal signal does
    /// not end it while the kernel holds one of its threads.
    pub(super) fn is_survived_by(self, worker: Pid) -> bool {
        self.since.elapsed() > DYING && is_ending(worker)
    }
}

/// How long the supervisor may sleep.
pub(super) fn timeout_after(first_signal: Option<FirstSignal>) -> PollTimeout {
    match first_signal {
        Some(_) => PollTimeout::try_from(PERIOD).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    }
}

/// How a worker with this exit code ended, after it handed this over.
fn worker_end(code: u8, handed_over: Option<Vec<u8>>) -> WorkerEnd {
    match handed_over {
        Some(handed_over) if code == 0 => WorkerEnd::HandOver(handed_over),
        _ => WorkerEnd::Exit(code),
    }
}

/// Sends the signals that arrived on to the worker, if it is known, and keeps the first one with
/// its time.
pub(super) fn forward_signals(
    arriving: &SignalFd,
    worker: Option<Pid>,
    first_signal: &mut Option<FirstSignal>,
) {
    while let Ok(Some(info)) = arriving.read_signal() {
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        let Ok(signal) = Signal::try_from(number) else {
            continue;
        };
        if signal == Signal::SIGCHLD {
            continue;
        }
        // A terminal sends its signals to both processes.
        if let Some(worker) = worker
            && info.ssi_code != libc::SI_KERNEL
        {
            let _ = kill(worker, signal); // it may have ended just now
        }
        let since = Instant::now();
        first_signal.get_or_insert(FirstSignal { signal, since });
    }
}

/// Takes the worker's messages in. Returns how the supervisor is to end, if one of them tells.
fn read_messages(line: &UnixDatagram, handed_over: &mut Option<Vec<u8>>) -> Option<SupervisorEnd> {
    let mut buffer = vec![0; MESSAGE];
    while let Ok(length) = line.recv(&mut buffer) {
        match &buffer[..length] {
            [message::EXIT, code] => {
                return Some(SupervisorEnd::Worker(worker_end(*code, handed_over.take())));
            }
            [message::DIE_BY, number] => {
                let signal = Signal::try_from(i32::from(*number));
                return Some(match signal {
                    Ok(signal) => SupervisorEnd::Signal(signal),
                    Err(_) => SupervisorEnd::Worker(WorkerEnd::Exit(1)),
                });
            }
            [message::NOTIFY, text @ ..] => {
                let text = String::from_utf8_lossy(text);
                let _ = sd_notify::notify(&[NotifyState::Custom(&text)]);
            }
            [message::HAND_OVER, what @ ..] => *handed_over = Some(what.to_vec()),
            _ => {}
        }
    }
    None
}

/// Whether the process is ending: its first thread has ended.
fn is_ending(process: Pid) -> bool {
    let process = u32::try_from(process.as_raw()).unwrap_or(0);
    matches!(proc::state(&proc::of(process)), Some('Z' | 'X'))
}

/// Ends this process by `signal`, as the worker ended; returns if that signal ends nothing.
fn die_by(signal: Signal) -> WorkerEnd {
    if signal != Signal::SIGKILL {
        let _ = SigSet::from(signal).thread_unblock();
    }
    let _ = raise(signal);
    WorkerEnd::Exit(u8::try_from(128 + signal as i32).unwrap_or(1))
}

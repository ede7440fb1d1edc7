//! A supervisor that becomes another program afterwards, and leaves no trace of its worker to it:
//! the worker is not its child, and nothing of this process is changed for good.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

use super::supervisor::{FORWARDED, FirstSignal, MESSAGE, forward_signals, timeout_after};
use super::worker::{self, Supervisor, message};
use crate::{Error, sys};

/// The remains of a worker.
#[derive(Debug, Default)]
pub(crate) struct ApartEnd {
    /// Its exit code; `None`: it ended without one.
    pub code: Option<u8>,
    /// The last bytes that it handed over.
    pub handed_over: Option<Vec<u8>>,
    /// The signal that this process got meanwhile.
    signal: Option<Signal>,
}

impl ApartEnd {
    /// Lets the signal that came meanwhile act on this process. Most end it.
    pub(crate) fn take_signal(&mut self) {
        if let Some(signal) = self.signal.take() {
            let _ = raise(signal); // there is such a signal
        }
    }
}

/// Runs `command` in a worker that is nobody's child, and waits until it ends or tells how to go
/// on. A worker that a file system holds is left behind. The calling process must have one thread.
/// `report` shows an error to the administrator, and returns the exit code.
///
/// Errors: no processes can be started, or they cannot communicate; then nothing was done.
pub(crate) fn run(
    report: &dyn Fn(&Error) -> u8,
    limit: Option<Duration>,
    command: impl FnOnce() -> u8 + Send + 'static,
) -> io::Result<ApartEnd> {
    let (line, to_supervisor) = UnixDatagram::pair()?;
    let (exists, held) = UnixStream::pair()?;
    let (supervisor, mask) = (getpid(), SigSet::thread_get_mask()?);
    let signals = caught_signals();
    signals.thread_block()?;

    let forked = sys::fork();
    if let Ok(None) = forked {
        drop((line, exists));
        let worker = sys::fork();
        if let Ok(None) = worker {
            let _ = mask.thread_set_mask(); // it was valid before
            let supervisor = Supervisor::apart(supervisor, to_supervisor, held);
            worker::run(supervisor, report, limit, command);
        }
        sys::leave(match worker {
            Ok(Some(pid)) => tell_pid(&to_supervisor, pid),
            _ => 1,
        });
    }
    drop((to_supervisor, held));
    let end = match forked {
        Ok(Some(child)) => {
            let _ = waitpid(child, None); // it tells nothing by its exit code
            Waiting::new(line, exists, &signals).and_then(Waiting::wait)
        }
        Ok(None) => Err(Errno::ECHILD.into()), // both children have left
        Err(error) => Err(error),
    };
    mask.thread_set_mask()?;
    end
}

/// SIGCHLD and the signals that are passed on. Those that this process ignores stay ignored.
fn caught_signals() -> SigSet {
    let mut caught = SigSet::from(Signal::SIGCHLD);
    for signal in FORWARDED {
        if !sys::is_ignored(signal as i32) {
            caught.add(signal);
        }
    }
    caught
}

fn tell_pid(supervisor: &UnixDatagram, pid: Pid) -> u8 {
    let text = [&[message::PID], pid.to_string().as_bytes()].concat();
    u8::from(supervisor.send(&text).is_err())
}

/// The events that the supervisor waits for.
struct Waiting {
    line: UnixDatagram,
    /// It is at its end when the worker does not exist any more.
    exists: UnixStream,
    arriving: SignalFd,
    worker: Option<Pid>,
    first_signal: Option<FirstSignal>,
    end: ApartEnd,
}

impl Waiting {
    fn new(line: UnixDatagram, exists: UnixStream, signals: &SigSet) -> io::Result<Self> {
        line.set_nonblocking(true)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            line,
            exists,
            arriving: SignalFd::with_flags(signals, flags)?,
            worker: None,
            first_signal: None,
            end: ApartEnd::default(),
        })
    }

    fn wait(mut self) -> io::Result<ApartEnd> {
        loop {
            let has_ended = self.sleep()?;
            let tells_to_go_on = self.read_messages();
            forward_signals(&self.arriving, self.worker, &mut self.first_signal);
            if tells_to_go_on || has_ended || self.is_held_while_ending() {
                self.end.signal = self.first_signal.map(|first| first.signal);
                return Ok(self.end);
            }
        }
    }

    /// Waits until something happens; returns whether the worker does not exist any more.
    fn sleep(&self) -> io::Result<bool> {
        let fds = [
            self.exists.as_fd(),
            self.line.as_fd(),
            self.arriving.as_fd(),
        ];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout_after(self.first_signal)) {
            Ok(_) => Ok(fds[0].any() == Some(true)),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the worker's messages in; returns whether one of them says that it is over.
    fn read_messages(&mut self) -> bool {
        let mut buffer = vec![0; MESSAGE];
        while let Ok(length) = self.line.recv(&mut buffer) {
            match &buffer[..length] {
                [message::EXIT, code] => {
                    self.end.code = Some(*code);
                    return true;
                }
                [message::DIE_BY, _] => return true,
                [message::CODE, code] => self.end.code = Some(*code),
                [message::HAND_OVER, what @ ..] => self.end.handed_over = Some(what.to_vec()),
                [message::PID, digits @ ..] => {
                    let pid = str::from_utf8(digits)
                        .ok()
                        .and_then(|text| text.parse().ok());
                    self.worker = pid.map(Pid::from_raw);
                }
                _ => {}
            }
        }
        false
    }

    fn is_held_while_ending(&self) -> bool {
        match (self.first_signal, self.worker) {
            (Some(first), Some(worker)) => first.is_survived_by(worker),
            _ => false,
        }
    }
}

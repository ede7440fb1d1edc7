//! Two processes: one that works, and one in front of it, which was started by the caller and asks
//! no file system anything.
//!
//! A thread that waits for a server which does not answer cannot be ended, and neither can its
//! process: whoever waits for that one waits as well. So the process in front ends when the other
//! one tells it to, which closes before that what anybody could wait for: the standard streams, and
//! locks. What is left of it is ended by the kernel whenever the server answers, without doing
//! anything more.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, getpid, getppid, gettid};
use sd_notify::NotifyState;
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::base::sync::lock;
use crate::patience::{self, Glimpse, LAST_WAIT, Silence, Sleep};
use crate::{Error, sys};

/// What the working process hears of from the one in front.
const FORWARDED: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// What ends a command that has nothing to leave off.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// How often the working thread is looked at, at most: while it waits for nothing that can be
/// silent, it is looked at less and less.
const PERIOD: Duration = Duration::from_millis(250);
const LONGEST_PERIOD: Duration = Duration::from_secs(4);

/// How long a process that was sent a signal may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// Of the thread that works, as the first thread of a process has it.
const STACK: usize = 8 << 20;

/// The exit code of a program that panicked.
const PANIC: u8 = 101;

/// The longest message between the two.
const MESSAGE: usize = 64 << 10;

/// In the working process: the way to the one in front.
static FRONT: OnceLock<Front> = OnceLock::new();

/// Whether the command leaves off by itself when a signal asks for it.
static IS_POLITE: AtomicBool = AtomicBool::new(false);

/// The command waits for something that may never come, and nobody need look after it.
static RESTS: AtomicBool = AtomicBool::new(false);

/// What wakes up who looks after the command.
static WAKE: OnceLock<UnixStream> = OnceLock::new();

/// Without a process in front: what this one is to go on with.
static GO: Mutex<Option<Vec<u8>>> = Mutex::new(None);

struct Front {
    pid: Pid,
    line: UnixDatagram,
}

/// The messages to the process in front, told by their first byte.
mod message {
    /// End with the exit code that follows.
    pub const CODE: u8 = b'c';
    /// End by the signal that follows.
    pub const SIGNAL: u8 = b's';
    /// Tell the service manager this.
    pub const NOTIFY: u8 = b'n';
    /// Go on yourself, with this.
    pub const GO: u8 = b'g';
}

/// What the process in front is to do.
pub(crate) enum Told {
    /// End with this exit code.
    Code(u8),
    /// Go on, with what the working process found out.
    Go(Vec<u8>),
}

/// Runs `command` in a process of its own, and gives, in this one, what is to be done then. This
/// process must have one thread. `report` shows an error to the administrator. `limit`: how long the command may wait for a file system where no
/// site is given up for it.
///
/// Errors: the processes cannot hear of each other.
pub(crate) fn run(
    report: &dyn Fn(&Error),
    limit: Option<Duration>,
    command: impl FnOnce() -> u8 + Send + 'static,
) -> io::Result<Told> {
    let (line, to_front) = UnixDatagram::pair()?;
    let (front, before) = (getpid(), SigSet::thread_get_mask()?);
    let signals: SigSet = FORWARDED.into_iter().chain([Signal::SIGCHLD]).collect();
    signals.thread_block()?;
    let Ok(worker) = sys::fork() else {
        // There can be no more processes: this one does the work, and waits for what does not
        // answer.
        before.thread_set_mask()?;
        return Ok(alone(command));
    };
    let Some(worker) = worker else {
        drop(line);
        let _ = FRONT.set(Front {
            pid: front,
            line: to_front,
        }); // it is a new process
        let _ = before.thread_set_mask(); // it was valid before
        work(report, limit, command)
    };
    drop(to_front);
    // A working directory keeps a file system from being unmounted.
    let _ = chdir("/");
    let told = wait(worker, &line, &signals);
    before.thread_set_mask()?;
    match told? {
        (Some(signal), _) => Ok(die_by(signal)),
        (None, told) => Ok(told),
    }
}

/// Runs `command` in this process.
fn alone(command: impl FnOnce() -> u8) -> Told {
    let code = command();
    let go = lock(&GO).take();
    go.filter(|_| code == 0).map_or(Told::Code(code), Told::Go)
}

/// In front: waits until the other process ends or says how to end, and passes signals on.
fn wait(worker: Pid, line: &UnixDatagram, signals: &SigSet) -> io::Result<(Option<Signal>, Told)> {
    let arriving = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    line.set_nonblocking(true)?;
    let (mut last_signal, mut go) = (None, None);
    let mut buffer = vec![0; MESSAGE];
    loop {
        let timeout = if last_signal.is_some() {
            PollTimeout::try_from(PERIOD).unwrap_or(PollTimeout::MAX)
        } else {
            PollTimeout::NONE
        };
        let mut fds = [
            PollFd::new(line.as_fd(), PollFlags::POLLIN),
            PollFd::new(arriving.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // In this order: the signal that tells of its end, the end, what it said before.
        while let Ok(Some(signal)) = arriving.read_signal() {
            let Some(name) = i32::try_from(signal.ssi_signo)
                .ok()
                .and_then(|signal| Signal::try_from(signal).ok())
            else {
                continue;
            };
            if name == Signal::SIGCHLD {
                continue;
            }
            // What a terminal sends, it sends to both.
            if signal.ssi_code != libc::SI_KERNEL {
                let _ = kill(worker, name); // it may have ended just now
            }
            last_signal.get_or_insert((name, Instant::now()));
        }
        let ended = waitpid(worker, Some(WaitPidFlag::WNOHANG));
        while let Ok(length) = line.recv(&mut buffer) {
            match &buffer[..length] {
                [message::CODE, code] => return Ok((None, Told::Code(*code))),
                [message::SIGNAL, signal] => {
                    return Ok((Signal::try_from(i32::from(*signal)).ok(), Told::Code(1)));
                }
                [message::NOTIFY, text @ ..] => {
                    let _ =
                        sd_notify::notify(&[NotifyState::Custom(&String::from_utf8_lossy(text))]);
                }
                [message::GO, what @ ..] => go = Some(what.to_vec()),
                _ => {}
            }
        }
        match ended {
            Ok(WaitStatus::Exited(_, code)) => {
                let code = u8::try_from(code).unwrap_or(1);
                return Ok((
                    None,
                    go.filter(|_| code == 0).map_or(Told::Code(code), Told::Go),
                ));
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok((Some(signal), Told::Code(1))),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // A signal that ends it at once cannot end it while the kernel holds one of its threads.
        if let Some((signal, since)) = last_signal
            && since.elapsed() > DYING
            && is_ending(worker)
        {
            return Ok((Some(signal), Told::Code(1)));
        }
    }
}

/// Whether the process is on its way out: its first thread has ended.
fn is_ending(worker: Pid) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{worker}/stat"));
    text.is_ok_and(|text| {
        text.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// Ends this process as the other one was; returns if that signal ends nobody.
fn die_by(signal: Signal) -> Told {
    if signal != Signal::SIGKILL {
        let _ = SigSet::from(signal).thread_unblock();
    }
    let _ = raise(signal);
    Told::Code(u8::try_from(128 + signal as i32).unwrap_or(1))
}

/// In the working process: the command in a thread, and in this one somebody who looks after that.
fn work(
    report: &dyn Fn(&Error),
    limit: Option<Duration>,
    command: impl FnOnce() -> u8 + Send + 'static,
) -> ! {
    // Not SIGKILL: that would leave locks held by a thread that cannot be ended.
    let _ = set_pdeathsig(Signal::SIGTERM); // there is such a signal
    if getppid() != pid() {
        sys::leave(1); // it ended already
    }
    match look_after(report, limit, command) {
        Ok(code) if !patience::leaves_threads_behind() => std::process::exit(code.into()),
        Ok(code) => leave(&[message::CODE, code]),
        Err(error) => {
            report(&Error::failed("cannot start to work").because(&error));
            sys::leave(1)
        }
    }
}

/// Runs `command` in a thread until it ends, is silent for too long, or a signal ends it; gives its
/// exit code.
fn look_after(
    report: &dyn Fn(&Error),
    limit: Option<Duration>,
    command: impl FnOnce() -> u8 + Send + 'static,
) -> io::Result<u8> {
    let (mut result, mut tell) = UnixStream::pair()?;
    let mut signals = Signals::catch()?;
    let (mut woken, wake) = UnixStream::pair()?;
    woken.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    let _ = WAKE.set(wake); // it is the first
    let (tell_id, id) = mpsc::channel();
    thread::Builder::new()
        .name("command".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let _ = tell_id.send(gettid());
            let _ = tell.write_all(&[command()]);
        })?;
    let mut look = Look::at(id.recv().map_err(io::Error::other)?, limit);
    loop {
        let fds = [result.as_fd(), signals.pipe.as_fd(), woken.as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let timeout = if RESTS.load(Ordering::SeqCst) {
            PollTimeout::NONE
        } else {
            PollTimeout::try_from(look.period).unwrap_or(PollTimeout::MAX)
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [ended, signal, _] = fds.map(|fd| fd.any() == Some(true));
        while woken.read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
        if ended {
            let mut code = [PANIC];
            let _ = result.read(&mut code); // nothing, after a panic
            return Ok(code[0]);
        }
        if signal {
            let signal = signals.take();
            if !IS_POLITE.load(Ordering::SeqCst) {
                leave(&[message::SIGNAL, signal]);
            }
            look.limit = Some(look.limit.map_or(LAST_WAIT, |limit| limit.min(LAST_WAIT)));
        }
        if let Some(silence) = look.again() {
            report(&silence.error());
            leave(&[message::CODE, 1]);
        }
    }
}

/// The signals that end a command, as something to wait for. The first thread gets them, whatever
/// the others wait for.
struct Signals {
    pipe: UnixStream,
    last: Arc<AtomicUsize>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let (pipe, tell) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let last = Arc::new(AtomicUsize::new(0));
        for signal in ENDING.map(|signal| signal as i32) {
            if !sys::is_ignored(signal) {
                // The number is set before the pipe tells of it.
                flag::register_usize(signal, last.clone(), usize::try_from(signal).unwrap_or(0))?;
                pipe::register(signal, tell.try_clone()?)?;
            }
        }
        Ok(Self { pipe, last })
    }

    /// The last one that came.
    fn take(&mut self) -> u8 {
        while self.pipe.read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
        u8::try_from(self.last.load(Ordering::SeqCst)).unwrap_or(0)
    }
}

/// Looks at the working thread from time to time.
struct Look {
    thread: Pid,
    sleep: Sleep,
    limit: Option<Duration>,
    /// When to look next.
    period: Duration,
}

impl Look {
    fn at(thread: Pid, limit: Option<Duration>) -> Self {
        Self {
            thread,
            sleep: Sleep::default(),
            limit,
            period: PERIOD,
        }
    }

    /// What it has waited for too long, if it has. Only file systems count: it may wait for
    /// signals, for processes that it started, and for its own threads as long as these take.
    fn again(&mut self) -> Option<Silence> {
        let awake = self.sleep.look(Glimpse::of(self.thread)?, Instant::now());
        let path = if awake {
            None
        } else {
            patience::asked_by(self.thread)
        };
        if path.is_none() {
            self.sleep.forgive();
        }
        self.period = if awake || path.is_some() {
            PERIOD
        } else {
            (self.period * 2).min(LONGEST_PERIOD)
        };
        let limit = self.limit.filter(|limit| self.sleep.exceeds(*limit))?;
        Some(Silence { path, limit })
    }
}

/// The process that the caller started: this one, or the one in front of it.
pub(crate) fn pid() -> Pid {
    FRONT.get().map_or_else(getpid, |front| front.pid)
}

/// The command ends by itself, soon, when a signal asks for it.
pub(crate) fn leaves_off_by_itself() {
    IS_POLITE.store(true, Ordering::SeqCst);
}

/// Waits by `wait` for what may never come. Meanwhile nobody looks after this thread.
pub(crate) fn rest<T>(wait: impl FnOnce() -> T) -> T {
    RESTS.store(true, Ordering::SeqCst);
    let result = wait();
    RESTS.store(false, Ordering::SeqCst);
    if let Some(mut wake) = WAKE.get() {
        let _ = wake.write(&[0]); // if it is full, that one wakes up anyway
    }
    result
}

/// Tells the service manager, which listens to the process in front alone.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    let text: Vec<_> = states.iter().map(ToString::to_string).collect();
    tell(&[&[message::NOTIFY], text.join("\n").as_bytes()].concat());
}

/// How often the service manager wants to hear of the process in front: `sd_watchdog_enabled(3)`.
pub(crate) fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let of_another =
        number("WATCHDOG_PID").is_some_and(|of| i64::try_from(of) != Ok(pid().as_raw().into()));
    number("WATCHDOG_USEC")
        .filter(|_| !of_another)
        .map(Duration::from_micros)
}

/// Has the process in front go on with `what`, once this one has ended with the exit code 0.
pub(crate) fn go(what: &[u8]) {
    if FRONT.get().is_none() {
        *lock(&GO) = Some(what.to_vec());
    }
    tell(&[&[message::GO], what].concat());
}

fn tell(message: &[u8]) {
    if let Some(front) = FRONT.get() {
        let _ = front.line.send(message); // if nobody hears it, this process is about to be ended
    }
}

/// Ends this process, in which a thread may hang, after it let go of all that others may wait for,
/// and told the process in front how to end.
fn leave(last_words: &[u8]) -> ! {
    let line = FRONT.get().map(|front| front.line.as_raw_fd());
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let kept = [line, Some(null.as_raw_fd())];
        for fd in harmless()
            .into_iter()
            .filter(|fd| !kept.contains(&Some(*fd)))
        {
            sys::abandon(fd, null.as_fd());
        }
    }
    tell(last_words);
    sys::leave(1)
}

/// The descriptors whose closing asks no server. That is what a file may need which was opened to
/// be read.
fn harmless() -> Vec<RawFd> {
    let all = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let all: Vec<RawFd> = all
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let only_reads = |fd: RawFd| {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = text
            .lines()
            .find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        flags.is_none_or(|flags| flags & (libc::O_ACCMODE | libc::O_PATH) == libc::O_RDONLY)
    };
    let is_a_file = |fd: RawFd| {
        std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|path| path.is_absolute())
    };
    all.into_iter()
        .filter(|fd| *fd <= 2 || !is_a_file(*fd) || !only_reads(*fd))
        .collect()
}

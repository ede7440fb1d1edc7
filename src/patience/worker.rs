//! The worker of a [`supervisor`](super::supervisor): the command runs in a thread, and the first
//! thread watches that one.

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
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid, gettid};
use sd_notify::NotifyState;
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::base::sync::lock;
use crate::patience::{self, Glimpse, LAST_WAIT, Silence, Sleep, question};
use crate::sys::proc;
use crate::{Error, sys};

/// The signals that end a command which does not handle them.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// How often the command's thread is looked at. The period grows while it waits for nothing that
/// can be silent.
const PERIOD: Duration = Duration::from_millis(250);
const LONGEST_PERIOD: Duration = Duration::from_secs(4);

/// The stack of the command's thread: as large as that of a process's first thread.
const STACK: usize = 8 << 20;

/// The exit code of a program that panicked.
const PANIC: u8 = 101;

/// The supervisor of this worker.
static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();

/// Whether the command itself stops when a signal asks it to.
static STOPS_ON_SIGNALS: AtomicBool = AtomicBool::new(false);

/// The number of the signal that came last, of those that end a command.
static LAST_SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// The command waits for something that may never happen, and need not be watched.
static IS_IDLE: AtomicBool = AtomicBool::new(false);

/// Wakes up the thread that watches the command.
static WAKE: OnceLock<UnixStream> = OnceLock::new();

/// Without a supervisor: what [`hand_over`] was given.
static HANDED_OVER: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// The process that waits for this one.
pub(super) struct Supervisor {
    pid: Pid,
    line: UnixDatagram,
    /// For a supervisor that is not the parent: it is open as long as this process exists.
    held: Option<UnixStream>,
}

impl Supervisor {
    /// The parent of this process, which it must not outlive.
    pub(super) fn parent(pid: Pid, line: UnixDatagram) -> Self {
        Self {
            pid,
            line,
            held: None,
        }
    }

    /// A process that may become another program while this one exists.
    pub(super) fn apart(pid: Pid, line: UnixDatagram, held: UnixStream) -> Self {
        Self {
            pid,
            line,
            held: Some(held),
        }
    }
}

/// How the worker ended.
pub(crate) enum WorkerEnd {
    /// With this exit code.
    Exit(u8),
    /// Successfully, after [`hand_over`] of what the supervisor goes on with.
    HandOver(Vec<u8>),
}

/// The messages to the supervisor, by their first byte.
pub(super) mod message {
    /// End with the exit code that follows.
    pub(crate) const EXIT: u8 = b'x';
    /// End by the signal that follows.
    pub(crate) const DIE_BY: u8 = b's';
    /// Tell the service manager what follows.
    pub(crate) const NOTIFY: u8 = b'n';
    /// Go on with what follows, once the worker has ended successfully.
    pub(crate) const HAND_OVER: u8 = b'h';
    /// The exit code follows, with which the worker ends now.
    pub(crate) const CODE: u8 = b'c';
    /// The worker's pid follows, in decimal digits.
    pub(crate) const PID: u8 = b'p';
}

/// The worker: runs `command`, and ends.
pub(super) fn run(
    supervisor: Supervisor,
    report: &dyn Fn(&Error) -> u8,
    limit: Option<Duration>,
    command: impl FnOnce() -> u8 + Send + 'static,
) -> ! {
    let parent = supervisor.held.is_none().then_some(supervisor.pid);
    let _ = SUPERVISOR.set(supervisor); // this process is new
    if let Some(parent) = parent {
        // Not SIGKILL: that would leave locks held by a thread that cannot be ended.
        let _ = set_pdeathsig(Signal::SIGTERM); // there is such a signal
        if getppid() != parent {
            sys::leave(1); // it has ended already
        }
    }
    match run_and_watch(report, limit, command) {
        Ok(code) if !patience::leaves_threads_behind() => {
            if parent.is_none() {
                send(&[message::CODE, code]);
            }
            std::process::exit(code.into())
        }
        Ok(code) => leave(&[message::EXIT, code]),
        Err(error) => {
            let cannot = Error::failed("cannot start to work").because(&error);
            sys::leave(report(&cannot))
        }
    }
}

/// Runs `command` in this process, which has no supervisor.
pub(super) fn run_unsupervised(command: impl FnOnce() -> u8) -> WorkerEnd {
    let code = command();
    let handed_over = lock(&HANDED_OVER).take();
    match handed_over {
        Some(handed_over) if code == 0 => WorkerEnd::HandOver(handed_over),
        _ => WorkerEnd::Exit(code),
    }
}

/// Runs `command` in a thread until it ends, is silent for too long, or a signal ends it; gives its
/// exit code.
fn run_and_watch(
    report: &dyn Fn(&Error) -> u8,
    limit: Option<Duration>,
    command: impl FnOnce() -> u8 + Send + 'static,
) -> io::Result<u8> {
    let (mut result, to_result) = UnixStream::pair()?;
    let mut signals = EndingSignals::catch()?;
    let (mut woken, wake) = UnixStream::pair()?;
    woken.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    let _ = WAKE.set(wake); // it is the first
    let thread = start(command, to_result)?;
    let mut watched = WatchedThread::new(thread, limit);

    loop {
        let fds = [result.as_fd(), signals.pipe.as_fd(), woken.as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let timeout = if IS_IDLE.load(Ordering::SeqCst) {
            PollTimeout::NONE
        } else {
            PollTimeout::try_from(watched.period).unwrap_or(PollTimeout::MAX)
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [ended, signal, _] = fds.map(|fd| fd.any() == Some(true));
        drain(&mut woken);

        if ended {
            let mut code = [PANIC];
            let _ = result.read(&mut code); // nothing, after a panic
            return Ok(code[0]);
        }
        if signal {
            let signal = signals.take();
            if !STOPS_ON_SIGNALS.load(Ordering::SeqCst) {
                leave(&[message::DIE_BY, signal]);
            }
            let limit = watched.limit.unwrap_or(LAST_WAIT);
            watched.limit = Some(limit.min(LAST_WAIT));
        }
        if let Some(silence) = watched.silence() {
            leave(&[message::EXIT, report(&silence.error())]);
        }
    }
}

/// Starts `command` in a thread, which writes its exit code to `result`; gives the thread's id.
fn start(command: impl FnOnce() -> u8 + Send + 'static, mut result: UnixStream) -> io::Result<Pid> {
    let (send_id, id) = mpsc::channel();
    thread::Builder::new()
        .name("command".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let _ = send_id.send(gettid());
            let _ = result.write_all(&[command()]);
        })?;
    id.recv().map_err(io::Error::other)
}

fn drain(stream: &mut UnixStream) {
    while stream.read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
}

/// The signals that end a command, as something to wait for. The worker's first thread gets them,
/// whatever its other threads wait for.
struct EndingSignals {
    pipe: UnixStream,
}

impl EndingSignals {
    fn catch() -> io::Result<Self> {
        let (pipe, to_pipe) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let last = LAST_SIGNAL.get_or_init(Arc::default);
        for signal in ENDING.map(|signal| signal as i32) {
            if !sys::is_ignored(signal) {
                // The number is set before the pipe can be read.
                let number = usize::try_from(signal).unwrap_or(0);
                flag::register_usize(signal, last.clone(), number)?;
                pipe::register(signal, to_pipe.try_clone()?)?;
            }
        }
        Ok(Self { pipe })
    }

    /// The signal that came last.
    fn take(&mut self) -> u8 {
        drain(&mut self.pipe);
        u8::try_from(last_signal().unwrap_or(0)).unwrap_or(0)
    }
}

/// The command's thread, as it is seen from outside from time to time.
struct WatchedThread {
    thread: Pid,
    sleep: Sleep,
    limit: Option<Duration>,
    /// How long until the next look.
    period: Duration,
}

impl WatchedThread {
    fn new(thread: Pid, limit: Option<Duration>) -> Self {
        Self {
            thread,
            sleep: Sleep::default(),
            limit,
            period: PERIOD,
        }
    }

    /// Looks at the thread. Returns the file system that it has waited for too long, if there is
    /// one. It may wait for signals, for processes that it started, and for its own threads as long
    /// as these take.
    fn silence(&mut self) -> Option<Silence> {
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
        let limit = self.limit?;
        let asks_server = || path.as_deref().is_some_and(question::is_on_a_server);
        self.sleep
            .exceeds(limit, asks_server)
            .then_some(Silence { path, limit })
    }
}

/// The process that the caller started: this one, or its supervisor. systemd calls it the main
/// process.
pub(crate) fn main_pid() -> Pid {
    match SUPERVISOR.get() {
        Some(supervisor) => supervisor.pid,
        None => getpid(),
    }
}

/// From now on the command itself stops, soon, when a signal asks it to. The command must see the
/// signals already. Returns one that came before that and has not ended the command yet: whoever
/// calls this has to heed it.
#[must_use]
pub(crate) fn stops_on_signals() -> Option<i32> {
    STOPS_ON_SIGNALS.store(true, Ordering::SeqCst);
    last_signal()
}

fn last_signal() -> Option<i32> {
    let last = LAST_SIGNAL.get()?.load(Ordering::SeqCst);
    i32::try_from(last).ok().filter(|last| *last != 0)
}

/// Calls `wait`, which waits for something that may never happen. Meanwhile the thread is not
/// watched.
pub(crate) fn while_idle<T>(wait: impl FnOnce() -> T) -> T {
    IS_IDLE.store(true, Ordering::SeqCst);
    let result = wait();
    IS_IDLE.store(false, Ordering::SeqCst);
    if let Some(mut wake) = WAKE.get() {
        let _ = wake.write(&[0]); // if it is full, that thread wakes up anyway
    }
    result
}

/// Tells the service manager, which accepts messages of the main process only: `sd_notify(3)`.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    let text: Vec<_> = states.iter().map(ToString::to_string).collect();
    send(&[&[message::NOTIFY], text.join("\n").as_bytes()].concat());
}

/// How often the service manager expects a message of the main process: `sd_watchdog_enabled(3)`.
pub(crate) fn watchdog() -> Option<Duration> {
    if let Some(pid) = number_in("WATCHDOG_PID")
        && i64::try_from(pid) != Ok(main_pid().as_raw().into())
    {
        return None; // it is meant for another process
    }
    let interval = number_in("WATCHDOG_USEC").filter(|interval| *interval > 0);
    interval.map(Duration::from_micros)
}

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Has the supervisor go on with `what`, once this process has ended successfully.
pub(crate) fn hand_over(what: &[u8]) {
    if SUPERVISOR.get().is_none() {
        *lock(&HANDED_OVER) = Some(what.to_vec());
    }
    send(&[&[message::HAND_OVER], what].concat());
}

fn send(message: &[u8]) {
    if let Some(supervisor) = SUPERVISOR.get() {
        let _ = supervisor.line.send(message); // without a reader this process is about to be ended
    }
}

/// Ends this process, in which a thread may hang: it closes all that others may wait for, and tells
/// the supervisor how to end.
fn leave(last_message: &[u8]) -> ! {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let mut kept = vec![null.as_raw_fd()];
        if let Some(supervisor) = SUPERVISOR.get() {
            kept.push(supervisor.line.as_raw_fd());
            kept.extend(supervisor.held.as_ref().map(AsRawFd::as_raw_fd));
        }
        for fd in closed_without_a_server() {
            if !kept.contains(&fd) {
                sys::abandon(fd, null.as_fd());
            }
        }
    }
    send(last_message);
    sys::leave(1)
}

/// The descriptors that can be closed without asking a server: all but those of files that are open
/// only for reading.
fn closed_without_a_server() -> Vec<RawFd> {
    let mut descriptors = vec![];
    for fd in proc::own_descriptors().into_iter().flatten() {
        if fd <= 2 || !is_file(fd) || !is_read_only(fd) {
            descriptors.push(fd);
        }
    }
    descriptors
}

fn is_file(fd: RawFd) -> bool {
    match proc::name_of_descriptor(fd) {
        Ok(path) => path.is_absolute(),
        Err(_) => false,
    }
}

/// Also for a descriptor whose flags are not known.
fn is_read_only(fd: RawFd) -> bool {
    match flags_of(fd) {
        Some(flags) => flags & (libc::O_ACCMODE | libc::O_PATH) == libc::O_RDONLY,
        None => true,
    }
}

fn flags_of(fd: RawFd) -> Option<i32> {
    let info = proc::descriptor_info(fd).ok()?;
    i32::from_str_radix(info.get("flags")?, 8).ok()
}

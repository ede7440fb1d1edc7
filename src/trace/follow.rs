//! The loop: each stop of a followed thread is examined, and the thread goes on.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::Pid;

use super::call::{self, PathCall};
use super::miss::Misses;
use super::{lookup, tracee};
use crate::sys::{self, FileId, Resume, SystemCall};
use crate::{Error, Result};

/// How many stops are examined before signals are.
const BATCH: usize = 64;

/// How long to wait for a stop or a signal, and how often to look for new processes.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// How long threads may take to stop at the end of a trace. One that waits for a disk takes longer;
/// it is let go when this process ends.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The signal of a stop at a system call, as `PTRACE_O_TRACESYSGOOD` marks it.
const SYSTEM_CALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// The signals that end a trace.
const STOPS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Follows threads, and collects the paths that those inside a root look up in vain.
pub(crate) struct Follower {
    root: FileId,
    /// The programs that systemd is to execute inside.
    programs: BTreeSet<PathBuf>,
    threads: HashMap<Pid, Thread>,
    /// The files that are open until a followed process executes a program, or ends.
    held: Option<File>,
    /// The command that was started, and how it ended.
    command: Option<Pid>,
    code: Option<u8>,
    result: TraceResult,
    /// Those of [`STOPS`], and SIGCHLD: blocked as long as the follower exists.
    signals: SigSet,
    /// The signal mask before that.
    before: SigSet,
}

#[derive(Debug, Default)]
pub(crate) struct TraceResult {
    pub misses: Misses,
    /// Programs of another architecture, such as 32-bit ones: their system calls have other
    /// numbers.
    pub not_understood: BTreeSet<String>,
}

/// How a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceEnd {
    /// The exit code of the command that was started, if it has ended: 128 and the signal's number,
    /// if one ended it.
    pub code: Option<u8>,
    /// The signal that asked to stop. `None`: everything that was followed has ended.
    pub signal: Option<i32>,
    /// How many threads run on, which were followed so far.
    pub left: usize,
}

/// Where a followed thread is.
#[derive(Clone, Copy, Debug, Default)]
enum Thread {
    /// In no system call, as far as is known.
    #[default]
    Outside,
    /// In a system call that looks up a path, or in another one.
    Within(Option<PathCall>),
}

impl Follower {
    /// A follower without threads. `root`: the directory that is the root of those to examine.
    /// `programs`: what systemd is to execute there; all else that it looks for is its own affair.
    pub(crate) fn new(root: FileId, programs: BTreeSet<PathBuf>) -> Result<Self> {
        if !call::is_known_machine() {
            let why = "the system calls of this machine's architecture are not known";
            return Err(Error::failed(why).hint("`trace` works on x86-64 and aarch64"));
        }
        let mut signals: SigSet = STOPS.into_iter().collect();
        signals.add(Signal::SIGCHLD);
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut before))
            .map_err(|errno| cannot_wait(&errno.into()))?;

        Ok(Self {
            root,
            programs,
            threads: HashMap::new(),
            held: None,
            command: None,
            code: None,
            result: TraceResult::default(),
            signals,
            before,
        })
    }

    /// Starts to follow one thread.
    pub(super) fn seize(&mut self, thread: Pid) -> nix::Result<()> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(thread, options)?;
        self.threads.insert(thread, Thread::default());
        let _ = ptrace::interrupt(thread); // ESRCH: it has ended, which its next stop tells
        Ok(())
    }

    /// Whether this thread is followed.
    pub(crate) fn follows(&self, thread: Pid) -> bool {
        self.threads.contains_key(&thread)
    }

    /// Keeps the file open until a followed process executes a program, or ends.
    pub(crate) fn hold(&mut self, file: File) {
        self.held = Some(file);
    }

    /// How many threads are followed.
    pub(crate) fn count(&self) -> usize {
        self.threads.len()
    }

    /// Starts a command and follows it. `become_it` runs in a new process, with the original signal
    /// mask. It becomes the command, or returns an exit code.
    pub(crate) fn start(&mut self, become_it: impl FnOnce() -> u8) -> Result<()> {
        let cannot = |error: io::Error| Error::failed("cannot start a process").because(&error);
        let (wait, go) = io::pipe().map_err(cannot)?;
        let Some(child) = sys::fork().map_err(cannot)? else {
            drop(go);
            // A byte comes once this process is followed; if none comes, nobody follows it.
            let is_followed = (&wait).read_exact(&mut [0]).is_ok();
            self.restore_signals();
            std::process::exit(if is_followed {
                i32::from(become_it())
            } else {
                1
            });
        };

        self.command = Some(child);
        let seized = self.seize(child);
        if seized.is_ok() {
            (&go).write_all(&[1]).map_err(cannot)?;
            return Ok(());
        }
        drop(go);
        let _ = nix::sys::wait::waitpid(child, None); // it ends by itself
        self.command = None;
        seized.map_err(|error| tracee::refused(child, error))
    }

    /// The exit code of the command that was started, if it has ended.
    pub(crate) fn code(&self) -> Option<u8> {
        self.code
    }

    /// Follows until everything has ended, or a signal asks to stop. Now and then `more` may attach
    /// to further processes. It returns when to call it again, or if there can be no such
    /// processes, `None`: then the trace ends when nothing is left to follow.
    pub(crate) fn follow(
        &mut self,
        mut more: impl FnMut(&mut Self) -> Result<Option<Duration>>,
    ) -> Result<TraceEnd> {
        let mut looked = Instant::now();
        let mut pause = more(self)?;
        loop {
            let busy = self.stops()?;
            let timeout = if busy {
                Duration::ZERO
            } else {
                pause.unwrap_or(PAUSE)
            };
            if self.threads.is_empty() {
                (pause, looked) = (more(self)?, Instant::now());
                if self.threads.is_empty() && pause.is_none() {
                    return Ok(self.end(None));
                }
            }
            match self.signal(timeout)? {
                Some(signal) if signal != Signal::SIGCHLD as i32 => {
                    return Ok(self.end(Some(signal)));
                }
                _ => {}
            }
            if pause.is_some_and(|pause| looked.elapsed() >= pause) {
                (pause, looked) = (more(self)?, Instant::now());
            }
        }
    }

    fn end(&self, signal: Option<i32>) -> TraceEnd {
        TraceEnd {
            code: self.code,
            signal,
            left: self.threads.len(),
        }
    }

    fn signal(&self, timeout: Duration) -> Result<Option<i32>> {
        sys::next_signal(&self.signals, timeout).map_err(|error| cannot_wait(&error))
    }

    /// Examines the stops that there are now. Returns whether there may be more.
    fn stops(&mut self) -> Result<bool> {
        for _ in 0..BATCH {
            let Some((thread, status)) = next_stop()? else {
                return Ok(false);
            };
            if let Some((how, signal)) = self.stop(thread, status)? {
                // ESRCH: it was killed meanwhile, which its next stop tells.
                let _ = sys::resume(thread, how, signal);
            }
        }
        Ok(true)
    }

    /// How the thread goes on; `None`: it has ended.
    fn stop(&mut self, thread: Pid, status: i32) -> Result<Option<(Resume, i32)>> {
        if !libc::WIFSTOPPED(status) {
            self.ended(thread, status);
            return Ok(None);
        }
        let signal = libc::WSTOPSIG(status);
        let resume = match status >> 16 {
            0 if signal == SYSTEM_CALL_STOP => {
                self.at_system_call(thread)?;
                (Resume::UntilSystemCall, 0)
            }
            0 => (Resume::UntilSystemCall, signal),
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => (Resume::Listen, 0),
            event => {
                self.event(thread, event);
                (Resume::UntilSystemCall, 0)
            }
        };
        Ok(Some(resume))
    }

    fn event(&mut self, thread: Pid, event: i32) {
        // A new thread's own first stop can come before or after this event.
        self.threads.entry(thread).or_default();
        if event == libc::PTRACE_EVENT_EXEC {
            self.held = None;
        }
        let Some(other) = message(thread) else {
            return;
        };
        match event {
            // A new thread that has run to its end already is not followed any more.
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE
                if tracee::is_ours(other) =>
            {
                self.threads.entry(other).or_default();
            }
            // The other threads of its process are gone, and it now has the id of the first.
            libc::PTRACE_EVENT_EXEC if other != thread => {
                self.threads.remove(&other);
                self.threads.insert(thread, Thread::default());
            }
            _ => {}
        }
    }

    fn at_system_call(&mut self, thread: Pid) -> Result<()> {
        let state = self.threads.get(&thread).copied().unwrap_or_default();
        if matches!(state, Thread::Within(None)) {
            self.threads.insert(thread, Thread::Outside);
            return Ok(());
        }
        let stop = match sys::system_call(thread) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            stop => stop.map_err(|error| {
                Error::failed("cannot read a process's system calls")
                    .because(&error)
                    .hint("this needs Linux 5.3")
            })?,
        };

        let next = match stop {
            SystemCall::Entry {
                arch,
                number,
                arguments,
            } => Thread::Within(self.entered(thread, arch, number, arguments)),
            SystemCall::Exit { errno: Some(errno) } => {
                if let Thread::Within(Some(call)) = state
                    && call.failure(errno).is_some()
                {
                    self.failed(thread, &call, errno);
                }
                Thread::Outside
            }
            _ => Thread::Outside,
        };
        self.threads.insert(thread, next);
        Ok(())
    }

    fn entered(
        &mut self,
        thread: Pid,
        arch: u32,
        number: u64,
        arguments: [u64; 6],
    ) -> Option<PathCall> {
        if call::is_understood(arch, number) {
            return PathCall::new(number, arguments);
        }
        if lookup::is_inside(thread, self.root) {
            self.result.not_understood.insert(tracee::name(thread));
        }
        None
    }

    fn failed(&mut self, thread: Pid, call: &PathCall, errno: i32) {
        if !lookup::is_inside(thread, self.root) {
            return;
        }
        let Some(mut lookup) = lookup::failed(thread, call, errno) else {
            return;
        };
        if tracee::is_managers(thread) {
            if call.kind.name != "exec" && !self.programs.contains(lookup.path.as_path()) {
                return;
            }
            lookup.call = "exec";
        }
        let program = || (tracee::name(thread), tracee::user(thread));
        self.result.misses.add(lookup, thread.as_raw(), program);
    }

    fn ended(&mut self, thread: Pid, status: i32) {
        self.held = None;
        self.threads.remove(&thread);
        if self.command == Some(thread) {
            let code = if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            };
            self.code = u8::try_from(code).ok();
        }
    }

    /// Lets everything run on without being followed, and returns what was found.
    pub(crate) fn finish(mut self) -> Result<TraceResult> {
        let threads: Vec<_> = self.threads.keys().copied().collect();
        for thread in threads {
            let _ = ptrace::interrupt(thread); // ESRCH: it is ending, which its next stop tells
        }
        let begun = Instant::now();
        while !self.threads.is_empty() && begun.elapsed() < LAST_WAIT {
            while let Some((thread, status)) = next_stop()? {
                self.let_go(thread, status);
            }
            if !self.threads.is_empty() {
                self.signal(Duration::from_millis(100))?;
            }
        }
        Ok(std::mem::take(&mut self.result))
    }

    fn let_go(&mut self, thread: Pid, status: i32) {
        if !libc::WIFSTOPPED(status) {
            self.ended(thread, status);
            return;
        }
        let event = status >> 16;
        self.event(thread, event);

        // The signal is passed on, unless it only stands for a stop.
        let signal = match libc::WSTOPSIG(status) {
            signal if event == 0 && signal != SYSTEM_CALL_STOP => signal,
            _ => 0,
        };
        let _ = sys::resume(thread, Resume::Free, signal); // ESRCH: it was killed
        self.threads.remove(&thread);
    }

    fn restore_signals(&self) {
        // This cannot fail: the kernel gave this mask.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.restore_signals();
    }
}

fn cannot_wait(error: &io::Error) -> Error {
    Error::failed("cannot wait for signals").because(error)
}

fn next_stop() -> Result<Option<(Pid, i32)>> {
    match sys::stopped_or_ended() {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(Error::failed("cannot wait for a process").because(&error)),
        Ok(stop) => Ok(stop),
    }
}

/// The id that comes with a stop at an event.
fn message(thread: Pid) -> Option<Pid> {
    let id = ptrace::getevent(thread).ok()?;
    Some(Pid::from_raw(id.try_into().ok()?))
}

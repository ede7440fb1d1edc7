//! The loop: each stop of a followed thread is looked at, and the thread goes on.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::Pid;

use super::call::{self, PathCall};
use super::miss::Misses;
use super::{attach, lookup};
use crate::sys::{self, FileId, Resume, SystemCall};
use crate::{Error, Result};

/// How many stops are looked at before signals are.
const BATCH: usize = 64;

/// How long nothing may happen before new processes are looked for.
const PAUSE: Duration = Duration::from_secs(1);

/// How long threads may take to stop before they are let go by this process's end, as one that
/// waits for a disk.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The signals that end a trace.
const STOPS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Follows threads and collects what those inside a root look up in vain.
pub struct Follower {
    root: FileId,
    threads: HashMap<Pid, Thread>,
    /// The command that was started, and how it ended.
    command: Option<Pid>,
    code: Option<u8>,
    followed: TraceResult,
    /// Those of [`STOPS`], and SIGCHLD: blocked as long as this lives.
    signals: SigSet,
    before: SigSet,
}

/// What a trace gives.
#[derive(Debug, Default)]
pub struct TraceResult {
    /// What was not found.
    pub misses: Misses,
    /// Programs whose system calls have other numbers than this machine's, such as 32-bit ones.
    pub not_understood: BTreeSet<String>,
}

/// How a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceEnd {
    /// Everything that was followed ended, or the command that was started did, with this exit
    /// code: 128 and the signal's number, if one ended it.
    Ended(Option<u8>),
    /// This signal asked to stop, and what is followed runs on.
    Signal(i32),
}

/// One followed thread, by what it is in.
#[derive(Clone, Copy, Debug, Default)]
enum Thread {
    /// Nothing that is known.
    #[default]
    Outside,
    /// A system call that looks a path up, or another one.
    Within(Option<PathCall>),
}

impl Follower {
    /// One that follows nothing yet. `root` is the directory that counts.
    pub fn new(root: FileId) -> Result<Self> {
        if !call::is_known_machine() {
            return Err(Error::failed(
                "the system calls of this machine's architecture are not known",
            )
            .hint("`trace` knows x86-64 and aarch64"));
        }
        let mut signals: SigSet = STOPS.into_iter().collect();
        signals.add(Signal::SIGCHLD);
        let mut before = SigSet::empty();
        let cannot =
            |error: nix::Error| Error::failed("cannot wait for signals").because(&error.into());
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut before)).map_err(cannot)?;
        let followed = TraceResult::default();
        Ok(Self {
            root,
            threads: HashMap::new(),
            command: None,
            code: None,
            followed,
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
        let _ = ptrace::interrupt(thread); // ESRCH: it ended since, which is its next stop
        Ok(())
    }

    /// Whether this thread is followed.
    pub fn follows(&self, thread: Pid) -> bool {
        self.threads.contains_key(&thread)
    }

    /// How many threads are followed.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Starts a command and follows it: `become_it` runs in a new process, with the signal mask of
    /// before, and gives an exit code if it comes back.
    pub fn start(&mut self, become_it: impl FnOnce() -> u8) -> Result<()> {
        let cannot = |error: io::Error| Error::failed("cannot start a process").because(&error);
        let (wait, go) = io::pipe().map_err(cannot)?;
        let Some(child) = sys::fork().map_err(cannot)? else {
            drop(go);
            // It is followed once the other end was written to; if that was closed, there is nobody
            // to follow it.
            let followed = io::Read::read_exact(&mut &wait, &mut [0]).is_ok();
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None); // it was valid when it was set
            std::process::exit(if followed { i32::from(become_it()) } else { 1 });
        };
        self.command = Some(child);
        let seized = self.seize(child);
        if seized.is_ok() {
            io::Write::write_all(&mut &go, &[1]).map_err(cannot)?;
            return Ok(());
        }
        drop(go);
        let _ = nix::sys::wait::waitpid(child, None); // it ends by itself
        self.command = None;
        seized.map_err(|error| attach::refused(child, error))
    }

    /// Follows until all has ended, or the command has, or a signal asks to stop. Each second
    /// `more` may start to follow further processes, and says whether to wait for such when nothing
    /// is left.
    pub fn follow(&mut self, mut more: impl FnMut(&mut Self) -> bool) -> Result<TraceEnd> {
        let mut looked = Instant::now();
        loop {
            let busy = self.stops()?;
            let timeout = if busy { Duration::ZERO } else { PAUSE };
            if self.code.is_some() {
                return Ok(TraceEnd::Ended(self.code)); // what the command left running is nobody's concern
            }
            if self.threads.is_empty() && !more(self) {
                return Ok(TraceEnd::Ended(self.code));
            }
            match self.signal(timeout)? {
                Some(signal) if signal != Signal::SIGCHLD as i32 => {
                    return Ok(TraceEnd::Signal(signal));
                }
                _ => {}
            }
            if looked.elapsed() >= PAUSE {
                more(self);
                looked = Instant::now();
            }
        }
    }

    fn signal(&self, timeout: Duration) -> Result<Option<i32>> {
        sys::next_signal(&self.signals, timeout)
            .map_err(|error| Error::failed("cannot wait for signals").because(&error))
    }

    /// Looks at the stops that there are now; whether there may be more.
    fn stops(&mut self) -> Result<bool> {
        for _ in 0..BATCH {
            let Some((thread, status)) = next_stop()? else {
                return Ok(false);
            };
            if let Some((how, signal)) = self.stop(thread, status)? {
                let _ = sys::resume(thread, how, signal); // ESRCH: it was killed meanwhile, which is the next stop
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
        let on = |signal| Ok(Some((Resume::UntilSystemCall, signal)));
        match status >> 16 {
            0 if signal == libc::SIGTRAP | 0x80 => {
                self.at_system_call(thread)?;
                on(0)
            }
            0 => on(signal),
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => Ok(Some((Resume::Listen, 0))),
            event => {
                self.event(thread, event);
                on(0)
            }
        }
    }

    fn event(&mut self, thread: Pid, event: i32) {
        // A new thread's own first stop can come before or after.
        self.threads.entry(thread).or_default();
        let Some(other) = message(thread) else { return };
        match event {
            // It may have run to its end already, which then was seen.
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE
                if attach::tracer(other) == Some(std::process::id()) =>
            {
                self.threads.entry(other).or_default();
            }
            // The other threads of its process are gone, and it has the id of the first now.
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
        let next = match (stop, state) {
            (
                SystemCall::Entry {
                    arch,
                    number,
                    arguments,
                },
                _,
            ) => Thread::Within(self.entered(thread, arch, number, arguments)),
            (
                SystemCall::Exit {
                    errno: Some(libc::ENOENT | libc::ENOTDIR),
                },
                Thread::Within(Some(call)),
            ) => {
                self.failed(thread, &call);
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
            self.followed.not_understood.insert(name(thread));
        }
        None
    }

    fn failed(&mut self, thread: Pid, call: &PathCall) {
        if lookup::is_inside(thread, self.root)
            && let Some(lookup) = lookup::failed(thread, call)
        {
            self.followed
                .misses
                .add(lookup, thread.as_raw(), || (name(thread), user(thread)));
        }
    }

    fn ended(&mut self, thread: Pid, status: i32) {
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

    /// Lets everything go on by itself, and gives what was found.
    pub fn finish(mut self) -> Result<TraceResult> {
        let threads: Vec<_> = self.threads.keys().copied().collect();
        for thread in threads {
            let _ = ptrace::interrupt(thread); // ESRCH: it is ending, which is its next stop
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
        Ok(std::mem::take(&mut self.followed))
    }

    fn let_go(&mut self, thread: Pid, status: i32) {
        if !libc::WIFSTOPPED(status) {
            self.ended(thread, status);
            return;
        }
        let (event, signal) = (status >> 16, libc::WSTOPSIG(status));
        self.event(thread, event);
        let signal = if event == 0 && signal != libc::SIGTRAP | 0x80 {
            signal
        } else {
            0
        };
        let _ = sys::resume(thread, Resume::Free, signal); // ESRCH: it was killed
        self.threads.remove(&thread);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None); // it was valid when it was set
    }
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
    ptrace::getevent(thread)
        .ok()
        .and_then(|id| id.try_into().ok())
        .map(Pid::from_raw)
}

/// The program's name, as `ps` shows it.
fn name(thread: Pid) -> String {
    let name = fs::read(format!("/proc/{thread}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

/// The id of the user that it looks files up as.
fn user(thread: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    // Real, effective, saved and of the file system: proc_pid_status(5).
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .nth(3)?
        .parse()
        .ok()
}

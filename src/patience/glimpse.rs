//! The state of a thread, seen from outside: `proc_pid_status(5)`,
//! `proc_pid_syscall(5)`.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, getpid, gettid};

use super::question;
use crate::sys::proc;

/// Whether a thread sleeps, and how often it was woken up so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glimpse {
    sleeps: bool,
    /// How often it left the processor.
    switches: u64,
}

impl Glimpse {
    /// The thread of this process as it is now; `None`: it has ended.
    pub(crate) fn of(thread: Pid) -> Option<Self> {
        Self::in_directory(&proc::of_own_thread(thread.as_raw()), &['S', 'D'])
    }

    /// The thread of any process as it is now; `None`: it has ended, or is not to be seen. One that
    /// was stopped, by a signal or by ptrace(2), counts as asleep.
    pub(crate) fn of_any(thread: Pid) -> Option<Self> {
        let thread = u32::try_from(thread.as_raw()).ok()?;
        Self::in_directory(&proc::of(thread), &['S', 'D', 'T', 't'])
    }

    /// A thread of which nothing is known but that it does not move.
    pub(crate) fn asleep() -> Self {
        Self {
            sleeps: true,
            switches: 0,
        }
    }

    fn in_directory(directory: &Path, asleep: &[char]) -> Option<Self> {
        let status = proc::status(directory)?;
        let count = |name| status.get(name)?.parse().ok();
        Some(Self {
            sleeps: status.get("State")?.starts_with(asleep),
            switches: count("voluntary_ctxt_switches").unwrap_or(0)
                + count("nonvoluntary_ctxt_switches").unwrap_or(0),
        })
    }

    /// Whether the thread has slept all the time since it was seen as `earlier`.
    pub(crate) fn has_slept_since(&self, earlier: &Self) -> bool {
        self.sleeps && self == earlier
    }
}

/// How long a thread has slept without being woken up, as far as it was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sleep {
    last: Option<(Glimpse, Instant)>,
    /// The current sleep.
    now: Duration,
    /// All sleeps that were seen.
    all: Duration,
}

impl Sleep {
    /// Notes the state of the thread at `now`; returns whether it was awake since the last call.
    pub(crate) fn look(&mut self, glimpse: Glimpse, now: Instant) -> bool {
        let before = self.last.replace((glimpse, now));
        if let Some((last, at)) = before
            && glimpse.has_slept_since(&last)
        {
            self.now += now - at;
            self.all += now - at;
            return false;
        }
        self.now = Duration::ZERO;
        true
    }

    /// Does not count the current sleep: the thread waits for work that goes on.
    pub(crate) fn forgive(&mut self) {
        (self.now, self.all) = (Duration::ZERO, self.all.saturating_sub(self.now));
    }

    /// Whether the current sleep has lasted as long as `limit`.
    pub(crate) fn lasts(&self, limit: Duration) -> bool {
        self.now >= limit
    }

    /// Whether the current sleep has lasted as long as `limit`, or all sleeps three times as long:
    /// a server that needs nearly the limit for each answer is as bad as one that gives none.
    pub(crate) fn reaches(&self, limit: Duration) -> bool {
        self.lasts(limit) || self.all >= limit * 3
    }

    /// Whether the thread is to be given up: its sleep [`reaches`](Self::reaches) the limit.
    ///
    /// `asks_server` tells whether it waits for a server now. Without one, sleeps do not add up:
    /// the machine is slow, and the thread goes on.
    pub(crate) fn exceeds(&mut self, limit: Duration, asks_server: impl FnOnce() -> bool) -> bool {
        if !self.lasts(limit) && self.reaches(limit) && !asks_server() {
            self.all = Duration::ZERO;
        }
        self.reaches(limit)
    }
}

/// All threads of this process except the first one, which watches the others, and the calling one.
#[derive(Debug, Default)]
pub(super) struct OtherThreads(HashMap<Pid, Glimpse>);

impl OtherThreads {
    /// Whether any of them was awake since the last call.
    pub(super) fn are_awake(&mut self) -> bool {
        let (mut now, mut are_awake) = (HashMap::new(), false);
        for thread in proc::threads(Path::new("/proc/self")).map(Pid::from_raw) {
            if thread == getpid() || thread == gettid() {
                continue;
            }
            let Some(glimpse) = Glimpse::of(thread) else {
                continue;
            };
            match self.0.get(&thread) {
                Some(before) if glimpse.has_slept_since(before) => {}
                _ => are_awake = true,
            }
            now.insert(thread, glimpse);
        }
        self.0 = now;
        are_awake
    }

    /// The threads at the last call.
    pub(super) fn known(&self) -> impl Iterator<Item = Pid> {
        self.0.keys().copied()
    }
}

/// Whether the thread waits for another one of this process, in futex(2).
pub(super) fn waits_for_another(thread: Pid) -> bool {
    match question::call(thread) {
        Some(call) => call.number == libc::SYS_futex,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_sleep_without_an_end_counts() {
        let asleep = |switches| Glimpse {
            sleeps: true,
            switches,
        };
        let (mut sleep, start) = (Sleep::default(), Instant::now());
        assert!(sleep.look(asleep(1), start), "it is not known since when");
        let exceeds = |sleep: &mut Sleep| sleep.exceeds(2 * SECOND, || true);
        assert!(!sleep.look(asleep(1), start + SECOND) && !exceeds(&mut sleep));
        assert!(sleep.look(asleep(2), start + 2 * SECOND), "it was woken");
        assert!(!sleep.look(asleep(2), start + 3 * SECOND) && !exceeds(&mut sleep));
        assert!(!sleep.look(asleep(2), start + 4 * SECOND) && exceeds(&mut sleep));
        let works = Glimpse {
            sleeps: false,
            switches: 2,
        };
        assert!(sleep.look(works, start + 5 * SECOND) && sleep.look(works, start + 99 * SECOND));
        assert!(sleep.now == Duration::ZERO && !exceeds(&mut sleep));
    }

    /// A thread that has slept four times, each time for less than two seconds, six in all.
    fn slept_often() -> Sleep {
        let (mut sleep, mut now) = (Sleep::default(), Instant::now());
        for switches in 0..4 {
            let asleep = Glimpse {
                sleeps: true,
                switches,
            };
            sleep.look(asleep, now);
            assert!(!sleep.exceeds(2 * SECOND, || true), "{switches}");
            now += SECOND * 3 / 2;
            sleep.look(asleep, now);
        }
        sleep
    }

    #[test]
    fn a_server_that_is_slow_each_time_is_given_up_too() {
        assert!(slept_often().exceeds(2 * SECOND, || true));
    }

    #[test]
    fn a_slow_machine_is_not_given_up_as_long_as_the_thread_goes_on() {
        let mut sleep = slept_often();
        assert!(!sleep.exceeds(2 * SECOND, || false));
        assert!(!sleep.exceeds(2 * SECOND, || true), "the past is forgotten");
    }

    #[test]
    fn a_thread_that_waits_is_seen_to_sleep() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(gettid()).unwrap();
            ended.recv().unwrap_err();
        });
        let id = told.recv().unwrap();
        let start = Instant::now();
        let (mut sleep, mut asleep) = (Sleep::default(), false);
        while !asleep && start.elapsed() < 30 * SECOND {
            sleep.look(Glimpse::of(id).unwrap(), Instant::now());
            asleep = sleep.now > Duration::ZERO && waits_for_another(id);
        }
        assert!(asleep);
        drop(end);
        thread.join().unwrap();
    }
}

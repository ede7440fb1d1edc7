//! Threads that do the same work on many items, and that can be given up.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, gettid};

use super::glimpse::{Glimpse, OtherThreads, Sleep, waits_for_another};
use super::{LAST_WAIT, LEFT_BEHIND, Silence, Stop, question, queue};
use crate::base::sync::{lock, wait_while};

/// How often the threads are looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// Why an item has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The work was given up.
    Silent(Silence),
    /// It panicked, which has been reported.
    Broken,
}

/// Threads at work on items. While some of them sleep in the kernel, there are more than usual.
pub(crate) struct Crew<T, R> {
    shared: Arc<CrewShared<T, R>>,
    /// How many threads are to work.
    threads: usize,
    limit: Option<Duration>,
    sleeps: BTreeMap<usize, Sleep>,
    looked: Instant,
    /// All threads of this process, as they were last looked at.
    others: OtherThreads,
    handles: Vec<JoinHandle<()>>,
}

type ItemWork<T, R> = Box<dyn Fn(&T, &Stop) -> R + Send + Sync>;

struct CrewShared<T, R> {
    items: Vec<T>,
    work: ItemWork<T, R>,
    signal: Arc<AtomicBool>,
    state: Mutex<CrewState<R>>,
    news: Condvar,
}

/// Items are known by their positions in the list.
struct CrewState<R> {
    /// The next item.
    next: usize,
    running: BTreeMap<usize, RunningItem>,
    ended: Vec<(usize, Result<R, Lost>)>,
    /// Items that were given up and whose threads have not woken up.
    lost: Vec<usize>,
    /// Items that were given up and whose threads have woken up.
    back: Vec<usize>,
}

#[derive(Clone)]
struct RunningItem {
    thread: Pid,
    stop: Stop,
}

impl<T: Send + Sync + 'static, R: Send + 'static> Crew<T, R> {
    /// Starts `threads` threads that do `work` for each of `items`, in their order, until `signal`
    /// is set. A thread that sleeps as long as `limit` is given up; `None`: never.
    pub(crate) fn start(
        items: Vec<T>,
        threads: usize,
        limit: Option<Duration>,
        signal: &Arc<AtomicBool>,
        work: impl Fn(&T, &Stop) -> R + Send + Sync + 'static,
    ) -> Self {
        let state = CrewState {
            next: 0,
            running: BTreeMap::new(),
            ended: vec![],
            lost: vec![],
            back: vec![],
        };
        let shared = CrewShared {
            items,
            work: Box::new(work),
            signal: signal.clone(),
            state: Mutex::new(state),
            news: Condvar::new(),
        };
        let sleeps = BTreeMap::new();
        let mut crew = Self {
            shared: Arc::new(shared),
            threads,
            limit,
            sleeps,
            looked: Instant::now(),
            others: OtherThreads::default(),
            handles: vec![],
        };
        crew.add_threads(threads);
        crew
    }

    /// Waits until all items that were begun have ended or were given up; returns the results in
    /// the order of the items.
    pub(crate) fn finish(mut self) -> Vec<Result<R, Lost>> {
        while self.has_work() {
            self.wait();
        }
        let mut ended = std::mem::take(&mut self.shared.lock().ended);
        ended.sort_by_key(|(nth, _)| *nth);
        ended.into_iter().map(|(_, ended)| ended).collect()
    }

    /// Waits until all items have ended, or until the threads of the others have slept for
    /// `patience`; returns the results since the last call. The `limit` applies, too.
    pub(crate) fn finish_or_sleep(&mut self, patience: Duration) -> Vec<(&T, Result<R, Lost>)> {
        while self.has_work() && !self.all_sleep(patience) {
            self.wait();
        }
        self.news()
    }

    /// Returns the results since the last call. It must be called often, because it also looks at
    /// the threads.
    pub(crate) fn news(&mut self) -> Vec<(&T, Result<R, Lost>)> {
        if self.has_work() && self.looked.elapsed() >= PERIOD {
            self.look();
        }
        let ended = std::mem::take(&mut self.shared.lock().ended);
        let mut news = vec![];
        for (nth, ended) in ended {
            news.push((&self.shared.items[nth], ended));
        }
        news
    }

    /// Whether no thread is at work any more, not even one that was given up.
    pub(crate) fn is_over(&self) -> bool {
        !self.has_work() && self.shared.lock().lost.is_empty()
    }

    /// The items that were given up and whose threads have woken up since the last call.
    pub(crate) fn back(&mut self) -> Vec<&T> {
        let back = std::mem::take(&mut self.shared.lock().back);
        self.shared.items_at(&back)
    }

    /// The items that a thread is at work on, given up or not.
    pub(crate) fn out(&self) -> Vec<&T> {
        let state = self.shared.lock();
        self.shared
            .items_at(state.running.keys().chain(&state.lost))
    }

    fn has_work(&self) -> bool {
        let state = self.shared.lock();
        !state.running.is_empty() || self.shared.has_next(&state)
    }

    fn all_sleep(&self, patience: Duration) -> bool {
        let state = self.shared.lock();
        if self.shared.has_next(&state) {
            return false;
        }
        for nth in state.running.keys() {
            match self.sleeps.get(nth) {
                Some(sleep) if sleep.reaches(patience) => {}
                _ => return false,
            }
        }
        true
    }

    /// Waits a moment, or until all is done; then looks at the threads if it is time.
    fn wait(&mut self) {
        let until_look = PERIOD.saturating_sub(self.looked.elapsed());
        let state = self.shared.lock();
        let works =
            |state: &mut CrewState<R>| !state.running.is_empty() || self.shared.has_next(state);
        wait_while(&self.shared.news, state, until_look, works);
        if self.looked.elapsed() >= PERIOD {
            self.look();
        }
    }

    /// Looks at all threads: gives up those that have slept for too long, and starts others for
    /// those that sleep.
    fn look(&mut self) {
        self.looked = Instant::now();
        let running = self.shared.lock().running.clone();
        self.sleeps.retain(|nth, _| running.contains_key(nth));
        let (mut awake, mut waiting) = (0, vec![]);
        for (nth, RunningItem { thread, .. }) in &running {
            let sleep = self.sleeps.entry(*nth).or_default();
            if queue::waits(*thread) {
                // It waits for a process that is at work. Others work meanwhile, and it is not
                // given up.
                sleep.forgive();
            } else if is_awake(*thread, sleep) {
                awake += 1;
            } else if waits_for_another(*thread) {
                waiting.push(*nth);
            }
        }
        // The thread that they wait for may be at work.
        if !waiting.is_empty() && self.others.are_awake() {
            for nth in &waiting {
                self.sleeps.entry(*nth).or_default().forgive();
            }
        }
        if let Some(limit) = self.current_limit() {
            self.give_up(limit, &running, &waiting);
        }
        let asleep = running.len() - awake;
        if awake < self.threads {
            // Twice as many each time, because every site may have a silent server.
            self.add_threads(if awake == 0 {
                asleep.max(self.threads)
            } else {
                self.threads - awake
            });
        }
    }

    /// The limit that a thread may sleep, which is short once a signal asked to stop.
    fn current_limit(&self) -> Option<Duration> {
        if !self.shared.signal.load(Ordering::SeqCst) {
            return self.limit;
        }
        match self.limit {
            Some(limit) => Some(limit.min(LAST_WAIT)),
            None => Some(LAST_WAIT),
        }
    }

    /// Gives up the threads that have slept as long as `limit`. Those that are `waiting` for
    /// another thread wait for what that one asks for.
    fn give_up(
        &mut self,
        limit: Duration,
        running: &BTreeMap<usize, RunningItem>,
        waiting: &[usize],
    ) {
        let mut silent = vec![];
        for (nth, sleep) in &mut self.sleeps {
            let path = || {
                let own = question::asked_by(running.get(nth)?.thread);
                if own.is_none() && waiting.contains(nth) {
                    return self.others.known().find_map(question::asked_by);
                }
                own
            };
            let asks_server = || path().is_some_and(|path| question::is_on_a_server(&path));
            if sleep.exceeds(limit, asks_server) {
                silent.push((*nth, path()));
            }
        }
        let mut state = self.shared.lock();
        for (nth, path) in silent {
            // It may have ended just now.
            let Some(RunningItem { stop, .. }) = state.running.remove(&nth) else {
                continue;
            };
            stop.give_up();
            LEFT_BEHIND.fetch_add(1, Ordering::SeqCst);
            state.lost.push(nth);
            state
                .ended
                .push((nth, Err(Lost::Silent(Silence { path, limit }))));
        }
    }

    /// Starts up to `count` more threads, as far as there is work for them.
    fn add_threads(&mut self, count: usize) {
        let left = {
            let state = self.shared.lock();
            if self.shared.has_next(&state) {
                self.shared.items.len() - state.next
            } else {
                0
            }
        };
        for nth in 0..count.min(left) {
            let shared = self.shared.clone();
            let started = thread::Builder::new().spawn(move || shared.work());
            match started {
                Ok(handle) => self.handles.push(handle),
                // Without a single thread, this one does the work.
                Err(_) if nth == 0 && self.sleeps.is_empty() => return self.shared.work(),
                Err(_) => return, // there are fewer threads
            }
        }
    }
}

/// Whether the thread is awake, as far as can be seen.
fn is_awake(thread: Pid, sleep: &mut Sleep) -> bool {
    match Glimpse::of(thread) {
        Some(glimpse) => sleep.look(glimpse, Instant::now()),
        None => true,
    }
}

impl<T, R> Drop for Crew<T, R> {
    /// Gives up the threads that have not ended. If there are none, all that the threads had is
    /// dropped when this returns.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.next = self.shared.items.len();
        for (nth, RunningItem { stop, .. }) in std::mem::take(&mut state.running) {
            stop.give_up();
            LEFT_BEHIND.fetch_add(1, Ordering::SeqCst);
            state.lost.push(nth);
        }
        let is_over = state.lost.is_empty();
        drop(state);
        if is_over {
            for handle in self.handles.drain(..) {
                let _ = handle.join(); // a panic was caught before
            }
        }
    }
}

impl<T, R> CrewShared<T, R> {
    fn lock(&self) -> MutexGuard<'_, CrewState<R>> {
        lock(&self.state)
    }

    /// Whether there is an item to begin.
    fn has_next(&self, state: &CrewState<R>) -> bool {
        state.next < self.items.len() && !self.signal.load(Ordering::SeqCst)
    }

    fn items_at<'n>(&self, numbers: impl IntoIterator<Item = &'n usize>) -> Vec<&T> {
        let mut items = vec![];
        for nth in numbers {
            items.push(&self.items[*nth]);
        }
        items
    }

    /// The work of each thread: item after item, until there are no more or the thread was given
    /// up.
    fn work(&self) {
        loop {
            let (nth, stop) = {
                let mut state = self.lock();
                if !self.has_next(&state) {
                    break;
                }
                let (nth, stop) = (state.next, Stop::by(&self.signal));
                state.next += 1;
                state.running.insert(
                    nth,
                    RunningItem {
                        thread: gettid(),
                        stop: stop.clone(),
                    },
                );
                (nth, stop)
            };
            let result = catch_unwind(AssertUnwindSafe(|| (self.work)(&self.items[nth], &stop)));
            let mut state = self.lock();
            if state.running.remove(&nth).is_none() {
                state.lost.retain(|lost| *lost != nth);
                state.back.push(nth);
                LEFT_BEHIND.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            state.ended.push((nth, result.map_err(|_| Lost::Broken)));
        }
        // A waiting thread waits for the last of them: waking it for each takes longer than many a
        // look.
        self.news.notify_all();
    }
}

//! A journal of all actions and findings.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How many of the last actions are kept, and how many are shown with a finding.
const KEPT: usize = 2000;
const SHOWN: usize = 80;

/// Shared by all actors and by the oracle.
#[derive(Clone)]
pub struct Journal {
    start: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    last: VecDeque<String>,
    /// How often an action of a kind succeeded, and how often it was tried.
    counts: BTreeMap<String, (u64, u64)>,
    /// By kind: how often, and the first of them.
    findings: BTreeMap<String, (u64, String)>,
}

impl Journal {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            inner: Arc::default(),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an action; `kind` names it in one word.
    pub fn did(&self, who: &str, kind: &str, text: &str, worked: bool) {
        let time = self.start.elapsed().as_millis();
        let mut inner = self.inner();
        if inner.last.len() == KEPT {
            inner.last.pop_front();
        }
        inner
            .last
            .push_back(format!("{time:>7} ms  {who:<6} {text}"));
        let count = inner.counts.entry(kind.to_owned()).or_default();
        count.0 += u64::from(worked);
        count.1 += 1;
    }

    /// Reads the output of a process to its end, one line per action.
    pub fn follow(&self, who: &'static str, output: impl Read + Send + 'static) {
        let journal = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let kind = line.split([' ', ':']).next().unwrap_or_default().to_owned();
                journal.did(who, &kind, &line, line.ends_with(": ok"));
            }
        });
    }

    /// Notes that something is wrong. The first finding of each kind is kept, with the actions
    /// before it.
    pub fn finds(&self, kind: &str, text: &str) {
        let time = self.start.elapsed().as_millis();
        let mut inner = self.inner();
        if let Some((count, _)) = inner.findings.get_mut(kind) {
            *count += 1;
            return;
        }
        let mut all = format!("after {time} ms: {text}\n  what was done before:\n");
        let skip = inner.last.len().saturating_sub(SHOWN);
        for line in inner.last.iter().skip(skip) {
            writeln!(all, "  | {line}").unwrap();
        }
        inner.findings.insert(kind.to_owned(), (1, all));
    }

    /// How often each action was tried, and how often it succeeded.
    pub fn summary(&self) -> String {
        let inner = self.inner();
        let counts = inner
            .counts
            .iter()
            .map(|(kind, (worked, all))| format!("{kind} {worked}/{all}"));
        counts.collect::<Vec<_>>().join(", ")
    }

    /// How often an action of this kind succeeded.
    pub fn worked(&self, kind: &str) -> u64 {
        self.inner()
            .counts
            .get(kind)
            .map_or(0, |(worked, _)| *worked)
    }

    /// All findings as text; empty if there are none.
    pub fn findings(&self) -> String {
        let inner = self.inner();
        let mut text = String::new();
        for (kind, (count, first)) in &inner.findings {
            writeln!(text, "=== {kind} ({count} times), the first time {first}").unwrap();
        }
        text
    }
}

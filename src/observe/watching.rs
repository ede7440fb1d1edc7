//! What a running `mountjail watch` says of itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::state::{StateDir, read_regular};
use crate::base::SiteName;
use crate::sys::start_time;

/// The file `<run>/watch/state.json`: replaced atomically after each pass, removed at a clean end.
/// Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchState {
    /// 1.
    pub version: u32,
    /// The process.
    pub pid: u32,
    /// When that process began, in the kernel's ticks since boot (field 22 of `/proc/PID/stat`): a
    /// pid is reused.
    pub start_time: u64,
    /// Since when it watches.
    pub since: u64,
    /// How it sees changes of the mount table: `fanotify` or `poll`.
    pub mount_events: String,
    /// How many directories are watched.
    pub directories: usize,
    /// Why some directories cannot be watched, so that changes are looked for every few seconds.
    pub blind: Option<String>,
    /// How many sites are up and kept right.
    pub sites: usize,
    /// When all of them were last looked at in one pass.
    pub last_full_pass: u64,
    /// How many passes there were, over any number of sites.
    pub passes: u64,
    /// Mounts attached, in all passes.
    pub attached: u64,
    /// Mounts swapped.
    pub swapped: u64,
    /// Mounts detached.
    pub detached: u64,
    /// The sites that could not be brought right, each with its last failure.
    pub failures: BTreeMap<SiteName, WatchFailure>,
}

/// Why a site is not right, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchFailure {
    /// In words.
    pub error: String,
    /// When it failed first.
    pub since: u64,
    /// How often it was tried since.
    pub attempts: u32,
    /// When it is tried again, if no change comes before; `None`: not before a change.
    pub next_try: Option<u64>,
}

impl WatchState {
    /// What the watcher that runs now says; `None`: none runs.
    pub fn read(state: &StateDir) -> Option<Self> {
        let found = Self::parse(&read_regular(&state.watch_state()).ok()?)?;
        (start_time(found.pid) == Some(found.start_time)).then_some(found)
    }

    /// Reads what a watcher said; `None`: it is nothing that can be understood.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|found: &Self| found.version == 1)
    }
}

impl StateDir {
    /// The directory of the watcher.
    pub fn watch(&self) -> PathBuf {
        self.run.join("watch")
    }

    /// Where it says how it goes.
    pub fn watch_state(&self) -> PathBuf {
        self.watch().join("state.json")
    }

    /// What the one watcher holds.
    pub fn watch_lock(&self) -> PathBuf {
        self.watch().join("lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_a_watcher_that_runs_says_something() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        fs::create_dir_all(state.watch()).unwrap();
        assert_eq!(WatchState::read(&state), None);
        let mut said = WatchState {
            version: 1,
            pid: std::process::id(),
            ..WatchState::default()
        };
        said.start_time = start_time(said.pid).unwrap();
        let write = |said: &WatchState| {
            fs::write(state.watch_state(), serde_json::to_vec(said).unwrap()).unwrap();
        };
        write(&said);
        assert_eq!(WatchState::read(&state), Some(said.clone()));
        said.start_time += 1;
        write(&said);
        assert_eq!(
            WatchState::read(&state),
            None,
            "another process has the pid now"
        );
    }
}

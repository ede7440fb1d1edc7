//! The state file of a running `mountjail watch`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::record_file::read_regular;
use super::state::StateDir;
use crate::base::SiteName;
use crate::sys::proc::{self, start_time};

/// The file `<run>/watch/state.json`. It is replaced atomically after each pass and removed at a
/// clean end. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchState {
    /// 1.
    pub version: u32,
    /// The process id of the watcher.
    pub pid: u32,
    /// The start time of that process, in the kernel's ticks since boot (field 22 of
    /// `/proc/PID/stat`), because process ids are reused.
    pub start_time: u64,
    /// The time when it began to watch.
    pub since: u64,
    /// How it learns of changes in the mount table: `fanotify` or `poll`.
    pub mount_events: String,
    /// The number of directories that are watched.
    pub directories: usize,
    /// The reason why some directories cannot be watched, so that they are checked every few
    /// seconds.
    pub blind: Option<String>,
    /// The number of sites that are up and kept in order.
    pub sites: usize,
    /// The time of the last pass over all sites.
    pub last_full_pass: u64,
    /// The number of passes, over any number of sites.
    pub passes: u64,
    /// Mounts attached, in all passes.
    pub attached: u64,
    /// Mounts swapped.
    pub swapped: u64,
    /// Mounts detached.
    pub detached: u64,
    /// The sites that could not be repaired, each with its last failure.
    pub failures: BTreeMap<SiteName, WatchFailure>,
}

/// The reason why a site could not be repaired, and the attempts so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchFailure {
    /// The error, as `status` shows it.
    pub error: String,
    /// The time of the first failure.
    pub since: u64,
    /// The number of attempts since.
    pub attempts: u32,
    /// The time of the next attempt, unless a change comes before. `None` if only a change triggers
    /// it.
    pub next_try: Option<u64>,
}

impl WatchState {
    /// The state of the watcher that runs now. `None` if none runs.
    pub fn read(state: &StateDir) -> Option<Self> {
        let found = Self::parse(&read_regular(&state.watch_state()).ok()?)?;
        (start_time(&proc::of(found.pid)) == Some(found.start_time)).then_some(found)
    }

    /// Parses the state file of a watcher. `None` if it is not understood.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|found: &Self| found.version == 1)
    }
}

impl StateDir {
    /// The directory of the watcher's files.
    pub fn watch(&self) -> PathBuf {
        self.run.join("watch")
    }

    /// The state file of the watcher.
    pub fn watch_state(&self) -> PathBuf {
        self.watch().join("state.json")
    }

    /// The lock that the watcher holds, so that there is only one.
    pub fn watch_lock(&self) -> PathBuf {
        self.watch().join("lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_the_state_of_a_running_watcher_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        fs::create_dir_all(state.watch()).unwrap();
        assert_eq!(WatchState::read(&state), None);
        let mut written = WatchState {
            version: 1,
            pid: std::process::id(),
            ..WatchState::default()
        };
        written.start_time = start_time(&proc::of(written.pid)).unwrap();
        let write = |content: &WatchState| {
            fs::write(state.watch_state(), serde_json::to_vec(content).unwrap()).unwrap();
        };
        write(&written);
        assert_eq!(WatchState::read(&state), Some(written.clone()));

        written.start_time += 1;
        write(&written);
        assert_eq!(
            WatchState::read(&state),
            None,
            "another process has the pid now"
        );
    }
}

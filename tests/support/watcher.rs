//! A running `mountjail watch`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Sandbox;

/// Killed when dropped.
pub struct Watcher {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts a watcher on a sandbox and waits until it watches.
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::with(sandbox.command().arg("watch"))
    }

    /// Starts `command`, a watcher, and waits until it watches.
    pub fn with(command: &mut Command) -> Self {
        let watcher = Self::spawn(command);
        watcher.says("watching ");
        watcher
    }

    /// Starts `command`, which may fail before it watches.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (lines, into) = (
            BufReader::new(child.stderr.take().unwrap()).lines(),
            said.clone(),
        );
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut said = into.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self {
            child,
            said,
            reader: Some(reader),
        }
    }

    /// Its output so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it says `text`.
    #[track_caller]
    pub fn says(&self, text: &str) {
        self.says_times(text, 1);
    }

    /// Waits until it has said `text` this often.
    #[track_caller]
    pub fn says_times(&self, text: &str, times: usize) {
        soon(&format!("it says {text:?}"), || {
            let said = self.said();
            if said.matches(text).count() >= times {
                Ok(())
            } else {
                Err(said)
            }
        });
    }

    /// The process that was started, which a service manager knows.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that works, behind that one: `proc_tid_children(5)`.
    pub fn worker(&self) -> u32 {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children
            .split_ascii_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
    }

    /// Its state file.
    pub fn state(&self, sandbox: &Sandbox) -> serde_json::Value {
        let file = sandbox.state().join("run/watch/state.json");
        let state: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        assert_eq!(state["pid"], self.pid());
        state
    }

    /// The processor time that all its threads have used: `proc_pid_stat(5)`.
    fn ticks(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.worker())).unwrap();
        let (_, fields) = text.rsplit_once(')').unwrap();
        fields
            .split_ascii_whitespace()
            .skip(11)
            .take(2)
            .map(|time| time.parse::<u64>().unwrap())
            .sum()
    }

    /// Waits until it has nothing to do, and all events have been handled. That it wakes up
    /// and sleeps again does not count: others make files beside the sandbox.
    pub fn settles(&self) {
        let start = Instant::now();
        loop {
            let before = self.ticks();
            std::thread::sleep(Duration::from_millis(1200)); // longer than it lets a storm settle
            if self.ticks() == before {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "it never sleeps:\n{}",
                self.said()
            );
        }
    }

    /// Waits until none of its threads has run for two seconds.
    #[track_caller]
    pub fn sleeps(&self) {
        soon("it sleeps", || {
            let before = self.wakeups();
            std::thread::sleep(Duration::from_secs(2));
            match self.wakeups() {
                after if after == before => Ok(()),
                after => Err(format!("woken: {before:?}, then {after:?}")),
            }
        });
    }

    /// How often each of its threads has gone to sleep.
    pub fn wakeups(&self) -> BTreeMap<OsString, u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.worker())).unwrap();
        let threads = tasks.flatten().filter_map(|task| {
            let status = fs::read_to_string(task.path().join("status")).ok()?; // it may have ended
            let count = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((task.file_name(), count.trim().parse().unwrap()))
        });
        threads.collect()
    }

    /// Ends it with SIGTERM, on which it must exit cleanly; returns its whole output.
    #[track_caller]
    pub fn end(mut self) -> String {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        assert!(status.success(), "{status}:\n{}", self.said());
        self.said()
    }

    /// Ends it as a crash would.
    pub fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends of its own accord.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// How long a condition is waited for: more than a busy machine takes for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `check` succeeds; fails with its last error.
#[track_caller]
pub fn soon(what: &str, check: impl Fn() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(complaint) = check() {
        assert!(
            start.elapsed() < PATIENCE,
            "waited in vain until {what}:\n{complaint}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    soon(what, || condition().then_some(()).ok_or_else(String::new));
}

/// Waits until the file at `path` holds `text`.
#[track_caller]
pub fn soon_reads(path: &Path, text: &str) {
    soon(
        &format!("{} holds {text:?}", path.display()),
        || match fs::read_to_string(path) {
            Ok(found) if found == text => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}

/// A line of `mounts` that binds `source` on `target`.
pub fn line(source: &Path, target: &str) -> String {
    format!("  - {{ source: {}, target: {target} }}\n", source.display())
}

/// Puts a new file with `text` in the place of `path`, by rename(2). For some microseconds of a
/// swap the old mount is on the new file, and the kernel lets nobody rename what is mounted on.
pub fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    let start = Instant::now();
    while let Err(error) = fs::rename(&new, path) {
        assert!(
            error.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < PATIENCE,
            "{error}"
        );
    }
}

/// Makes the site `s`, which binds the file `host/conf` with this text on /conf. Returns the
/// source, and its path in the jail.
pub fn site_of_one_file(sandbox: &Sandbox, text: &str) -> (PathBuf, PathBuf) {
    let source = sandbox.file("host/conf", text);
    let root = sandbox.site("s", &format!("mounts:\n{}", line(&source, "/conf")));
    (source, root.join("conf"))
}

/// As [`site_of_one_file`], with the text `one`; and the site is up.
pub fn one_file(sandbox: &Sandbox) -> (PathBuf, PathBuf) {
    let paths = site_of_one_file(sandbox, "one");
    sandbox.ok(&["up", "s"]);
    paths
}

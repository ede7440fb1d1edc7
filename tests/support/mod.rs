//! What the integration tests share: a mount namespace of their own, sandboxes, listings.
//!
//! A test binary has `harness = false` in `Cargo.toml` and hands its trials to [`main`], which
//! leaves the host's mount namespace before any thread starts. Trials run in threads of one
//! process, each with a [`Sandbox`] of its own on a tmpfs that goes with the namespace, so even a
//! killed test leaves nothing. A trial that mounts on the host's paths, or that mounts a file
//! system that does not answer, runs [`alone`].

// Each test binary uses a part of this module.
#![allow(dead_code, unused_imports)]

mod fuse;
mod mounts;
mod running;
mod sandbox;
mod schemas;
mod tree;
mod watcher;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

pub use fuse::Fuse;
pub use mounts::{Mount, bind, grafts_below, mounts, mounts_below, size_at, unmount, unmount_all};
pub use running::Running;
pub use sandbox::{Ran, Sandbox};
pub use tree::{Tree, tree};
pub use watcher::{
    PATIENCE, Watcher, line, one_file, replace, site_of_one_file, soon, soon_reads, wait_until,
};

/// Set in the process of a trial that runs [`alone`]: how mounts propagate there, as [`PRIVATE`] or
/// [`SHARED`].
const ALONE: &str = "MOUNTJAIL_TEST_ALONE";

/// Also set there: the directory of [`made_once`].
const COMMON: &str = "MOUNTJAIL_TEST_COMMON";

const PRIVATE: &str = "private";
const SHARED: &str = "shared";

/// `K/N` where only each Nth trial runs, as on an emulated machine.
const SAMPLE: &str = "MOUNTJAIL_SAMPLE";

/// The directory of this process's sandboxes, a tmpfs in its own namespace.
static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

/// Runs the trials of each file in a mount namespace of their own whose `/` is private. The file's
/// name is the trials' kind: `-- '[NAME]'` runs those of one file.
pub fn main<const N: usize>(files: [(&str, Vec<Trial>); N]) -> ExitCode {
    main_in(CloneFlags::empty(), files)
}

/// As [`main`], also with the namespaces `extra` (such as `CLONE_NEWNET`).
pub fn main_in<const N: usize>(extra: CloneFlags, files: [(&str, Vec<Trial>); N]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    heed_signals();
    let trials = of_files(files);
    // Trials wait more than they compute.
    arguments.test_threads.get_or_insert(4 * cores());
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    match Outside::leave(extra) {
        Err(reason) => libtest_mimic::run(&arguments, failing(trials, &reason)).exit_code(),
        Ok(outside) => {
            let conclusion = libtest_mimic::run(&arguments, trials);
            match outside.check() {
                Ok(()) => conclusion.exit_code(),
                Err(changes) => {
                    eprintln!("error: the tests changed the host's mount table:\n{changes}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// How many threads run at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Starts this program anew if it ignores signals of the keyboard, as in the background of a shell
/// or under nohup(1): the programs that it starts would also ignore them.
fn heed_signals() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    let keyboard = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];
    if keyboard
        .iter()
        .all(|it| ignored & (1 << (*it as u32 - 1)) == 0)
    {
        return;
    }
    let mut anew = Command::new("env");
    anew.arg("--default-signal=HUP,INT,QUIT");
    anew.arg(std::env::current_exe().unwrap());
    let error = anew.args(std::env::args_os().skip(1)).exec();
    panic!("cannot run env(1): {error}");
}

/// All trials, each with its file's name as its kind.
fn of_files<const N: usize>(files: [(&str, Vec<Trial>); N]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (file, of_file) in files {
        trials.extend(of_file.into_iter().map(|trial| trial.with_kind(file)));
    }

    let mut names = BTreeSet::new();
    for trial in &trials {
        // A trial that runs alone is found by its name.
        assert!(names.insert(trial.name()), "two trials: {}", trial.name());
    }
    match std::env::var(SAMPLE) {
        Ok(which) if std::env::var_os(ALONE).is_none() => sample(trials, &which),
        _ => trials,
    }
}

/// Each `n`th trial, from the `k`th on, where `which` is `k/n`.
fn sample(trials: Vec<Trial>, which: &str) -> Vec<Trial> {
    let numbers = which.split_once('/');
    let numbers = numbers.and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    let (first, step): (usize, usize) =
        numbers.unwrap_or_else(|| panic!("{SAMPLE} is not K/N: {which}"));
    trials.into_iter().skip(first).step_by(step).collect()
}

/// Trials of the same names that fail for this reason.
fn failing(trials: Vec<Trial>, reason: &str) -> Vec<Trial> {
    in_place_of(trials, |name| {
        let reason = reason.to_owned();
        Trial::test(name, move || Err(reason.into()))
    })
}

/// These trials where the kernel offers what templates are made with, else trials of the same names
/// that are ignored.
pub fn where_templates_are(trials: Vec<Trial>) -> Vec<Trial> {
    if mountjail::sys::probe::statmount() {
        return trials;
    }
    let offered = || Err("SKIP: the kernel has no statmount");
    in_place_of(trials, |name| where_offered(name, offered, || Ok(())))
}

/// Other trials of the same names and kinds.
fn in_place_of(trials: Vec<Trial>, other: impl Fn(String) -> Trial) -> Vec<Trial> {
    let replace = |trial: Trial| other(trial.name().to_owned()).with_kind(trial.kind());
    trials.into_iter().map(replace).collect()
}

/// A trial for each name and body.
pub fn trials<const N: usize>(bodies: [(&str, fn()); N]) -> Vec<Trial> {
    let trial = |(name, body): (&str, fn())| {
        Trial::test(name, move || {
            body();
            Ok(())
        })
    };
    bodies.into_iter().map(trial).collect()
}

/// A trial that is made for each engine.
pub type OnEngine = fn(&'static str);

/// A trial for each way of mounting, with the value for `MOUNTJAIL_ENGINE`.
pub fn for_each_engine(
    name: &str,
    body: impl Fn(&'static str) + Copy + Send + 'static,
) -> Vec<Trial> {
    let trial = |engine| {
        on_engine(format!("{name} ({engine})"), engine, move || {
            body(engine);
            Ok(())
        })
    };
    ["classic", "detached"].into_iter().map(trial).collect()
}

/// As [`for_each_engine`], each [`on_shared_root`].
pub fn for_each_engine_on_shared_root(name: &str, body: fn(engine: &'static str)) -> Vec<Trial> {
    for_each_engine_in_a_child(name, SHARED, body)
}

/// As [`for_each_engine`], each [`alone`].
pub fn for_each_engine_alone(name: &str, body: fn(engine: &'static str)) -> Vec<Trial> {
    for_each_engine_in_a_child(name, PRIVATE, body)
}

fn for_each_engine_in_a_child(
    name: &str,
    propagation: &'static str,
    body: fn(engine: &'static str),
) -> Vec<Trial> {
    let trial = |engine| {
        let name = format!("{name} ({engine})");
        on_engine(name.clone(), engine, move || {
            in_child(&name, propagation, || body(engine))
        })
    };
    ["classic", "detached"].into_iter().map(trial).collect()
}

/// A trial [`on_shared_root`] for each way to hear of mounts, with the value for
/// `MOUNTJAIL_MOUNT_EVENTS`.
pub fn for_each_source_of_mount_events(name: &str, body: fn(how: &'static str)) -> Vec<Trial> {
    let trial = |how| {
        let name = format!("{name} ({how})");
        let offered = move || {
            if how == "fanotify" && mountjail::sys::watch_mounts().is_err() {
                return Err("SKIP: the kernel tells no mount events by fanotify");
            }
            Ok(())
        };
        where_offered(name.clone(), offered, move || {
            in_child(&name, SHARED, || body(how))
        })
    };
    ["fanotify", "poll"].into_iter().map(trial).collect()
}

/// A trial that is reported as ignored where the kernel does not offer `engine`.
fn on_engine(
    name: String,
    engine: &'static str,
    body: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let offered = move || {
        if engine == "detached" && !mountjail::sys::probe::mount_setattr() {
            return Err("SKIP: the kernel has no mount_setattr");
        }
        Ok(())
    };
    where_offered(name, offered, body)
}

/// A trial that is ignored if `offered` fails: the error is the reason.
fn where_offered(
    name: String,
    offered: impl FnOnce() -> Result<(), &'static str> + Send + 'static,
    body: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match offered() {
        Ok(()) => body().map(|()| Completion::Completed),
        Err(reason) => Ok(Completion::ignored_with(reason)),
    })
}

/// A trial in a process and namespaces of its own, where `/` is private.
pub fn alone(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Trial {
    let name = name.into();
    Trial::test(name.clone(), move || in_child(&name, PRIVATE, body))
}

/// A trial in a process and namespaces of its own, where `/` is shared as systemd makes it.
pub fn on_shared_root(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Trial {
    let name = name.into();
    Trial::test(name.clone(), move || in_child(&name, SHARED, body))
}

/// Runs this trial again in a child of this program with namespaces of its own; there, runs `body`.
fn in_child(name: &str, propagation: &str, body: impl FnOnce()) -> Result<(), Failed> {
    if std::env::var_os(ALONE).is_some() {
        body();
        return Ok(());
    }
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--test-threads=1"])
        .env(ALONE, propagation)
        .env(COMMON, common())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&text).into_owned().into())
}

/// A new directory for one trial, below a tmpfs; not removed, since it goes with the namespace.
pub fn scratch() -> PathBuf {
    tempfile::Builder::new()
        .prefix("")
        .rand_bytes(6)
        .disable_cleanup(true)
        .tempdir_in(scratch_base())
        .unwrap()
        .keep()
}

/// The directory `name`, which all trials of this binary share, also those that run [`alone`]. The
/// first one that needs it fills it by `make`.
pub fn made_once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let path = |name: String| common().join(name);
    let lock = File::create(path(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let directory = path(name.to_owned());
    if !directory.exists() {
        let new = path(format!("{name}.new"));
        fs::create_dir_all(&new).unwrap();
        make(&new);
        fs::rename(&new, &directory).unwrap();
    }
    directory
}

/// The directory of what trials share: if this one runs [`alone`], that of the process that started
/// it.
fn common() -> PathBuf {
    let of_parent = std::env::var_os(COMMON).map(PathBuf::from);
    of_parent.unwrap_or_else(|| scratch_base().join("common"))
}

fn scratch_base() -> &'static Path {
    SCRATCH.get().expect("a trial runs inside support::main")
}

/// A writable view of `path` that ends with the namespace.
pub fn overlay(sandbox: &Sandbox, path: &Path) {
    let name = path.to_string_lossy().replace('/', "-");
    let upper = sandbox.directory(format!("overlay/upper{name}"));
    let work = sandbox.directory(format!("overlay/work{name}"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path.display(),
        upper.display(),
        work.display()
    );
    Ran::of(
        Command::new("mount")
            .args(["-t", "overlay", "-o", &options, "lab"])
            .arg(path),
    )
    .exits(0);
}

/// Mounts an empty directory on `/run`, for the daemons of a trial that runs [`alone`].
pub fn empty_run() {
    let options = Some("mode=755");
    mount(
        Some("run"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        options,
    )
    .unwrap();
}

/// The namespace that this process left.
struct Outside {
    /// `/proc/self/mountinfo` as opened before: it stays that namespace's table.
    table: File,
    before: String,
    /// Where [`SCRATCH`] is mounted: the empty directory below is on the host.
    scratch: tempfile::TempDir,
}

impl Outside {
    fn leave(extra: CloneFlags) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("trials mount: run them as root".into());
        }
        nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
        let table = File::open("/proc/self/mountinfo").map_err(|e| format!("needs /proc: {e}"))?;
        unshare(CloneFlags::CLONE_NEWNS | extra)
            .map_err(|e| format!("needs a mount namespace: {e}"))?;
        let scratch = tempfile::Builder::new()
            .prefix("mountjail-test-")
            .tempdir()
            .unwrap();
        set_propagation(MsFlags::MS_PRIVATE);
        if std::env::var_os(ALONE).is_some_and(|how| how == SHARED) {
            set_propagation(MsFlags::MS_SHARED);
        }
        let base = mount_scratch(scratch.path());
        fs::create_dir(base.join("common")).unwrap();
        SCRATCH.set(base).expect("main runs once");
        let mut outside = Self {
            table,
            before: String::new(),
            scratch,
        };
        outside.before = outside.now();
        Ok(outside)
    }

    fn now(&mut self) -> String {
        let mut text = String::new();
        self.table.rewind().unwrap();
        self.table.read_to_string(&mut text).unwrap();
        text
    }

    /// `Err` with the lines that came and went. A trial that runs [`alone`] leaves this to its
    /// parent, whose other trials mount at the same time.
    fn check(mut self) -> Result<(), String> {
        umount2(self.scratch.path(), MntFlags::MNT_DETACH).unwrap();
        let (before, after) = (std::mem::take(&mut self.before), self.now());
        if before == after || std::env::var_os(ALONE).is_some() {
            return Ok(());
        }
        let gone = before
            .lines()
            .filter(|line| !after.contains(line))
            .map(|line| format!("- {line}"));
        let new = after
            .lines()
            .filter(|line| !before.contains(line))
            .map(|line| format!("+ {line}"));
        Err(gone.chain(new).collect::<Vec<_>>().join("\n"))
    }
}

fn set_propagation(kind: MsFlags) {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | kind,
        None::<&str>,
    )
    .unwrap();
}

/// Mounts a tmpfs on `at`, readable to daemons that give up root, and returns its real path.
fn mount_scratch(at: &Path) -> PathBuf {
    mount(
        Some("mountjail-test"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .unwrap();
    fs::canonicalize(at).unwrap()
}

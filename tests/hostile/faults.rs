//! Promise: whatever stops a run in the middle, the next `up` converges and the next `down` leaves
//! nothing.
//!
//! Each trial counts the system calls that an undisturbed run makes, by strace. Then it lets single
//! calls fail, and in other runs stops or kills the program there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::support::{
    Mount, Ran, Sandbox, Tree, for_each_engine, grafts_below, mounts_below, replace, tree,
};
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The calls that mount, that look up targets, and that write records. The `?` is for older
/// versions of strace, which do not know statmount(2).
pub(super) const CALLS: &str = "open_tree,mount_setattr,move_mount,mount,umount2,openat2,mkdirat,\
                                mkdir,symlinkat,unlinkat,unlink,rename,renameat2,fsync,\
                                ?statmount,?listmount,flock,fstatfs";

pub fn all() -> Vec<Trial> {
    let each = [
        ("up", Run::Up, Fault::Error),
        ("up", Run::Up, Fault::Kill),
        ("a swap", Run::Swap, Fault::Error),
        ("a swap", Run::Swap, Fault::Errors),
        ("a swap", Run::Swap, Fault::Stop),
        ("a swap", Run::Swap, Fault::Kill),
        ("a swap of deleted files", Run::SwapDeleted, Fault::Error),
        ("up --renew", Run::Renew, Fault::Error),
        ("up --renew", Run::Renew, Fault::Kill),
        ("down", Run::Down, Fault::Error),
        ("down", Run::Down, Fault::Kill),
    ];
    let each = each.into_iter().flat_map(|(what, run, fault)| {
        let how = match fault {
            Fault::Error => "each call failing",
            Fault::Errors => "each call failing twice",
            Fault::Stop => "SIGTERM at each call",
            Fault::Kill => "a kill at each call",
        };
        for_each_engine(&format!("{what} recovers from {how}"), move |engine| {
            each_call(engine, run, fault);
        })
    });
    let others = [
        for_each_engine(
            "a swap recovers from a kill while it is undone",
            killed_in_undo,
        ),
        for_each_engine("a swap is undone without RENAME_EXCHANGE", without_exchange),
        for_each_engine(
            "a full mount table is named, and nothing is half made",
            full,
        ),
    ];
    each.chain(others.into_iter().flatten()).collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    /// Of a site that is down.
    Up,
    /// `up` of a site that is up, after a source was moved aside and replaced, and after mounts and
    /// users in the manifest came and went.
    Swap,
    /// The same with a source that was deleted. No kernel attaches a mount of it again.
    SwapDeleted,
    /// `up --renew` of a site whose mounts were made one by one.
    Renew,
    /// Of a site that is up.
    Down,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Error,
    /// The call and the next of its name.
    Errors,
    /// SIGTERM.
    Stop,
    Kill,
}

impl Fault {
    /// For strace: the `nth` of these calls.
    fn at(self, call: &str, nth: usize) -> String {
        match self {
            Self::Error => format!("inject={call}:error=EIO:when={nth}"),
            Self::Errors => format!("inject={call}:error=EIO:when={nth}..{}", nth + 1),
            Self::Stop => format!("inject={call}:signal=SIGTERM:when={nth}"),
            Self::Kill => format!("inject={call}:signal=SIGKILL:when={nth}"),
        }
    }
}

fn each_call(engine: &'static str, run: Run, fault: Fault) {
    let calls = Site::new(engine, run).count_calls(run, &[], 0);
    assert!(
        calls.values().sum::<usize>() > 20,
        "strace saw too few calls: {calls:?}"
    );
    for (call, count) in calls {
        for nth in chosen(1..=count, run as usize + fault as usize) {
            Site::new(engine, run).suffers(run, fault, &[&fault.at(&call, nth)]);
        }
    }
}

/// How often each call stands in the `log` of strace, in the thread that makes most of them.
pub(super) fn counted(log: &Path) -> BTreeMap<String, usize> {
    let mut calls: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let call = rest.trim_start().split_once('(');
        // `<... NAME resumed>` is the end of a call, if another thread's came between.
        let begins = |call: &str| !call.starts_with("syscall_") && !call.starts_with('<');
        if let Some((call, _)) = call.filter(|(call, _)| begins(call)) {
            *calls
                .entry((call.to_owned(), thread.to_owned()))
                .or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((call, _), count) in calls {
        let known: &mut usize = most.entry(call).or_default();
        *known = count.max(*known);
    }
    most
}

/// What a run suffered, by the `log` of strace. Several threads may reach the call that strace
/// makes fail: it counts for each thread.
fn suffered(faults: &[&str], log: &Path) -> String {
    let what = faults.join(" ");
    match injected(log) {
        times @ 2.. => format!("{what} (in {times} threads: ..)"),
        _ => what,
    }
}

/// How many calls failed, by the `log` of strace.
pub(super) fn injected(log: &Path) -> usize {
    let log = fs::read_to_string(log).unwrap();
    log.matches("(INJECTED)").count()
}

/// The calls of one name that a trial disturbs: the first one, the last one, and every third
/// between them, which differ by `offset`. With `MOUNTJAIL_FAULTS=each` it is each of them.
pub(crate) fn chosen(calls: RangeInclusive<usize>, offset: usize) -> impl Iterator<Item = usize> {
    let each = std::env::var_os("MOUNTJAIL_FAULTS").is_some_and(|which| which == "each");
    let ends = [*calls.start(), *calls.end()];
    calls.filter(move |nth| each || ends.contains(nth) || (nth + offset).is_multiple_of(3))
}

/// The kernel has as many mounts as it may have (`fs.mount-max`) when a mount is to be attached,
/// for a moment or for good.
fn full(engine: &'static str) {
    let attaches = if engine == "classic" {
        "mount"
    } else {
        "move_mount"
    };
    for run in [Run::Up, Run::Swap, Run::Renew] {
        let count = Site::new(engine, run).count_calls(run, &[], 0)[attaches];
        for nth in chosen(1..=count, run as usize) {
            for how_long in ["", "+"] {
                let site = Site::new(engine, run);
                let before = site.visible();
                let fault = format!("inject={attaches}:error=ENOSPC:when={nth}{how_long}");
                let log = site.sandbox.path("full");
                let ran = site.run(run, &log, &[&fault]);
                let (fault, times) = (suffered(&[&fault], &log), injected(&log));
                assert!(
                    ran.code == 0 && how_long.is_empty()
                        || ran.stderr.contains("error: s: ")
                            && ran.stderr.contains("`sysctl fs.mount-max"),
                    "{fault}\n{ran}"
                );
                // What was detached before cannot be attached again.
                if run != Run::Swap || how_long.is_empty() {
                    site.told_the_truth(run, &fault, &before, &ran);
                }
                // The classic engine needs the room of the old mount.
                if run != Run::Up && (engine == "detached" || times == 1) {
                    site.shows_what_stays(&format!("{fault}\n{ran}"));
                }
                site.converges(&fault);
                site.goes_down(&fault);
            }
        }
    }
}

/// The last mount fails; while the others are undone, the program is killed.
fn killed_in_undo(engine: &'static str) {
    let run = Run::Swap;
    let mounts = if engine == "classic" {
        "mount"
    } else {
        "move_mount"
    };
    let forth = Site::new(engine, run).count_calls(run, &[], 0);
    let fault = Fault::Error.at(mounts, forth[mounts]);
    let all = Site::new(engine, run).count_calls(run, &[&fault], 1);
    let back = all.iter().filter(|(call, _)| *call != mounts);
    let mut kills = 0;
    for (call, count) in back {
        let first = forth.get(call).map_or(1, |count| count + 1);
        for nth in chosen(first..=*count, 0) {
            Site::new(engine, run).suffers(run, Fault::Kill, &[&fault, &Fault::Kill.at(call, nth)]);
            kills += 1;
        }
    }
    assert!(
        kills > 10,
        "hardly anything was undone: {forth:?}, then {all:?}"
    );
}

/// A file system that cannot exchange two files: the old passwd and group are deleted, so their
/// mounts cannot come back.
fn without_exchange(engine: &'static str) {
    let run = Run::Swap;
    let mounts = if engine == "classic" {
        "mount"
    } else {
        "move_mount"
    };
    let no_exchange = "inject=renameat2:error=EINVAL";
    let last = Site::new(engine, run).count_calls(run, &[no_exchange], 0)[mounts];
    let site = Site::new(engine, run);
    let before = site.visible();
    let faults = [no_exchange, &Fault::Error.at(mounts, last)];
    let ran = site.run(run, Path::new("/dev/null"), &faults).exits(1);
    let ran = ran.says("the new /etc/passwd stays: the old one cannot be mounted again");
    let after = site.visible();
    assert_eq!(
        before.2, after.2,
        "the generated files say what they said\n{ran}"
    );
    before.1.assert_same(&after.1);
    site.converges("without exchange");
    site.goes_down("without exchange");
}

/// A site with files, a directory, one mount inside another, a recursive one, users, and room for
/// placeholders and links.
struct Site {
    sandbox: Sandbox,
    root: PathBuf,
    bare: Tree,
}

impl Drop for Site {
    /// Thousands of mounts would slow the trials down.
    fn drop(&mut self) {
        for mount in mounts_below(&self.sandbox.path("host")) {
            umount2(&mount.point, MntFlags::MNT_DETACH).unwrap();
        }
    }
}

fn tmpfs(at: &Path) {
    mount(
        Some("sub"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
}

impl Site {
    fn new(engine: &'static str, run: Run) -> Self {
        let sandbox = Sandbox::with_engine(engine);
        sandbox.file("host/one", "one");
        sandbox.file("host/two", "two");
        sandbox.file("host/dir/inner/file", "inner");
        sandbox.directory("host/other");
        tmpfs(&sandbox.directory("host/tree/sub"));
        let root = sandbox.site("s", "");
        fs::write(root.join("kept"), "the site's own").unwrap();
        let bare = tree(&root);
        let site = Self {
            sandbox,
            root,
            bare,
        };
        site.write_manifest(
            "www-data",
            &[
                "one /etc/one",
                "dir /srv/dir",
                "other /srv/dir/inner",
                "two /gone",
            ],
        );
        if run == Run::Renew {
            let two = ["one /etc/one", "two /etc/deep/two", "dir /srv/dir"];
            site.write_manifest("www-data", &two);
            site.up_one_by_one();
        } else if run != Run::Up {
            site.sandbox.ok(&["up", "s"]);
        }
        if matches!(run, Run::Swap | Run::SwapDeleted) {
            let one = site.sandbox.path("host/one");
            if run == Run::Swap {
                fs::rename(&one, one.with_extension("old")).unwrap();
            }
            replace(&one, "one, replaced");
            fs::rename(
                site.sandbox.path("host/tree"),
                site.sandbox.path("host/tree.old"),
            )
            .unwrap();
            tmpfs(&site.sandbox.directory("host/tree/another"));
            let mounts = [
                "one /etc/one",
                "two /etc/deep/two",
                "dir /srv/dir",
                "other /srv/new",
                "tree /tree",
            ];
            site.write_manifest("www-data, nobody", &mounts);
        }
        site
    }

    /// Brings the site up while lines of fstab(5) need what is in the root, so that nothing comes
    /// from a template.
    fn up_one_by_one(&self) {
        let fstab = self.sandbox.file("fstab", "");
        let fstab = fstab.to_str().unwrap();
        self.sandbox
            .ok(&["fstab", "--install", "--file", fstab, "s"]);
        self.sandbox.ok(&["up", "s"]);
        self.sandbox
            .ok(&["fstab", "--uninstall", "--file", fstab, "s"]);
    }

    fn write_manifest(&self, users: &str, mounts: &[&str]) {
        let lines = mounts.iter().map(|mount| {
            let (source, target) = mount.split_once(' ').unwrap();
            let source = self.sandbox.path("host").join(source);
            let more = if target == "/tree" {
                ", recursive: true"
            } else {
                ""
            };
            format!(
                "  - {{ source: {}, target: {target}{more} }}\n",
                source.display()
            )
        });
        let (root, lines) = (self.root.display(), lines.collect::<String>());
        let text = format!("root: {root}\nusers: [{users}]\nmounts:\n{lines}");
        self.sandbox.manifest("s", text);
    }

    fn arguments(run: Run) -> &'static [&'static str] {
        match run {
            Run::Down => &["down", "s"],
            Run::Renew => &["up", "--renew", "s"],
            Run::Up | Run::Swap | Run::SwapDeleted => &["up", "s"],
        }
    }

    /// Runs under strace(1), which writes to `log`, with these faults.
    fn run(&self, run: Run, log: &Path, faults: &[&str]) -> Ran {
        let trace = format!("trace={CALLS}");
        let log = log.to_str().unwrap();
        let mut runner = vec![
            "strace",
            "-f",
            "-q",
            "-e",
            "signal=none",
            "-o",
            log,
            "-e",
            &trace,
        ];
        runner.extend(faults.iter().flat_map(|fault| ["-e", fault]));
        Ran::of(
            self.sandbox
                .command_under(&runner)
                .args(Self::arguments(run)),
        )
    }

    /// How often a thread of the run makes each call, at most, where with `faults` it ends with the
    /// exit code `code`: strace counts the calls of each thread by themselves.
    fn count_calls(&self, run: Run, faults: &[&str], code: i32) -> BTreeMap<String, usize> {
        let log = self.sandbox.path("strace");
        self.run(run, &log, faults).exits(code);
        counted(&log)
    }

    fn suffers(&self, run: Run, fault: Fault, faults: &[&str]) {
        let before = self.visible();
        let log = self.sandbox.path("suffered");
        let ran = self.run(run, &log, faults);
        let what = suffered(faults, &log);
        match fault {
            // Which thread makes a call differs from run to run, and so how many one thread makes.
            Fault::Kill => assert!(
                ran.code == 137 || !faults.iter().any(|fault| is_reached(fault, &log)),
                "{what}: it was not killed\n{ran}"
            ),
            Fault::Error | Fault::Errors | Fault::Stop => {
                self.told_the_truth(run, &what, &before, &ran);
            }
        }
        let status = self.sandbox.run(&["status", "s"]);
        assert!(
            !status.stdout.contains("foreign"),
            "{what}: one of ours is taken for another's\n{ran}\n{status}"
        );
        if run == Run::Down {
            self.goes_down(&what);
        }
        self.converges(&what);
        self.goes_down(&what);
    }

    /// What each target shows and how, what stands below the mounts, and the generated files.
    fn visible(&self) -> (BTreeSet<String>, Tree, Vec<Option<String>>) {
        let mount = |mount: Mount| {
            let inode = fs::metadata(&mount.point).unwrap().ino();
            format!(
                "{} {} {inode} {:?}",
                mount.point.display(),
                mount.root.display(),
                mount.options
            )
        };
        let lib = self.sandbox.state().join("lib");
        let files = ["s.passwd", "s.group"].map(|name| fs::read_to_string(lib.join(name)).ok());
        (
            mounts_below(&self.root).into_iter().map(mount).collect(),
            tree(&self.root).without_times_of_empty_files(),
            files.into(),
        )
    }

    /// A run with a failing call either succeeds anyway, or reports the failure and, if it is an
    /// `up`, leaves everything as it was.
    fn told_the_truth(
        &self,
        run: Run,
        what: &str,
        before: &(BTreeSet<String>, Tree, Vec<Option<String>>),
        ran: &Ran,
    ) {
        if ran.code == 0 {
            let renews = run == Run::Renew;
            assert!(
                !renews || !grafts_below(&self.root).is_empty(),
                "{what}: {ran}"
            );
            match run {
                Run::Down => self.is_bare(what),
                _ => drop(self.sandbox.ok(&["status", "s"])),
            }
            return;
        }
        assert!(
            ran.code == 1 && ran.stderr.contains("error"),
            "{what}: no clear end\n{ran}"
        );
        assert!(
            !ran.stderr.contains("os error") && !ran.stderr.contains("panicked"),
            "{what}: {ran}"
        );
        let lasts = ran.stderr.contains("not as it was before");
        assert!(
            !lasts || run == Run::SwapDeleted || what.contains(".."),
            "{what}: not undone\n{ran}"
        );
        if run == Run::Down || lasts {
            return;
        }
        let after = self.visible();
        let undone = !ran.stderr.contains("not undone");
        assert!(
            undone || what.contains(".."),
            "{what}: one failure keeps it from being undone\n{ran}"
        );
        if undone {
            assert_eq!(
                before.0, after.0,
                "{what}: the mounts are not as before\n{ran}"
            );
            before.1.assert_same(&after.1);
            assert_eq!(
                before.2, after.2,
                "{what}: the generated files are not as before\n{ran}"
            );
        }
    }

    /// What both manifests of a [swap](Run::Swap) ask for is there, old or new.
    fn shows_what_stays(&self, what: &str) {
        let text = |path| fs::read_to_string(self.root.join(path)).unwrap_or_default();
        assert!(text("etc/one").starts_with("one"), "{what}");
        assert!(text("etc/passwd").contains("www-data"), "{what}");
        assert!(self.root.join("srv/dir/inner").exists(), "{what}");
    }

    fn converges(&self, what: &str) {
        let ran = self.sandbox.run(&["up", "s"]);
        assert!(ran.code == 0, "{what}: the next up fails\n{ran}");
        let status = self.sandbox.run(&["status", "s"]);
        assert!(
            status.code == 0,
            "{what}: the next up did not converge\n{ran}\n{status}"
        );
        let one = fs::read_to_string(self.sandbox.path("host/one")).unwrap();
        assert_eq!(
            fs::read_to_string(self.root.join("etc/one")).unwrap(),
            one,
            "{what}"
        );
        for mount in mounts_below(&self.root) {
            assert!(mount.has("ro"), "{what}: {mount:?}");
        }
    }

    fn goes_down(&self, what: &str) {
        let ran = self.sandbox.run(&["down", "s"]);
        assert!(ran.code == 0, "{what}: the next down fails\n{ran}");
        self.is_bare(what);
    }

    fn is_bare(&self, what: &str) {
        let left = mounts_below(&self.root);
        assert!(left.is_empty(), "{what}: these mounts are left: {left:?}");
        self.bare.assert_same(&tree(&self.root));
        let scratch = mounts_below(&self.sandbox.state());
        assert!(
            scratch.is_empty(),
            "{what}: scratch mounts are left: {scratch:?}"
        );
        for directory in ["run", "lib"] {
            let files = fs::read_dir(self.sandbox.state().join(directory)).unwrap();
            let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let left: Vec<_> = files
                .filter(|name| {
                    !["s.lock", "templates.lock", "scratch", ".edit.lock"].contains(&name.as_str())
                })
                .collect();
            assert!(
                left.is_empty(),
                "{what}: in {directory}, these files are left: {left:?}"
            );
        }
    }
}

/// Whether a thread made the call as often as `inject=CALL:signal=SIGKILL:when=N` says.
fn is_reached(fault: &str, log: &Path) -> bool {
    let (call, when) = fault
        .strip_prefix("inject=")
        .and_then(|fault| fault.split_once(":signal=SIGKILL:when="))
        .unwrap();
    let made = counted(log).get(call).copied().unwrap_or_default();
    made >= when.parse::<usize>().unwrap()
}

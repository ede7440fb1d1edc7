//! Promise: whatever stops a run in the middle, the next `up` converges and the next `down` leaves nothing.
//!
//! Each trial counts the system calls that an undisturbed run makes, by strace. Then, for each of them, it
//! lets that one call fail, and in another run kills the program there.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use support::{Ran, Sandbox, Tree, for_each_engine, mounts_below, tree};

/// The calls that mount, that look where to, and that write down what was done. An older strace does not
/// know statmount(2): `?`.
const CALLS: &str = "open_tree,mount_setattr,move_mount,mount,umount2,openat2,mkdirat,mkdir,symlinkat,\
                     unlinkat,unlink,rename,fsync,?statmount,flock,fstatfs";

fn main() -> ExitCode {
    support::main(
        [
            for_each_engine("up, each call failing", |engine| each_call(engine, Run::Up, Fault::Error)),
            for_each_engine("up, killed at each call", |engine| each_call(engine, Run::Up, Fault::Kill)),
            for_each_engine("swap, each call failing", |engine| each_call(engine, Run::Swap, Fault::Error)),
            for_each_engine("swap, killed at each call", |engine| each_call(engine, Run::Swap, Fault::Kill)),
            for_each_engine("down, each call failing", |engine| each_call(engine, Run::Down, Fault::Error)),
            for_each_engine("down, killed at each call", |engine| each_call(engine, Run::Down, Fault::Kill)),
        ]
        .into_iter()
        .flatten()
        .collect(),
    )
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    /// Of a site that is down.
    Up,
    /// `up` of a site that is up, after sources were replaced and the manifest changed.
    Swap,
    /// Of a site that is up.
    Down,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Error,
    Kill,
}

fn each_call(engine: &'static str, run: Run, fault: Fault) {
    let calls = Site::new(engine, run).count_calls(run);
    assert!(calls.values().sum::<usize>() > 20, "strace saw too few calls: {calls:?}");
    for (call, count) in calls {
        for nth in 1..=count {
            let what = match fault {
                Fault::Error => format!("inject={call}:error=EIO:when={nth}"),
                Fault::Kill => format!("inject={call}:signal=SIGKILL:when={nth}"),
            };
            Site::new(engine, run).suffers(run, fault, &what);
        }
    }
}

/// A site with files, a directory, one mount inside another, and room for placeholders and links.
struct Site {
    sandbox: Sandbox,
    root: PathBuf,
    bare: Tree,
}

impl Site {
    fn new(engine: &'static str, run: Run) -> Self {
        let sandbox = Sandbox::with_engine(engine);
        sandbox.file("host/one", "one");
        sandbox.file("host/two", "two");
        sandbox.file("host/dir/inner/file", "inner");
        sandbox.directory("host/other");
        let root = sandbox.site("s", "");
        fs::write(root.join("kept"), "the site's own").unwrap();
        let bare = tree(&root);
        let site = Self { sandbox, root, bare };
        site.write_manifest(&["one /etc/one", "dir /srv/dir", "other /srv/dir/inner"]);
        if run != Run::Up {
            site.sandbox.ok(&["up", "s"]);
        }
        if run == Run::Swap {
            site.replace("host/one", "one, replaced");
            site.write_manifest(&["one /etc/one", "two /etc/deep/two", "dir /srv/dir"]);
        }
        site
    }

    fn write_manifest(&self, mounts: &[&str]) {
        let lines = mounts.iter().map(|mount| {
            let (source, target) = mount.split_once(' ').unwrap();
            let source = self.sandbox.path("host").join(source);
            format!("  - {{ source: {}, target: {target} }}\n", source.display())
        });
        let text = format!("root: {}\nmounts:\n{}", self.root.display(), lines.collect::<String>());
        self.sandbox.manifest("s", text);
    }

    fn replace(&self, path: &str, contents: &str) {
        let new = self.sandbox.file(format!("{path}.new"), contents);
        // Moved aside, not deleted: only such a mount can be put back when the swap has to be undone.
        fs::rename(self.sandbox.path(path), self.sandbox.path(format!("{path}.old"))).unwrap();
        fs::rename(new, self.sandbox.path(path)).unwrap();
    }

    fn arguments(run: Run) -> [&'static str; 2] {
        [if run == Run::Down { "down" } else { "up" }, "s"]
    }

    fn count_calls(&self, run: Run) -> BTreeMap<String, usize> {
        let log = self.sandbox.path("strace");
        let trace = format!("trace={CALLS}");
        let log_name = log.to_str().unwrap();
        let runner = ["strace", "-f", "-q", "-e", "signal=none", "-e", &trace, "-o", log_name];
        Ran::of(self.sandbox.command_under(&runner).args(Self::arguments(run))).exits(0);
        let mut calls = BTreeMap::new();
        for line in fs::read_to_string(log).unwrap().lines() {
            let call = line.split_once(' ').and_then(|(_pid, rest)| rest.trim_start().split_once('('));
            if let Some((call, _)) = call.filter(|(call, _)| !call.starts_with("syscall_")) {
                *calls.entry(call.to_owned()).or_default() += 1;
            }
        }
        calls
    }

    fn suffers(&self, run: Run, fault: Fault, what: &str) {
        let before = self.visible();
        let trace = format!("trace={CALLS}");
        let runner = ["strace", "-f", "-q", "-o", "/dev/null", "-e", &trace, "-e", what];
        let ran = Ran::of(self.sandbox.command_under(&runner).args(Self::arguments(run)));
        match fault {
            Fault::Kill => assert!(ran.code == 137, "{what}: it was not killed\n{ran}"),
            Fault::Error => self.told_the_truth(run, what, &before, &ran),
        }
        if run == Run::Down {
            self.goes_down(what);
        }
        self.converges(what);
        self.goes_down(what);
    }

    /// What each target shows, and the tree below the mounts.
    fn visible(&self) -> (Vec<(PathBuf, PathBuf)>, Tree) {
        let mounts = mounts_below(&self.root).into_iter().map(|mount| (mount.point, mount.root)).collect();
        (mounts, tree(&self.root))
    }

    /// A run with a failing call either did its job all the same, or said that it did not and, if it was an
    /// `up`, left everything as it was.
    fn told_the_truth(&self, run: Run, what: &str, before: &(Vec<(PathBuf, PathBuf)>, Tree), ran: &Ran) {
        if ran.code == 0 {
            match run {
                Run::Down => self.is_bare(what),
                Run::Up | Run::Swap => drop(self.sandbox.ok(&["status", "s"])),
            }
            return;
        }
        assert!(ran.code == 1 && ran.stderr.contains("error"), "{what}: no clear end\n{ran}");
        assert!(!ran.stderr.contains("os error") && !ran.stderr.contains("panicked"), "{what}: {ran}");
        if run != Run::Down {
            let mut after = self.visible();
            after.0.sort();
            let mut was = before.0.clone();
            was.sort();
            assert_eq!(was, after.0, "{what}: the mounts are not as before\n{ran}");
            before.1.assert_same(&after.1);
        }
    }

    fn converges(&self, what: &str) {
        let ran = self.sandbox.run(&["up", "s"]);
        assert!(ran.code == 0, "{what}: the next up fails\n{ran}");
        let status = self.sandbox.run(&["status", "s"]);
        assert!(status.code == 0, "{what}: the next up did not converge\n{ran}\n{status}");
        let one = fs::read_to_string(self.sandbox.path("host/one")).unwrap();
        assert_eq!(fs::read_to_string(self.root.join("etc/one")).unwrap(), one, "{what}");
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
        assert!(scratch.is_empty(), "{what}: scratch mounts are left: {scratch:?}");
        for record in ["run/s.json", "lib/s.json"] {
            assert!(!self.sandbox.state().join(record).exists(), "{what}: {record} is left");
        }
        assert!(Path::new("/dev/null").exists());
    }
}

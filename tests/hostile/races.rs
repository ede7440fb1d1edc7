//! Promises under fire: never visible writable, no gap in a swap, nothing outside the root.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Sandbox, for_each_engine, mounts_below, site_of_one_file, tree, trials};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{CWD, RenameFlags, renameat_with};

const CYCLES: usize = 1000;
const FLIPS: usize = 10_000;
const UPS: usize = 100;

pub fn all() -> Vec<Trial> {
    [
        for_each_engine("a mounted file is never open to writers", never_writable),
        for_each_engine("nothing lands outside while a link flips", |engine| {
            flips(engine, By::Link);
        }),
        for_each_engine(
            "nothing stays outside while a directory moves out",
            |engine| {
                flips(engine, By::Move);
            },
        ),
        for_each_engine(
            "nothing is made in a source that a directory changes places with",
            exchanges,
        ),
        for_each_engine("two runs at once give the result of one", two_at_once),
        for_each_engine(
            "a source that is replaced meanwhile is looked at again",
            replaced_meanwhile,
        ),
        for_each_engine(
            "a source that is replaced during a swap is swapped in anyway",
            replaced_in_swap,
        ),
        for_each_engine(
            "submounts are known wherever the root is moved meanwhile",
            moved_meanwhile,
        ),
        for_each_engine(
            "a directory that is removed in another namespace meanwhile takes its mounts along",
            removed_meanwhile,
        ),
    ]
    .into_iter()
    .flatten()
    .chain(trials([("a reader sees no gap in a swap", no_gap)]))
    .collect()
}

/// Ends the loops of a scope's threads also when the test's own thread panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn never_writable(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (source, target) = site_of_one_file(&sandbox, "not for you");
    let precious = fs::metadata(&source).unwrap().ino();
    let (stop, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // The placeholder can be opened: it is the site's own empty file.
                    match OpenOptions::new().write(true).open(&target) {
                        Ok(file) => {
                            assert_ne!(
                                file.metadata().unwrap().ino(),
                                precious,
                                "open for writing"
                            );
                        }
                        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                    }
                }
            });
        }
        for _ in 0..CYCLES {
            sandbox.ok(&["up", "-q", "s"]);
            sandbox.ok(&["down", "-q", "--lazy", "s"]);
        }
    });
    assert!(
        refused.into_inner() > CYCLES,
        "the threads hardly ever saw the mount"
    );
}

/// Runs `up s`, stopped at each of its system calls that strace(1) filters by `filter`; calls
/// `at_stop` with the number of each stop and the thread's id before it goes on. Returns its exit
/// code, what it complained, and how often it stopped.
fn up_with_stops(
    sandbox: &Sandbox,
    filter: &[&str],
    mut at_stop: impl FnMut(usize, Pid),
) -> (Option<i32>, String, usize) {
    let log = sandbox.path("strace");
    let mut runner = vec!["strace", "-f", "-q", "-o", log.to_str().unwrap()];
    runner.extend(filter);
    let mut command = sandbox.command_under(&runner);
    let mut up = command
        .args(["up", "s"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    let mut stops = 0;
    let status = loop {
        if let Some(status) = up.try_wait().unwrap() {
            break status;
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        // Each thread stops; the one that was sent the signal is to be among them.
        let (mut sent, mut stopped) = ("", vec![]);
        for line in said.lines() {
            let thread = line.split_whitespace().next().unwrap_or_default();
            if line.contains("--- SIGSTOP {") {
                sent = thread;
            } else if line.contains("--- stopped by SIGSTOP") && sent == thread {
                stopped.push(thread);
                sent = "";
            }
        }
        if let Some(pid) = stopped.get(stops) {
            stops += 1;
            let pid = Pid::from_raw(pid.parse().unwrap());
            at_stop(stops, pid);
            let _ = kill(pid, Signal::SIGCONT); // it may have been killed
        }
        thread::sleep(Duration::from_millis(1));
    };

    let mut said = String::new();
    up.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    fs::remove_file(log).unwrap();
    (status.code(), said, stops)
}

/// The source is replaced once, after `up` has looked at it for the first or the second time; then
/// after each look.
fn replaced_meanwhile(engine: &'static str) {
    for (when, code) in [(Some(1), 0), (Some(2), 0), (None, 1)] {
        let sandbox = Sandbox::with_engine(engine);
        let (source, target) = site_of_one_file(&sandbox, "number 0");
        let filter = [
            "-P",
            source.to_str().unwrap(),
            "-e",
            "trace=statx",
            "-e",
            "inject=statx:signal=SIGSTOP",
        ];
        let (ended, said, stops) = up_with_stops(&sandbox, &filter, |stop, _| {
            if when.is_none_or(|when| when == stop) {
                fs::rename(sandbox.file("host/new", format!("number {stop}")), &source).unwrap();
            }
        });
        assert_eq!(ended, Some(code), "{when:?}: {said}");
        assert!(stops > 2, "{when:?}: it was looked at {stops} times only");
        if let Some(when) = when {
            assert_eq!(
                fs::read_to_string(target).unwrap(),
                format!("number {when}"),
                "{said}"
            );
            sandbox.ok(&["status", "s"]);
        } else {
            assert!(said.contains("run the command again"), "{said}");
            assert_eq!(mounts_below(&sandbox.root("s")), []);
        }
    }
}

/// For strace(1): SIGSTOP at each call that mounts or unmounts.
const AT_MOUNT_CALLS: [&str; 4] = [
    "-e",
    "trace=mount,umount2,open_tree,move_mount",
    "-e",
    "inject=mount,umount2,open_tree,move_mount:signal=SIGSTOP",
];

/// The source of a mount that is to be swapped is replaced, and so deleted: at each call of the
/// first swap in turn, then at all of the first calls. The old file is deleted as well, so the old
/// mount could not be brought back.
fn replaced_in_swap(engine: &'static str) {
    let mut calls = 1;
    let mut when = 1..=1;
    loop {
        let sandbox = Sandbox::with_engine(engine);
        let (source, target) = site_of_one_file(&sandbox, "before");
        // While a mount is on the file (EBUSY), nobody replaces it.
        let replace = |text: &str| match fs::rename(sandbox.file("host/new", text), &source) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => false,
            result => result.is_ok(),
        };
        sandbox.ok(&["up", "s"]);
        assert!(replace("number 0"));
        let mut last = 0;
        let (code, said, stops) = up_with_stops(&sandbox, &AT_MOUNT_CALLS, |stop, _| {
            if when.contains(&stop) && replace(&format!("number {stop}")) {
                last = stop;
            }
        });
        assert_eq!(code, Some(0), "{when:?} of {stops}: {said}");
        assert_eq!(
            mounts_below(&target).len(),
            1,
            "{when:?} of {stops}: {said}"
        );
        sandbox.ok(&["up", "s"]);
        assert_eq!(
            fs::read_to_string(&target).unwrap(),
            format!("number {last}"),
            "{when:?} of {stops}: {said}"
        );
        sandbox.ok(&["down", "s"]);

        calls = calls.max(stops);
        when = match (*when.start(), *when.end()) {
            (1, end) if end > 1 => return,
            (nth, _) if nth < calls => nth + 1..=nth + 1,
            _ => 1..=6,
        };
    }
}

/// The root is moved at each call of `up` that mounts: `down` finds the mounts there, and all of
/// them, also if the run was killed then. (One of the classic engine knows no ids before it mounts,
/// so nothing tells where a root is that is moved then.)
fn moved_meanwhile(engine: &'static str) {
    let filter = [
        "-e",
        "trace=mount,move_mount",
        "-e",
        "inject=mount,move_mount:signal=SIGSTOP",
    ];
    for killed in [false, true] {
        let (mut when, mut calls) = (1, 1);
        while when <= calls && !(killed && engine == "classic") {
            let sandbox = Sandbox::with_engine(engine);
            let tree = sandbox.directory("host/tree");
            mount_tmpfs(&sandbox.directory("host/tree/sub"));
            let line = format!(
                "mounts: [{{ source: {}, target: /tree, recursive: true }}]\n",
                tree.display()
            );
            let (root, aside) = (sandbox.site("s", &line), sandbox.path("aside/chroot"));
            sandbox.directory("aside");
            let (_, said, stops) = up_with_stops(&sandbox, &filter, |stop, pid| {
                if stop == when {
                    fs::rename(&root, &aside).unwrap();
                    if killed {
                        kill(pid, Signal::SIGKILL).unwrap();
                    }
                }
            });
            calls = calls.max(stops);
            let what = format!("{when} of {calls}, killed: {killed}: {said}");
            let down = sandbox.run(&["down", "s"]);
            let left = [mounts_below(&root), mounts_below(&aside)].concat();
            assert_eq!(left, [], "{what}\n{down}");
            assert_eq!(down.code, 0, "{what}\n{down}");
            when += 1;
        }
    }
}

/// At each call of `up` that mounts, in turn, the owner removes the directories that are mounted
/// on, in a namespace where nothing is mounted in them. The kernel then unmounts what is there. The
/// site was down, or it was up and has sources that were replaced.
fn removed_meanwhile(engine: &'static str) {
    for was_up in [false, true] {
        let (mut when, mut calls) = (1, 1);
        while when <= calls {
            let sandbox = Sandbox::with_engine(engine);
            let (file, tree) = (
                sandbox.file("host/file", ""),
                sandbox.directory("host/tree"),
            );
            let lines = format!(
                "mounts: [{{ source: {}, target: /etc }}, {{ source: {}, target: /own/file, \
                 access: read-write }}]\n",
                tree.display(),
                file.display()
            );
            let root = sandbox.site("s", &lines);
            for directory in ["etc", "own"] {
                fs::create_dir(root.join(directory)).unwrap();
            }
            let mut owner = Elsewhere::new();
            if was_up {
                sandbox.ok(&["up", "s"]);
                fs::rename(sandbox.file("host/new", ""), file).unwrap();
                fs::rename(&tree, sandbox.path("host/old")).unwrap();
                fs::create_dir(tree).unwrap();
            }

            let (code, said, stops) = up_with_stops(&sandbox, &AT_MOUNT_CALLS, |stop, _| {
                if stop == when {
                    owner.removes(&["etc", "own"].map(|name| root.join(name)));
                }
            });
            calls = calls.max(stops);
            let what = format!("{when} of {calls}, was up: {was_up}: {code:?}: {said}");
            assert!(!said.contains("Invalid argument"), "{what}");
            assert!(!said.contains("not undone"), "{what}");
            assert_eq!(code, Some(0), "{what}");
            sandbox.ok(&["up", "s"]);
            sandbox.ok(&["status", "s"]);
            sandbox.ok(&["down", "s"]);
            assert_eq!(mounts_below(&root), [], "{what}");
            when += 1;
        }
        assert!(calls > 3, "it was stopped {calls} times only");
    }
}

/// A shell in a mount namespace of its own, which no later mount reaches.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Self {
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "--propagation", "private", "sh", "-e"]);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut elsewhere = Self(shell.spawn().unwrap());
        elsewhere.does("");
        elsewhere
    }

    /// Returns when the shell has carried out `command`.
    fn does(&mut self, command: &str) {
        let input = self.0.stdin.as_mut().unwrap();
        writeln!(input, "{command}\necho done").unwrap();
        let mut answer = [0; 5];
        let output = self.0.stdout.as_mut().unwrap();
        output.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"done\n");
    }

    fn removes(&mut self, paths: &[PathBuf]) {
        for path in paths {
            self.does(&format!("rm -r '{}'", path.display()));
        }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn mount_tmpfs(at: &Path) {
    mount(
        Some("sub"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
}

fn no_gap() {
    assert!(
        mountjail::sys::probe::move_mount_beneath(),
        "this kernel cannot swap without a gap"
    );
    let sandbox = Sandbox::with_engine("detached");
    let (source, target) = site_of_one_file(&sandbox, "version 0");
    sandbox.ok(&["up", "s"]);
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut text = String::new();
            while !stop.load(Ordering::Relaxed) {
                text.clear();
                File::open(&target)
                    .unwrap()
                    .read_to_string(&mut text)
                    .unwrap();
                assert!(text.starts_with("version "), "the reader saw {text:?}");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        for cycle in 1..=CYCLES {
            let version = format!("version {cycle}");
            fs::rename(sandbox.file("host/new", &version), &source).unwrap();
            sandbox.ok(&["up", "-q", "s"]);
            assert_eq!(fs::read_to_string(&target).unwrap(), version);
        }
    });
    assert!(reads.into_inner() > CYCLES);
    assert_eq!(mounts_below(&target).len(), 1);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The parent of the targets becomes a link to a directory of the host, and a directory again.
    Link,
    /// The parent of the targets changes places with a directory outside the root.
    Move,
}

fn flips(engine: &'static str, by: By) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.file("host/file", "source");
    let outside = sandbox.directory("outside/etc");
    fs::write(outside.join("a"), "").unwrap();
    let source = source.display();
    let root = sandbox.site(
        "s",
        &format!(
            "mounts:\n  - {{ source: {source}, target: /etc/a }}\n  - {{ source: {source}, target: \
             /etc/b }}\n"
        ),
    );
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(root.join("etc/a"), "").unwrap();
    let other = match by {
        By::Link => {
            symlink(&outside, root.join("link")).unwrap();
            root.join("link")
        }
        By::Move => outside.clone(),
    };
    let before = tree(&sandbox.path("outside"));
    up_and_down_while(&sandbox, || {
        // There and back, so that in the end everything is where it was.
        for _ in 0..2 {
            renameat_with(CWD, root.join("etc"), CWD, &other, RenameFlags::EXCHANGE).unwrap();
            if by == By::Link {
                nothing_at(&outside);
            }
        }
        2
    });
    if by == By::Link {
        before.assert_same(&tree(&sandbox.path("outside")));
        nothing_at(&outside);
    }
    // An empty placeholder may have been moved out with its directory; no mount may stay there.
    assert!(
        mounts_below(&sandbox.path("outside")).is_empty(),
        "a mount is left outside"
    );
}

/// The owner of a root exchanges the directories above two targets: the one leads into a host's
/// directory that is mounted for writing, where the other one's placeholder would be made.
fn exchanges(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let host = sandbox.directory("host/www");
    let icons = sandbox.file("host/icons", "icons");
    let root = sandbox.site(
        "s",
        &format!(
            "mounts:\n  - {{ source: {}, target: /var/www, access: read-write }}\n  - {{ source: \
             {}, target: \
             /srv/www/icons }}\n",
            host.display(),
            icons.display()
        ),
    );
    let before = tree(&host);
    up_and_down_while(&sandbox, || {
        for directory in ["var", "srv"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let paths = (root.join("var"), root.join("srv"));
        let flipped = renameat_with(CWD, &paths.0, CWD, &paths.1, RenameFlags::EXCHANGE);
        assert_eq!(
            fs::read_dir(&host).unwrap().count(),
            0,
            "something was made in the source"
        );
        usize::from(flipped.is_ok())
    });
    before.assert_same(&tree(&host));
    assert_eq!(mounts_below(&root), [], "a mount is left");
}

/// Brings the site up and down, until that was often enough, and `flip`, which another thread calls
/// all the time, has flipped something often enough: it gives how often it has this time.
fn up_and_down_while(sandbox: &Sandbox, flip: impl Fn() -> usize + Sync) {
    let (stop, flips) = (AtomicBool::new(false), AtomicUsize::new(0));
    let run = |arguments: &[&str]| {
        let ran = sandbox.run(arguments);
        assert!(ran.code <= 1, "{ran}");
    };
    thread::scope(|scope| {
        let flipper = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                flips.fetch_add(flip(), Ordering::Relaxed);
            }
        });
        let mut ups = 0;
        let _stop = Stop(&stop);
        while (ups < UPS || flips.load(Ordering::Relaxed) < FLIPS) && !flipper.is_finished() {
            run(&["up", "-q", "s"]);
            run(&["down", "-q", "--lazy", "s"]);
            ups += 1;
        }
        stop.store(true, Ordering::Relaxed);
        flipper.join().unwrap();
    });
    run(&["down", "--lazy", "s"]);
}

/// Looks at the files, not at the table: it is asked ten thousand times.
fn nothing_at(outside: &Path) {
    assert_eq!(
        fs::metadata(outside.join("a")).unwrap().len(),
        0,
        "the source landed outside"
    );
    assert!(!outside.join("b").exists(), "something was made outside");
}

fn two_at_once(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (_, target) = site_of_one_file(&sandbox, "text");
    for _ in 0..50 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| sandbox.ok(&["up", "s"]));
            }
        });
        assert_eq!(mounts_below(&target).len(), 1);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| sandbox.ok(&["down", "s"]));
            }
        });
        assert_eq!(mounts_below(target.parent().unwrap()), []);
    }
}

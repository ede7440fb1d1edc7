//! Promise: adopting loses nothing and moves nothing else, whatever the root's owner does,
//! whichever call fails, and wherever the run is killed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::faults::{chosen, counted};
use crate::support::{Fuse, Ran, Sandbox, alone, bind, mounts_below, tree, trials, unmount};

/// The calls by which a run makes, moves, removes and mounts: between two of them nothing changes.
const CALLS: &str = "mkdirat,renameat2,renameat,rename,unlinkat,fsync,syncfs,fchmod,move_mount,\
                     umount2";

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        ("adopt recovers from a kill at each call", || {
            each_call(Run::Adopt, Fault::Kill);
        }),
        ("adopt recovers from each call failing", || {
            each_call(Run::Adopt, Fault::Error);
        }),
        ("adopt recovers from SIGTERM at each call", || {
            each_call(Run::Adopt, Fault::Stop);
        }),
        ("its undo recovers from a kill at each call", || {
            each_call(Run::Undo, Fault::Kill);
        }),
        ("its undo recovers from each call failing", || {
            each_call(Run::Undo, Fault::Error);
        }),
        ("a directory that the owner made is not used", made_before),
        (
            "files that would wait or lead out are neither read nor moved",
            traps,
        ),
        ("files that the owner exchanges are not moved", exchanged),
        ("a full disk and a read-only root change nothing", full),
        ("directories without an end are given up", endless),
        ("files that cannot be renamed are reported", immutable),
    ]);
    all.push(alone("a file system that hangs stops one site", hanging));
    all
}

fn aside(root: &Path) -> PathBuf {
    root.join(".mountjail-adopted")
}

/// The manifest lines for two files, a directory, and a directory in it.
fn manifest(sandbox: &Sandbox) -> String {
    let line = |source: &str, target: &str| {
        let source = sandbox.path("host").join(source);
        format!("  - {{ source: {}, target: {target} }}\n", source.display())
    };
    format!(
        "mounts:\n{}{}{}",
        line("one", "/etc/one"),
        line("two", "/two"),
        line("dir", "/srv/dir")
    )
}

/// A site with copies where its mounts belong.
fn site(sandbox: &Sandbox) -> PathBuf {
    sandbox.file("host/one", "one");
    sandbox.file("host/two", "two");
    sandbox.file("host/dir/inner/file", "inner");
    let root = sandbox.site("s", &manifest(sandbox));
    for (path, text) in [
        ("etc/one", "one"),
        ("two", "two"),
        ("srv/dir/inner/file", "inner"),
        ("srv/kept", "the site's own"),
    ] {
        sandbox.file(Path::new("srv/s").join(path), text);
    }
    root
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    Adopt,
    /// Of a site that was adopted and is up.
    Undo,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Error,
    Stop,
    Kill,
}

impl Fault {
    /// For strace: the `nth` of these calls.
    fn at(self, call: &str, nth: usize) -> String {
        match self {
            Self::Error => format!("inject={call}:error=EIO:when={nth}"),
            Self::Stop => format!("inject={call}:signal=SIGTERM:when={nth}"),
            Self::Kill => format!("inject={call}:signal=SIGKILL:when={nth}"),
        }
    }
}

impl Run {
    fn arguments(self) -> [&'static str; 3] {
        match self {
            Self::Adopt => ["adopt", "--write", "s"],
            Self::Undo => ["adopt", "--undo", "s"],
        }
    }

    fn prepared(self) -> (Sandbox, PathBuf) {
        let sandbox = Sandbox::with_engine("detached");
        let root = site(&sandbox);
        if self == Self::Undo {
            sandbox.ok(&["adopt", "--write", "s"]);
        }
        (sandbox, root)
    }

    fn under_strace(self, sandbox: &Sandbox, fault: Fault, log: &Path, more: &[&str]) -> Ran {
        let look_up = if fault == Fault::Error {
            ",openat2"
        } else {
            ""
        };
        let (trace, log) = (format!("trace={CALLS}{look_up}"), log.to_str().unwrap());
        let mut runner = vec!["strace", "-f", "-q", "-e", "signal=none", "-o", log];
        runner.extend(["-e", &trace]);
        runner.extend(more.iter().flat_map(|more| ["-e", more]));
        Ran::of(sandbox.command_under(&runner).args(self.arguments()))
    }

    /// How often a thread makes each call, at most: strace counts for each thread.
    fn count_calls(self, fault: Fault) -> BTreeMap<String, usize> {
        let (sandbox, _) = self.prepared();
        let log = sandbox.path("strace");
        self.under_strace(&sandbox, fault, &log, &[]).exits(0);
        counted(&log)
    }
}

fn each_call(run: Run, fault: Fault) {
    let calls = run.count_calls(fault);
    let moves = calls["renameat2"];
    assert!(moves >= 3, "each thing is renamed: {calls:?}");
    for (call, count) in calls {
        // Lookups are many, and change nothing.
        let nths: Vec<_> = match call.as_str() {
            "openat2" => chosen(1..=count, 0).collect(),
            _ => (1..=count).collect(),
        };
        for nth in nths {
            suffers(run, fault, &fault.at(&call, nth), nth % 2 == 0);
        }
    }
}

/// After the fault, the site is adopted in the end, or as it was before.
fn suffers(run: Run, fault: Fault, what: &str, undo_first: bool) {
    let bare = {
        let sandbox = Sandbox::with_engine("detached");
        contents(&site(&sandbox))
    };
    let (sandbox, root) = run.prepared();
    let (before, inodes) = (contents(&root), inodes(&root));
    let log = sandbox.path("suffered");
    let ran = run.under_strace(&sandbox, fault, &log, &[what]);
    match fault {
        Fault::Kill => assert_eq!(ran.code, 137, "{what}: it was not killed\n{ran}"),
        Fault::Error | Fault::Stop => {
            let stopped_at_once = fault == Fault::Stop && ran.code == 143;
            assert!(
                ran.code <= 1 || stopped_at_once,
                "{what}: no clear end\n{ran}"
            );
            assert!(!ran.stderr.contains("panicked"), "{what}\n{ran}");
            let says_so = ran.stderr.contains("cannot put");
            if run == Run::Adopt && ran.code != 0 && !says_so {
                let after = contents(&root);
                let lost: Vec<_> = before.iter().filter(|it| !after.contains(it)).collect();
                assert!(lost.is_empty(), "{what}: not as before: {lost:?}\n{ran}");
            }
        }
    }
    // Whatever was there is there, here or aside.
    for (inode, path) in &inodes {
        let now = self::inodes(&root);
        assert!(
            now.contains_key(inode),
            "{what}: lost {}\n{ran}",
            path.display()
        );
    }

    let end = |arguments: &[&str]| {
        let again = sandbox.run(arguments);
        assert!(
            again.code == 0,
            "{what}: {arguments:?} fails\n{ran}\n{again}"
        );
    };
    if undo_first {
        end(&["adopt", "--undo", "s"]);
        assert_eq!(bare, contents(&root), "{what}: undone\n{ran}");
    }
    end(&["adopt", "--write", "s"]);
    end(&["up", "s"]);
    end(&["status", "s"]);
    assert_eq!(
        fs::read_to_string(root.join("etc/one")).unwrap(),
        "one",
        "{what}"
    );
    end(&["adopt", "--undo", "s"]);
    assert!(mounts_below(&root).is_empty(), "{what}");
    assert_eq!(bare, contents(&root), "{what}: undone in the end\n{ran}");
}

/// What stands in the root itself: paths, with contents of files.
fn contents(root: &Path) -> Vec<PathBuf> {
    let record = Path::new("./.mountjail-adopted/record.json");
    let tree = tree(root);
    let paths = tree.paths().filter(|path| !path.starts_with(record));
    paths.map(Path::to_owned).collect()
}

/// The files of the site, by their inodes, wherever they are now.
fn inodes(root: &Path) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    let mut rest = vec![root.to_owned()];
    while let Some(directory) = rest.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let stat = entry.metadata().unwrap();
            if stat.is_dir() {
                rest.push(entry.path());
            } else if stat.len() > 0 && !entry.file_name().to_str().unwrap().starts_with("record.")
            {
                found.insert(stat.ino(), entry.path());
            }
        }
    }
    let host = |path: &PathBuf| {
        !mounts_below(root)
            .iter()
            .any(|it| path.starts_with(&it.point))
    };
    found.retain(|_, path| host(path));
    found
}

fn made_before() {
    type Make = fn(&Path);
    let make: [(&str, Make); 4] = [
        ("a directory of his", |at| {
            fs::create_dir(at).unwrap();
            fs::set_permissions(at, fs::Permissions::from_mode(0o700)).unwrap();
            chown(at, Some(33), Some(33)).unwrap();
        }),
        ("an open directory", |at| {
            fs::create_dir(at).unwrap();
            fs::set_permissions(at, fs::Permissions::from_mode(0o770)).unwrap();
        }),
        ("a link", |at| symlink("/tmp", at).unwrap()),
        ("a file", |at| fs::write(at, "his").unwrap()),
    ];
    for (what, make) in make {
        let sandbox = Sandbox::new();
        let root = site(&sandbox);
        make(&aside(&root));
        let before = tree(&root);
        let ran = sandbox.run(&["adopt", "--write", "s"]).exits(1);
        let ran = ran.says("it is not a directory that root made for itself alone");
        before.assert_same(&tree(&root));
        let moved = fs::rename(aside(&root), root.join("old"));
        assert!(moved.is_ok(), "{what}\n{ran}");
        sandbox.ok(&["adopt", "--write", "s"]);
    }
}

fn traps() {
    let sandbox = Sandbox::new();
    let root = site(&sandbox);
    let outside = sandbox.file("outside/one", "one");
    let (one, dir) = (root.join("etc/one"), root.join("srv/dir"));
    let refused = |text: &str| {
        let before = tree(&root);
        sandbox.run(&["adopt", "--write", "s"]).exits(1).says(text);
        before.assert_same(&tree(&root));
    };
    fs::remove_file(&one).unwrap();
    symlink(&outside, &one).unwrap();
    refused("it is a symbolic link to");
    fs::remove_file(&one).unwrap();
    fs::write(&one, "one").unwrap();

    mkfifo(&dir.join("fifo"), Mode::S_IRWXU).unwrap();
    refused("srv/dir/fifo: it is a FIFO");
    fs::remove_file(dir.join("fifo")).unwrap();
    symlink(sandbox.path("host/dir"), dir.join("link")).unwrap();
    refused("srv/dir/link: it is a symbolic link to");
    fs::remove_file(dir.join("link")).unwrap();

    bind(&sandbox.path("outside"), &dir.join("inner"));
    let also = ["adopt", "--write", "s", "--also", "/"];
    let ran = sandbox.run(&also).exits(1);
    let ran = ran.says("srv/dir/inner: something is mounted on it");
    let _ = ran.says("or move away by hand what is in the way there");
    unmount(&dir.join("inner"));
    sandbox.ok(&["adopt", "--write", "s"]);
    assert_eq!(fs::read_to_string(outside).unwrap(), "one");
}

/// A file of the owner's takes turns with the copy. It is never left aside.
fn exchanged() {
    let sandbox = Sandbox::new();
    let root = site(&sandbox);
    let own = root.join("srv/own");
    fs::write(&own, "his own").unwrap();
    let (copy, ino) = (root.join("etc/one"), fs::metadata(&own).unwrap().ino());
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, &own, CWD, &copy, RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..25 {
            let ran = sandbox.run(&["adopt", "--write", "s"]);
            let kept = aside(&root).join("etc/one");
            let kept = fs::metadata(kept).map_or(0, |kept| kept.ino());
            assert!(kept != ino, "his own file was moved\n{ran}");
            // What he put into the way stays, and so does what belongs there.
            let _ = sandbox.run(&["adopt", "--undo", "s"]);
        }
        end.store(true, Ordering::Relaxed);
    });
    // He may lose his own file, if he exchanges it for a placeholder that is being removed.
    let down = sandbox.run(&["down", "s"]);
    let texts = inodes(&root).into_values().map(fs::read_to_string);
    let mut texts = texts.map(Result::unwrap);
    assert!(texts.any(|text| text == "one"), "the copy is lost\n{down}");
}

fn full() {
    let sandbox = Sandbox::new();
    let root = sandbox.directory("srv/s");
    let flags = MsFlags::empty();
    mount(Some("small"), &root, Some("tmpfs"), flags, Some("size=64k")).unwrap();
    site(&sandbox);
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "status=none"])
        .arg(format!("of={}", root.join("filler").display()))
        .output()
        .unwrap();
    assert!(!filled.status.success(), "the disk is full");
    let before = tree(&root);
    let ran = sandbox.run(&["adopt", "--write", "s"]).exits(1);
    let _ = ran.says("No space left on device");
    before.assert_same(&tree(&root));
    fs::remove_file(root.join("filler")).unwrap();

    let before = tree(&root);
    let remount = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, &root, None::<&str>, remount, None::<&str>).unwrap();
    sandbox.run(&["adopt", "s"]).exits(3).prints("the same");
    let ran = sandbox.run(&["adopt", "--write", "s"]).exits(1);
    let _ = ran.says("Read-only file system");
    let remount = MsFlags::MS_REMOUNT;
    mount(None::<&str>, &root, None::<&str>, remount, None::<&str>).unwrap();
    before.assert_same(&tree(&root));
    sandbox.ok(&["adopt", "--write", "s"]);
}

fn endless() {
    let sandbox = Sandbox::new();
    let root = site(&sandbox);
    let deep = root.join("srv/dir").join("d/".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    let other = sandbox.site("other", "");
    let ran = sandbox.run(&["adopt", "--all", "--write"]).exits(1);
    let ran = ran.says("cannot look at");
    let _ = ran.prints("other: nothing to adopt");
    assert!(!aside(&root).exists() && !aside(&other).exists());
}

fn immutable() {
    let sandbox = Sandbox::new();
    let root = site(&sandbox);
    let two = root.join("two");
    let before = tree(&root);
    let mut command = sandbox.command_with_fault("renameat2:error=EPERM:when=3", &[]);
    let ran = Ran::of(command.args(["adopt", "--write", "s"])).exits(1);
    let ran = ran.says("Operation not permitted");
    let _ = ran.says("the site is as it was before");
    before.assert_same(&tree(&root));
    assert!(two.exists());
}

/// The owner's file system, on which a copy stands, never answers.
fn hanging() {
    let sandbox = Sandbox::new();
    site(&sandbox);
    let root = sandbox.directory("srv/hangs");
    let fuse = Fuse::mount(&root, 33);
    sandbox.site("hangs", "presets: [dns]\n");
    fuse.hang();
    let ran = sandbox
        .run(&["--timeout", "2", "adopt", "--all", "--write"])
        .exits(1);
    let ran = ran.says("did not answer within 2 s");
    let _ = ran.says("s: up, 3 mounts");
    fuse.resume();
}

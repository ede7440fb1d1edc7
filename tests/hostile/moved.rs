//! Promise: whatever the owner of a root does in it, no mount of ours is forgotten, and no other
//! site suffers.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Ran, Sandbox, Watcher, bind, for_each_engine, line, mounts, mounts_below, on_shared_root, soon,
    soon_reads, tree, unmount,
};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, mkdirat, openat, renameat, renameat_with};

pub fn all() -> Vec<Trial> {
    let mut all = for_each_engine(
        "a directory in place of ours does not stop up",
        in_its_place,
    );
    if mountjail::sys::probe::statmount() {
        // Without unique mount IDs (Linux 6.8) a mount that was moved away is nobody's.
        all.extend(for_each_engine(
            "mounts that are moved out of a path's reach are found",
            out_of_reach,
        ));
        all.extend(for_each_engine(
            "mounts of a killed run are found where they were moved to",
            killed,
        ));
        all.extend(for_each_engine(
            "mounts that are moved too deep for a path are not forgotten",
            too_deep,
        ));
        all.extend(for_each_engine(
            "a mount that is moved during an unmount is found",
            moved_meanwhile,
        ));
        all.extend(for_each_engine(
            "one up puts right what was moved onto other targets",
            onto_targets,
        ));
        all.extend(for_each_engine(
            "one up removes what was made beneath a moved mount",
            beneath,
        ));
        all.extend(for_each_engine(
            "one up makes what belongs beneath a mount that goes",
            made_beneath,
        ));
        all.extend(for_each_engine(
            "a moved mount that hides another is known to be ours",
            hides_another,
        ));
        all.extend(for_each_engine(
            "what somebody has mounted in a moved mount stays",
            with_theirs,
        ));
        all.push(on_shared_root(
            "the watcher finds moved mounts and goes on",
            watched,
        ));
        all.push(on_shared_root(
            "a pass of the watcher that fails is tried again",
            failed_pass,
        ));
    }
    all
}

/// A graft and a recursive mount are moved away with the directory above.
fn with_theirs(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let submount = sandbox.directory("host/tree/sub");
    bind(&sandbox.directory("host/other"), &submount);
    let line = |source: &Path, more: &str| format!("{{ source: {}, {more} }}", source.display());
    let lines = format!(
        "mounts: [{}, {}, {}]\n",
        line(&sandbox.file("host/one", "one"), "target: /up/x/one"),
        line(&sandbox.file("host/two", "two"), "target: /up/x/two"),
        line(
            &sandbox.path("host/tree"),
            "target: /up/tree, recursive: true"
        ),
    );
    let root = sandbox.site("s", &lines);
    sandbox.file("srv/s/up/own", "his");
    sandbox.ok(&["up", "s"]);
    let moved = root.join("moved");
    fs::rename(root.join("up"), &moved).unwrap();

    let theirs = sandbox.file("theirs", "theirs");
    for at in ["x/two", "tree/sub"] {
        let at = moved.join(at);
        bind(if at.is_dir() { &submount } else { &theirs }, &at);
        let before = mounts_below(&root);
        for command in ["up", "down"] {
            sandbox
                .run(&[command, "s"])
                .exits(1)
                .says("error: s: cannot detach what was moved away from /up/")
                .says(&format!(
                    "{} is mounted in it, and not by mountjail",
                    at.display()
                ))
                .says(&format!("unmount it: `umount {}`", at.display()));
            assert_eq!(mounts_below(&root), before, "{command}");
        }
        unmount(&at);
    }
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
    assert_eq!(mounts_below(&root), []);
}

/// Puts something at a path.
type Put = fn(&Path);

/// A placeholder that is no longer needed was moved away, and something else is in its place:
/// mountjail's own is gone.
fn in_its_place(engine: &'static str) {
    let put: [(&str, Put); 3] = [
        ("nothing", |_| ()),
        ("a file", |path| fs::write(path, "his").unwrap()),
        ("a link", |path| symlink("nowhere", path).unwrap()),
    ];
    for (what, put) in put {
        let sandbox = Sandbox::with_engine(engine);
        let (one, two) = (
            sandbox.file("host/one", "one"),
            sandbox.file("host/two", "two"),
        );
        let line =
            |source: &Path, target| format!("{{ source: {}, target: {target} }}", source.display());
        let both = format!(
            "mounts: [{}, {}]\n",
            line(&one, "/x/y/one"),
            line(&two, "/two")
        );
        let root = sandbox.site("s", &both);
        sandbox.ok(&["up", "s"]);
        fs::rename(root.join("x"), root.join("moved")).unwrap();
        put(&root.join("x"));
        sandbox.site("s", &format!("mounts: [{}]\n", line(&two, "/two")));
        sandbox.ok(&["up", "s"]).says("1 mount: 1 detached");
        sandbox.ok(&["status", "s"]);
        if mountjail::sys::probe::statmount() {
            assert!(
                !root.join("moved").exists(),
                "{what}: what was made there is found where it is now"
            );
        }
        sandbox.ok(&["down", "s"]);
        assert_eq!(mounts_below(&root), [], "{what}");
    }
}

/// Moves the directory `etc` of `root` below this many new directories with long names, the topmost
/// called `top`; returns the lowest one.
fn bury(root: &Path, top: &str, depth: usize) -> OwnedFd {
    let long = "x".repeat(250);
    let root: OwnedFd = File::open(root).unwrap().into();
    let mut at = root.try_clone().unwrap();
    for nth in 0..depth {
        let name = if nth == 0 { top } else { &long };
        mkdirat(&at, name, Mode::RWXU).unwrap();
        at = openat(&at, name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    renameat(&root, "etc", &at, "etc").unwrap();
    at
}

/// A site `s` that binds a file, and one beside it.
struct Two {
    sandbox: Sandbox,
    root: PathBuf,
    /// The name of the file that `s` binds, and no other trial.
    name: String,
}

impl Two {
    fn new(sandbox: Sandbox) -> Self {
        let name = format!(
            "of-{}",
            sandbox.path("").file_name().unwrap().to_str().unwrap()
        );
        let source = sandbox.file(format!("host/{name}"), "text");
        let line = format!(
            "mounts: [{{ source: {}, target: /etc/file }}]\n",
            source.display()
        );
        let root = sandbox.site("s", &line);
        sandbox.site("other", "devices: [zero]\n");
        sandbox.ok(&["up", "--all"]);
        Self {
            sandbox,
            root,
            name,
        }
    }

    /// How many mounts of the file there are anywhere.
    fn mounts(&self) -> usize {
        mounts()
            .iter()
            .filter(|mount| mount.root.ends_with(&self.name))
            .count()
    }

    fn is_recorded(&self) -> bool {
        self.sandbox.state().join("run/s.json").exists()
    }
}

fn out_of_reach(engine: &'static str) {
    // More than PATH_MAX; more than statmount(2) is asked for at first.
    for depth in [18, 40] {
        let two = Two::new(Sandbox::with_engine(engine));
        bury(&two.root, "one", depth);
        let status = two
            .sandbox
            .run(&["status", "s"])
            .exits(3)
            .prints("moved away with a directory");
        assert!(
            !status.stdout.contains("foreign"),
            "it is ours wherever it is"
        );
        two.sandbox.ok(&["status", "other"]);
        two.sandbox.ok(&["up", "s"]).says("1 attached, 1 detached");
        assert_eq!(two.mounts(), 1);
        bury(&two.root, "two", depth);
        two.sandbox.ok(&["up", "--all"]);
        assert_eq!(two.mounts(), 1);
        two.sandbox.ok(&["status"]);
        bury(&two.root, "three", depth);
        two.sandbox
            .ok(&["down", "--all", "--lazy"])
            .says("s: down, 1 mount detached");
        assert_eq!(two.mounts(), 0);
        assert!(!two.is_recorded());
    }
}

/// `up` is killed at each call of one kind, even before it recorded its mount and the submounts.
fn killed(engine: &'static str) {
    for again in [false, true] {
        let mut found = 0;
        for nth in 1.. {
            let sandbox = Sandbox::with_engine(engine);
            let (tree, sub) = (
                sandbox.directory("host/tree"),
                sandbox.directory("host/tree/sub"),
            );
            mount(
                Some("sub"),
                &sub,
                Some("tmpfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .unwrap();
            let line = format!(
                "{{ source: {}, target: /d/tree, recursive: true }}",
                tree.display()
            );
            let root = sandbox.site("s", &format!("mounts: [{line}]\n"));
            let fault = format!("openat2:signal=KILL:when={nth}");
            if Ran::of(sandbox.command_with_fault(&fault, &[]).args(["up", "s"])).code == 0 {
                break;
            }
            if mounts_below(&root).is_empty() {
                continue;
            }
            found += 1;
            fs::rename(root.join("d"), root.join("x")).unwrap();
            let status = sandbox
                .run(&["status", "s"])
                .exits(3)
                .prints("moved away with a directory");
            assert!(!status.stdout.contains("foreign"), "{status}");
            if again {
                sandbox.ok(&["up", "s"]);
                assert_eq!(mounts_below(&root).len(), 2);
                sandbox.ok(&["status", "s"]);
            }
            sandbox.ok(&["down", "--lazy", "s"]);
            assert_eq!(mounts_below(&root), [], "killed at call {nth}");
            assert!(!sandbox.state().join("run/s.json").exists());
        }
        assert!(found > 1, "it was never killed in time");
    }
}

/// umount(2) finds no mount, where there was one when `down` looked.
fn moved_meanwhile(engine: &'static str) {
    let two = Two::new(Sandbox::with_engine(engine));
    // The first call only asks whether the mount is in use.
    let mut command = two
        .sandbox
        .command_with_fault("umount2:error=EINVAL:when=2", &[]);
    Ran::of(command.args(["down", "s"]))
        .exits(0)
        .says("1 mount detached");
    assert_eq!(two.mounts(), 0);
    assert!(!two.is_recorded());
}

/// `up` of the site `s` succeeds and leaves nothing to be done.
fn one_up_is_enough(sandbox: &Sandbox, what: &str) {
    let up = sandbox.ok(&["-v", "up", "s"]);
    let status = sandbox.run(&["status", "s"]);
    assert_eq!(status.code, 0, "{what}\n{up}\n{status}");
    sandbox.ok(&["up", "s"]).says("nothing to do");
}

/// The directory of one target takes the place of the directory of another, with its mount or its
/// graft. That looks like somebody else's, or, from the same source, like what belongs there.
fn onto_targets(engine: &'static str) {
    for (names, sources) in [
        (vec!["f"], ["one", "two"]),
        (vec!["f"], ["one", "one"]),
        (vec!["d/f", "d/g"], ["one", "two"]),
        (vec!["d/f", "d/g"], ["one", "one"]),
    ] {
        let what = format!("{names:?} of {sources:?}");
        let sandbox = Sandbox::with_engine(engine);
        let mut lines = String::from("mounts:\n");
        for (source, directory) in sources.into_iter().zip(["/a", "/b"]) {
            let source = sandbox.file(format!("host/{source}"), source);
            for name in &names {
                lines += &line(&source, &format!("{directory}/{name}"));
            }
        }
        let root = sandbox.site("s", &lines);
        let put = |name: &str| sandbox.file(format!("srv/s/{name}/his"), "");
        put("a");
        put("b");
        let before = tree(&root);
        sandbox.ok(&["up", "s"]);
        fs::rename(root.join("b"), root.join("c")).unwrap();
        fs::rename(root.join("a"), root.join("b")).unwrap();

        let status = sandbox.run(&["status", "s"]).exits(3);
        assert!(!status.stdout.contains("foreign"), "{what}\n{status}");
        one_up_is_enough(&sandbox, &what);
        for (source, directory) in sources.into_iter().zip(["a", "b"]) {
            for name in &names {
                let text = fs::read_to_string(root.join(directory).join(name)).unwrap();
                assert_eq!(text, source, "{what}: /{directory}/{name}");
            }
        }
        // As before, but that `a` was moved and made anew.
        sandbox.ok(&["down", "s"]);
        assert_eq!(mounts_below(&root), []);
        fs::rename(root.join("b"), root.join("a")).unwrap();
        fs::rename(root.join("c"), root.join("b")).unwrap();
        assert_eq!(before.changes(&tree(&root)), "", "{what}");
    }
}

/// Two directories of the root change places, and each mount lies at the path of the other one or
/// above it. A mount with other contents is above what was made for the other one.
fn beneath(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (up, two) = (
        sandbox.directory("host/up"),
        sandbox.file("host/two", "two"),
    );
    let both = [line(&up, "/up/www"), line(&two, "/own/www/two")].concat();
    let root = sandbox.site("s", &format!("mounts:\n{both}"));
    sandbox.file("srv/s/own/his", "");
    sandbox.file("srv/s/up/his", "");
    let before = tree(&root);
    sandbox.ok(&["up", "s"]);
    let (own, up) = (root.join("own"), root.join("up"));
    renameat_with(CWD, &own, CWD, &up, RenameFlags::EXCHANGE).unwrap();

    sandbox.site("s", "devices: [null]\n");
    one_up_is_enough(&sandbox, "the manifest asks for neither");
    sandbox.ok(&["down", "s"]);
    assert_eq!(before.changes(&tree(&root)), "");
}

/// Directories and links are to be where a mount has to go first.
fn made_beneath(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (lib, one) = (
        sandbox.directory("host/lib"),
        sandbox.file("host/one", "one"),
    );
    sandbox.file("srv/s/var/his", "");
    let root = sandbox.site("s", &format!("mounts:\n{}", line(&lib, "/var/lib")));
    let before = tree(&root);
    sandbox.ok(&["up", "s"]);
    let one = line(&one, "/etc/one");
    sandbox.site(
        "s",
        &format!("directories: [{{ path: /var/lib/php }}]\nmounts:\n{one}"),
    );
    one_up_is_enough(&sandbox, "a directory of the site's own");
    assert!(root.join("var/lib/php").is_dir());
    sandbox.ok(&["down", "s"]);
    assert_eq!(before.changes(&tree(&root)), "");
}

/// Root moves a mount of ours above another one.
fn hides_another(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (dir, one) = (
        sandbox.directory("host/dir"),
        sandbox.file("host/one", "one"),
    );
    sandbox.file("srv/s/a/his", "");
    sandbox.file("srv/s/b/his", "");
    let both = [line(&dir, "/a/dir"), line(&one, "/b/one")].concat();
    let root = sandbox.site("s", &format!("mounts:\n{both}"));
    let before = tree(&root);
    sandbox.ok(&["up", "s"]);
    let moved = Command::new("mount")
        .arg("--move")
        .args([root.join("a/dir"), root.join("b")])
        .status();
    assert!(moved.unwrap().success());

    let status = sandbox.run(&["status", "s"]).exits(3);
    assert!(!status.stdout.contains("not by mountjail"), "{status}");
    one_up_is_enough(&sandbox, "both are wanted");
    sandbox.ok(&["down", "s"]);
    assert_eq!(before.changes(&tree(&root)), "");
}

/// A path of more than 1 MiB is not asked for.
fn too_deep(engine: &'static str) {
    let two = Two::new(Sandbox::with_engine(engine));
    let at = bury(&two.root, "deep", 4500);
    for command in ["up", "down"] {
        two.sandbox
            .run(&[command, "s"])
            .exits(1)
            .says("moved away from /etc/file")
            .says("1 MiB");
        assert_eq!(two.mounts(), 1, "none is added to it");
        assert!(two.is_recorded(), "it is not forgotten");
        two.sandbox.ok(&[command, "other"]);
    }
    two.sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("too deep");
    let root: OwnedFd = File::open(&two.root).unwrap().into();
    renameat(&at, "etc", &root, "etc").unwrap();
    two.sandbox.ok(&["down", "s"]);
    assert_eq!(two.mounts(), 0);
    assert!(!two.is_recorded());
}

fn watched() {
    let two = Two::new(Sandbox::new());
    let watcher = Watcher::start(&two.sandbox);
    for (nth, depth) in [18, 40, 18, 40].into_iter().enumerate() {
        bury(&two.root, &format!("nth-{nth}"), depth);
        let target = two.root.join("etc/file");
        // A rename causes no event for the watcher; its next pass sees it.
        watcher.signal(Signal::SIGHUP);
        soon_reads(&target, "text");
        assert_eq!(two.mounts(), 1, "{}", watcher.said());
    }
    watcher.end();
}

fn failed_pass() {
    let two = Two::new(Sandbox::new());
    // It is read when the watcher starts, and again in each pass.
    let path = "/proc/sys/kernel/random/boot_id";
    // -D: the process that is started is the watcher's own.
    let more = ["-D", "-P", path];
    let mut command = two
        .sandbox
        .command_with_fault("openat:error=EMFILE:when=2", &more);
    let watcher = Watcher::with(command.arg("watch"));
    watcher.says("boot_id: Too many open files");
    soon("the pass is made up for", || {
        let state = fs::read_to_string(two.sandbox.state().join("run/watch/state.json"));
        if state
            .as_ref()
            .is_ok_and(|state| state.contains("\"sites\":2"))
        {
            return Ok(());
        }
        Err(format!("{state:?}\n{}", watcher.said()))
    });
    watcher.end();
}

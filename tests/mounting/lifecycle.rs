//! Promise: `up` makes the jail as the manifest says, a second time changes nothing, and `down`
//! leaves the root and the host exactly as they were.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{
    OnEngine, Ran, Sandbox, bind, for_each_engine, mounts, mounts_below, replace, tree, unmount,
    unmount_all,
};
use libtest_mimic::Trial;
use mountjail::observe::Table;

pub fn all() -> Vec<Trial> {
    let trials: [(&str, OnEngine); 23] = [
        ("the demo site works and leaves no trace", demo),
        ("a second up makes no mount call", idempotent),
        ("programs find the same libraries inside", loader_inside),
        (
            "a site that is up follows changes of its manifest",
            live_changes,
        ),
        ("a replaced source is swapped", stale),
        ("a lost record does no harm", lost_record),
        (
            "a damaged record is reported and does no harm",
            damaged_record,
        ),
        (
            "submounts of a recursive mount are read-only and stay on the host",
            recursive,
        ),
        (
            "submounts that somebody opened or took off are put right",
            submounts_changed,
        ),
        (
            "mounts are read-write only where the manifest says so",
            access,
        ),
        ("a generated passwd has the named users alone", users),
        ("foreign mounts are reported and never touched", foreign),
        (
            "down goes by the record when the manifest is gone",
            manifest_gone,
        ),
        (
            "down names who uses the mounts and stops, unless lazy",
            busy,
        ),
        ("placeholders survive a reboot and go with down", reboot),
        (
            "files that the owner put in place of a placeholder stay",
            placeholder_changed,
        ),
        (
            "a root that moved is not mixed up with the old one",
            root_moved,
        ),
        ("a root on a disk that is away is not forgotten", root_away),
        ("two runs at once give the result of one", at_once),
        (
            "a link to a file in a bound directory stays a link",
            kept_link,
        ),
        (
            "a mount that was moved away with its directory is found",
            moved_away,
        ),
        (
            "modes are set, not inherited, and a closed directory is named",
            modes,
        ),
        (
            "a nested mount survives the swap of its parent",
            nested_swap,
        ),
    ];
    let mut all: Vec<_> = trials
        .into_iter()
        .flat_map(|(name, body)| for_each_engine(name, body))
        .collect();
    all.extend(crate::support::trials([(
        "the mount table is read whole, whatever the names",
        table,
    )]));
    all
}

fn table() {
    let sandbox = Sandbox::new();
    let names = [
        "a b",
        "tab\there",
        "line\nbreak",
        "back\\040slash",
        "#hash",
        "\u{fc}ml\u{e4}ut",
        "over",
        "over",
    ];
    for name in names {
        let point = sandbox.directory(name);
        Ran::of(Command::new("mount").args(["-t", "tmpfs", "x"]).arg(point)).exits(0);
    }
    let dir = sandbox.config().parent().unwrap().to_owned();
    let sorted = |mut points: Vec<PathBuf>| {
        points.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
        points.dedup();
        points
    };
    let expected = names.iter().map(|name| sandbox.path(name)).collect();
    assert_eq!(Table::read().unwrap().points_below(&dir), sorted(expected));
    // Everything except what other trials mount meanwhile.
    let quiet =
        |point: &PathBuf| *point != Path::new("/") && !point.starts_with(dir.parent().unwrap());
    let expected = mounts()
        .into_iter()
        .map(|mount| mount.point)
        .filter(quiet)
        .collect();
    let found = Table::read().unwrap().points_below(Path::new("/"));
    assert_eq!(
        found.into_iter().filter(quiet).collect::<Vec<_>>(),
        sorted(expected)
    );
}

/// Runs `script` by the shell inside `root`.
fn inside(root: &Path, script: &str) -> Ran {
    Ran::of(
        Command::new("chroot")
            .arg(root)
            .args(["/bin/sh", "-c", script]),
    )
}

fn demo(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site(
        "demo",
        "presets: [base, dns, shell]\nprograms: [/usr/bin/getent]\n",
    );
    let bare = tree(&root);
    sandbox.ok(&["up", "demo"]).says("demo: up, ");
    inside(&root, "getent hosts localhost")
        .exits(0)
        .prints("localhost");
    inside(&root, "echo x >/dev/null && head -c4 /dev/urandom | wc -c")
        .exits(0)
        .prints("4");
    inside(&root, "echo x >/etc/hosts")
        .exits(2)
        .says("Read-only file system");
    inside(&root, "chmod 600 /dev/null")
        .exits(1)
        .says("Read-only file system");
    for mount in mounts_below(&root) {
        assert!(mount.has("ro") && mount.has("nosuid"), "{mount:?}");
    }
    sandbox.ok(&["status", "demo"]).prints("demo: up, ");
    sandbox.ok(&["down", "demo"]);
    bare.assert_same(&tree(&root));
    assert!(mounts_below(&sandbox.state()).is_empty());
    sandbox.ok(&["down", "demo"]).says("nothing was mounted");
    sandbox
        .run(&["status", "demo"])
        .exits(3)
        .prints("demo: down, 0 of ");
}

/// System calls that change the mount table.
const MOUNT_CALLS: &str =
    "trace=mount,umount2,open_tree,move_mount,mount_setattr,fsopen,fsmount,pivot_root";

fn idempotent(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("a", "presets: [php-fpm]\nusers: [www-data]\n");
    sandbox.site("b", "presets: [php-fpm]\n");
    sandbox.ok(&["up", "--all"]);
    let (mounts, before) = (mounts_below(&root), tree(&root));
    for sites in ["a", "--all"] {
        let log = sandbox.path("strace");
        let runner = [
            "strace",
            "-f",
            "-q",
            "-e",
            "signal=none",
            "-e",
            MOUNT_CALLS,
            "-o",
            log.to_str().unwrap(),
        ];
        Ran::of(sandbox.command_under(&runner).args(["up", sites]))
            .exits(0)
            .says("nothing to do");
        let calls = fs::read_to_string(log).unwrap();
        // An older strace shows statmount(2) and listmount(2), which only ask, by their numbers;
        // a call is on two lines if another thread's came between.
        let asks = |line: &str| {
            ["syscall_0x1c9", "syscall_0x1ca", "+++"]
                .iter()
                .any(|ask| line.contains(ask))
        };
        assert!(calls.lines().all(asks), "{calls}");
    }
    assert_eq!(mounts, mounts_below(&root));
    before.assert_same(&tree(&root));
    sandbox
        .ok(&["plan", "a"])
        .prints("a: in sync, nothing to do");
    sandbox.ok(&["up", "--dry-run", "--all"]);
}

/// glibc's loader, which each dynamic program of this machine names.
const LOADER: &str = if cfg!(target_arch = "aarch64") {
    "/lib/ld-linux-aarch64.so.1"
} else {
    "/lib64/ld-linux-x86-64.so.2"
};

/// What the loader lists for `program` in `root`; `None`: it is not a dynamic program.
fn listed(root: &str, program: &str) -> Option<Vec<String>> {
    let ran = Ran::of(Command::new("chroot").args([root, LOADER, "--list", program]));
    let line = |line: &str| line.split(" (0x").next().unwrap().trim().to_owned();
    let lines = ran
        .stdout
        .lines()
        .map(line)
        .filter(|line| !line.starts_with("linux-vdso"));
    (ran.code == 0).then(|| lines.collect())
}

/// Every dynamic program of this host in one jail: the loader finds the same libraries there.
fn loader_inside(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let mut outside = vec![];
    for directory in ["/usr/bin", "/usr/sbin"] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let is_elf = || fs::read(&path).unwrap().starts_with(b"\x7fELF");
            let program = path.to_str().unwrap().to_owned();
            if path.symlink_metadata().unwrap().is_file() && is_elf() {
                outside.extend(listed("/", &program).map(|libraries| (program, libraries)));
            }
        }
    }
    assert!(
        outside.len() > 100,
        "this host has few programs: {}",
        outside.len()
    );
    let programs: String = outside
        .iter()
        .map(|(program, _)| format!("  - \"{program}\"\n"))
        .collect::<Vec<_>>()
        .concat();
    let root = sandbox.site("a", &format!("programs:\n{programs}"));
    sandbox.ok(&["up", "a"]);
    for (program, libraries) in outside {
        assert_eq!(
            listed(root.to_str().unwrap(), &program),
            Some(libraries),
            "{program}"
        );
    }
    sandbox.ok(&["down", "a"]);
}

fn live_changes(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    for name in ["one", "two", "three"] {
        sandbox.file(format!("host/{name}"), name);
    }
    let line = |name: &str| {
        format!(
            "  - {{ source: {}, target: /x/{name} }}\n",
            sandbox.path("host").join(name).display()
        )
    };
    let root = sandbox.site("s", &format!("mounts:\n{}{}", line("one"), line("two")));
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    let id = |name: &str| {
        mounts_below(&root)
            .into_iter()
            .find(|mount| mount.point.ends_with(name))
            .map(|mount| mount.id)
    };
    let one = id("one").unwrap();
    sandbox.manifest(
        "s",
        format!(
            "root: {}\nmounts:\n{}{}",
            root.display(),
            line("one"),
            line("three")
        ),
    );
    sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("orphan")
        .prints("missing");
    sandbox
        .run(&["plan", "s"])
        .exits(3)
        .prints("detach /x/two")
        .prints("attach ");
    sandbox.ok(&["up", "s"]).says("1 attached, 1 detached");
    assert_eq!(id("one"), Some(one), "the mount that stays is not touched");
    assert_eq!(id("two"), None);
    assert!(!root.join("x/two").exists());
    assert_eq!(fs::read_to_string(root.join("x/three")).unwrap(), "three");
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
}

fn stale(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.file("host/resolv.conf", "old");
    let link = sandbox.path("host/link");
    symlink(&source, &link).unwrap();
    let root = sandbox.site(
        "s",
        &format!(
            "mounts:\n  - {{ source: {}, target: /etc/resolv.conf }}\n",
            link.display()
        ),
    );
    sandbox.ok(&["up", "s"]);
    let read = || fs::read_to_string(root.join("etc/resolv.conf")).unwrap();
    replace(&sandbox.path("host/resolv.conf"), "new");
    assert_eq!(read(), "old");
    sandbox.run(&["status", "s"]).exits(3).prints("stale");
    sandbox.ok(&["up", "s"]).says("1 swapped");
    assert_eq!(read(), "new");
    // A retargeted link, and a file that was only moved aside, are stale, too.
    let other = sandbox.file("host/other", "other");
    fs::remove_file(&link).unwrap();
    symlink(&other, &link).unwrap();
    sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("wrong-source");
    sandbox.ok(&["up", "s"]).says("1 swapped");
    assert_eq!(read(), "other");
    fs::rename(&other, sandbox.path("host/backup")).unwrap();
    sandbox.file("host/other", "anew");
    sandbox.run(&["status", "s"]).exits(3).prints("stale");
    sandbox.ok(&["up", "s"]);
    assert_eq!(read(), "anew");
    assert_eq!(mounts_below(&root).len(), 1, "nothing is stacked");
    sandbox.ok(&["down", "s"]);
}

fn lost_record(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "presets: [base, dns]\n");
    sandbox.ok(&["up", "s"]);
    let mounts = mounts_below(&root);
    fs::remove_file(sandbox.state().join("run/s.json")).unwrap();
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["up", "s"]).says("nothing to do");
    assert_eq!(mounts, mounts_below(&root));
    fs::remove_file(sandbox.state().join("run/s.json")).unwrap();
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
}

fn damaged_record(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "presets: [base, dns]\n");
    sandbox.ok(&["up", "s"]);
    for damage in ["", "{", "[1,2]", "{\"version\":1,\"boot\":7}", "\u{0}\u{0}"] {
        fs::write(sandbox.state().join("run/s.json"), damage).unwrap();
        sandbox
            .ok(&["up", "s"])
            .says("is damaged")
            .says("nothing to do");
    }
    fs::write(sandbox.state().join("run/s.json"), "{").unwrap();
    sandbox.ok(&["down", "s"]).says("is damaged");
    assert!(mounts_below(&root).is_empty());
}

fn recursive(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.directory("host/dir/sub");
    let source = source.parent().unwrap();
    let tmpfs =
        |at: &Path| Ran::of(Command::new("mount").args(["-t", "tmpfs", "sub"]).arg(at)).exits(0);
    tmpfs(&source.join("sub"));
    sandbox.file("host/dir/sub/file", "below");
    let manifest = |recursive| {
        format!(
            "mounts:\n  - {{ source: {}, target: /dir, recursive: {recursive} }}\n",
            source.display()
        )
    };
    let root = sandbox.site("s", &manifest(true));
    sandbox.ok(&["up", "s"]);
    assert_eq!(
        fs::read_to_string(root.join("dir/sub/file")).unwrap(),
        "below"
    );
    let denied = fs::write(root.join("dir/sub/file"), "no").unwrap_err();
    assert_eq!(denied.raw_os_error(), Some(libc::EROFS));
    fs::write(source.join("sub/file"), "the host may").unwrap();
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
    assert_eq!(
        mounts_below(source).len(),
        1,
        "the host's own submount stays"
    );
    sandbox.site("s", &manifest(false));
    sandbox.ok(&["up", "s"]);
    assert!(!root.join("dir/sub/file").exists());
    sandbox.ok(&["down", "s"]);
}

fn submounts_changed(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.directory("host/dir/sub");
    let source = source.parent().unwrap();
    bind(&sandbox.directory("host/other"), &source.join("sub"));
    let manifest = format!(
        "mounts: [{{ source: {}, target: /dir, recursive: true }}]\n",
        source.display()
    );
    let root = sandbox.site("s", &manifest);
    sandbox.ok(&["up", "s"]);
    let submount = root.join("dir/sub");
    for (command, how) in [
        ("mount -o remount,bind,rw", "/dir/sub in it is mounted rw,"),
        ("umount", "somebody took off /dir/sub"),
    ] {
        let line = format!("{command} {}", submount.display());
        Ran::of(Command::new("sh").args(["-c", &line])).exits(0);
        let ran = sandbox.run(&["status", "s"]).exits(3);
        ran.prints("wrong-options").prints(how);
        sandbox.ok(&["up", "s"]).says("1 swapped");
        sandbox.ok(&["up", "s"]).says("nothing to do");
        let denied = fs::write(submount.join("new"), "").unwrap_err();
        assert_eq!(denied.raw_os_error(), Some(libc::EROFS), "{command}");
        assert_eq!(mounts_below(&root).len(), 2);
    }

    // What the host takes away stays until then, and does not come again.
    Ran::of(Command::new("umount").arg(source.join("sub"))).exits(0);
    sandbox.ok(&["status", "s"]);
    Ran::of(Command::new("umount").arg(&submount)).exits(0);
    sandbox.ok(&["up", "s"]).says("1 swapped");
    sandbox.ok(&["up", "s"]).says("nothing to do");
    assert_eq!(mounts_below(&root).len(), 1);
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
}

fn access(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.directory("host/uploads");
    let line = |target: &str, more: &str| {
        format!(
            "  - {{ source: {}, target: {target}{more} }}\n",
            source.display()
        )
    };
    let mounts = line("/ro", "")
        + &line("/rw", ", access: read-write")
        + &line("/run", ", executable: true");
    let root = sandbox.site("s", &format!("mounts:\n{mounts}"));
    sandbox.ok(&["up", "s"]);
    assert_eq!(
        fs::write(root.join("ro/x"), "x")
            .unwrap_err()
            .raw_os_error(),
        Some(libc::EROFS)
    );
    fs::write(root.join("rw/x"), "x").unwrap();
    let mount = |name: &str| {
        mounts_below(&root)
            .into_iter()
            .find(|mount| mount.point.ends_with(name))
            .unwrap()
    };
    assert!(mount("rw").has("noexec") && mount("rw").has("rw") && mount("rw").has("nodev"));
    assert!(!mount("run").has("noexec") && mount("run").has("ro"));
    sandbox.ok(&["down", "s"]);
    assert_eq!(
        fs::read_to_string(source.join("x")).unwrap(),
        "x",
        "down deletes nothing of the host's"
    );
}

fn users(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site(
        "s",
        "users: [www-data]\nprograms: [/usr/bin/id, /bin/sh]\npresets: [base]\nnss: [passwd]\n",
    );
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    inside(&root, "id www-data").exits(0).prints("33(www-data)");
    inside(&root, "id nobody").exits(1);
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert_eq!(passwd.lines().count(), 2, "{passwd}");
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox.manifest(
        "s",
        format!("root: {}\nusers: [www-data, nobody]\n", root.display()),
    );
    sandbox.ok(&["up", "s"]).says("2 swapped");
    assert!(
        fs::read_to_string(root.join("etc/passwd"))
            .unwrap()
            .contains("nobody:x:65534:")
    );
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
    assert_eq!(
        fs::read_dir(sandbox.state().join("lib")).unwrap().count(),
        0
    );
}

fn foreign(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "etc: [hosts]\n");
    fs::create_dir(root.join("theirs")).unwrap();
    Ran::of(
        Command::new("mount")
            .args(["-t", "tmpfs", "theirs"])
            .arg(root.join("theirs")),
    )
    .exits(0);
    sandbox.ok(&["up", "s"]);
    sandbox
        .ok(&["status", "s"])
        .prints("foreign")
        .prints("/theirs");
    // A mount on top of ours is reported, and neither up nor down touches it.
    Ran::of(
        Command::new("mount")
            .args(["--bind", "/etc/passwd"])
            .arg(root.join("etc/hosts")),
    )
    .exits(0);
    sandbox.run(&["status", "s"]).exits(3).prints("shadowed");
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("not by mountjail")
        .says("umount ");
    sandbox.run(&["down", "s"]).exits(1);
    assert_eq!(
        fs::read(root.join("etc/hosts")).unwrap(),
        fs::read("/etc/passwd").unwrap()
    );
    unmount(&root.join("etc/hosts"));
    sandbox.ok(&["down", "s"]);
    let left = mounts_below(&root);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].point.ends_with("theirs"));
}

fn manifest_gone(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "etc: [hosts]\n");
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    fs::remove_file(sandbox.path("config/sites/s.yaml")).unwrap();
    sandbox
        .run(&["status"])
        .exits(3)
        .prints("s: drifted")
        .prints("orphan");
    sandbox.ok(&["down", "--all"]);
    bare.assert_same(&tree(&root));
    sandbox
        .run(&["down", "s"])
        .exits(2)
        .says("there is no site s");
}

fn busy(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.directory("host/dir");
    let root = sandbox.site(
        "s",
        &format!(
            "mounts: [{{ source: {}, target: /dir }}]\netc: [hosts]\n",
            source.display()
        ),
    );
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    let mut user = Command::new("sleep")
        .arg("1000")
        .current_dir(root.join("dir"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ran = sandbox
        .run(&["down", "s"])
        .exits(1)
        .says("in use: /dir")
        .says("nothing was unmounted");
    let ran = ran.says(&format!("sleep (pid {}", user.id()));
    assert_eq!(mounts_below(&root).len(), 2, "{ran}");
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "--lazy", "s"]);
    assert!(mounts_below(&root).is_empty());
    bare.assert_same(&tree(&root));
    user.kill().unwrap();
    user.wait().unwrap();
}

fn reboot(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "presets: [base, dns]\n");
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    // A reboot: no mounts, nothing in /run, the placeholders as they were.
    unmount_all(&root);
    unmount_all(&sandbox.state().join("run"));
    fs::remove_dir_all(sandbox.state().join("run")).unwrap();
    sandbox.run(&["status", "s"]).exits(3).prints("s: down");
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
}

fn placeholder_changed(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    sandbox.file("srv/s/etc/own", "no template for this directory");
    let root = sandbox.site("s", "etc: [hosts, services]\n");
    sandbox.ok(&["up", "s"]);
    for mount in mounts_below(&root) {
        unmount(&mount.point);
    }
    fs::write(root.join("etc/hosts"), "the owner's own").unwrap();
    fs::remove_file(root.join("etc/services")).unwrap();
    fs::write(root.join("etc/services"), "").unwrap();
    sandbox
        .ok(&["down", "s"])
        .says("stays: it is no longer as mountjail made it");
    assert_eq!(
        fs::read_to_string(root.join("etc/hosts")).unwrap(),
        "the owner's own"
    );
    assert!(!sandbox.state().join("lib/s.json").exists());
}

fn root_moved(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "etc: [hosts]\n");
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    let new = sandbox.directory("srv/new");
    sandbox.manifest("s", format!("root: {}\netc: [hosts]\n", new.display()));
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("was set up at")
        .says("mountjail down s");
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
    sandbox.ok(&["up", "s"]);
    assert_eq!(mounts_below(&new).len(), 1);
    sandbox.ok(&["down", "s"]);
}

fn at_once(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "presets: [base, dns]\n");
    let bare = tree(&root);
    for _ in 0..5 {
        // Without a limit: on a slow machine the last one waits long for the others.
        let start = || {
            sandbox
                .command()
                .args(["--timeout", "0", "up", "s"])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let runs: Vec<_> = (0..4).map(|_| start()).collect();
        for run in runs {
            let output = run.wait_with_output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
        }
        let mounts = mounts_below(&root);
        let mut points: Vec<_> = mounts.iter().map(|mount| &mount.point).collect();
        points.dedup();
        assert_eq!(points.len(), mounts.len(), "nothing is mounted twice");
        sandbox.ok(&["status", "s"]);
        sandbox.ok(&["down", "s"]);
        bare.assert_same(&tree(&root));
    }
}

fn kept_link(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let dir = sandbox.directory("host/resolve");
    sandbox.file("host/resolve/stub", "one");
    symlink("resolve/stub", sandbox.path("host/resolv.conf")).unwrap();
    let conf = sandbox.path("host/resolv.conf");
    let root = sandbox.site(
        "s",
        &format!("mounts: [{}, {}]\n", conf.display(), dir.display()),
    );
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    let inside = root.join(conf.strip_prefix("/").unwrap());
    assert_eq!(fs::read_link(&inside).unwrap(), Path::new("resolve/stub"));
    replace(&sandbox.path("host/resolve/stub"), "two");
    assert_eq!(fs::read_to_string(&inside).unwrap(), "two", "never stale");
    sandbox.ok(&["status", "s"]);
    sandbox
        .ok(&["why", "s", conf.to_str().unwrap()])
        .prints("goes through the link");
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
}

fn nested_swap(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    sandbox.directory("host/dir/inner");
    sandbox.directory("host/other");
    sandbox.file("host/other/file", "other");
    let host = sandbox.path("host");
    let line = |source: &str, target: &str| {
        format!(
            "  - {{ source: {}, target: {target} }}\n",
            host.join(source).display()
        )
    };
    let root = sandbox.site(
        "s",
        &format!(
            "mounts:\n{}{}",
            line("dir", "/dir"),
            line("other", "/dir/inner")
        ),
    );
    sandbox.ok(&["up", "s"]);
    fs::rename(host.join("dir"), host.join("old")).unwrap();
    sandbox.directory("host/dir/inner");
    sandbox.file("host/dir/new", "new");
    sandbox.ok(&["up", "s"]);
    assert_eq!(fs::read_to_string(root.join("dir/new")).unwrap(), "new");
    assert_eq!(
        fs::read_to_string(root.join("dir/inner/file")).unwrap(),
        "other"
    );
    sandbox.ok(&["status", "s"]);
    assert_eq!(mounts_below(&root).len(), 2);
    sandbox.ok(&["down", "s"]);
}

fn moved_away(engine: &'static str) {
    if !mountjail::sys::probe::statmount() {
        return; // unique mount IDs came with Linux 6.8; before, such a mount is nobody's
    }
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "etc: [hosts]\n");
    let away = sandbox.path("away");
    sandbox.ok(&["up", "s"]);
    fs::rename(root.join("etc"), &away).unwrap();
    assert_eq!(mounts_below(&away).len(), 1);
    sandbox
        .run(&["status", "s"])
        .exits(3)
        .prints("moved away with a directory");
    sandbox.ok(&["up", "s"]);
    assert!(mounts_below(&away).is_empty());
    assert_eq!(mounts_below(&root).len(), 1);
    fs::rename(root.join("etc"), sandbox.path("again")).unwrap();
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&sandbox.path("again")).is_empty());
    // The root itself, with all that is mounted in it.
    sandbox.ok(&["up", "s"]);
    fs::rename(&root, sandbox.path("root-away")).unwrap();
    sandbox
        .ok(&["down", "s"])
        .says("1 mount detached")
        .says("was moved to");
    assert!(mounts_below(&sandbox.path("root-away")).is_empty());
    assert!(!sandbox.state().join("run/s.json").exists());
}

/// New directories inherit the root's group and its default ACL; their modes must not depend on
/// these, nor on the umask.
fn modes(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site(
        "s",
        "programs: [/usr/bin/cat]\netc: [hosts]\nusers: [nobody]\n",
    );
    Ran::of(Command::new("chmod").arg("2775").arg(&root)).exits(0);
    let acl = [
        "-d",
        "-m",
        "user:nobody:---,group::---,other::---,mask::rwx",
    ];
    Ran::of(Command::new("setfacl").args(acl).arg(&root)).exits(0);
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    for (path, mode) in [("etc", 0o755), ("usr", 0o755), ("usr/bin", 0o755)] {
        let path = root.join(path);
        assert_eq!(mode_of(&path), mode, "{}", path.display());
        let acls = Ran::of(
            Command::new("getfacl")
                .args(["--skip-base", "--absolute-names"])
                .arg(&path),
        );
        assert_eq!(acls.exits(0).stdout, "", "no access list");
    }
    let cat = ["exec", "s", "--", "/usr/bin/cat", "/etc/hosts"];
    sandbox.ok(&cat);
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
    // One that is the site's own stays as it is.
    let own = sandbox.directory("srv/s/usr");
    Ran::of(Command::new("setfacl").args(["-b"]).arg(&own)).exits(0);
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
    sandbox.ok(&["up", "s"]);
    let says = format!("chmod o+x {}", own.display());
    sandbox
        .run(&cat)
        .exits(126)
        .says("Permission denied")
        .says(&says);
    let doctor = sandbox.run(&["doctor", "s"]).prints(&says);
    assert!(!doctor.stdout.contains("mountjail up"), "{doctor}");
    sandbox.ok(&["down", "s"]);
    assert_eq!(mode_of(&own), 0o700);

    fs::remove_dir_all(&root).unwrap();
    let program = env!("CARGO_BIN_EXE_mountjail");
    let up = format!("umask 077; exec {program} up --create s");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &up])
        .env("MOUNTJAIL_ENGINE", engine)
        .env("MOUNTJAIL_CONFIG_DIR", sandbox.config())
        .env("MOUNTJAIL_STATE_DIR", sandbox.state());
    Ran::of(&mut shell).exits(0);
    for (path, mode) in [("", 0o755), ("usr", 0o755), ("etc/passwd", 0o644)] {
        assert_eq!(mode_of(&root.join(path)), mode, "{path}");
    }
    sandbox.ok(&["down", "s"]);
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn root_away(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "etc: [hosts]\n");
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    // A reboot, after which the disk with the root is not there at once.
    for mount in mounts_below(&root) {
        unmount(&mount.point);
    }
    let away = sandbox.path("srv/away");
    fs::rename(&root, &away).unwrap();
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("cannot find the root");
    let says = "`down` removes what mountjail made in it once it is back";
    sandbox.ok(&["down", "s"]).says(says);
    fs::rename(&away, &root).unwrap();
    sandbox.ok(&["up", "s"]);

    // The directory that the disk is mounted on is there meanwhile. Before Linux 6.8 it cannot be
    // told from a root that somebody emptied.
    if mountjail::sys::probe::statmount() {
        for mount in mounts_below(&root) {
            unmount(&mount.point);
        }
        fs::rename(&root, &away).unwrap();
        fs::create_dir(&root).unwrap();
        sandbox.ok(&["down", "s"]).says(says);
        fs::remove_dir(&root).unwrap();
        fs::rename(&away, &root).unwrap();
    }
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
}

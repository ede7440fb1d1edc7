//! Promise: one directory is one root, whatever paths lead to it; the site that is up stays right,
//! the other is refused.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{
    Ran, Running, Sandbox, Watcher, alone, bind, for_each_engine, for_each_engine_on_shared_root,
    line, mounts_below, replace, soon_reads, tree, trials, unmount, wait_until,
};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let mut all = for_each_engine("a directory with two paths belongs to one site", two_paths);
    all.extend(for_each_engine(
        "a mount over the root is in the way of nothing in it",
        mounted_over,
    ));
    all.extend(trials([
        (
            "remains of a killed run in a root that was moved go, and nothing else",
            killed_and_moved,
        ),
        (
            "remains of a killed run in a hidden root are named",
            killed_and_hidden,
        ),
        (
            "a root inside another one is refused whatever its path",
            inside_by_another_path,
        ),
        (
            "a site that is up stays right when another root gets in its way",
            up_stays,
        ),
        (
            "of two sites that come up together the first wins",
            together,
        ),
        (
            "down --all takes down the sites of its own configuration",
            other_configuration,
        ),
        ("import names roots that overlap", import_names_them),
        ("a site takes down its own mounts alone", its_own_alone),
        (
            "a root that was moved is still the root of its site",
            moved_and_renamed,
        ),
        (
            "a root that was replaced keeps its mounts while it is in use",
            replaced_in_use,
        ),
    ]));
    all.extend(for_each_engine_on_shared_root(
        "a root that is bound on itself, with a file system in it, comes up and goes down",
        bound_on_itself,
    ));
    all.push(alone(
        "a root that is the system by another path is refused",
        system_by_another_path,
    ));
    all
}

/// Makes the directory `at` also show `directory`.
fn also_at(directory: &Path, at: &Path) {
    fs::create_dir_all(at).unwrap();
    bind(directory, at);
}

fn manifest(sandbox: &Sandbox, name: &str, root: &Path, lines: &str) {
    fs::create_dir_all(root).unwrap();
    sandbox.manifest(name, format!("root: {}\n{lines}", root.display()));
}

fn mounted_over(engine: &'static str) {
    // With a file of its own in /x, the old root gets each mount by itself; the new one has a
    // graft.
    for own in [true, false] {
        let sandbox = Sandbox::with_engine(engine);
        let lines = ["one", "two"].map(|name| {
            let source = sandbox.file(format!("host/{name}"), name);
            line(&source, &format!("/x/{name}"))
        });
        let root = sandbox.site("s", &format!("mounts:\n{}", lines.concat()));
        if own {
            sandbox.file(root.join("x/own"), "of the root");
        }
        let bare = tree(&root);
        sandbox.ok(&["up", "s"]);
        let mut over = Command::new("mount");
        Ran::of(over.args(["-t", "tmpfs", "theirs"]).arg(&root)).exits(0);

        sandbox.ok(&["up", "s"]);
        assert_eq!(fs::read_to_string(root.join("x/one")).unwrap(), "one");
        let before = mounts_below(&root);
        sandbox.ok(&["up", "s"]).says("nothing to do");
        assert_eq!(mounts_below(&root), before);
        sandbox
            .ok(&["status", "--verbose", "s"])
            .prints("s: up, 2 of 2 mounts ok")
            .prints("hidden");

        sandbox
            .ok(&["down", "s"])
            .says("s: down, 4 mounts detached");
        unmount(&root);
        assert_eq!(tree(&root), bare);
        sandbox.ok(&["down", "s"]);
        assert!(mounts_below(&root).is_empty());
    }
}

/// What is mounted in such a root is mounted at the same path below it, too, where it is hidden.
fn bound_on_itself(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let mut lines = String::new();
    for target in ["/dev/one", "/x/two"] {
        let source = sandbox.file(format!("host{target}"), target);
        lines += &line(&source, target);
    }
    let root = sandbox.site("s", &format!("mounts:\n{lines}"));
    sandbox.file(root.join("x/own"), "of the root");
    let dev = sandbox.directory(root.join("dev"));
    bind(&root, &root);
    let mut mount = Command::new("mount");
    Ran::of(mount.args(["-t", "tmpfs", "theirs"]).arg(&dev)).exits(0);
    let bare = (mounts_below(&sandbox.path("")), tree(&root));

    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox
        .ok(&["status", "s"])
        .prints("s: up, 2 of 2 mounts ok");
    sandbox
        .ok(&["down", "s"])
        .says("s: down, 2 mounts detached");
    bare.1.assert_same(&tree(&root));
    let left = mounts_below(&sandbox.path(""));
    assert_eq!(left.len(), bare.0.len(), "{left:?}");
    // The record of the mounts is enough.
    sandbox.ok(&["up", "s"]);
    sandbox.manifest("s", format!("root: {}\n", root.display()));
    sandbox
        .ok(&["down", "s"])
        .says("s: down, 2 mounts detached");
}

fn two_paths(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (real, www) = (sandbox.directory("real"), sandbox.path("www"));
    also_at(&real, &www);
    manifest(&sandbox, "q", &real.join("a"), "etc: [hosts]\n");
    manifest(&sandbox, "p", &www.join("a"), "etc: [hosts, services]\n");
    for (first, second, root) in [("p", "q", www.join("a")), ("q", "p", real.join("a"))] {
        sandbox.ok(&["up", first]).says(", by the path");
        let mounts = mounts_below(&root);
        for command in ["up", "check", "status", "plan"] {
            sandbox
                .run(&[command, second])
                .exits(2)
                .says(&format!("also the root of the site {first}"));
        }
        sandbox.run(&["up", "--all"]).exits(2);
        sandbox.ok(&["down", second]);
        assert_eq!(mounts_below(&root), mounts);
        sandbox.ok(&["status", first]);
        sandbox.ok(&["up", first]).says("nothing to do");
        sandbox.ok(&["down", first]);
        assert!(mounts_below(&root).is_empty());
    }
}

/// The site `s`, whose `up` was killed after it had mounted two of three files and before it wrote
/// down which; and, by hand, mounts of the same files in the directory `other`.
fn killed() -> Sandbox {
    for nth in 1.. {
        let sandbox = Sandbox::with_engine("classic");
        let [one, two] = ["one", "two"].map(|name| sandbox.file(format!("host/{name}"), name));
        let other = sandbox.path("srv/other");
        let mounts: String = [(&one, "/t/one"), (&two, "/two"), (&two, "/z")]
            .map(|(source, target)| line(source, target))
            .concat();
        let root = sandbox.site("s", &format!("mounts:\n{mounts}"));
        sandbox.file("srv/s/two", ""); // not a placeholder of ours
        for (source, target) in [(&one, "srv/other/t/one"), (&two, "srv/other/two")] {
            bind(source, &sandbox.file(target, ""));
            let remount = "remount,bind,ro,nosuid,nodev,noexec";
            let target = other.join(target.strip_prefix("srv/other/").unwrap());
            let mut mount = Command::new("mount");
            Ran::of(mount.args(["-o", remount]).arg(target)).exits(0);
        }
        let fault = format!("mount:signal=KILL:when={nth}");
        let up = Ran::of(sandbox.command_with_fault(&fault, &[]).args(["up", "s"]));
        assert_ne!(up.code, 0, "it is killed before it is done: {up}");
        if mounts_below(&root).len() == 2 {
            let record = fs::read_to_string(sandbox.state().join("run/s.json")).unwrap();
            assert_eq!(record.matches("\"unique_id\":null").count(), 3, "{record}");
            return sandbox;
        }
    }
    unreachable!()
}

fn killed_and_moved() {
    let [gone, replaced, follows] = [0, 1, 2];
    for case in [gone, replaced, follows] {
        let sandbox = killed();
        let (root, moved) = (sandbox.root("s"), sandbox.path("srv/moved"));
        let foreign = mounts_below(&sandbox.path("srv/other"));
        fs::rename(&root, &moved).unwrap();
        if case == gone {
            sandbox.ok(&["down", "s"]).says("2 mounts detached");
        } else if case == replaced {
            fs::create_dir(&root).unwrap();
            sandbox.ok(&["up", "s"]);
            assert_eq!(mounts_below(&root).len(), 3);
            assert!(mounts_below(&moved).is_empty());
            sandbox.ok(&["down", "s"]).says("3 mounts detached");
            assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        } else {
            let manifest = fs::read_to_string(sandbox.config().join("sites/s.yaml")).unwrap();
            let manifest = manifest.replace(root.to_str().unwrap(), moved.to_str().unwrap());
            sandbox.manifest("s", manifest);
            sandbox.ok(&["up", "s"]);
            assert_eq!(mounts_below(&moved).len(), 3);
            sandbox.ok(&["status", "s"]).prints("up, 3 of 3 mounts ok");
            sandbox.ok(&["down", "s"]).says("3 mounts detached");
        }
        assert!(mounts_below(&moved).is_empty(), "{case}");
        assert!(!moved.join("t").exists(), "{case}: placeholders go");
        assert_eq!(mounts_below(&sandbox.path("srv/other")), foreign, "{case}");
        sandbox.ok(&["down", "s"]).says("nothing was mounted");
    }
}

fn killed_and_hidden() {
    let sandbox = killed();
    let (root, moved) = (sandbox.root("s"), sandbox.path("srv/moved"));
    fs::rename(&root, &moved).unwrap();
    bind(&sandbox.directory("srv/top"), &moved);
    let before = mounts_below(&sandbox.path("srv"));
    let ran = sandbox.ok(&["down", "s"]);
    for point in [moved.join("t/one"), moved.join("two")] {
        ran.clone().says(point.to_str().unwrap());
    }
    assert_eq!(mounts_below(&sandbox.path("srv")), before);
}

fn inside_by_another_path() {
    let sandbox = Sandbox::new();
    let outer = sandbox.directory("srv/outer");
    let inner = sandbox.path("mnt/inner");
    also_at(&sandbox.directory("srv/outer/deep/inner"), &inner);
    manifest(&sandbox, "outer", &outer, "etc: [hosts]\n");
    manifest(&sandbox, "inner", &inner, "etc: [hosts]\n");
    for (first, second) in [("outer", "inner"), ("inner", "outer")] {
        sandbox.ok(&["up", first]).says("overlap");
        sandbox.run(&["up", second]).exits(2).says("overlap");
        sandbox.ok(&["status", first]);
        sandbox.ok(&["down", first]);
    }
    // A root on another file system, mounted in one that has another path.
    let volume = sandbox.directory("srv/outer/volume");
    let tmpfs = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "mode=755", "tmpfs"])
        .arg(&volume)
        .status();
    assert!(tmpfs.unwrap().success());
    let by_another_path = sandbox.path("mnt/outer");
    also_at(&outer, &by_another_path);
    manifest(&sandbox, "outer", &by_another_path, "etc: [hosts]\n");
    manifest(&sandbox, "inner", &volume.join("site"), "etc: [hosts]\n");
    sandbox.ok(&["up", "inner"]);
    sandbox.run(&["up", "outer"]).exits(2).says("overlap");
    sandbox.ok(&["down", "inner"]);
}

fn its_own_alone() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("q", "etc: [hosts, services]\n");
    let by_another_path = sandbox.path("mnt/q");
    also_at(&root, &by_another_path);
    sandbox.ok(&["up", "q"]);
    for path in [&root, &by_another_path] {
        manifest(&sandbox, "s", path, "etc: [hosts, services]\n");
        for down in [&["down", "s"][..], &["down", "s", "--lazy"]] {
            sandbox
                .ok(down)
                .says("belong to the site q: `mountjail down q`");
            sandbox.ok(&["status", "q"]).prints("up, 2 of 2 mounts ok");
        }
    }
    sandbox.ok(&["down", "--all"]);
    assert_eq!(mounts_below(&root), []);

    // The manifest was renamed while the site was up.
    fs::remove_file(sandbox.path("config/sites/s.yaml")).unwrap();
    sandbox.ok(&["up", "q"]);
    let sites = sandbox.config().join("sites");
    fs::rename(sites.join("q.yaml"), sites.join("s.yaml")).unwrap();
    sandbox.ok(&["down", "s"]).says("`mountjail down q`");
    sandbox.ok(&["down", "q"]);
    assert_eq!(mounts_below(&root), []);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

fn moved_and_renamed() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("q", "etc: [hosts, services]\n");
    sandbox.ok(&["up", "q"]);
    let moved = sandbox.path("srv/moved");
    fs::rename(&root, &moved).unwrap();
    let remedy = format!("write `root: {}` in the manifest", moved.display());
    for command in ["status", "up", "check"] {
        let ran = sandbox.run(&[command, "q"]).exits(1);
        let _ = ran.says("was moved to").says(&remedy);
    }
    fs::remove_file(sandbox.path("config/sites/q.yaml")).unwrap();
    manifest(&sandbox, "s", &moved, "etc: [hosts, services]\n");
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("is set up as the site q")
        .says("`mountjail down q`");
    let shown = sandbox.run(&["status"]).exits(1);
    shown.prints(&format!("2 orphan in {}", moved.display()));
    sandbox.ok(&["down", "s"]).says("`mountjail down q`");
    assert!(moved.join("etc/hosts").exists());
    sandbox.ok(&["down", "q"]).says("was moved to");
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    assert_eq!(fs::read_dir(&moved).unwrap().count(), 0);
}

fn replaced_in_use() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "programs: [/bin/busybox]\netc: [hosts, services]\n");
    sandbox.ok(&["up", "s"]);
    let mut inside = Command::new("chroot");
    inside.arg(&root).args(["/bin/busybox", "sleep", "600"]);
    let inside = Running::start(&mut inside);
    let is_inside = || {
        let root = fs::read_link(format!("/proc/{}/root", inside.pid()));
        root.is_ok_and(|found| found == sandbox.root("s"))
    };
    wait_until("a process runs inside", is_inside);
    let old = sandbox.path("srv/old");
    fs::rename(&root, &old).unwrap();
    fs::create_dir(&root).unwrap();

    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("another directory is at")
        .says(&inside.pid().to_string())
        .says("`mountjail down --lazy s`");
    assert!(old.join("etc/hosts").exists());
    drop(inside);
    sandbox.ok(&["up", "s"]);
    assert!(root.join("etc/hosts").exists());
    assert_eq!(
        fs::read_dir(&old).unwrap().count(),
        0,
        "the old root is bare"
    );
    sandbox.ok(&["down", "s"]);
    assert_eq!(mounts_below(&sandbox.path("srv")), []);
}

/// `/mnt` and `/boot` are the trial's own.
fn system_by_another_path() {
    let sandbox = Sandbox::new();
    for directory in ["/mnt", "/boot"] {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "own", directory])
            .status();
        assert!(mounted.unwrap().success());
    }
    fs::create_dir(Path::new("/boot/inside")).unwrap();
    let at = sandbox.path("srv/system");
    for (directory, says) in [
        ("/mnt", "is /mnt by another path"),
        ("/boot/inside", "is inside /boot by another path"),
    ] {
        also_at(Path::new(directory), &at);
        manifest(&sandbox, "s", &at, "etc: [hosts]\n");
        for command in ["check", "up"] {
            sandbox.run(&[command, "s"]).exits(2).says(says);
        }
        assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
        unmount(&at);
    }
    fs::create_dir(Path::new("/mnt/site")).unwrap();
    manifest(&sandbox, "s", Path::new("/mnt/site"), "etc: [hosts]\n");
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
}

fn up_stays() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("host/file", "1");
    let root = sandbox.site(
        "s",
        &format!("mounts: [{{ source: {}, target: /f }}]\n", file.display()),
    );
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    manifest(&sandbox, "inner", &root.join("inner"), "etc: [hosts]\n");
    let later = "once s is down, it cannot come up again: give one of the two a root outside";
    let ran = sandbox.ok(&["status", "s"]);
    ran.prints("up, 1 of 1 mounts ok").says(later);
    sandbox.run(&["doctor", "s"]).says(later);
    sandbox.run(&["up", "inner"]).exits(2).says("overlap");
    replace(&file, "2");
    soon_reads(&root.join("f"), "2");
    watcher.end();
    replace(&file, "3");
    sandbox.ok(&["watch", "--once", "s"]);
    assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "3");
    sandbox
        .ok(&["up", "s"])
        .says("nothing to do")
        .says("overlap");
    sandbox.ok(&["down", "s"]);
}

fn together() {
    let sandbox = Sandbox::new();
    let (real, www) = (sandbox.directory("real"), sandbox.path("www"));
    also_at(&real, &www);
    for name in ["a", "b"] {
        manifest(
            &sandbox,
            name,
            &if name == "a" {
                www.join("x")
            } else {
                real.join("x")
            },
            "etc: [hosts]\n",
        );
    }
    sandbox
        .run(&["up", "--all"])
        .exits(2)
        .says("a: up, 1 mount")
        .says("b: the root");
    assert_eq!(mounts_below(&www.join("x")).len(), 1);
    sandbox.ok(&["down", "--all"]);
}

fn other_configuration() {
    let sandbox = Sandbox::new();
    let (mine, gone) = (
        sandbox.site("mine", "etc: [hosts]\n"),
        sandbox.site("gone", "etc: [hosts]\n"),
    );
    let other = sandbox.path("other/sites");
    fs::create_dir_all(&other).unwrap();
    let theirs: Vec<_> = ["theirs", "mine2"]
        .iter()
        .map(|name| sandbox.directory(format!("srv/{name}")))
        .collect();
    for (name, root) in ["theirs", "mine2"].iter().zip(&theirs) {
        fs::write(
            other.join(format!("{name}.yaml")),
            format!("root: {}\netc: [hosts]\n", root.display()),
        )
        .unwrap();
    }
    sandbox.ok(&["up", "--all"]);
    let config = sandbox.path("other").display().to_string();
    sandbox.ok(&["--config-dir", &config, "up", "--all"]);
    // A site of the same name as one of theirs.
    sandbox.site("mine2", "etc: [hosts]\n");
    manifest(
        &sandbox,
        "mine2",
        &sandbox.path("srv/another"),
        "etc: [hosts]\n",
    );
    fs::remove_file(sandbox.path("config/sites/gone.yaml")).unwrap();
    sandbox
        .ok(&["down", "--all"])
        .says("theirs: left: ")
        .says("mine2: left: ")
        .says("other/sites/theirs.yaml brought it up")
        .says("`mountjail down theirs`");
    for root in [&mine, &gone] {
        assert!(mounts_below(root).is_empty());
    }
    for root in &theirs {
        assert_eq!(mounts_below(root).len(), 1);
    }
    for more in [&["--dry-run"][..], &[]] {
        sandbox
            .run(&[&["remove", "mine2"], more].concat())
            .exits(1)
            .says("other/sites/mine2.yaml brought it up")
            .says("`mountjail down mine2`");
    }
    assert_eq!(mounts_below(&theirs[1]).len(), 1);
    assert!(sandbox.path("config/sites/mine2.yaml").exists());
    sandbox
        .ok(&["down", "mine2"])
        .says("other/sites/mine2.yaml brought it up");
    assert!(mounts_below(&theirs[1]).is_empty());
    sandbox.ok(&["remove", "mine2"]);
    let down = sandbox.ok(&["down", "theirs"]);
    assert!(
        !down.stderr.contains("warning"),
        "no other is meant: {down}"
    );
    sandbox.ok(&["--config-dir", &config, "down", "--all"]);
    assert!(theirs.iter().all(|root| mounts_below(root).is_empty()));
}

fn import_names_them() {
    let sandbox = Sandbox::new();
    let pool =
        |name: &str, root: &Path| format!("[{name}]\nuser = nobody\nchroot = {}\n", root.display());
    let (outer, inner) = (
        sandbox.directory("srv/shared"),
        sandbox.directory("srv/shared/inner"),
    );
    let both = sandbox.file("both.conf", pool("s1", &outer) + &pool("inner", &inner));
    sandbox
        .ok(&["import", both.to_str().unwrap()])
        .says("overlap");
    let one = sandbox.file("one.conf", pool("s1", &outer));
    sandbox.ok(&["import", "--write", one.to_str().unwrap()]);
    let www = sandbox.path("www");
    also_at(&sandbox.path("srv"), &www);
    let other = sandbox.file("other.conf", pool("inner", &www.join("shared/inner")));
    sandbox
        .ok(&["import", other.to_str().unwrap()])
        .says("overlap");
}

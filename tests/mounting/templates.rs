//! Promise: what sites share is mounted once, in a template, and each site has a graft of it.
//! Nothing of it can be changed from a site, and no template stays without a site.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{
    OnEngine, Ran, Running, Sandbox, Watcher, bind, for_each_engine,
    for_each_engine_on_shared_root, grafts_below, mounts_below, replace, tree, unmount, wait_until,
    where_templates_are,
};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub fn all() -> Vec<Trial> {
    let mut all = vec![];
    let both: [(&str, OnEngine); 22] = [
        (
            "lines for fstab get what they mount on beneath a graft",
            beneath,
        ),
        ("sites that want the same share a template", shared),
        (
            "a file that is replaced is swapped once for all sites",
            swapped_once,
        ),
        (
            "sites that differ in one line have templates of their own",
            one_line,
        ),
        ("a root with files of its own keeps them", own_files),
        ("a site's own mounts are mounted into its graft", own_mounts),
        ("a mount that somebody took off is put back", taken_off),
        ("a graft that somebody opened is closed again", opened),
        (
            "a foreign mount in a graft is named and stays",
            foreign_inside,
        ),
        (
            "what a foreign mount on a graft hides is still the site's",
            foreign_on_top,
        ),
        (
            "a site that shares a template follows its own manifest",
            forks,
        ),
        (
            "a site that was brought up file by file stays as it is",
            file_by_file,
        ),
        (
            "up --renew turns mounts that were made one by one into grafts",
            renewed,
        ),
        (
            "mounts that were made one by one stay so without --renew",
            kept_one_by_one,
        ),
        (
            "a directory with things of others is not covered by a graft",
            not_renewed,
        ),
        (
            "a site goes down while another one changes their template",
            down_meanwhile,
        ),
        (
            "a site comes up while another one changes their template",
            up_meanwhile,
        ),
        ("a graft in use stays", used),
        ("a graft with a copy in use stays", used_elsewhere),
        (
            "a mount that was moved within its graft is missed at its place",
            moved,
        ),
        ("a site like many others is looked at by itself", alike),
        (
            "a site like many others waits for no lock if it needs nothing",
            unlocked,
        ),
    ];
    for (name, body) in both {
        all.extend(for_each_engine(name, body));
    }
    all.extend(for_each_engine_on_shared_root(
        "grafts follow where / is shared",
        swapped_once,
    ));
    all.extend(for_each_engine_on_shared_root(
        "mounts that were made one by one become grafts where / is shared",
        renewed,
    ));
    all.extend(for_each_engine(
        "nothing of a graft can be changed from inside",
        sealed,
    ));
    where_templates_are(all)
}

/// Sites with the files `one` and `two` of the host in `/x`, and what `more` adds.
pub(super) fn sites(sandbox: &Sandbox, names: &[&str], more: &str) -> Vec<PathBuf> {
    for name in ["one", "two"] {
        sandbox.file(format!("host/{name}"), name);
    }
    let site = |name: &&str| sandbox.site(name, &manifest(sandbox, more));
    names.iter().map(site).collect()
}

fn manifest(sandbox: &Sandbox, more: &str) -> String {
    let host = sandbox.path("host");
    let host = host.display();
    format!(
        "mounts:\n- {{ source: {host}/one, target: /x/one }}\n\
         - {{ source: {host}/two, target: /x/deep/two }}\n{more}"
    )
}

pub(super) fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

/// The templates that are there, by their directories of sites.
fn templates(sandbox: &Sandbox) -> usize {
    let entries = fs::read_dir(sandbox.state().join("run/templates"));
    let names = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    names
        .filter(|path| path.extension().is_some_and(|ending| ending == "sites"))
        .count()
}

pub(super) fn nothing_is_left(sandbox: &Sandbox) {
    sandbox.ok(&["down", "--all"]);
    assert!(mounts_below(&sandbox.path("")).is_empty());
    assert!(grafts_below(&sandbox.path("")).is_empty());
    assert!(!sandbox.state().join("run/templates").exists());
}

fn shared(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b", "c"], "");
    let bare: Vec<_> = roots.iter().map(|root| tree(root)).collect();
    sandbox.ok(&["up", "--all"]);
    assert_eq!(templates(&sandbox), 1);
    for root in &roots {
        assert_eq!(grafts_below(root).len(), 1);
        assert_eq!(mounts_below(root).len(), 2);
        assert_eq!(
            (read(root, "x/one"), read(root, "x/deep/two")),
            ("one".into(), "two".into())
        );
    }
    // Only the directory on which the graft is mounted is on the disk of the root.
    let inode = |root: &PathBuf| fs::metadata(root.join("x/deep")).unwrap().ino();
    assert_eq!(inode(&roots[0]), inode(&roots[1]));

    sandbox.ok(&["status", "--all"]);
    sandbox.ok(&["up", "--all"]).says("nothing to do");
    sandbox.ok(&["down", "a"]);
    bare[0].assert_same(&tree(&roots[0]));
    assert_eq!(read(&roots[1], "x/one"), "one");
    nothing_is_left(&sandbox);
    for (bare, root) in bare.iter().zip(&roots) {
        bare.assert_same(&tree(root));
    }
}

fn swapped_once(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    replace(&sandbox.path("host/one"), "new");
    for site in ["a", "b"] {
        sandbox.run(&["status", site]).exits(3).prints("stale");
    }
    sandbox.ok(&["up", "a"]).says("1 swapped");
    for root in &roots {
        assert_eq!(read(root, "x/one"), "new");
        assert_eq!(mounts_below(root).len(), 2, "nothing is stacked");
    }
    sandbox.ok(&["status", "--all"]);
    sandbox.ok(&["up", "b"]).says("nothing to do");
    nothing_is_left(&sandbox);
}

fn one_line(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let more = "- { source: /etc/hosts, target: /x/hosts }\n";
    let roots = [sites(&sandbox, &["a"], ""), sites(&sandbox, &["b"], more)].concat();
    sandbox.ok(&["up", "--all"]);
    assert_eq!(templates(&sandbox), 2);
    assert!(!roots[0].join("x/hosts").exists() && roots[1].join("x/hosts").exists());
    nothing_is_left(&sandbox);
}

fn own_files(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    sandbox.file("srv/a/x/own", "the site's own");
    let more = "- { source: /etc/hosts, target: /x/deep/hosts }\n";
    let roots = sites(&sandbox, &["a"], more);
    let bare = tree(&roots[0]);
    sandbox.ok(&["up", "a"]);
    assert_eq!(read(&roots[0], "x/own"), "the site's own");
    let grafts = grafts_below(&roots[0]);
    assert_eq!(grafts.len(), 1);
    assert_eq!(grafts[0].point, roots[0].join("x/deep"), "one level deeper");
    let another = roots[0].join("x/another");
    fs::write(&another, "the directory is still writable").unwrap();
    fs::remove_file(&another).unwrap();
    sandbox.ok(&["down", "a"]);
    bare.assert_same(&tree(&roots[0]));
    nothing_is_left(&sandbox);
}

/// A directory of the host's, and the line that lets a site write there.
fn writable_data(sandbox: &Sandbox) -> (PathBuf, String) {
    let data = sandbox.directory("data");
    let line = format!(
        "- {{ source: {}, target: /x/data, access: read-write }}\n",
        data.display()
    );
    (data, line)
}

fn own_mounts(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (data, writable) = writable_data(&sandbox);
    let roots = sites(&sandbox, &["a", "b"], &writable);
    sandbox.ok(&["up", "--all"]);
    assert_eq!(templates(&sandbox), 1);
    fs::write(roots[0].join("x/data/file"), "written").unwrap();
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "written");
    let denied = fs::write(roots[0].join("x/file"), "no").unwrap_err();
    assert_eq!(denied.raw_os_error(), Some(libc::EROFS));
    sandbox.ok(&["status", "--all"]);
    nothing_is_left(&sandbox);
}

fn taken_off(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    unmount(&roots[0].join("x/one"));
    assert_eq!(
        read(&roots[1], "x/one"),
        "one",
        "the other site keeps its own"
    );
    sandbox.run(&["status", "a"]).exits(3).prints("missing");
    sandbox.ok(&["status", "b"]);
    sandbox.ok(&["up", "a"]).says("1 attached");
    assert_eq!(read(&roots[0], "x/one"), "one");
    // It follows again.
    replace(&sandbox.path("host/one"), "new");
    sandbox.ok(&["up", "b"]).says("1 swapped");
    assert_eq!(read(&roots[0], "x/one"), "new");
    sandbox.ok(&["status", "--all"]);
    nothing_is_left(&sandbox);
}

fn opened(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    let graft = roots[0].join("x");
    for (command, how) in [
        ("mount -o remount,rw", "mounted rw,"),
        (
            "mount -o remount,bind,ro,exec,suid,dev",
            "mounted ro, wanted",
        ),
        ("mount --make-shared", "somebody made it shared"),
    ] {
        let line = format!("{command} {}", graft.display());
        Ran::of(Command::new("sh").args(["-c", &line])).exits(0);
        let reason = format!("because: the mount on /x: {how}");
        sandbox.run(&["status", "a"]).exits(3).prints(&reason);
        sandbox.ok(&["status", "b"]);
        sandbox.ok(&["up", "a"]);
        sandbox.ok(&["up", "a"]).says("nothing to do");
        let denied = fs::write(graft.join("new"), "").unwrap_err();
        assert_eq!(denied.raw_os_error(), Some(libc::EROFS), "{command}");
    }
    nothing_is_left(&sandbox);
}

fn foreign_inside(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    let theirs = sandbox.file("theirs", "theirs");
    bind(&theirs, &roots[0].join("x/one"));
    assert_eq!(read(&roots[1], "x/one"), "one", "it is in one site only");
    sandbox.run(&["status", "a"]).exits(3).prints("shadowed");
    // The rest of the graft follows its template. (The host cannot replace a file that somebody has
    // mounted something on.)
    replace(&sandbox.path("host/two"), "new");
    sandbox.ok(&["up", "b"]).says("1 swapped");
    assert_eq!(read(&roots[0], "x/one"), "theirs");
    assert_eq!(read(&roots[0], "x/deep/two"), "new");
    sandbox.run(&["down", "a"]).exits(1).says("x/one");
    assert_eq!(read(&roots[0], "x/one"), "theirs");
    unmount(&roots[0].join("x/one"));
    nothing_is_left(&sandbox);
}

fn foreign_on_top(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    bind(&sandbox.directory("theirs"), &roots[0].join("x"));
    let says = "something else";
    let status = sandbox.run(&["status", "a"]).exits(3).prints(says);
    assert_eq!(status.stdout.matches("shadowed").count(), 2, "{status}");
    assert!(!status.stdout.contains("foreign"), "{status}");
    sandbox.run(&["down", "a"]).exits(1).says(says);
    unmount(&roots[0].join("x"));
    sandbox.ok(&["status", "--all"]);
    nothing_is_left(&sandbox);
}

fn forks(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    let more = "- { source: /etc/hosts, target: /x/hosts }\n";
    sandbox.site("a", &manifest(&sandbox, more));
    sandbox.ok(&["up", "a"]).says("1 attached");
    assert!(roots[0].join("x/hosts").exists() && !roots[1].join("x/hosts").exists());
    sandbox.ok(&["status", "--all"]);
    // Now each of them is alone, and its template changes with it.
    sandbox.site("a", &manifest(&sandbox, ""));
    sandbox.ok(&["up", "a"]).says("1 detached");
    assert!(!roots[0].join("x/hosts").exists());
    assert_eq!(read(&roots[0], "x/one"), "one");
    sandbox.ok(&["status", "--all"]);
    nothing_is_left(&sandbox);
}

fn down_meanwhile(engine: &'static str) {
    // Its records were read ahead, once before it had the lock.
    let (sandbox, roots) = changed_during(engine, "down", ("sites", "statx:signal=STOP:when=2"));
    assert!(mounts_below(&roots[0]).is_empty());
    assert_eq!(read(&roots[1], "x/one"), "new");
    nothing_is_left(&sandbox);
}

fn up_meanwhile(engine: &'static str) {
    let (sandbox, roots) = changed_during(engine, "up", ("json", "openat:signal=STOP:when=1"));
    for root in &roots {
        assert_eq!(read(root, "x/one"), "new");
    }
    sandbox.ok(&["status"]);
    nothing_is_left(&sandbox);
}

/// Two sites and their roots, after `command` for the first one, during which another run swapped
/// a mount in the template. The first one was stopped by a fault, when it had looked at what the
/// template has with this ending.
fn changed_during(
    engine: &'static str,
    command: &str,
    (ending, fault): (&str, &str),
) -> (Sandbox, Vec<PathBuf>) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    replace(&sandbox.path("host/one"), "new");

    let log = sandbox.path("stops");
    let template = of_template(&sandbox, ending);
    let more = [
        "-P",
        template.to_str().unwrap(),
        "-o",
        log.to_str().unwrap(),
    ];
    let mut runs = sandbox.command_with_fault(fault, &more);
    let mut runs = Watcher::spawn(runs.args([command, "a"]));
    wait_until("it has stopped", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("stopped by SIGSTOP"))
    });
    sandbox.ok(&["up", "b"]);

    let worker = fs::read_to_string(sandbox.state().join("run/a.lock")).unwrap();
    let worker = worker.split(' ').next().unwrap().parse().unwrap();
    kill(Pid::from_raw(worker), Signal::SIGCONT).unwrap();
    assert!(runs.ended().success(), "{}", runs.said());
    (sandbox, roots)
}

/// What the only template has with this ending.
fn of_template(sandbox: &Sandbox, ending: &str) -> PathBuf {
    let entries = fs::read_dir(sandbox.state().join("run/templates")).unwrap();
    let mut entries = entries.map(|entry| entry.unwrap().path());
    let found = entries.find(|path| path.extension().is_some_and(|found| found == ending));
    found.unwrap()
}

/// Users in this namespace and in others, of a directory of the graft itself and of a file in it.
fn used(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    let start = |script: &str, namespace: Option<&str>| {
        let script = format!("cd {}; {script}; exec sleep 1000", roots[0].display());
        let mut command = Command::new("unshare");
        if let Some(propagation) = namespace {
            command.args(["--mount", "--propagation", propagation]);
        }
        command.args(["sh", "-ec", &script]);
        Running::start_until(&mut command, |pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x001000\0")
        })
    };
    for namespace in [None, Some("slave"), Some("private")] {
        let scripts = [
            ("cd x/deep", "/x"),
            ("exec 7< x/one; cd /", "/x/one"),
            ("cd x; exec 7< deep/two; cd /", "/x/deep/two"),
        ];
        for (script, target) in scripts {
            sandbox.ok(&["up", "--all"]);
            let user = start(script, namespace);
            let pid = user.pid();
            for _ in 0..2 {
                let refused = sandbox.run(&["down", "a"]).exits(1);
                let refused = refused.says(&format!("in use: {target};"));
                refused.says(&format!("pid {pid}"));
                assert_eq!(
                    (read(&roots[0], "x/one"), read(&roots[0], "x/deep/two")),
                    ("one".into(), "two".into())
                );
            }
            sandbox.ok(&["down", "b"]); // nobody uses that one
            drop(user);
            nothing_is_left(&sandbox);
        }
    }
}

fn used_elsewhere(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    let copy = sandbox.directory("copy");
    let srv = sandbox.path("srv");
    Ran::of(Command::new("mount").arg("--rbind").args([&srv, &copy])).exits(0);
    let mut sleep = Command::new("sleep");
    let user = Running::start(sleep.arg("1000").current_dir(copy.join("a/x")));
    sandbox.run(&["down", "a"]).exits(1).says("in use: /x;");
    sandbox.ok(&["down", "b"]);
    drop(user);
    let take = ["--recursive", "--lazy"];
    Ran::of(Command::new("umount").args(take).arg(&copy)).exits(0);
    nothing_is_left(&sandbox);
}

fn moved(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    Ran::of(
        Command::new("mount")
            .arg("--move")
            .arg(roots[0].join("x/one"))
            .arg(roots[0].join("x/deep/two")),
    )
    .exits(0);
    sandbox.run(&["status", "a"]).exits(3).prints("missing");
    assert_eq!(read(&roots[1], "x/one"), "one");
    let ran = sandbox.run(&["up", "a"]);
    assert!(!ran.stderr.contains("in sync"), "{ran}");
    unmount(&roots[0].join("x/deep/two"));
    sandbox.ok(&["up", "a"]);
    assert_eq!(
        (read(&roots[0], "x/one"), read(&roots[0], "x/deep/two")),
        ("one".into(), "two".into())
    );
    nothing_is_left(&sandbox);
}

fn alike(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let mut names = vec!["a", "b", "c", "d", "e", "z"];
    sites(&sandbox, &[], "");
    sandbox.preset(
        "both",
        &format!("description: both\n{}", manifest(&sandbox, "")),
    );
    for name in &names {
        sandbox.site(name, "presets: [both]\n");
    }
    sandbox.ok(&["up", "--all"]);
    let again = sandbox.ok(&["up", "--all"]);
    assert_eq!(
        again.stderr.matches("in sync").count(),
        names.len(),
        "{again}"
    );

    names.pop();
    let x = sandbox.root("z").join("x");
    let x = x.display();
    let damage = [
        (format!("umount {x}/one"), String::new()),
        (format!("mount -o remount,bind,rw {x}/one"), String::new()),
        (
            format!("mount --move {x}/one {x}/deep/two"),
            format!("umount {x}/deep/two"),
        ),
        (
            format!("mount --bind {x}/one {x}/deep/two"),
            format!("umount {x}/deep/two"),
        ),
        (
            format!("mount -t tmpfs none {x}/deep"),
            format!("umount {x}/deep"),
        ),
        (format!("umount -l {x}"), String::new()),
        (format!("mount -t tmpfs none {x}"), format!("umount {x}")),
    ];
    let shell = |line: &str| Ran::of(Command::new("sh").args(["-c", line])).exits(0);
    for (damage, remedy) in damage {
        shell(&damage);
        sandbox.run(&["status", "z"]).exits(3);
        let ran = sandbox.run(&["up", "--all"]);
        assert!(!ran.stderr.contains("z: in sync"), "{damage}: {ran}");
        for name in &names {
            assert!(
                ran.stderr.contains(&format!("{name}: in sync")),
                "{damage}: {ran}"
            );
        }
        shell(&remedy);
        sandbox.ok(&["up", "--all"]);
        sandbox.ok(&["status", "z"]);
    }
    nothing_is_left(&sandbox);
}

fn unlocked(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    sites(&sandbox, &[], "");
    let preset = format!("description: both\n{}", manifest(&sandbox, ""));
    sandbox.preset("both", &preset);
    // The last one begins when another one is done, however many begin together.
    let others = 2 * thread::available_parallelism().unwrap().get();
    let names = (0..others).map(|nth| format!("site{nth}"));
    for name in names.chain(["z".to_owned()]) {
        sandbox.site(&name, "presets: [both]\n");
    }
    sandbox.ok(&["up", "--all"]);

    let lock = sandbox.state().join("run/z.lock");
    let held = fs::File::options().write(true).open(lock).unwrap();
    held.lock().unwrap();
    let again = sandbox.ok(&["up", "--all", "--timeout", "1"]);
    assert_eq!(
        again.stderr.matches("in sync").count(),
        others + 1,
        "{again}"
    );

    let one = sandbox.root("z").join("x/one");
    unmount(&one);
    let waited = sandbox.run(&["up", "--all", "--timeout", "1"]).exits(1);
    assert!(waited.stderr.contains("has the lock"), "{waited}");
    assert_eq!(read(&sandbox.root("z"), "x/one"), "");
    drop(held);
    sandbox.ok(&["up", "--all"]);
    assert_eq!(read(&sandbox.root("z"), "x/one"), "one");
    nothing_is_left(&sandbox);
}

fn file_by_file(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a"], "");
    // As mount(8) does it, and as earlier versions did.
    for (path, name) in [("x/one", "one"), ("x/deep/two", "two")] {
        let target = sandbox.file(Path::new("srv/a").join(path), "");
        bind(&sandbox.path("host").join(name), &target);
        let options = ["-o", "remount,bind,ro,nosuid,nodev,noexec"];
        Ran::of(Command::new("mount").args(options).arg(&target)).exits(0);
    }
    let before = mounts_below(&roots[0]);
    sandbox.ok(&["up", "a"]);
    assert_eq!(mounts_below(&roots[0]), before);
    assert_eq!(templates(&sandbox), 0);
    sandbox.ok(&["status", "a"]);
    sandbox.ok(&["down", "a"]);
    assert!(mounts_below(&roots[0]).is_empty());
}

/// Sites that are up file by file: lines of fstab(5) were mounted on what is in their roots.
fn sites_file_by_file(sandbox: &Sandbox, names: &[&str], more: &str) -> Vec<PathBuf> {
    let roots = sites(sandbox, names, more);
    let fstab = sandbox.file("fstab", "");
    let fstab = fstab.to_str().unwrap();
    sandbox.ok(&["fstab", "--install", "--all", "--file", fstab]);
    sandbox.ok(&["up", "--all"]);
    sandbox.ok(&["fstab", "--uninstall", "--all", "--file", fstab]);
    assert_eq!(templates(sandbox), 0);
    roots
}

/// Does `work` while a file is read all the time, which must always be there: in this mount
/// namespace, and in one that follows it, as services have it.
pub(super) fn without_a_gap(file: &Path, work: impl FnOnce() + Send) {
    let expected = fs::read(file).unwrap();
    let (begun, is_done) = (Barrier::new(3), AtomicBool::new(false));
    let read_on = || {
        begun.wait();
        while !is_done.load(Ordering::Relaxed) {
            assert_eq!(fs::read(file).unwrap(), expected);
        }
    };
    thread::scope(|scope| {
        let readers = [
            scope.spawn(read_on),
            scope.spawn(|| {
                follow_in_a_namespace();
                read_on();
            }),
        ];
        begun.wait();
        let worked = scope.spawn(work).join();
        is_done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        worked.unwrap();
    });
}

/// Gives this thread a mount namespace that follows the one of before.
fn follow_in_a_namespace() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let (no_text, slave) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE);
    mount(no_text, "/", no_text, slave, no_text).unwrap();
}

fn renewed(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (_, writable) = writable_data(&sandbox);
    let roots = sites_file_by_file(&sandbox, &["a", "b"], &writable);
    sandbox.ok(&["status", "--all"]);
    sandbox.ok(&["up", "--all"]).says("nothing to do");
    sandbox
        .run(&["plan", "--renew", "a"])
        .exits(3)
        .prints("graft /x: swap 2 mounts")
        .prints("detach /x/deep/two beneath the graft");
    without_a_gap(&roots[0].join("x/deep/two"), || {
        sandbox.ok(&["up", "--renew", "a"]).says("2 swapped");
    });
    sandbox
        .ok(&["-v", "up", "--renew", "--all"])
        .says("/x/data was absent for a moment: it is mounted anew, on the graft")
        .says("b: up");
    assert_eq!(templates(&sandbox), 1);
    for root in &roots {
        assert_eq!(grafts_below(root).len(), 1);
        assert_eq!(mounts_below(root).len(), 3, "the old ones are gone");
        assert_eq!(read(root, "x/one"), "one");
        fs::write(root.join("x/data/file"), "written").unwrap();
    }
    sandbox.ok(&["status", "--all"]);
    sandbox
        .ok(&["up", "--renew", "--all"])
        .says("nothing to do");
    replace(&sandbox.path("host/one"), "new");
    sandbox.ok(&["up", "a"]).says("1 swapped");
    assert_eq!(read(&roots[1], "x/one"), "new");
    nothing_is_left(&sandbox);
    for root in &roots {
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    }
}

fn kept_one_by_one(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites_file_by_file(&sandbox, &["a", "b"], "");
    replace(&sandbox.path("host/one"), "new");
    sandbox.ok(&["up", "a"]).says("1 swapped");
    assert!(grafts_below(&roots[0]).is_empty());
    assert_eq!(read(&roots[0], "x/one"), "new");

    // One more line, where two mounts were not worth a graft.
    fs::write(sandbox.path("host/three"), "three").unwrap();
    let line = format!(
        "- {{ source: {}, target: /x/deep/three }}\n",
        sandbox.path("host/three").display()
    );
    sandbox.site("b", &manifest(&sandbox, &line));
    sandbox
        .ok(&["up", "--renew", "b"])
        .says("1 attached, 2 swapped");
    assert_eq!(mounts_below(&roots[1]).len(), 3);
    assert_eq!(grafts_below(&roots[1]).len(), 1);
    sandbox.ok(&["status", "--all"]);
    nothing_is_left(&sandbox);
}

fn not_renewed(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites_file_by_file(&sandbox, &["a", "b"], "");
    // A file of the site's own, and a mount of somebody else.
    fs::write(roots[0].join("x/own"), "own").unwrap();
    let theirs = sandbox.file("theirs", "theirs");
    let on = sandbox.file("srv/b/x/deep/theirs", "");
    bind(&theirs, &on);
    sandbox.ok(&["up", "--renew", "a"]);
    assert_eq!(read(&roots[0], "x/own"), "own");
    assert_eq!(mounts_below(&roots[0]).len(), 2);
    sandbox.ok(&["up", "--renew", "b"]);
    assert_eq!(read(&roots[1], "x/deep/theirs"), "theirs");
    assert_eq!(mounts_below(&roots[1]).len(), 3);
    assert!(grafts_below(&roots[1]).is_empty());

    unmount(&on);
    fs::remove_file(&on).unwrap();
    fs::remove_file(roots[0].join("x/own")).unwrap();
    nothing_is_left(&sandbox);
}

/// A process with all privileges in a user namespace and a mount namespace of its own, in one site.
fn sealed(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let roots = sites(&sandbox, &["a", "b"], "");
    sandbox.ok(&["up", "--all"]);
    let at = roots[0].join("x").display().to_string();
    for attempt in [
        format!("mount -o remount,bind,rw {at}"),
        format!("mount -o remount,rw {at}"),
        format!("umount {at}/one"),
        format!("touch {at}/new"),
    ] {
        let script = format!("if {attempt}; then exit 7; fi; exit 0");
        Ran::of(Command::new("unshare").args(["-Urm", "sh", "-c", &script])).exits(0);
    }
    // A mount that is made there stays there.
    let script = format!("mount --bind /etc/hosts {at}/one && cmp /etc/hosts {at}/one");
    Ran::of(Command::new("unshare").args(["-Urm", "sh", "-c", &script])).exits(0);
    for root in &roots {
        assert_eq!(read(root, "x/one"), "one");
        assert_eq!(mounts_below(root).len(), 2);
    }
    sandbox.ok(&["status", "--all"]);
    nothing_is_left(&sandbox);
}

fn beneath(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    // Lines for fstab need a root that no other user can exchange.
    let roots = sites(&sandbox, &["a"], "");
    let bare = tree(&roots[0]);
    sandbox.ok(&["up", "a"]);
    let before = (mounts_below(&roots[0]), grafts_below(&roots[0]));
    let fstab = sandbox.file("fstab", "");
    let fstab = fstab.to_str().unwrap();
    sandbox.ok(&["fstab", "--install", "--file", fstab, "a"]);
    assert_eq!((mounts_below(&roots[0]), grafts_below(&roots[0])), before);
    sandbox.ok(&["up", "a"]).says("nothing to do");

    sandbox.ok(&["down", "a"]);
    assert!(
        roots[0].join("x/deep/two").is_file(),
        "the lines can be mounted"
    );
    sandbox.ok(&["up", "a"]);
    assert!(
        grafts_below(&roots[0]).is_empty(),
        "each line is a mount of its own"
    );
    sandbox.ok(&["down", "a"]);
    sandbox.ok(&["fstab", "--uninstall", "--file", fstab, "a"]);
    bare.assert_same(&tree(&roots[0]));
    nothing_is_left(&sandbox);
}

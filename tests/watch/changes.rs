//! Promise: while `mountjail watch` runs, the sites that are up stay in sync, whatever the host
//! does to files, mounts and manifests; a reader in a jail sees the old or the new file, nothing
//! else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{
    PATIENCE, Ran, Sandbox, Watcher, for_each_engine_on_shared_root,
    for_each_source_of_mount_events, line, mounts_below, on_shared_root, one_file, replace, soon,
    soon_reads, unmount,
};
use libtest_mimic::Trial;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{CWD, RenameFlags, renameat_with};

pub fn all() -> Vec<Trial> {
    // Each in a mount namespace of its own: a watcher hears of every mount that another trial
    // makes.
    let alone: [(&str, fn()); 19] = [
        ("every way to replace a file is followed", every_way),
        ("links are followed to where they lead now", links),
        ("sources that come and go are followed", come_and_go),
        ("a source that is gone for good is taken off", gone_for_good),
        ("a storm of changes makes few passes", storm),
        ("lost events are made up for", overflow),
        ("without enough watches it polls", too_few_watches),
        (
            "a killed watcher's successor finishes its swap",
            killed_in_a_swap,
        ),
        ("manifests and presets are followed", manifests),
        ("a site that is down stays down", down_stays_down),
        ("a locked site does not hold up the others", locked_site),
        ("up, down and watch can run at once", all_at_once),
        ("a failure is shown, retried and forgotten", failure),
        (
            "signals are handled, and the service manager is told",
            service_manager,
        ),
        ("a watchdog without an interval is none", no_watchdog),
        ("the watcher sleeps while nothing happens", idle),
        ("one pass can be asked for", once),
        ("only one watcher runs at a time", only_one),
        ("a lock that cannot be opened is named", no_lock),
    ];
    let mut all: Vec<_> = alone
        .into_iter()
        .map(|(name, body)| on_shared_root(name, body))
        .collect();
    all.extend(for_each_engine_on_shared_root(
        "replaced files are swapped",
        replaced,
    ));
    all.extend(for_each_engine_on_shared_root(
        "ten thousand replacements are followed",
        ten_thousand,
    ));
    all.extend(for_each_source_of_mount_events(
        "an unmounted file is mounted again",
        put_back,
    ));
    all.extend(for_each_source_of_mount_events(
        "a pass that fails is not tried again at once",
        undone,
    ));
    all
}

fn replaced(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.file("host/conf", "0");
    let mounts = format!("mounts:\n{}", line(&source, "/conf"));
    let jails = ["a", "b", "c"].map(|site| sandbox.site(site, &mounts).join("conf"));
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    for nth in 1..=20 {
        replace(&source, &nth.to_string());
        for jail in &jails {
            soon_reads(jail, &nth.to_string());
        }
    }
    watcher.says_times("swapped /conf", 20);
    let text = watcher.end();
    assert!(text.contains("3 sites (a, b, c): swapped /conf"), "{text}");
    assert!(
        !text.contains("error") && !text.contains("warning"),
        "{text}"
    );
    for jail in &jails {
        assert_eq!(mounts_below(jail).len(), 1);
        assert!(fs::write(jail, "x").is_err(), "read-only, like the first");
    }
    sandbox.ok(&["status"]);
    sandbox.ok(&["up", "--all"]).says("in sync");
}

fn every_way() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let watcher = Watcher::start(&sandbox);
    let backup = source.with_extension("bak");

    // As vim does it: the old file becomes the backup, a new one is written, the backup goes.
    fs::rename(&source, &backup).unwrap();
    fs::write(&source, "by an editor").unwrap();
    fs::remove_file(&backup).unwrap();
    soon_reads(&jail, "by an editor");

    // Moved to a backup and back.
    fs::rename(&source, &backup).unwrap();
    watcher.says("error: s: "); // the line is not optional
    assert_eq!(
        fs::read_to_string(&jail).unwrap(),
        "by an editor",
        "the present mounts stay"
    );
    fs::rename(&backup, &source).unwrap();
    watcher.says("in sync again");
    soon_reads(&jail, "by an editor");

    // Two files are exchanged.
    let other = sandbox.file("host/other", "exchanged");
    renameat_with(CWD, &source, CWD, &other, RenameFlags::EXCHANGE).unwrap();
    soon_reads(&jail, "exchanged");

    // A hard link in its place, and the directory above in another's place.
    fs::remove_file(&source).unwrap();
    fs::hard_link(&other, &source).unwrap();
    soon_reads(&jail, "by an editor");
    let (host, new) = (sandbox.path("host"), sandbox.path("host.new"));
    sandbox.file("host.new/conf", "another directory");
    renameat_with(CWD, &host, CWD, &new, RenameFlags::EXCHANGE).unwrap();
    soon_reads(&jail, "another directory");
    replace(&source, "in the new directory");
    soon_reads(&jail, "in the new directory");

    // A file written in place needs nothing, and nothing is done.
    watcher.settles();
    let swaps = watcher.said().matches("swapped").count();
    fs::write(&source, "in place").unwrap();
    soon_reads(&jail, "in place");
    watcher.settles();
    assert_eq!(watcher.said().matches("swapped").count(), swaps);
    sandbox.ok(&["status", "s"]);
    watcher.end();
}

fn links() {
    let sandbox = Sandbox::new();
    let first = sandbox.file("host/run/first/stub", "first");
    let second = sandbox.file("host/run/second/stub", "second");
    let link = sandbox.path("host/resolv.conf");
    symlink("run/current/stub", &link).unwrap();
    let current = sandbox.path("host/run/current");
    symlink("first", &current).unwrap();
    let jail = sandbox
        .site("s", &format!("mounts:\n{}", line(&link, "/resolv.conf")))
        .join("resolv.conf");
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    replace(&first, "first, replaced");
    soon_reads(&jail, "first, replaced");
    // A directory link on the way leads elsewhere.
    symlink("second", sandbox.path("host/run/new")).unwrap();
    fs::rename(sandbox.path("host/run/new"), &current).unwrap();
    soon_reads(&jail, "second");
    replace(&second, "second, replaced");
    soon_reads(&jail, "second, replaced");
    // The link itself leads elsewhere, then is a file.
    let own = sandbox.file("host/own", "own");
    symlink("own", sandbox.path("host/link.new")).unwrap();
    fs::rename(sandbox.path("host/link.new"), &link).unwrap();
    soon_reads(&jail, "own");
    replace(&link, "no link any more");
    soon_reads(&jail, "no link any more");
    // Its former destination no longer counts.
    watcher.settles();
    let passes = watcher.state(&sandbox)["passes"].as_u64();
    for path in [&first, &second, &own] {
        replace(path, "x");
    }
    watcher.settles();
    assert_eq!(watcher.state(&sandbox)["passes"].as_u64(), passes);
    watcher.end();
}

/// The directory of a service: it does not exist at first, and is made anew at each start.
fn come_and_go() {
    let sandbox = Sandbox::new();
    sandbox.directory("host/run");
    let directory = sandbox.path("host/run/service");
    let first = sandbox.path("host/run/first");
    let manifest = format!(
        "mounts:\n  - {{ source: {}, target: /run/service, optional: true }}\n  - {{ any_of: [{}, \
         {}], target: /any }}\n",
        directory.display(),
        first.display(),
        sandbox.file("host/run/second", "second").display(),
    );
    let root = sandbox.site("s", &manifest);
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    for start in ["one", "two", "three"] {
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("socket"), start).unwrap();
        soon_reads(&root.join("run/service/socket"), start);
        fs::remove_file(directory.join("socket")).unwrap();
        fs::remove_dir(&directory).unwrap();
        watcher.settles();
        assert_eq!(
            mounts_below(&root.join("run/service")).len(),
            1,
            "a source that is gone for a moment is not taken off"
        );
    }
    // A directory and all above it.
    fs::remove_dir_all(sandbox.path("host/run")).unwrap();
    watcher.settles();
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("socket"), "four").unwrap();
    fs::write(sandbox.path("host/run/second"), "second again").unwrap();
    soon_reads(&root.join("run/service/socket"), "four");
    soon_reads(&root.join("any"), "second again");
    fs::write(&first, "the first alternative").unwrap();
    soon_reads(&root.join("any"), "the first alternative");
    watcher.end();
}

fn gone_for_good() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/conf", "one");
    let other = sandbox.file("host/other", "one");
    let optional = format!(
        "  - {{ source: {}, target: /conf, optional: true }}\n",
        source.display()
    );
    let root = sandbox.site(
        "s",
        &format!("mounts:\n{optional}{}", line(&other, "/other")),
    );
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    fs::remove_file(&source).unwrap();
    // Everything else goes on meanwhile.
    replace(&other, "two");
    soon_reads(&root.join("other"), "two");
    watcher.says("s: detached /conf, gone from the host\n");
    let said = watcher.said();
    let order = ["swapped /other", "detached /conf"].map(|text| said.find(text));
    assert!(
        order[0].is_some() && order[0] < order[1],
        "it is left for a while: {said}"
    );
    assert!(!root.join("conf").exists(), "as on the host");
    fs::write(&source, "again").unwrap();
    soon_reads(&root.join("conf"), "again");
    sandbox.ok(&["status", "s"]);
    watcher.end();
}

/// A reader never stops, while the file is replaced as fast as possible.
fn ten_thousand(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let text = |nth: u32| format!("{nth:06} ").repeat(500);
    let source = sandbox.file("host/conf", text(0));
    let jail = sandbox
        .site("s", &format!("mounts:\n{}", line(&source, "/conf")))
        .join("conf");
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    let done = AtomicBool::new(false);
    let (reads, seen) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&done, &jail, engine == "detached"));
        let _stop = Stop(&done);
        (1..=10_000).for_each(|nth| replace(&source, &text(nth)));
        soon_reads(&jail, &text(10_000));
        // One after the other, each as soon as the last one is there.
        for nth in 10_001..=10_100 {
            replace(&source, &text(nth));
            soon_reads(&jail, &text(nth));
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    watcher.settles();
    let passes = watcher.state(&sandbox)["passes"].as_u64().unwrap();
    assert!(passes < 1000, "{passes} passes for 10,100 replacements");
    assert!(
        reads > 100 && seen > 20,
        "{reads} reads saw {seen} contents"
    );
    let said = watcher.end();
    assert!(!said.contains("error"), "{said}");
    assert_eq!(mounts_below(&jail).len(), 1);
}

/// Sets the flag also when its holder panics, so that a thread that waits for it ends.
struct Stop<'f>(&'f AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads the file again and again; each time it must be complete. Without a gap, it must also exist
/// each time. Returns how often it was read, and how many different contents it had.
fn read_until(done: &AtomicBool, path: &Path, without_gap: bool) -> (usize, usize) {
    let (mut reads, mut seen) = (0, BTreeSet::new());
    while !done.load(Ordering::Relaxed) {
        let found = fs::read_to_string(path).unwrap();
        if found.is_empty() && !without_gap {
            continue; // the placeholder
        }
        let first = found
            .get(..7)
            .unwrap_or_else(|| panic!("{found:?}"))
            .to_owned();
        assert_eq!(found, first.repeat(500), "a mix");
        seen.insert(first);
        reads += 1;
    }
    (reads, seen.len())
}

/// As in a package upgrade, many files come and go in directories that count.
fn storm() {
    const FILES: u64 = 1000;
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("host/lib");
    for nth in 0..FILES {
        fs::write(directory.join(format!("lib{nth}.so")), "old").unwrap();
    }
    let pattern = directory.join("lib1*.so");
    let root = sandbox.site("s", &format!("mounts: ['{}']\n", pattern.display()));
    sandbox.ok(&["up", "s"]);
    let inside = root.join(directory.strip_prefix("/").unwrap());
    let watcher = Watcher::start(&sandbox);
    watcher.settles();
    let before = watcher.state(&sandbox)["passes"].as_u64().unwrap();
    for nth in 0..FILES {
        replace(&directory.join(format!("lib{nth}.so")), "new");
    }
    soon_reads(&inside.join("lib199.so"), "new");
    watcher.settles();
    let passes = watcher.state(&sandbox)["passes"].as_u64().unwrap() - before;
    assert!(
        passes * 20 <= FILES,
        "{FILES} replaced files made {passes} passes"
    );
    sandbox.ok(&["status", "s"]);
    watcher.end();
}

/// A watcher is stopped while more events happen than the kernel queues.
fn overflow() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let many = sandbox.directory("host/many");
    let glob = format!(
        "  - {{ source: '{}/*.none', optional: true }}\n",
        many.display()
    );
    sandbox.site("s", &format!("mounts:\n{}{glob}", line(&source, "/conf")));
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    watcher.settles();
    let works = Pid::from_raw(watcher.worker().try_into().unwrap());
    kill(works, Signal::SIGSTOP).unwrap();
    soon("the watcher is stopped", || {
        let stat = fs::read_to_string(format!("/proc/{works}/stat")).unwrap();
        let is_stopped = stat.rsplit_once(')').unwrap().1.starts_with(" T");
        if is_stopped { Ok(()) } else { Err(stat) }
    });
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    for nth in 0..limit + 1000 {
        fs::write(many.join(nth.to_string()), "").unwrap();
    }
    replace(&source, "after the overflow");
    kill(works, Signal::SIGCONT).unwrap();
    watcher.says("some were lost; all sites are checked");
    soon_reads(&jail, "after the overflow");
    watcher.end();
}

/// In a user namespace, whose limit can be lowered without affecting others.
fn too_few_watches() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/conf", "one");
    let jail = sandbox
        .site("s", &format!("mounts:\n{}", line(&source, "/conf")))
        .join("conf");
    let script = "echo 3 >/proc/sys/user/max_inotify_watches && \"$0\" up s && exec \"$0\" watch";
    let mut command =
        sandbox.command_under(&["unshare", "--map-root-user", "--mount", "sh", "-c", script]);
    let watcher = Watcher::with(&mut command);
    let inside = PathBuf::from(format!("/proc/{}/root{}", watcher.pid(), jail.display()));
    watcher.says("the limit fs.inotify.max_user_watches is reached");
    watcher.says("sysctl fs.inotify.max_user_watches=");
    sandbox.run(&["status"]).prints("watch: cannot watch ");
    replace(&source, "found by polling");
    soon_reads(&inside, "found by polling");
    assert!(
        watcher.state(&sandbox)["blind"]
            .as_str()
            .unwrap()
            .contains("every 5 s")
    );
    let raise = "echo 1000 >/proc/sys/user/max_inotify_watches";
    let pid = watcher.pid().to_string();
    Ran::of(Command::new("nsenter").args([
        "--preserve-credentials",
        "--user",
        "-t",
        &pid,
        "sh",
        "-c",
        raise,
    ]))
    .exits(0);
    watcher.says("everything can be watched again");
    watcher.settles();
    assert!(
        watcher.state(&sandbox)["blind"].is_null(),
        "it polls no more"
    );
    replace(&source, "told by the kernel");
    soon_reads(&inside, "told by the kernel");
    watcher.end();
}

/// The watcher is killed when it takes the old file off the new one, and started again.
fn killed_in_a_swap() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let fault = "umount2:signal=SIGKILL:when=1";
    let mut killed = Watcher::with(sandbox.command_with_fault(fault, &[]).arg("watch"));
    replace(&source, "two");
    assert!(!killed.ended().success());
    assert_eq!(
        mounts_below(&jail).len(),
        2,
        "the new one is beneath the old one"
    );
    sandbox.run(&["status", "s"]).exits(3);
    let watcher = Watcher::start(&sandbox);
    soon_reads(&jail, "two");
    assert_eq!(mounts_below(&jail).len(), 1);
    // Wherever it is killed, the next one finishes the work.
    let mut watcher = watcher;
    for nth in 0..20 {
        for step in 0..10 {
            replace(&source, &format!("{nth} {step}"));
            std::thread::sleep(Duration::from_millis(nth % 7));
        }
        watcher.crash();
        watcher = Watcher::start(&sandbox);
        soon_reads(&jail, &format!("{nth} 9"));
        assert_eq!(mounts_below(&jail).len(), 1);
    }
    sandbox.ok(&["status", "s"]);
    watcher.end();
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&jail).is_empty());
}

fn put_back(how: &'static str) {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let watcher = Watcher::with(
        sandbox
            .command()
            .arg("watch")
            .env("MOUNTJAIL_MOUNT_EVENTS", how),
    );
    assert_eq!(watcher.state(&sandbox)["mount_events"], how);
    for times in 1..=3 {
        unmount(&jail);
        watcher.says_times("s: attached /conf", times);
        soon_reads(&jail, "one");
    }
    // Somebody else's mount on top is not ours to touch: it is reported until it is gone.
    Ran::of(
        Command::new("mount")
            .arg("--bind")
            .arg("/etc/hostname")
            .arg(&jail),
    )
    .exits(0);
    watcher.says("is mounted on top of it, and not by mountjail");
    soon("it is shown", || {
        match sandbox.run(&["status", "s"]).exits(3).stdout {
            text if text.contains("s: watch failed for") => Ok(()),
            text => Err(text),
        }
    });
    unmount(&jail);
    watcher.says("s: in sync again");
    // A disk with another file is mounted over the source's directory, and taken away.
    let host = source.parent().unwrap();
    Ran::of(
        Command::new("mount")
            .args(["-t", "tmpfs", "disk"])
            .arg(host),
    )
    .exits(0);
    fs::write(&source, "on the disk").unwrap();
    soon_reads(&jail, "on the disk");
    replace(&source, "on the disk, replaced");
    soon_reads(&jail, "on the disk, replaced");
    Ran::of(Command::new("umount").arg("--lazy").arg(host)).exits(0);
    soon_reads(&jail, "one");
    replace(&source, "below the disk");
    soon_reads(&jail, "below the disk");
    // Its own mounts cause no work, nor do mounts that no site depends on.
    watcher.settles();
    let passes = watcher.state(&sandbox)["passes"].as_u64().unwrap();
    let elsewhere = sandbox.directory("elsewhere");
    Ran::of(
        Command::new("mount")
            .args(["-t", "tmpfs", "x"])
            .arg(&elsewhere),
    )
    .exits(0);
    unmount(&elsewhere);
    watcher.settles();
    let more = watcher.state(&sandbox)["passes"].as_u64().unwrap() - passes;
    assert!(
        more <= if how == "poll" { 2 } else { 0 },
        "{more} passes for nothing"
    );
    watcher.end();
}

fn manifests() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let root = jail.parent().unwrap();
    let (other, more) = (
        sandbox.file("host/other", "other"),
        sandbox.file("host/more", "more"),
    );
    let preset = |path: &Path| {
        sandbox.preset(
            "own",
            &format!("description: own\nmounts:\n{}", line(path, "/own")),
        );
    };
    preset(&other);
    let watcher = Watcher::start(&sandbox);
    let good = format!("presets: [own]\nmounts:\n{}", line(&source, "/conf"));
    sandbox.site("s", &good);
    soon_reads(&root.join("own"), "other");
    preset(&more);
    soon_reads(&root.join("own"), "more");

    // A mistake changes nothing, whatever else happens meanwhile.
    sandbox.site("s", &format!("{good}presents: [x]\n"));
    watcher.says("unknown key `presents`");
    sandbox
        .run(&["status", "s"])
        .exits(2)
        .says("did you mean `presets`");
    assert_eq!(fs::read_to_string(root.join("own")).unwrap(), "more");
    replace(&source, "two");
    sandbox.site("s", &good);
    watcher.says("s: in sync again");
    soon_reads(&jail, "two");

    // A line less is a mount less, at once; and a manifest that is a link is followed to its file.
    let real = sandbox.file(
        "git/s.yaml",
        format!(
            "root: {}\nmounts:\n{}",
            root.display(),
            line(&source, "/conf")
        ),
    );
    fs::remove_file(sandbox.path("config/sites/s.yaml")).unwrap();
    symlink(&real, sandbox.path("config/sites/s.yaml")).unwrap();
    watcher.says("s: detached /own");
    fs::write(&real, format!("root: {}\npresets: [own]\n", root.display())).unwrap();
    soon_reads(&root.join("own"), "more");
    watcher.says("detached /conf");

    // A site without a manifest is left as it is.
    fs::remove_file(sandbox.path("config/sites/s.yaml")).unwrap();
    watcher.says("s.yaml is gone: its mounts stay, but are no longer kept in sync");
    assert_eq!(mounts_below(root).len(), 1);
    sandbox.site("s", &good);
    soon_reads(&jail, "two");
    watcher.says("s: in sync again\n");
    sandbox.ok(&["status", "s"]);
    watcher.end();
}

fn down_stays_down() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let watcher = Watcher::start(&sandbox);
    sandbox.ok(&["down", "s"]);
    let fresh = sandbox
        .site("new", &format!("mounts:\n{}", line(&source, "/conf")))
        .join("conf");
    replace(&source, "two");
    watcher.settles();
    assert!(mounts_below(&jail).is_empty() && mounts_below(&fresh).is_empty());
    assert_eq!(watcher.state(&sandbox)["sites"], 0);
    sandbox.ok(&["up", "--all"]);
    soon(
        "it keeps two sites",
        || match &watcher.state(&sandbox)["sites"] {
            sites if *sites == 2 => Ok(()),
            sites => Err(sites.to_string()),
        },
    );
    watcher.settles();
    replace(&source, "three");
    soon_reads(&jail, "three");
    soon_reads(&fresh, "three");
    watcher.end();
    sandbox.ok(&["status"]);
}

fn locked_site() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/conf", "one");
    let mounts = format!("mounts:\n{}", line(&source, "/conf"));
    let [locked, free] = ["a", "b"].map(|site| sandbox.site(site, &mounts).join("conf"));
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    let lock = fs::File::open(sandbox.state().join("run/a.lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .unwrap();
    for text in ["two", "three"] {
        replace(&source, text);
        soon_reads(&free, text);
    }
    assert_eq!(fs::read_to_string(&locked).unwrap(), "one");
    assert!(!watcher.said().contains("error"), "{}", watcher.said());
    watcher.says("a: another mountjail has been working on it for a while");
    drop(lock);
    soon_reads(&locked, "three");
    watcher.says("a: in sync again");
    watcher.end();
}

fn all_at_once() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/conf", "0");
    let mounts = format!("mounts:\n{}", line(&source, "/conf"));
    let sites = ["a", "b", "c", "d"];
    let jails = sites.map(|site| sandbox.site(site, &mounts).join("conf"));
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..10).for_each(|_| drop(sandbox.ok(&["down", "--lazy", "a", "b"]))));
        scope.spawn(|| (0..20).for_each(|_| drop(sandbox.run(&["up", "--all"]))));
        (0..200).for_each(|nth| {
            replace(&source, &nth.to_string());
            std::thread::sleep(Duration::from_millis(5));
        });
    });
    sandbox.ok(&["up", "--all"]);
    replace(&source, "in the end");
    for jail in &jails {
        soon_reads(jail, "in the end");
    }
    watcher.settles();
    sandbox.ok(&["status"]);
    for jail in &jails {
        assert_eq!(mounts_below(jail).len(), 1);
    }
    watcher.end();
    sandbox.ok(&["down", "--all"]);
    assert!(mounts_below(&sandbox.path("srv")).is_empty());
}

fn failure() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let watcher = Watcher::start(&sandbox);
    let aside = source.with_extension("aside");
    fs::rename(&source, &aside).unwrap();
    watcher.says("cannot find");
    soon("it has tried again", || {
        let failure = watcher.state(&sandbox)["failures"]["s"].clone();
        if failure["attempts"]
            .as_u64()
            .is_some_and(|attempts| attempts >= 3)
        {
            Ok(())
        } else {
            Err(failure.to_string())
        }
    });
    assert_eq!(
        watcher.said().matches("error:").count(),
        1,
        "reported once: {}",
        watcher.said()
    );
    let state = sandbox.run(&["status", "--json"]).json();
    let failure = &state["watch"]["failures"]["s"];
    assert!(
        failure["error"]
            .as_str()
            .unwrap()
            .contains("conf does not exist"),
        "{state}"
    );
    assert!(
        failure["next_try"].as_u64() >= failure["since"].as_u64(),
        "{state}"
    );
    fs::rename(&aside, &source).unwrap();
    watcher.says("s: in sync again after");
    soon_reads(&jail, "one");
    let state = sandbox.ok(&["status", "--json"]).json();
    assert_eq!(state["watch"]["failures"], serde_json::json!({}));
    assert!(state["watch"]["last_full_pass"].as_u64() >= state["watch"]["since"].as_u64());
    watcher.crash();
    assert!(
        sandbox.ok(&["status", "--json"]).json()["watch"].is_null(),
        "nobody watches any more"
    );
}

/// The second of two swaps fails, always: each pass begins, and is undone. What they mount and
/// unmount themselves does not make them try again at once.
fn undone(how: &'static str) {
    let sandbox = Sandbox::new();
    let sources = ["host/one", "host/two"].map(|name| sandbox.file(name, "old"));
    let mounts: String = sources
        .iter()
        .map(|source| {
            line(
                source,
                &format!("/{}", source.file_name().unwrap().display()),
            )
        })
        .collect();
    let root = sandbox.site("s", &format!("mounts:\n{mounts}"));
    sandbox.ok(&["up", "s"]);
    let two = root.join("two");
    // It ends with strace, also if this trial fails.
    let more = [
        "-P",
        two.to_str().unwrap(),
        "setpriv",
        "--pdeathsig",
        "KILL",
    ];
    let watcher = Watcher::with(
        sandbox
            .command_with_fault("move_mount:error=EIO", &more)
            .arg("watch")
            .env("MOUNTJAIL_MOUNT_EVENTS", how),
    );
    // Both in one pass.
    fs::rename(sandbox.path("host"), sandbox.path("aside")).unwrap();
    for name in ["one", "two"] {
        sandbox.file(format!("new/{name}"), "new");
    }
    fs::rename(sandbox.path("new"), sandbox.path("host")).unwrap();
    watcher.says("cannot swap");
    let state = || {
        let state = fs::read(sandbox.state().join("run/watch/state.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&state).unwrap()
    };
    soon("it has tried three times", || {
        let state = state();
        match state["failures"]["s"]["attempts"].as_u64() {
            Some(attempts) if attempts >= 3 => Ok(()),
            _ => Err(state.to_string()),
        }
    });
    let state = state();
    assert!(
        state["passes"].as_u64().is_some_and(|passes| passes < 25),
        "{state}"
    );
    assert_eq!(
        fs::read_to_string(root.join("one")).unwrap(),
        "old",
        "all or nothing"
    );
    drop(watcher);
    sandbox.ok(&["up", "s"]);
    assert_eq!(fs::read_to_string(root.join("two")).unwrap(), "new");
}

/// What the service manager hears at its socket, up to the first message with this text.
fn heard(socket: &UnixDatagram, text: &str) -> Vec<String> {
    let (mut heard, mut buffer) = (vec![], [0; 1024]);
    loop {
        let length = socket
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("never hears {text}: {error}"));
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let is_last = message.contains(text);
        heard.push(message);
        if is_last {
            return heard;
        }
    }
}

/// The service manager's socket at `path`.
fn notify_socket(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn service_manager() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let path = sandbox.path("notify");
    let socket = notify_socket(&path);
    let hears = |text: &str| heard(&socket, text).pop().unwrap();
    let journal = sandbox.file("journal", "");
    let open = fs::OpenOptions::new().append(true).open(&journal).unwrap();
    let id = nix::sys::stat::fstat(&open).unwrap();
    let mut command = sandbox.command();
    command
        .args(["watch"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000");
    command
        .env("JOURNAL_STREAM", format!("{}:{}", id.st_dev, id.st_ino))
        .stderr(open);
    let mut watcher = command.spawn().unwrap();
    let signal = |signal| kill(Pid::from_raw(watcher.id().try_into().unwrap()), signal);

    let ready = hears("READY=1");
    assert!(ready.contains("STATUS=1 site watched"), "{ready}");
    (0..10).for_each(|_| drop(hears("WATCHDOG=1")));
    replace(&source, "two");
    soon_reads(&jail, "two");
    signal(Signal::SIGHUP).unwrap();
    assert!(hears("RELOADING=1").contains("MONOTONIC_USEC="));
    hears("READY=1");
    replace(&source, "three");
    soon_reads(&jail, "three");
    sandbox.manifest("s", "root: [");
    soon("the mistake is logged", || {
        let text = fs::read_to_string(&journal).unwrap();
        if text.contains("<3>") {
            Ok(())
        } else {
            Err(text)
        }
    });
    hears("STATUS=1 site watched, 1 of them not in sync");
    sandbox.site("s", &format!("mounts:\n{}", line(&source, "/conf")));
    assert!(!hears("STATUS=1 site watched").contains("not in sync"));
    signal(Signal::SIGTERM).unwrap();
    hears("STOPPING=1");
    assert!(watcher.wait().unwrap().success());
    assert_eq!(
        fs::read_to_string(&jail).unwrap(),
        "three",
        "the mounts stay"
    );
    assert!(!sandbox.state().join("run/watch/state.json").exists());
    let text = fs::read_to_string(&journal).unwrap();
    assert!(
        text.lines()
            .all(|line| line.starts_with("<3>") || line.starts_with("<6>")),
        "{text}"
    );
    assert!(
        text.contains("<6>s: swapped /conf\n") && text.contains("<6>ending; all sites stay up\n"),
        "{text}"
    );
}

/// By `sd_watchdog_enabled(3)`, zero is not an interval.
fn no_watchdog() {
    let sandbox = Sandbox::new();
    one_file(&sandbox);
    let path = sandbox.path("notify");
    let socket = notify_socket(&path);
    let mut command = sandbox.command();
    command
        .arg("watch")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "0");
    let watcher = Watcher::spawn(&mut command);

    let mut messages = heard(&socket, "READY=1");
    watcher.signal(Signal::SIGHUP);
    for text in ["RELOADING=1", "READY=1"] {
        messages.extend(heard(&socket, text));
    }
    watcher.end();
    messages.extend(heard(&socket, "STOPPING=1"));
    let text = messages.join("\n");
    assert!(!text.contains("WATCHDOG"), "{text}");
}

fn idle() {
    // Not below /tmp, where every process of the machine makes files.
    let sandbox = Sandbox::new();
    Ran::of(
        Command::new("mount")
            .arg("--bind")
            .arg(sandbox.path(""))
            .arg("/mnt"),
    )
    .exits(0);
    let elsewhere = Path::new("/mnt/elsewhere");
    fs::create_dir_all(elsewhere).unwrap();
    sandbox.file("host/conf", "one");
    fs::create_dir_all("/mnt/srv/s").unwrap();
    sandbox.manifest(
        "s",
        "root: /mnt/srv/s\nmounts: [{ source: /mnt/host/conf, target: /conf }]\n",
    );
    let command = |arguments: &[&str]| {
        let mut command = sandbox.command();
        command
            .args(arguments)
            .env("MOUNTJAIL_CONFIG_DIR", "/mnt/config")
            .env("MOUNTJAIL_STATE_DIR", "/mnt/state");
        command
    };
    Ran::of(&mut command(&["up", "s"])).exits(0);
    let watcher = Watcher::with(&mut command(&["watch"]));
    watcher.sleeps();
    let before = watcher.wakeups();
    // Changes that no site depends on, and reads of files that sites depend on.
    (0..100).for_each(|nth| fs::write(elsewhere.join(nth.to_string()), "x").unwrap());
    fs::write("/mnt/host/conf", "in place").unwrap();
    Ran::of(&mut command(&["status"])).exits(0);
    watcher.sleeps();
    assert_eq!(watcher.wakeups(), before, "nothing has woken it");
    replace(Path::new("/mnt/host/conf"), "two");
    soon_reads(Path::new("/mnt/srv/s/conf"), "two");
    watcher.end();
}

fn once() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let down = sandbox.site("down", "devices: [zero]\n");
    sandbox.ok(&["watch", "--once"]).says("s: in sync, 1 mount");
    replace(&source, "two");
    sandbox
        .ok(&["watch", "--once", "s"])
        .says("s: up, 1 mount: 1 swapped");
    assert_eq!(fs::read_to_string(&jail).unwrap(), "two");
    assert!(mounts_below(&down).is_empty());
    sandbox
        .ok(&["watch", "--once", "down"])
        .says("down: down; left alone");
    fs::remove_file(source).unwrap();
    sandbox
        .run(&["watch", "--once"])
        .exits(1)
        .says("conf does not exist");
    sandbox
        .run(&["watch", "--once", "none"])
        .exits(2)
        .says("there is no site none");
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
    Ran::of(sandbox.command_under(&nobody).args(["watch"]))
        .exits(1)
        .says("mounting needs root");
}

fn only_one() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let first = Watcher::start(&sandbox);
    sandbox.run(&["watch"]).exits(1).says(&format!(
        "another `mountjail watch` is running already (pid {})",
        first.pid()
    ));
    replace(&source, "two");
    soon_reads(&jail, "two");
    first.crash();
    Watcher::start(&sandbox).end();
}

fn no_lock() {
    let sandbox = Sandbox::new();
    one_file(&sandbox);
    let lock = sandbox.directory("state/run/watch/lock");
    let ran = sandbox.run(&["watch"]).exits(1);
    let ran = ran.says(&lock.display().to_string());
    assert!(!ran.stderr.contains("another `mountjail watch`"), "{ran}");
}

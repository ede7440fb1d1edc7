//! Promise: whatever fails around it, `mountjail watch` goes on, keeps the mounts, reports each
//! failure once, and brings the sites in sync as soon as it can.

use std::fs::{self, FileType};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{
    Ran, Sandbox, Watcher, for_each_source_of_mount_events, line, mounts_below, on_shared_root,
    one_file, replace, soon, soon_reads, wait_until,
};
use libtest_mimic::Trial;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount, umount};

pub fn all() -> Vec<Trial> {
    let alone: [(&str, fn()); 16] = [
        (
            "a site can be up while none of its sources exist",
            nothing_there,
        ),
        ("each missing source has its own grace period", own_time),
        (
            "a source that cannot be looked at keeps its mount",
            dead_file_system,
        ),
        (
            "a source that becomes another kind of file is followed",
            kinds,
        ),
        (
            "a root that is moved away and made anew is followed",
            moved_root,
        ),
        ("a record that cannot be read is not lost", records),
        (
            "a file is swapped in a template without a record",
            template_without_record,
        ),
        (
            "presets that change while sites cannot be listed are followed",
            configuration,
        ),
        ("a misnamed file does not stop other sites", misnamed),
        ("a preset that cannot be read is named", unreadable_preset),
        (
            "a full state directory is reported, and made up for",
            full_state,
        ),
        (
            "too few descriptors are reported, and made up for",
            few_descriptors,
        ),
        ("the watcher works without more threads", no_threads),
        ("many failures make few lines", many_failures),
        ("an owner's flood of failures is cut short", flood),
        (
            "a file that is replaced thousands of times is followed",
            hot_file,
        ),
    ];
    let mut all: Vec<_> = alone
        .into_iter()
        .map(|(name, body)| on_shared_root(name, body))
        .collect();
    all.extend(for_each_source_of_mount_events(
        "the watcher survives without /proc for a while",
        without_proc,
    ));
    all
}

/// A line of `mounts` that binds `source` on `target`, if it is there.
fn optional(source: &Path, target: &str) -> String {
    format!(
        "  - {{ source: {}, target: {target}, optional: true }}\n",
        source.display()
    )
}

/// Waits until the watcher has tried this often to bring the site `s` in sync.
#[track_caller]
fn soon_fails_times(watcher: &Watcher, sandbox: &Sandbox, times: u64) {
    soon(&format!("it has tried {times} times"), || {
        let failure = watcher.state(sandbox)["failures"]["s"].clone();
        match failure["attempts"].as_u64() {
            Some(attempts) if attempts >= times => Ok(()),
            _ => Err(failure.to_string()),
        }
    });
}

fn nothing_there() {
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("host/run").join("service");
    let root = sandbox.site(
        "s",
        &format!("mounts:\n{}", optional(&directory, "/service")),
    );
    let inside = root.join("service/socket");
    let begin = || {
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("socket"), "here").unwrap();
    };
    sandbox.ok(&["up", "s"]).says("s: in sync, 0 mounts");
    let watcher = Watcher::start(&sandbox);
    assert!(
        watcher.said().contains("watching 1 site;"),
        "{}",
        watcher.said()
    );
    begin();
    soon_reads(&inside, "here");
    fs::remove_dir_all(&directory).unwrap();
    watcher.says("s: detached /service");
    begin();
    soon_reads(&inside, "here");
    fs::remove_dir_all(&directory).unwrap();
    watcher.says_times("s: detached /service", 2);
    watcher.end();
    // As a package manager's hook does.
    begin();
    sandbox
        .ok(&["up", "--all", "--if-up"])
        .says("s: up, 1 mount: 1 attached");
    sandbox.ok(&["down", "s"]);
    sandbox
        .ok(&["up", "--all", "--if-up"])
        .says("s: down; left alone");
    assert!(!sandbox.state().join("run/s.json").exists());
}

fn own_time() {
    let sandbox = Sandbox::new();
    let sources = ["a", "b", "c"].map(|name| sandbox.file(format!("host/{name}"), name));
    let [a, b, c] = &sources;
    let lines = ["/a", "/b", "/c"].map(|target| {
        let source = sandbox.path("host").join(&target[1..]);
        optional(&source, target)
    });
    let root = sandbox.site("s", &format!("mounts:\n{}", lines.concat()));
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    let passes = || watcher.state(&sandbox)["passes"].as_u64().unwrap();
    let before = passes();
    fs::remove_file(a).unwrap();
    wait_until("it has seen that a is gone", || passes() > before);
    fs::remove_file(b).unwrap();
    let gone = |target: &str| {
        let said = watcher.said();
        let mut lines = said.lines();
        lines.position(|line| line.contains(target) && line.ends_with(", gone from the host"))
    };
    wait_until("both are gone", || gone("/a").and(gone("/b")).is_some());
    // A busy machine may let both go in one pass, in any order.
    assert!(gone("/a") <= gone("/b"), "{}", watcher.said());
    sandbox.file("host/b", "again");
    soon_reads(&root.join("b"), "again");

    // One that is gone and no longer asked for is not waited for: it goes before the other one.
    let said = watcher.said();
    fs::remove_file(b).unwrap();
    fs::remove_file(c).unwrap();
    watcher.settles();
    sandbox.site("s", &format!("mounts:\n{}{}", lines[0], lines[2]));
    watcher.says("detached /c, gone from the host\n");
    let said = watcher.end().split_off(said.len());
    let order = ["detached /b", "detached /c,"].map(|text| said.find(text));
    assert!(order[0].is_some() && order[0] < order[1], "{said}");
}

/// A FUSE file system whose server is gone is mounted over the source's directory: every lookup in
/// it is refused.
fn dead_file_system() {
    let Ok(server) = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
    else {
        eprintln!("SKIP: the kernel has no FUSE");
        return;
    };
    let sandbox = Sandbox::new();
    let (source, other) = (
        sandbox.file("host/in/conf", "one"),
        sandbox.file("host/other", "one"),
    );
    let manifest = format!(
        "mounts:\n{}{}",
        optional(&source, "/conf"),
        line(&other, "/other")
    );
    let root = sandbox.site("s", &manifest);
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    let directory = source.parent().unwrap();
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        server.as_raw_fd()
    );
    mount(
        Some("dead"),
        directory,
        Some("fuse"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    drop(server);
    watcher.says("conf: Transport endpoint is not connected");
    watcher.says("s: the mounts stay; retried from time to time, and after each change");
    // Everything else is kept in sync.
    replace(&other, "two");
    soon_reads(&root.join("other"), "two");
    std::thread::sleep(Duration::from_secs(11)); // longer than a source may be gone
    assert_eq!(fs::read_to_string(root.join("conf")).unwrap(), "one");
    soon_fails_times(&watcher, &sandbox, 3);
    sandbox
        .run(&["watch", "--once"])
        .exits(1)
        .says("conf: Transport endpoint is not connected");
    Ran::of(Command::new("umount").arg("--lazy").arg(directory)).exits(0);
    watcher.says("s: in sync again");
    assert!(!watcher.said().contains("detached"), "{}", watcher.said());
    replace(&source, "two");
    soon_reads(&root.join("conf"), "two");
    watcher.end();
}

fn kinds() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let watcher = Watcher::start(&sandbox);
    for times in [1, 3] {
        fs::remove_file(&source).unwrap();
        sandbox.file("host/conf/inside", "a directory");
        soon_reads(&jail.join("inside"), "a directory");
        // no mount is swapped for one of another kind
        watcher.says_times("s: replaced /conf\n", times);
        fs::remove_dir_all(&source).unwrap();
        fs::write(&source, "a file").unwrap();
        soon_reads(&jail, "a file");
        watcher.says_times("s: replaced /conf\n", times + 1);
    }
    for (make, is_it) in [
        ("mkfifo $0", FileType::is_fifo as fn(&FileType) -> bool),
        ("mknod $0 c 1 3", FileType::is_char_device),
        ("mknod $0 b 7 200", FileType::is_block_device),
    ] {
        Ran::of(
            Command::new("sh")
                .args(["-c", &format!("rm $0 && {make}")])
                .arg(&source),
        )
        .exits(0);
        soon(make, || {
            match fs::symlink_metadata(&jail).unwrap().file_type() {
                kind if is_it(&kind) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    fs::remove_file(&source).unwrap();
    fs::write(&source, "a file again").unwrap();
    soon_reads(&jail, "a file again");
    sandbox.ok(&["status"]);
    watcher.end();
}

fn moved_root() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let (root, aside) = (sandbox.root("s"), sandbox.root("aside"));
    let watcher = Watcher::start(&sandbox);
    fs::rename(&root, &aside).unwrap();
    watcher.says("error: s: cannot find the root");
    assert_eq!(
        fs::read_to_string(aside.join("conf")).unwrap(),
        "one",
        "the process inside goes on"
    );
    fs::rename(&aside, &root).unwrap();
    watcher.says("s: in sync again");
    replace(&source, "two");
    soon_reads(&jail, "two");
    // Another directory takes its place: what was mounted in the old one goes.
    fs::rename(&root, &aside).unwrap();
    fs::create_dir(&root).unwrap();
    soon_reads(&jail, "two");
    watcher.says("s: replaced /conf");
    assert!(mounts_below(&aside).is_empty());
    sandbox.ok(&["status"]);
    watcher.end();
}

fn template_without_record() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/conf", "one");
    let lines = [line(&source, "/x/conf"), line(&source, "/x/again")];
    let root = sandbox.site("s", &format!("mounts:\n{}", lines.concat()));
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    let templates = fs::read_dir(sandbox.state().join("run/templates")).unwrap();
    for file in templates.map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|ending| ending == "json") {
            fs::write(file, "{").unwrap();
        }
    }
    replace(&source, "two");
    soon_reads(&root.join("x/conf"), "two");
    watcher.end();
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
}

fn records() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let watcher = Watcher::start(&sandbox);
    let (record, aside) = (
        sandbox.state().join("run/s.json"),
        sandbox.directory("aside"),
    );
    let exchange = || {
        renameat2(
            AT_FDCWD,
            &record,
            AT_FDCWD,
            &aside,
            RenameFlags::RENAME_EXCHANGE,
        )
        .unwrap();
    };
    exchange();
    watcher.says("s.json: Is a directory");
    replace(&source, "two");
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("cannot read the record");
    sandbox
        .run(&["down", "s"])
        .exits(1)
        .says("cannot read the record");
    assert_eq!(
        watcher.state(&sandbox)["sites"],
        1,
        "it is up, as far as is known"
    );
    exchange();
    soon_reads(&jail, "two");
    watcher.says("s: in sync again");
    // Nor does one whose contents are lost say that the site is down.
    fs::rename(sandbox.file("damaged", "{"), &record).unwrap();
    watcher.says("s.json is damaged");
    watcher.says("`mountjail up s` writes a new record");
    sandbox.ok(&["up", "s"]);
    watcher.says_times("s: in sync again", 2);
    replace(&source, "three");
    soon_reads(&jail, "three");
    watcher.end();
}

fn configuration() {
    let sandbox = Sandbox::new();
    let (source, other) = (
        sandbox.file("host/conf", "one"),
        sandbox.file("host/other", "other"),
    );
    let preset =
        |mounts: &str| sandbox.preset("own", &format!("description: own\nmounts:\n{mounts}"));
    preset(&line(&source, "/conf"));
    let root = sandbox.site("s", "presets: [own]\n");
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    let (sites, aside) = (sandbox.path("config/sites"), sandbox.path("aside"));
    fs::rename(&sites, &aside).unwrap();
    watcher.says("the configuration that was read last stays in force: cannot list the sites in");
    watcher.says("s.yaml is gone: its mounts stay");
    preset(&format!(
        "{}{}",
        line(&source, "/conf"),
        line(&other, "/other")
    ));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(
        watcher.said().matches("cannot list").count(),
        1,
        "reported once: {}",
        watcher.said()
    );
    assert_eq!(fs::read_to_string(root.join("conf")).unwrap(), "one");
    fs::rename(&aside, &sites).unwrap();
    soon_reads(&root.join("other"), "other");
    watcher.says("the configuration can be read again");
    watcher.says("s: in sync again\n");
    // The same of the presets.
    let presets = sandbox.path("config/presets");
    fs::rename(&presets, &aside).unwrap();
    fs::write(&presets, "no directory").unwrap();
    watcher.says("cannot list the presets in");
    replace(&source, "two");
    soon_reads(&root.join("conf"), "two");
    fs::remove_file(&presets).unwrap();
    fs::rename(&aside, &presets).unwrap();
    preset(&line(&source, "/conf"));
    watcher.says("s: detached /other");
    sandbox.ok(&["status"]);
    watcher.end();
}

fn misnamed() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let other = sandbox.file("host/other", "other");
    let stray = sandbox.file("config/sites/copy of s.yaml", "root: /nowhere\n");
    let watcher = Watcher::start(&sandbox);
    watcher.says("copy of s.yaml: the file's name cannot be a site's name");
    replace(&source, "two");
    soon_reads(&jail, "two");
    sandbox.site(
        "s",
        &format!(
            "mounts:\n{}{}",
            line(&source, "/conf"),
            line(&other, "/other")
        ),
    );
    soon_reads(&sandbox.root("s").join("other"), "other");
    let fresh = sandbox.site("new", &format!("mounts:\n{}", line(&source, "/conf")));
    for command in ["up", "plan", "check", "fstab"] {
        sandbox
            .run(&[command, "--all"])
            .exits(2)
            .says("copy of s.yaml: the file's name");
    }
    assert_eq!(
        fs::read_to_string(fresh.join("conf")).unwrap(),
        "two",
        "the others are up"
    );
    sandbox
        .run(&["status"])
        .exits(2)
        .says("copy of s.yaml")
        .prints("new: up");
    assert_eq!(
        watcher.said().matches("copy of s.yaml").count(),
        1,
        "reported once: {}",
        watcher.said()
    );
    fs::remove_file(stray).unwrap();
    sandbox.ok(&["status"]);
    watcher.end();
}

fn unreadable_preset() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    sandbox.site(
        "s",
        &format!("presets: [own]\nmounts:\n{}", line(&source, "/conf")),
    );
    sandbox.directory("config/presets/own.yaml");
    let watcher = Watcher::start(&sandbox);
    watcher.says("the preset cannot be read");
    watcher.says("own.yaml is not a regular file");
    fs::remove_dir(sandbox.path("config/presets/own.yaml")).unwrap();
    sandbox.preset("own", "description: own\ndevices: [zero]\n");
    watcher.says("s: attached /dev/zero");
    assert_eq!(fs::read_to_string(jail).unwrap(), "one");
    watcher.end();
}

fn full_state() {
    let sandbox = Sandbox::new();
    let state = sandbox.directory("state");
    mount(
        Some("small"),
        &state,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=128k"),
    )
    .unwrap();
    let (source, jail) = one_file(&sandbox);
    let watcher = Watcher::start(&sandbox);
    let fill = state.join("fill");
    fs::write(&fill, vec![0; 1 << 20]).unwrap_err(); // as much as there is room for
    replace(&source, "two");
    watcher.says("s.json: No space left on device");
    watcher.says("the watcher's state in `mountjail status` is out of date: cannot write");
    assert_eq!(
        fs::read_to_string(&jail).unwrap(),
        "one",
        "without a record nothing is mounted"
    );
    std::thread::sleep(Duration::from_secs(4));
    for line in ["s: cannot write", "status` is out of date"] {
        assert_eq!(
            watcher.said().matches(line).count(),
            1,
            "{line} is reported once: {}",
            watcher.said()
        );
    }
    fs::remove_file(fill).unwrap();
    replace(&source, "three");
    soon_reads(&jail, "three");
    watcher.says("status` is up to date again");
    soon("it has no failures", || {
        match &watcher.state(&sandbox)["failures"] {
            failures if *failures == serde_json::json!({}) => Ok(()),
            failures => Err(failures.to_string()),
        }
    });
    watcher.end();
}

fn few_descriptors() {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let watcher = Watcher::start(&sandbox);
    let limit = |soft: &str| {
        let pid = watcher.worker().to_string();
        Ran::of(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]))
            .exits(0);
    };
    limit("4"); // as many as it waits for: ppoll(2) takes no more
    replace(&source, "two");
    watcher.says("all sites stay as they are, and are checked later: ");
    watcher.says("Too many open files\n  try: raise the limit: `LimitNOFILE=` of the service");
    assert!(
        !watcher.said().contains("is /proc mounted"),
        "{}",
        watcher.said()
    );
    limit("256");
    replace(&source, "three");
    soon_reads(&jail, "three");
    watcher.says("sites are checked again");
    watcher.says("s: in sync again");
    watcher.end();
}

/// This is the error on a machine with too many processes.
fn no_threads() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/conf", "one");
    let sites = ["a", "b", "c"];
    let jails = sites.map(|name| {
        sandbox
            .site(name, &format!("mounts:\n{}", line(&source, "/conf")))
            .join("conf")
    });
    let command = || {
        sandbox.command_with_fault(
            "clone,clone3:error=EAGAIN",
            &["setpriv", "--pdeathsig", "KILL"],
        )
    };
    Ran::of(command().args(["up", "--all"])).exits(0);
    let watcher = Watcher::with(command().arg("watch"));
    replace(&source, "two");
    for jail in &jails {
        soon_reads(jail, "two");
    }
    drop(watcher);
    Ran::of(command().args(["down", "--all"])).exits(0);
}

fn many_failures() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/conf", "one");
    let names: Vec<_> = (0..12).map(|nth| format!("s{nth}")).collect();
    for name in &names {
        sandbox.site(name, &format!("mounts:\n{}", line(&source, "/conf")));
    }
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    let aside = source.with_extension("aside");
    fs::rename(&source, &aside).unwrap();
    watcher.says("error: 7 more sites failed\n  try: `mountjail status` shows why");
    watcher.says("12 sites (s0, s1, s10, s11, s2 and 7 more): the mounts stay; retried");
    assert_eq!(
        watcher.said().matches("conf does not exist").count(),
        5,
        "{}",
        watcher.said()
    );
    soon("status names each", || {
        match sandbox.run(&["status"]).exits(1).stdout {
            text if text.matches(": watch failed for").count() == 12 => Ok(()),
            text => Err(text),
        }
    });
    fs::rename(&aside, &source).unwrap();
    watcher.says("12 sites (s0, s1, s10, s11, s2 and 7 more): in sync again after");
    watcher.end();
}

/// The mount hides it as an unmount would, which no running system can have.
fn without_proc(how: &'static str) {
    let sandbox = Sandbox::new();
    let (source, jail) = one_file(&sandbox);
    let watcher = Watcher::with(
        sandbox
            .command()
            .arg("watch")
            .env("MOUNTJAIL_MOUNT_EVENTS", how),
    );
    let empty = sandbox.directory("empty");
    mount(
        Some(&empty),
        "/proc",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    replace(&source, "two");
    watcher.says("all sites stay as they are, and are checked later: cannot read /proc/");
    watcher.says("try: is /proc mounted?");
    soon_fails_times(&watcher, &sandbox, 3);
    assert_eq!(
        watcher.said().matches("checked later").count(),
        1,
        "reported once: {}",
        watcher.said()
    );
    let failure = &watcher.state(&sandbox)["failures"]["s"];
    assert!(
        failure["error"]
            .as_str()
            .is_some_and(|error| error.contains("/proc/")),
        "{failure}"
    );
    umount("/proc").unwrap();
    soon_reads(&jail, "two");
    watcher.says("sites are checked again");
    watcher.says("s: in sync again");
    watcher.end();
}

/// One that one of three hundred sites depends on, then one that all others do. Not below /tmp,
/// where every process of the machine makes files.
fn hot_file() {
    const TIMES: u64 = 5000;
    let sandbox = Sandbox::new();
    mount(
        Some(&sandbox.path("")),
        "/mnt",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    for name in ["hot", "cold"] {
        sandbox.file(format!("host/{name}"), "0");
    }
    let site = |name: &str, source: &str| {
        fs::create_dir_all(format!("/mnt/srv/{name}")).unwrap();
        let text = format!(
            "root: /mnt/srv/{name}\nmounts: [{{ source: /mnt/host/{source}, target: /conf }}]\n"
        );
        sandbox.manifest(name, text);
    };
    site("hot", "hot");
    (0..300).for_each(|nth| site(&format!("cold{nth}"), "cold"));
    let command = |arguments: &[&str]| {
        let mut command = sandbox.command();
        command
            .args(arguments)
            .env("MOUNTJAIL_CONFIG_DIR", "/mnt/config");
        command.env("MOUNTJAIL_STATE_DIR", "/mnt/state");
        command
    };
    Ran::of(&mut command(&["up", "--all", "--quiet"])).exits(0);
    let watcher = Watcher::with(&mut command(&["watch"]));
    watcher.settles();
    let passes = || {
        let state = fs::read("/mnt/state/run/watch/state.json").unwrap();
        serde_json::from_slice::<serde_json::Value>(&state).unwrap()["passes"]
            .as_u64()
            .unwrap()
    };
    for (name, jail) in [
        ("hot", "/mnt/srv/hot/conf"),
        ("cold", "/mnt/srv/cold299/conf"),
    ] {
        let (file, before) = (Path::new("/mnt/host").join(name), passes());
        for nth in 1..=TIMES {
            replace(&file, &nth.to_string());
        }
        soon_reads(Path::new(jail), &TIMES.to_string());
        watcher.settles();
        let made = passes() - before;
        assert!(
            made < TIMES / 2,
            "{name}: {made} passes for {TIMES} replacements"
        );
    }
    watcher.sleeps();
    watcher.end();
}

/// Each pass finds thirty links with long texts, and others than before.
fn flood() {
    let sandbox = Sandbox::new();
    let owned = sandbox.directory("host/owned");
    let mut manifest = format!("mounts:\n{}", line(&owned, "/owned"));
    for nth in 0..30 {
        let source = sandbox.file(format!("host/f{nth}"), "x");
        manifest += &line(&source, &format!("/d{nth}/f"));
    }
    let root = sandbox.site("s", &manifest);
    let other = sandbox.file("host/other", "one");
    sandbox.site("other", &format!("mounts:\n{}", line(&other, "/other")));
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    let passes = || {
        let state = fs::read(sandbox.state().join("run/watch/state.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&state).unwrap()["passes"]
            .as_u64()
            .unwrap()
    };
    for nth in 0..30 {
        fs::rename(root.join(format!("d{nth}")), root.join(format!("old{nth}"))).unwrap();
    }
    for round in 0..20 {
        let text = format!("{round}{}\u{202e}", "x/".repeat(1500));
        for nth in 0..30 {
            let link = root.join(format!("d{nth}"));
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&text, link).unwrap();
        }
        let before = passes();
        fs::rename(&owned, sandbox.path("host/away")).unwrap();
        fs::create_dir(&owned).unwrap();
        fs::remove_dir(sandbox.path("host/away")).unwrap();
        soon("there is a pass", || {
            if passes() > before {
                Ok(())
            } else {
                Err(watcher.said())
            }
        });
    }
    fs::write(sandbox.config().join("sites/other.yaml"), "nonsense").unwrap();
    watcher.says("other.yaml");
    let said = watcher.said();
    let (count, longest) = (
        said.lines().count(),
        said.lines().map(str::len).max().unwrap_or(0),
    );
    assert!(
        said.contains("more errors") && !said.contains('\u{202e}'),
        "{said}"
    );
    assert!(
        count < 60 && longest < 1200,
        "{count} lines, the longest of {longest}"
    );
    watcher.end();
}

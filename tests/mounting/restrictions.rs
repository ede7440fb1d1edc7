//! Promise: what the host's mounts forbid (set-user-ID bits, devices, programs) no jail allows,
//! unless an administrator allows it for a mount; what cannot work because of that is reported.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, Sandbox, Watcher, for_each_engine, mounts_below, on_shared_root, soon};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};

pub fn all() -> Vec<Trial> {
    let mut trials = for_each_engine(
        "a program on a noexec mount does not run, and this is reported",
        noexec,
    );
    trials.extend(for_each_engine(
        "an administrator's setting for a mount takes precedence",
        lifted,
    ));
    trials.extend(for_each_engine(
        "mounts follow a remount on the host",
        remounted,
    ));
    // These change mounts of the host's own files.
    trials.push(on_shared_root(
        "a device that the host cannot open is reported",
        device,
    ));
    trials.push(on_shared_root(
        "a built-in preset allows no more than the host",
        built_in_preset,
    ));
    trials.extend(["fanotify", "poll"].map(|how| {
        on_shared_root(format!("watch follows a remount ({how})"), move || {
            watched(how);
        })
    }));
    trials.push(on_shared_root(
        "files that links bring along are as on the host",
        brought,
    ));
    trials.extend(crate::support::trials([(
        "each mount is examined once",
        asked_once,
    )]));
    trials
}

/// A disk of the sandbox's own, with the program `id` on it.
struct Disk(PathBuf);

impl Disk {
    fn new(sandbox: &Sandbox, forbidden: MsFlags) -> Self {
        let disk = Self(sandbox.directory("host/disk"));
        mount(
            Some("disk"),
            &disk.0,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )
        .unwrap();
        sandbox.program("host/disk/bin/id", fs::read("/usr/bin/id").unwrap());
        disk.remount(forbidden);
        disk
    }

    fn remount(&self, forbidden: MsFlags) {
        remount(&self.0, forbidden);
    }

    fn program(&self) -> PathBuf {
        self.0.join("bin/id")
    }
}

/// Gives the mount at `path` only these flags.
fn remount(path: &Path, forbidden: MsFlags) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | forbidden;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
}

/// A mount of `path` on itself, so that its flags can be changed.
fn on_itself(path: &Path) {
    mount(
        Some(path),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
}

/// The options of the mount at `path` below `root`.
#[track_caller]
fn options(root: &Path, path: &Path) -> String {
    let point = root.join(path.strip_prefix("/").unwrap());
    let mounts = mounts_below(&point);
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    let ours =
        |option: &&String| ["ro", "rw", "nosuid", "nodev", "noexec"].contains(&option.as_str());
    mounts[0]
        .options
        .iter()
        .filter(ours)
        .cloned()
        .collect::<Vec<_>>()
        .join(",")
}

fn runs(root: &Path, program: &Path) -> bool {
    Ran::of(Command::new("chroot").arg(root).arg(program))
        .stdout
        .starts_with("uid=")
}

fn noexec(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let disk = Disk::new(&sandbox, MsFlags::MS_NOEXEC);
    let id = disk.program();
    assert!(
        Command::new(&id).output().is_err(),
        "the host itself cannot run it"
    );
    let root = sandbox.site("s", &format!("programs: [{}]\n", id.display()));
    let because = format!("{} is mounted noexec", disk.0.display());
    let way_out = format!(
        "`mounts: [{{ source: {}, executable: true }}]`",
        id.display()
    );
    sandbox.ok(&["check", "s"]).says(&because).says(&way_out);
    let json = sandbox.ok(&["check", "s", "--json"]).json();
    let note = &json["sites"][0]["notes"][0];
    assert!(note["text"].as_str().unwrap().contains(&because), "{json}");
    assert!(
        note["line"].as_str().unwrap().contains("programs[0]"),
        "{json}"
    );
    sandbox.ok(&["up", "s"]).says(&because);
    assert_eq!(options(&root, &id), "ro,nosuid,nodev,noexec");
    assert!(!runs(&root, &id));
    sandbox.ok(&["status", "s"]);
    sandbox
        .ok(&["why", "s", id.to_str().unwrap()])
        .prints("(ro,nosuid,nodev,noexec)");

    // The directory that shows it, which another line mounts, does not make it run either.
    sandbox.site(
        "s",
        &format!(
            "programs: [{}]\nmounts: [{}]\n",
            id.display(),
            disk.0.display()
        ),
    );
    sandbox.ok(&["up", "s"]).says(&because);
    assert!(mounts_below(&root.join(id.strip_prefix("/").unwrap())).is_empty());
    assert!(!runs(&root, &id));

    // The lines of fstab are the same.
    let file = sandbox.file("etc/fstab", "");
    sandbox.site("s", &format!("programs: [{}]\n", id.display()));
    sandbox.ok(&["down", "s"]);
    Ran::of(
        sandbox
            .command()
            .args(["fstab", "s", "--install", "--file"])
            .arg(&file),
    )
    .exits(0);
    Ran::of(Command::new("mount").args(["-a", "-T"]).arg(&file)).exits(0);
    assert_eq!(options(&root, &id), "ro,nosuid,nodev,noexec");
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
}

fn lifted(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let disk = Disk::new(
        &sandbox,
        MsFlags::MS_NOEXEC | MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
    );
    let id = disk.program();
    let quiet = |manifest: &str| {
        let root = sandbox.site("s", manifest);
        let ran = sandbox.ok(&["up", "s"]);
        assert!(
            !ran.stderr.contains("noexec") && !ran.stderr.contains("nodev"),
            "{ran}"
        );
        root
    };
    // The program itself, or a directory that it is in; all else stays as on the host.
    for source in [&id, &disk.0] {
        let line = format!(
            "mounts: [{{ source: {}, executable: true }}]\n",
            source.display()
        );
        let root = quiet(&format!("{line}programs: [{}]\n", id.display()));
        assert!(runs(&root, &id));
        assert_eq!(options(&root, source), "ro,nosuid,nodev");
    }
    // It also counts in a preset of the administrator's.
    sandbox.preset(
        "own",
        &format!(
            "description: x\nmounts: [{{ source: {}, executable: true }}]\n",
            id.display()
        ),
    );
    let root = quiet(&format!("presets: [own]\nprograms: [{}]\n", id.display()));
    assert!(runs(&root, &id));

    Ran::of(
        Command::new("mknod")
            .arg(disk.0.join("null"))
            .args(["c", "1", "3"]),
    )
    .exits(0);
    let line = |key: &str| {
        format!(
            "mounts: [{{ source: {}, target: /disk, {key}: true }}]\n",
            disk.0.display()
        )
    };
    for (key, expected) in [
        ("executable", "ro,nosuid,nodev"),
        ("devices", "ro,nosuid,noexec"),
        ("setuid", "ro,nodev,noexec"),
    ] {
        let root = quiet(&line(key));
        assert_eq!(options(&root, Path::new("/disk")), expected);
        assert_eq!(
            fs::write(root.join("disk/null"), "x").is_ok(),
            key == "devices"
        );
    }
    sandbox.ok(&["down", "s"]);
}

fn remounted(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let disk = Disk::new(&sandbox, MsFlags::empty());
    let id = disk.program();
    let root = sandbox.site("s", &format!("programs: [{}]\n", id.display()));
    sandbox.ok(&["up", "s"]);
    assert!(runs(&root, &id));
    for (flags, after) in [
        (MsFlags::MS_NOEXEC, "ro,nosuid,nodev,noexec"),
        (MsFlags::empty(), "ro,nosuid,nodev"),
    ] {
        disk.remount(flags);
        sandbox
            .run(&["status", "s"])
            .exits(3)
            .prints("wrong-options")
            .prints(&format!("wanted {after})"));
        sandbox.ok(&["up", "s"]).says("1 swapped");
        assert_eq!(options(&root, &id), after);
        sandbox.ok(&["up", "s"]).says("nothing to do");
    }
    // That the disk is read-only does not matter, because the mount is, too.
    disk.remount(MsFlags::MS_RDONLY);
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
}

fn device() {
    let sandbox = Sandbox::new();
    let full = Path::new("/dev/full");
    on_itself(full);
    remount(full, MsFlags::MS_NODEV);
    let root = sandbox.site("s", "devices: [full, null]\n");
    let ran = sandbox
        .ok(&["up", "s"])
        .says("/dev/full cannot be opened in the jail");
    let way_out = "/dev/full is mounted nodev; `mounts: [{ source: /dev/full, devices: true }]`";
    assert!(
        ran.stderr.contains(way_out) && !ran.stderr.contains("/dev/null"),
        "{ran}"
    );
    let errno = |path: &str| {
        fs::File::open(root.join(path))
            .err()
            .and_then(|error| error.raw_os_error())
    };
    assert_eq!(
        (errno("dev/full"), errno("dev/null")),
        (Some(libc::EACCES), None)
    );
    let examined = sandbox
        .run(&["doctor", "s"])
        .exits(3)
        .prints("/dev/full: Permission denied");
    examined.prints(
        "devices on this file system do not work on the host either: see `mountjail check s`",
    );
    sandbox.site(
        "s",
        "devices: [full, null]\nmounts: [{ source: /dev/full, devices: true }]\n",
    );
    let ran = sandbox.ok(&["up", "s"]);
    assert!(!ran.stderr.contains("nodev"), "{ran}");
    assert_eq!(errno("dev/full"), None);
    assert_eq!(options(&root, full), "ro,nosuid,noexec");
    sandbox.ok(&["down", "s"]);
}

/// `executable: true` in one only says that these files are code.
fn built_in_preset() {
    let sandbox = Sandbox::new();
    let gconv = glob::glob("/usr/lib/*-linux-gnu*/gconv")
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    on_itself(&gconv);
    remount(&gconv, MsFlags::MS_NOEXEC);
    let root = sandbox.site("s", "presets: [iconv]\n");
    sandbox
        .ok(&["check", "s"])
        .says(&format!("{} is mounted noexec", gconv.display()));
    sandbox.ok(&["up", "s"]);
    assert_eq!(options(&root, &gconv), "ro,nosuid,nodev,noexec");
    let own = format!(
        "presets: [iconv]\nmounts: [{{ source: {}, executable: true }}]\n",
        gconv.display()
    );
    sandbox.site("s", &own);
    sandbox.ok(&["up", "s"]).says("1 swapped");
    assert_eq!(options(&root, &gconv), "ro,nosuid,nodev");
    sandbox.ok(&["down", "s"]);
}

fn watched(how: &str) {
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, MsFlags::empty());
    let id = disk.program();
    let root = sandbox.site("s", &format!("programs: [{}]\n", id.display()));
    sandbox.site("other", "etc: [hosts]\n");
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::with(
        sandbox
            .command()
            .arg("watch")
            .env("MOUNTJAIL_MOUNT_EVENTS", how),
    );
    assert_eq!(watcher.state(&sandbox)["mount_events"], how);
    for (flags, after) in [
        (MsFlags::MS_NOEXEC, "ro,nosuid,nodev,noexec"),
        (MsFlags::empty(), "ro,nosuid,nodev"),
    ] {
        disk.remount(flags);
        soon(&format!("the mount is {after}"), || {
            let now = options(&root, &id);
            if now == after { Ok(()) } else { Err(now) }
        });
    }
    watcher.settles();
    let passes = || watcher.state(&sandbox)["passes"].as_u64().unwrap();
    let before = passes();
    // A mount that no source lies on, and an attribute that does not matter.
    remount(Path::new("/proc"), MsFlags::MS_NOEXEC);
    disk.remount(MsFlags::MS_NOATIME);
    watcher.settles();
    let more = passes() - before;
    assert!(
        more <= if how == "poll" { 2 } else { 0 },
        "{more} passes for nothing"
    );
    watcher.end();
}

/// `executable: true` applies to the directory, not to the files that its links lead to.
fn brought() {
    let sandbox = Sandbox::new();
    // From below /tmp, where sandboxes are, links bring nothing.
    let tmpfs =
        |at: &str, flags| mount(Some("disk"), at, Some("tmpfs"), flags, Some("mode=755")).unwrap();
    tmpfs("/srv", MsFlags::empty());
    for directory in ["/srv/app", "/srv/disk"] {
        fs::create_dir(directory).unwrap();
    }
    tmpfs("/srv/disk", MsFlags::MS_NOEXEC);
    for program in ["/srv/id", "/srv/disk/id"] {
        fs::copy("/usr/bin/id", program).unwrap();
    }
    symlink("../id", "/srv/app/open").unwrap();
    symlink("../disk/id", "/srv/app/closed").unwrap();
    let root = sandbox.site("s", "mounts: [{ source: /srv/app, executable: true }]\n");
    let ran = sandbox.ok(&["up", "s"]);
    assert!(
        !ran.stderr.contains("noexec"),
        "not everything that a link leads to is a program: {ran}"
    );
    assert_eq!(options(&root, Path::new("/srv/app")), "ro,nosuid,nodev");
    assert_eq!(options(&root, Path::new("/srv/id")), "ro,nosuid,nodev");
    assert_eq!(
        options(&root, Path::new("/srv/disk/id")),
        "ro,nosuid,nodev,noexec"
    );
    sandbox.ok(&["down", "s"]);
}

fn asked_once() {
    let sandbox = Sandbox::new();
    for site in ["a", "b", "c"] {
        sandbox.site(
            site,
            "presets: [php-fpm, imagemagick]\nprograms: [/usr/bin/perl]\nusers: [www-data]\n",
        );
    }
    let log = sandbox.path("strace");
    let runner = [
        "strace",
        "-f",
        "-q",
        "-e",
        "trace=fstatfs,statfs",
        "-o",
        log.to_str().unwrap(),
    ];
    Ran::of(sandbox.command_under(&runner).args(["check", "--all"])).exits(0);
    let calls = fs::read_to_string(log).unwrap();
    let asked = calls
        .lines()
        .filter(|line| line.contains("statfs("))
        .count();
    // The programs' disk, that of the devices, and that of the roots, by one thread or two; others
    // where /dev/full or so is a mount of its own.
    assert!((1..=10).contains(&asked), "{asked} calls:\n{calls}");
}

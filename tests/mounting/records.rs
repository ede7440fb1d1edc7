//! Promise: placeholders are recognised after a reboot, whatever device and inode numbers a file
//! system has then; records are understood, or reported, by the previous and the next version.

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{
    Ran, Sandbox, for_each_engine, grafts_below, mounts_below, tree, trials, unmount, unmount_all,
};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        ("records of version 1 are read, and renewed", version_1),
        (
            "mounts in records of version 1 become grafts",
            version_1_renewed,
        ),
        ("an unknown field is kept", unknown_fields),
        (
            "a record of a newer mountjail is reported with a way out",
            newer,
        ),
        ("an unreadable record affects its own site only", unreadable),
        (
            "somebody else's empty file in place of a placeholder stays",
            replaced,
        ),
        ("a mount keeps its time while it is swapped", times),
        (
            "a limit of the size of files is an error like others",
            file_size,
        ),
        (
            "a site that is down needs no writable records to stay so",
            read_only,
        ),
    ]);
    all.extend(for_each_engine(
        "no file is left of sites that are down",
        no_files,
    ));
    all.extend(for_each_engine(
        "runs that contend, and are killed, leave no file",
        contending,
    ));
    let mut rebooted = |name: &str, body: fn(&'static str)| {
        all.extend(for_each_engine(
            &format!("placeholders are recognised {name}"),
            body,
        ));
    };
    rebooted("on another device (ext4)", |engine| {
        on_a_disk("ext4", engine);
    });
    rebooted("on another device (xfs)", |engine| on_a_disk("xfs", engine));
    rebooted("on another device (btrfs)", |engine| {
        on_a_disk("btrfs", engine);
    });
    rebooted("with other inode numbers (overlay)", on_an_overlay);
    all
}

/// The files below the directories of the records.
fn files(sandbox: &Sandbox) -> String {
    let mut find = Command::new("find");
    let files = Ran::of(find.arg(sandbox.state()).args(["-type", "f"]));
    files.exits(0).stdout
}

fn no_files(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    sandbox.site("s", "presets: [shell, dns]\n");
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    assert_eq!(files(&sandbox), "");
    sandbox.ok(&["down", "s"]);
    assert_eq!(files(&sandbox), "");
    sandbox.site("s", "mounts: [/no/such/file]\n");
    sandbox.run(&["up", "s"]).exits(1);
    assert_eq!(files(&sandbox), "");
}

fn contending(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", "presets: [dns]\n");
    let bare = tree(&root);
    let (sandbox, root) = (&sandbox, &root);
    thread::scope(|scope| {
        for first in 0..4 {
            scope.spawn(move || {
                for round in first..first + 12 {
                    let arguments = [["up", "down"][round % 2], "s"];
                    if !round.is_multiple_of(3) {
                        sandbox.ok(&arguments);
                        continue;
                    }
                    let mut command = sandbox.command();
                    let command = command.args(arguments).stderr(Stdio::null());
                    let mut killed = command.spawn().unwrap();
                    thread::sleep(Duration::from_millis(round as u64));
                    let _ = killed.kill();
                    killed.wait().unwrap();
                }
            });
        }
    });
    sandbox.ok(&["down", "s"]);
    assert_eq!(files(sandbox), "");
    assert!(mounts_below(root).is_empty());
    bare.assert_same(&tree(root));
}

/// One site's record has no room: the run ends in an orderly way, and the others come up.
fn read_only() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "etc: [hosts]\n");
    let none = None::<&str>;
    for directory in ["run", "lib"] {
        let records = sandbox.directory(format!("state/{directory}"));
        fs::set_permissions(&records, fs::Permissions::from_mode(0o700)).unwrap();
        mount(Some(&records), &records, none, MsFlags::MS_BIND, none).unwrap();
    }
    let records = sandbox.path("state/lib");
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &records, none, read_only, none).unwrap();
    sandbox
        .ok(&["down", "s"])
        .says("s: down; nothing was mounted");
    let up = sandbox.run(&["up", "s"]).exits(1);
    assert_eq!(
        up.stderr.matches("Read-only file system").count(),
        1,
        "{up}"
    );
    assert_eq!(mounts_below(&sandbox.root("s")), []);
}

fn file_size() {
    let sandbox = Sandbox::new();
    let lines: Vec<_> = (0..20)
        .map(|nth| {
            let source = sandbox.file(format!("host/{nth}"), "x");
            format!("{{ source: {}, target: /d{nth}/x }}", source.display())
        })
        .collect();
    let large = sandbox.site("large", &format!("mounts: [{}]\n", lines.join(", ")));
    let small = sandbox.site("small", &format!("mounts: [{}]\n", lines[0]));
    let bare = tree(&large);
    let mut command = sandbox.command_under(&["prlimit", "--fsize=2000"]);
    Ran::of(command.args(["up", "--all"]))
        .exits(1)
        .says("large: cannot write")
        .says("File too large")
        .says("`ulimit -f`");
    assert!(mounts_below(&large).is_empty());
    bare.assert_same(&tree(&large));
    assert_eq!(mounts_below(&small).len(), 1);
    sandbox.ok(&["up", "--all"]);

    // The template of this site changes.
    let host = sandbox.path("host");
    let files = [0, 1, 2].map(|nth| {
        let host = host.display();
        format!("{{ source: {host}/{nth}, target: /y/{nth} }}")
    });
    sandbox.site("changes", &format!("mounts: [{}]\n", files.join(", ")));
    sandbox.ok(&["up", "changes"]);
    sandbox.site("changes", &format!("mounts: [{}]\n", files[1..].join(", ")));
    let mut command = sandbox.command_under(&["prlimit", "--fsize=0"]);
    Ran::of(command.args(["up", "changes"]))
        .exits(1)
        .says("error: changes: cannot write");
    sandbox.ok(&["up", "--all"]);
    sandbox.ok(&["down", "--all"]);
}

fn run(command: &str, arguments: &[&str]) -> String {
    Ran::of(Command::new(command).args(arguments))
        .exits(0)
        .stdout
        .trim()
        .to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A loop device; it goes when this is dropped.
struct Loop(String);

impl Loop {
    fn of(image: &Path) -> Self {
        Self(run("losetup", &["--find", "--show", text(image)]))
    }

    /// Waits until the file system on it is unmounted everywhere: a process of another trial that
    /// has a mount namespace of its own may still hold it, and until then not all of it is on the
    /// device.
    fn wait_until_unmounted(&self) {
        let exclusive = || {
            let mut options = fs::OpenOptions::new();
            options.read(true).custom_flags(libc::O_EXCL).open(&self.0)
        };
        while exclusive().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.0]);
    }
}

/// A file with a new file system.
fn image(sandbox: &Sandbox, file_system: &str) -> PathBuf {
    let image = sandbox.path("image");
    fs::File::create(&image)
        .unwrap()
        .set_len(320 << 20)
        .unwrap();
    run(&format!("mkfs.{file_system}"), &["-q", text(&image)]);
    image
}

/// Does what a reboot does: removes the mounts below `root` and the records of the boot.
fn forget_the_boot(sandbox: &Sandbox, root: &Path) {
    unmount_all(root);
    unmount_all(&sandbox.state().join("run"));
    fs::remove_dir_all(sandbox.state().join("run")).unwrap();
}

/// A site in `root` with a file and a directory, links and directories on the way.
fn site(sandbox: &Sandbox, root: &Path) {
    let source = sandbox.file("host/file", "x");
    let directory = source.parent().unwrap().display();
    sandbox.manifest(
        "s",
        format!(
            "root: {}\nprograms: [/bin/true]\nmounts:\n\
             - {{ source: {directory}/file, target: /etc/hosts }}\n\
             - {{ source: {directory}, target: /data/x }}\n",
            root.display()
        ),
    );
}

/// Up; a reboot, after which the file system at `at`, mounted again by `mount`, has other numbers;
/// down, at once or after another up: nothing is left.
fn survives(sandbox: &Sandbox, root: &Path, at: &Path, mut mount: impl FnMut()) {
    let holds = sandbox.directory("holds");
    site(sandbox, root);
    let before = tree(root);
    for up_again in [false, true] {
        sandbox.ok(&["up", "s"]);
        assert_ne!(tree(root), before);
        forget_the_boot(sandbox, root);
        let device = || fs::metadata(root).unwrap().dev();
        let old = device();
        while device() == old {
            unmount(at);
            // If the kernel chooses the number, this occupies the old one.
            run("mount", &["-t", "tmpfs", "holds", text(&holds)]);
            mount();
        }
        if up_again {
            sandbox.ok(&["up", "s"]);
            sandbox.ok(&["up", "s"]).says("in sync");
        }
        let down = sandbox.ok(&["down", "s"]);
        assert!(!down.stderr.contains("stays"), "{down}");
        assert_eq!(tree(root), before, "{down}");
        assert!(!sandbox.state().join("lib/s.json").exists());
    }
}

fn on_a_disk(file_system: &str, engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (image, disk) = (image(&sandbox, file_system), sandbox.directory("disk"));
    let mut device = Loop::of(&image);
    run("mount", &[&device.0, text(&disk)]);
    let root = disk.join("site");
    fs::create_dir(&root).unwrap();
    survives(&sandbox, &root, &disk, || {
        device.wait_until_unmounted();
        device = Loop::of(&image); // while the old one is there: another one
        run("mount", &[&device.0, text(&disk)]);
    });
    unmount(&disk);
}

/// Over two file systems directories get a new inode number at each mount.
fn on_an_overlay(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let (image, disk, merged) = (
        image(&sandbox, "ext4"),
        sandbox.directory("disk"),
        sandbox.directory("merged"),
    );
    let device = Loop::of(&image);
    run("mount", &[&device.0, text(&disk)]);
    let [upper, work] = ["upper", "work"].map(|name| disk.join(name));
    for directory in [&upper, &work] {
        fs::create_dir(directory).unwrap();
    }
    sandbox.directory("lower/site");
    let options = format!(
        "xino=off,lowerdir={},upperdir={},workdir={}",
        sandbox.path("lower").display(),
        upper.display(),
        work.display()
    );
    let mount = || {
        drop(run(
            "mount",
            &["-t", "overlay", "overlay", "-o", &options, text(&merged)],
        ));
    };
    mount();
    survives(&sandbox, &merged.join("site"), &merged, mount);
    unmount(&merged);
    unmount(&disk);
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut record = read(path);
    change(&mut record);
    fs::write(path, record.to_string()).unwrap();
}

/// The site `s` in the sandbox's own root, and its two records.
fn site_up(sandbox: &Sandbox) -> (PathBuf, PathBuf, PathBuf) {
    let root = sandbox.directory("srv/s");
    site(sandbox, &root);
    sandbox.ok(&["up", "s"]);
    (
        root,
        sandbox.state().join("run/s.json"),
        sandbox.state().join("lib/s.json"),
    )
}

/// As version 0.1.0 wrote them.
fn as_version_1(run: &Path, lib: &Path) {
    change(run, |record| {
        record["version"] = json!(1);
        for mount in record["mounts"].as_array_mut().unwrap() {
            mount.as_object_mut().unwrap().remove("since");
        }
    });
    change(lib, |kept| {
        kept["version"] = json!(1);
        for made in kept["made"].as_array_mut().unwrap() {
            made["file"] = json!({ "dev": 1, "ino": made["file"]["ino"] });
        }
    });
}

fn version_1() {
    let sandbox = Sandbox::new();
    has_its_own(&sandbox);
    let (root, run, lib) = site_up(&sandbox);
    as_version_1(&run, &lib);
    let status = sandbox.ok(&["status", "s"]);
    assert_eq!(status.stderr, "");
    sandbox.ok(&["down", "s"]);
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    as_version_1(&run, &lib);
    forget_the_boot(&sandbox, &root);
    sandbox.ok(&["up", "s"]);
    assert_eq!(
        (&read(&run)["version"], &read(&lib)["version"]),
        (&json!(3), &json!(3))
    );
    assert!(
        read(&lib)["made"]
            .as_array()
            .unwrap()
            .iter()
            .all(|made| made["file"]["on_root"] == json!(true))
    );
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
}

fn version_1_renewed() {
    let sandbox = Sandbox::new();
    let root = sandbox.directory("srv/s");
    site(&sandbox, &root);
    let fstab = sandbox.file("fstab", "");
    sandbox.ok(&["fstab", "--install", "--file", text(&fstab), "s"]);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["fstab", "--uninstall", "--file", text(&fstab), "s"]);
    let records = ["run/s.json", "lib/s.json"].map(|path| sandbox.state().join(path));
    as_version_1(&records[0], &records[1]);
    let mounts = mounts_below(&root).len();
    sandbox.ok(&["up", "s"]).says("nothing to do");
    assert!(grafts_below(&root).is_empty());

    sandbox.ok(&["up", "--renew", "s"]);
    assert!(!grafts_below(&root).is_empty());
    assert_eq!(mounts_below(&root).len(), mounts);
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["up", "--renew", "s"]).says("nothing to do");
    sandbox.ok(&["down", "s"]);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

/// Files of the site's own, so that no directory comes from a template.
fn has_its_own(sandbox: &Sandbox) {
    for path in ["srv/s/etc/own", "srv/s/usr/own", "srv/s/usr/lib/own"] {
        sandbox.file(path, "the site's own");
    }
}

fn unknown_fields() {
    let sandbox = Sandbox::new();
    let (root, run, lib) = site_up(&sandbox);
    let later = json!({ "of": ["a later", "mountjail"] });
    change(&run, |record| {
        record["later"] = later.clone();
        record["history"]["later"] = later.clone();
        record["mounts"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(|mount| mount["later"] = later.clone());
    });
    change(&lib, |kept| {
        kept["later"] = later.clone();
        kept["made"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(|made| made["later"] = later.clone());
    });
    let mounts = read(&run)["mounts"].as_array().unwrap().len();
    let attached = read(&run)["history"]["attached"].as_u64().unwrap();
    let made = read(&lib)["made"].as_array().unwrap().len();
    let manifest = sandbox.config().join("sites/s.yaml");
    fs::write(
        &manifest,
        fs::read_to_string(&manifest).unwrap() + "etc: [services]\n",
    )
    .unwrap();
    sandbox.ok(&["up", "s"]).says(" mounts: 1 attached\n");
    let (record, kept) = (read(&run), read(&lib));
    let has = |list: &Value| {
        list.as_array()
            .unwrap()
            .iter()
            .filter(|one| one["later"] == later)
            .count()
    };
    assert_eq!(
        [
            &record["later"],
            &record["history"]["later"],
            &kept["later"]
        ],
        [&later; 3]
    );
    assert_eq!((has(&record["mounts"]), has(&kept["made"])), (mounts, made));
    assert_eq!(record["history"]["attached"], json!(attached + 1));
    sandbox.ok(&["down", "s"]);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

fn newer() {
    let sandbox = Sandbox::new();
    let (root, run, lib) = site_up(&sandbox);
    sandbox.site("other", "etc: [hosts]\n");
    sandbox.ok(&["up", "other"]);
    for path in [&run, &lib] {
        change(path, |record| record["version"] = json!(99));
    }
    let (mounted, said) = (mounts_below(&root), fs::read(&run).unwrap());
    for command in ["status", "up", "down", "plan"] {
        let ran = sandbox.run(&[command, "--all"]).exits(1);
        let ran = ran.says("s.json was written by a newer mountjail: it is of version 99");
        let whole = ran.stdout.clone() + &ran.stderr;
        assert!(whole.contains("other: "), "{ran}");
    }
    assert!(!sandbox.root("other").join("etc").exists(), "it is down");
    assert_eq!(
        (mounts_below(&root), fs::read(&run).unwrap()),
        (mounted, said),
        "nothing was touched"
    );
    let hint = sandbox.run(&["down", "s"]).exits(1).stderr;
    let aside = hint.split('`').nth(1).unwrap();
    Ran::of(Command::new("sh").args(["-c", aside])).exits(0);
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
    assert_eq!(
        fs::read_dir(&root)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_file())
            .count(),
        0
    );
    sandbox.ok(&["up", "--all"]);
    sandbox.ok(&["down", "--all"]);
}

fn unreadable() {
    let sandbox = Sandbox::new();
    let (root, path, _) = site_up(&sandbox);
    sandbox.site("other", "etc: [hosts]\n");
    sandbox.ok(&["up", "other"]);
    let record = fs::read(&path).unwrap();
    let odd: [fn(&Path); 3] = [
        |path| drop(run("mkfifo", &[text(path)])),
        |path| fs::create_dir(path).unwrap(),
        |path| fs::File::create(path).unwrap().set_len(3 << 30).unwrap(),
    ];
    for make in odd {
        fs::remove_file(&path).unwrap();
        make(&path);
        for arguments in [
            &["status"][..],
            &["status", "--format", "prometheus"],
            &["up", "--all"],
        ] {
            let ran = sandbox
                .run(arguments)
                .exits(1)
                .says("cannot read the record");
            assert!(
                (ran.stdout.clone() + &ran.stderr).contains("other"),
                "{ran}"
            );
        }
        fs::remove_file(&path)
            .or_else(|_| fs::remove_dir(&path))
            .unwrap();
        fs::write(&path, &record).unwrap();
    }
    sandbox.ok(&["down", "s"]);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

/// Even if it has the same inode number.
fn replaced() {
    let sandbox = Sandbox::new();
    has_its_own(&sandbox);
    let (root, _, lib) = site_up(&sandbox);
    forget_the_boot(&sandbox, &root);
    fs::remove_file(root.join("etc/hosts")).unwrap();
    fs::write(root.join("etc/hosts"), "").unwrap();
    let ino = fs::metadata(root.join("etc/hosts")).unwrap().ino();
    change(&lib, |kept| {
        let made = kept["made"].as_array_mut().unwrap().iter_mut();
        for made in made.filter(|made| made["path"] == json!("/etc/hosts")) {
            made["file"]["ino"] = json!(ino);
        }
    });
    sandbox
        .ok(&["down", "s"])
        .says("etc/hosts stays: it is no longer as mountjail made it");
    assert!(root.join("etc/hosts").exists());
}

fn times() {
    let sandbox = Sandbox::new();
    let (_, run, _) = site_up(&sandbox);
    let since = |target: &str| {
        let record = read(&run);
        let mounts = record["mounts"].as_array().unwrap();
        mounts
            .iter()
            .find(|mount| mount["target"] == json!(target))
            .unwrap()["since"]
            .as_u64()
            .unwrap()
    };
    let before = since("/etc");
    assert!(before > 0 && before <= mountjail::observe::since_boot());
    fs::rename(sandbox.file("host/new", "y"), sandbox.path("host/file")).unwrap();
    sandbox.ok(&["up", "s"]).says("1 swapped");
    assert_eq!(since("/etc"), before);
    sandbox.ok(&["down", "s"]);
    sandbox.ok(&["up", "s"]);
    assert!(since("/etc") > before);
}

//! Promise: `down` unmounts nothing that any process uses, in whatever mount namespace; and it
//! always ends with the site down, whatever happened to the root and to the file systems in it.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Fuse, Mount, OnEngine, Ran, Running, Sandbox, Tree, Watcher, for_each_engine,
    for_each_engine_alone, for_each_engine_on_shared_root, line, mounts, mounts_below, replace,
    soon_reads, tree, unmount, wait_until,
};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The owner of roots.
const OWNER: u32 = 61003;

pub fn all() -> Vec<Trial> {
    let used: [(&str, OnEngine); 5] = [
        (
            "a process in its own mount namespace stops down",
            other_namespace,
        ),
        (
            "a process whose namespace has the root at / stops down",
            root_directory,
        ),
        (
            "a process that uses a copy elsewhere stops down",
            copy_elsewhere,
        ),
        ("a process inside stops down", runs_inside),
        (
            "a process that uses the source alone does not stop down",
            source_alone,
        ),
    ];
    let always: [(&str, OnEngine); 8] = [
        ("a recursive mount in use stays whole", recursive),
        (
            "a running PHP-FPM with a pool in the root stops down",
            master,
        ),
        (
            "a root that was moved is taken down where it is, and up takes it over",
            moved,
        ),
        ("a root that is gone can be taken down", gone),
        ("mounts that another mount hides go down", mounted_over),
        (
            "an owner's file system over a directory or the root does not stop down",
            owners_file_system,
        ),
        (
            "another directory in place of a placeholder's does not stop down",
            replaced_directory,
        ),
        (
            "placeholders on storage that hosts share stay",
            shared_storage,
        ),
    ];
    let mut trials: Vec<_> = used
        .into_iter()
        .flat_map(|(name, body)| for_each_engine_on_shared_root(name, body))
        .collect();
    trials.extend(
        always
            .into_iter()
            .flat_map(|(name, body)| for_each_engine(name, body)),
    );
    trials.extend(for_each_engine(
        "a mount that another run swapped while down waited goes",
        after_another_run,
    ));
    trials.extend(for_each_engine(
        "a mount that is looked at for a moment does not stop down",
        looked_at,
    ));
    trials.extend(for_each_engine_alone(
        "a source whose server is dead, fails or hangs does not stop down",
        dead_source,
    ));
    trials.extend(for_each_engine_alone(
        "a source whose server was started again comes back",
        server_again,
    ));
    trials
}

/// Starts `script` by the shell in a mount namespace of its own; in the end it executes `sleep`.
fn in_namespace(propagation: &str, script: &str) -> Running {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", propagation, "sh", "-ec", script]);
    Running::start_until(&mut command, |pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.windows(6).any(|w| w == b"\x001000\0"))
    })
}

/// A site `s` that binds a directory, a file, and recursively a directory with a file system in it.
struct Site {
    sandbox: Sandbox,
    root: PathBuf,
    bare: Tree,
}

impl Site {
    fn new(engine: &'static str) -> Self {
        let sandbox = Sandbox::with_engine(engine);
        let root = sandbox.root("s");
        fs::create_dir_all(&root).unwrap();
        sandbox.program(root.join("busybox"), fs::read("/bin/busybox").unwrap());
        Self::of(sandbox, root)
    }

    fn of(sandbox: Sandbox, root: PathBuf) -> Self {
        sandbox.file("host/dir/file", "the host's");
        sandbox.file("host/file", "the host's");
        sandbox.directory("host/deep/sub");
        Ran::of(
            Command::new("mount")
                .args(["-t", "tmpfs", "sub"])
                .arg(sandbox.path("host/deep/sub")),
        )
        .exits(0);
        let site = Self {
            bare: tree(&root),
            sandbox,
            root,
        };
        site.names(&site.root);
        site.sandbox.ok(&["up", "s"]);
        assert_eq!(mounts_below(&site.root).len(), 4);
        site
    }

    /// Writes the manifest with this root.
    fn names(&self, root: &Path) {
        let host = self.sandbox.path("host");
        let host = host.display();
        let lines = format!(
            "mounts:\n  - {{ source: {host}/dir, target: /dir }}\n  - {{ source: {host}/file, \
             target: /etc/file }}\n  \
             - {{ source: {host}/deep, target: /deep, recursive: true }}\n"
        );
        self.sandbox
            .manifest("s", format!("root: {}\n{lines}", root.display()));
    }

    /// `down` changes nothing and names the process until it has ended; --lazy names the processes
    /// that lose the mounts.
    #[track_caller]
    fn is_used_by(&self, user: Running, says: &str) {
        let before = mounts_below(&self.root);
        for _ in 0..2 {
            let ran = self
                .sandbox
                .run(&["down", "s"])
                .exits(1)
                .says("nothing was unmounted");
            ran.says(&format!("(pid {}", user.pid())).says(says);
            assert_eq!(before, mounts_below(&self.root));
        }
        self.sandbox.run(&["down", "--all"]).exits(1);
        let json = self.sandbox.run(&["down", "s", "--json"]).exits(1).json();
        assert!(
            json["sites"][0]["errors"]
                .to_string()
                .contains(&format!("(pid {}", user.pid())),
            "{json}"
        );
        assert_eq!(before, mounts_below(&self.root));
        let ran = self
            .sandbox
            .ok(&["down", "--lazy", "s"])
            .says("left without the mounts");
        ran.says(&format!("(pid {}", user.pid()));
        assert_eq!(mounts_below(&self.root), []);
        drop(user);
        self.sandbox.ok(&["up", "s"]);
        self.sandbox.ok(&["down", "s"]);
        self.is_bare();
    }

    #[track_caller]
    fn is_bare(&self) {
        self.is_down();
        self.bare.assert_same(&tree(&self.root));
    }

    #[track_caller]
    fn is_down(&self) {
        let ours = |mount: &Mount| mount.point.starts_with(&self.root);
        assert_eq!(mounts().into_iter().filter(ours).collect::<Vec<_>>(), []);
        for record in ["run/s.json", "lib/s.json"] {
            assert!(
                !self.sandbox.state().join(record).exists(),
                "{record} is left"
            );
        }
    }
}

fn other_namespace(engine: &'static str) {
    for propagation in ["private", "slave"] {
        for used in ["cd dir", "exec < etc/file", "cd deep/sub"] {
            let site = Site::new(engine);
            let script = format!("cd {}; {used}; exec sleep 1000", site.root.display());
            let user = in_namespace(propagation, &script);
            let target = used.split_whitespace().last().unwrap();
            site.is_used_by(user, &format!("in use: /{target}"));
        }
    }
}

/// As `RootDirectory=` of systemd makes it.
fn root_directory(engine: &'static str) {
    for (used, says) in [
        ("cd /dir", "in use: /dir"),
        ("cd /", "in use by what runs inside"),
    ] {
        let site = Site::new(engine);
        let root = site.root.display();
        let script = format!(
            "mount --rbind {root} {root}; cd {root}; pivot_root . .; exec /busybox sh -ec 'cd /; \
             /busybox umount -l .; \
             {used}; exec /busybox sleep 1000'"
        );
        site.is_used_by(in_namespace("private", &script), says);
    }
}

/// The root is bound elsewhere, where the mounts are also seen.
fn copy_elsewhere(engine: &'static str) {
    let site = Site::new(engine);
    let copy = site.sandbox.directory("copy");
    Ran::of(
        Command::new("mount")
            .arg("--rbind")
            .arg(site.sandbox.path("srv"))
            .arg(&copy),
    )
    .exits(0);
    let user = Command::new("sleep")
        .arg("1000")
        .current_dir(copy.join("s/dir"))
        .spawn()
        .map(Running)
        .unwrap();
    site.is_used_by(user, "in use: /dir");
    Ran::of(
        Command::new("umount")
            .args(["--recursive", "--lazy"])
            .arg(&copy),
    )
    .exits(0);
}

fn runs_inside(engine: &'static str) {
    let site = Site::new(engine);
    let mut command = Command::new("chroot");
    let user = Running::start_until(
        command.arg(&site.root).args(["/busybox", "sleep", "1000"]),
        |pid| fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|at| at == site.root),
    );
    site.is_used_by(user, "which runs inside");
}

/// The host's own submount has the same place in its parent as the one that came along.
fn source_alone(engine: &'static str) {
    let site = Site::new(engine);
    let source = site.sandbox.path("host/deep/sub");
    let near = Command::new("sleep")
        .arg("1000")
        .current_dir(&source)
        .spawn()
        .map(Running)
        .unwrap();
    let script = format!("cd {}; exec sleep 1000", source.display());
    let far = in_namespace("private", &script);
    site.sandbox.ok(&["down", "s"]);
    site.is_bare();

    site.sandbox.ok(&["up", "s"]);
    let ran = site.sandbox.ok(&["down", "--lazy", "s"]);
    assert!(!ran.stderr.contains("left without"), "{ran}");
    drop((near, far));
}

fn recursive(engine: &'static str) {
    let site = Site::new(engine);
    let user = Command::new("sleep")
        .arg("1000")
        .current_dir(site.root.join("deep"))
        .spawn()
        .map(Running)
        .unwrap();
    site.is_used_by(user, "in use: /deep");
}

fn master(engine: &'static str) {
    let site = Site::new(engine);
    let pool = format!(
        "[global]\n[shop]\nuser = www-data\nlisten = /run/x\nchroot = {}\n",
        site.root.display()
    );
    let file = site.sandbox.file("php-fpm.conf", pool);
    let title = format!("php-fpm: master process ({})", file.display());
    let titled = |pid: u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(b"php-fpm: master"))
    };
    let sleep = || {
        let mut command = Command::new("sleep");
        command.arg0(&title).arg("1000");
        command
    };
    // Anybody can have such a title.
    let _owners = Running::start_until(sleep().uid(OWNER).gid(OWNER), titled);
    // Another directory is at that path for this one, as in a container.
    let script = "mount -t tmpfs other \"$0\"; exec -a \"$1\" sleep 1000";
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "--propagation", "private", "bash", "-ec", script]);
    let _apart = Running::start_until(apart.arg(&site.root).arg(&title), titled);
    // In the root of this one, these links lead nowhere; followed on the host, to the same files.
    let container = site.sandbox.directory("container");
    for path in [&file, &site.root] {
        let link = container.join(path.strip_prefix("/").unwrap());
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(path, link).unwrap();
    }
    let script = "chroot shift or die; chdir '/'; $0 = shift; sleep 1000";
    let mut inside = Command::new("perl");
    inside.args(["-e", script]).arg(&container).arg(&title);
    let _contained = Running::start_until(&mut inside, titled);
    let older_kernel = || {
        let mut command = site.sandbox.command_with_fault("openat2:error=ENOSYS", &[]);
        Ran::of(command.args(["down", "s"]))
    };
    older_kernel().exits(0);
    site.sandbox.ok(&["up", "s"]);
    site.sandbox.ok(&["down", "s"]);
    site.sandbox.ok(&["up", "s"]);
    let user = Running::start_until(&mut sleep(), titled);
    let how = "whose pool shop has this root";
    older_kernel().exits(1).says(how);
    site.is_used_by(user, how);
}

fn moved(engine: &'static str) {
    let reboot = |site: &Site| {
        let lazy = ["--recursive", "--lazy"];
        for mount in mounts_below(&site.sandbox.path("srv")).iter().rev() {
            Ran::of(Command::new("umount").args(&lazy[1..]).arg(&mount.point)).exits(0);
        }
        fs::remove_dir_all(site.sandbox.state().join("run")).unwrap();
    };
    for replaced in [false, true] {
        for edited in [false, true] {
            for rebooted in [false, true] {
                if rebooted && !edited {
                    continue; // nothing tells where it is
                }
                let mut site = Site::new(engine);
                let new = site.sandbox.path("srv/new/place");
                fs::create_dir_all(new.parent().unwrap()).unwrap();
                fs::rename(&site.root, &new).unwrap();
                if replaced {
                    fs::create_dir(&site.root).unwrap();
                }
                let old = std::mem::replace(&mut site.root, new);
                if rebooted {
                    reboot(&site);
                }
                if edited {
                    site.names(&site.root);
                    let up = site.sandbox.ok(&["up", "s"]);
                    assert_eq!(up.stderr.contains("in sync"), !rebooted, "{up}");
                    site.sandbox.ok(&["status", "s"]);
                    site.sandbox.ok(&["up", "s"]).says("in sync");
                } else if !replaced {
                    let moved = format!("write `root: {}` in the manifest", site.root.display());
                    site.sandbox.run(&["up", "s"]).exits(1).says(&moved);
                }
                site.sandbox.ok(&["down", "s"]);
                site.is_bare();
                assert_eq!(old.exists(), replaced);
                site.names(&site.root);
                site.sandbox.ok(&["up", "s"]);
                site.sandbox.ok(&["down", "s"]);
                site.is_bare();
            }
        }
    }
    // The manifest names a third root: the advice works.
    let site = Site::new(engine);
    let other = site.sandbox.directory("srv/other");
    site.names(&other);
    site.sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("take it down there first: `mountjail down s`");
    site.sandbox.ok(&["down", "s"]);
    site.is_bare();
    site.sandbox.ok(&["up", "s"]);
    site.sandbox.ok(&["down", "s"]);
}

fn gone(engine: &'static str) {
    let mut site = Site::new(engine);
    for mount in mounts_below(&site.root).iter().rev() {
        unmount(&mount.point);
    }
    fs::remove_dir_all(&site.root).unwrap();
    site.sandbox.ok(&["down", "s"]).says("does not exist");
    // A file in its place is not a root either, for a site that was up and for one that never was.
    let root = site.root.display();
    site.sandbox
        .manifest("never", format!("root: {root}\netc: [hosts]\n"));
    fs::write(&site.root, "theirs").unwrap();
    site.sandbox.ok(&["down", "s", "never"]).says("never: down");
    assert_eq!(fs::read_to_string(&site.root).unwrap(), "theirs");
    fs::remove_file(site.sandbox.config().join("sites/never.yaml")).unwrap();
    site.root = site.sandbox.directory("srv/other");
    site.bare = tree(&site.root);
    site.names(&site.root);
    site.sandbox
        .ok(&["up", "s"])
        .says("mountjail forgets what it made there");
    site.sandbox.ok(&["down", "s"]);
    site.is_bare();
}

fn mounted_over(engine: &'static str) {
    // The root itself, a directory above it, one in it; with a directory of the root's name, and
    // without.
    for (over, with_root) in [
        ("srv/s", true),
        ("srv", false),
        ("srv", true),
        ("srv/s/etc", true),
    ] {
        let site = Site::new(engine);
        let over = site.sandbox.path(over);
        Ran::of(
            Command::new("mount")
                .args(["-t", "tmpfs", "theirs"])
                .arg(&over),
        )
        .exits(0);
        if with_root {
            fs::create_dir_all(&site.root).unwrap();
        }
        fs::write(over.join("precious"), "theirs").unwrap();
        site.sandbox
            .ok(&["down", "s"])
            .says("s: down, 4 mounts detached");
        let left = mounts_below(&site.sandbox.path("srv"));
        assert_eq!(left.len(), 1, "theirs stays: {left:?}");
        assert_eq!(fs::read_to_string(over.join("precious")).unwrap(), "theirs");
        unmount(&over);
        site.sandbox.ok(&["down", "s"]);
        site.is_bare();
    }
}

fn after_another_run(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.file("host/one", "one");
    for name in ["a", "b"] {
        let root = sandbox.site(name, &format!("mounts:\n{}", line(&source, "/x/one")));
        sandbox.file(root.join("x/own"), "so the file is mounted by itself");
    }
    let (first, root) = (sandbox.root("a"), sandbox.root("b"));
    let bare = tree(&root);
    sandbox.ok(&["up", "--all"]);
    replace(&source, "another one");

    // It stops when it has recorded what it is about to swap; `down` looks at what is mounted.
    let mut up = sandbox.command_with_fault("rename:signal=STOP:when=1", &[]);
    let mut up = Watcher::spawn(up.args(["up", "b"]));
    wait_until("the swap is recorded", || {
        let record = fs::read_to_string(sandbox.state().join("run/b.json")).unwrap();
        record.matches("\"/x/one\"").count() == 2
    });
    let mut down = Watcher::spawn(sandbox.command().args(["down", "--lazy", "a", "b"]));
    down.says("b: waiting for another mountjail");
    wait_until("the first site is down", || mounts_below(&first).is_empty());

    // The swap takes place.
    let said = down.said();
    let worker = said
        .split("(pid ")
        .nth(1)
        .and_then(|rest| rest.split(')').next());
    let worker: i32 = worker.unwrap().parse().unwrap();
    kill(Pid::from_raw(worker), Signal::SIGCONT).unwrap();
    assert!(up.ended().success(), "{}", up.said());

    assert!(down.ended().success(), "{}", down.said());
    down.says("b: down, 1 mount detached");
    assert!(!down.said().contains("not by mountjail"), "{}", down.said());
    assert!(mounts_below(&root).is_empty());
    assert_eq!(tree(&root), bare);
}

/// Each question whether a mount is in use, and each unmount, meets a use that is over the next
/// time: the kernel counts a path lookup that passes a mount, and a process that reads the links of
/// `/proc/PID/fd`.
fn looked_at(engine: &'static str) {
    let site = Site::new(engine);
    let mut met = 0;
    loop {
        let log = site.sandbox.path("strace");
        let more = ["-o", log.to_str().unwrap()];
        let fault = format!("umount2:error=EBUSY:when={}", met + 1);
        let mut down = site.sandbox.command_with_fault(&fault, &more);
        Ran::of(down.args(["down", "s"])).exits(0);
        site.is_bare();
        if !fs::read_to_string(&log).unwrap().contains("(INJECTED)") {
            break;
        }
        met += 1;
        site.sandbox.ok(&["up", "s"]);
    }
    assert!(met >= 3, "hardly any call met it: {met}");
}

fn owners_file_system(engine: &'static str) {
    for over in ["etc", "", "dir"] {
        for hangs in [false, true] {
            let site = Site::new(engine);
            let point = site.root.join(over);
            if over == "dir" {
                site.sandbox.ok(&["down", "s"]);
                fs::create_dir(&point).unwrap();
            }
            chown(&point, Some(OWNER), Some(OWNER)).unwrap();
            let fuse = Fuse::of_owner(&point, OWNER);
            if hangs {
                fuse.hang();
            }
            site.sandbox.ok(&["down", "s"]);
            assert_eq!(mounts_below(&site.root).len(), 1, "the owner's stays");
            fuse.resume();
            drop(fuse);
            chown(&point, Some(0), Some(0)).unwrap();
            site.sandbox.ok(&["down", "s"]);
            site.is_down();
            if over != "dir" {
                site.bare.assert_same(&tree(&site.root));
            }
        }
    }
}

fn dead_source(engine: &'static str) {
    let ways: [fn(&mut Fuse); 4] = [
        Fuse::die,
        |fuse| fuse.fail(libc::EIO),
        |fuse| fuse.fail(libc::ESTALE),
        |fuse| fuse.hang(),
    ];
    for way in ways {
        for arguments in [
            &["down", "s"][..],
            &["down", "--lazy", "s"],
            &["down", "--all"],
        ] {
            let sandbox = Sandbox::with_engine(engine);
            let point = sandbox.directory("remote");
            let mut fuse = Fuse::mount(&point, 0);
            let line = format!(
                "mounts: [{{ source: {0}/data, target: /data }}]\netc: [hosts]\n",
                point.display()
            );
            let root = sandbox.site("s", &line);
            let bare = tree(&root);
            sandbox.ok(&["up", "s"]);
            way(&mut fuse);
            let limit = ["timeout", "--kill-after=1", "60"];
            let ran = Ran::of(sandbox.command_under(&limit).args(arguments)).exits(0);
            ran.says("s: down, 2 mounts detached");
            assert_eq!(mounts_below(&root), []);
            bare.assert_same(&tree(&root));
            fuse.resume();
        }
    }
}

fn server_again(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let point = sandbox.directory("remote");
    let mut fuse = Fuse::mount(&point, 0);
    let root = sandbox.site(
        "s",
        &format!(
            "etc: [hosts]\nmounts:\n{}{}",
            line(&point.join("data"), "/data"),
            line(&point.join("data/file"), "/file")
        ),
    );
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    let before = mounts_below(&root);
    let others_are_shown = || {
        let ran = sandbox.run(&["status", "s"]).exits(1);
        let ran = ran.prints("  stale         /data");
        ran.prints("  ok            /etc/hosts ");
    };

    // It may be right again in a moment.
    fuse.fail(libc::EIO);
    others_are_shown();
    sandbox.run(&["up", "s"]).exits(1).says("I/O error");
    assert_eq!(mounts_below(&root), before);
    fuse.resume();
    sandbox.ok(&["up", "s"]).says("nothing to do");

    for watched in [false, true] {
        let watcher = watched.then(|| Watcher::start(&sandbox));
        fuse.die();
        others_are_shown();
        let ran = sandbox.run(&["up", "s"]).exits(1);
        let said = watcher.as_ref().map(Watcher::said);
        assert_eq!(mounts_below(&root).len(), 3, "{ran} {said:?}");
        drop(fuse);
        fuse = Fuse::mount(&point, 0);
        if let Some(watcher) = watcher {
            soon_reads(&root.join("file"), "hi\n");
            watcher.end();
        } else {
            sandbox.run(&["status", "s"]).exits(3);
            sandbox.ok(&["up", "s"]).says("2 swapped");
        }
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "hi\n");
        assert_eq!(fs::read_to_string(root.join("data/file")).unwrap(), "hi\n");
        sandbox.ok(&["up", "s"]).says("nothing to do");
    }

    fuse.die();
    sandbox.ok(&["down", "s"]).says("3 mounts detached");
    bare.assert_same(&tree(&root));
}

fn replaced_directory(engine: &'static str) {
    let in_its_place: [fn(&Path); 4] = [
        |path| symlink("nowhere", path).unwrap(),
        |path| symlink("/", path).unwrap(),
        |path| fs::write(path, "a file").unwrap(),
        |_| {},
    ];
    for put in in_its_place {
        let site = Site::new(engine);
        let old = site.root.join("old");
        fs::rename(site.root.join("etc"), &old).unwrap();
        put(&site.root.join("etc"));
        let is_there = fs::symlink_metadata(site.root.join("etc")).is_ok();
        site.sandbox
            .ok(&["down", "s"])
            .says("s: down, 4 mounts detached");
        site.is_down();
        assert_eq!(
            fs::symlink_metadata(site.root.join("etc")).is_ok(),
            is_there
        );
        if is_there {
            fs::remove_file(site.root.join("etc")).unwrap();
        }
        site.bare.assert_same(&tree(&site.root));
        site.sandbox.ok(&["up", "s"]);
        site.sandbox.ok(&["down", "s"]);
        site.is_bare();
    }
}

/// A mount namespace stands for another host: a file that is unlinked there is unmounted here.
fn shared_storage(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let point = sandbox.directory("srv/volume");
    let _fuse = Fuse::of_type(&point, 0, "fuse.glusterfs");
    let root = point.join("s");
    fs::create_dir(&root).unwrap();
    let bare: Vec<_> = tree(&root).paths().map(Path::to_owned).collect();
    let source = sandbox.file("host/file", "the host's");
    let manifest = |targets: &[&str]| {
        let line =
            |target: &&str| format!("  - {{ source: {}, target: {target} }}\n", source.display());
        let lines: String = targets.iter().map(line).collect();
        sandbox.manifest("s", format!("root: {}\nmounts:\n{lines}", root.display()));
    };
    manifest(&["/etc/file", "/more"]);
    let there = in_namespace("private", "exec sleep 1000");
    let pid = there.pid().to_string();
    let there = |arguments: &[&str]| {
        let enter = ["nsenter", "--target", &pid, "--mount", "--"];
        let state = sandbox.path("state-there");
        Ran::of(
            sandbox
                .command_under(&enter)
                .args(arguments)
                .env("MOUNTJAIL_STATE_DIR", state),
        )
    };
    there(&["up", "s"]).exits(0);
    sandbox.ok(&["up", "s"]);
    assert_eq!(mounts_below(&root).len(), 2);
    let says =
        "3 placeholders in ".to_owned() + root.to_str().unwrap() + " stay: it is on fuse.glusterfs";
    let ran = there(&["down", "s"])
        .exits(0)
        .says(&says)
        .says("down --remove-placeholders s");
    assert!(ran.stderr.contains("2 mounts detached"), "{ran}");
    assert_eq!(mounts_below(&root).len(), 2, "they stay here");
    // Removing a line removes its mount, not the placeholder.
    there(&["up", "s"]).exits(0);
    manifest(&["/etc/file"]);
    there(&["up", "s"]).exits(0);
    assert_eq!(mounts_below(&root).len(), 2);
    sandbox.ok(&["up", "s"]).says("1 detached");
    sandbox.ok(&["down", "s"]);
    sandbox.ok(&["up", "s"]);
    // On request the placeholders are removed, just as they would be on other storage.
    there(&["down", "--remove-placeholders", "s"]).exits(0);
    assert_eq!(mounts_below(&root), []);
    let left: Vec<_> = tree(&root).paths().map(Path::to_owned).collect();
    assert_eq!(left, bare);
    sandbox.ok(&["down", "--remove-placeholders", "s"]);
}

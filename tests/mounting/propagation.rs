//! Promise: a service with a mount namespace of its own sees attaches, swaps and detaches, where
//! `/` is shared as systemd makes it; and one that cannot see them is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{
    Ran, Sandbox, for_each_engine_on_shared_root, mounts_below, on_shared_root, wait_until,
};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let mut trials =
        for_each_engine_on_shared_root("mounts reach the namespaces of services", services_follow);
    trials.extend(for_each_engine_on_shared_root(
        "the host keeps its submounts, and later ones stay outside",
        submounts_stay,
    ));
    trials.push(Trial::test(
        "a process that does not see the mounts is named",
        || {
            blind_process();
            Ok(())
        },
    ));
    trials.push(on_shared_root(
        "records of another mount namespace are left alone",
        not_the_hosts_records,
    ));
    trials.push(on_shared_root(
        "a user namespace is named once",
        user_namespace,
    ));
    trials.push(on_shared_root(
        "a record of another mount namespace counts as lost",
        strange_record,
    ));
    trials
}

fn strange_record() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "devices: [zero, full]\n");
    sandbox.ok(&["up", "s"]);
    // There the mounts have other ids.
    Ran::of(
        sandbox
            .command_under(&["unshare", "--mount"])
            .args(["up", "s"]),
    )
    .exits(0)
    .says("in sync");
    sandbox
        .ok(&["down", "s"])
        .says("s: down, 2 mounts detached");
    assert!(mounts_below(&root).is_empty());
    assert!(
        fs::read_dir(&root).unwrap().next().is_none(),
        "the root is as before"
    );
}

fn not_the_hosts_records() {
    for at in ["/run", "/var/lib"] {
        Ran::of(Command::new("mount").args(["-t", "tmpfs", "own", at])).exits(0);
    }
    let sandbox = Sandbox::new();
    sandbox.site("s", "devices: [zero]\n");
    // A shell as PID 1 of a new pid namespace.
    let booted = |script: &str, arguments: &[&str]| {
        let under = [
            "unshare",
            "--pid",
            "--fork",
            "--mount-proc",
            "sh",
            "-c",
            script,
            "sh",
        ];
        let mut command = sandbox.command_under(&under);
        Ran::of(command.env_remove("MOUNTJAIL_STATE_DIR").args(arguments))
    };
    for arguments in [&["up", "s"][..], &["down", "s"], &["watch"]] {
        let ran = booted("unshare --mount \"$@\"; exit $?", arguments).exits(1);
        ran.says("its own mount namespace")
            .says("nsenter --target 1 --mount");
    }
    assert!(!Path::new("/run/mountjail").exists());
    booted("unshare --mount \"$@\"; exit $?", &["status", "s"])
        .exits(3)
        .prints("s: down");
    booted("\"$@\"; exit $?", &["up", "s"])
        .exits(0)
        .says("s: up, 1 mount");
    assert!(Path::new("/run/mountjail/s.json").exists());

    // If the first process may not be looked at, that is reported once, and the work is done.
    let blind = "strace -f -o /dev/null -P /proc/1/ns/mnt -e \
                 inject=?readlink,readlinkat:error=EACCES \"$@\"; exit $?";
    sandbox.site("t", "devices: [zero]\n");
    for (command, done) in [("up", "t: up, 1 mount"), ("down", "t: down")] {
        let ran = booted(blind, &[command, "--all"]).exits(0).says(done);
        let warning = "cannot find out whether this process shares the mount namespace of PID 1: \
                       Permission denied";
        assert_eq!(ran.stderr.matches(warning).count(), 1, "{ran}");
    }
}

/// In a user namespace with only one user, all files of the host seem to belong to nobody: that is
/// one note.
fn user_namespace() {
    let sandbox = Sandbox::new();
    for site in ["s", "t"] {
        sandbox.site(site, "devices: [zero]\n");
    }
    Ran::of(
        Command::new("chown")
            .args(["-R", "1000:1000"])
            .arg(sandbox.path("")),
    )
    .exits(0);
    let alone = [
        "setpriv",
        "--reuid=1000",
        "--regid=1000",
        "--clear-groups",
        "unshare",
        "--map-root-user",
        "--mount",
    ];
    for command in ["up", "down"] {
        let ran = Ran::of(sandbox.command_under(&alone).args([command, "--all"])).exits(0);
        let note = "this user namespace hides who owns the directories on the way to the roots";
        assert_eq!(ran.stderr.matches(note).count(), 1, "{ran}");
    }
}

/// A process in a mount namespace of its own; ended when dropped.
struct Service(Child);

impl Service {
    fn start(propagation: &str, command: &[&str]) -> Self {
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", propagation])
            .args(command)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let service = Self(child);
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        wait_until("it has a mount namespace of its own", || {
            let comm = fs::read_to_string(service.proc("comm")).unwrap();
            comm.trim() != "unshare" && fs::read_link(service.proc("ns/mnt")).unwrap() != own
        });
        service
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0.id()))
    }

    /// What the service reads at the host's path `path`.
    fn reads(&self, path: &Path) -> String {
        fs::read_to_string(self.proc("root").join(path.strip_prefix("/").unwrap()))
            .unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn services_follow(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let source = sandbox.file("host/conf", "one");
    let line = |target: &str| format!("  - {{ source: {}, target: {target} }}\n", source.display());
    let root = sandbox.site("s", &format!("mounts:\n{}", line("/conf")));
    let (first, second) = (root.join("conf"), root.join("more"));
    let before = Service::start("slave", &["sleep", "1000"]);
    sandbox.ok(&["up", "s"]);
    let after = Service::start("slave", &["sleep", "1000"]);
    for service in [&before, &after] {
        assert_eq!(service.reads(&first), "one");
    }
    sandbox.manifest(
        "s",
        format!(
            "root: {}\nmounts:\n{}{}",
            root.display(),
            line("/conf"),
            line("/more")
        ),
    );
    sandbox.ok(&["up", "s"]);
    for service in [&before, &after] {
        assert_eq!(service.reads(&second), "one", "an addition");
    }
    let new = sandbox.file("host/conf.new", "two");
    fs::rename(new, &source).unwrap();
    let ran = sandbox.ok(&["up", "s"]);
    assert!(!ran.stderr.contains("does not see"), "{ran}");
    for service in [&before, &after] {
        assert_eq!(service.reads(&first), "two", "a swap");
    }
    sandbox.ok(&["down", "s"]);
    for service in [&before, &after] {
        assert_eq!(service.reads(&first), "", "a detach");
        let table = fs::read_to_string(service.proc("mountinfo")).unwrap();
        assert!(!table.contains(&format!(" {}/", root.display())), "{table}");
    }
}

fn submounts_stay(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let sub = sandbox.directory("host/dir/sub");
    Ran::of(Command::new("mount").args(["-t", "tmpfs", "sub"]).arg(&sub)).exits(0);
    let dir = sub.parent().unwrap();
    let root = sandbox.site(
        "s",
        &format!(
            "mounts: [{{ source: {}, target: /dir, recursive: true }}]\n",
            dir.display()
        ),
    );
    sandbox.ok(&["up", "s"]);
    assert_eq!(mounts_below(&root).len(), 2);
    // A mount that the host makes later in the source does not appear in the jail, writable.
    let late = sandbox.directory("host/dir/late");
    Ran::of(
        Command::new("mount")
            .args(["-t", "tmpfs", "late"])
            .arg(&late),
    )
    .exits(0);
    assert_eq!(mounts_below(&root).len(), 2);
    sandbox.ok(&["down", "--lazy", "s"]);
    assert_eq!(mounts_below(&root).len(), 0);
    assert_eq!(mounts_below(dir).len(), 2, "the host's own submounts stay");
}

fn blind_process() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "etc: [hosts]\n");
    sandbox.program(root.join("busybox"), fs::read("/bin/busybox").unwrap());
    let service = Service::start(
        "private",
        &[
            "chroot",
            root.to_str().unwrap(),
            "/busybox",
            "sleep",
            "1000",
        ],
    );
    wait_until("it is inside", || {
        fs::read_link(service.proc("root")).is_ok_and(|at| at == root)
    });
    let ran = sandbox.ok(&["up", "s"]).says("does not see the mounts");
    ran.says(&format!("(pid {}", service.0.id()));
    sandbox.ok(&["down", "s"]);
}

//! Promise: after a package manager has replaced files, the sites that are up are in sync, and the
//! package manager is never disturbed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, Sandbox, mounts_below, on_shared_root, overlay, trials};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    let mut trials = trials([
        ("apt reads its hook", apt_reads_its_hook),
        (
            "the packages have files for all that they list",
            files_of_the_packages,
        ),
    ]);
    // Each in a process of its own, because it mounts on /run.
    trials.push(on_shared_root(
        "sites that are up are healed, others stay down",
        heals,
    ));
    trials.push(on_shared_root(
        "the hook prints nothing if there is nothing to do",
        silent,
    ));
    trials.push(on_shared_root(
        "a failure is reported and does not fail the hook",
        never_fails,
    ));
    trials.push(on_shared_root(
        "before the package goes, its sites go, and others are named",
        removed,
    ));
    trials.push(on_shared_root("apk's hook acts only after commits", apk));
    trials
}

fn hooks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/hooks")
}

/// The hook with this sandbox's mountjail in its `PATH`.
fn hook(sandbox: &Sandbox) -> Ran {
    let like = sandbox.command();
    let program = Path::new(like.get_program()).parent().unwrap();
    hook_in(
        sandbox,
        &format!("{}:{}", program.display(), std::env::var("PATH").unwrap()),
    )
}

fn hook_in(sandbox: &Sandbox, path: &str) -> Ran {
    let mut hook = Command::new(hooks().join("packages-changed"));
    hook.envs(
        sandbox
            .command()
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    Ran::of(hook.env("PATH", path)).exits(0)
}

/// The `PATH` that apk gives to what it runs.
const PATH_OF_APK: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A `/run` of this trial's own, with what shows that something is booted.
fn booted() {
    Ran::of(Command::new("mount").args(["-t", "tmpfs", "run", "/run"])).exits(0);
    fs::create_dir("/run/mountjail").unwrap();
}

fn heals() {
    booted();
    let sandbox = Sandbox::new();
    let file = sandbox.file("host/lib", "old");
    let mounts = format!("mounts: [{}]\n", file.display());
    let (up, down) = (sandbox.site("up", &mounts), sandbox.site("down", &mounts));
    fs::remove_dir(sandbox.site("away", "devices: [\"null\"]\n")).unwrap();
    sandbox.ok(&["up", "up"]);
    fs::rename(sandbox.file("host/new", "new"), &file).unwrap();
    sandbox.run(&["status", "up"]).exits(3);
    let ran = hook(&sandbox);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    sandbox.ok(&["status", "up"]);
    assert_eq!(
        fs::read_to_string(up.join(file.strip_prefix("/").unwrap())).unwrap(),
        "new"
    );
    assert_eq!(mounts_below(&down).len(), 0);
    sandbox
        .ok(&["up", "--if-up", "up", "down"])
        .says("up: in sync")
        .says("down: down; left alone");
    let json = sandbox.ok(&["up", "--if-up", "--json", "down"]).json();
    assert_eq!(json["sites"][0]["up"], false);
}

fn silent() {
    let sandbox = Sandbox::new();
    let nothing = || {
        let ran = hook(&sandbox);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    };
    booted();
    nothing();
    let root = sandbox.site("s", "devices: [\"null\"]\n");
    nothing();
    sandbox.ok(&["up", "s"]);
    nothing();
    sandbox.ok(&["down", "s"]);
    nothing();
    assert_eq!(mounts_below(&root).len(), 0);
    // In a chroot or an image that is being made, nothing is even looked at.
    fs::remove_dir("/run/mountjail").unwrap();
    sandbox.manifest("s", "not a manifest");
    nothing();
}

fn never_fails() {
    booted();
    let sandbox = Sandbox::new();
    sandbox.manifest("s", "root: relative\n");
    hook(&sandbox)
        .says("s.yaml:1")
        .says("mountjail: sites may still have old files, see above");
    // As after a build from source.
    overlay(&sandbox, Path::new("/usr/local"));
    fs::create_dir_all("/usr/local/bin").unwrap();
    symlink(sandbox.command().get_program(), "/usr/local/bin/mountjail").unwrap();
    hook_in(&sandbox, PATH_OF_APK).says("s.yaml:1");
}

/// Run as apk runs it: by its own mode, relative to the root, without an environment. What it is to
/// start fails here.
fn apk() {
    let sandbox = Sandbox::new();
    let library = sandbox.directory("mountjail");
    let changed = sandbox.file(
        "mountjail/packages-changed",
        "#!/bin/sh\necho called\nexit 7\n",
    );
    overlay(&sandbox, Path::new("/usr/lib"));
    fs::create_dir_all("/usr/lib/mountjail").unwrap();
    Ran::of(
        Command::new("mount")
            .arg("--bind")
            .arg(library)
            .arg("/usr/lib/mountjail"),
    )
    .exits(0);
    let hook = hooks().join("apk");
    let run = |stage: &str| {
        let mut command = Command::new(hook.strip_prefix("/").unwrap());
        command
            .arg(stage)
            .current_dir("/")
            .env_clear()
            .env("PATH", PATH_OF_APK);
        Ran::of(&mut command).exits(0).stdout
    };
    assert_eq!(run("post-commit"), "", "it cannot be executed");
    fs::set_permissions(changed, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        (run("pre-commit").as_str(), run("post-commit").as_str()),
        ("", "called\n")
    );
}

/// The hook in this mount namespace, as if this was the host's: the first process of a PID
/// namespace has it.
fn before_removal(sandbox: &Sandbox) -> Ran {
    let like = sandbox.command();
    let program = Path::new(like.get_program()).parent().unwrap();
    let script = "mount -t proc proc /proc && sh \"$0\"; code=$?; umount /proc; exit $code";
    let mut hook = Command::new("unshare");
    hook.args(["--pid", "--fork", "sh", "-c", script])
        .arg(hooks().join("before-removal"))
        .envs(
            like.get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .env(
            "PATH",
            format!("{}:{}", program.display(), std::env::var("PATH").unwrap()),
        );
    Ran::of(&mut hook).exits(0)
}

fn removed() {
    booted();
    let sandbox = Sandbox::new();
    overlay(&sandbox, Path::new("/etc"));
    let (mine, theirs) = (
        sandbox.site("mine", "etc: [hosts]\n"),
        sandbox.directory("srv/theirs"),
    );
    sandbox.ok(&["up", "--all"]);
    let ran = before_removal(&sandbox);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    assert_eq!(mounts_below(&mine).len(), 0);
    sandbox.ok(&["up", "--all"]);
    let file = sandbox.file(
        "other/sites/theirs.yaml",
        format!("root: {}\netc: [hosts]\n", theirs.display()),
    );
    let other = sandbox.path("other").display().to_string();
    sandbox.ok(&["--config-dir", &other, "up", "theirs"]);
    before_removal(&sandbox)
        .says("mountjail: these sites are left as they are")
        .says(&format!(
            "\n  theirs: {} brought it up, in {}\n",
            file.display(),
            theirs.display()
        ));
    assert_eq!(
        (mounts_below(&mine).len(), mounts_below(&theirs).len()),
        (0, 1)
    );
}

fn apt_reads_its_hook() {
    let conf = hooks().join("apt.conf");
    let mut apt = Command::new("apt-config");
    Ran::of(apt.arg("-c").arg(conf).args(["dump", "DPkg::Post-Invoke"]))
        .exits(0)
        .prints("DPkg::Post-Invoke:: \"if [ -x /usr/lib/mountjail/packages-changed ]; then ");
}

/// Only those that are in the repository; others are made when the packages are built.
fn files_of_the_packages() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = fs::read_to_string(directory.join("Cargo.toml")).unwrap();
    let listed: Vec<_> = cargo
        .split('"')
        .filter(|text| text.starts_with("packaging/"))
        .collect();
    for list in ["apt.conf", "before-removal", "dpkg.cfg", "packages-changed"] {
        assert!(
            listed.contains(&&*format!("packaging/hooks/{list}")),
            "{list} is in no package"
        );
    }
    for pattern in listed {
        let found = glob::glob(directory.join(pattern).to_str().unwrap())
            .unwrap()
            .count();
        assert!(found > 0, "{pattern}");
    }
    for script in ["apk", "before-removal", "packages-changed"] {
        Ran::of(Command::new("sh").arg("-n").arg(hooks().join(script))).exits(0);
    }
}

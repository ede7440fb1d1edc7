//! Promise: a directory of the system that is bound whole gives a jail in which programs run, with
//! few mounts, and every link in it leads to the same file as on the host.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, Sandbox, for_each_engine, mounts_below, tree};
use libtest_mimic::Trial;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};

pub fn all() -> Vec<Trial> {
    let mut trials = for_each_engine("programs run where all of /usr is bound", all_of_usr);
    trials.extend(for_each_engine(
        "a root has directories and links of its own",
        own_directories,
    ));
    trials.extend(for_each_engine(
        "lines of fstab give the same mounts",
        same_by_fstab,
    ));
    trials.extend(for_each_engine(
        "a manifest can change to all of /usr and back",
        back_and_forth,
    ));
    trials.extend(crate::support::trials([
        ("system directories can be bound one by one", one_by_one),
        (
            "mounts that keep the host from replacing files are reported",
            nested,
        ),
        (
            "mounts of the host inside are not shown on their own",
            submounts,
        ),
    ]));
    trials
}

const USR: &str = "mounts: [{ source: /usr, executable: true }]\n";

/// What PHP needs besides it.
const BESIDE: &str = "presets: [base, dns, tls, php-fpm]\n\
                      programs: [/bin/sh, /usr/bin/awk, /usr/bin/perl]\nusers: [www-data]\n";

/// The links below `directory` that are root's, with what they lead to on the host.
fn links(directory: &Path, found: &mut Vec<(PathBuf, Metadata)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            links(&entry.path(), found);
        } else if kind.is_symlink()
            && let Ok(there) = fs::metadata(entry.path())
        {
            found.push((entry.path(), there));
        }
    }
}

/// Whether what the host has at `path` is for everybody, and not in a place from which no link
/// brings anything.
fn is_for_everybody(path: &Path) -> bool {
    let real = fs::canonicalize(path).unwrap();
    let never = ["/proc", "/sys", "/dev", "/home", "/root", "/tmp"];
    let open = |path: &Path, bit| fs::metadata(path).unwrap().mode() & bit != 0;
    !never.iter().any(|never| real.starts_with(never))
        && open(&real, 0o004)
        && real.ancestors().skip(1).all(|above| open(above, 0o001))
}

/// Every link in the directory leads to the same file in `root` as on the host; how many there are.
#[track_caller]
fn assert_links_lead_alike(root: &Path, directory: &str) -> usize {
    let mut found = vec![];
    links(Path::new(directory), &mut found);
    found.retain(|(path, _)| is_for_everybody(path));
    let jail = File::open(root).unwrap();
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let inside = |path: &Path| {
        loop {
            match openat2(&jail, path, how) {
                Ok(file) => break File::from(file).metadata().ok(),
                // other trials mount meanwhile: openat2(2) says to try again
                Err(Errno::EAGAIN) => {}
                Err(_) => break None,
            }
        }
    };
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let wrong: Vec<_> = (found.iter())
        .filter(|(path, there)| !inside(path).is_some_and(|inside| same(&inside, there)))
        .map(|(path, _)| path)
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} links lead elsewhere: {wrong:?}",
        wrong.len(),
        found.len()
    );
    found.len()
}

/// Programs run in `root`, by the names that they have on the host.
#[track_caller]
fn assert_programs_run(root: &Path) {
    let run = |arguments: &[&str]| Ran::of(Command::new("chroot").arg(root).args(arguments));
    run(&["/bin/sh", "-c", "echo it runs"])
        .exits(0)
        .prints("it runs");
    run(&["/usr/bin/awk", "BEGIN { print 6 * 7 }"])
        .exits(0)
        .prints("42"); // one of several, by /etc/alternatives
    run(&["/usr/bin/perl", "-MPOSIX", "-e", "print POSIX::floor(2.5)"])
        .exits(0)
        .prints("2");
    run(&["/usr/bin/php", "-n", "-r", "echo PHP_OS;"])
        .exits(0)
        .prints("Linux");
    let listed = run(&["/usr/bin/ldd", "/usr/bin/perl"]).exits(0);
    assert!(
        listed.stdout.contains("libc.so") && !listed.stdout.contains("not found"),
        "{listed}"
    );
}

fn all_of_usr(engine: &'static str) {
    for beside in ["devices: [null]\n", BESIDE] {
        let sandbox = Sandbox::with_engine(engine);
        let root = sandbox.site("s", &format!("{USR}{beside}"));
        let bare = tree(&root);
        sandbox.ok(&["up", "s"]);
        assert_programs_run(&root);
        assert!(assert_links_lead_alike(&root, "/usr") > 100);
        let usr = mounts_below(&root.join("usr"));
        assert_eq!(usr.len(), 1, "one mount shows all of it: {usr:?}");
        let many = mounts_below(&root).len();
        assert!(many < 60, "{many} mounts");
        sandbox.ok(&["up", "s"]).says("nothing to do");
        sandbox.ok(&["status", "s"]);
        sandbox.ok(&["down", "s"]);
        bare.assert_same(&tree(&root));
    }
}

fn own_directories(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", &format!("{USR}{BESIDE}"));
    for directory in ["usr", "lib", "lib64"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    fs::write(root.join("lib/own"), "own").unwrap();
    symlink("/usr/sbin", root.join("sbin")).unwrap();
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    assert_programs_run(&root);
    assert_eq!(fs::read_to_string(root.join("lib/own")).unwrap(), "own");
    sandbox.ok(&["up", "s"]).says("nothing to do");
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
    // The mount would hide it.
    fs::create_dir(root.join("usr/own")).unwrap();
    sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("a directory that is not empty");
    assert!(mounts_below(&root).is_empty());
}

fn same_by_fstab(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", &format!("{USR}{BESIDE}"));
    let bare = tree(&root);
    let file = sandbox.file("etc/fstab", "");
    let fstab = |option| {
        Ran::of(
            sandbox
                .command()
                .args(["fstab", "s", option, "--file"])
                .arg(&file),
        )
        .exits(0)
    };
    fstab("--install");
    Ran::of(Command::new("mount").args(["-a", "-T"]).arg(&file)).exits(0);
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["up", "s"]).says("nothing to do");
    assert_programs_run(&root);
    sandbox.ok(&["down", "s"]);
    fstab("--uninstall");
    bare.assert_same(&tree(&root));
}

fn back_and_forth(engine: &'static str) {
    let sandbox = Sandbox::with_engine(engine);
    let root = sandbox.site("s", BESIDE);
    let bare = tree(&root);
    for lines in [
        BESIDE,
        &format!("{USR}{BESIDE}"),
        "mounts: [/usr]\nprograms: [/bin/sh]\n",
        USR,
        BESIDE,
    ] {
        sandbox.site("s", lines);
        sandbox.ok(&["up", "s"]);
        let run = ["/bin/sh", "-c", "echo it runs"];
        Ran::of(Command::new("chroot").arg(&root).args(run))
            .exits(0)
            .prints("it runs");
        sandbox.ok(&["up", "s"]).says("nothing to do");
    }
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
}

/// Each alone, even if its links pass through the others.
fn one_by_one() {
    for directory in [
        "/usr/lib",
        "/usr/share",
        "/usr/bin",
        "/usr/sbin",
        "/usr/local",
        "/opt",
    ] {
        let sandbox = Sandbox::new();
        let root = sandbox.site(
            "s",
            &format!("mounts: [{{ source: {directory}, executable: true }}]\n"),
        );
        let bare = tree(&root);
        sandbox.ok(&["up", "s"]);
        assert_links_lead_alike(&root, directory);
        let many = mounts_below(&root).len();
        // The programs bring their libraries, one by one.
        let most = if directory.ends_with("bin") { 1000 } else { 60 };
        assert!(many < most, "{directory}: {many} mounts");
        sandbox.ok(&["down", "s"]);
        bare.assert_same(&tree(&root));
    }
}

fn nested() {
    let sandbox = Sandbox::new();
    let id = sandbox.program("host/usr/bin/id", fs::read("/usr/bin/id").unwrap());
    let usr = sandbox.path("host/usr");
    let site = |more: &str| {
        let (usr, id) = (usr.display(), id.display());
        sandbox.site(
            "s",
            &format!("mounts: [{{ source: {usr}{more} }}]\nprograms: [{id}]\n"),
        )
    };
    let replace = || {
        fs::copy("/usr/bin/id", id.with_extension("new")).unwrap();
        fs::rename(id.with_extension("new"), &id).map_err(|error| error.raw_os_error().unwrap())
    };
    site("");
    let said = "cannot replace or remove what is there (EBUSY); with `executable: true`";
    sandbox.ok(&["up", "s"]).says(said);
    assert_eq!(replace(), Err(libc::EBUSY));
    site(", executable: true");
    let ran = sandbox.ok(&["up", "s"]);
    assert!(!ran.stderr.contains("EBUSY"), "{ran}");
    assert_eq!(replace(), Ok(()));
    sandbox.site("s", "mounts: [/etc]\nusers: [www-data]\n");
    sandbox
        .ok(&["check", "s"])
        .says("/etc/passwd and 1 more file are mounted inside /etc");
}

fn submounts() {
    let sandbox = Sandbox::new();
    let local = sandbox.directory("host/usr/local");
    let usr = local.parent().unwrap();
    mount(
        Some("local"),
        &local,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    sandbox.file("host/usr/local/bin/tool", "tool");
    let tool = local.join("bin/tool");
    let lines = |lines: &[String]| format!("mounts:\n{}", lines.concat());
    let line = |path: &Path| format!("  - {}\n", path.display());
    let root = sandbox.site("s", &lines(&[line(usr), line(&tool)]));
    let said = sandbox
        .run(&["up", "s"])
        .exits(1)
        .says("without what the host has mounted at");
    assert!(
        said.stderr
            .contains(&format!("add {} to `mounts`", local.display())),
        "{said}"
    );
    let inside = root.join(tool.strip_prefix("/").unwrap());
    let recursive = format!("  - {{ source: {}, recursive: true }}\n", usr.display());
    for (manifest, mounts) in [
        (lines(&[line(usr), line(&local), line(&tool)]), "2 mounts"),
        (lines(&[recursive, line(&local), line(&tool)]), "1 mount:"),
    ] {
        sandbox.site("s", &manifest);
        let ran = sandbox.ok(&["up", "s"]).says(mounts);
        assert!(!ran.stderr.contains("EBUSY"), "{ran}");
        assert_eq!(fs::read_to_string(&inside).unwrap(), "tool");
        sandbox.ok(&["down", "s"]);
    }
}

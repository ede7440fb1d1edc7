//! Promise: `check` reports what keeps `up` from working, what gives the host away, and what does
//! not work inside; `up` and `down` say what to do about the first.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{Ran, Sandbox, bind, trials, unmount};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};

pub fn all() -> Vec<Trial> {
    trials([
        ("a root on a read-only mount is reported", read_only),
        ("a directory that is immutable is reported", immutable),
        (
            "a root on an image, which is never writable, is reported",
            on_image,
        ),
        ("sources that give the host away are reported", dangerous),
        ("a setuid bit without effect is reported", setuid),
        (
            "a program without the directories of its preset is named",
            bare_programs,
        ),
        (
            "`why` tells where nothing is in a mounted directory",
            nothing_there,
        ),
        (
            "a library that is named by a relative path gets its remedy",
            relative,
        ),
        (
            "a link to a private file is named, once per change",
            private_link,
        ),
        (
            "what the host has mounted in a source, and is left out, is named",
            left_out,
        ),
    ])
}

/// Makes the mount at `path` read-only, or writable.
fn remount(path: &Path, flags: MsFlags) {
    let flags = MsFlags::MS_REMOUNT | flags;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
}

fn read_only() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "etc: [hosts]\n");
    let root = sandbox.root("s");
    let (kind, none) = (Some("tmpfs"), MsFlags::empty());
    mount(kind, &root, kind, none, None::<&str>).unwrap();
    remount(&root, MsFlags::MS_RDONLY);
    let remedy = format!("`mount -o remount,rw {}`", root.display());

    let reason = format!("{}: it is mounted read-only", root.display());
    let told = |command: &str| sandbox.run(&[command, "s"]).exits(1).says(&remedy);
    told("check").says(&reason);
    told("up");
    remount(&root, none);
    sandbox.ok(&["check", "s"]);
    sandbox.ok(&["up", "s"]);
    remount(&root, MsFlags::MS_RDONLY);
    sandbox.ok(&["check", "s"]); // nothing is to be made
    told("down");
    remount(&root, none);
    sandbox.ok(&["down", "s"]);

    let etc = root.join("etc");
    fs::create_dir(&etc).unwrap();
    remount(&root, MsFlags::MS_RDONLY);
    let reason = format!("{} is mounted read-only", root.display());
    let reason = reason.replacen(" is", ", which is", 1);
    told("check").says(&format!("{}: it is on {reason}", etc.display()));
}

fn on_image() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "etc: [hosts]\n");
    let root = sandbox.root("s");
    let (contents, image) = (sandbox.directory("contents/etc"), sandbox.path("image"));
    let contents = contents.parent().unwrap();
    let mount_image = || {
        let mut make = Command::new("mksquashfs");
        make.arg(contents).arg(&image).args(["-quiet", "-noappend"]);
        Ran::of(&mut make).exits(0);
        let mut mount = Command::new("mount");
        Ran::of(mount.args(["-o", "loop"]).arg(&image).arg(&root)).exits(0);
    };

    mount_image();
    for command in ["check", "up"] {
        let refused = sandbox.run(&[command, "s"]).exits(1);
        assert!(!refused.stderr.contains("remount"), "{refused}");
        refused.says("or mount an overlay of it as the root");
    }
    sandbox.run(&["check", "s"]).says("image (squashfs)");
    unmount(&root);
    fs::write(contents.join("etc/hosts"), "").unwrap();
    mount_image();
    sandbox.ok(&["check", "s"]);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
    unmount(&root);
}

/// Sets an attribute of `chattr(1)`.
fn change_attribute(change: &str, path: &Path) {
    Ran::of(Command::new("chattr").arg(change).arg(path)).exits(0);
}

fn immutable() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "etc: [hosts, services]\n");
    let etc = sandbox.directory("srv/s/etc");
    let remedy = format!("`chattr -i {0}`", etc.display());
    let told = |command: &str| sandbox.run(&[command, "s"]).exits(1).says(&remedy);
    change_attribute("+i", &etc);
    told("check").says("it is immutable");
    told("up").says("Operation not permitted");
    change_attribute("-i", &etc);
    sandbox.ok(&["up", "s"]);
    change_attribute("+i", &etc);
    told("down");
    change_attribute("-i", &etc);
    sandbox.ok(&["down", "s"]);
    assert!(fs::read_dir(&etc).unwrap().next().is_none());
}

fn dangerous() {
    let sandbox = Sandbox::new();
    for (source, says) in [
        (
            "{ source: /etc, access: read-write }",
            "change the host's users",
        ),
        (
            "{ source: /home, access: read-write }",
            "change every user's files",
        ),
        (
            "{ source: /proc, target: /p }",
            "`proc: true` mounts one for the site",
        ),
        ("{ source: /root, target: /r }", "secrets of the host"),
        ("/etc/shadow", "secrets of the host"),
        ("/run", "command the host's services"),
        (
            "{ source: /var/run, access: read-write }",
            "command the host's services",
        ),
    ] {
        sandbox.site("s", &format!("mounts: [{source}]\n"));
        let checked = sandbox
            .ok(&["check", "s"])
            .says("warning: s: the site gets /");
        checked.says(says);
    }
    sandbox.site("s", "mounts: [/etc/shadow]\n");
    sandbox.ok(&["up", "s"]).says("secrets of the host");
    sandbox.ok(&["down", "s"]);
    for harmless in [
        "/etc",
        "/usr/share/zoneinfo",
        "{ source: /sys, target: /sys }",
    ] {
        sandbox.site("s", &format!("mounts: [{harmless}]\n"));
        let said = sandbox.ok(&["check", "s"]).stderr;
        assert!(!said.contains("the site gets"), "{harmless}: {said}");
    }
}

fn setuid() {
    let sandbox = Sandbox::new();
    let su = sandbox.program("host/su", fs::read("/usr/bin/id").unwrap());
    fs::set_permissions(&su, fs::Permissions::from_mode(0o4755)).unwrap();
    let line = format!(
        "{{ source: {}, executable: true, setuid: true }}",
        su.display()
    );
    let ping = sandbox.program("host/ping", fs::read("/usr/bin/id").unwrap());
    Ran::of(Command::new("setcap").arg("cap_net_raw+ep").arg(&ping)).exits(0);
    sandbox.site("s", &format!("programs: [{}]\n", ping.display()));
    let said = format!(
        "the file capabilities (capabilities(7)) of {}",
        ping.display()
    );
    sandbox.ok(&["check", "s"]).says(&said);
    let programs = format!("programs: [{}]\n", su.display());
    sandbox.site("s", &programs);
    let said = format!("`mounts: [{line}]`");
    let checked = sandbox.ok(&["check", "s"]).says("the setuid bit of");
    checked.says(&said);
    sandbox.ok(&["up", "s"]).says(&said);

    sandbox.site("s", &format!("{programs}mounts: [{line}]\n"));
    let said = sandbox.ok(&["check", "s"]).stderr;
    assert!(!said.contains("setuid bit"), "{said}");
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["down", "s"]);
}

fn bare_programs() {
    let sandbox = Sandbox::new();
    let checked = |manifest: &str| {
        sandbox.site("s", manifest);
        sandbox.ok(&["check", "s"]).stderr
    };
    for (program, preset) in [
        ("python3", "python3"),
        ("perl", "perl"),
        ("/usr/bin/git", "git"),
    ] {
        let said = checked(&format!("programs: [{program}]\n"));
        let preset = format!("`presets: [{preset}]` brings");
        assert!(said.contains(&preset), "{program}: {said}");
        assert!(said.contains(" comes without /usr/"), "{program}: {said}");
    }
    for silent in [
        "presets: [python3, git]\n",
        "programs: [less, cat, /bin/sh]\n",
        "programs: [perl]\nmounts: [{ source: /usr/share/perl, executable: true }]\n",
    ] {
        let said = checked(silent);
        assert!(!said.contains("comes without"), "{silent}: {said}");
    }
}

fn nothing_there() {
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("host/directory");
    let (away, inner) = (sandbox.file("host/away", ""), directory.join("file"));
    fs::write(&inner, "").unwrap();
    symlink(&away, directory.join("out")).unwrap();
    symlink("file", directory.join("in")).unwrap();
    // Its links are not followed, because others may write to the directory.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    sandbox.site("s", &format!("mounts: [{}]\n", directory.display()));
    let why = |name: &str| {
        let path = directory.join(name);
        sandbox.ok(&["why", "s", path.to_str().unwrap()]).stdout
    };
    let out = why("out");
    let end = format!(
        "leads to {}, and nothing is there in the jail",
        away.display()
    );
    assert!(out.contains(&end), "{out}");
    assert!(why("absent").contains("but nothing is there"));
    let absent = directory.join("absent");
    let json = sandbox
        .ok(&["why", "s", "--json", absent.to_str().unwrap()])
        .json();
    assert_eq!(json["nothing_at"], absent.to_str().unwrap());
    for name in ["in", "file"] {
        assert!(!why(name).contains("nothing is there"), "{name}");
    }
}

fn relative() {
    let sandbox = Sandbox::new();
    let build = sandbox.directory("build");
    sandbox.file("build/library.c", "int answer(void) { return 0; }\n");
    sandbox.file(
        "build/program.c",
        "int answer(void); int main(void) { return answer(); }\n",
    );
    fs::create_dir(build.join("lib")).unwrap();
    let compile = |arguments: &[&str]| {
        Ran::of(Command::new("cc").args(arguments).current_dir(&build)).exits(0);
    };
    compile(&["-shared", "-o", "lib/answer.so", "library.c"]);
    compile(&["-o", "program", "program.c", "lib/answer.so"]);
    let program = build.join("program");
    sandbox.site("s", &format!("programs: [{}]\n", program.display()));
    let checked = sandbox.run(&["check", "s"]).exits(1).says("lib/answer.so");
    checked.says("try: link it anew with `-l` and a soname");
}

fn private_link() {
    let sandbox = Sandbox::new();
    let data = sandbox.directory("data");
    symlink("/etc/shadow", data.join("link")).unwrap();
    sandbox.site("s", &format!("mounts: [{}]\n", data.display()));
    let named = format!(
        "private or below /proc, /sys, /dev, /home, /root, /tmp: {}",
        data.display()
    );
    let named = format!("{named}/link -> /etc/shadow");
    for command in ["check", "up"] {
        sandbox.ok(&[command, "s"]).says(&named);
    }
    let again = sandbox.ok(&["up", "s"]);
    assert!(!again.stderr.contains(&named), "{again}");
}

fn left_out() {
    let sandbox = Sandbox::new();
    let data = sandbox.directory("host/data");
    let disk = sandbox.directory("host/data/disk");
    bind(&sandbox.directory("host/other"), &disk);
    let (line, also) = (data.display(), disk.display());
    let named = format!("{line} comes without what the host has mounted in it, at {also}: ");
    sandbox.site("s", &format!("mounts: [{line}]\n"));
    sandbox.ok(&["check", "s"]).says(&named);
    sandbox.ok(&["up", "s"]);
    sandbox.run(&["doctor", "s"]).says(&named);
    for lines in [
        format!("mounts: [{line}, {also}]\n"),
        format!("mounts: [{{ source: {line}, recursive: true }}]\n"),
    ] {
        sandbox.site("s", &lines);
        let ran = sandbox.ok(&["check", "s"]);
        assert!(!ran.stderr.contains("comes without"), "{ran}");
    }
    sandbox.ok(&["down", "s"]);
}

//! Rights that a program lacks: which directory or mount denies them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{lines, refused, site};
use crate::support::{Ran, Sandbox};

/// A directory in which the user may not make anything, or that he may not read.
pub fn closed_directories() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    let app = root.join("app");
    fs::create_dir(&app).unwrap();
    let trace = |command: &[&str]| {
        let command = [&["trace", "--json", "s", "--", "busybox"][..], command].concat();
        sandbox.run(&command).exits(1).json()
    };
    let at = |path: &str| format!("{}{path}", root.display());
    let may_not = |verb: &str, path: &str| format!("nobody may not {verb} {}, which is", at(path));
    for path in ["/app/new", "/app/new/below"] {
        let why = may_not("write to", "/app");
        refused(&trace(&["mkdir", "-p", path]), "/app/new", &why);
    }
    let why = format!("{} of mode 0755, root:root", may_not("write to", ""));
    refused(&trace(&["touch", "/new"]), "/new", &why);
    fs::set_permissions(&app, fs::Permissions::from_mode(0o711)).unwrap();
    let why = format!("{} of mode 0711, root:root", may_not("read", "/app"));
    refused(&trace(&["ls", "/app"]), "/app", &why);
    let chmod = ["chmod", "0777", app.to_str().unwrap()];
    Ran::of(std::process::Command::new(chmod[0]).args(&chmod[1..])).exits(0);
    let acl = ["-m", "u:nobody:r-x", app.to_str().unwrap()];
    Ran::of(std::process::Command::new("setfacl").args(acl)).exits(0);
    let why = format!(
        "{} of mode 0777, root:root: an access",
        may_not("write to", "/app")
    );
    refused(&trace(&["mkdir", "/app/new"]), "/app/new", &why);
}

/// What a program makes for others to find, such as a semaphore.
pub fn shared_memory() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    let command = [
        "trace",
        "--json",
        "s",
        "--",
        "busybox",
        "touch",
        "/dev/shm/sem.x",
    ];
    let report = sandbox.run(&command).exits(1).json();
    let line = r#"directories: [{ path: /dev/shm, mode: "1777" }]"#;
    assert_eq!(lines(&report), [line], "{report}");
    let written = [&["trace", "--write", "--up"], &command[2..]].concat();
    sandbox.run(&written).exits(1);
    sandbox.ok(&["exec", "s", "--", "busybox", "touch", "/dev/shm/sem.x"]);
    assert!(root.join("dev/shm/sem.x").exists());
    // Elsewhere it is the administrator who decides.
    let command = ["trace", "--json", "s", "--", "busybox", "touch", "/srv/x"];
    let report = sandbox.run(&command).exits(1).json();
    let line = "`directories: [{ path: /srv, user: nobody }]` makes one of the site's own";
    refused(&report, "/srv/x", line);
}

/// A root whose own files cannot be executed, in which what mounts bring can.
pub fn root_without_execution() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "programs: [/bin/ls]\n");
    let mount = ["-t", "tmpfs", "-o", "noexec,mode=755", "own"];
    Ran::of(std::process::Command::new("mount").args(mount).arg(&root)).exits(0);
    for directory in ["app", "usr/local/bin"] {
        let program = root.join(directory).join("busybox");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::copy("/bin/busybox", program).unwrap();
    }
    let shown = root.display();
    let remedy = format!("mount -o remount,exec {shown}");
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["exec", "s", "--", "ls", "/"]);
    for command in ["exec", "trace"] {
        let ran = sandbox.run(&[command, "s", "--", "/app/busybox", "true"]);
        ran.exits(126)
            .says(&format!("try: {shown} is mounted noexec: `{remedy}`"));
    }
    sandbox
        .ok(&["check", "s"])
        .says("programs of the root's own cannot be executed: /usr/local/bin/busybox; ");
    let ran = sandbox.run(&["doctor", "s"]).exits(3);
    ran.prints(&format!("try:        {remedy}\n"))
        .prints("nothing of the root's own can be executed: ");
    sandbox.ok(&["down", "s"]);
    let remount = ["-o", "remount,exec", root.to_str().unwrap()];
    Ran::of(std::process::Command::new("mount").args(remount)).exits(0);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["exec", "s", "--", "/app/busybox", "true"]);
    let ran = sandbox.ok(&["doctor", "s"]);
    assert!(!ran.stdout.contains("noexec"), "{ran}");
    assert!(!sandbox.ok(&["check", "s"]).stderr.contains("noexec"));
}

//! Which lines are advised and written, and which are not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use std::process::Command;

use super::finds::daemon;
use super::{lines, refused, site};
use crate::support::{Ran, Sandbox};
use serde_json::Value;

pub fn private() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    let other = sandbox.site("other", "");
    fs::write(other.join("secret"), "").unwrap();
    fs::write(root.join("own"), "").unwrap();
    let theirs = PathBuf::from(format!("/opt/mountjail-test-{}", std::process::id()));
    fs::write(&theirs, "").unwrap();
    chown(&theirs, Some(33), Some(33)).unwrap();
    // A link that somebody else can make lead elsewhere, once it is in the manifest.
    let link = PathBuf::from(format!("{}.d/link", theirs.display()));
    fs::create_dir(link.parent().unwrap()).unwrap();
    symlink("/usr/share/zoneinfo", &link).unwrap();
    chown(link.parent().unwrap(), Some(33), Some(33)).unwrap();
    let own = root.join("own").display().to_string();
    let secret = other.join("secret").display().to_string();
    let paths = [
        "/etc/shadow",
        "/proc/version",
        "/root",
        &own,
        &secret,
        theirs.to_str().unwrap(),
        link.to_str().unwrap(),
        "/dev/mem",
        "/dev/null",
    ];
    let command = [
        &[
            "trace", "--json", "--write", "s", "--", "busybox", "ls", "-d",
        ][..],
        &paths,
    ]
    .concat();
    let report = sandbox.run(&command).exits(1).json();
    let written = sandbox
        .run(&[
            "trace",
            "--json",
            "s",
            "--",
            "busybox",
            "sh",
            "-c",
            "echo >/etc/hosts",
        ])
        .exits(1)
        .json();
    fs::remove_file(&theirs).unwrap();
    fs::remove_dir_all(link.parent().unwrap()).unwrap();
    refused(&report, "/etc/shadow", "not everybody may read it");
    refused(&report, "/proc/version", "the whole system");
    refused(&report, "/root", "not everybody may read it");
    refused(&report, &own, "it is the host's name of /own in this jail");
    refused(&report, &secret, "it belongs to the site other");
    refused(
        &report,
        theirs.to_str().unwrap(),
        "users other than root can change it",
    );
    refused(
        &report,
        link.to_str().unwrap(),
        "users other than root can change it",
    );
    if Path::new("/dev/mem").exists() {
        refused(&report, "/dev/mem", "a device that can do more");
    }
    assert_eq!(lines(&report), ["presets: [base]"]);
    refused(&written, "/etc/hosts", "opened for writing");
    let manifest = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    assert!(
        manifest.ends_with("programs: [/bin/busybox]\npresets: [base]\n"),
        "{manifest}"
    );
}

/// A program that asks for the sockets of other sites, or of the whole system, does not get them.
pub fn sockets() {
    let (sandbox, _) = site("programs: [/bin/busybox]\n");
    let _daemons = ["php", "dbus", "mysqld"].map(daemon);
    let paths = [
        "/run/php",
        "/run/php/socket",
        "/run/dbus/socket",
        "/var/run/dbus",
        "/run/mysqld/socket",
    ];
    let command = [
        &[
            "trace", "--json", "--write", "s", "--", "busybox", "ls", "-d",
        ][..],
        &paths,
    ]
    .concat();
    let report = sandbox.run(&command).exits(1).json();
    assert_eq!(lines(&report), ["presets: [mysql]"]);
    for (path, source) in [
        ("/run/php", "/run/php"),
        ("/run/php/socket", "/run/php"),
        ("/run/dbus/socket", "/run/dbus"),
        ("/var/run/dbus", "/var/run/dbus"),
    ] {
        let line = format!("`mounts: [{{ source: {source}, optional: true }}]` by hand");
        refused(&report, path, &line);
    }
    let manifest = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    assert!(
        manifest.ends_with("programs: [/bin/busybox]\npresets: [mysql]\n"),
        "{manifest}"
    );
}

pub fn users() {
    let (sandbox, _) = site("programs: [/bin/busybox]\n");
    let who = |user: &str| {
        let command = [
            "trace", "--json", "--user", user, "s", "--", "busybox", "id", "-un",
        ];
        lines(&sandbox.run(&command).json()).join("; ")
    };
    assert_eq!(who("www-data"), "users: [www-data]");
    assert_eq!(who("root"), "users: [root]");
    let command = [
        "trace", "--write", "--up", "-u", "www-data", "s", "--", "busybox", "id", "-un",
    ];
    sandbox.run(&command).exits(1);
    sandbox
        .ok(&["trace", "-u", "www-data", "s", "--", "busybox", "id", "-un"])
        .says("www-data\n");
}

/// A user whom the program looks up, and as whom nothing runs.
pub fn other_users() {
    let manifest = "programs: [/usr/bin/id]\netc: [nsswitch.conf]\nusers: [nobody";
    let (sandbox, _) = site(&format!("{manifest}]\n"));
    let nsswitch = sandbox.file(
        "nsswitch.conf",
        "passwd: files systemd\ngroup: files systemd\n",
    );
    let bind = ["--bind", nsswitch.to_str().unwrap(), "/etc/nsswitch.conf"];
    Ran::of(Command::new("mount").args(bind)).exits(0);
    sandbox.ok(&["up", "s"]);
    let command = ["trace", "--json", "s", "--", "id", "www-data"];
    let report = sandbox.run(&command).exits(1).json();
    let module = |refused: &&Value| refused["path"].to_string().contains("libnss_systemd.so.2");
    let all = report["refused"].as_array().unwrap();
    let found = all
        .iter()
        .find(module)
        .unwrap_or_else(|| panic!("{report:#}"));
    let why = found["why"].as_str().unwrap();
    assert!(why.contains("name the user that the program looked up under `users`"));
    sandbox.site("s", &format!("{manifest}, www-data]\n"));
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["exec", "s", "--", "id", "www-data"]);
}

pub fn not_mounted() {
    let (sandbox, root) = site("programs: [/bin/busybox]\netc: [hosts]\n");
    nix::mount::umount(&root.join("etc/hosts")).unwrap();
    fs::remove_file(root.join("etc/hosts")).unwrap();
    let command = ["trace", "s", "--", "busybox", "cat", "/etc/hosts"];
    let ran = sandbox
        .run(&command)
        .exits(1)
        .says("not all of its mounts are as they should be");
    ran.prints(
        "# in the manifest, but not mounted: `mountjail up s` brings it:\n\
         #   /etc/hosts (open by busybox)\n",
    );
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&command);
}

pub fn odd_manifest() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "");
    let odd = format!(
        "root: {}\nprograms: &all [/bin/busybox]\nlibraries: *all\n",
        root.display()
    );
    let file = sandbox.manifest("s", &odd);
    sandbox.ok(&["up", "s"]);
    sandbox
        .run(&["trace", "--write", "s", "--", "busybox", "env", "less"])
        .exits(1)
        .says("it is written in a style of YAML that cannot be added to without disturbing it")
        .says("try: add the lines by hand; the file is as it was")
        .prints("programs: [/usr/bin/less]\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), odd);
}

pub fn kept() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "");
    let text = format!(
        "# ours — for ever\r\nroot: {} # here\r\nprograms:\r\n- /bin/busybox # one\r\n",
        root.display()
    );
    sandbox.manifest("s", &text);
    let real = sandbox.path("real.yaml");
    let file = sandbox.path("config/sites/s.yaml");
    fs::rename(&file, &real).unwrap();
    symlink(&real, &file).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    chown(&real, Some(0), Some(33)).unwrap();
    sandbox.ok(&["up", "s"]);
    sandbox
        .run(&[
            "trace", "--write", "--up", "s", "--", "busybox", "env", "less", "-V",
        ])
        .exits(127);
    let before = fs::metadata(&real).unwrap();
    assert_eq!((before.mode() & 0o7777, before.gid()), (0o640, 33));
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    assert_eq!(
        fs::read_to_string(&real).unwrap(),
        format!("{text}- /usr/bin/less\r\n")
    );
    sandbox.ok(&["trace", "s", "--", "busybox", "env", "less", "-V"]);
}

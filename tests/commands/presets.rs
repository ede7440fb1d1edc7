//! Each built-in preset brings what its name says, on this distribution: the programs run, the
//! files are there.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use crate::support::{Ran, Sandbox, alone, empty_run, mounts_below, tree, trials};
use libtest_mimic::Trial;

/// Presets, more lines, the command inside, and what it has to print.
const PROGRAMS: [(&str, &str, &[&str], &str); 24] = [
    (
        "busybox",
        "",
        &["/bin/busybox", "sh", "-c", "echo inside"],
        "inside",
    ),
    (
        "shell",
        "",
        &[
            "/bin/sh",
            "-c",
            "ls / | sort | head -n1; seq() { :; }; expr 40 + 2",
        ],
        "42",
    ),
    (
        "shell, timezone",
        "",
        &["/bin/sh", "-c", "TZ=Europe/Zurich date -d 2026-07-01 +%Z"],
        "CEST",
    ),
    (
        "shell, locale",
        "",
        &["/bin/sh", "-c", "LC_ALL=C.UTF-8 printf %s ä | wc -m"],
        "1",
    ),
    (
        "shell, users",
        "programs: [/usr/bin/getent]",
        &["/usr/bin/getent", "passwd", "www-data"],
        "www-data:x:33:33",
    ),
    (
        "dns",
        "programs: [/usr/bin/getent]",
        &["/usr/bin/getent", "services", "https"],
        "443/tcp",
    ),
    (
        "tls",
        "programs: [/usr/bin/openssl]",
        &[
            "/usr/bin/openssl",
            "crl2pkcs7",
            "-nocrl",
            "-certfile",
            "/etc/ssl/certs/ca-certificates.crt",
        ],
        "BEGIN PKCS7",
    ),
    ("git", "", &["/usr/bin/git", "--version"], "git version"),
    ("ping", "", &["/bin/ping", "-c1", "127.0.0.1"], "1 received"),
    (
        "imagemagick",
        "",
        &["/usr/bin/convert", "-size", "1x1", "xc:red", "txt:-"],
        "red",
    ),
    (
        "base, fonts",
        "programs: [/usr/bin/fc-list]",
        &["/usr/bin/fc-list"],
        "DejaVu",
    ),
    ("mail", "", &["/usr/sbin/sendmail", "--version"], "msmtp"),
    ("mail", "", &["/usr/bin/msmtp", "--version"], "msmtp"),
    (
        "php-cli",
        "",
        &[
            "/usr/bin/php",
            "-r",
            "exit(json_encode(extension_loaded('mysqli') && iconv('UTF-8', 'EUC-JP', 'a')));",
        ],
        "true",
    ),
    (
        "composer",
        "",
        &["/usr/bin/composer", "--no-plugins", "--version"],
        "Composer version",
    ),
    (
        "wp-cli",
        "",
        &[
            "/usr/bin/env",
            "php",
            "-r",
            "echo shell_exec('mysql --version');",
        ],
        "MariaDB",
    ),
    (
        "mysql-client",
        "",
        &["/usr/bin/mysql", "--version"],
        "MariaDB",
    ),
    (
        "python3",
        "",
        &[
            "/usr/bin/python3",
            "-c",
            "import ssl, ctypes, lzma, sqlite3, tempfile; print(tempfile.gettempdir())",
        ],
        "/tmp",
    ),
    (
        "perl",
        "",
        &[
            "/usr/bin/perl",
            "-MPOSIX",
            "-MEncode",
            "-e",
            "print floor(42.5)",
        ],
        "42",
    ),
    (
        "ruby",
        "",
        &[
            "/usr/bin/ruby",
            "-e",
            "require 'json'; require 'socket'; puts JSON.generate([42])",
        ],
        "[42]",
    ),
    (
        "node",
        "",
        &[
            "/usr/bin/node",
            "-p",
            "require('zlib').gzipSync('x').length + 21",
        ],
        "42",
    ),
    ("java", "", &["/usr/bin/java", "-version"], ""),
    (
        "rsync, shell",
        "",
        &[
            "/bin/sh",
            "-c",
            "mkdir /b && rsync -a /etc/ld.so.conf /b/ && ls /b && rm -r /b",
        ],
        "ld.so.conf",
    ),
    (
        "ssh-shell",
        "users: [www-data]",
        &[
            "/bin/sh",
            "-c",
            "TERM=xterm tput cols; whoami; less --version | head -n1",
        ],
        "less",
    ),
];

/// Presets of a daemon's socket, with the socket.
const SOCKETS: [(&str, &str); 4] = [
    ("mysql", "/run/mysqld/mysqld.sock"),
    ("postgresql", "/run/postgresql/.s.PGSQL.5432"),
    ("redis", "/run/redis/redis-server.sock"),
    ("memcached", "/run/memcached/memcached.sock"),
];

pub fn all() -> Vec<Trial> {
    let programs = PROGRAMS.map(|(presets, lines, command, prints)| {
        Trial::test(format!("{presets}: {}", command[0]), move || {
            program(presets, lines, command, prints);
            Ok(())
        })
    });
    // Each with a `/run` of its own.
    let sockets = SOCKETS
        .map(|(preset, path)| alone(format!("{preset}: {path}"), move || socket(preset, path)));
    let others = trials([
        ("dns-resolved: a new file in a bound directory", resolved),
        ("iconv: EUC-JP", iconv),
        ("php-fpm: all presets in one site", everything),
    ]);
    programs.into_iter().chain(sockets).chain(others).collect()
}

fn program(presets: &str, lines: &str, command: &[&str], prints: &str) {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", &format!("presets: [{presets}]\n{lines}\n"));
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    Ran::of(Command::new("chroot").arg(&root).args(command))
        .exits(0)
        .prints(prints);
    for mount in mounts_below(&root) {
        assert!(mount.has("ro") && mount.has("nosuid"), "{mount:?}");
    }
    assert!(!root.join("etc/ssl/private").exists() && !root.join("etc/shadow").exists());
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
}

fn socket(preset: &str, path: &str) {
    empty_run();
    let sandbox = Sandbox::new();
    let path = Path::new(path);
    let root = sandbox.site("s", &format!("presets: [{preset}]\n"));
    // The daemon was never started: its directory is optional.
    sandbox.ok(&["up", "s"]).says("0 mounts; nothing to do");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let daemon = UnixListener::bind(path).unwrap();
    sandbox.ok(&["up", "s"]);
    let inside = root.join(path.strip_prefix("/").unwrap());
    UnixStream::connect(&inside).unwrap();
    // The daemon restarts: a bound socket file would be dead now, its directory is not.
    drop(daemon);
    fs::remove_file(path).unwrap();
    let daemon = UnixListener::bind(path).unwrap();
    UnixStream::connect(&inside).unwrap();
    // systemd removes a RuntimeDirectory= and makes it anew: the mount becomes stale, is reported,
    // and is healed.
    drop(daemon);
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    fs::create_dir(path.parent().unwrap()).unwrap();
    let _daemon = UnixListener::bind(path).unwrap();
    sandbox.run(&["status", "s"]).exits(3).prints("stale");
    sandbox.ok(&["up", "s"]).says("1 swapped");
    UnixStream::connect(&inside).unwrap();
    sandbox.ok(&["down", "s"]);
}

fn resolved() {
    let sandbox = Sandbox::new();
    let host = sandbox.directory("host");
    sandbox.file("host/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n");
    symlink("resolve/stub-resolv.conf", host.join("resolv.conf")).unwrap();
    // The built-in preset is about /run/systemd/resolve, which this host need not have; its form is
    // the same.
    let text = fs::read_to_string("manifests/presets/dns-resolved.yaml").unwrap();
    let text = text
        .replace(
            "/run/systemd/resolve",
            host.join("resolve").to_str().unwrap(),
        )
        .replace("presets: [dns]", "");
    sandbox.preset(
        "dns-resolved",
        &format!("{text}  - {}\n", host.join("resolv.conf").display()),
    );
    let root = sandbox.site("s", "presets: [dns-resolved]\n");
    sandbox.ok(&["up", "s"]);
    let inside = root.join(host.join("resolv.conf").strip_prefix("/").unwrap());
    let new = sandbox.file("host/resolve/new", "nameserver 127.0.0.54\n");
    fs::rename(new, host.join("resolve/stub-resolv.conf")).unwrap();
    assert_eq!(
        fs::read_to_string(inside).unwrap(),
        "nameserver 127.0.0.54\n"
    );
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
}

fn iconv() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [shell, iconv]\nprograms: [/usr/bin/iconv]\n");
    sandbox.ok(&["up", "s"]);
    let command = [
        "/bin/sh",
        "-c",
        "printf 日 | iconv -f UTF-8 -t EUC-JP | wc -c",
    ];
    Ran::of(Command::new("chroot").arg(&root).args(command))
        .exits(0)
        .prints("2");
    sandbox.ok(&["down", "s"]);
}

/// Every preset that this host can have, in one site.
fn everything() {
    let sandbox = Sandbox::new();
    let json = sandbox.ok(&["presets", "--json"]).json();
    let names = json["presets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|preset| preset["name"].as_str().unwrap());
    let names: Vec<_> = names.filter(|name| *name != "dns-resolved").collect();
    // Postfix takes the place of the sendmail that the tests use; its preset names no file of it.
    assert_eq!(names.len(), 42);
    let root = sandbox.site("s", &format!("presets: [{}]\n", names.join(", ")));
    let bare = tree(&root);
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&["up", "s"]).says("nothing to do");
    Ran::of(
        Command::new("chroot")
            .arg(&root)
            .args(["/bin/sh", "-c", "git --version && ping -V"]),
    )
    .exits(0);
    sandbox.ok(&["down", "s"]);
    bare.assert_same(&tree(&root));
}

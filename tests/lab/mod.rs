//! Real servers on a host that the test may change: overlays on `/etc` and friends in its own
//! namespaces.

// Each test binary uses a part of this module.
#![allow(dead_code, unused_imports)]

mod fpm;
mod servers;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use fpm::Fpm;
pub use servers::{MYSQL, REDIS, Server, dns, mysql, mysql_numbered, redis, tls};

use crate::support::{Ran, Sandbox, made_once, overlay};

/// The address of the name server, as systemd-resolved's: not the one that a resolver without
/// configuration asks.
pub const DNS: &str = "127.0.0.53";

/// A name that only that server knows.
pub const NAME: &str = "tls.lab.test";

/// The port of the TLS server.
pub const PORT: u16 = 4433;

/// Makes this process's host a laboratory: changeable, with a loopback device, a `resolv.conf` that
/// is a link into `/run`, and an authority that `update-ca-certificates` has added.
pub fn prepare(sandbox: &Sandbox) {
    Ran::of(Command::new("ip").args(["link", "set", "lo", "up"])).exits(0);
    for path in ["/etc", "/usr/local/share", "/usr/share/ca-certificates"] {
        overlay(sandbox, Path::new(path));
    }
    Ran::of(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "run", "/run"])).exits(0);
    fs::create_dir_all("/run/systemd/resolve").unwrap();
    fs::write(
        "/run/systemd/resolve/stub-resolv.conf",
        format!("nameserver {DNS}\noptions timeout:1 attempts:1\n"),
    )
    .unwrap();
    // The file may be a mount of its own, as container tools make it.
    while Command::new("umount")
        .arg("/etc/resolv.conf")
        .output()
        .unwrap()
        .status
        .success()
    {}
    fs::remove_file("/etc/resolv.conf").unwrap();
    symlink(
        "../run/systemd/resolve/stub-resolv.conf",
        "/etc/resolv.conf",
    )
    .unwrap();
    add_authority(sandbox);
}

/// The key and the certificate of the TLS server.
pub fn certificate(sandbox: &Sandbox) -> (PathBuf, PathBuf) {
    (
        sandbox.path("pki/server.key"),
        sandbox.path("pki/server.crt"),
    )
}

/// An authority, and a certificate of it for the TLS server.
const AUTHORITY: &str = "
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=lab authority' \
    -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=$0 -keyout server.key -out server.csr
echo subjectAltName=DNS:$0 >names
openssl x509 -req -in server.csr -days 2 -extfile names -out server.crt \
    -CA ca.crt -CAkey ca.key -CAcreateserial
";

/// Where administrators put certificates of authorities.
const AUTHORITIES: &str = "/usr/local/share/ca-certificates";

/// Makes the host trust the laboratory's authority. update-ca-certificates(8), which takes seconds,
/// runs once for all trials.
fn add_authority(sandbox: &Sandbox) {
    let add = |certificate: &Path| {
        fs::create_dir_all(AUTHORITIES).unwrap();
        fs::copy(certificate, Path::new(AUTHORITIES).join("lab.crt")).unwrap();
    };
    let made = made_once("authority", |directory| {
        let pki = directory.join("pki");
        fs::create_dir_all(&pki).unwrap();
        let mut openssl = Command::new("sh");
        Ran::of(openssl.args(["-ec", AUTHORITY, NAME]).current_dir(&pki)).exits(0);
        add(&pki.join("ca.crt"));
        Ran::of(&mut Command::new("update-ca-certificates")).exits(0);
        copy(Path::new("/etc/ssl/certs"), &directory.join("certs"));
    });
    copy(&made.join("pki"), &sandbox.path("pki"));
    add(&made.join("pki/ca.crt"));
    copy(&made.join("certs"), Path::new("/etc/ssl/certs"));
}

/// Copies what is in the directory `from`, in place of files of the same names in `to`.
fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    cp.args(["--archive", "--remove-destination", "--no-target-directory"]);
    Ran::of(cp.arg(from).arg(to)).exits(0);
}

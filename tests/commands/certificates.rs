//! Promise: the preset `tls` brings the certificates of authorities of each distribution, by all
//! paths under which programs look for them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::{Ran, Sandbox, alone};

/// A distribution: files, links, and the paths at which programs look.
struct Layout {
    name: &'static str,
    files: &'static [&'static str],
    links: &'static [(&'static str, &'static str)],
    looked_up: &'static [&'static str],
}

const LAYOUTS: [Layout; 5] = [
    Layout {
        name: "openSUSE",
        files: &[
            "/var/lib/ca-certificates/ca-bundle.pem",
            "/var/lib/ca-certificates/pem/0a1b2c3d.0",
            "/var/lib/ca-certificates/openssl/0a1b2c3d.0",
            "/etc/ssl/openssl.cnf",
        ],
        links: &[
            ("/etc/ssl/certs", "../../var/lib/ca-certificates/pem"),
            (
                "/etc/ssl/ca-bundle.pem",
                "../../var/lib/ca-certificates/ca-bundle.pem",
            ),
        ],
        looked_up: &[
            "/etc/ssl/ca-bundle.pem",
            "/etc/ssl/certs/0a1b2c3d.0",
            "/var/lib/ca-certificates/openssl/0a1b2c3d.0",
            "/etc/ssl/openssl.cnf",
        ],
    },
    Layout {
        name: "Fedora until 41, RHEL",
        files: &[
            "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            "/etc/pki/ca-trust/extracted/openssl/ca-bundle.trust.crt",
            "/etc/pki/tls/openssl.cnf",
        ],
        links: &[
            (
                "/etc/pki/tls/cert.pem",
                "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            ),
            (
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            ),
            ("/etc/ssl/certs", "../pki/tls/certs"),
            ("/etc/ssl/cert.pem", "/etc/pki/tls/cert.pem"),
        ],
        looked_up: &[
            "/etc/pki/tls/cert.pem",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/certs/ca-bundle.crt",
            "/etc/ssl/cert.pem",
            "/etc/pki/tls/openssl.cnf",
        ],
    },
    Layout {
        // There is no cert.pem, and the authorities are in a directory.
        name: "Fedora 42 to 44",
        files: &[
            "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            "/etc/pki/ca-trust/extracted/pem/directory-hash/Authority.pem",
            "/etc/pki/tls/openssl.cnf",
        ],
        links: &[
            (
                "/etc/pki/ca-trust/extracted/pem/directory-hash/0a1b2c3d.0",
                "Authority.pem",
            ),
            (
                "/etc/pki/tls/certs",
                "../ca-trust/extracted/pem/directory-hash",
            ),
            ("/etc/ssl/certs", "../pki/tls/certs"),
        ],
        looked_up: &[
            "/etc/pki/tls/certs/0a1b2c3d.0",
            "/etc/ssl/certs/0a1b2c3d.0",
            "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            "/etc/pki/tls/openssl.cnf",
        ],
    },
    Layout {
        name: "Arch",
        files: &[
            "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
            "/etc/ca-certificates/extracted/cadir/Authority.pem",
            "/etc/ssl/openssl.cnf",
        ],
        links: &[
            (
                "/etc/ssl/cert.pem",
                "../ca-certificates/extracted/tls-ca-bundle.pem",
            ),
            (
                "/etc/ssl/certs/ca-certificates.crt",
                "../../ca-certificates/extracted/tls-ca-bundle.pem",
            ),
            (
                "/etc/ssl/certs/Authority.pem",
                "../../ca-certificates/extracted/cadir/Authority.pem",
            ),
            ("/etc/ssl/certs/0a1b2c3d.0", "Authority.pem"),
        ],
        looked_up: &[
            "/etc/ssl/cert.pem",
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/ssl/certs/0a1b2c3d.0",
        ],
    },
    Layout {
        name: "Alpine",
        files: &[
            "/etc/ssl/certs/ca-certificates.crt",
            "/usr/local/share/ca-certificates/own.crt",
            "/etc/ssl/openssl.cnf",
        ],
        links: &[
            ("/etc/ssl/cert.pem", "certs/ca-certificates.crt"),
            (
                "/etc/ssl/certs/own.pem",
                "/usr/local/share/ca-certificates/own.crt",
            ),
        ],
        looked_up: &[
            "/etc/ssl/cert.pem",
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/ssl/certs/own.pem",
        ],
    },
];

pub fn all() -> Vec<Trial> {
    let trial = |layout: Layout| alone(layout.name, move || are_inside(&layout));
    LAYOUTS.into_iter().map(trial).collect()
}

/// The directories of the layouts are the trial's own, and have nothing else.
fn are_inside(layout: &Layout) {
    for directory in ["/etc", "/var/lib", "/usr/local/share"] {
        let mut mount = Command::new("mount");
        Ran::of(mount.args(["-t", "tmpfs", "-o", "mode=755", "own", directory])).exits(0);
    }
    for path in layout.files {
        make_parent(path);
        fs::write(path, format!("what is in {path}\n")).unwrap();
    }
    for (path, destination) in layout.links {
        make_parent(path);
        symlink(destination, path).unwrap();
    }

    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "presets: [tls]\nprograms: [/bin/busybox]\n");
    sandbox.ok(&["up", "s"]);
    for path in layout.looked_up {
        let mut inside = Command::new("chroot");
        let read = Ran::of(inside.arg(&root).args(["/bin/busybox", "cat", path])).exits(0);
        assert_eq!(read.stdout, fs::read_to_string(path).unwrap(), "{path}");
    }
    sandbox.ok(&["down", "s"]);
}

fn make_parent(path: &str) {
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
}

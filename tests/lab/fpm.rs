//! PHP-FPM with one pool in a chroot.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Server;
use crate::support::{Ran, Sandbox, wait_until};

/// A running PHP-FPM whose single worker lives in a root.
pub struct Fpm {
    socket: PathBuf,
    server: Server,
}

impl Fpm {
    /// Starts Debian's daemon with `chroot = root` and one worker as www-data.
    pub fn start(sandbox: &Sandbox, root: &Path) -> Self {
        let socket = sandbox.path("fpm.sock");
        let configuration = format!(
            "[global]\nerror_log = {log}\ndaemonize = no\n[site]\nuser = www-data\n\
             group = www-data\n\
             listen = {socket}\nchroot = {root}\nchdir = /\npm = static\npm.max_children = 1\n\
             catch_workers_output = yes\nphp_admin_value[date.timezone] = UTC\n",
            log = sandbox.path("fpm.log").display(),
            socket = socket.display(),
            root = root.display()
        );
        let file = sandbox.file("fpm.conf", configuration);
        let server = Server::start(
            Command::new(program())
                .arg("--nodaemonize")
                .arg("--fpm-config")
                .arg(file),
        );
        wait_until("PHP-FPM listens", || UnixStream::connect(&socket).is_ok());
        Self { socket, server }
    }

    /// The id of the master process, which is outside of the root.
    pub fn master(&self) -> u32 {
        self.server.0.id()
    }

    /// What the expression `php` gives, evaluated by the worker: `OK: …` or `FAILED: …`.
    pub fn eval(&self, root: &Path, php: &str) -> String {
        let code = format!(
            "<?php set_error_handler(function($n, $m) {{ throw new Exception($m); }});\n\
             try {{ $r = ({php}); echo 'OK: ', json_encode($r); }} catch (Throwable $e) {{ echo \
             'FAILED: ', $e->getMessage(); }}"
        );
        let script = root.join("probe.php");
        fs::write(&script, code).unwrap();
        let ran = Ran::of(
            Command::new("cgi-fcgi")
                .args(["-bind", "-connect"])
                .arg(&self.socket)
                .env("SCRIPT_FILENAME", "/probe.php")
                .env("SCRIPT_NAME", "/probe.php")
                .env("REQUEST_METHOD", "GET"),
        );
        fs::remove_file(script).unwrap();
        let body = ran
            .stdout
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        body.unwrap_or_else(|| panic!("no answer from PHP-FPM\n{ran}"))
    }
}

impl Drop for Fpm {
    /// Ends the master so that it ends its workers.
    fn drop(&mut self) {
        let master = &mut self.server.0;
        Ran::of(Command::new("kill").arg(master.id().to_string())).exits(0);
        master.wait().unwrap();
    }
}

/// `/usr/sbin/php-fpm8.2`, or whichever version is installed.
fn program() -> PathBuf {
    let mut found: Vec<_> = glob::glob("/usr/sbin/php-fpm*")
        .unwrap()
        .map(Result::unwrap)
        .collect();
    found.sort();
    found
        .pop()
        .expect("php-fpm is installed: tests/install-dependencies")
}

//! A name server, a TLS server, a database.

use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{DNS, NAME, PORT, certificate};
use crate::support::{Sandbox, wait_until};

/// A running server; ended when dropped.
pub struct Server(pub Child);

impl Server {
    /// Starts `command` with its output thrown away.
    pub fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }
}

impl Server {
    /// Ends it as a service manager does, and waits until it has.
    pub fn stop(mut self) {
        kill(
            Pid::from_raw(self.0.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended by itself
        self.0.wait().unwrap();
    }
}

/// A name server that knows [`NAME`].
pub fn dns() -> Server {
    let mut command = Command::new("dnsmasq");
    command.args([
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
    ]);
    command.args(["--user=root", "--group=root", "--pid-file="]);
    // A name that exists: a question for an address of the other kind is answered by none, not by a
    // denial.
    command
        .arg(format!("--listen-address={DNS}"))
        .arg(format!("--host-record={NAME},127.0.0.1"));
    command.arg("--local=/lab.test/"); // no other name below it exists
    let server = Server::start(&mut command);
    // Its socket is bound when nobody else can bind it.
    wait_until("the name server listens", || {
        UdpSocket::bind((DNS, 53)).is_err()
    });
    server
}

/// A TLS server with a certificate of the laboratory's authority.
pub fn tls(sandbox: &Sandbox) -> Server {
    let (key, certificate) = certificate(sandbox);
    let mut command = Command::new("openssl");
    command.args([
        "s_server",
        "-quiet",
        "-www",
        "-accept",
        &format!("127.0.0.1:{PORT}"),
        "-key",
    ]);
    let server = Server::start(command.arg(key).arg("-cert").arg(certificate));
    wait_until("the TLS server listens", || {
        TcpStream::connect(("127.0.0.1", PORT)).is_ok()
    });
    server
}

/// The socket of [`mysql`].
pub const MYSQL: &str = "/run/mysqld/mysqld.sock";

/// A `MariaDB` server that listens at [`MYSQL`] alone. Dropped, it is killed, and leaves its socket
/// behind.
pub fn mysql(sandbox: &Sandbox) -> Server {
    mysql_numbered(sandbox, 1)
}

/// As [`mysql`]; it answers `number` to the question for `@@server_id`.
pub fn mysql_numbered(sandbox: &Sandbox, number: u32) -> Server {
    std::fs::create_dir_all("/run/mysqld").unwrap();
    let data = format!("--datadir={}", sandbox.directory("mysql").display());
    let mut command = Command::new("mariadbd");
    command.args([
        "--no-defaults",
        "--user=root",
        "--skip-networking",
        "--skip-grant-tables",
        &data,
        "--socket",
        MYSQL,
    ]);
    command.args(["--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M"]);
    let server = Server::start(command.arg(format!("--server-id={number}")));
    wait_until("the database listens", || {
        UnixStream::connect(MYSQL).is_ok()
    });
    server
}

/// The socket of [`redis`].
pub const REDIS: &str = "/run/redis/redis.sock";

/// A Redis server that listens at [`REDIS`] alone.
pub fn redis() -> Server {
    std::fs::create_dir_all("/run/redis").unwrap();
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        "0",
        "--save",
        "",
        "--unixsocket",
        REDIS,
        "--dir",
        "/run/redis",
    ]);
    let server = Server::start(&mut command);
    wait_until("Redis listens", || UnixStream::connect(REDIS).is_ok());
    server
}

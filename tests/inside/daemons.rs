//! Each preset for a daemon brings what the real daemon needs to answer from its root.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::lab;
use crate::support::{Ran, Running, Sandbox, alone, mounts_below, soon};
use libtest_mimic::Trial;

/// A daemon, as it is set up for one request.
struct Daemon {
    presets: &'static str,
    lines: &'static str,
    /// Files of the site's own: paths below the root, and texts in which ROOT is the root.
    files: &'static [(&'static str, &'static str)],
    /// How it is started; ROOT is the root.
    start: &'static [&'static str],
    /// What asks it, and what the answer contains.
    ask: &'static [&'static str],
    answer: &'static str,
}

const NAMED: Daemon = Daemon {
    presets: "named",
    lines: "",
    files: &[],
    start: &[
        "named",
        "-t",
        "ROOT",
        "-u",
        "bind",
        "-g",
        "-p",
        "5301",
        "-c",
        "/etc/bind/named.conf",
    ],
    ask: &[
        "dig",
        "+short",
        "+tries=1",
        "@127.0.0.1",
        "-p",
        "5301",
        "localhost",
    ],
    answer: "127.0.0.1",
};

const UNBOUND: Daemon = Daemon {
    presets: "unbound",
    lines: "directories: [/app]\n",
    files: &[(
        "app/unbound.conf",
        "server:\n chroot: ROOT\n directory: /app\n interface: 127.0.0.1@5302\n\
         username: unbound\n do-daemonize: no\n use-syslog: no\n pidfile: \"\"\n\
         local-data: \"a.test. A 1.2.3.4\"\n",
    )],
    start: &["unbound", "-d", "-c", "ROOT/app/unbound.conf"],
    ask: &[
        "dig",
        "+short",
        "+tries=1",
        "@127.0.0.1",
        "-p",
        "5302",
        "a.test",
    ],
    answer: "1.2.3.4",
};

const NSD: Daemon = Daemon {
    presets: "nsd",
    lines: "directories: [{ path: /app, user: nsd }]\n",
    files: &[
        (
            "app/nsd.conf",
            "server:\n chroot: ROOT\n zonesdir: ROOT/app\n ip-address: 127.0.0.1@5303\n\
             username: nsd\n pidfile: ROOT/app/pid\n database: \"\"\n xfrdfile: ROOT/app/xfrd\n\
             zonelistfile: ROOT/app/list\n xfrdir: ROOT/app\nzone:\n name: a.test\n\
             zonefile: zone\n",
        ),
        (
            "app/zone",
            "$ORIGIN a.test.\n@ 60 IN SOA a. b. 1 60 60 60 60\n@ IN NS a.test.\n@ IN A 5.6.7.8\n",
        ),
    ],
    start: &["nsd", "-d", "-c", "ROOT/app/nsd.conf"],
    ask: &[
        "dig",
        "+short",
        "+tries=1",
        "@127.0.0.1",
        "-p",
        "5303",
        "a.test",
    ],
    answer: "5.6.7.8",
};

const NGINX: Daemon = Daemon {
    presets: "nginx",
    lines: "directories: [/app]\n",
    files: &[
        ("app/index.html", "hello from nginx\n"),
        (
            "app/nginx.conf",
            "user www-data;\nevents {}\npid /run/nginx.pid;\nerror_log stderr;\n\
             http { access_log off; server { listen 127.0.0.1:8001; root /app; } }\n",
        ),
    ],
    start: &[
        "chroot",
        "ROOT",
        "nginx",
        "-g",
        "daemon off;",
        "-c",
        "/app/nginx.conf",
    ],
    ask: &["curl", "--silent", "http://127.0.0.1:8001/"],
    answer: "hello from nginx",
};

const HAPROXY: Daemon = Daemon {
    presets: "haproxy",
    lines: "directories: [/app]\n",
    files: &[(
        "app/haproxy.cfg",
        "global\n chroot ROOT\n user haproxy\ndefaults\n mode http\n timeout client 5s\n\
         timeout server 5s\n timeout connect 5s\nfrontend x\n bind 127.0.0.1:8004\n\
         http-request return status 200 content-type text/plain string answered\n",
    )],
    start: &["haproxy", "-db", "-f", "ROOT/app/haproxy.cfg"],
    ask: &["curl", "--silent", "http://127.0.0.1:8004/"],
    answer: "answered",
};

const APACHE: Daemon = Daemon {
    presets: "apache",
    lines: "users: [www-data]\ndirectories: [/htdocs, /app]\n",
    files: &[
        ("htdocs/index.html", "hello from apache\n"),
        (
            "app/apache.conf",
            "ServerRoot ROOT/app\nServerName x\nPidFile ROOT/app/pid\nMutex file:ROOT/app default\n\
             ErrorLog ROOT/app/error\nListen 127.0.0.1:8005\nUser www-data\nGroup www-data\n\
             LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
             LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
             LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so\n\
             ChrootDir ROOT\nDocumentRoot /\n",
        ),
    ],
    start: &["apache2", "-DFOREGROUND", "-f", "ROOT/app/apache.conf"],
    ask: &[
        "curl",
        "--silent",
        "http://127.0.0.1:8005/htdocs/index.html",
    ],
    answer: "hello from apache",
};

const SQUID: Daemon = Daemon {
    presets: "squid",
    lines: "users: [proxy]\ndirectories: [/app]\n",
    files: &[(
        "app/squid.conf",
        "chroot ROOT\nhttp_port 127.0.0.1:8006\nhttp_access allow all\n\
         coredump_dir /var/spool/squid\npid_filename none\naccess_log none\n\
         cache_log /dev/null\nvisible_hostname x\n",
    )],
    start: &["squid", "-N", "-f", "ROOT/app/squid.conf"],
    // Nobody listens at port 1; squid's own page says so.
    ask: &[
        "curl",
        "--silent",
        "--proxy",
        "127.0.0.1:8006",
        "http://127.0.0.1:1/",
    ],
    answer: "ERR_CONNECT_FAIL",
};

pub fn all() -> Vec<Trial> {
    let daemons = [
        ("named", NAMED),
        ("unbound", UNBOUND),
        ("nsd", NSD),
        ("nginx", NGINX),
        ("haproxy", HAPROXY),
        ("apache", APACHE),
        ("squid", SQUID),
    ];
    let mut trials: Vec<_> = daemons
        .into_iter()
        .map(|(name, daemon)| alone(format!("preset {name}"), move || answers(&daemon)))
        .collect();
    trials.push(alone("preset sftp, with the server of ssh-shell", sftp));
    trials.push(alone("preset systemd-notify", notify));
    trials.push(alone("preset mysql-client", mysql_client));
    trials
}

fn answers(daemon: &Daemon) {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    fs::create_dir("/run/named").unwrap();
    Ran::of(Command::new("chown").args(["bind", "/run/named"])).exits(0);
    let root = sandbox.site(
        "s",
        &format!("presets: [{}]\n{}", daemon.presets, daemon.lines),
    );
    sandbox.ok(&["up", "s"]);
    let real = |text: &str| text.replace("ROOT", root.to_str().unwrap());
    for (path, text) in daemon.files {
        fs::write(root.join(path), real(text)).unwrap();
    }

    let mut command = Command::new(daemon.start[0]);
    command.args(daemon.start[1..].iter().map(|word| real(word)));
    let log = fs::File::create(sandbox.path("log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let running = Running::start(&mut command);
    soon("the daemon answers", || {
        let mut ask = Command::new(daemon.ask[0]);
        let output = ask.args(&daemon.ask[1..]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = || fs::read_to_string(sandbox.path("log")).unwrap_or_default();
        let has = text.contains(daemon.answer);
        has.then_some(())
            .ok_or_else(|| format!("{text}\n{}", log()))
    });
    Ran::of(Command::new("kill").arg(running.pid().to_string())).exits(0);
    soon("the daemon ends", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", running.pid()));
        let stat = stat.unwrap_or_default();
        let is_over = stat.is_empty() || stat.contains(") Z ");
        is_over.then_some(()).ok_or(stat)
    });
    drop(running);
    soon("the site goes down", || {
        let ran = sandbox.run(&["down", "s"]);
        (ran.code == 0).then_some(()).ok_or_else(|| ran.to_string())
    });
    assert!(mounts_below(&root).is_empty());
}

/// The client of OpenSSH talks to the server in the root.
fn sftp() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    let root = sandbox.site("s", "presets: [sftp, ssh-shell]\nusers: [www-data]\n");
    sandbox.ok(&["up", "s"]);
    fs::write(root.join("file"), "").unwrap();
    let server = format!("chroot {} /usr/lib/openssh/sftp-server", root.display());
    let batch = sandbox.file("batch", "ls -l /\n");
    let mut sftp = Command::new("sftp");
    sftp.args([
        "-b".as_ref(),
        batch.as_os_str(),
        "-D".as_ref(),
        server.as_ref(),
    ]);
    Ran::of(&mut sftp).exits(0).prints("file").prints("root");
    sandbox.ok(&["down", "s"]);
}

/// The client and its companions ask a server on the host.
fn mysql_client() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    let server = lab::mysql(&sandbox);
    let root = sandbox.site("s", "presets: [mysql-client]\nusers: [www-data]\n");
    sandbox.ok(&["up", "s"]);
    let exec = |command: &[&str]| sandbox.run(&[&["exec", "s", "--"], command].concat());
    let make = "CREATE DATABASE shop; CREATE TABLE shop.t (c TEXT CHARACTER SET ujis); \
                INSERT INTO shop.t VALUES ('forty-two'); SELECT c FROM shop.t";
    let _ = exec(&["mysql", "-e", make]).exits(0).prints("forty-two");
    // By another name, with a character set that the client has by itself.
    let ask = ["--default-character-set=ujis", "-e", "SELECT c FROM shop.t"];
    let _ = exec(&[&["mariadb"], &ask[..]].concat())
        .exits(0)
        .prints("forty-two");
    let _ = exec(&["mariadb-check", "shop"]).exits(0).prints("OK");
    drop(server);
    let _ = exec(&["mysql", "-e", "SELECT 1"])
        .exits(1)
        .says("Can't connect");
    sandbox.ok(&["down", "s"]);
    assert!(mounts_below(&root).is_empty());
}

/// What a service sends from its root reaches systemd's socket.
fn notify() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    fs::create_dir_all("/run/systemd").unwrap();
    let systemd = UnixDatagram::bind("/run/systemd/notify").unwrap();
    let root = sandbox.site("s", "presets: [systemd-notify, perl]\n");
    sandbox.ok(&["up", "s"]);
    let send = "use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0); \
                send(S, 'READY=1', 0, sockaddr_un('/run/systemd/notify')) or die $!";
    let mut perl = Command::new("chroot");
    perl.arg(Path::new(&root))
        .args(["/usr/bin/perl", "-e", send]);
    Ran::of(&mut perl).exits(0);
    let mut message = [0; 32];
    let length = systemd.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1");
    sandbox.ok(&["down", "s"]);
}

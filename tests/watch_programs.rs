//! Promise: what runs in a jail goes on while real programs change the host: a resolver, `update-ca-certificates`,
//! `useradd`, an editor, a package upgrade, a database that restarts.

mod lab;
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lab::{Fpm, NAME, Server, wait_until};
use nix::sched::CloneFlags;
use support::{Ran, Sandbox, Watcher, mounts_below, on_shared_root, soon, soon_reads};

fn main() -> ExitCode {
    // Each in namespaces of its own: they change the same files of the host and use the same ports.
    let all: [(&str, fn()); 4] = [
        ("a PHP-FPM pool while the host changes", pool),
        ("useradd and userdel", accounts),
        ("an editor", editor),
        ("Redis restarts while a client is connected", redis),
    ];
    let all = all.into_iter().map(|(name, body)| on_shared_root(name, body));
    support::main_in(CloneFlags::CLONE_NEWNET, all.collect())
}

fn pool() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    let library = glob::glob("/usr/lib/*-linux-gnu*/libgcc_s.so.1").unwrap().next().unwrap().unwrap();
    lab::overlay(&sandbox, library.parent().unwrap());
    let (_dns, _tls) = (lab::dns(), lab::tls(&sandbox));
    let root = sandbox.site("site1", "presets: [php-fpm]\nusers: [www-data]\n");
    sandbox.ok(&["up", "site1"]);
    let watcher = Watcher::start(&sandbox);
    let fpm = Fpm::start(&sandbox, &root);
    let worker = fpm.eval(&root, "getmypid()");
    resolver(&fpm, &root);
    authority(&sandbox, &fpm, &root);
    upgrade(&fpm, &root, &library);
    assert_eq!(worker, fpm.eval(&root, "getmypid()"), "no worker was restarted");
    watcher.settles();
    sandbox.ok(&["status", "site1"]);
    drop(fpm);
    let said = watcher.end();
    assert!(!said.contains("error"), "{said}");
    sandbox.ok(&["down", "site1"]);
    assert!(mounts_below(&root).is_empty());
}

/// As systemd-resolved: the stub is replaced, then the link leads to the other file.
fn resolver(fpm: &Fpm, root: &Path) {
    let directory = Path::new("/run/systemd/resolve");
    let stub = directory.join("stub-resolv.conf");
    let text = fs::read_to_string(&stub).unwrap();
    fs::write(directory.join(".#stub-resolv.conf"), format!("# replaced\n{text}")).unwrap();
    fs::rename(directory.join(".#stub-resolv.conf"), &stub).unwrap();
    soon_says(fpm, root, "file_get_contents('/etc/resolv.conf')", "# replaced");
    fs::write(directory.join("resolv.conf"), format!("# the other\n{text}")).unwrap();
    Ran::of(Command::new("ln").args(["-sf", "../run/systemd/resolve/resolv.conf", "/etc/resolv.conf"]))
        .exits(0);
    soon_says(fpm, root, "file_get_contents('/etc/resolv.conf')", "# the other");
    soon_says(fpm, root, &format!("gethostbyname('{NAME}')"), "OK: \"127.0.0.1\"");
}

/// One more authority is trusted once `update-ca-certificates` has run.
fn authority(sandbox: &Sandbox, fpm: &Fpm, root: &Path) {
    let pki = sandbox.directory("pki2");
    let (key, certificate) = (pki.join("key"), pki.join("crt"));
    let name = format!("subjectAltName=DNS:{NAME}");
    let subject = format!("/CN={NAME}");
    let mut request = Command::new("openssl");
    request.args([
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject, "-addext", &name,
    ]);
    Ran::of(request.arg("-keyout").arg(&key).arg("-out").arg(&certificate)).exits(0);
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-www", "-accept", "127.0.0.1:4434", "-key"]);
    let _server = Server::start(server.arg(key).arg("-cert").arg(&certificate));
    wait_until("the second TLS server listens", || std::net::TcpStream::connect(("127.0.0.1", 4434)).is_ok());
    let php = format!("(fn() => substr(file_get_contents('https://{NAME}:4434/'), 0, 6))()");
    let before = fpm.eval(root, &php);
    assert!(before.contains("FAILED"), "{before}");
    fs::copy(certificate, "/usr/local/share/ca-certificates/second.crt").unwrap();
    Ran::of(&mut Command::new("update-ca-certificates")).exits(0);
    soon_says(fpm, root, &php, "OK: \"<HTML>\"");
}

/// A library is reinstalled, as dpkg does it, while the pool serves one request after the other.
fn upgrade(fpm: &Fpm, root: &Path, library: &Path) {
    let inside = root.join(library.strip_prefix("/").unwrap());
    for _ in 0..5 {
        let new = library.with_extension("1.dpkg-new");
        fs::copy(library, &new).unwrap();
        fs::rename(&new, library).unwrap();
        let inode = fs::metadata(library).unwrap().ino();
        soon("the library is the new one", || {
            let answer =
                fpm.eval(root, "strlen(file_get_contents('/etc/ssl/certs/ca-certificates.crt')) > 0");
            assert_eq!(answer, "OK: true");
            match fs::metadata(&inside).unwrap().ino() {
                found if found == inode => Ok(()),
                found => Err(format!("{found} in place of {inode}")),
            }
        });
    }
}

/// Waits until the worker's answer to `php` contains `text`.
#[track_caller]
fn soon_says(fpm: &Fpm, root: &Path, php: &str, text: &str) {
    soon(&format!("{php} gives {text}"), || match fpm.eval(root, php) {
        answer if answer.contains(text) => Ok(()),
        answer => Err(answer),
    });
}

fn accounts() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    let whole = sandbox.site("whole", "etc: [passwd, group]\n");
    let own = sandbox.site("own", "users: [www-data, { name: newcomer, optional: true }]\n");
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    let knows = |known: bool| {
        for file in [&whole, &own].map(|root| root.join("etc/passwd")) {
            soon(&format!("{} names the newcomer: {known}", file.display()), || {
                let text = fs::read_to_string(&file).unwrap();
                assert!(text.contains("\nwww-data:"), "never less than what was there: {text}");
                if text.contains("\nnewcomer:") == known { Ok(()) } else { Err(text) }
            });
        }
    };
    knows(false);
    Ran::of(Command::new("useradd").args(["--no-create-home", "--user-group", "newcomer"])).exits(0);
    knows(true);
    soon("the group as well", || {
        let text = fs::read_to_string(own.join("etc/group")).unwrap();
        if text.contains("\nnewcomer:") { Ok(()) } else { Err(text) }
    });
    Ran::of(Command::new("usermod").args(["--shell", "/bin/false", "newcomer"])).exits(0);
    soon("the new shell", || {
        let text = fs::read_to_string(whole.join("etc/passwd")).unwrap();
        if text.contains("/bin/false\n") { Ok(()) } else { Err(text) }
    });
    Ran::of(Command::new("userdel").arg("newcomer")).exits(0);
    knows(false);
    watcher.settles();
    sandbox.ok(&["status"]);
    assert!(!watcher.end().contains("error"));
}

fn editor() {
    let sandbox = Sandbox::new();
    let source = sandbox.file("host/conf", "one\n");
    let jail = sandbox.site("s", &format!("mounts: [{{ source: {}, target: /conf }}]\n", source.display()));
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    for (copy, word) in [("no", "two"), ("yes", "three"), ("auto", "four")] {
        let save = format!("set writebackup backupcopy={copy}");
        let replace = format!("%s/.*/{word}/");
        let mut vim = Command::new("vim.tiny");
        vim.args(["-u", "NONE", "-es", "-c", &save, "-c", &replace, "-c", "wq"]).arg(&source);
        Ran::of(vim.stdin(Stdio::null())).exits(0);
        soon_reads(&jail.join("conf"), &format!("{word}\n"));
    }
    Ran::of(Command::new("sed").args(["-i", "s/four/five/"]).arg(&source)).exits(0);
    soon_reads(&jail.join("conf"), "five\n");
    watcher.end();
}

/// systemd removes the server's directory when it stops, and makes it anew when it starts.
fn redis() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    let directory = Path::new("/run/redis");
    let start = || {
        fs::create_dir(directory).unwrap();
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            "0",
            "--save",
            "",
            "--unixsocket",
            "/run/redis/redis.sock",
            "--dir",
            "/run/redis",
        ]);
        let server = Server::start(&mut command);
        wait_until("Redis listens", || UnixStream::connect(directory.join("redis.sock")).is_ok());
        server
    };
    let server = start();
    let root = sandbox.site("s", "presets: [redis, busybox]\nprograms: [/usr/bin/redis-cli]\n");
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    let client = Client::start(&root);
    client.answers();
    let mut server = Some(server);
    for _ in 0..3 {
        drop(server.take());
        fs::remove_dir_all(directory).unwrap();
        server = Some(start());
        client.answers();
    }
    let said = watcher.end();
    assert!(said.matches("s: swapped /run/redis").count() >= 3, "{said}");
    sandbox.ok(&["status", "s"]);
}

/// A program in a jail that asks ten times a second, and connects again when it has to.
struct Client {
    _program: Server,
    answers: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

impl Client {
    fn start(root: &Path) -> Self {
        let ask = "while :; do redis-cli -s /run/redis/redis.sock ping; sleep 0.1; done";
        let mut command = Command::new("/usr/sbin/chroot");
        command.arg(root).args(["busybox", "sh", "-c", ask]).env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let client = Self { _program: Server(child), answers: Arc::default(), last: Arc::default() };
        let (answers, last) = (client.answers.clone(), client.last.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                answers.fetch_add(usize::from(line == "PONG"), Ordering::Relaxed);
                *last.lock().unwrap() = line;
            }
        });
        client
    }

    /// Waits until it gets answers, now.
    fn answers(&self) {
        let before = self.answers.load(Ordering::Relaxed);
        soon("the client is answered", || {
            let now = self.answers.load(Ordering::Relaxed);
            if now > before + 2 { Ok(()) } else { Err(self.last.lock().unwrap().clone()) }
        });
    }
}

//! Promise: programs in a jail go on while real programs change the host: a resolver,
//! `update-ca-certificates`, `useradd`, an editor, a package upgrade, a database that restarts.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::lab::{self, Fpm, NAME, Server};
use crate::support::{
    Ran, Sandbox, Watcher, mounts_below, on_shared_root, overlay, soon, soon_reads, wait_until,
};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    // Each in namespaces of its own: they change the same files of the host and use the same ports.
    let all: [(&str, fn()); 5] = [
        ("a PHP-FPM pool works while the host changes", pool),
        ("useradd and userdel are followed", accounts),
        ("files that an editor writes are followed", editor),
        ("Redis restarts while a client is connected", redis),
        (
            "MariaDB restarts while PHP in the jail is connected",
            mariadb,
        ),
    ];
    let all = all
        .into_iter()
        .map(|(name, body)| on_shared_root(name, body));
    all.collect()
}

fn pool() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    let library = glob::glob("/usr/lib/*-linux-gnu*/libgcc_s.so.1")
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    overlay(&sandbox, library.parent().unwrap());
    let (_dns, _tls) = (lab::dns(), lab::tls(&sandbox));
    let root = sandbox.site("site1", "presets: [php-fpm]\nusers: [www-data]\n");
    sandbox.ok(&["up", "site1"]);
    let watcher = Watcher::start(&sandbox);
    let fpm = Fpm::start(&sandbox, &root);
    let worker = fpm.eval(&root, "getmypid()");
    resolver(&fpm, &root);
    authority(&sandbox, &fpm, &root);
    upgrade(&fpm, &root, &library);
    assert_eq!(
        worker,
        fpm.eval(&root, "getmypid()"),
        "no worker was restarted"
    );
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
    fs::write(
        directory.join(".#stub-resolv.conf"),
        format!("# replaced\n{text}"),
    )
    .unwrap();
    fs::rename(directory.join(".#stub-resolv.conf"), &stub).unwrap();
    soon_says(
        fpm,
        root,
        "file_get_contents('/etc/resolv.conf')",
        "# replaced",
    );
    fs::write(
        directory.join("resolv.conf"),
        format!("# the other\n{text}"),
    )
    .unwrap();
    Ran::of(Command::new("ln").args([
        "-sf",
        "../run/systemd/resolve/resolv.conf",
        "/etc/resolv.conf",
    ]))
    .exits(0);
    soon_says(
        fpm,
        root,
        "file_get_contents('/etc/resolv.conf')",
        "# the other",
    );
    soon_says(
        fpm,
        root,
        &format!("gethostbyname('{NAME}')"),
        "OK: \"127.0.0.1\"",
    );
}

/// One more authority is trusted once `update-ca-certificates` has run.
fn authority(sandbox: &Sandbox, fpm: &Fpm, root: &Path) {
    let pki = sandbox.directory("pki2");
    let (key, certificate) = (pki.join("key"), pki.join("crt"));
    let name = format!("subjectAltName=DNS:{NAME}");
    let subject = format!("/CN={NAME}");
    let mut request = Command::new("openssl");
    request.args([
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject,
        "-addext", &name,
    ]);
    Ran::of(
        request
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    )
    .exits(0);
    let mut server = Command::new("openssl");
    server.args([
        "s_server",
        "-quiet",
        "-www",
        "-accept",
        "127.0.0.1:4434",
        "-key",
    ]);
    let _server = Server::start(server.arg(key).arg("-cert").arg(&certificate));
    wait_until("the second TLS server listens", || {
        std::net::TcpStream::connect(("127.0.0.1", 4434)).is_ok()
    });
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
            let answer = fpm.eval(
                root,
                "strlen(file_get_contents('/etc/ssl/certs/ca-certificates.crt')) > 0",
            );
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
    soon(&format!("{php} gives {text}"), || {
        match fpm.eval(root, php) {
            answer if answer.contains(text) => Ok(()),
            answer => Err(answer),
        }
    });
}

fn accounts() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    let whole = sandbox.site("whole", "etc: [passwd, group]\n");
    let own = sandbox.site(
        "own",
        "users: [www-data, { name: newcomer, optional: true }]\n",
    );
    sandbox.ok(&["up", "--all"]);
    let watcher = Watcher::start(&sandbox);
    let knows = |known: bool| {
        for file in [&whole, &own].map(|root| root.join("etc/passwd")) {
            soon(
                &format!("{} names the newcomer: {known}", file.display()),
                || {
                    let text = fs::read_to_string(&file).unwrap();
                    assert!(
                        text.contains("\nwww-data:"),
                        "never less than what was there: {text}"
                    );
                    if text.contains("\nnewcomer:") == known {
                        Ok(())
                    } else {
                        Err(text)
                    }
                },
            );
        }
    };
    knows(false);
    Ran::of(Command::new("useradd").args(["--no-create-home", "--user-group", "newcomer"]))
        .exits(0);
    knows(true);
    soon("the group, too", || {
        let text = fs::read_to_string(own.join("etc/group")).unwrap();
        if text.contains("\nnewcomer:") {
            Ok(())
        } else {
            Err(text)
        }
    });
    Ran::of(Command::new("usermod").args(["--shell", "/bin/false", "newcomer"])).exits(0);
    soon("the new shell", || {
        let text = fs::read_to_string(whole.join("etc/passwd")).unwrap();
        if text.contains("/bin/false\n") {
            Ok(())
        } else {
            Err(text)
        }
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
    let jail = sandbox.site(
        "s",
        &format!(
            "mounts: [{{ source: {}, target: /conf }}]\n",
            source.display()
        ),
    );
    sandbox.ok(&["up", "s"]);
    let watcher = Watcher::start(&sandbox);
    for (copy, word) in [("no", "two"), ("yes", "three"), ("auto", "four")] {
        let save = format!("set writebackup backupcopy={copy}");
        let replace = format!("%s/.*/{word}/");
        let mut vim = Command::new("vim.tiny");
        vim.args(["-u", "NONE", "-es", "-c", &save, "-c", &replace, "-c", "wq"])
            .arg(&source);
        Ran::of(vim.stdin(Stdio::null())).exits(0);
        soon_reads(&jail.join("conf"), &format!("{word}\n"));
    }
    Ran::of(
        Command::new("sed")
            .args(["-i", "s/four/five/"])
            .arg(&source),
    )
    .exits(0);
    soon_reads(&jail.join("conf"), "five\n");
    watcher.end();
}

fn redis() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    let service = Service {
        socket: lab::REDIS,
        manifest: "presets: [redis, busybox]\nprograms: [/usr/bin/redis-cli]\n",
        start: &|_| lab::redis(),
        client: &[
            "busybox",
            "sh",
            "-c",
            "while :; do redis-cli -s /run/redis/redis.sock ping; sleep 0.1; done",
        ],
        answer: &|_| "PONG".to_owned(),
    };
    service.restarts(&sandbox);
}

/// PHP keeps its connection open, finds out that it is dead, and connects again.
fn mariadb() {
    let sandbox = Sandbox::new();
    lab::prepare(&sandbox);
    let ask = "mysqli_report(MYSQLI_REPORT_OFF);
        for ($db = null;; usleep(100000)) {
            if ($db === null) {
                $db = mysqli_init();
                if (!@$db->real_connect('localhost', 'root', '', null, 0, \
               '/run/mysqld/mysqld.sock')) {
                    echo 'connect: ', mysqli_connect_errno(), ' ', mysqli_connect_error(), PHP_EOL;
                    $db = null;
                }
            } elseif ($answer = @$db->query('SELECT @@server_id')) {
                echo 'server ', $answer->fetch_row()[0], PHP_EOL;
            } else {
                echo 'query: ', $db->errno, ' ', $db->error, PHP_EOL;
                $db = null;
            }
        }";
    let service = Service {
        socket: lab::MYSQL,
        manifest: "presets: [php-fpm, mysql]\nprograms: [/usr/bin/php]\n\
                   libraries: [/usr/lib/php/*/mysqlnd.so, /usr/lib/php/*/mysqli.so]\n\
                   users: [www-data]\n",
        start: &|nth| lab::mysql_numbered(&sandbox, nth),
        client: &[
            "php",
            "-n",
            "-d",
            "extension=mysqlnd",
            "-d",
            "extension=mysqli",
            "-r",
            ask,
        ],
        answer: &|nth| format!("server {nth}"),
    };
    let got = service.restarts(&sandbox);
    let errors: Vec<_> = got
        .iter()
        .filter(|line| !line.starts_with("server "))
        .collect();
    // CR_CONNECTION_ERROR while there is no server; CR_SERVER_GONE_ERROR or CR_SERVER_LOST from the
    // one that ended.
    let honest = ["connect: 2002 ", "query: 2006 ", "query: 2013 "];
    assert!(
        errors
            .iter()
            .all(|line| honest.iter().any(|known| line.starts_with(known))),
        "{got:#?}"
    );
    let dead = errors
        .iter()
        .filter(|line| line.starts_with("query: "))
        .count();
    assert_eq!(
        dead, RESTARTS as usize,
        "each old connection ends once: {got:#?}"
    );
}

/// How often a server restarts.
const RESTARTS: u32 = 3;

/// A server and a program in a jail that asks it ten times a second.
struct Service<'a> {
    socket: &'a str,
    manifest: &'a str,
    /// The server that comes up for the nth time; with the directory of its socket.
    start: &'a dyn Fn(u32) -> Server,
    client: &'a [&'a str],
    /// What the nth server answers.
    answer: &'a dyn Fn(u32) -> String,
}

impl Service<'_> {
    /// Restarts the server under its client as systemd does it with `RuntimeDirectory=`: the
    /// directory is removed when it has stopped, and made anew when it starts. Only the watcher
    /// knows of mountjail. Returns all that the client got.
    fn restarts(&self, sandbox: &Sandbox) -> Vec<String> {
        let directory = Path::new(self.socket).parent().unwrap();
        let mut server = (self.start)(1);
        let root = sandbox.site("s", self.manifest);
        sandbox.ok(&["up", "s"]);
        let watcher = Watcher::start(sandbox);
        let client = Client::start(&root, self.client);
        client.gets(&(self.answer)(1));
        for nth in 2..2 + RESTARTS {
            server.stop();
            fs::remove_dir_all(directory).unwrap();
            server = (self.start)(nth);
            client.gets(&(self.answer)(nth));
        }
        let said = watcher.end();
        let swaps = said
            .matches(&format!("s: swapped {}\n", directory.display()))
            .count();
        assert!(
            swaps >= RESTARTS as usize && !said.contains("error"),
            "{said}"
        );
        sandbox.ok(&["status", "s"]);
        client.got()
    }
}

/// A running program in a jail.
struct Client {
    _program: Server,
    /// The lines that it printed.
    got: Arc<Mutex<Vec<String>>>,
}

impl Client {
    fn start(root: &Path, command: &[&str]) -> Self {
        let mut chroot = Command::new("/usr/sbin/chroot");
        chroot.arg(root).args(command).env("PATH", "/usr/bin:/bin");
        chroot
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = chroot.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let client = Self {
            _program: Server(child),
            got: Arc::default(),
        };
        let got = client.got.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                got.lock().unwrap().push(line);
            }
        });
        client
    }

    fn got(&self) -> Vec<String> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until it gets `answer`, again and again.
    fn gets(&self, answer: &str) {
        let before = self.got().len();
        soon(&format!("the client gets {answer:?}"), || {
            let got = self.got().split_off(before);
            if got.iter().filter(|line| *line == answer).count() > 2 {
                Ok(())
            } else {
                Err(format!("{got:#?}"))
            }
        });
    }
}

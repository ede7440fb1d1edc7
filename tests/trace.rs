//! Promise: `trace` finds what a program misses in a jail, names the lines that bring it, and leaves what it followed
//! as it was.

mod lab;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Once;
use std::time::Duration;

use lab::{Fpm, Server, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Ran, Sandbox, trials};

fn main() -> ExitCode {
    support::main(trials([
        ("a PHP script: what it misses, and with the lines written it works", script),
        ("a running PHP-FPM worker, which goes on serving", worker),
        ("the workers of a unit, also later ones", unit),
        ("the streams and the exit code of a command", streams),
        ("a static program alone, and one of another kind of machine", busybox),
        ("interpreters and loaders that are missing", interpreters),
        ("threads, forks, stops and real-time signals", threads),
        ("a busy process with threads and children, again and again", busy),
        ("a command runs on after a signal", interrupted),
        ("what a command leaves running is let go", left_running),
        ("processes that end at any moment", endings),
        ("what cannot be followed is said", refusals),
        ("what nobody should get for the asking", private),
        ("users have their names", users),
        ("what is in the manifest and not mounted", not_mounted),
        ("a manifest that cannot be added to stays as it is", odd_manifest),
        ("mode, owner and comments of the manifest stay", kept),
    ]))
}

/// The PHP on this host: /usr/bin/php8.2.
fn php() -> PathBuf {
    let mut found: Vec<_> = glob::glob("/usr/bin/php[0-9]*").unwrap().map(Result::unwrap).collect();
    found.sort();
    found.pop().expect("php is installed: tests/install-dependencies")
}

/// A daemon that listens in a directory of its own below `/run`, which is empty in this process's namespace.
fn daemon(name: &str) -> UnixListener {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        Ran::of(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "run", "/run"])).exits(0);
    });
    let directory = Path::new("/run").join(name);
    fs::create_dir(&directory).unwrap();
    let daemon = UnixListener::bind(directory.join("socket")).unwrap();
    fs::set_permissions(directory.join("socket"), fs::Permissions::from_mode(0o777)).unwrap();
    daemon
}

/// A site that is up, with its root.
fn site(manifest: &str) -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", manifest);
    sandbox.ok(&["up", "s"]);
    (sandbox, root)
}

/// The lines of a report.
fn lines(report: &Value) -> Vec<&str> {
    report["lines"].as_array().unwrap().iter().map(|line| line["line"].as_str().unwrap()).collect()
}

#[track_caller]
fn has(report: &Value, line: &str) {
    assert!(lines(report).contains(&line), "{line} is not in {report:#}");
}

/// `path` among those that were not advised, with a reason that contains `why`.
#[track_caller]
fn refused(report: &Value, path: &str, why: &str) {
    let of_path = |refused: &&Value| refused["path"] == path;
    let found = report["refused"].as_array().unwrap().iter().find(of_path);
    let found = found.unwrap_or_else(|| panic!("{path} is not refused in {report:#}"));
    assert!(found["why"].as_str().unwrap().contains(why), "{found}");
}

/// A running `mountjail trace`.
struct Trace {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Trace {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut command = sandbox.command();
        command.args(["trace", "s", "--json"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Reads standard error up to a line that contains `text`.
    fn until(&mut self, text: &str) -> &mut Self {
        let mut all = String::new();
        while !all.contains(text) {
            let read = self.stderr.read_line(&mut all).unwrap();
            assert!(read > 0, "ended without {text:?}: {all}");
        }
        self
    }

    fn pid(&self) -> Pid {
        pid(self.child.id())
    }

    /// Ends it by a signal; its exit code and report.
    fn end(self, signal: Signal) -> (i32, Value) {
        kill(self.pid(), signal).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (output.status.code().unwrap(), report)
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap())
}

/// A field of `/proc/PID/status`.
fn status(pid: impl std::fmt::Display, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
}

const SCRIPT: &str = r#"<?php
set_error_handler(function($n, $m) { throw new Exception($m); });
function check($name, $f) { try { echo "$name: ", json_encode($f()), "\n"; } catch (Throwable $e) { echo "$name failed\n"; } }
check('zone', fn() => (new DateTime('2026-07-01', new DateTimeZone('Europe/Zurich')))->getOffset());
check('font', fn() => bin2hex(file_get_contents('FONT', false, null, 0, 4)));
check('socket', fn() => stream_socket_client('unix:///run/NAME/socket') !== false);
check('program', fn() => exec('/usr/bin/perl -e "print 6 * 7"'));
"#;

const ALL_WELL: &str = "zone: 7200\nfont: \"00010000\"\nsocket: true\nprogram: \"42\"\n";

fn font() -> String {
    let mut fonts = glob::glob("/usr/share/fonts/truetype/dejavu/*.ttf").unwrap().map(Result::unwrap);
    fonts.next().expect("fonts-dejavu-core is installed: tests/install-dependencies").display().to_string()
}

fn script() {
    let php = php();
    let _daemon = daemon("script");
    let (sandbox, root) = site(&format!("programs: [{}] # PHP\n", php.display()));
    fs::write(root.join("a.php"), SCRIPT.replace("FONT", &font()).replace("NAME", "script")).unwrap();
    let run = |options: &[&str]| {
        let command = ["s", "--", php.to_str().unwrap(), "-n", "/a.php"];
        sandbox.ok(&[&["trace"], options, &command].concat())
    };
    let first = run(&["--json"]);
    for name in ["zone", "font", "socket", "program"] {
        assert!(first.stderr.contains(&format!("{name}: {name} failed\n")), "{first}");
    }
    let report = first.json();
    for line in [
        "presets: [timezone]",
        "presets: [fonts]",
        "mounts: [{ source: /run/script, optional: true }]",
        "programs: [/bin/sh]",
    ] {
        has(&report, line);
    }
    assert_eq!((&report["exit_code"], &report["written"]), (&Value::from(0), &Value::from(false)));
    assert!(report.get("nowhere").is_none());
    let nowhere = run(&["--json", "--all-misses"]).json()["nowhere"].to_string();
    assert!(nowhere.contains("/etc/ld.so.preload"), "{nowhere}");

    run(&["--write", "--up"]).prints("presets: [timezone]\n").complains("s: added ");
    let second =
        run(&["--write", "--up"]).prints("programs: [/usr/bin/perl]\n  # /usr/bin/perl (exec by sh)\n");
    second.complains("zone: 7200\nfont: \"00010000\"\nsocket: true\n").complains("/usr/bin/perl: not found");
    run(&["--write", "--up"]).prints("presets: [base]\n"); // perl wants /dev/null
    let last = run(&[]).complains(ALL_WELL).complains("s: nothing was missed that the host has");
    assert_eq!(last.stdout, "");
    let manifest = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    let head =
        format!("root: {}\nprograms: [{}, /bin/sh, /usr/bin/perl] # PHP\n", root.display(), php.display());
    assert!(manifest.starts_with(&head), "{manifest}");
    assert!(manifest.contains("presets: [timezone, "), "{manifest}");
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
}

/// What the worker is to do, and what it answers when all is there.
const WORK: [(&str, &str); 4] = [
    ("(new DateTime('2026-07-01', new DateTimeZone('Europe/Zurich')))->getOffset()", "OK: 7200"),
    ("bin2hex(file_get_contents('FONT', false, null, 0, 4))", "OK: \"00010000\""),
    ("stream_socket_client('unix:///run/NAME/socket') !== false", "OK: true"),
    ("exec('/usr/bin/perl -e \"print 6 * 7\"')", "OK: \"42\""),
];

fn work(fpm: &Fpm, root: &Path, name: &str) -> Vec<bool> {
    let answer = |php: &str| fpm.eval(root, &php.replace("FONT", &font()).replace("NAME", name));
    WORK.iter().map(|(php, good)| answer(php) == *good).collect()
}

fn worker() {
    let _daemon = daemon("worker");
    let (sandbox, root) = site("# The lines that follow are all that there is.\n");
    let fpm = Fpm::start(&sandbox, &root);
    let id = fpm.eval(&root, "getmypid()").trim_start_matches("OK: ").to_owned();
    assert_eq!(work(&fpm, &root, "worker"), [false; 4]);
    let look = |options: &[&str]| {
        let mut trace = Trace::start(&sandbox, &[&["--pid", &id], options].concat());
        trace.until("s: following 1 thread; Ctrl-C ends it");
        let well = work(&fpm, &root, "worker");
        let (code, report) = trace.end(Signal::SIGINT);
        assert_eq!((code, status(&id, "TracerPid:")), (0, "0".to_owned()));
        (well, report)
    };
    let (well, report) = look(&["--write", "--up"]);
    assert_eq!(well, [false; 4]);
    for line in [
        "presets: [timezone]",
        "presets: [fonts]",
        "mounts: [{ source: /run/worker, optional: true }]",
        "programs: [/bin/sh]",
    ] {
        has(&report, line);
    }
    assert_eq!((&report["written"], &report["exit_code"]), (&Value::from(true), &Value::Null));
    let (well, report) = look(&["--write", "--up"]);
    assert_eq!(well, [true, true, true, false]);
    has(&report, "programs: [/usr/bin/perl]");
    // perl wants /dev/null.
    let (_, report) = look(&["--write", "--up"]);
    has(&report, "presets: [base]");
    assert_eq!(work(&fpm, &root, "worker"), [true; 4], "the same worker, {id}");
    assert_eq!(fpm.eval(&root, "getmypid()"), format!("OK: {id}"));
    drop(fpm);
    sandbox.ok(&["down", "s"]);
}

/// A control group that looks like a unit's, removed when dropped.
struct Unit(PathBuf);

impl Unit {
    fn new() -> Self {
        // Where systemd would keep its units: the hierarchy of its name, or the only one.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = |kind: &str, option: &str| {
            let matches = |line: &&str| {
                line.split_once(" - ").is_some_and(|(_, fs)| fs.starts_with(kind) && fs.contains(option))
            };
            table.lines().find(matches).map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()))
        };
        let base =
            mounted("cgroup ", "name=systemd").or_else(|| mounted("cgroup2 ", "")).expect("a control group");
        let directory = base.join(format!("mountjail-test-{}.service", std::process::id()));
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn name(&self) -> &str {
        self.0.file_stem().unwrap().to_str().unwrap()
    }

    fn take(&self, pid: impl std::fmt::Display) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Unit {
    /// Waits until its processes have ended, also when a test fails, and then not for ever.
    fn drop(&mut self) {
        for _ in 0..3000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("cannot remove {}", self.0.display());
    }
}

fn unit() {
    let unit = Unit::new();
    let (sandbox, root) = site("presets: [base]\n");
    let fpm = Fpm::start(&sandbox, &root);
    let worker = |fpm: &Fpm| fpm.eval(&root, "getmypid()").trim_start_matches("OK: ").to_owned();
    let first = worker(&fpm);
    unit.take(fpm.master());
    unit.take(&first);
    let mut trace = Trace::start(&sandbox, &["--service", unit.name()]);
    trace.until("s: following 2 threads; Ctrl-C ends it");
    fpm.eval(&root, "file_get_contents('/usr/share/zoneinfo/Europe/Zurich')");
    Ran::of(Command::new("kill").arg(&first)).exits(0);
    wait_until("the worker has ended", || !Path::new(&format!("/proc/{first}")).exists());
    assert_ne!(worker(&fpm), first, "the master starts another worker");
    fpm.eval(&root, "file_get_contents('/etc/hosts')");
    // One that nobody who is followed started.
    let busybox = root.join("busybox");
    fs::copy("/bin/busybox", &busybox).unwrap();
    let mut other = Command::new("chroot");
    other.arg(&root).args([
        "/busybox",
        "sh",
        "-c",
        "read x; while :; do /busybox cat /etc/debian_version; echo >>/rounds; /busybox usleep 100000; done",
    ]);
    let mut other = Server(other.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let id = other.0.id();
    unit.take(id);
    trace.until(&format!("(pid {id}, {}.service), too", unit.name()));
    other.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    wait_until("it looked some times", || fs::metadata(root.join("rounds")).is_ok_and(|file| file.len() > 2));
    let (code, report) = trace.end(Signal::SIGTERM);
    assert_eq!(code, 0);
    has(&report, "presets: [timezone]");
    has(&report, "presets: [dns]");
    has(&report, "etc: [debian_version]");
    for process in [worker(&fpm), fpm.master().to_string(), id.to_string()] {
        assert_eq!(status(process, "TracerPid:"), "0");
    }
    drop(other);
    fs::remove_file(busybox).unwrap();
    assert!(fpm.eval(&root, "6 * 7").contains("OK: 42"));

    let nothing = || sandbox.run(&["trace", "s", "--service", "no-such-thing"]);
    nothing().exits(2).complains("error: s: there is no unit no-such-thing.service\n  try: ");
    drop(fpm);
    let members = unit.0.join("cgroup.procs");
    wait_until("the workers have ended, too", || fs::read_to_string(&members).unwrap().is_empty());
    let name = format!("{}.service", unit.name());
    sandbox.run(&["trace", "s", "--service", &name]).exits(2).complains("there is no unit mountjail-test-");
}

fn streams() {
    let (sandbox, _) = site("presets: [shell]\n");
    let mut command = sandbox.command();
    command.env("LC_ALL", "C").args(["trace", "s", "--", "sh", "-c", "echo out; cat /etc/hosts; exit 42"]);
    let ran = Ran::of(&mut command).exits(42);
    assert!(ran.stderr.starts_with("out\ncat: /etc/hosts: No such file or directory\n"), "{ran}");
    ran.prints("presets: [dns]\n  # /etc/hosts (open by cat)\n")
        .complains("s: --write adds 1 line to the manifest");
    let mut typed = sandbox.command();
    typed.args(["trace", "-q", "s", "--", "sh", "-c", "cat >&2; test -t 0"]).stdin(Stdio::piped());
    let mut typed = typed.stderr(Stdio::piped()).spawn().unwrap();
    typed.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let output = typed.wait_with_output().unwrap();
    assert_eq!((output.stderr.as_slice(), output.status.code()), (b"typed\n".as_slice(), Some(1)));
    sandbox.run(&["trace", "s", "--", "sh", "-c", "kill -KILL $$"]).exits(128 + 9);
    let line =
        format!("umask 027; exec {} trace s -- sh -c 'umask; ulimit -Sn'", env!("CARGO_BIN_EXE_mountjail"));
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -Sn 123; {line}")]);
    shell.env("MOUNTJAIL_CONFIG_DIR", sandbox.config()).env("MOUNTJAIL_STATE_DIR", sandbox.state());
    Ran::of(&mut shell).exits(0).complains("0027\n123\n");
    let ran = sandbox.run(&["trace", "s", "--", "perl", "-v"]).exits(127);
    ran.complains("s: cannot run perl in the jail").prints("programs: [/usr/bin/perl]");
    sandbox.ok(&["down", "s"]);
    sandbox.run(&["trace", "s", "--", "sh"]).exits(1).complains("s: the site is not up");
}

fn busybox() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    let report = sandbox.run(&["trace", "--json", "s", "--", "busybox", "cat", "/etc/hosts"]).exits(1).json();
    assert_eq!(lines(&report), ["presets: [dns]"]);
    // Numbers of system calls differ there.
    let source =
        sandbox.file("other.c", "#include <fcntl.h>\nint main(){return open(\"/etc/hosts\",0)<0?7:0;}\n");
    let program = root.join("other");
    Ran::of(Command::new("gcc").args(["-m32", "-static", "-o"]).arg(&program).arg(source)).exits(0);
    let ran = sandbox.run(&["trace", "--json", "s", "--", "/other"]).exits(7);
    assert_eq!(ran.json()["not_followed"], serde_json::json!(["other"]));
    assert_eq!(lines(&ran.json()), Vec::<&str>::new());
    ran.complains("warning: s: other is of another architecture than this mountjail");
}

fn interpreters() {
    let (sandbox, root) = site("");
    sandbox.program(root.join("script"), "#!/usr/bin/perl -w\n");
    let ran = sandbox.run(&["trace", "--json", "s", "--", "/script"]).exits(127);
    assert_eq!(lines(&ran.json()), ["programs: [/usr/bin/perl]"]);
    ran.complains("/script is there, but its interpreter or loader is not");
    sandbox.program(root.join("nested"), "#!/script\n");
    let report = sandbox.run(&["trace", "--json", "s", "--", "/nested"]).exits(127).json();
    assert_eq!(lines(&report), ["programs: [/usr/bin/perl]"]);
    sandbox.program(root.join("none"), "#!/usr/bin/no-such-interpreter\n");
    let report = sandbox.run(&["trace", "--json", "--all-misses", "s", "--", "/none"]).exits(127).json();
    assert_eq!(report["nowhere"][0]["path"], "/usr/bin/no-such-interpreter");
    Ran::of(Command::new("install").args(["-m755", "/usr/bin/true"]).arg(root.join("true"))).exits(0);
    let report = sandbox.run(&["trace", "--json", "s", "--", "/true"]).exits(127).json();
    let loader = lines(&report)[0];
    assert!(loader.starts_with("libraries: [/lib") && loader.contains("ld-linux"), "{report:#}");
    sandbox.run(&["trace", "--write", "--up", "s", "--", "/true"]).exits(127);
    let report = sandbox.run(&["trace", "--json", "s", "--", "/true"]).exits(127).json();
    assert!(lines(&report).iter().any(|line| line.contains("libc.so.6")), "{report:#}");
}

const THREADS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile sig_atomic_t got;
static void handler(int signal) { got += signal == SIGRTMIN + 3; }
static void *in_thread(void *path) { open(path, O_RDONLY); return 0; }
static void *forever(void *unused) { for (;;) pause(); return unused; }
int main(int argc, char **argv) {
    pthread_t thread, other;
    if (argc > 1) return 5;
    signal(SIGRTMIN + 3, handler);
    pthread_create(&other, 0, forever, 0);
    pthread_create(&thread, 0, in_thread, "/etc/hosts");
    pthread_join(thread, 0);
    raise(SIGRTMIN + 3);
    if (setgid(33) || setuid(33)) return 1;             /* glibc tells the other threads by real-time signals */
    pid_t child = fork();
    if (!child) { chdir("/etc"); int fd = open("/etc", O_RDONLY); openat(fd, "../etc/./services", O_RDONLY);
                  open("protocols", O_RDONLY); raise(SIGSTOP); _exit(3); }
    int status;
    if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status)) return 2;
    kill(child, SIGCONT);
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 3) return 3;
    if (!vfork()) { execl("/usr/bin/perl", "perl", (char *)0); _exit(0); }
    if (getuid() != 33 || got != 1) return 4;
    execl("/proc/self/exe", "again", (char *)0);
    execl("/threads", "again", "x", (char *)0);          /* with threads that are gone by it */
    return 9;
}
"#;

fn threads() {
    let (sandbox, root) = site("etc: [host.conf]\n");
    let source = sandbox.file("threads.c", THREADS);
    let program = root.join("threads");
    Ran::of(Command::new("gcc").args(["-static", "-pthread", "-w", "-o"]).arg(&program).arg(source)).exits(0);
    let ran = sandbox.run(&["trace", "--json", "s", "--", "/threads"]).exits(5);
    assert_eq!(lines(&ran.json()), ["presets: [dns]", "programs: [/usr/bin/perl]"], "{ran}");
    let paths: Vec<_> = ran.json()["lines"][0]["misses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|miss| miss["path"].clone())
        .collect();
    assert_eq!(paths, ["/etc/hosts", "/etc/protocols", "/etc/services"]);
    refused(&ran.json(), "/proc/self/exe", "it shows the whole system");
}

const BUSY: &str = r#"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile long rounds, bad;
static void handler(int signal) {}
static void *nothing(void *unused) { return unused; }
static void ends_with(pid_t child, int code) {
    int status;
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != code) bad++;
}
static void *work(void *kind) {
    pthread_t thread;
    for (;; rounds++) {
        if (open("/etc/hosts", O_RDONLY) >= 0) bad++;
        pid_t child;
        switch ((long)kind) {
        case 0: child = fork(); if (!child) { open("/etc/services", O_RDONLY); _exit(7); } ends_with(child, 7); break;
        case 1: child = vfork(); if (!child) { execl("/none", "none", (char *)0); _exit(8); } ends_with(child, 8); break;
        case 2: kill(getpid(), SIGUSR1); break;
        case 3: usleep(1000); break;
        case 4: pthread_create(&thread, 0, nothing, 0); pthread_join(thread, 0); break;
        }
    }
}
int main() {
    pthread_t thread;
    signal(SIGUSR1, handler);
    for (long kind = 0; kind < 5; kind++) pthread_create(&thread, 0, work, (void *)kind);
    for (;;) {
        int file = open("/new", O_CREAT | O_WRONLY | O_TRUNC, 0644);
        dprintf(file, "%ld %ld\n", rounds, bad);
        close(file);
        rename("/new", "/progress");
        usleep(10000);
    }
}
"#;

fn busy() {
    let (sandbox, root) = site("");
    let source = sandbox.file("busy.c", BUSY);
    let program = root.join("busy");
    Ran::of(Command::new("gcc").args(["-static", "-pthread", "-w", "-o"]).arg(&program).arg(source)).exits(0);
    let server = Server::start(Command::new("chroot").arg(&root).arg("/busy"));
    let id = server.0.id().to_string();
    let progress = || {
        let text = fs::read_to_string(root.join("progress")).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().unwrap());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    wait_until("it works", || progress().0 > 0);
    for nth in 0..5 {
        let mut trace = Trace::start(&sandbox, &["--pid", &id]);
        trace.until("Ctrl-C ends it");
        let before = progress().0;
        wait_until("it works while it is followed", || progress().0 > before + 50);
        let (code, report) = trace.end(if nth % 2 == 0 { Signal::SIGINT } else { Signal::SIGTERM });
        assert_eq!((code, lines(&report)), (0, vec!["presets: [dns]"]));
        let before = progress().0;
        wait_until("it works on", || progress().0 > before + 50);
        for thread in fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            assert!(status.is_empty() || status.contains("TracerPid:\t0\n"), "{status}");
        }
    }
    // Nobody has a chance to let go.
    let mut trace = Trace::start(&sandbox, &["--pid", &id]);
    trace.until("Ctrl-C ends it");
    trace.child.kill().unwrap();
    trace.child.wait().unwrap();
    let before = progress().0;
    wait_until("it works on", || progress().0 > before + 50);
    assert_eq!(progress().1, 0, "none of its calls went wrong");
}

fn interrupted() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        let program =
            "echo pid $$ >&2; busybox cat /etc/hosts; while ! test -e /go; do :; done; echo done >/done";
        let mut trace = Trace::start(&sandbox, &["--", "busybox", "sh", "-c", program]);
        let mut line = String::new();
        trace.stderr.read_line(&mut line).unwrap();
        let id: i32 = line.trim().strip_prefix("pid ").unwrap().parse().unwrap();
        trace.until("No such file or directory");
        let (found, report) = trace.end(signal);
        assert_eq!((found, &report["exit_code"]), (code, &Value::Null));
        assert!(lines(&report).contains(&"presets: [dns]"), "{report:#}");
        assert_eq!(
            (status(id, "TracerPid:"), status(id, "State:")),
            ("0".to_owned(), "R (running)".to_owned())
        );
        fs::write(root.join("go"), "").unwrap();
        wait_until("the command goes on to its end", || root.join("done").exists());
        fs::remove_file(root.join("go")).unwrap();
        fs::remove_file(root.join("done")).unwrap();
    }
}

fn left_running() {
    let (sandbox, _) = site("programs: [/bin/busybox]\ndevices: [\"null\"]\n");
    let program = "busybox sleep 60 </dev/null >/dev/null 2>&1 & echo $!; exit 4";
    let ran = sandbox.run(&["trace", "-q", "s", "--", "busybox", "sh", "-c", program]).exits(4);
    let id: u32 = ran.stderr.trim().parse().unwrap();
    assert_eq!((status(id, "TracerPid:"), status(id, "Name:")), ("0".to_owned(), "busybox".to_owned()));
    kill(pid(id), Signal::SIGKILL).unwrap();
}

fn endings() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    for nth in 0..40 {
        let mut child = Command::new("chroot");
        child.arg(&root).args(["/bin/busybox", "usleep", &(nth * 1500).to_string()]);
        let mut child = child.spawn().unwrap();
        let ran = sandbox.run(&["trace", "s", "--pid", &child.id().to_string()]);
        let said =
            ["there is no such process, or it has ended", "it has ended", "is not inside", "following"];
        assert!(ran.code <= 1 && said.iter().any(|said| ran.stderr.contains(said)), "{ran}");
        // Its parent still learns how it ended.
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(!Path::new(&format!("/proc/{}", child.id())).exists(), "nothing is left of it");
    }
    // A trace ends when all that it follows has, however many that were.
    let mut child = Command::new("chroot");
    let children = "PATH=/bin; read x; i=0; while [ $i -lt 300 ]; do busybox true; i=$((i+1)); done; exit 3";
    child.arg(&root).args(["/bin/busybox", "sh", "-c", children]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    wait_until("it is inside", || {
        fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() == "busybox\n"
    });
    let mut trace = Trace::start(&sandbox, &["--pid", &child.id().to_string()]);
    trace.until("Ctrl-C ends it");
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!((child.wait().unwrap().code(), trace.child.wait().unwrap().code()), (Some(3), Some(0)));
}

fn refusals() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    let trace = |arguments: &[&str]| sandbox.run(&[&["trace", "s"], arguments].concat());
    let mut inside = Command::new("chroot");
    inside.args(["--userspec=33:33"]).arg(&root).args(["/bin/busybox", "sleep", "600"]);
    let inside = Server::start(&mut inside);
    let id = inside.0.id().to_string();
    wait_until("it is inside", || fs::read_to_string(format!("/proc/{id}/comm")).unwrap() == "busybox\n");

    let outside = Server::start(Command::new("sleep").arg("600"));
    trace(&["--pid", &outside.0.id().to_string()])
        .exits(1)
        .complains(&format!("error: s: sleep (pid {}) is not inside {}", outside.0.id(), root.display()))
        .complains(&format!("try: inside are busybox (pid {id})"));
    trace(&["--pid", "4194304"]).exits(1).complains("there is no such process, or it has ended");
    trace(&["--pid", "4294967295"]).exits(1).complains("there is no such process, or it has ended");
    trace(&["--user", "nobody-here", "--", "busybox"]).exits(2).complains("this host has no such user");
    trace(&[]).exits(2);
    trace(&["--pid", "1", "--service", "x"]).exits(2);
    trace(&["--up", "--", "busybox"]).exits(2);
    sandbox.run(&["trace", "absent", "--", "busybox"]).exits(2).complains("there is no site absent");

    let strace = Server::start(Command::new("strace").args(["-o", "/dev/null", "-p", &id]));
    wait_until("strace follows it", || status(&id, "TracerPid:") == strace.0.id().to_string());
    trace(&["--pid", &id]).exits(1).complains(&format!("strace (pid {}) follows it already", strace.0.id()));
    drop(strace);
    wait_until("strace has let it go", || status(&id, "TracerPid:") == "0");

    let mut weak = sandbox.command_under(&["setpriv", "--bounding-set", "-sys_ptrace"]);
    Ran::of(weak.args(["trace", "s", "--pid", &id]))
        .exits(1)
        .complains("cannot follow busybox")
        .complains("CAP_SYS_PTRACE");

    let mut other = Command::new("setpriv");
    other.args([
        "--reuid=33",
        "--regid=33",
        "--clear-groups",
        env!("CARGO_BIN_EXE_mountjail"),
        "trace",
        "s",
        "--pid",
        &id,
    ]);
    other.env("MOUNTJAIL_CONFIG_DIR", sandbox.config()).env("MOUNTJAIL_STATE_DIR", sandbox.state());
    Ran::of(&mut other).exits(1).complains("needs root");
    assert_eq!(status(&id, "TracerPid:"), "0");
}

fn private() {
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
    let command = [&["trace", "--json", "--write", "s", "--", "busybox", "ls", "-d"][..], &paths].concat();
    let report = sandbox.run(&command).exits(1).json();
    let written = sandbox
        .run(&["trace", "--json", "s", "--", "busybox", "sh", "-c", "echo >/etc/hosts"])
        .exits(1)
        .json();
    fs::remove_file(&theirs).unwrap();
    fs::remove_dir_all(link.parent().unwrap()).unwrap();
    refused(&report, "/etc/shadow", "it is not for everybody");
    refused(&report, "/proc/version", "the whole system");
    refused(&report, "/root", "not for everybody");
    refused(&report, &own, "it is the host's name of /own in this jail");
    refused(&report, &secret, "it belongs to the site other");
    refused(&report, theirs.to_str().unwrap(), "somebody other than root can change it");
    refused(&report, link.to_str().unwrap(), "somebody other than root can change it");
    if Path::new("/dev/mem").exists() {
        refused(&report, "/dev/mem", "a device that can do more");
    }
    assert_eq!(lines(&report), ["presets: [base]"]);
    refused(&written, "/etc/hosts", "opened for writing");
    let manifest = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    assert!(manifest.ends_with("programs: [/bin/busybox]\npresets: [base]\n"), "{manifest}");
}

fn users() {
    let (sandbox, _) = site("programs: [/bin/busybox]\n");
    let who = |user: &str| {
        let command = ["trace", "--json", "--user", user, "s", "--", "busybox", "id", "-un"];
        lines(&sandbox.run(&command).json()).join("; ")
    };
    assert_eq!(who("www-data"), "users: [www-data]");
    assert_eq!(who("root"), "users: [root]");
    sandbox.run(&["trace", "--write", "--up", "-u", "www-data", "s", "--", "busybox", "id", "-un"]);
    sandbox.ok(&["trace", "-u", "www-data", "s", "--", "busybox", "id", "-un"]).complains("www-data\n");
}

fn not_mounted() {
    let (sandbox, root) = site("programs: [/bin/busybox]\netc: [hosts]\n");
    nix::mount::umount(&root.join("etc/hosts")).unwrap();
    fs::remove_file(root.join("etc/hosts")).unwrap();
    let command = ["trace", "s", "--", "busybox", "cat", "/etc/hosts"];
    let ran = sandbox.run(&command).exits(1).complains("not all of its mounts are as they should be");
    ran.prints(
        "# in the manifest, but not mounted: `mountjail up s` brings it:\n#   /etc/hosts (open by busybox)\n",
    );
    sandbox.ok(&["up", "s"]);
    sandbox.ok(&command);
}

fn odd_manifest() {
    let sandbox = Sandbox::new();
    let root = sandbox.site("s", "");
    let odd = format!("root: {}\nprograms: &all [/bin/busybox]\nlibraries: *all\n", root.display());
    let file = sandbox.manifest("s", &odd);
    sandbox.ok(&["up", "s"]);
    sandbox
        .run(&["trace", "--write", "s", "--", "busybox", "env", "perl"])
        .exits(1)
        .complains("its YAML is written in a way that cannot be added to without disturbing it")
        .complains("try: add the lines by hand; the file is as it was");
    assert_eq!(fs::read_to_string(&file).unwrap(), odd);
}

fn kept() {
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
    sandbox.run(&["trace", "--write", "--up", "s", "--", "busybox", "env", "perl", "-v"]).exits(127);
    let before = fs::metadata(&real).unwrap();
    assert_eq!((before.mode() & 0o7777, before.gid()), (0o640, 33));
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap(), format!("{text}- /usr/bin/perl\r\n"));
    sandbox.ok(&["trace", "s", "--", "busybox", "env", "perl", "-v"]);
}

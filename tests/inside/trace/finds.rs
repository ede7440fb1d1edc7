//! What `trace` finds, and which lines it advises.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Trace, has, lines, refused, site, status};
use crate::lab::{Fpm, Server};
use crate::support::{Ran, Sandbox, empty_run, wait_until};

/// The PHP on this host: /usr/bin/php8.2.
fn php() -> PathBuf {
    let mut found: Vec<_> = glob::glob("/usr/bin/php[0-9]*")
        .unwrap()
        .map(Result::unwrap)
        .collect();
    found.sort();
    found
        .pop()
        .expect("php is installed: tests/install-dependencies")
}

/// A daemon that listens in a directory of its own below `/run`, which has nothing else.
pub fn daemon(name: &str) -> UnixListener {
    let directory = Path::new("/run").join(name);
    fs::create_dir(&directory).unwrap();
    let daemon = UnixListener::bind(directory.join("socket")).unwrap();
    fs::set_permissions(directory.join("socket"), fs::Permissions::from_mode(0o777)).unwrap();
    daemon
}

/// A preset by which the administrator lets sites reach the daemon.
fn preset(sandbox: &Sandbox, name: &str) {
    let text =
        format!("description: a daemon\nmounts: [{{ source: /run/{name}, optional: true }}]\n");
    sandbox.preset(&format!("daemon-of-{name}"), &text);
}

const SCRIPT: &str = r#"<?php
set_error_handler(function($n, $m) { throw new Exception($m); });
function check($name, $f) {
    try { echo "$name: ", json_encode($f()), "\n"; }
    catch (Throwable $e) { echo "$name failed\n"; }
}
check('zone', fn() => (new DateTime('2026-07-01', new DateTimeZone('Europe/Zurich')))->getOffset());
check('font', fn() => bin2hex(file_get_contents('FONT', false, null, 0, 4)));
check('socket', fn() => stream_socket_client('unix:///run/NAME/socket') !== false);
check('program', fn() => exec('/usr/bin/perl -e "print 6 * 7"'));
"#;

const ALL_WELL: &str = "zone: 7200\nfont: \"00010000\"\nsocket: true\nprogram: \"42\"\n";

fn font() -> String {
    let mut fonts = glob::glob("/usr/share/fonts/truetype/dejavu/*.ttf")
        .unwrap()
        .map(Result::unwrap);
    fonts
        .next()
        .expect("fonts-dejavu-core is installed: tests/install-dependencies")
        .display()
        .to_string()
}

pub fn script() {
    let php = php();
    let _daemon = daemon("script");
    let (sandbox, root) = site(&format!("programs: [{}] # PHP\n", php.display()));
    preset(&sandbox, "script");
    fs::write(
        root.join("a.php"),
        SCRIPT.replace("FONT", &font()).replace("NAME", "script"),
    )
    .unwrap();
    let run = |options: &[&str]| {
        let command = ["s", "--", php.to_str().unwrap(), "-n", "/a.php"];
        sandbox.ok(&[&["trace"], options, &command].concat())
    };
    let first = run(&["--json"]);
    for name in ["zone", "font", "socket", "program"] {
        assert!(
            first.stderr.contains(&format!("{name}: {name} failed\n")),
            "{first}"
        );
    }
    let report = first.json();
    for line in [
        "presets: [timezone]",
        "presets: [fonts]",
        "presets: [daemon-of-script]",
        "programs: [/bin/sh]",
    ] {
        has(&report, line);
    }
    assert_eq!(
        (&report["exit_code"], &report["written"]),
        (&Value::from(0), &Value::from(false))
    );
    assert!(report.get("nowhere").is_none());
    let nowhere = run(&["--json", "--all-misses"]).json()["nowhere"].to_string();
    assert!(nowhere.contains("/etc/ld.so.preload"), "{nowhere}");

    run(&["--write", "--up"])
        .prints("presets: [timezone]\n")
        .says("s: added ");
    let second =
        run(&["--write", "--up"]).prints("presets: [perl]\n  # /usr/bin/perl (exec by sh)\n");
    second
        .says("zone: 7200\nfont: \"00010000\"\nsocket: true\n")
        .says("/usr/bin/perl: not found");
    let last = run(&[])
        .says(ALL_WELL)
        .says("s: nothing was missing that the host has");
    assert_eq!(last.stdout, "");
    let manifest = fs::read_to_string(sandbox.path("config/sites/s.yaml")).unwrap();
    let head = format!(
        "root: {}\nprograms: [{}, /bin/sh] # PHP\n",
        root.display(),
        php.display()
    );
    assert!(manifest.starts_with(&head), "{manifest}");
    assert!(manifest.contains("presets: [timezone, "), "{manifest}");
    sandbox.ok(&["status", "s"]);
    sandbox.ok(&["down", "s"]);
}

/// systemd-notify(1) sends its message with the address, to a socket that it does not connect.
pub fn notified() {
    let _daemon = daemon("notified");
    let (sandbox, _) = site("presets: [shell]\nprograms: [/usr/bin/systemd-notify]\n");
    let command = "NOTIFY_SOCKET=/run/notified/socket systemd-notify --ready";
    let report = sandbox
        .run(&["trace", "--json", "s", "--", "sh", "-c", command])
        .json();
    refused(
        &report,
        "/run/notified/socket",
        "mounts: [{ source: /run/notified, optional: true }]",
    );
}

/// The worker's instructions, and its answers when nothing is missing.
const WORK: [(&str, &str); 4] = [
    (
        "(new DateTime('2026-07-01', new DateTimeZone('Europe/Zurich')))->getOffset()",
        "OK: 7200",
    ),
    (
        "bin2hex(file_get_contents('FONT', false, null, 0, 4))",
        "OK: \"00010000\"",
    ),
    (
        "stream_socket_client('unix:///run/NAME/socket') !== false",
        "OK: true",
    ),
    ("exec('/usr/bin/perl -e \"print 6 * 7\"')", "OK: \"42\""),
];

fn work(fpm: &Fpm, root: &Path, name: &str) -> Vec<bool> {
    let answer = |php: &str| fpm.eval(root, &php.replace("FONT", &font()).replace("NAME", name));
    WORK.iter()
        .map(|(php, good)| answer(php) == *good)
        .collect()
}

pub fn worker() {
    let _daemon = daemon("worker");
    let (sandbox, root) = site("# The lines that follow are all that there is.\n");
    preset(&sandbox, "worker");
    let fpm = Fpm::start(&sandbox, &root);
    let id = fpm
        .eval(&root, "getmypid()")
        .trim_start_matches("OK: ")
        .to_owned();
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
        "presets: [daemon-of-worker]",
        "programs: [/bin/sh]",
    ] {
        has(&report, line);
    }
    assert_eq!(
        (&report["written"], &report["exit_code"]),
        (&Value::from(true), &Value::Null)
    );
    let (well, report) = look(&["--write", "--up"]);
    assert_eq!(well, [true, true, true, false]);
    has(&report, "presets: [perl]");
    assert_eq!(
        work(&fpm, &root, "worker"),
        [true; 4],
        "the same worker, {id}"
    );
    assert_eq!(fpm.eval(&root, "getmypid()"), format!("OK: {id}"));
    drop(fpm);
    sandbox.ok(&["down", "s"]);
}

/// A control group that looks like a unit's, removed when dropped.
struct Unit(PathBuf);

impl Unit {
    fn new() -> Self {
        // The hierarchy in which systemd would keep its units: the one named after it, or the only
        // one.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = |kind: &str, option: &str| {
            let matches = |line: &&str| {
                line.split_once(" - ")
                    .is_some_and(|(_, fs)| fs.starts_with(kind) && fs.contains(option))
            };
            table
                .lines()
                .find(matches)
                .map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()))
        };
        let base = mounted("cgroup ", "name=systemd")
            .or_else(|| mounted("cgroup2 ", ""))
            .expect("a control group");
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
    /// Waits until its processes have ended, also if a test fails, but not for ever.
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

pub fn unit() {
    // Control groups are units where systemd runs: sd_booted(3).
    empty_run();
    fs::create_dir_all("/run/systemd/system").unwrap();
    let unit = Unit::new();
    let (sandbox, root) = site("presets: [base]\n");
    let fpm = Fpm::start(&sandbox, &root);
    let worker = |fpm: &Fpm| {
        fpm.eval(&root, "getmypid()")
            .trim_start_matches("OK: ")
            .to_owned()
    };
    let first = worker(&fpm);
    unit.take(fpm.master());
    unit.take(&first);
    let mut trace = Trace::start(&sandbox, &["--service", unit.name()]);
    trace.until("s: following 2 threads; Ctrl-C ends it");
    fpm.eval(
        &root,
        "file_get_contents('/usr/share/zoneinfo/Europe/Zurich')",
    );
    Ran::of(Command::new("kill").arg(&first)).exits(0);
    wait_until("the worker has ended", || {
        !Path::new(&format!("/proc/{first}")).exists()
    });
    assert_ne!(worker(&fpm), first, "the master starts another worker");
    fpm.eval(&root, "file_get_contents('/etc/hosts')");
    // A process that no followed process started.
    let busybox = root.join("busybox");
    fs::copy("/bin/busybox", &busybox).unwrap();
    let mut other = Command::new("chroot");
    other.arg(&root).args([
        "/busybox",
        "sh",
        "-c",
        "read x; while :; do /busybox cat /etc/debian_version; echo >>/rounds; /busybox usleep \
         100000; done",
    ]);
    let mut other = Server(
        other
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let id = other.0.id();
    unit.take(id);
    trace.until(&format!("(pid {id}, {}.service), too", unit.name()));
    other.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    wait_until("it looked some times", || {
        fs::metadata(root.join("rounds")).is_ok_and(|file| file.len() > 2)
    });
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
    nothing()
        .exits(2)
        .says("error: s: there is no unit no-such-thing.service\n  try: ");
    drop(fpm);
    let members = unit.0.join("cgroup.procs");
    wait_until("the workers have ended, too", || {
        fs::read_to_string(&members).unwrap().is_empty()
    });
    let name = format!("{}.service", unit.name());
    sandbox
        .run(&["trace", "s", "--service", &name])
        .exits(2)
        .says("there is no unit mountjail-test-");
}

pub fn streams() {
    let (sandbox, _) = site("presets: [shell]\n");
    let mut command = sandbox.command();
    command.env("LC_ALL", "C").args([
        "trace",
        "s",
        "--",
        "sh",
        "-c",
        "echo out; cat /etc/hosts; exit 42",
    ]);
    let ran = Ran::of(&mut command).exits(42);
    assert!(
        ran.stderr
            .starts_with("out\ncat: /etc/hosts: No such file or directory\n"),
        "{ran}"
    );
    ran.prints("presets: [dns]\n  # /etc/hosts (open by cat)\n")
        .says("s: --write adds 1 line to the manifest");
    let mut typed = sandbox.command();
    typed
        .args(["trace", "-q", "s", "--", "sh", "-c", "cat >&2; test -t 0"])
        .stdin(Stdio::piped());
    let mut typed = typed.stderr(Stdio::piped()).spawn().unwrap();
    typed.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let output = typed.wait_with_output().unwrap();
    assert_eq!(
        (output.stderr.as_slice(), output.status.code()),
        (b"typed\n".as_slice(), Some(1))
    );
    sandbox
        .run(&["trace", "s", "--", "sh", "-c", "kill -KILL $$"])
        .exits(128 + 9);
    let line = format!(
        "umask 027; exec {} trace s -- sh -c 'umask; ulimit -Sn'",
        env!("CARGO_BIN_EXE_mountjail")
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -Sn 123; {line}")]);
    shell
        .env("MOUNTJAIL_CONFIG_DIR", sandbox.config())
        .env("MOUNTJAIL_STATE_DIR", sandbox.state());
    Ran::of(&mut shell).exits(0).says("0027\n123\n");
    let ran = sandbox.run(&["trace", "s", "--", "perl", "-v"]).exits(127);
    ran.says("s: cannot run perl in the jail")
        .prints("presets: [perl]");
    sandbox.ok(&["down", "s"]);
    sandbox
        .run(&["trace", "s", "--", "sh"])
        .exits(1)
        .says("s: the site is not up");
}

/// The compiler for the other kind of program that this machine also runs.
const OTHER_COMPILER: &[&str] = if cfg!(target_arch = "aarch64") {
    &["arm-linux-gnueabihf-gcc"]
} else {
    &["gcc", "-m32"]
};

pub fn busybox() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    let report = sandbox
        .run(&["trace", "--json", "s", "--", "busybox", "cat", "/etc/hosts"])
        .exits(1)
        .json();
    assert_eq!(lines(&report), ["presets: [dns]"]);
    // That architecture has other system call numbers.
    let source = sandbox.file(
        "other.c",
        "#include <fcntl.h>\nint main(){return open(\"/etc/hosts\",0)<0?7:0;}\n",
    );
    let program = root.join("other");
    let mut compiler = Command::new(OTHER_COMPILER[0]);
    compiler.args(&OTHER_COMPILER[1..]).args(["-static", "-o"]);
    Ran::of(compiler.arg(&program).arg(source)).exits(0);
    let ran = sandbox
        .run(&["trace", "--json", "s", "--", "/other"])
        .exits(7);
    assert_eq!(ran.json()["not_followed"], serde_json::json!(["other"]));
    assert_eq!(lines(&ran.json()), Vec::<&str>::new());
    ran.says(
        "warning: s: other was not followed: it is of another architecture than this mountjail",
    );
}

pub fn interpreters() {
    let (sandbox, root) = site("");
    sandbox.program(root.join("script"), "#!/usr/bin/perl -w\n");
    let ran = sandbox
        .run(&["trace", "--json", "s", "--", "/script"])
        .exits(127);
    assert_eq!(lines(&ran.json()), ["presets: [perl]"]);
    ran.says("try: /script needs /usr/bin/perl: `");
    sandbox.program(root.join("nested"), "#!/script\n");
    let report = sandbox
        .run(&["trace", "--json", "s", "--", "/nested"])
        .exits(127)
        .json();
    assert_eq!(lines(&report), ["presets: [perl]"]);
    sandbox.program(root.join("none"), "#!/usr/bin/no-such-interpreter\n");
    let report = sandbox
        .run(&["trace", "--json", "--all-misses", "s", "--", "/none"])
        .exits(127)
        .json();
    assert_eq!(report["nowhere"][0]["path"], "/usr/bin/no-such-interpreter");
    Ran::of(
        Command::new("install")
            .args(["-m755", "/usr/bin/true"])
            .arg(root.join("true")),
    )
    .exits(0);
    let report = sandbox
        .run(&["trace", "--json", "s", "--", "/true"])
        .exits(127)
        .json();
    let loader = lines(&report)[0];
    assert!(
        loader.starts_with("libraries: [/lib") && loader.contains("ld-linux"),
        "{report:#}"
    );
    sandbox
        .run(&["trace", "--write", "--up", "s", "--", "/true"])
        .exits(127);
    let report = sandbox
        .run(&["trace", "--json", "s", "--", "/true"])
        .exits(127)
        .json();
    assert!(
        lines(&report).iter().any(|line| line.contains("libc.so.6")),
        "{report:#}"
    );
}

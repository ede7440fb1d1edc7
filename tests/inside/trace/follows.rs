//! Processes that are followed are not harmed; those that cannot be followed are reported.

use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::{Trace, lines, pid, refused, site, status};
use crate::lab::Server;
use crate::support::{Ran, wait_until};

const THREADS: &str = include_str!("threads.c");

pub fn threads() {
    let (sandbox, _) = site("etc: [host.conf]\n");
    sandbox.compile("srv/s/threads", THREADS);
    let ran = sandbox
        .run(&["trace", "--json", "--user", "root", "s", "--", "/threads"])
        .exits(5);
    assert_eq!(
        lines(&ran.json()),
        ["presets: [dns]", "presets: [perl]"],
        "{ran}"
    );
    let paths: Vec<_> = ran.json()["lines"][0]["misses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|miss| miss["path"].clone())
        .collect();
    assert_eq!(paths, ["/etc/hosts", "/etc/protocols", "/etc/services"]);
    refused(&ran.json(), "/proc/self/exe", "it shows the whole system");
}

const BUSY: &str = include_str!("busy.c");

pub fn busy() {
    let (sandbox, root) = site("");
    sandbox.compile("srv/s/busy", BUSY);
    let server = Server::start(Command::new("chroot").arg(&root).arg("/busy"));
    let id = server.0.id().to_string();
    let progress = || {
        let text = fs::read_to_string(root.join("progress")).unwrap_or_default();
        let mut numbers = text
            .split_whitespace()
            .map(|number| number.parse::<u64>().unwrap());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    wait_until("it works", || progress().0 > 0);
    for nth in 0..5 {
        let mut trace = Trace::start(&sandbox, &["--pid", &id]);
        trace.until("Ctrl-C ends it");
        // Twice: the first progress may have been made before it was followed.
        for _ in 0..2 {
            let before = progress().0;
            wait_until("it works while it is followed", || {
                progress().0 > before + 50
            });
        }
        let (code, report) = trace.end(if nth % 2 == 0 {
            Signal::SIGINT
        } else {
            Signal::SIGTERM
        });
        assert_eq!((code, lines(&report)), (0, vec!["presets: [dns]"]));
        let before = progress().0;
        wait_until("it works on", || progress().0 > before + 50);
        for thread in fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            assert!(
                status.is_empty() || status.contains("TracerPid:\t0\n"),
                "{status}"
            );
        }
    }
    // The tracer gets no chance to detach.
    let mut trace = Trace::start(&sandbox, &["--pid", &id]);
    trace.until("Ctrl-C ends it");
    trace.child.kill().unwrap();
    trace.child.wait().unwrap();
    let before = progress().0;
    wait_until("it works on", || progress().0 > before + 50);
    assert_eq!(progress().1, 0, "none of its calls went wrong");
}

pub fn interrupted() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    for (signal, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGINT, 130),
        (Signal::SIGHUP, 129),
    ] {
        let program = "echo pid $$ >&2; busybox cat /etc/hosts; while ! test -e /go; do :; done; \
                       echo done >/done";
        let mut trace = Trace::start(
            &sandbox,
            &["--user", "root", "--", "busybox", "sh", "-c", program],
        );
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
        wait_until("the command goes on to its end", || {
            root.join("done").exists()
        });
        fs::remove_file(root.join("go")).unwrap();
        fs::remove_file(root.join("done")).unwrap();
    }
}

pub fn left_running() {
    let (sandbox, root) = site("programs: [/bin/busybox]\ndevices: [\"null\"]\n");
    let program = "(while ! test -e /go; do busybox usleep 9999; done; busybox cat /etc/services) \
                   </dev/null & echo $!; exit 4";
    let start = || {
        let command = ["--", "busybox", "sh", "-c", program];
        let mut trace = Trace::start(&sandbox, &command);
        let mut line = String::new();
        trace.stderr.read_line(&mut line).unwrap();
        trace.until("the command has ended (exit code 4); following ");
        (trace, line.trim().parse::<u32>().unwrap())
    };
    let (trace, id) = start();
    let (code, report) = trace.end(Signal::SIGTERM);
    assert_eq!((code, &report["exit_code"]), (4, &Value::from(4)));
    assert_eq!(lines(&report), Vec::<&str>::new());
    assert_eq!(
        (status(id, "TracerPid:"), status(id, "Name:")),
        ("0".to_owned(), "busybox".to_owned())
    );
    kill(pid(id), Signal::SIGKILL).unwrap();

    let (trace, _) = start();
    fs::write(root.join("go"), "").unwrap();
    let (code, report) = trace.ended();
    assert_eq!((code, lines(&report)), (4, vec!["presets: [dns]"]));
}

pub fn endings() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    for nth in 0..40 {
        let mut child = Command::new("chroot");
        child
            .arg(&root)
            .args(["/bin/busybox", "usleep", &(nth * 1500).to_string()]);
        let mut child = child.spawn().unwrap();
        let ran = sandbox.run(&["trace", "s", "--pid", &child.id().to_string()]);
        let said = [
            "there is no such process, or it has ended",
            "it has ended",
            "is not inside",
            "following",
        ];
        assert!(
            ran.code <= 1 && said.iter().any(|said| ran.stderr.contains(said)),
            "{ran}"
        );
        // Its parent still learns how it ended.
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(
            !Path::new(&format!("/proc/{}", child.id())).exists(),
            "nothing is left of it"
        );
    }
    // A trace ends when all followed processes have ended, however many there were.
    let mut child = Command::new("chroot");
    let children =
        "PATH=/bin; read x; i=0; while [ $i -lt 300 ]; do busybox true; i=$((i+1)); done; exit 3";
    child
        .arg(&root)
        .args(["/bin/busybox", "sh", "-c", children]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    wait_until("it is inside", || {
        fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() == "busybox\n"
    });
    let mut trace = Trace::start(&sandbox, &["--pid", &child.id().to_string()]);
    trace.until("Ctrl-C ends it");
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(
        (
            child.wait().unwrap().code(),
            trace.child.wait().unwrap().code()
        ),
        (Some(3), Some(0))
    );
}

/// A unit is not started in another way, and nothing of systemd's is made.
pub fn no_systemd() {
    let (sandbox, _) = site("programs: [/bin/busybox]\n");
    let start = || sandbox.run(&["trace", "s", "--start", "app"]);
    start()
        .exits(1)
        .says("error: s: cannot start app: systemd does not run here")
        .says("try: run the daemon inside: `mountjail trace s -- CMD`");
    assert!(!Path::new("/run/systemd").exists());
    fs::create_dir_all("/run/systemd/system").unwrap();
    start().exits(2).says("there is no unit app.service");
    sandbox
        .run(&["trace", "s", "--start", "app", "--", "busybox"])
        .exits(2);
}

pub fn refusals() {
    let (sandbox, root) = site("programs: [/bin/busybox]\n");
    let trace = |arguments: &[&str]| sandbox.run(&[&["trace", "s"], arguments].concat());
    let mut inside = Command::new("chroot");
    inside
        .args(["--userspec=33:33"])
        .arg(&root)
        .args(["/bin/busybox", "sleep", "600"]);
    let inside = Server::start(&mut inside);
    let id = inside.0.id().to_string();
    wait_until("it is inside", || {
        fs::read_to_string(format!("/proc/{id}/comm")).unwrap() == "busybox\n"
    });

    let outside = Server::start(Command::new("sleep").arg("600"));
    trace(&["--pid", &outside.0.id().to_string()])
        .exits(1)
        .says(&format!(
            "error: s: sleep (pid {}) is not inside {}",
            outside.0.id(),
            root.display()
        ))
        .says(&format!(
            "try: follow one that is inside: busybox (pid {id})"
        ));
    trace(&["--pid", "4194304"])
        .exits(1)
        .says("there is no such process, or it has ended");
    trace(&["--pid", "4294967295"])
        .exits(1)
        .says("there is no such process, or it has ended");
    trace(&["--user", "nobody-here", "--", "busybox"])
        .exits(2)
        .says("there is no such user ");
    trace(&[]).exits(2);
    trace(&["--pid", "1", "--service", "x"]).exits(2);
    trace(&["--up", "--", "busybox"]).exits(2);
    sandbox
        .run(&["trace", "absent", "--", "busybox"])
        .exits(2)
        .says("there is no site absent");

    let strace = Server::start(Command::new("strace").args(["-o", "/dev/null", "-p", &id]));
    wait_until("strace follows it", || {
        status(&id, "TracerPid:") == strace.0.id().to_string()
    });
    trace(&["--pid", &id]).exits(1).says(&format!(
        "strace (pid {}) already follows it",
        strace.0.id()
    ));
    drop(strace);
    wait_until("strace has let it go", || status(&id, "TracerPid:") == "0");

    let mut weak = sandbox.command_under(&["setpriv", "--bounding-set", "-sys_ptrace"]);
    Ran::of(weak.args(["trace", "s", "--pid", &id]))
        .exits(1)
        .says("cannot follow busybox")
        .says("CAP_SYS_PTRACE");

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
    other
        .env("MOUNTJAIL_CONFIG_DIR", sandbox.config())
        .env("MOUNTJAIL_STATE_DIR", sandbox.state());
    Ran::of(&mut other).exits(1).says("needs root");
    assert_eq!(status(&id, "TracerPid:"), "0");
}

//! Promise: a file system that does not answer stops, slows and blinds nothing but its own site,
//! and each command ends.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Fuse, Mount, Ran, Sandbox, Watcher, alone, cores, for_each_engine_alone, line, mounts_below,
    replace, soon, soon_reads, wait_until,
};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The limit that the commands get, in seconds.
const LIMIT: &str = "1";

/// No command may take this long, not even on a busy machine.
const END: Duration = Duration::from_secs(300);

pub fn all() -> Vec<Trial> {
    let engines = [
        for_each_engine_alone(
            "up --all brings up the others while sources hang",
            |engine| {
                up_all(engine, Where::Source);
            },
        ),
        for_each_engine_alone("up --all brings up the others while roots hang", |engine| {
            up_all(engine, Where::Root);
        }),
    ];
    let others: [(&str, fn()); 19] = [
        ("every command ends while a source hangs", || {
            every_command(Where::Source);
        }),
        ("every command ends while a root hangs", || {
            every_command(Where::Root);
        }),
        ("a shell that captures the output is not held up", captured),
        ("a signal ends a command that waits", signals),
        ("an answer in time counts", slow),
        (
            "a signal ends a command that has just started",
            early_signal,
        ),
        ("a signal ends a command that takes it over", signal_between),
        (
            "a caller that ignores SIGCHLD changes nothing",
            sigchld_ignored,
        ),
        ("a holder of a lock that does not move is named", lock),
        ("a lock is waited for as long as its holder works", queue),
        ("two commands, the first one slow", two_commands),
        (
            "a link in / to a directory that hangs does not hang commands",
            link_in_slash,
        ),
        (
            "the others get their fstab lines while a source hangs",
            || {
                lines_of_the_others(Where::Source);
            },
        ),
        (
            "the others get their fstab lines while a root hangs",
            || {
                lines_of_the_others(Where::Root);
            },
        ),
        (
            "the others get their drop-ins while a manifest hangs",
            drop_ins_of_the_others,
        ),
        (
            "down --all takes down the others while a recorded manifest hangs",
            recorded_manifest,
        ),
        ("the watcher serves the others while sources hang", || {
            watch(Where::Source);
        }),
        ("the watcher serves the others while roots hang", || {
            watch(Where::Root);
        }),
        ("the watcher ends and its successor starts", successor),
    ];
    let others = others.map(|(name, body)| alone(name, body));
    engines.into_iter().flatten().chain(others).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Source,
    Root,
}

/// Sites `bad0`, `bad1` … on a FUSE file system each, or with a source on it, and good ones.
struct Sites {
    fuses: Vec<Fuse>,
    sandbox: Sandbox,
    bad: Vec<String>,
    good: Vec<String>,
}

impl Sites {
    fn new(sandbox: Sandbox, place: Where, bad: usize, good: usize) -> Self {
        let mut sites = Self {
            fuses: vec![],
            sandbox,
            bad: vec![],
            good: vec![],
        };
        let source = sites.sandbox.file("host/conf", "one");
        for nth in 0..bad {
            let name = format!("bad{nth}");
            let root = sites.sandbox.site(&name, "");
            let (point, mount) = match place {
                Where::Source => {
                    let point = sites.sandbox.directory(format!("remote{nth}"));
                    (point.clone(), line(&point.join("data"), "/data"))
                }
                Where::Root => (root.clone(), line(&source, "/etc/hosts")),
            };
            sites.fuses.push(Fuse::mount(&point, 0));
            sites
                .sandbox
                .manifest(&name, format!("root: {}\nmounts:\n{mount}", root.display()));
            sites.bad.push(name);
        }
        for nth in 0..good {
            let name = format!("good{nth}");
            sites
                .sandbox
                .site(&name, &format!("mounts:\n{}", line(&source, "/conf")));
            sites.good.push(name);
        }
        sites
    }

    fn hang(&self) {
        self.fuses.iter().for_each(Fuse::hang);
    }

    fn resume(&self) {
        self.fuses.iter().for_each(Fuse::resume);
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        bounded(
            self.sandbox
                .command()
                .args(["--timeout", LIMIT])
                .args(arguments),
        )
    }

    /// The file in a good site.
    fn conf(&self, site: &str) -> PathBuf {
        self.sandbox.root(site).join("conf")
    }

    fn is_up(&self, site: &str) -> bool {
        mounts_below(&self.sandbox.root(site))
            .iter()
            .any(|mount: &Mount| mount.point == self.conf(site))
    }

    /// Takes the site's lock.
    fn hold(&self, site: &str) -> fs::File {
        let held = self.sandbox.file(format!("state/run/{site}.lock"), "");
        let held = fs::File::open(held).unwrap();
        held.lock().unwrap();
        held
    }

    /// Whether nobody has the site's lock.
    fn lock_is_free(&self, site: &str) -> bool {
        let path = self.sandbox.state().join(format!("run/{site}.lock"));
        fs::File::open(path).map_or(true, |file| file.try_lock().is_ok())
    }
}

/// Runs a command, which must end by itself and leave nobody with its output open.
#[track_caller]
fn bounded(command: &mut Command) -> Ran {
    let start = Instant::now();
    let ran = Ran::of(command);
    assert!(
        start.elapsed() < END,
        "it took {:?}\n{ran}",
        start.elapsed()
    );
    ran
}

fn up_all(engine: &'static str, place: Where) {
    for bad in [1, cores(), 2 * cores() + 1] {
        let sites = Sites::new(Sandbox::with_engine(engine), place, bad, 4);
        sites.hang();
        let mut up = sites.sandbox.command();
        up.args(["up", "--all", "--timeout", "600"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut up = up.spawn().unwrap();
        soon("the good sites are up", || {
            match sites.good.iter().find(|site| !sites.is_up(site)) {
                Some(site) => Err(format!("{site} is not, with {bad} others that hang")),
                None => Ok(()),
            }
        });
        assert!(
            up.try_wait().unwrap().is_none(),
            "the others are still waited for"
        );
        kill(Pid::from_raw(up.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        let start = Instant::now();
        while up.try_wait().unwrap().is_none() {
            assert!(
                start.elapsed() < END,
                "SIGTERM does not end it:\n{}",
                threads_of(up.id())
            );
            thread::sleep(Duration::from_millis(10));
        }
        let ran = sites.run(&["up", "--all", "--json"]).exits(1);
        let json = ran.json();
        for site in json["sites"].as_array().unwrap() {
            let name = site["site"].as_str().unwrap();
            assert_eq!(site["up"], name.starts_with("good"), "{ran}");
            let silent = site["errors"]
                .to_string()
                .contains("did not answer within 1 s");
            assert_eq!(silent, name.starts_with("bad"), "{ran}");
        }
        assert_eq!(json["sites"].as_array().unwrap().len(), bad + 4, "{ran}");
        assert!(
            sites
                .bad
                .iter()
                .chain(&sites.good)
                .all(|site| sites.lock_is_free(site)),
            "{ran}"
        );
        sites.resume();
        sites.run(&["up", "--all"]).exits(0);
        sites.run(&["status"]).exits(0);
        sites.run(&["down", "--all"]).exits(0);
    }
}

fn every_command(place: Where) {
    let sites = Sites::new(Sandbox::new(), place, 1, 1);
    sites.run(&["up", "--all"]).exits(0);
    sites.hang();
    let point = match place {
        Where::Source => sites.sandbox.path("remote0"),
        Where::Root => sites.sandbox.root("bad0"),
    };
    let names_it = |ran: Ran| {
        let (path, kind) = (point.to_str().unwrap(), "of type fuse");
        ran.says("did not answer within 1 s")
            .says(path)
            .says(kind)
            .says("umount -f -l")
    };
    names_it(sites.run(&["status"]).exits(1))
        .prints("good0: up")
        .prints("bad0: not answering");
    let status = sites.run(&["status", "--json"]).exits(1).json();
    let state = |name: &str| {
        let sites = status["sites"].as_array().unwrap();
        sites.iter().find(|site| site["site"] == name).unwrap()["state"].clone()
    };
    assert_eq!(
        (state("good0"), state("bad0")),
        ("up".into(), "not answering".into()),
        "{status}"
    );
    sites.run(&["status", "--format", "prometheus"]).exits(1);
    names_it(sites.run(&["check"]).exits(1)).prints("good0: ok");
    names_it(sites.run(&["plan", "--all"]).exits(1)).prints("good0: ");
    names_it(sites.run(&["up", "bad0"]).exits(1));
    names_it(sites.run(&["watch", "--once"]).exits(1)).says("good0: in sync");
    names_it(sites.run(&["doctor", "bad0"]).exits(1));
    sites.run(&["why", "bad0", "/data"]);
    names_it(sites.run(&["exec", "bad0", "--", "/bin/true"]).exits(1));
    names_it(sites.run(&["trace", "bad0", "--", "/bin/true"]).exits(1));
    for command in [
        &["fstab", "--all"][..],
        &["units", "--all"],
        &["presets"],
        &["import"],
    ] {
        sites.run(command);
    }
    // A command that names only the other site does not wait.
    for command in ["status", "check", "up", "why", "doctor", "down", "up"] {
        let arguments = if command == "why" {
            vec![command, "good0", "/conf"]
        } else {
            vec![command, "good0"]
        };
        let ran = sites.run(&arguments).exits(0);
        assert!(!ran.stderr.contains("answer"), "{ran}");
    }
    match place {
        // Nothing has to be asked about a source.
        Where::Source => {
            sites
                .run(&["down", "bad0"])
                .exits(0)
                .says("1 mount detached");
            assert_eq!(mounts_below(&sites.sandbox.root("bad0")), []);
            sites
                .run(&["down", "--lazy", "bad0"])
                .exits(0)
                .says("its sources do not answer");
        }
        Where::Root => {
            names_it(sites.run(&["down", "bad0"]).exits(1));
            names_it(sites.run(&["down", "--lazy", "bad0"]).exits(1));
        }
    }
    sites.run(&["down", "--all", "--lazy"]);
    assert!(!sites.is_up("good0"));
    assert!(sites.lock_is_free("bad0") && sites.lock_is_free("good0"));
    sites.resume();
    sites.run(&["up", "--all"]).exits(0);
    sites.run(&["down", "--all"]).exits(0);
    assert!(mounts_below(&sites.sandbox.root("good0")).is_empty());
}

/// As a shell's `$(…)`, which waits until nobody can write any more.
fn captured() {
    let sites = Sites::new(Sandbox::new(), Where::Source, 3, 1);
    sites.run(&["up", "--all"]).exits(0);
    sites.hang();
    let script = "text=$(\"$0\" status --timeout 1 2>&1); echo \"code $?\"; echo \"$text\"";
    let mut shell = sites.sandbox.command_under(&["sh", "-c", script]);
    bounded(&mut shell)
        .prints("code 1")
        .prints("good0: up")
        .prints("bad2: not answering");
    let hook = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/hooks/packages-changed"
    );
    let binary = Path::new(env!("CARGO_BIN_EXE_mountjail")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut hook = sites.sandbox.command_under(&["sh", hook]);
    bounded(hook.env("PATH", path)).exits(0);
    sites.resume();
}

fn signals() {
    let sites = Sites::new(Sandbox::new(), Where::Source, 1, 1);
    sites.run(&["up", "--all"]).exits(0);
    sites.hang();
    let commands: [&[&str]; 5] = [
        &["up", "bad0"],
        &["status"],
        &["check"],
        &["plan", "--all"],
        &["doctor", "bad0"],
    ];
    for arguments in commands {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut command = sites.sandbox.command();
            let child = command
                .args(["--timeout", "0"])
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let child = child.spawn().unwrap();
            let pid = child.id();
            soon("a thread of it waits", || {
                if waits(pid) {
                    Ok(())
                } else {
                    Err(format!("{arguments:?}"))
                }
            });
            kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
            let start = Instant::now();
            let output = child.wait_with_output().unwrap();
            assert!(
                !output.status.success() && start.elapsed() < END,
                "{arguments:?}: {output:?}"
            );
        }
    }
    assert!(sites.lock_is_free("bad0"));
    sites.resume();
    sites.run(&["status"]).exits(0);
}

/// The kernel functions that the threads of a process and its descendants sleep in.
fn threads_of(pid: u32) -> String {
    let mut text = String::new();
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for process in [pid.to_string().as_str()]
        .into_iter()
        .chain(children.split_ascii_whitespace())
    {
        for thread in fs::read_dir(format!("/proc/{process}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let (path, call, stack) = (thread.path(), read("syscall"), read("stack"));
            text.extend([path.to_str().unwrap(), " ", call.trim(), " ", &stack, "\n"]);
        }
    }
    text
}

/// The worker of the mountjail that the process `tracer` started, if its thread `name` makes the
/// system call `number` now.
fn worker_in_call(tracer: u32, name: &str, number: i64) -> Option<Pid> {
    let children = |pid: &str| {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_ascii_whitespace()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    let number = number.to_string();
    let is_in_call = |worker: &String| {
        let threads = fs::read_dir(format!("/proc/{worker}/task"));
        threads.into_iter().flatten().flatten().any(|thread| {
            let read = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let call = read("syscall");
            read("comm").trim() == name && call.split_ascii_whitespace().next() == Some(&number)
        })
    };
    let supervisors = children(&tracer.to_string()).into_iter();
    let mut workers = supervisors.flat_map(|supervisor| children(&supervisor));
    let worker = workers.find(is_in_call)?;
    Some(Pid::from_raw(worker.parse().unwrap()))
}

/// Starts `mountjail` with these arguments under strace(1) with the `fault`, and sends its worker
/// SIGTERM once the worker's thread `name` makes the system call `number`.
fn with_early_signal(
    sandbox: &Sandbox,
    arguments: &[&str],
    fault: &str,
    (name, number): (&str, i64),
) -> Child {
    let runner = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", fault];
    let mut strace = sandbox.command_under(&runner);
    let strace = strace.args(arguments).stderr(Stdio::null());
    let strace = strace.stdout(Stdio::null()).spawn().unwrap();
    let worker = Cell::new(None);
    wait_until("the worker makes the call", || {
        worker.set(worker_in_call(strace.id(), name, number));
        worker.get().is_some()
    });
    kill(worker.get().unwrap(), Signal::SIGTERM).unwrap();
    strace
}

/// Whether a thread of what the process started waits for FUSE.
fn waits(pid: u32) -> bool {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_ascii_whitespace().any(|child| {
        let threads = fs::read_dir(format!("/proc/{child}/task"))
            .into_iter()
            .flatten()
            .flatten();
        threads
            .filter_map(|thread| fs::read_to_string(thread.path().join("wchan")).ok())
            .any(|wchan| wchan == "request_wait_answer" || wchan.starts_with("fuse"))
    })
}

fn slow() {
    let sites = Sites::new(Sandbox::new(), Where::Source, 1, 1);
    sites.hang();
    let mut command = sites.sandbox.command();
    let mut up = command
        .args(["--timeout", "600", "up", "--all"])
        .spawn()
        .unwrap();
    soon("the good site is up", || {
        if sites.is_up("good0") {
            Ok(())
        } else {
            Err(String::new())
        }
    });
    sites.resume();
    assert!(up.wait().unwrap().success());
    sites.run(&["status"]).exits(0);
}

/// The watcher must not lose a signal that comes while it takes signals into its own hands.
fn early_signal() {
    let sandbox = Sandbox::new();
    let fault = "inject=socketpair:delay_enter=2s:when=1";
    let call = ("command", libc::SYS_socketpair);
    let strace = RefCell::new(with_early_signal(&sandbox, &["watch"], fault, call));
    wait_until("the watcher ends", || {
        strace.borrow_mut().try_wait().unwrap().is_some()
    });
}

/// The signal comes after the worker catches signals, and its first thread looks at it only when
/// the command has also begun to.
fn signal_between() {
    let sandbox = Sandbox::new();
    for site in ["a", "b", "c"] {
        sandbox.site(site, "etc: [hosts]\n");
    }
    let fault = "inject=clone3:delay_enter=1s:delay_exit=1s";
    let call = ("mountjail", libc::SYS_clone3);
    let mut strace = with_early_signal(&sandbox, &["up", "--all"], fault, call);
    strace.wait().unwrap();
    for site in ["a", "b", "c"] {
        assert_eq!(mounts_below(&sandbox.root(site)), []);
    }
}

/// The kernel reaps the children of a process that ignores SIGCHLD, and tells it nothing. Python's
/// subprocess and daemons start programs so.
fn sigchld_ignored() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "etc: [hosts]\nprograms: [cat, grep]\nproc: true\n");
    let ignoring = ["env", "--ignore-signal=CHLD"];
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command_under(&ignoring);
        Ran::of(command.args(arguments))
    };
    let commands: [&[&str]; 5] = [
        &["up", "--all"],
        &["status"],
        &["check"],
        &["doctor", "s"],
        &["trace", "s", "--", "cat", "/etc/hosts"],
    ];
    for arguments in commands {
        run(arguments).exits(0);
    }
    let ignored = ["grep", "SigIgn", "/proc/self/status"];
    let inherited = Ran::of(Command::new("env").args(&ignoring[1..]).args(ignored));
    let inside = run(&[&["exec", "s", "--"], &ignored[..]].concat()).exits(0);
    assert_eq!(
        inside.stdout, inherited.stdout,
        "the program ignores it as well"
    );
    run(&["down", "--all"]).exits(0);
}

fn lock() {
    let sites = Sites::new(Sandbox::new(), Where::Source, 0, 2);
    sites.run(&["up", "--all"]).exits(0);
    let held = sites.hold("good0");
    let ran = sites.run(&["down", "--all"]).exits(1);
    ran.says(&format!(
        "another mountjail (pid {}) has the lock",
        std::process::id()
    ))
    .says("has not moved for 1 s");
    assert!(!sites.is_up("good1") && sites.is_up("good0"));
    drop(held);
    sites.run(&["down", "--all"]).exits(0);
}

fn queue() {
    let (locked, free) = (2 * cores() + 1, 2);
    let sites = Sites::new(Sandbox::new(), Where::Source, 0, locked + free);
    sites.run(&["up", "--all"]).exits(0);
    sites.run(&["down", "--all"]).exits(0);
    let held: Vec<_> = (0..locked)
        .map(|nth| sites.hold(&format!("good{nth}")))
        .collect();
    // This thread works, and signs as a mountjail does.
    let signature = format!("{} {}\n", std::process::id(), nix::unistd::gettid());
    for nth in 0..locked {
        let path = sites.sandbox.state().join(format!("run/good{nth}.lock"));
        fs::write(path, &signature).unwrap();
    }

    let mut up = sites.sandbox.command();
    let up = up.args(["--timeout", LIMIT, "up", "--all"]);
    let mut up = up.stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the other sites are up", || {
        (locked..locked + free).all(|nth| sites.is_up(&format!("good{nth}")))
    });
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        assert!(up.try_wait().unwrap().is_none(), "it waits");
        thread::sleep(Duration::from_millis(1));
    }
    drop(held);
    let output = up.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let waits = format!(
        "good0: waiting for another mountjail (pid {}) to finish",
        std::process::id()
    );
    assert!(text.contains(&waits), "{text}");
    sites.run(&["status"]).exits(0);
}

fn two_commands() {
    let sites = Sites::new(Sandbox::new(), Where::Source, 0, 1);
    sites.run(&["up", "--all"]).exits(0);
    sites.run(&["down", "--all"]).exits(0);
    let mut slow = sites
        .sandbox
        .command_with_fault("openat2:delay_enter=300ms", &[]);
    let slow = slow.args(["up", "good0"]).stderr(Stdio::null());
    let mut slow = slow.spawn().unwrap();
    wait_until("it has the lock", || !sites.lock_is_free("good0"));
    let ran = sites.run(&["up", "good0"]).exits(0);
    assert!(slow.wait().unwrap().success());
    ran.says("good0: waiting for another mountjail")
        .says("in sync");
}

/// A path that all sites look at.
fn link_in_slash() {
    let sites = Sites::new(Sandbox::new(), Where::Source, 1, 1);
    sites.hang();
    let link = Path::new("/mountjail-test-of-limits");
    let target = sites.sandbox.path("remote0/data");
    // Seen in this command's mount namespace alone: `/` is the host's.
    let script = format!(
        "mkdir -p {0}/upper {0}/work {0}/all && mount -t overlay -o \
         lowerdir=/,upperdir={0}/upper,workdir={0}/work \
         overlay {0}/all && ln -s {1} {0}/all{2} && mount --rbind {3} {0}/all{3} && mount -t proc \
         proc {0}/all/proc && \
         exec chroot {0}/all \"$0\" \"$@\"",
        sites.sandbox.directory("overlay").display(),
        target.display(),
        link.display(),
        sites.sandbox.path("").parent().unwrap().display(),
    );
    let mut up = sites
        .sandbox
        .command_under(&["unshare", "--mount", "sh", "-c", &script]);
    bounded(up.args(["--timeout", LIMIT, "up", "good0"])).exits(0);
    sites.resume();
}

fn watch(place: Where) {
    for bad in [1, 2 * cores() + 1] {
        let sites = Sites::new(Sandbox::new(), place, bad, 2);
        sites.run(&["up", "--all"]).exits(0);
        let watcher = Watcher::with(sites.sandbox.command().args(["watch", "--timeout", LIMIT]));
        sites.hang();
        // All sites are due, also those that hang.
        watcher.signal(Signal::SIGHUP);
        for text in ["two", "three"] {
            replace(&sites.sandbox.path("host/conf"), text);
            sites
                .good
                .iter()
                .for_each(|site| soon_reads(&sites.conf(site), text));
            soon("it knows who is silent", || {
                let failures = watcher.state(&sites.sandbox)["failures"].clone();
                let silent = failures
                    .to_string()
                    .matches("did not answer within 1 s")
                    .count();
                if silent == bad {
                    Ok(())
                } else {
                    Err(failures.to_string())
                }
            });
        }
        let said = watcher.said();
        assert_eq!(
            said.matches("error: bad0").count(),
            1,
            "it is reported once:\n{said}"
        );
        sites.resume();
        soon("all are right", || {
            let failures = watcher.state(&sites.sandbox)["failures"].clone();
            if failures == serde_json::json!({}) {
                Ok(())
            } else {
                Err(failures.to_string())
            }
        });
        watcher.end();
        sites.run(&["status"]).exits(0);
    }
}

fn successor() {
    let sites = Sites::new(Sandbox::new(), Where::Source, 1, 1);
    sites.run(&["up", "--all"]).exits(0);
    sites.hang();
    for _ in 0..2 {
        // The first pass covers all sites; the watcher begins to watch anyway.
        let watcher = Watcher::with(sites.sandbox.command().args(["watch", "--timeout", LIMIT]));
        watcher.says("bad0: ");
        watcher.end();
    }
    let watcher = Watcher::with(sites.sandbox.command().args(["watch", "--timeout", LIMIT]));
    watcher.says("bad0: ");
    watcher.crash();
    let watcher = Watcher::with(sites.sandbox.command().args(["watch", "--timeout", "600"]));
    sites.resume();
    replace(&sites.sandbox.path("host/conf"), "two");
    soon_reads(&sites.conf("good0"), "two");
    watcher.end();
    sites.run(&["status"]).exits(0);
}

/// `fstab` prints, compares and writes the lines of the sites that answer; those of the other one
/// stay.
fn lines_of_the_others(place: Where) {
    let sites = Sites::new(Sandbox::new(), place, 1, 1);
    let file = sites.sandbox.file("fstab", "# mine\n");
    let path = file.to_str().unwrap();
    let on_file = |action| sites.run(&["fstab", "--all", action, "--file", path]);
    on_file("--install").exits(0);
    let before = fs::read_to_string(&file).unwrap();
    let mut manifest = fs::OpenOptions::new()
        .append(true)
        .open(sites.sandbox.path("config/sites/good0.yaml"))
        .unwrap();
    std::io::Write::write_all(&mut manifest, b"devices: [zero]\n").unwrap();
    sites.hang();
    let silent = |ran: Ran| {
        ran.exits(1)
            .says("bad0: ")
            .says("did not answer within 1 s")
    };
    let printed = silent(sites.run(&["fstab", "--all"]));
    assert!(
        printed.stdout.contains("/dev/zero") && !printed.stdout.contains("bad0"),
        "{printed}"
    );
    silent(on_file("--check")).prints("good0: differs in ");
    silent(on_file("--install")).says("bad0: its lines in ");
    let after = fs::read_to_string(&file).unwrap();
    let of_bad = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.contains("bad0"));
        lines.map(ToOwned::to_owned).collect()
    };
    assert!(after.contains("/dev/zero"), "{after}");
    assert!(
        !of_bad(&before).is_empty() && of_bad(&before) == of_bad(&after),
        "{after}"
    );
    let ran = on_file("--uninstall").exits(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "# mine\n", "{ran}");
    assert!(
        fs::read_dir(sites.sandbox.root("good0"))
            .unwrap()
            .next()
            .is_none()
    );
    if place == Where::Root {
        ran.says("`mountjail down bad0` removes it");
    }
    sites.resume();
    sites.run(&["down", "bad0"]).exits(0);
}

/// A site whose manifest is a link to a file that does not answer.
fn with_a_manifest_that_hangs(sandbox: Sandbox) -> Sites {
    let mut sites = Sites::new(sandbox, Where::Source, 1, 1);
    let link = sites.sandbox.path("config/sites/bad0.yaml");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(sites.sandbox.path("remote0/data"), link).unwrap();
    sites.bad = vec!["bad0".to_owned()];
    sites
}

fn drop_ins_of_the_others() {
    let sites = with_a_manifest_that_hangs(Sandbox::new());
    let units = sites.sandbox.directory("units");
    let ours = "# Written by `mountjail units --install`.\n[Unit]\nAfter=bad-maker.service\n";
    let all = sites
        .sandbox
        .file("units/mountjail.service.d/50-mountjail.conf", ours);
    let service = units.join("good.service");
    fs::write(&service, "[Service]\nExecStart=/bin/true\n").unwrap();
    let root = sites.sandbox.root("good0");
    sites.sandbox.manifest(
        "good0",
        format!("root: {}\nservices: [good.service]\n", root.display()),
    );
    sites.hang();
    let run = |arguments: &[&str]| {
        let mut command = sites.sandbox.command();
        command
            .args(["--timeout", LIMIT, "units", "--dir"])
            .arg(&units);
        bounded(command.args(arguments))
            .exits(1)
            .says("bad0: ")
            .says("did not answer within 1 s")
    };
    run(&["--all"]).prints("\nAfter=mountjail.service\n");
    run(&["--all", "--check"]).prints("good.service.d/50-mountjail.conf is missing");
    run(&["--all", "--install"]).says("no line is taken out");
    let written = units.join("good.service.d/50-mountjail.conf");
    assert!(
        fs::read_to_string(written)
            .unwrap()
            .contains("After=mountjail.service")
    );
    assert_eq!(
        fs::read_to_string(all).unwrap(),
        ours,
        "it may be the site's that hangs"
    );
    sites.resume();
}

/// Whether another configuration brought up a site is asked of its manifest: without an answer it
/// stays, and no other does.
fn recorded_manifest() {
    let sites = Sites::new(Sandbox::new(), Where::Source, 1, 1);
    let theirs = sites.sandbox.path("remote0/data.yaml");
    sites.run(&["up", "--all"]).exits(0);
    let record = sites.sandbox.state().join("run/bad0.json");
    let text = fs::read_to_string(&record).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["manifest"] = theirs.to_str().unwrap().into();
    fs::write(&record, json.to_string()).unwrap();
    sites.hang();
    let ran = sites.run(&["down", "--all"]).exits(1);
    ran.says("bad0: left: its manifest does not answer")
        .says("good0: down");
    assert!(!sites.is_up("good0"));
    assert_eq!(mounts_below(&sites.sandbox.root("bad0")).len(), 1);
    sites.run(&["down", "bad0"]).exits(0);
    sites.resume();
}

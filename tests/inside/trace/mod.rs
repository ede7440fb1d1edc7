//! Promise: `trace` finds what a program misses in a jail, names the lines that bring it, and
//! leaves what it followed as it was.

mod finds;
mod follows;
mod hunt;
mod rights;
mod writes;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::support::{Sandbox, alone, empty_run, on_shared_root, trials};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub fn all() -> Vec<Trial> {
    let mut all = trials([
        (
            "a command keeps its streams and its exit code",
            finds::streams,
        ),
        (
            "a static program is followed, one of another architecture is reported",
            finds::busybox,
        ),
        (
            "missing interpreters and loaders are named",
            finds::interpreters,
        ),
        (
            "threads, forks, stops and real-time signals are followed",
            follows::threads,
        ),
        (
            "a busy process with threads and children can be followed again and again",
            follows::busy,
        ),
        ("a command runs on after a signal", follows::interrupted),
        (
            "processes that a command leaves running are followed, and let go by a signal",
            follows::left_running,
        ),
        ("processes may end at any moment", follows::endings),
        (
            "processes that cannot be followed are reported",
            follows::refusals,
        ),
        (
            "paths that no site should have are not advised",
            writes::private,
        ),
        (
            "a user whom the jail does not know is advised",
            writes::users,
        ),
        (
            "files that the manifest names but that are not mounted are reported",
            writes::not_mounted,
        ),
        (
            "a manifest that cannot be added to stays as it is",
            writes::odd_manifest,
        ),
        ("a Flask application works after two rounds", hunt::flask),
        ("a CGI in Perl works after two rounds", hunt::perl_cgi),
        ("objects on a mount with noexec are reported", hunt::noexec),
        ("writes to read-only mounts are reported", hunt::read_only),
        ("a directory that is closed is named", hunt::denied),
        (
            "a directory that may not be written to or read is named",
            rights::closed_directories,
        ),
        (
            "shared memory and other directories get a line",
            rights::shared_memory,
        ),
        (
            "a root whose own files cannot be executed is named",
            rights::root_without_execution,
        ),
        (
            "a program that is missing gets its remedy",
            hunt::no_program,
        ),
        ("a file made in a missing directory is reported", hunt::made),
        ("links that lead out are followed", hunt::links_out),
        ("a language comes with its preset", hunt::languages),
        (
            "directories of every host are not advised",
            hunt::components,
        ),
        ("a failing program is never well", hunt::fails_by_itself),
        (
            "programs that need /proc are named with its line",
            hunt::without_proc,
        ),
        (
            "directories for what programs make become the site's own",
            hunt::scratch,
        ),
        (
            "mode, owner and comments of the manifest stay",
            writes::kept,
        ),
    ]);
    all.push(alone(
        "an account that a program looks up is asked for",
        writes::other_users,
    ));
    all.extend(beside_daemons());
    all.push(on_shared_root(
        "the workers of a unit are followed, later ones too",
        finds::unit,
    ));
    all
}

/// Trials with daemons, each with a `/run` of its own.
fn beside_daemons() -> impl Iterator<Item = Trial> {
    let trials: [(&str, fn()); 6] = [
        ("without systemd no unit is started", follows::no_systemd),
        ("the socket of the log is brought by its preset", hunt::log),
        (
            "a PHP script misses files, and works with the lines written",
            finds::script,
        ),
        (
            "a message to the service manager names its socket",
            finds::notified,
        ),
        (
            "a running PHP-FPM worker is followed and goes on serving",
            finds::worker,
        ),
        (
            "sockets that no preset brings are reported",
            writes::sockets,
        ),
    ];
    trials.into_iter().map(|(name, body)| {
        alone(name, move || {
            empty_run();
            body();
        })
    })
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
    report["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["line"].as_str().unwrap())
        .collect()
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
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
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
        self.ended()
    }

    /// Its exit code and report, once it has ended by itself.
    fn ended(self) -> (i32, Value) {
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
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap()
        .trim()
        .to_owned()
}

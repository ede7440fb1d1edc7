//! Promise: `status --format nagios` is a plugin for Nagios: one line with performance data, and
//! exit code 0 for OK, 1 for WARNING, 2 for CRITICAL, 3 for UNKNOWN.

use std::fs;

use crate::support::{Sandbox, trials};
use libtest_mimic::Trial;

pub fn all() -> Vec<Trial> {
    trials([
        ("sites that are right are OK", ok),
        ("a site that has drifted is a WARNING", warning),
        ("a site that is down is CRITICAL", critical),
        ("sites that cannot be looked at are UNKNOWN", unknown),
        ("a wrong command line is UNKNOWN", usage),
        ("the worst site decides, and is named first", the_worst),
        ("no text breaks the line or adds data", hostile_text),
    ])
}

/// Runs the plugin; its line, without `MOUNTJAIL` and the end, in two parts.
#[track_caller]
fn plugin(sandbox: &Sandbox, code: i32, sites: &[&str]) -> (String, String) {
    let arguments = [&["status", "--format", "nagios"], sites].concat();
    let ran = sandbox.run(&arguments).exits(code);
    let line = ran.stdout.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "{ran}");
    let line = line
        .strip_prefix("MOUNTJAIL ")
        .unwrap_or_else(|| panic!("{ran}"));
    assert_eq!(
        line.matches('|').count(),
        usize::from(line.contains('=')),
        "{ran}"
    );
    let (text, data) = line.split_once(" | ").unwrap_or((line, ""));
    (text.to_owned(), data.to_owned())
}

/// A site of two files, one of which can be replaced.
fn two_sites() -> Sandbox {
    let sandbox = Sandbox::new();
    let file = sandbox.file("host/file", "old");
    let manifest = format!("devices: [\"null\"]\nmounts: [{}]\n", file.display());
    sandbox.site("a", &manifest);
    sandbox.site("b", "devices: [\"null\"]\n");
    sandbox.ok(&["up", "--all"]);
    sandbox
}

fn ok() {
    let sandbox = two_sites();
    let (text, data) = plugin(&sandbox, 0, &[]);
    assert_eq!(text, "OK - 2 sites");
    assert_eq!(
        data,
        "right=2;;;0;2 drifted=0;0;;0;2 down=0;;0;0;2 unknown=0;;;0;2 mounts_ok=3;;;0;3 \
         outdated_processes=0;;;0"
    );
    let (text, data) = plugin(&sandbox, 0, &["a"]);
    assert_eq!(text, "OK - 1 site");
    assert!(data.starts_with("right=1;;;0;1 "), "{data}");
}

fn drift(sandbox: &Sandbox) {
    let new = sandbox.file("host/new", "new");
    fs::rename(new, sandbox.path("host/file")).unwrap();
}

fn warning() {
    let sandbox = two_sites();
    drift(&sandbox);
    let (text, data) = plugin(&sandbox, 1, &[]);
    let root = sandbox.root("a").display().to_string();
    assert_eq!(
        text,
        format!(
            "WARNING - 1 of 2 sites is not right: a: drifted, 1 of 2 mounts ok, 1 stale in {root}"
        )
    );
    assert!(
        data.starts_with("right=1;;;0;2 drifted=1;0;;0;2 "),
        "{data}"
    );
}

fn critical() {
    let sandbox = two_sites();
    sandbox.ok(&["down", "b"]);
    let (text, data) = plugin(&sandbox, 2, &[]);
    assert!(
        text.starts_with("CRITICAL - 1 of 2 sites is not right: b: down, 0 of 1 mounts ok in "),
        "{text}"
    );
    assert!(
        data.contains(" down=1;;0;0;2 ") && data.contains(" mounts_ok=2;;;0;3 "),
        "{data}"
    );
}

fn unknown() {
    let sandbox = two_sites();
    sandbox.manifest("wrong", "root: relative\n");
    let (text, data) = plugin(&sandbox, 3, &[]);
    assert!(
        text.starts_with("UNKNOWN - 1 of 3 sites is not right: "),
        "{text}"
    );
    assert!(text.contains("root") && text.contains("relative"), "{text}");
    assert!(data.contains(" unknown=1;;;0;3 "), "{data}");
    let (text, _) = plugin(&sandbox, 3, &["no-such-site"]);
    assert!(
        text.starts_with("UNKNOWN - 1 of 1 site is not right: there is no site no-such-site"),
        "{text}"
    );
    // An error that ends the command.
    let (text, data) = plugin(&sandbox, 3, &["--output", "file"]);
    assert!(text.ends_with("; try: leave out --output"), "{text}");
    assert_eq!(data, "");
    // A file that is not a site hides no site.
    fs::remove_file(sandbox.config().join("sites/wrong.yaml")).unwrap();
    sandbox.manifest("no site", "root: /srv\n");
    let (text, _) = plugin(&sandbox, 3, &[]);
    assert_eq!(
        text,
        "UNKNOWN - 2 sites; a file of the configuration is not a site, `mountjail status` names it"
    );
    sandbox.ok(&["down", "b"]);
    let (text, _) = plugin(&sandbox, 2, &[]);
    assert!(
        text.starts_with("CRITICAL - ") && text.contains("is not a site"),
        "{text}"
    );
}

fn the_worst() {
    let sandbox = two_sites();
    drift(&sandbox);
    sandbox.manifest("aa-wrong", "root: relative\n");
    sandbox.ok(&["down", "b"]);
    let (text, _) = plugin(&sandbox, 2, &[]);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(
        text.starts_with("CRITICAL - 3 of 3 sites are not right: b: down"),
        "{text}"
    );
    assert!(at("relative") < at("; a: drifted"), "{text}");

    for nth in 0..8 {
        sandbox.site(&format!("more{nth}"), "devices: [zero]\n");
    }
    let (text, _) = plugin(&sandbox, 2, &[]);
    assert!(text.ends_with(" and 6 more"), "{text}");
}

fn hostile_text() {
    let sandbox = Sandbox::new();
    sandbox.site("s", "etc: [hosts]\n");
    sandbox.ok(&["up", "s"]);
    let root = sandbox.root("s");
    sandbox.ok(&["down", "s"]);
    // The owner chooses the target of a link, which the reason names.
    std::os::unix::fs::symlink("/x | down=0\nOK", root.join("etc")).unwrap();
    let (text, data) = plugin(&sandbox, 2, &[]);
    assert!(text.starts_with("CRITICAL - "), "{text}");
    assert!(data.starts_with("right=0;;;0;1 "), "{text} | {data}");
}

/// Exit code 2, as other commands have it, would be CRITICAL.
fn usage() {
    let sandbox = two_sites();
    let (text, data) = plugin(&sandbox, 3, &["--no-such-option"]);
    assert!(
        text.starts_with("UNKNOWN - unexpected argument '--no-such-option'"),
        "{text}"
    );
    assert_eq!(data, "");
    let ran = sandbox
        .run(&["status", "--json", "--format=nagios"])
        .exits(3);
    let _ = ran.prints("MOUNTJAIL UNKNOWN - ");
    let ran = sandbox
        .run(&["--bogus", "status", "--format", "nagios"])
        .exits(3);
    let _ = ran.prints("MOUNTJAIL UNKNOWN - ");
    sandbox
        .run(&["status", "--format", "nagios", "--help"])
        .exits(0);
    sandbox.run(&["status", "--no-such-option"]).exits(2);
}

//! Runs a page: one shell in namespaces of its own, on a host that it may change, does what the
//! page has its reader do, from the top to the bottom.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;

use super::page::{Item, Page};
use super::{read, top, updates};
use crate::support::{Ran, Sandbox};

/// Comes before what each command prints.
const MARK: char = '\u{1e}';

/// Comes between what a command prints and its exit code.
const END: char = '\u{1f}';

/// What became of a command.
#[derive(Debug)]
struct Done {
    printed: String,
    code: i32,
}

/// Fails unless each command prints what the page shows, or writes it there; and unless it ends
/// with the exit code that the page gives.
pub fn prints_what_it_shows(path: &Path) {
    let text = read(path);
    let page = Page::parse(&text);
    let done = run(&page);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut wrong = String::new();
    // From the bottom, so that the lines above keep their numbers.
    let commands = page.items.into_iter().filter_map(|item| match item {
        Item::Command {
            line,
            shown,
            code,
            at,
        } => Some((line, shown, code, at)),
        _ => None,
    });
    let commands: Vec<_> = commands.collect();
    assert_eq!(
        commands.len(),
        done.len(),
        "the shell ended early: {done:#?}"
    );
    let mut codes = String::new();
    for ((line, shown, code, at), done) in commands.into_iter().zip(done).rev() {
        let (number, printed) = (at.start, done.printed);
        if done.code != code {
            let ends = format!("ends with {}, not with {code}", done.code);
            codes.insert_str(0, &format!("line {number}: $ {line}\n  {ends}\n"));
        }
        if pattern(&shown).is_match(&(printed.clone() + "\n")) {
            continue;
        }
        let mut message = format!("line {number}: $ {line}\n--- shown\n{shown}\n");
        writeln!(message, "--- printed\n{printed}").unwrap();
        wrong.insert_str(0, &message);
        lines.splice(at, printed.lines().map(str::to_owned));
    }
    if updates() {
        fs::write(path, lines.join("\n") + "\n").unwrap();
    } else {
        assert!(wrong.is_empty(), "{}\n{wrong}{codes}", path.display());
    }
    assert!(codes.is_empty(), "{}\n{codes}", path.display());
}

/// What each command prints, on both streams, and its exit code.
fn run(page: &Page) -> Vec<Done> {
    let sandbox = Sandbox::new();
    let script = sandbox.file("page.sh", script(page));
    let host = top().join("tests/commands/book/host");
    let mut command = Command::new("timeout");
    command.args([
        "-k", "2", "300", "unshare", "--mount", "--pid", "--net", "--fork",
    ]);
    command.args(["--kill-child", "--mount-proc", "bash"]);
    command.arg(host).arg(sandbox.path("")).arg(script);
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("MOUNTJAIL", env!("CARGO_BIN_EXE_mountjail"))
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", "/root")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .stdin(std::process::Stdio::null());
    let ran = Ran::of(&mut command);
    assert!(ran.code == 0, "the page's shell failed\n{ran}");
    let parts = ran.stdout.split(MARK).skip(1);
    let done = parts.filter_map(|part| {
        let (printed, code) = part.split_once(END)?;
        Some(Done {
            printed: printed.trim_end().to_owned(),
            code: code.trim().parse().unwrap_or_else(|_| panic!("{part}")),
        })
    });
    done.collect()
}

/// The page as lines of the shell.
fn script(page: &Page) -> String {
    let mut script = String::new();
    for item in &page.items {
        match item {
            Item::Setup(lines) => {
                let lines = quoted(lines);
                writeln!(script, "setup {lines}").unwrap();
            }
            Item::File { path, text } => {
                let (path, text) = (quoted(path), quoted(text));
                writeln!(script, "file {path} {text}").unwrap();
            }
            Item::Command { line, .. } => {
                let end = format!("printf '{END}%s' $?");
                writeln!(script, "printf '{MARK}'\n{line}\n{end}").unwrap();
            }
        }
    }
    script
}

/// As one word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What a page shows as a pattern: `…` on a line of its own is any number of lines, elsewhere any
/// text; spaces are any number of spaces.
fn pattern(shown: &str) -> Regex {
    let spaces = Regex::new(" +").unwrap();
    let mut pattern = String::from("^");
    for line in shown.lines() {
        if line.trim() == "…" {
            pattern.push_str(r"(?:.*\n)*?");
            continue;
        }
        let line = regex::escape(line).replace('…', ".*");
        let line = spaces.replace_all(&line, " +");
        writeln!(pattern, "{line}").unwrap();
    }
    pattern.push_str(r"\n*$");
    Regex::new(&pattern).unwrap()
}

/// Fails unless patterns take what may vary, and nothing else.
pub fn patterns_are_strict() {
    let matches = |shown: &str, printed: &str| pattern(shown).is_match(printed);
    let shown = "site1: up, 8 mounts\n  …\n  stale  /etc/hosts (… another file)\n";
    let first = "site1: up, 8 mounts\n";
    let last = "  stale      /etc/hosts (it is another file)\n";
    assert!(matches(shown, &format!("{first}{last}")));
    assert!(matches(shown, &format!("{first}  ok\n  ok\n{last}")));
    assert!(matches("in sync", "in sync\n"));
    for printed in [
        first.to_owned(),
        last.to_owned(),
        format!("{first}{last}more\n"),
        format!("more\n{first}{last}"),
        format!("site1: down, 8 mounts\n{last}"),
        format!("site1: up, 9 mounts\n{last}"),
        format!("{first}  stale  /etc/services (it is another file)\n"),
    ] {
        assert!(!matches(shown, &printed), "{printed}");
    }
    assert!(!matches("", "an error\n") && !matches("in sync", ""));
}

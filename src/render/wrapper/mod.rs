//! The drop-in that starts a service by `mountjail run`: pure.
//!
//! A service's own command lines stay as they are written; each gets `mountjail run` before it.
//! Hardening of the unit that keeps this from working is named with the line that lets it work.

mod obstacles;
mod settings;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use self::settings::list;

use super::systemd::{DropIn, HEADER};
use crate::observe::UnitLine;

pub(crate) use obstacles::{StartObstacle, obstacles};

/// The name of the drop-in. It is read after those of others, such as `override.conf`, which
/// `systemctl edit` writes.
pub(crate) const WRAPPER: &str = "zz-mountjail.conf";

/// How mountjail is called.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// `/usr/bin/mountjail`
    pub program: PathBuf,
    /// Options such as `--config-dir`, before the command `run`.
    pub options: Vec<String>,
}

/// The path of the drop-in of `unit`, below the directory of units.
pub(crate) fn wrapper_of(unit: &str) -> PathBuf {
    Path::new(&format!("{unit}.d")).join(WRAPPER)
}

/// The drop-in of the service with these lines. `names`: those by which the sites list it; the
/// first one is its own.
pub(crate) fn wrapper(
    names: &[String],
    lines: &[UnitLine],
    call: &Call,
) -> Result<DropIn, StartObstacle> {
    let unit = names.first().map_or("", String::as_str);
    let mut text = format!(
        "{HEADER}\n# Its sites are mounted in a mount namespace of its own. Behind `--` are the \
         unit's own lines.\n[Service]\nExecStart=\n"
    );
    let starts = list(lines, "ExecStart");
    if starts.is_empty() {
        return Err(StartObstacle {
            what: "it has no ExecStart=".to_owned(),
            why: "there is nothing to start in a mount namespace",
            remedy: "name the service that runs inside the site in `services`".to_owned(),
        });
    }
    if let Some(late) = read_later(&starts) {
        return Err(late);
    }
    for start in starts {
        for command in commands(&start.value) {
            text.push_str("ExecStart=");
            text.push_str(&wrapped(command, names, call)?);
            text.push('\n');
        }
    }
    Ok(DropIn {
        path: wrapper_of(unit),
        text,
    })
}

/// A line in a drop-in that systemd reads after ours.
fn read_later(starts: &[&UnitLine]) -> Option<StartObstacle> {
    let file = &starts.iter().find(|start| is_after_ours(&start.file))?.file;
    Some(StartObstacle {
        what: format!("ExecStart= in {}", file.display()),
        why: "systemd reads it after mountjail's drop-in",
        remedy: format!("give it a name before {WRAPPER}"),
    })
}

fn is_after_ours(file: &Path) -> bool {
    let name = file.file_name().and_then(OsStr::to_str);
    let is_drop_in = file.extension() == Some(OsStr::new("conf"));
    is_drop_in && name > Some(WRAPPER)
}

/// The command lines of one value, which `;` separates.
fn commands(value: &str) -> Vec<&str> {
    let (mut found, mut begin) = (vec![], 0);
    for (start, end) in words(value) {
        if &value[start..end] == ";" {
            found.push(value[begin..start].trim());
            begin = end;
        }
    }
    found.push(value[begin..].trim());
    found.retain(|command| !command.is_empty());
    found
}

/// The words of a value, by where they begin and end: systemd.syntax(7) on quotes and escapes.
fn words(value: &str) -> Vec<(usize, usize)> {
    let mut found = vec![];
    let (mut begin, mut quote) = (None, None);
    let mut chars = value.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            ('\\', None) if chars.peek().is_some_and(|(_, next)| *next == '\n') => {
                found.extend(begin.take().map(|begin| (begin, at)));
            }
            ('\\', _) => {
                begin.get_or_insert(at);
                chars.next();
            }
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => {
                begin.get_or_insert(at);
                quote = Some(c);
            }
            (c, None) if c.is_ascii_whitespace() => {
                found.extend(begin.take().map(|begin| (begin, at)));
            }
            _ => {
                begin.get_or_insert(at);
            }
        }
    }
    found.extend(begin.map(|begin| (begin, value.len())));
    found
}

/// The command line, started by mountjail.
fn wrapped(command: &str, names: &[String], call: &Call) -> Result<String, StartObstacle> {
    let first = words(command).first().map_or(0, |(_, end)| *end);
    let (word, rest) = command.split_at(first);
    // The prefix may be within the quotes of the word.
    let (open, unquoted) = match word.strip_prefix(['"', '\'']) {
        Some(unquoted) => (&word[..1], unquoted),
        None => ("", word),
    };
    let path = unquoted.trim_start_matches(['-', '@', ':', '+', '!']);
    let prefix = &unquoted[..unquoted.len() - path.len()];
    let cannot = |why| StartObstacle {
        what: format!("ExecStart={}", command.replace("\\\n", " ")),
        why,
        remedy: "write `scope: host` in the manifest, or change the line".to_owned(),
    };
    if path.starts_with('|') {
        return Err(cannot("the prefix `|` has a shell start the command"));
    }
    if path.contains('$') {
        return Err(cannot("the program's path would differ as an argument"));
    }

    let mut line: String = prefix.chars().filter(|c| *c != '@').collect();
    line.push_str(&quoted(&call.program.to_string_lossy()));
    for option in &call.options {
        line.push(' ');
        line.push_str(&quoted(option));
    }
    line.push_str(" run");
    for name in names {
        line.push_str(" --unit ");
        line.push_str(&quoted(name));
    }
    if prefix.contains('@') {
        line.push_str(" --argv0");
    }
    line.push_str(" -- ");
    line.push_str(open);
    line.push_str(path);
    line.push_str(rest);
    Ok(line)
}

/// A word as it is written in a command line of a unit.
fn quoted(word: &str) -> String {
    let escaped = word
        .replace('\\', "\\\\")
        .replace('%', "%%")
        .replace('$', "$$");
    if escaped.contains([' ', '\t', '"', '\'', ';']) {
        format!("\"{}\"", escaped.replace('"', "\\\""))
    } else {
        escaped
    }
}

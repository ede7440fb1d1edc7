//! The drop-in that starts a service by `mountjail run`: pure.
//!
//! A service's own command lines stay as they are written; each gets `mountjail run` before it.
//! What of the unit's hardening keeps that from working is named with the line that lets it.

use std::path::{Path, PathBuf};

use super::systemd::{DropIn, HEADER};
use crate::observe::UnitLine;

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

/// Why a service cannot be started by `mountjail run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// `RestrictNamespaces=yes`, or what else is wrong.
    pub what: String,
    pub why: &'static str,
    /// The line that lets it, or what else to do.
    pub remedy: String,
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
) -> Result<DropIn, Obstacle> {
    let unit = names.first().map_or("", String::as_str);
    let mut text = format!(
        "{HEADER}\n# Its sites are mounted in a mount namespace of its own. Behind `--` are the \
         unit's own lines.\n[Service]\nExecStart=\n"
    );
    let starts = list(lines, "ExecStart");
    if starts.is_empty() {
        return Err(Obstacle {
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
fn read_later(starts: &[&UnitLine]) -> Option<Obstacle> {
    let is_later = |line: &&&UnitLine| {
        let name = line.file.file_name().and_then(|name| name.to_str());
        let is_drop_in = line.file.extension().is_some_and(|end| end == "conf");
        is_drop_in && name > Some(WRAPPER)
    };
    let file = &starts.iter().find(is_later)?.file;
    Some(Obstacle {
        what: format!("ExecStart= in {}", file.display()),
        why: "systemd reads it after mountjail's drop-in",
        remedy: format!("give it a name before {WRAPPER}"),
    })
}

/// The values of a list. An empty value removes those before it.
fn list<'l>(lines: &'l [UnitLine], key: &str) -> Vec<&'l UnitLine> {
    let mut found = vec![];
    for line in lines {
        if line.section != "Service" || line.key != key {
            continue;
        }
        if line.value.is_empty() {
            found.clear();
        } else {
            found.push(line);
        }
    }
    found
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
fn wrapped(command: &str, names: &[String], call: &Call) -> Result<String, Obstacle> {
    let first = words(command).first().map_or(0, |(_, end)| *end);
    let (word, rest) = command.split_at(first);
    // The prefix may be within the quotes of the word.
    let (open, unquoted) = match word.strip_prefix(['"', '\'']) {
        Some(unquoted) => (&word[..1], unquoted),
        None => ("", word),
    };
    let path = unquoted.trim_start_matches(['-', '@', ':', '+', '!']);
    let prefix = &unquoted[..unquoted.len() - path.len()];
    let cannot = |why| Obstacle {
        what: format!("ExecStart={}", command.replace("\\\n", " ")),
        why,
        remedy: "write `scope: host` in the manifest, or change the line".to_owned(),
    };
    if path.starts_with('|') {
        return Err(cannot("the prefix `|` has a shell start the command"));
    }
    if path.contains('$') {
        return Err(cannot(
            "as an argument, the program's path would be another one",
        ));
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

/// What keeps the service with these lines from mounting its sites in `roots` before it starts.
pub(crate) fn obstacles(lines: &[UnitLine], roots: &[&Path]) -> Vec<Obstacle> {
    let hidden = hidden_roots(lines, roots);
    [
        other_user(lines),
        capabilities(lines),
        namespaces(lines),
        system_calls(lines),
        private_users(lines),
        root_directory(lines),
        process_files(lines),
        hidden,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The last value of a setting; `None`: it has its default.
fn last<'l>(lines: &'l [UnitLine], key: &str) -> Option<&'l str> {
    let mut values = lines
        .iter()
        .filter(|line| line.section == "Service" && line.key == key);
    let value = values.next_back()?.value.as_str();
    (!value.is_empty()).then_some(value)
}

fn is_yes(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].contains(&value)
}

fn is_no(value: &str) -> bool {
    ["0", "no", "n", "false", "f", "off"].contains(&value)
}

fn obstacle(key: &str, value: &str, why: &'static str, remedy: impl Into<String>) -> Obstacle {
    Obstacle {
        what: format!("{key}={value}"),
        why,
        remedy: remedy.into(),
    }
}

fn other_user(lines: &[UnitLine]) -> Option<Obstacle> {
    let starts = list(lines, "ExecStart");
    let as_root = |line: &&UnitLine| {
        let prefix = line.value.trim_start_matches(['"', '\'']);
        let path = prefix.trim_start_matches(['-', '@', ':', '+', '!']);
        prefix[..prefix.len() - path.len()].contains(['+', '!'])
    };
    if !starts.is_empty() && starts.iter().all(as_root) {
        return None;
    }
    let why = "only root can mount, and enter a root";
    let remedy = "`scope: host` in the manifest, or `User=root` in the unit, if the daemon changes \
                  its user itself";
    if let Some(value) = last(lines, "DynamicUser").filter(|value| is_yes(value)) {
        return Some(obstacle("DynamicUser", value, why, remedy));
    }
    let user = last(lines, "User").filter(|user| *user != "root" && *user != "0")?;
    Some(obstacle("User", user, why, remedy))
}

/// Whether the bounding set has `CAP_SYS_ADMIN`. Later lines add to earlier ones, or take away.
fn has_sys_admin(lines: &[UnitLine]) -> bool {
    let mut has = None;
    for line in lines.iter().filter(|line| is_bounding_set(line)) {
        let is_named = |names: &str| names.split_ascii_whitespace().any(|n| n == "CAP_SYS_ADMIN");
        has = Some(match (line.value.strip_prefix('~'), has) {
            (Some(""), _) => true,
            (Some(names), before) => before.unwrap_or(true) && !is_named(names),
            (None, _) if line.value.is_empty() => false,
            (None, before) => before.unwrap_or(false) || is_named(&line.value),
        });
    }
    has.unwrap_or(true)
}

const BOUNDING_SET: &str = "CapabilityBoundingSet";

fn is_bounding_set(line: &UnitLine) -> bool {
    line.section == "Service" && line.key == BOUNDING_SET
}

fn capabilities(lines: &[UnitLine]) -> Option<Obstacle> {
    if has_sys_admin(lines) {
        return None;
    }
    let value = last(lines, BOUNDING_SET).unwrap_or_default();
    let why = "mounting needs CAP_SYS_ADMIN, which the service then has, too";
    let line = "`CapabilityBoundingSet=CAP_SYS_ADMIN`";
    Some(obstacle(BOUNDING_SET, value, why, line))
}

fn namespaces(lines: &[UnitLine]) -> Option<Obstacle> {
    const KEY: &str = "RestrictNamespaces";
    let mut allowed = true;
    let mut is_list = false;
    for line in lines
        .iter()
        .filter(|line| line.section == "Service" && line.key == KEY)
    {
        let value = line.value.as_str();
        if value.is_empty() || is_no(value) || is_yes(value) {
            allowed = !is_yes(value);
            is_list = is_yes(value);
            continue;
        }
        let (inverted, names) = match value.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, value),
        };
        let is_named = names.split_ascii_whitespace().any(|name| name == "mnt");
        allowed = if inverted {
            (allowed || !is_list) && !is_named
        } else {
            is_list && allowed || is_named
        };
        is_list = true;
    }
    let value = last(lines, KEY).unwrap_or_default();
    let why = "the service must not make a mount namespace";
    (!allowed).then(|| obstacle(KEY, value, why, "`RestrictNamespaces=mnt`"))
}

/// The groups of system calls that mountjail needs besides the ordinary ones, and the others that
/// have them, too.
const CALLS: [(&str, &[&str], &[&str]); 2] = [
    (
        "@mount",
        &["@mount"],
        &["mount", "move_mount", "open_tree", "umount2"],
    ),
    (
        "@process",
        &["@process", "@system-service"],
        &["unshare", "setns"],
    ),
];

fn system_calls(lines: &[UnitLine]) -> Option<Obstacle> {
    const KEY: &str = "SystemCallFilter";
    let values = list(lines, KEY);
    let first = values.first()?;
    let mut missing = vec![];
    for (group, groups, calls) in CALLS {
        let names = |word: &str| {
            let name = word.split(':').next().unwrap_or(word);
            groups.contains(&name) || calls.contains(&name)
        };
        let mut allowed = first.value.starts_with('~');
        for line in &values {
            let words = line.value.strip_prefix('~');
            let (adds, words) = (words.is_none(), words.unwrap_or(&line.value));
            if words.split_ascii_whitespace().any(names) {
                allowed = adds;
            }
        }
        if !allowed {
            missing.push(group);
        }
    }
    let value = last(lines, KEY).unwrap_or_default();
    let why = "the service must not mount";
    let line = format!("`SystemCallFilter={}`", missing.join(" "));
    (!missing.is_empty()).then(|| obstacle(KEY, value, why, line))
}

fn private_users(lines: &[UnitLine]) -> Option<Obstacle> {
    let value = last(lines, "PrivateUsers").filter(|value| !is_no(value))?;
    let why = "in a user namespace of its own, the service cannot bind what the host has";
    Some(obstacle("PrivateUsers", value, why, "`PrivateUsers=no`"))
}

fn root_directory(lines: &[UnitLine]) -> Option<Obstacle> {
    let why = "mountjail is not in that root";
    let remedy = "`scope: host` in the manifest";
    ["RootDirectory", "RootImage"].into_iter().find_map(|key| {
        let value = last(lines, key).filter(|value| *value != "/")?;
        Some(obstacle(key, value, why, remedy))
    })
}

fn process_files(lines: &[UnitLine]) -> Option<Obstacle> {
    let value = last(lines, "ProcSubset").filter(|value| *value == "pid")?;
    let why = "mountjail reads /proc/sys/kernel/random/boot_id";
    Some(obstacle("ProcSubset", value, why, "`ProcSubset=all`"))
}

fn hidden_roots(lines: &[UnitLine], roots: &[&Path]) -> Option<Obstacle> {
    let value = last(lines, "ProtectHome").filter(|value| is_yes(value) || *value == "tmpfs")?;
    let homes = ["/home", "/root", "/run/user"];
    let is_hidden = |root: &&Path| homes.iter().any(|home| root.starts_with(home));
    roots.iter().copied().find(is_hidden)?;
    let why = "the service does not see the site's root";
    Some(obstacle("ProtectHome", value, why, "`ProtectHome=no`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[(&str, &str)]) -> Vec<UnitLine> {
        let line = |(key, value): &(&str, &str)| UnitLine {
            file: "/etc/systemd/system/a.service".into(),
            section: "Service".to_owned(),
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        text.iter().map(line).collect()
    }

    fn starts(values: &[&str]) -> Result<Vec<String>, Obstacle> {
        let call = Call {
            program: "/usr/bin/mountjail".into(),
            options: vec![],
        };
        let values: Vec<_> = values.iter().map(|value| ("ExecStart", *value)).collect();
        let names = ["a\\x2d.service".to_owned()];
        let text = wrapper(&names, &lines(&values), &call)?.text;
        let (_, starts) = text.split_once("[Service]\nExecStart=\n").unwrap();
        Ok(starts
            .trim_end()
            .split("\nExecStart=")
            .map(ToOwned::to_owned)
            .collect())
    }

    #[test]
    fn command_lines_stay_as_they_are_written() {
        let run = "/usr/bin/mountjail run --unit a\\\\x2d.service";
        let cases = [
            ("/bin/a", format!("ExecStart={run} -- /bin/a")),
            (
                "-/bin/a $ARGS \"${B}\" 'c d' %i \\x20",
                format!("ExecStart=-{run} -- /bin/a $ARGS \"${{B}}\" 'c d' %i \\x20"),
            ),
            (
                "@/bin/a name x",
                format!("ExecStart={run} --argv0 -- /bin/a name x"),
            ),
            (
                "+:@-!!/bin/a n",
                format!("ExecStart=+:-!!{run} --argv0 -- /bin/a n"),
            ),
            (
                "\"-/bin/a b\" c",
                format!("ExecStart=-{run} -- \"/bin/a b\" c"),
            ),
            (
                "/bin/a \\\n  -b \\\n  -c",
                format!("ExecStart={run} -- /bin/a \\\n  -b \\\n  -c"),
            ),
            (
                "/bin/a \\; ';' b;",
                format!("ExecStart={run} -- /bin/a \\; ';' b;"),
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(starts(&[value]).unwrap(), [expected], "{value}");
        }
        let two = starts(&["/bin/old", "", "/bin/a 1 ; -/bin/b 2", "/bin/c"]).unwrap();
        let ends: Vec<_> = two
            .iter()
            .map(|line| line.split_once(" -- ").unwrap().1)
            .collect();
        assert_eq!(ends, ["/bin/a 1", "/bin/b 2", "/bin/c"]);
        for refused in [&["|/bin/a"][..], &["$A"], &[]] {
            assert!(starts(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn hardening_that_forbids_mounts_is_named_with_what_lets_it() {
        let of = |text: &[(&str, &str)]| -> Vec<String> {
            let found = obstacles(&lines(text), &[Path::new("/home/a/root")]);
            found.into_iter().map(|obstacle| obstacle.remedy).collect()
        };
        let allowed: &[&[(&str, &str)]] = &[
            &[
                ("User", "root"),
                ("NoNewPrivileges", "yes"),
                ("MemoryDenyWriteExecute", "yes"),
            ],
            &[("User", "x"), ("ExecStart", "-!/bin/a")],
            &[("RestrictNamespaces", "yes"), ("RestrictNamespaces", "mnt")],
            &[("RestrictNamespaces", "mnt uts")],
            &[("RestrictNamespaces", "~user")],
            &[("RestrictNamespaces", "no")],
            &[
                ("CapabilityBoundingSet", "CAP_CHOWN"),
                ("CapabilityBoundingSet", "CAP_SYS_ADMIN"),
            ],
            &[("CapabilityBoundingSet", "~CAP_CHOWN")],
            &[
                ("SystemCallFilter", "@system-service"),
                ("SystemCallFilter", "@mount"),
            ],
            &[("SystemCallFilter", "~@clock")],
            &[
                ("SystemCallFilter", "~@mount"),
                ("SystemCallFilter", "@mount"),
            ],
            &[("ProtectSystem", "strict"), ("ProtectHome", "read-only")],
            &[
                ("PrivateUsers", "yes"),
                ("PrivateUsers", "no"),
                ("RootDirectory", "/"),
            ],
        ];
        for text in allowed {
            assert_eq!(of(text), Vec::<String>::new(), "{text:?}");
        }
        let forbidden: &[(&[(&str, &str)], &str)] = &[
            (&[("User", "www-data")], "User=root"),
            (&[("DynamicUser", "yes")], "scope: host"),
            (&[("RestrictNamespaces", "yes")], "RestrictNamespaces=mnt"),
            (&[("RestrictNamespaces", "~mnt")], "RestrictNamespaces=mnt"),
            (&[("RestrictNamespaces", "uts")], "RestrictNamespaces=mnt"),
            (&[("CapabilityBoundingSet", "CAP_CHOWN")], "CAP_SYS_ADMIN"),
            (&[("CapabilityBoundingSet", "")], "CAP_SYS_ADMIN"),
            (
                &[("CapabilityBoundingSet", "~CAP_SYS_ADMIN")],
                "CAP_SYS_ADMIN",
            ),
            (
                &[("SystemCallFilter", "@system-service")],
                "`SystemCallFilter=@mount`",
            ),
            (
                &[("SystemCallFilter", "@basic-io")],
                "`SystemCallFilter=@mount @process`",
            ),
            (
                &[("SystemCallFilter", "~@mount")],
                "`SystemCallFilter=@mount`",
            ),
            (&[("PrivateUsers", "yes")], "PrivateUsers=no"),
            (&[("RootDirectory", "/srv/a")], "scope: host"),
            (&[("ProcSubset", "pid")], "ProcSubset=all"),
            (&[("ProtectHome", "tmpfs")], "ProtectHome=no"),
        ];
        for (text, remedy) in forbidden {
            let found = of(text);
            assert!(
                found.len() == 1 && found[0].contains(remedy),
                "{text:?}: {found:?}"
            );
        }
    }
}

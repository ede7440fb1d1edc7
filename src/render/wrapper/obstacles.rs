//! Hardening of a unit that keeps its sites from being mounted before it starts.

use std::path::Path;

use super::settings::{is_no, is_yes, last, list};
use crate::observe::UnitLine;

/// Why a service cannot be started by `mountjail run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartObstacle {
    /// `RestrictNamespaces=yes`, or what else is wrong.
    pub what: String,
    pub why: &'static str,
    /// The line that lets it, or what else to do.
    pub remedy: String,
}

/// The obstacles that keep the service with these lines from mounting its sites in `roots` before
/// it starts.
pub(crate) fn obstacles(lines: &[UnitLine], roots: &[&Path]) -> Vec<StartObstacle> {
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

fn obstacle(key: &str, value: &str, why: &'static str, remedy: impl Into<String>) -> StartObstacle {
    StartObstacle {
        what: format!("{key}={value}"),
        why,
        remedy: remedy.into(),
    }
}

fn other_user(lines: &[UnitLine]) -> Option<StartObstacle> {
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

fn capabilities(lines: &[UnitLine]) -> Option<StartObstacle> {
    if has_sys_admin(lines) {
        return None;
    }
    let value = last(lines, BOUNDING_SET).unwrap_or_default();
    let why = "mounting needs CAP_SYS_ADMIN, which the service then has, too";
    let line = "`CapabilityBoundingSet=CAP_SYS_ADMIN`";
    Some(obstacle(BOUNDING_SET, value, why, line))
}

fn namespaces(lines: &[UnitLine]) -> Option<StartObstacle> {
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

fn system_calls(lines: &[UnitLine]) -> Option<StartObstacle> {
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

fn private_users(lines: &[UnitLine]) -> Option<StartObstacle> {
    let value = last(lines, "PrivateUsers").filter(|value| !is_no(value))?;
    let why = "in a user namespace of its own, the service cannot bind what the host has";
    Some(obstacle("PrivateUsers", value, why, "`PrivateUsers=no`"))
}

fn root_directory(lines: &[UnitLine]) -> Option<StartObstacle> {
    let why = "mountjail is not in that root";
    let remedy = "`scope: host` in the manifest";
    ["RootDirectory", "RootImage"].into_iter().find_map(|key| {
        let value = last(lines, key).filter(|value| *value != "/")?;
        Some(obstacle(key, value, why, remedy))
    })
}

fn process_files(lines: &[UnitLine]) -> Option<StartObstacle> {
    let value = last(lines, "ProcSubset").filter(|value| *value == "pid")?;
    let why = "mountjail reads /proc/sys/kernel/random/boot_id";
    Some(obstacle("ProcSubset", value, why, "`ProcSubset=all`"))
}

fn hidden_roots(lines: &[UnitLine], roots: &[&Path]) -> Option<StartObstacle> {
    let value = last(lines, "ProtectHome").filter(|value| is_yes(value) || *value == "tmpfs")?;
    let homes = ["/home", "/root", "/run/user"];
    let is_hidden = |root: &&Path| homes.iter().any(|home| root.starts_with(home));
    roots.iter().copied().find(is_hidden)?;
    let why = "the service does not see the site's root";
    Some(obstacle("ProtectHome", value, why, "`ProtectHome=no`"))
}

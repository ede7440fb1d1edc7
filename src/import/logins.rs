//! The host's logins, for configuration that names groups of them.

use std::fs;

use nix::unistd::{Group, User};

use super::daemons::sshd::Login;

/// The login of this name.
pub(super) fn named(name: &str) -> Option<Login> {
    let user = User::from_name(name).ok().flatten()?;
    Some(Login {
        name: user.name,
        uid: user.uid.as_raw(),
        home: user.dir.display().to_string(),
    })
}

/// The members of a group, and those of `/etc/passwd` whose first group it is.
pub(super) fn of_group(name: &str) -> Vec<Login> {
    let Some(group) = Group::from_name(name).ok().flatten() else {
        return vec![];
    };
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let gid = group.gid.to_string();
    let first = passwd
        .lines()
        .filter(|line| line.split(':').nth(3) == Some(&gid))
        .filter_map(|line| line.split(':').next());
    let mut names: Vec<_> = group.mem.iter().map(String::as_str).chain(first).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter_map(named).collect()
}

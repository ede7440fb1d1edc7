//! The host's users, for configuration that names them or their groups.

use std::collections::BTreeSet;
use std::fs;

use nix::unistd::{Group, Uid, User};

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub name: String,
    pub uid: u32,
    pub home: String,
}

/// The user with this name.
pub(super) fn named(name: &str) -> Option<Login> {
    let user = User::from_name(name).ok().flatten()?;
    Some(Login {
        name: user.name,
        uid: user.uid.as_raw(),
        home: user.dir.display().to_string(),
    })
}

/// The name of the user `user`, which may be given by its id. `None`: the id has no name.
pub(super) fn name_of(user: &str) -> Option<String> {
    match user.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid))
            .ok()
            .flatten()
            .map(|user| user.name),
        Err(_) => Some(user.to_owned()),
    }
}

/// The members of a group, and the users of `/etc/passwd` whose primary group it is.
pub(super) fn of_group(name: &str) -> Vec<Login> {
    let Some(group) = Group::from_name(name).ok().flatten() else {
        return vec![];
    };
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd); // comments may be in another encoding
    let gid = group.gid.to_string();

    let mut names: BTreeSet<&str> = group.mem.iter().map(String::as_str).collect();
    for line in passwd.lines() {
        let fields: Vec<_> = line.split(':').collect();
        if fields.get(3) == Some(&gid.as_str()) {
            names.insert(fields[0]);
        }
    }
    names.into_iter().filter_map(named).collect()
}

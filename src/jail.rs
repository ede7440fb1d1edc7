//! Entering a root as a daemon does: which user, and the steps in their order.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, chdir, chroot, initgroups, setgid, setuid};

use serde::{Deserialize, Serialize};

use crate::manifest::HostPath;
use crate::resolve::WHERE_USERS_ARE;
use crate::{Error, Result};

/// Whom a process inside runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The login name on the host, by which the groups are found.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
}

impl From<&User> for Who {
    fn from(user: &User) -> Self {
        Self { name: user.name.clone(), uid: user.uid.as_raw(), gid: user.gid.as_raw() }
    }
}

/// The user of this host that `name` names, by name or id.
pub fn user(name: &str) -> Result<User> {
    let cannot = || Error::usage(format!("cannot run as the user {name}"));
    let found = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    let found = found.map_err(|error| cannot().because(&error.into()))?;
    found.ok_or_else(|| cannot().because_of(format!("there is no such user {WHERE_USERS_ARE}")))
}

/// The group of this host that `name` names, by name or id.
pub fn group(name: &str) -> Result<Gid> {
    let cannot = || Error::usage(format!("cannot run with the group {name}"));
    if let Ok(gid) = name.parse() {
        return Ok(Gid::from_raw(gid));
    }
    let found = Group::from_name(name).map_err(|error| cannot().because(&error.into()))?;
    found
        .map(|group| group.gid)
        .ok_or_else(|| cannot().because_of(format!("there is no such group {WHERE_USERS_ARE}")))
}

/// Enters the root and gives up what `who` does not have. The groups are looked up on the host.
pub fn enter(root: &HostPath, who: &Who) -> Result<()> {
    let cannot = |what: String| move |error: nix::Error| Error::failed(what).because(&error.into());
    let to_root = || format!("cannot enter the root {root}");
    let to_user = || format!("cannot become the user {}", who.name);
    let name = CString::new(who.name.as_str()).map_err(|_| Error::usage("a user's name has no NUL"))?;
    let gid = Gid::from_raw(who.gid);
    initgroups(&name, gid).map_err(cannot(to_user()))?;
    chroot(root.as_path()).map_err(cannot(to_root()))?;
    chdir("/").map_err(cannot(to_root()))?;
    setgid(gid).map_err(cannot(to_user()))?;
    setuid(Uid::from_raw(who.uid)).map_err(cannot(to_user()))
}

//! Entering a root as a daemon does: which user, and the steps in their order.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, chdir, chroot, initgroups, setgid, setuid};

use crate::manifest::HostPath;
use crate::{Error, Result};

/// The user of this host that `name` names, by name or id.
pub fn user(name: &str) -> Result<User> {
    let cannot = || Error::usage(format!("cannot run as the user {name}"));
    let found = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    let found = found.map_err(|error| cannot().because(&error.into()))?;
    found.ok_or_else(|| cannot().because_of("this host has no such user"))
}

/// The group of this host that `name` names, by name or id.
pub fn group(name: &str) -> Result<Gid> {
    let cannot = || Error::usage(format!("cannot run with the group {name}"));
    if let Ok(gid) = name.parse() {
        return Ok(Gid::from_raw(gid));
    }
    let found = Group::from_name(name).map_err(|error| cannot().because(&error.into()))?;
    found.map(|group| group.gid).ok_or_else(|| cannot().because_of("this host has no such group"))
}

/// Enters the root and gives up what `user` does not have. The groups are looked up on the host.
pub fn enter(root: &HostPath, user: &User) -> Result<()> {
    let cannot = |what: String| move |error: nix::Error| Error::failed(what).because(&error.into());
    let to_root = || format!("cannot enter the root {root}");
    let to_user = || format!("cannot become the user {}", user.name);
    let name = CString::new(user.name.as_str()).map_err(|_| Error::usage("a user's name has no NUL"))?;
    initgroups(&name, user.gid).map_err(cannot(to_user()))?;
    chroot(root.as_path()).map_err(cannot(to_root()))?;
    chdir("/").map_err(cannot(to_root()))?;
    setgid(user.gid).map_err(cannot(to_user()))?;
    setuid(user.uid).map_err(cannot(to_user()))
}

//! Entering a root as a daemon does: which user, and the steps in their order.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use nix::unistd::{
    AccessFlags, Gid, Group, Uid, User, access, chroot, fchdir, initgroups, setgid, setuid,
};
use serde::{Deserialize, Serialize};

use crate::base::{HostPath, JailPath};
use crate::resolve::WHERE_USERS_ARE;
use crate::{Error, Result, sys};

/// Whom a process inside runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailUser {
    /// The login name on the host, by which the groups are found.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
    /// The home directory on the host.
    pub home: PathBuf,
}

impl From<&User> for JailUser {
    fn from(user: &User) -> Self {
        Self {
            name: user.name.clone(),
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir.clone(),
        }
    }
}

impl JailUser {
    /// Whether a chroot does not hold it.
    pub fn is_root(&self) -> bool {
        self.uid == 0
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

/// Enters the root and gives up what `who` does not have: the caller's groups, which are looked up
/// on the host, keys and capabilities. Nothing of the jail runs before that.
pub fn enter(root: &HostPath, who: &JailUser) -> Result<()> {
    let cannot_enter =
        |error: io::Error| Error::failed(format!("cannot enter the root {root}")).because(&error);
    let cannot_become = |error: nix::Error| {
        Error::failed(format!("cannot become the user {}", who.name)).because(&error.into())
    };
    let name =
        CString::new(who.name.as_str()).map_err(|_| Error::usage("a user's name has no NUL"))?;
    let gid = Gid::from_raw(who.gid);
    initgroups(&name, gid).map_err(cannot_become)?;
    keep_off_the_keyboard()?;
    sys::leave_session_keyring().map_err(|error| {
        Error::failed("cannot keep the caller's keys (keyrings(7)) from what runs inside")
            .because(&error)
    })?;
    // As `up` opens it, through no link: the way there may have been changed by the site's owner
    // meanwhile.
    let directory =
        sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY).map_err(cannot_enter)?;
    let entered = fchdir(&directory).and_then(|()| chroot("."));
    entered.map_err(|error| cannot_enter(error.into()))?;
    setgid(gid).map_err(cannot_become)?;
    setuid(Uid::from_raw(who.uid)).map_err(cannot_become)?;
    if who.is_root() {
        return Ok(());
    }
    sys::drop_capabilities().map_err(|error| {
        Error::failed(format!(
            "cannot give up root's capabilities for {}",
            who.name
        ))
        .because(&error)
    })
}

/// The first of the directories `ways` that this process, which is inside, may not go through, and
/// why.
pub fn first_closed(ways: &[JailPath]) -> Option<(JailPath, io::Error)> {
    ways.iter()
        .find_map(|way| match access(way.as_path(), AccessFlags::X_OK) {
            Err(error @ (nix::Error::EACCES | nix::Error::EPERM)) => {
                Some((way.clone(), error.into()))
            }
            _ => None,
        })
}

/// Whoever has the caller's terminal could put a command line into it, which the caller's shell
/// would run as root.
fn keep_off_the_keyboard() -> Result<()> {
    // It can be opened by whoever has a terminal, and by nobody else.
    let terminal = || !matches!(File::open("/dev/tty"), Err(error) if error.raw_os_error() == Some(libc::ENXIO));
    match sys::forbid_typing() {
        Err(error) if terminal() => {
            let cannot =
                Error::failed("cannot keep what runs inside from typing into this terminal");
            Err(cannot
                .because(&error)
                .hint("run it without this terminal: `setsid --wait mountjail …`"))
        }
        _ => Ok(()),
    }
}

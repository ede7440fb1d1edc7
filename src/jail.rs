//! Entering a root as a daemon does: as which user, and by which steps.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::iter;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{
    AccessFlags, Gid, Group, Uid, User, access, chdir, chroot, fchdir, initgroups, setgid, setuid,
};
use serde::{Deserialize, Serialize};

use crate::base::quote::shell_path;
use crate::base::{ErrorContext, HostPath, JailPath};
use crate::manifest::{Manifest, Request};
use crate::resolve::WHERE_USERS_ARE;
use crate::{Error, Result, sys};

/// The user that a process inside runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JailUser {
    /// The login name on the host. The supplementary groups are looked up by it.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// The home directory on the host.
    pub home: PathBuf,
}

impl From<User> for JailUser {
    fn from(user: User) -> Self {
        Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            name: user.name,
            home: user.dir,
        }
    }
}

impl JailUser {
    /// A chroot does not confine root.
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// The user that a command inside runs as, unless another one is asked for: the first of
/// `pool_users`, which PHP-FPM's pools with this root run as, else the first of the manifest's
/// `users`, else nobody. It is never root: what lies in a root belongs to its owner, and a chroot
/// does not hold root.
pub(crate) fn choose_user<'u>(
    pool_users: impl IntoIterator<Item = &'u JailUser>,
    manifest: &Manifest,
) -> Result<JailUser> {
    for user in pool_users {
        if !user.is_root() {
            return Ok(user.clone());
        }
    }
    for entry in &manifest.entries {
        let Request::User(wanted) = &entry.request else {
            continue;
        };
        for name in &wanted.any_of {
            if let Ok(user) = user(name)
                && !user.is_root()
            {
                return Ok(user);
            }
        }
    }
    user("nobody")
}

/// The user of this host that `name` names, by name or id.
pub(crate) fn user(name: &str) -> Result<JailUser> {
    let found = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };

    let failed = Error::usage(format!("cannot run as the user {name}"));
    match found {
        Ok(Some(user)) => Ok(user.into()),
        Ok(None) => Err(failed.because_of(format!("there is no such user {WHERE_USERS_ARE}"))),
        Err(error) => Err(failed.because(&error.into())),
    }
}

/// The group of this host that `name` names, by name or id.
pub(crate) fn group(name: &str) -> Result<Gid> {
    if let Ok(gid) = name.parse() {
        return Ok(Gid::from_raw(gid));
    }

    let failed = Error::usage(format!("cannot run with the group {name}"));
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(failed.because_of(format!("there is no such group {WHERE_USERS_ARE}"))),
        Err(error) => Err(failed.because(&error.into())),
    }
}

/// Enters the root as `user`, and gives up what that user does not have: the caller's groups, keys
/// and capabilities. The groups are looked up on the host. No code of the jail runs before that.
pub(crate) fn enter(root: &HostPath, user: &JailUser) -> Result<()> {
    let directory = stand_before(root, user)?;
    let cannot_enter = format_args!("cannot enter the root {root}");
    system(fchdir(&directory)).context(cannot_enter)?;
    system(chroot(".")).context(cannot_enter)?;

    let cannot_become = format_args!("cannot become the user {}", user.name);
    system(setgid(Gid::from_raw(user.gid))).context(cannot_become)?;
    system(setuid(Uid::from_raw(user.uid))).context(cannot_become)?;
    if user.is_root() {
        return Ok(());
    }
    let name = &user.name;
    sys::drop_capabilities().context(format_args!(
        "cannot give up root's capabilities for {name}"
    ))
}

/// The first part of [`enter`], for a program of the host that enters by itself: only chroot(2) to
/// the directory that is returned, setgid(2) and setuid(2) are left to do. The working directory is
/// the host's root, since libraries read files in the working directory.
pub(crate) fn stand_before(root: &HostPath, user: &JailUser) -> Result<OwnedFd> {
    let Ok(name) = CString::new(user.name.as_str()) else {
        return Err(Error::usage("a user's name has no NUL"));
    };
    system(initgroups(&name, Gid::from_raw(user.gid)))
        .context(format_args!("cannot become the user {}", user.name))?;
    forbid_typing()?;
    sys::leave_session_keyring()
        .context("cannot keep the caller's keys (keyrings(7)) from what runs inside")?;

    let cannot_enter = format_args!("cannot enter the root {root}");
    let directory = open_root(root).context(cannot_enter)?;
    system(chdir("/")).context(cannot_enter)?;
    Ok(directory)
}

fn system<T>(result: nix::Result<T>) -> io::Result<T> {
    Ok(result?)
}

/// The root is opened as `up` opens it, through no link: the site's owner may have changed the way
/// to it meanwhile.
fn open_root(root: &HostPath) -> io::Result<OwnedFd> {
    sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY)
}

/// A program that has the caller's terminal could put a command line into it, which the caller's
/// shell would run as root (TIOCSTI).
fn forbid_typing() -> Result<()> {
    match sys::forbid_typing() {
        Err(error) if has_terminal() => {
            let what = "cannot keep what runs inside from typing into this terminal";
            Err(Error::failed(what)
                .because(&error)
                .hint("run it without this terminal: `setsid --wait mountjail …`"))
        }
        _ => Ok(()),
    }
}

/// `/dev/tty` can be opened by a process that has a terminal, and by no other.
fn has_terminal() -> bool {
    match File::open("/dev/tty") {
        Ok(_) => true,
        Err(error) => error.raw_os_error() != Some(libc::ENXIO),
    }
}

/// The command that lets `user` pass through a directory, which the host has at `path`, and which
/// has this mode, owner and perhaps an access list.
pub(crate) fn command_to_open(user: &JailUser, path: &Path, closed: &ClosedDirectory) -> String {
    let (path, name) = (shell_path(path), &user.name);
    if user.uid == closed.uid {
        format!("chmod u+x {path}")
    } else if closed.has_acl || closed.mode & 0o001 != 0 {
        format!("setfacl -m u:{name}:x {path}") // others may enter, and this user may not
    } else {
        format!("chmod o+x {path}")
    }
}

/// A directory that a user may not pass through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClosedDirectory {
    pub mode: u32,
    pub uid: u32,
    /// It has an access list (acl(5)), which may be stricter than the mode.
    pub has_acl: bool,
}

impl ClosedDirectory {
    /// The directory at `path`, as this process sees it.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let found = path.metadata()?;
        let acl = rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0u8; 4096]);
        Ok(Self {
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            has_acl: acl.is_ok(),
        })
    }
}

/// The first of the root and `directories` that this process, which is inside, may not pass
/// through, and why.
pub(crate) fn first_closed(directories: &[JailPath]) -> Option<(JailPath, io::Error)> {
    for directory in iter::once(&JailPath::slash()).chain(directories) {
        if let Err(error @ (nix::Error::EACCES | nix::Error::EPERM)) =
            access(directory.as_path(), AccessFlags::X_OK)
        {
            return Some((directory.clone(), error.into()));
        }
    }
    None
}

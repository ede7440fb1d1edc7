//! The user that `exec`, `trace` and `doctor` run as inside a root.

use crate::base::HostPath;
use crate::doctor::{self, PoolUser};
use crate::import::fpm;
use crate::jail::{self, JailUser};
use crate::manifest::{Manifest, Request};
use crate::{Error, Result};

/// The user of a command in `root`; `asked` is a user's name or id.
pub(super) fn command_user(
    asked: Option<&str>,
    root: &HostPath,
    manifest: &Manifest,
) -> Result<JailUser> {
    if let Some(name) = asked {
        return named(name);
    }
    let (pool_users, _) = doctor::pool_users(&fpm::configurations(), root)
        .map_err(|error| unreadable(error, "the user with --user"))?;
    user(None, &pool_users, manifest)
}

/// The user that was `asked` for, else that of the first pool, else the first of the manifest's
/// `users`, else nobody. It is root only if that was asked for: what lies in a root belongs to its
/// owner, and a chroot does not hold root.
pub(super) fn user(
    asked: Option<&str>,
    pool_users: &[PoolUser],
    manifest: &Manifest,
) -> Result<JailUser> {
    if let Some(name) = asked {
        return named(name);
    }
    for PoolUser { user, .. } in pool_users {
        if !user.is_root() {
            return Ok(user.clone());
        }
    }
    for entry in &manifest.entries {
        let Request::User(wanted) = &entry.request else {
            continue;
        };
        let listed = wanted.any_of.iter().filter_map(|name| named(name).ok());
        if let Some(who) = listed.into_iter().find(|who| !who.is_root()) {
            return Ok(who);
        }
    }
    named("nobody")
}

fn named(name: &str) -> Result<JailUser> {
    jail::user(name).map(|user| JailUser::from(&user))
}

/// Adds a hint to the error of a configuration of PHP-FPM that cannot be read: it may name the
/// user.
pub(super) fn unreadable(error: Error, instead: &str) -> Error {
    match error.hint_text() {
        Some(_) => error,
        None => error.hint(format!("repair PHP-FPM's configuration, or name {instead}")),
    }
}

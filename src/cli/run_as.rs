//! The user that `exec` and `trace` run as inside a root.

use crate::base::HostPath;
use crate::import::fpm::{self, PoolUser};
use crate::import::unit_file;
use crate::jail::{self, JailUser};
use crate::manifest::Manifest;
use crate::{Error, Result};

/// The user of a command in `root`; `asked` is a user's name or id.
pub(super) fn command_user(
    asked: Option<&str>,
    root: &HostPath,
    manifest: &Manifest,
) -> Result<JailUser> {
    if let Some(name) = asked {
        return jail::user(name);
    }
    let pools = fpm::pool_users(&fpm::configurations(), root)
        .map_err(|error| unreadable(error, "the user with --user"))?;
    choose(&pools.found, manifest)
}

/// The user of the pools, else that of the manifest's services, else as [`jail::choose_user`].
pub(super) fn choose(pools: &[PoolUser], manifest: &Manifest) -> Result<JailUser> {
    let of_pools = pools.iter().map(|pool| &pool.user);
    let mut of_services = vec![];
    for name in &manifest.services {
        if let Some(unit) = unit_file::named(name)
            && let Some(user) = unit.get("Service", "User")
        {
            of_services.extend(jail::user(&user.value).ok());
        }
    }
    jail::choose_user(of_pools.chain(&of_services), manifest)
}

/// Adds a hint to the error of a configuration of PHP-FPM that cannot be read: it may name the
/// user.
pub(super) fn unreadable(error: Error, instead: &str) -> Error {
    match error.hint_text() {
        Some(_) => error,
        None => error.hint(format!("repair PHP-FPM's configuration, or name {instead}")),
    }
}

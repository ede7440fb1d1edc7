//! The PHP-FPM pools that live in a root, with PHP's settings.

use std::path::PathBuf;

use super::{FpmConfiguration, Pool, configuration};
use crate::base::HostPath;
use crate::import::php::PhpSettings;
use crate::jail::{self, JailUser};
use crate::resolve::Host;
use crate::{Error, Result};

/// A pool in the root, with the user that its workers run as.
#[derive(Clone, Debug)]
pub(crate) struct PoolUser {
    pub pool: Pool,
    pub settings: PhpSettings,
    pub user: JailUser,
    /// The other pools of the same master process whose root is another one, by name: they share
    /// its cache of scripts.
    pub others: Vec<String>,
}

/// The pools of one root.
#[derive(Default)]
pub(crate) struct PoolUsers {
    pub found: Vec<PoolUser>,
    /// The mistakes in pools that were left out. Each may be one more pool of the root.
    pub left_out: Vec<Error>,
}

/// The pools of `masters` (configurations of PHP-FPM) whose chroot is `root`.
///
/// Errors: a configuration cannot be read, and might have the site's pool; a pool's user does not
/// exist.
pub(crate) fn pool_users(masters: &[PathBuf], root: &HostPath) -> Result<PoolUsers> {
    let host = Host::new();
    let mut users = PoolUsers::default();

    for master in masters {
        let FpmConfiguration { pools, errors, .. } = configuration(master)?;
        users.left_out.extend(errors);

        let (own, others): (Vec<_>, Vec<_>) = pools
            .into_iter()
            .partition(|pool| pool.lives_in(&host, root));
        let others: Vec<_> = others.into_iter().map(|pool| pool.name).collect();
        for pool in own {
            users.found.push(PoolUser {
                settings: PhpSettings::of_host(&pool),
                user: user_of(&pool).map_err(|error| of_pool(&pool, error))?,
                others: others.clone(),
                pool,
            });
        }
    }
    Ok(users)
}

/// The user and group that the pool's workers run as.
fn user_of(pool: &Pool) -> Result<JailUser> {
    let Some(user) = pool.get("user") else {
        return Err(Error::failed(
            "it names no `user`, without which PHP-FPM does not start it as root",
        ));
    };
    let user = jail::user(user)?;
    let gid = match pool.get("group") {
        Some(group) => jail::group(group)?.as_raw(),
        None => user.gid,
    };
    Ok(JailUser { gid, ..user })
}

fn of_pool(pool: &Pool, error: Error) -> Error {
    error.context(format_args!(
        "pool {} of {}",
        pool.name,
        pool.file.display()
    ))
}

//! The PHP-FPM pools that live in a root, with PHP's settings.

use std::path::PathBuf;

use crate::base::HostPath;
use crate::import::fpm::{self, FpmConfiguration, Pool};
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

/// The pools of `masters` (configurations of PHP-FPM) whose chroot is `root`, and what is wrong
/// with pools that were left out. Each of these may be one more pool of the root.
///
/// Errors: a configuration cannot be read, and might have the site's pool; a pool's user does not
/// exist.
pub(crate) fn pool_users(
    masters: &[PathBuf],
    root: &HostPath,
) -> Result<(Vec<PoolUser>, Vec<Error>)> {
    let host = Host::new();
    let mut pool_users = vec![];
    let mut left_out = vec![];

    for master in masters {
        let FpmConfiguration { pools, errors, .. } = fpm::configuration(master)?;
        left_out.extend(errors);

        let (own, others): (Vec<_>, Vec<_>) = pools
            .into_iter()
            .partition(|pool| pool.lives_in(&host, root));
        let others: Vec<_> = others.into_iter().map(|pool| pool.name).collect();
        for pool in own {
            pool_users.push(PoolUser {
                settings: PhpSettings::new(&pool),
                user: user_of(&pool).map_err(|error| of_pool(&pool, error))?,
                others: others.clone(),
                pool,
            });
        }
    }
    Ok((pool_users, left_out))
}

/// The user and group that the pool's workers run as.
fn user_of(pool: &Pool) -> Result<JailUser> {
    let Some(user) = pool.get("user") else {
        return Err(
            Error::failed("it names no `user`").hint("PHP-FPM does not start such a pool as root")
        );
    };
    let user = jail::user(user)?;
    let gid = match pool.get("group") {
        Some(group) => jail::group(group)?,
        None => user.gid,
    };
    Ok(JailUser {
        gid: gid.as_raw(),
        ..JailUser::from(&user)
    })
}

fn of_pool(pool: &Pool, error: Error) -> Error {
    error.context(format_args!(
        "pool {} of {}",
        pool.name,
        pool.file.display()
    ))
}

impl PoolUser {
    /// Where PHP puts temporary files, if nothing more special is set.
    pub(super) fn temporary_directory(&self) -> &str {
        self.settings
            .get("sys_temp_dir")
            .or(self.pool.get("env[TMPDIR]"))
            .unwrap_or("/tmp")
    }
}

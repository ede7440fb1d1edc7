//! The PHP-FPM pools that live in a root, with PHP's settings.

use std::path::PathBuf;

use nix::unistd::User;

use crate::base::HostPath;
use crate::import::fpm::{self, FpmConfiguration, Pool};
use crate::import::php::PhpSettings;
use crate::jail::{self, JailUser};
use crate::resolve::Host;
use crate::{Error, Result};

/// A pool in the root.
#[derive(Clone, Debug)]
pub struct PoolUser {
    /// Its directives.
    pub pool: Pool,
    /// PHP's settings in it.
    pub settings: PhpSettings,
    /// Whom its workers run as.
    pub who: JailUser,
    /// The other pools of the same master process that see another root, by name: they share its
    /// cache of scripts.
    pub others: Vec<String>,
}

/// The pools of `masters` (configurations of PHP-FPM) whose chroot is `root`, and what is wrong
/// with pools that were left out, of which each may be one more.
///
/// Errors: a configuration cannot be read, which may be the one with the site's pool; a pool's user
/// is none.
pub fn pool_users(masters: &[PathBuf], root: &HostPath) -> Result<(Vec<PoolUser>, Vec<Error>)> {
    let (mut pool_users, mut odd, host) = (vec![], vec![], Host::new());
    for master in masters {
        let FpmConfiguration { pools, errors, .. } = fpm::configuration(master)?;
        odd.extend(errors);
        for pool in pools.iter().filter(|pool| pool.lives_in(&host, root)) {
            let elsewhere = pools.iter().filter(|other| !other.lives_in(&host, root));
            pool_users.push(PoolUser {
                pool: pool.clone(),
                settings: PhpSettings::of(pool),
                who: who(pool)?,
                others: elsewhere.map(|other| other.name.clone()).collect(),
            });
        }
    }
    Ok((pool_users, odd))
}

fn who(pool: &Pool) -> Result<JailUser> {
    let of_pool = |error: Error| {
        error.context(format_args!(
            "pool {} of {}",
            pool.name,
            pool.file.display()
        ))
    };
    let user = pool.get("user").ok_or_else(|| {
        of_pool(
            Error::failed("it names no `user`").hint("PHP-FPM does not start such a pool as root"),
        )
    })?;
    let user: User = jail::user(user).map_err(of_pool)?;
    let group = pool
        .get("group")
        .map(jail::group)
        .transpose()
        .map_err(of_pool)?;
    Ok(JailUser {
        gid: group.unwrap_or(user.gid).as_raw(),
        ..JailUser::from(&user)
    })
}

impl PoolUser {
    /// A setting that is the same in all that asks for it, or the default.
    pub(super) fn temporary_directory(&self) -> &str {
        self.settings
            .get("sys_temp_dir")
            .or(self.pool.get("env[TMPDIR]"))
            .unwrap_or("/tmp")
    }
}

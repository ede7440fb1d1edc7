//! PHP-FPM's configuration, read as PHP-FPM reads it. `php-fpm -tt` prints the same values.

mod drafts;
mod master;
mod masters;
mod needs;
mod of_units;
mod paths;
mod pool;
mod pool_user;
mod prefix;
mod reader;
mod refused;

use std::path::{Path, PathBuf};

pub(crate) use drafts::drafts;
pub(crate) use drafts::shared_cache;
pub use master::Master;
pub use masters::masters;
pub(crate) use paths::{Included, Written, included_by, mode_of_written, written_by};
pub use pool::{FpmConfiguration, Pool};
pub(crate) use pool_user::{PoolUser, pool_users};

use super::glob3::matching;
use crate::Result;

/// The pools of `path`: a php-fpm.conf, a single pool's file, or a directory such as
/// `/etc/php/8.2/fpm`.
///
/// Errors: a file cannot be read; no pool could be read at all, and what is wrong.
pub fn pools(path: &Path) -> Result<Vec<Pool>> {
    configuration(path).map(|configuration| configuration.pools)
}

/// Like [`pools`], and also what is wrong with pools that are left out.
pub(crate) fn configuration(path: &Path) -> Result<FpmConfiguration> {
    let mut configuration = read(path, None, &masters())?;
    match configuration.errors.pop() {
        Some(error) if configuration.pools.is_empty() => Err(error),
        error => {
            configuration.errors.extend(error);
            Ok(configuration)
        }
    }
}

/// The configurations of this host, one per master process.
pub(crate) fn configurations() -> Vec<PathBuf> {
    masters().into_iter().map(|master| master.config).collect()
}

/// The configuration `path`, as its master process among `masters` reads it. Relative paths begin
/// at `prefix`, otherwise at the master's prefix, otherwise at the one that the path suggests.
///
/// Errors: `path` itself cannot be read.
pub fn read(path: &Path, prefix: Option<&Path>, masters: &[Master]) -> Result<FpmConfiguration> {
    let file = if path.is_dir() {
        path.join("php-fpm.conf")
    } else {
        path.to_owned()
    };
    let master = match masters::of_file(masters, &file) {
        Some(master) => master.clone(),
        None => Master::guessed(&file),
    };
    let files = if path.is_dir() && !file.exists() {
        matching(&path.join("*.conf"))?
    } else {
        vec![file.clone()]
    };

    let mut configuration = match (prefix, master.unsure_of_prefix) {
        (None, Some(pid)) => prefix::files(&files, &master, pid)?,
        _ => reader::files(&files, Some(prefix.unwrap_or(&master.prefix)), &master)?,
    };
    for pool in &mut configuration.pools {
        pool.unit.clone_from(&master.unit);
    }
    let is_jailed = |pool: &Pool| pool.chroot().is_some();
    if master.unit.is_none() && configuration.pools.iter().any(is_jailed) {
        configuration.warnings.push(format!(
            "{}: the unit that starts its master process is not known: name it under `services`, \
             so \
             that it starts after the mounts",
            file.display()
        ));
    }
    let shared_cache = shared_cache(&configuration.pools);
    configuration.warnings.extend(shared_cache);
    Ok(configuration)
}

//! PHP-FPM's configuration, read as PHP-FPM reads it: `php-fpm -tt` prints the same.

mod drafts;
mod masters;
mod reader;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(crate) use drafts::drafts;
pub(crate) use drafts::shared_cache;
pub use masters::{Master, masters};

use super::php_ini::PhpValue;
use crate::base::HostPath;
use crate::resolve::Host;
use crate::{Error, Result};

/// One pool, its directives with `$pool`, `$prefix` and variables filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// `[www]`
    pub name: String,
    /// Where its section begins.
    pub file: PathBuf,
    /// The line of it, from 1.
    pub line: usize,
    /// The unit of its master process.
    pub unit: Option<String>,
    /// What the administrator should look at: sentences.
    pub remarks: Vec<String>,
    /// The values by their names in lower case.
    directives: HashMap<String, PhpValue>,
}

/// What one master process reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FpmConfiguration {
    /// The pools, but the odd ones, in the order in which they are begun.
    pub pools: Vec<Pool>,
    /// What is wrong: with a pool, which is left out then, or with what no pool is about.
    pub errors: Vec<Error>,
    /// What the administrator should look at: sentences.
    pub warnings: Vec<String>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

impl Pool {
    /// The value of a directive such as `chroot`, if it is set and not empty.
    pub fn get(&self, directive: &str) -> Option<&str> {
        self.known(directive).filter(|value| !value.is_empty())
    }

    /// As [`Pool::get`], also where it is set and empty.
    fn known(&self, directive: &str) -> Option<&str> {
        let value = self
            .directives
            .get(directive)
            .filter(|value| value.unknown.is_none())?;
        Some(value.text.as_str())
    }

    /// The absolute path of its `chroot`, if it has one.
    pub fn chroot(&self) -> Option<String> {
        self.get("chroot").map(ToOwned::to_owned)
    }

    /// `FILE:LINE`, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// The PHP settings that the pool makes by `kind`, such as `php_admin_value`.
    pub(super) fn php_values(&self, kind: &str) -> Vec<(String, String)> {
        let setting = |key: &str| {
            Some(
                key.strip_prefix(kind)?
                    .strip_prefix('[')?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        };
        let values = self.directives.iter();
        values
            .filter_map(|(key, value)| Some((setting(key)?, value.text.clone())))
            .collect()
    }

    /// Whether its chroot is the directory `root`, by whatever links of root's it gets there. A
    /// link in the hands of others is none's word for whose the root is.
    pub fn lives_in(&self, host: &Host, root: &HostPath) -> bool {
        let Some(chroot) = self.chroot().and_then(|chroot| HostPath::new(chroot).ok()) else {
            return false;
        };
        let directory = |path: &HostPath| host.walk_strictly(path).ok().map(|walk| walk.stat.file);
        chroot == *root || directory(&chroot).is_some_and(|found| Some(found) == directory(root))
    }
}

/// The pools of `path`: a php-fpm.conf, a single pool's file, or a directory such as
/// `/etc/php/8.2/fpm`.
///
/// Errors: a file cannot be read; the first thing that is wrong, where no pool could be read at
/// all.
pub fn pools(path: &Path) -> Result<Vec<Pool>> {
    configuration(path).map(|configuration| configuration.pools)
}

/// As [`pools`], with what is wrong with those that are left out.
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

/// The configurations of this host, one a master process.
pub(crate) fn configurations() -> Vec<PathBuf> {
    masters().into_iter().map(|master| master.config).collect()
}

/// What is in `path`, as the master process of it among `masters` reads it. Relative paths count
/// from `prefix`, else from the master's, else from what the place tells.
///
/// Errors: `path` itself cannot be read.
pub fn read(path: &Path, prefix: Option<&Path>, masters: &[Master]) -> Result<FpmConfiguration> {
    let file = if path.is_dir() {
        path.join("php-fpm.conf")
    } else {
        path.to_owned()
    };
    let master = masters::of_file(masters, &file)
        .cloned()
        .unwrap_or_else(|| Master::guessed(&file));
    let mut configuration = if path.is_dir() && !file.exists() {
        reader::files(&reader::matching(&path.join("*.conf"))?, prefix, &master)?
    } else {
        reader::files(std::slice::from_ref(&file), prefix, &master)?
    };
    for pool in &mut configuration.pools {
        pool.unit.clone_from(&master.unit);
    }
    let jailed = configuration
        .pools
        .iter()
        .any(|pool| pool.chroot().is_some());
    if jailed && master.unit.is_none() {
        configuration.warnings.push(format!(
            "{}: no unit is known that starts its master process: name it under `services`, so that it starts after the \
             mounts",
            file.display()
        ));
    }
    configuration
        .warnings
        .extend(shared_cache(&configuration.pools));
    Ok(configuration)
}

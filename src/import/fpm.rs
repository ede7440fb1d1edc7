//! PHP-FPM's configuration, read as PHP-FPM reads it. `php-fpm -tt` prints the same values.

mod drafts;
mod masters;
mod needs;
mod pool_user;
mod reader;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(crate) use drafts::drafts;
pub(crate) use drafts::shared_cache;
pub use masters::{Master, masters};
pub(crate) use needs::written_by;
pub(crate) use pool_user::{PoolUser, pool_users};

use super::glob3::matching;
use super::php_ini::PhpValue;
use crate::base::HostPath;
use crate::resolve::Host;
use crate::{Error, Result};

/// A pool, its directives with `$pool`, `$prefix` and variables replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// `[www]`
    pub name: String,
    /// The file with the beginning of its section.
    pub file: PathBuf,
    /// The line of that, from 1.
    pub line: usize,
    /// The unit of its master process.
    pub unit: Option<String>,
    /// The values by their names in lower case.
    directives: HashMap<String, PhpValue>,
}

/// The configuration of one master process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FpmConfiguration {
    /// The pools in the order of their beginnings, without those that are wrong.
    pub pools: Vec<Pool>,
    /// What is wrong: with a pool, which is then left out, or with a line outside the pools.
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

    /// The value of a directive, which may be empty.
    fn known(&self, directive: &str) -> Option<&str> {
        match self.directives.get(directive) {
            Some(value) if value.unknown.is_none() => Some(&value.text),
            _ => None,
        }
    }

    /// The absolute path of its `chroot`, if it has one.
    pub fn chroot(&self) -> Option<String> {
        self.get("chroot").map(ToOwned::to_owned)
    }

    /// `FILE:LINE`, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// What the pool sets by `kind`, such as `php_admin_value` or `env`.
    pub(super) fn php_values(&self, kind: &str) -> Vec<(String, String)> {
        let mut values = vec![];
        for (directive, value) in &self.directives {
            let setting = directive
                .strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix('['))
                .and_then(|rest| rest.strip_suffix(']'));
            if let Some(setting) = setting {
                values.push((setting.to_owned(), value.text.clone()));
            }
        }
        values
    }

    /// Whether its chroot is the directory `root`, possibly through links that are root's. A link
    /// that others can change does not decide whose pool it is.
    pub fn lives_in(&self, host: &Host, root: &HostPath) -> bool {
        let Some(Ok(chroot)) = self.chroot().map(HostPath::new) else {
            return false;
        };
        if chroot == *root {
            return true;
        }
        match (host.walk_strictly(&chroot), host.walk_strictly(root)) {
            (Ok(chroot), Ok(root)) => chroot.stat.file == root.stat.file,
            _ => false,
        }
    }
}

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

    let mut configuration = reader::files(&files, prefix, &master)?;
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

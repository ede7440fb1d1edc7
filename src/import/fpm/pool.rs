//! A pool, and the pools of one master process.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::Error;
use crate::base::HostPath;
use crate::import::php_ini::PhpValue;
use crate::resolve::Host;

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
    pub(super) directives: HashMap<String, PhpValue>,
    /// Why PHP-FPM refuses values of it, each with its place.
    pub(super) refused_values: Vec<String>,
}

/// The configuration of one master process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FpmConfiguration {
    /// The pools in the order of their beginnings, without those that are wrong.
    pub pools: Vec<Pool>,
    /// Mistakes: in a pool, which is then left out, or in a line outside the pools.
    pub errors: Vec<Error>,
    /// Warnings for the administrator: sentences.
    pub warnings: Vec<String>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// A path in them begins at the prefix of the master process.
    pub(super) needs_prefix: bool,
}

impl Pool {
    /// The value of a directive such as `chroot`, if it is set and not empty.
    pub fn get(&self, directive: &str) -> Option<&str> {
        self.known(directive).filter(|value| !value.is_empty())
    }

    /// The value of a directive, which may be empty.
    pub(super) fn known(&self, directive: &str) -> Option<&str> {
        match self.directives.get(directive) {
            Some(value) if value.unknown.is_none() => Some(&value.text),
            _ => None,
        }
    }

    /// The value of a variable of its workers' environment. One whose value begins with `$` has
    /// that of the master's variable, or is not set at all: it is not known.
    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        let value = self.get(&format!("env[{name}]"))?;
        (!value.starts_with('$')).then_some(value)
    }

    /// The absolute path of its `chroot`, if it has one.
    pub fn chroot(&self) -> Option<&str> {
        self.get("chroot")
    }

    /// `FILE:LINE`, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// The settings that the pool makes by `kind`, such as `php_admin_value` or `env`.
    pub(in crate::import) fn php_values(&self, kind: &str) -> Vec<(String, String)> {
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

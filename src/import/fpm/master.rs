//! A master process of PHP-FPM, and the facts that paths suggest about one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A master process, as it is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Master {
    /// `--fpm-config`
    pub config: PathBuf,
    /// `--prefix`, otherwise the prefix of the build, which the program's path shows.
    pub prefix: PathBuf,
    /// The process of a master whose command is not known: `prefix` is a guess.
    pub(super) unsure_of_prefix: Option<u32>,
    /// The systemd unit that starts it, if that is known.
    pub unit: Option<String>,
    /// Its environment; `None`: it cannot be read.
    pub(super) environment: Option<BTreeMap<String, String>>,
}

impl Master {
    /// A master that reads `config`, with this environment.
    pub fn with_environment(
        config: PathBuf,
        prefix: PathBuf,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self {
            config,
            prefix,
            unsure_of_prefix: None,
            unit: None,
            environment: Some(environment.into_iter().collect()),
        }
    }

    /// The facts that the path of a configuration suggests: the unit, from the names of packages,
    /// and the prefix.
    pub(super) fn guessed(config: &Path) -> Self {
        Self {
            config: config.to_owned(),
            prefix: guessed_prefix(config),
            unsure_of_prefix: None,
            unit: guessed_unit(config),
            environment: None,
        }
    }

    /// The value of `${NAME}`, and whether it is from this process's own environment: that is the
    /// best guess where no master's environment can be read.
    pub(super) fn variable(&self, name: &str) -> Option<(String, bool)> {
        match &self.environment {
            Some(environment) => {
                let value = environment.get(name).cloned();
                Some((value.unwrap_or_default(), false))
            }
            None => Some((std::env::var(name).ok()?, true)),
        }
    }
}

/// The unit that reads a configuration, from the names of packages.
fn guessed_unit(config: &Path) -> Option<String> {
    let parts: Vec<_> = config.iter().filter_map(OsStr::to_str).collect();
    match parts.as_slice() {
        [_, "etc", "php", version, "fpm", ..] => Some(format!("php{version}-fpm.service")),
        [_, "etc", "php", fpm, ..] if fpm.starts_with("fpm-php") => {
            Some(format!("php-fpm@{}.service", &fpm["fpm-php".len()..]))
        }
        [_, "etc", "opt", "remi" | "rh", version, ..]
        | [_, "opt", "remi" | "cpanel", version, "root", "etc", ..] => {
            Some(format!("{version}-php-fpm.service"))
        }
        [_, "opt", "plesk", "php", version, "etc", ..] => {
            Some(format!("plesk-php{}-fpm.service", version.replace('.', "")))
        }
        [_, "opt", "alt", version, "etc", ..] => Some(format!("alt-{version}-fpm.service")),
        [
            _,
            "etc",
            "php-fpm.conf" | "php-fpm.d" | "php" | "php7" | "php8",
            ..,
        ] => Some("php-fpm.service".to_owned()),
        _ => None,
    }
}

/// The prefix of a configuration: `/opt/x` of `/opt/x/etc/php-fpm.conf`.
fn guessed_prefix(config: &Path) -> PathBuf {
    let mut ancestors = config.ancestors();
    let etc = ancestors.find(|above| above.ends_with("etc"));
    match etc.and_then(Path::parent) {
        Some(prefix) if prefix != Path::new("/") => prefix.to_owned(),
        _ => "/usr".into(),
    }
}

/// The prefix of a build, from the path of its program: `PREFIX/sbin/php-fpm`.
pub(super) fn prefix_of(program: &Path) -> PathBuf {
    match program.ancestors().nth(2) {
        Some(prefix) if prefix != Path::new("/") => prefix.to_owned(),
        _ => "/usr".into(),
    }
}

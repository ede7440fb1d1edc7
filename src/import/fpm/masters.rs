//! The master processes of PHP-FPM: those that are running, those that units start, and those whose
//! configuration is where distributions keep it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::of_units::of_units;
use crate::observe::{Process, root_of};
use crate::sys::{FileId, proc};

/// Where distributions and control panels keep the configuration of a master.
const PLACES: [&str; 12] = [
    "/etc/php/*/fpm/php-fpm.conf",
    "/etc/php-fpm.conf",
    "/etc/php*/php-fpm.conf",
    "/etc/php*/fpm/php-fpm.conf",
    "/etc/php/fpm-php*/php-fpm.conf",
    "/etc/opt/remi/php*/php-fpm.conf",
    "/opt/remi/php*/root/etc/php-fpm.conf",
    "/opt/cpanel/ea-php*/root/etc/php-fpm.conf",
    "/opt/plesk/php/*/etc/php-fpm.conf",
    "/opt/alt/php*/etc/php-fpm.conf",
    "/www/server/php/*/etc/php-fpm.conf",
    "/usr/local/etc/php-fpm.conf",
];

/// The names of the directories of pools.
const POOL_DIRECTORIES: [&str; 3] = ["pool.d", "php-fpm.d", "fpm.d"];

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

/// All masters of this host, each configuration once.
pub fn masters() -> Vec<Master> {
    let units = of_units();
    let mut masters = running(&units);

    let mut others = units;
    for pattern in PLACES {
        for config in glob::glob(pattern).into_iter().flatten().flatten() {
            others.push(Master::guessed(&config));
        }
    }
    for master in others {
        if of_file(&masters, &master.config).is_none() && master.config.exists() {
            masters.push(master);
        }
    }
    masters
}

/// The one of `masters` that reads `file`, also if `file` is a link: it is the master's own file,
/// or the file is in a directory of pools beside the master's file.
pub(super) fn of_file<'m>(masters: &'m [Master], file: &Path) -> Option<&'m Master> {
    let file = real(file);
    if let Some(exact) = masters.iter().find(|master| real(&master.config) == file) {
        return Some(exact);
    }

    let directory = file.parent()?;
    if !POOL_DIRECTORIES
        .iter()
        .any(|name| directory.ends_with(name))
    {
        return None;
    }
    let mut beside = masters
        .iter()
        .filter(|master| real(&master.config).parent() == directory.parent());
    match (beside.next(), beside.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// The path with all links followed, if something is there.
fn real(path: &Path) -> PathBuf {
    match fs::canonicalize(path) {
        Ok(real) => real,
        Err(_) => path.to_owned(),
    }
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
        [_, "etc", "opt", "remi", version, ..]
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

/// The masters that run as root in this host's own root. `units`: the masters that units start, for
/// what the processes do not tell.
fn running(units: &[Master]) -> Vec<Master> {
    let mut masters = vec![];
    for (pid, proc) in proc::processes() {
        masters.extend(of_process(pid, &proc, units));
    }
    masters
}

fn of_process(pid: u32, proc: &Path, units: &[Master]) -> Option<Master> {
    let config = config_of_process(proc)?;
    // Any user can give a process such a title; only a process of root's can enter a chroot.
    let is_roots = fs::metadata(proc).ok()?.uid() == 0;
    if !is_roots || root_of(pid) != Some(own_root()?) {
        return None;
    }
    if !config.exists() {
        return None; // it is in another mount namespace, such as a container's
    }

    let unit = service_of(pid);
    let program = fs::read_link(proc.join("exe")).ok()?;
    let of_unit = units
        .iter()
        .find(|known| known.config == config && (unit.is_none() || known.unit == unit));
    let mut master = match of_unit {
        Some(known) => known.clone(),
        None => Master {
            prefix: prefix_of(&program),
            unsure_of_prefix: Some(pid),
            config,
            ..Master::default()
        },
    };
    if unit.is_some() {
        master.unit = unit;
    }
    if let Some(environment) = environment(proc) {
        master.environment = Some(environment);
    }
    Some(master)
}

/// The service that the process is of.
fn service_of(pid: u32) -> Option<String> {
    let unit = Process::of(pid)?.unit?;
    unit.ends_with(".service").then_some(unit)
}

/// The configuration that a master has in its title.
fn config_of_process(proc: &Path) -> Option<PathBuf> {
    let title = fs::read(proc.join("cmdline")).ok()?;
    let title = title.split(|byte| *byte == 0).next().unwrap_or_default();
    let title = String::from_utf8_lossy(title);
    let config = title
        .strip_prefix("php-fpm: master process (")?
        .strip_suffix(')')?;
    let directory = fs::read_link(proc.join("cwd")).unwrap_or(PathBuf::from("/"));
    Some(directory.join(config))
}

fn own_root() -> Option<FileId> {
    let root = fs::metadata("/").ok()?;
    Some(FileId::of(&root))
}

/// The contents of `/proc/PID/environ`; `None` if there is nothing, since PHP-FPM mostly writes its
/// title over it.
fn environment(proc: &Path) -> Option<BTreeMap<String, String>> {
    let text = fs::read(proc.join("environ")).ok()?;
    let mut variables = BTreeMap::new();
    for variable in String::from_utf8_lossy(&text).split('\0') {
        if let Some((name, value)) = variable.split_once('=') {
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    (!variables.is_empty()).then_some(variables)
}

/// The prefix of a build, from the path of its program: `PREFIX/sbin/php-fpm`.
pub(super) fn prefix_of(program: &Path) -> PathBuf {
    match program.ancestors().nth(2) {
        Some(prefix) if prefix != Path::new("/") => prefix.to_owned(),
        _ => "/usr".into(),
    }
}

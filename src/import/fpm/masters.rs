//! The master processes of PHP-FPM: those that are running, those that units start, and those whose
//! configuration is where distributions keep it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::master::{Master, prefix_of};
use super::of_units::of_units;
use crate::observe::{Process, root_of};
use crate::sys::{FileId, proc};

/// Where distributions and control panels keep the configuration of a master.
const PLACES: [&str; 16] = [
    "/etc/php/*/fpm/php-fpm.conf",
    "/etc/php-fpm.conf",
    "/etc/php*/php-fpm.conf",
    "/etc/php*/fpm/php-fpm.conf",
    "/etc/php/fpm-php*/php-fpm.conf",
    "/etc/opt/remi/php*/php-fpm.conf",
    "/etc/opt/rh/rh-php*/php-fpm.conf",
    "/opt/remi/php*/root/etc/php-fpm.conf",
    "/opt/cpanel/ea-php*/root/etc/php-fpm.conf",
    "/opt/plesk/php/*/etc/php-fpm.conf",
    "/opt/alt/php*/etc/php-fpm.conf",
    "/www/server/php/*/etc/php-fpm.conf",
    "/opt/php*/etc/php-fpm.conf",
    "/usr/local/etc/php-fpm.conf",
    "/usr/local/php*/etc/php-fpm.conf",
    "/usr/local/php*/etc/php-fpm[0-9]*.conf",
];

/// The names of the directories of pools.
const POOL_DIRECTORIES: [&str; 3] = ["pool.d", "php-fpm.d", "fpm.d"];

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

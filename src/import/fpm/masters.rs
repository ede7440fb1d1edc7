//! The master processes of PHP-FPM: those that run, those that units start, and where distributions
//! have them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::import::unit::{self, Unit};
use crate::observe::{Process, root_of};
use crate::sys::FileId;

/// Where distributions and panels keep the configuration of a master, if nothing tells of one
/// there.
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

/// What a master process is told when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Master {
    /// `--fpm-config`
    pub config: PathBuf,
    /// `--prefix`, else that of the program's build, as the program's place tells it.
    pub prefix: PathBuf,
    /// Its unit.
    pub unit: Option<String>,
    /// What it has in its environment, as far as that can be seen; `None`: nothing can.
    environment: Option<BTreeMap<String, String>>,
}

/// All of this host, each configuration once.
pub fn masters() -> Vec<Master> {
    let units = of_units();
    let mut all = running(&units);
    let places = PLACES
        .iter()
        .filter_map(|place| glob::glob(place).ok())
        .flatten()
        .flatten();
    let more = units
        .into_iter()
        .chain(places.map(|config| Master::guessed(&config)));
    for master in more {
        if of_file(&all, &master.config).is_none() && master.config.exists() {
            all.push(master);
        }
    }
    all
}

/// The one of `masters` that reads `file`, by whatever links it is named: as its own file, or as
/// one beside or below that.
pub(super) fn of_file<'m>(masters: &'m [Master], file: &Path) -> Option<&'m Master> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let file = real(file);
    let exact = masters.iter().find(|master| real(&master.config) == file);
    exact.or_else(|| {
        let directories = ["pool.d", "php-fpm.d", "fpm.d"];
        let place = file
            .parent()
            .filter(|place| directories.iter().any(|name| place.ends_with(name)))?;
        let mut beside = masters
            .iter()
            .filter(|master| real(&master.config).parent() == place.parent());
        beside.next().filter(|_| beside.next().is_none())
    })
}

impl Master {
    /// One that reads `config`, with this in its environment.
    pub fn with_environment(
        config: PathBuf,
        prefix: PathBuf,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self {
            config,
            prefix,
            unit: None,
            environment: Some(environment.into_iter().collect()),
        }
    }

    /// What the place of a configuration tells: its unit by the names of packages, and its prefix.
    pub(super) fn guessed(config: &Path) -> Self {
        let parts: Vec<_> = config
            .components()
            .filter_map(|part| part.as_os_str().to_str())
            .collect();
        let unit = match parts.as_slice() {
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
        };
        let above = config
            .ancestors()
            .find(|above| above.file_name().is_some_and(|name| name == "etc"));
        let prefix = match above.and_then(Path::parent) {
            Some(prefix) if prefix != Path::new("/") => prefix.to_owned(),
            _ => "/usr".into(),
        };
        Self {
            config: config.to_owned(),
            prefix,
            unit,
            environment: None,
        }
    }

    /// The value of `${NAME}`, and whether it is this process's own: where no master's environment
    /// can be seen, it is the best that is known.
    pub(super) fn variable(&self, name: &str) -> Option<(String, bool)> {
        match &self.environment {
            Some(environment) => Some((environment.get(name).cloned().unwrap_or_default(), false)),
            None => std::env::var(name).ok().map(|value| (value, true)),
        }
    }
}

/// Masters that run as root on this host's own root, with what the units among `units` tell of
/// them.
fn running(units: &[Master]) -> Vec<Master> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| of_process(pid, units)).collect()
}

fn of_process(pid: u32, units: &[Master]) -> Option<Master> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    // Anybody can call a process so; only root's can enter a chroot.
    let title = fs::read(proc.join("cmdline")).ok()?;
    let title = title.split(|byte| *byte == 0).next().unwrap_or_default();
    let title = String::from_utf8_lossy(title);
    let config = title
        .strip_prefix("php-fpm: master process (")?
        .strip_suffix(')')?;
    let root = fs::metadata("/").ok().map(|root| FileId::of(&root));
    if fs::metadata(&proc).ok()?.uid() != 0 || root_of(pid) != root {
        return None;
    }
    let config = fs::read_link(proc.join("cwd"))
        .unwrap_or_else(|_| "/".into())
        .join(config);
    if !config.exists() {
        return None; // it is of another mount namespace, such as a container's
    }
    let unit = Process::of(pid)
        .and_then(|process| process.unit)
        .filter(|unit| unit.ends_with(".service"));
    let told = units
        .iter()
        .find(|known| known.config == config && (unit.is_none() || known.unit == unit));
    let program = fs::read_link(proc.join("exe")).ok()?;
    Some(Master {
        prefix: told.map_or_else(|| prefix_of(&program), |told| told.prefix.clone()),
        environment: environment(&proc).or_else(|| told?.environment.clone()),
        unit: unit.or_else(|| told?.unit.clone()),
        config,
    })
}

/// What `/proc/PID/environ` has. PHP-FPM writes its title over it, mostly.
fn environment(proc: &Path) -> Option<BTreeMap<String, String>> {
    let text = fs::read(proc.join("environ")).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let variables: BTreeMap<_, _> = text
        .split('\0')
        .filter_map(|variable| variable.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    (!variables.is_empty()).then_some(variables)
}

/// The prefix of a build, by the place of its program: `PREFIX/sbin/php-fpm`.
fn prefix_of(program: &Path) -> PathBuf {
    program
        .ancestors()
        .nth(2)
        .filter(|prefix| *prefix != Path::new("/"))
        .unwrap_or(Path::new("/usr"))
        .to_owned()
}

fn of_units() -> Vec<Master> {
    unit::of_host("fpm").iter().flat_map(of_unit).collect()
}

/// The masters that a unit starts; more than one, if it is a template.
fn of_unit(unit: &Unit) -> Vec<Master> {
    let is_fpm = |command: &&Vec<String>| {
        let name = command
            .first()
            .and_then(|program| Path::new(program).file_name()?.to_str());
        name.is_some_and(|name| name.contains("php") && name.contains("fpm"))
    };
    let commands = unit.commands();
    let Some(command) = commands.iter().find(is_fpm) else {
        return vec![];
    };
    let given = argument(command, &["-p", "--prefix"]).map(PathBuf::from);
    let prefix = given
        .clone()
        .unwrap_or_else(|| prefix_of(Path::new(&command[0])));
    let config = argument(command, &["-y", "--fpm-config"]);
    let config = config.or_else(|| built_in(&command[0], given.as_deref()));
    let Some(config) = config.map(|config| Path::new("/").join(config)) else {
        return vec![];
    };
    let master = |config: PathBuf, name: String| Master {
        config,
        prefix: prefix.clone(),
        unit: Some(name),
        environment: Some(unit.environment()),
    };
    match unit.name.split_once("@.") {
        Some((name, suffix)) => instances(&config.to_string_lossy())
            .into_iter()
            .map(|(instance, config)| master(config, format!("{name}@{instance}.{suffix}")))
            .collect(),
        None => vec![master(config, unit.name.clone())],
    }
}

/// The value of an option: `-y FILE`, `-yFILE`, `--fpm-config FILE`, `--fpm-config=FILE`.
fn argument(command: &[String], names: &[&str]) -> Option<String> {
    let mut words = command.iter().skip(1);
    while let Some(word) = words.next() {
        for name in names {
            match word.strip_prefix(name) {
                Some("") => return words.next().cloned(),
                Some(value) if value.starts_with('=') => return Some(value[1..].to_owned()),
                Some(value) if !name.starts_with("--") => return Some(value.to_owned()),
                _ => {}
            }
        }
    }
    None
}

/// The configuration that a program reads if it is told none.
fn built_in(program: &str, given: Option<&Path>) -> Option<String> {
    if let Some(prefix) = given {
        return Some(
            prefix
                .join("etc/php-fpm.conf")
                .to_string_lossy()
                .into_owned(),
        );
    }
    let program = Path::new(program);
    let version = program
        .file_name()?
        .to_str()?
        .replace("php-fpm", "")
        .replace("php", "")
        .replace("-fpm", "");
    let prefix = prefix_of(program);
    let vendor = prefix.strip_prefix("/opt").ok().and_then(|rest| {
        let mut names = rest.iter().filter_map(|name| name.to_str());
        Some(format!(
            "/etc/opt/{}/{}/php-fpm.conf",
            names.next()?,
            names.next()?
        ))
    });
    let own = format!("{}/etc/php-fpm.conf", prefix.display());
    let above = prefix
        .parent()
        .map(|above| format!("{}/etc/php-fpm.conf", above.display()));
    let distributions = [
        format!("/etc/php/{version}/fpm/php-fpm.conf"),
        format!("/etc/php{version}/php-fpm.conf"),
        "/etc/php-fpm.conf".to_owned(),
        "/etc/php/php-fpm.conf".to_owned(),
        "/etc/php8/fpm/php-fpm.conf".to_owned(),
    ];
    let of_distributions = distributions
        .into_iter()
        .filter(|_| prefix == Path::new("/usr"));
    let mut all = vendor
        .into_iter()
        .chain([own])
        .chain(above)
        .chain(of_distributions);
    all.find(|place| Path::new(place).exists())
}

/// The instances of a template whose configuration is there: `%i` stands for what differs.
fn instances(config: &str) -> Vec<(String, PathBuf)> {
    let Some((before, after)) = config.split_once("%i").or_else(|| config.split_once("%I")) else {
        return vec![];
    };
    let escaped = [before, after].map(glob::Pattern::escape);
    let after_all = escaped[1].replace("%i", "*").replace("%I", "*");
    let found = glob::glob(&format!("{}*{after_all}", escaped[0]))
        .into_iter()
        .flatten()
        .flatten();
    let instance = |path: PathBuf| {
        let text = path.to_str()?;
        let rest = text.strip_prefix(before)?;
        let length = match after.split_once("%i").or_else(|| after.split_once("%I")) {
            None => rest.len().checked_sub(after.len())?,
            Some((between, _)) => rest.find(between)?,
        };
        Some((rest[..length].to_owned(), path.clone()))
    };
    found.filter_map(instance).collect()
}

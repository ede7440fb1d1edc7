//! The masters of PHP-FPM that units start, also behind `env`, `nice`, a shell or a script.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::master::{Master, prefix_of};
use crate::import::command_line::{CommandLine, last_ones};
use crate::import::unit_file::{self, UnitFile};

/// Options with which PHP-FPM only prints something.
const PRINTING: [&str; 9] = [
    "-t",
    "-tt",
    "--test",
    "-v",
    "--version",
    "-i",
    "--info",
    "-m",
    "--modules",
];

/// All of them. Instances of templates that nothing asks for are last, and left out if others of
/// the template are asked for.
pub(super) fn of_units() -> Vec<Master> {
    let mut masters: Vec<_> = unit_file::of_host().iter().flat_map(of_unit).collect();
    masters.sort_by_key(is_unasked);
    masters
}

fn is_unasked(master: &Master) -> bool {
    let unit = master.unit.as_deref().unwrap_or_default();
    unit.contains('@') && !unit_file::is_asked_for(unit)
}

/// The masters that a unit starts.
fn of_unit(unit: &UnitFile) -> Vec<Master> {
    let mut masters: Vec<Master> = vec![];
    for command in unit.command_lines() {
        for last in last_ones(command) {
            let started = fpm_in(&last).map(|command| of_command(unit, &command));
            for master in started.unwrap_or_default() {
                if masters.iter().all(|known| known.config != master.config) {
                    masters.push(master);
                }
            }
        }
    }
    masters
}

/// PHP-FPM in a command: the program, or the command in the arguments of a program that is not
/// known.
fn fpm_in(command: &CommandLine) -> Option<CommandLine> {
    let mut words = command.words.iter();
    if words.any(|word| PRINTING.contains(&word.as_str())) {
        return None;
    }
    if is_fpm(command.words.first()?) {
        return Some(command.clone());
    }
    let at = command.words.iter().position(|word| is_fpms_own(word))?;
    Some(CommandLine {
        words: command.words[at..].to_vec(),
        ..command.clone()
    })
}

/// The masters that a command starts. That of a template may start several.
fn of_command(unit: &UnitFile, command: &CommandLine) -> Vec<Master> {
    let directory = Path::new("/").join(&command.directory);
    let program = &command.words[0];
    let given = argument(&command.words, &["-p", "--prefix"]);
    let given = given.map(|prefix| directory.join(prefix));
    let config = argument(&command.words, &["-y", "--fpm-config"])
        .or_else(|| built_in_config(program, given.as_deref()));
    let Some(config) = config else {
        return vec![];
    };

    let master = Master {
        config: directory.join(config),
        prefix: given.unwrap_or_else(|| prefix_of(Path::new(program))),
        unit: Some(unit.name.clone()),
        environment: Some(command.environment.clone()),
        ..Master::default()
    };
    let Some((name, suffix)) = unit.name.split_once("@.") else {
        return vec![master];
    };
    let mut masters = vec![];
    for (instance, config) in instances(&master.config.to_string_lossy()) {
        masters.push(Master {
            config,
            unit: Some(format!("{name}@{instance}.{suffix}")),
            ..master.clone()
        });
    }
    if !masters.iter().all(is_unasked) {
        masters.retain(|master| !is_unasked(master));
    }
    masters
}

/// Whether a program is PHP-FPM.
fn is_fpm(program: &str) -> bool {
    match Path::new(program).file_name().and_then(OsStr::to_str) {
        Some(name) => name.contains("php") && name.contains("fpm"),
        None => false,
    }
}

/// Whether a word can only be PHP-FPM's program: `php-fpm8.2`, not a file of its configuration.
fn is_fpms_own(word: &str) -> bool {
    let Some(name) = Path::new(word).file_name().and_then(OsStr::to_str) else {
        return false;
    };
    let rest = name.replacen("php", "", 1).replacen("fpm", "", 1);
    let is_version = |c: char| c.is_ascii_digit() || "._-".contains(c);
    is_fpm(word) && rest.chars().all(is_version)
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

/// The configuration that a program reads if its command names none. `given`: `--prefix`.
fn built_in_config(program: &str, given: Option<&Path>) -> Option<String> {
    if let Some(prefix) = given {
        let config = prefix.join("etc/php-fpm.conf");
        return Some(config.to_string_lossy().into_owned());
    }

    let program = Path::new(program);
    let name = program.file_name()?.to_str()?;
    let prefix = prefix_of(program);

    let mut places = vec![];
    places.extend(vendor_config(&prefix));
    places.push(format!("{}/etc/php-fpm.conf", prefix.display()));
    if let Some(above) = prefix.parent() {
        places.push(format!("{}/etc/php-fpm.conf", above.display()));
    }
    if prefix == Path::new("/usr") {
        let version = name
            .replace("php-fpm", "")
            .replace("php", "")
            .replace("-fpm", "");
        places.extend([
            format!("/etc/php/{version}/fpm/php-fpm.conf"),
            format!("/etc/php{version}/php-fpm.conf"),
            "/etc/php-fpm.conf".to_owned(),
            "/etc/php/php-fpm.conf".to_owned(),
            "/etc/php8/fpm/php-fpm.conf".to_owned(),
        ]);
    }
    places.into_iter().find(|place| Path::new(place).exists())
}

/// `/etc/opt/VENDOR/NAME/php-fpm.conf` for a prefix below `/opt/VENDOR/NAME`.
fn vendor_config(prefix: &Path) -> Option<String> {
    let rest = prefix.strip_prefix("/opt").ok()?;
    let mut names = rest.iter().filter_map(OsStr::to_str);
    let (vendor, name) = (names.next()?, names.next()?);
    Some(format!("/etc/opt/{vendor}/{name}/php-fpm.conf"))
}

/// The instances of a template whose configurations exist: `%i` stands for their names.
fn instances(config: &str) -> Vec<(String, PathBuf)> {
    let config = config.replace("%I", "%i");
    let Some((before, after)) = config.split_once("%i") else {
        return vec![];
    };
    let pattern = glob::Pattern::escape(&config).replace("%i", "*");

    let mut instances = vec![];
    for path in glob::glob(&pattern).into_iter().flatten().flatten() {
        if let Some(name) = instance_name(&path, before, after) {
            instances.push((name, path));
        }
    }
    instances
}

/// The part of `path` between `before` and `after`, up to the next `%i` of `after`.
fn instance_name(path: &Path, before: &str, after: &str) -> Option<String> {
    let rest = path.to_str()?.strip_prefix(before)?;
    let length = match after.split_once("%i") {
        None => rest.len().checked_sub(after.len())?,
        Some((between, _)) => rest.find(between)?,
    };
    Some(rest[..length].to_owned())
}

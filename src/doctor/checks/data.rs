//! Time zones, character sets, locales.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::HostPath;
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Convert, Exist, Locale, Zone};
use crate::sys;

const ZONES: &str = "/usr/share/zoneinfo";

/// The host's files that set its locale.
const LOCALE_CONF: [&str; 2] = ["/etc/default/locale", "/etc/locale.conf"];

pub(super) fn timezone(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if !exam.is_php() && !exam.brings(ZONES) {
        return Ok(CheckOutcome::not_needed(format!("nothing brings {ZONES}")));
    }

    let (mut problems, mut good) = (vec![], vec![]);
    for zone in zones(exam) {
        let Ok(file) = HostPath::new(ZONES).and_then(|zones| zones.join(zone)) else {
            let remedy = Remedy::act("set `date.timezone` to a zone such as Europe/Zurich");
            let text = format!("`{zone}` cannot be a zone's name");
            problems.push(Problem::new(text, remedy));
            continue;
        };
        match exam.ask(Zone { file: file.clone() })? {
            Ok(()) => good.push(format!("{file} can be read")),
            Err(error) => {
                let why = exam.explained(file.as_path(), &error);
                let text = format!("{file}: {why}");
                problems.push(Problem::new(text, bring_zone(exam, zone, &file)));
            }
        }
    }
    Ok(CheckOutcome::judge(problems, good.join("; ")))
}

/// The zones that the pools set; without any, the one that PHP uses.
fn zones<'e>(exam: &Exam<'e>) -> BTreeSet<&'e str> {
    let mut zones = BTreeSet::new();
    for pool_user in exam.site.pool_users {
        zones.extend(pool_user.settings.get("date.timezone"));
    }
    if zones.is_empty() {
        zones.insert("UTC");
    }
    zones
}

fn bring_zone(exam: &Exam<'_>, zone: &str, file: &HostPath) -> Remedy {
    if exam.on_host(Path::new(ZONES)) && !exam.on_host(file.as_path()) {
        return Remedy::act(format!(
            "correct `date.timezone`: the host has no time zone {zone} either"
        ));
    }
    exam.bring(file.as_path(), Remedy::preset("timezone"))
}

/// A character set of a gconv module, and a text in it.
#[derive(Clone, Copy)]
struct CharacterSet {
    module: &'static str,
    name: &'static str,
    text: &'static str,
    bytes: &'static [u8],
}

const CHARACTER_SETS: [CharacterSet; 2] = [
    CharacterSet {
        module: "EUC-JP.so",
        name: "EUC-JP",
        text: "\u{65e5}",
        bytes: &[0xc6, 0xfc],
    },
    CharacterSet {
        module: "ISO8859-15.so",
        name: "ISO-8859-15",
        text: "\u{20ac}",
        bytes: &[0xa4],
    },
];

pub(super) fn iconv(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let Some((directory, set)) = gconv() else {
        return Ok(CheckOutcome::not_needed("this host has no gconv modules"));
    };
    if !exam.is_php() && exam.mount_of(&directory).is_none() {
        let why = format!("nothing brings {}", directory.display());
        return Ok(CheckOutcome::not_needed(why));
    }

    let remedy = exam.bring(&directory, Remedy::preset("iconv"));
    if exam.other_c_library.is_some() {
        let module = directory.join(set.module);
        let is_there = exam.ask(Exist(vec![module.clone()]))?.contains(&true);
        let module = module.display();
        if !is_there {
            let problem = Problem::new(format!("{module} is not inside"), remedy);
            return Ok(CheckOutcome::failed(problem));
        }
        return Ok(CheckOutcome::ok(format!("{module} is inside")).unless(exam.other_c_library));
    }

    let probe = Convert {
        to: set.name.to_owned(),
        text: set.text.to_owned(),
        expected: set.bytes.to_owned(),
    };
    Ok(match exam.ask(probe)? {
        Ok(()) => CheckOutcome::ok(format!("UTF-8 is converted to {}", set.name)),
        Err(error) => {
            let text = format!("no conversion to {}: {error}", set.name);
            CheckOutcome::failed(Problem::new(text, remedy))
        }
    })
}

/// The host's directory of gconv modules, and a character set that it has.
fn gconv() -> Option<(PathBuf, CharacterSet)> {
    let patterns = [
        "/usr/lib/*-linux-gnu*/gconv",
        "/usr/lib64/gconv",
        "/usr/lib/gconv",
    ];
    for pattern in patterns {
        for directory in glob::glob(pattern).ok()?.flatten() {
            for set in CHARACTER_SETS {
                if directory.join(set.module).exists() {
                    return Some((directory, set));
                }
            }
        }
    }
    None
}

pub(super) fn locale(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if !exam.is_php() && !exam.brings("/usr/lib/locale") {
        return Ok(CheckOutcome::not_needed("nothing brings /usr/lib/locale"));
    }
    let names = locales(exam);
    if names.is_empty() {
        return Ok(CheckOutcome::not_needed(
            "no locale is set in a pool's `env`, nor for the host",
        ));
    }
    if let Some(why) = exam.other_c_library {
        return Ok(CheckOutcome::could_not_check(why));
    }

    let mut problems = vec![];
    for name in &names {
        if let Err(error) = exam.ask(Locale { name: name.clone() })? {
            let text = format!("the locale {name} cannot be loaded: {error}");
            problems.push(Problem::new(text, bring_locale(exam, name)));
        }
    }
    let names: Vec<_> = names.into_iter().collect();
    Ok(CheckOutcome::judge(
        problems,
        format!("{} can be loaded", names.join(", ")),
    ))
}

fn bring_locale(exam: &Exam<'_>, name: &str) -> Remedy {
    let is_on_host = CString::new(name).is_ok_and(|name| sys::load_locale(&name).is_ok());
    if is_on_host {
        return exam.bring(Path::new("/usr/lib/locale"), Remedy::preset("locale"));
    }
    Remedy::act(format!(
        "generate it: the host has no locale {name} either (`locale -a`)"
    ))
}

/// The locales that the pools and the host set.
fn locales(exam: &Exam<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for pool_user in exam.site.pool_users {
        for variable in ["LANG", "LC_ALL", "LC_CTYPE"] {
            names.extend(pool_user.pool.env(variable).map(ToOwned::to_owned));
        }
    }
    for file in LOCALE_CONF {
        if let Ok(text) = fs::read_to_string(file) {
            names.extend(values(&text));
        }
    }
    names.retain(|name| name != "C" && name != "POSIX");
    names
}

/// The values of `LANG` and `LC_*` in a file of shell assignments (locale.conf(5)).
fn values(text: &str) -> Vec<String> {
    let value = |line: &str| {
        let (key, value) = line.trim().split_once('=')?;
        let value = value.trim_matches(['"', '\'']);
        ((key == "LANG" || key.starts_with("LC_")) && !value.is_empty()).then(|| value.to_owned())
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn locales_of_the_host() {
        let text = "# LANG=x\nLANG=\"de_CH.UTF-8\"\nLANGUAGE=de\nLC_TIME=C.UTF-8\nLC_ALL=\n";
        assert_eq!(super::values(text), ["de_CH.UTF-8", "C.UTF-8"]);
    }
}

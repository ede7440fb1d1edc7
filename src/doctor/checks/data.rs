//! Time zones, character sets, locales.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Exam;
use crate::base::HostPath;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Convert, Exist, Locale, Zone};

const ZONES: &str = "/usr/share/zoneinfo";

/// Files of the host that name its locale.
const LOCALE_CONF: [&str; 2] = ["/etc/default/locale", "/etc/locale.conf"];

pub(super) fn timezone(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if !exam.is_php() && !exam.brings(ZONES) {
        return Ok(CheckOutcome::not_needed(format!("nothing brings {ZONES}")));
    }
    let configured: BTreeSet<_> = exam
        .patient
        .pool_users
        .iter()
        .filter_map(|tenant| tenant.settings.get("date.timezone"))
        .collect();
    let zones = if configured.is_empty() {
        BTreeSet::from(["UTC"])
    } else {
        configured
    };
    let (mut problems, mut good) = (vec![], vec![]);
    for zone in zones {
        let Ok(file) = HostPath::new(ZONES).and_then(|zones| zones.join(zone)) else {
            let remedy = Remedy::act("name a zone such as Europe/Zurich as `date.timezone`");
            problems.push(Problem::new(
                format!("`{zone}` cannot be a zone's name"),
                remedy,
            ));
            continue;
        };
        match exam.ask(Zone { file: file.clone() })? {
            Ok(()) => good.push(format!("{file} can be read")),
            Err(trouble) => {
                let remedy = if exam.on_host(Path::new(ZONES)) && !exam.on_host(file.as_path()) {
                    Remedy::act(format!(
                        "the host does not know the zone {zone} either: correct `date.timezone`"
                    ))
                } else {
                    exam.bring(file.as_path(), Remedy::preset("timezone"))
                };
                problems.push(Problem::new(format!("{file}: {}", trouble.text), remedy));
            }
        }
    }
    Ok(CheckOutcome::of(problems, good.join("; ")))
}

/// A character set of a gconv module, with a text in it.
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
        return Ok(CheckOutcome::not_needed(format!(
            "nothing brings {}",
            directory.display()
        )));
    }
    let problem =
        |text: String| Problem::new(text, exam.bring(&directory, Remedy::preset("iconv")));
    if exam.other_c_library.is_some() {
        let module = directory.join(set.module);
        let there = exam.ask(Exist(vec![module.clone()]))?.contains(&true);
        let problem = (!there).then(|| problem(format!("{} is not inside", module.display())));
        let good = format!("{} is inside", module.display());
        return Ok(
            CheckOutcome::of(problem.into_iter().collect(), good).unless(exam.other_c_library)
        );
    }
    let (to, text) = (set.name, set.text.to_owned());
    let probe = Convert {
        to: to.to_owned(),
        text,
        expected: set.bytes.to_owned(),
    };
    let trouble = exam.ask(probe)?.err();
    let problem =
        trouble.map(|trouble| problem(format!("no conversion to {to}: {}", trouble.text)));
    Ok(CheckOutcome::of(
        problem.into_iter().collect(),
        format!("UTF-8 is converted to {to}"),
    ))
}

/// The host's directory of modules, and a character set that it has.
fn gconv() -> Option<(PathBuf, CharacterSet)> {
    let places = [
        "/usr/lib/*-linux-gnu*/gconv",
        "/usr/lib64/gconv",
        "/usr/lib/gconv",
    ];
    let mut found = places
        .iter()
        .filter_map(|place| glob::glob(place).ok())
        .flatten()
        .flatten();
    found.find_map(|directory| {
        let set = CHARACTER_SETS
            .into_iter()
            .find(|set| directory.join(set.module).exists())?;
        Some((directory, set))
    })
}

pub(super) fn locale(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if !exam.is_php() && !exam.brings("/usr/lib/locale") {
        return Ok(CheckOutcome::not_needed("nothing brings /usr/lib/locale"));
    }
    let names = locales(exam);
    if names.is_empty() {
        return Ok(CheckOutcome::not_needed(
            "no locale is configured in a pool's `env`, or for the host",
        ));
    }
    if let Some(why) = exam.other_c_library {
        return Ok(CheckOutcome::could_not_check(why));
    }
    let mut problems = vec![];
    for name in &names {
        if let Err(trouble) = exam.ask(Locale { name: name.clone() })? {
            let text = format!("the locale {name} cannot be loaded: {}", trouble.text);
            problems.push(Problem::new(text, bring_locale(exam, name)));
        }
    }
    Ok(CheckOutcome::of(
        problems,
        format!(
            "{} can be loaded",
            names.iter().cloned().collect::<Vec<_>>().join(", ")
        ),
    ))
}

fn bring_locale(exam: &Exam<'_>, name: &str) -> Remedy {
    let here =
        std::ffi::CString::new(name).is_ok_and(|name| crate::sys::load_locale(&name).is_ok());
    if here {
        return exam.bring(Path::new("/usr/lib/locale"), Remedy::preset("locale"));
    }
    Remedy::act(format!(
        "generate it: this host has no locale {name} either (`locale -a`)"
    ))
}

/// Those that the pools and the host name.
fn locales(exam: &Exam<'_>) -> BTreeSet<String> {
    let variables = ["env[LANG]", "env[LC_ALL]", "env[LC_CTYPE]"];
    let of_pools = exam.patient.pool_users.iter().flat_map(|tenant| {
        variables
            .iter()
            .filter_map(|variable| tenant.pool.get(variable))
            .map(ToOwned::to_owned)
    });
    let of_host = LOCALE_CONF
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    let of_host = of_host.flat_map(|text| values(&text));
    of_pools
        .chain(of_host)
        .filter(|name| !["C", "POSIX"].contains(&name.as_str()))
        .collect()
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

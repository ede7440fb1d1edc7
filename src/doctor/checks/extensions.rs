//! PHP's extensions, each pool's with its own settings: those that open files once they are inside
//! are tried there.

use std::collections::BTreeSet;
use std::path::Path;

use super::includes;
use super::php::NO_POOL;
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::PhpState;
use crate::doctor::pool_php::PoolPhp;
use crate::doctor::pools;

/// The configuration of `OpenLDAP`'s library, which names the certificates that ldaps:// trusts.
const LDAP_CONF: [&str; 2] = ["/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf"];

/// The setting that names the extension which keeps sessions.
const SESSIONS: &str = "session.save_handler";

/// The remedy that brings the files of an extension that did not load.
const PRESETS: [(&str, &str); 1] = [("imagick", "php-imagick")];

pub(super) fn extensions(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if pools::of(exam).is_empty() {
        return Ok(CheckOutcome::not_needed(NO_POOL));
    }

    let (mut problems, mut good, mut untried) = (includes::problems(exam)?, BTreeSet::new(), None);
    for php in pools::of(exam) {
        match &php.state {
            Ok(state) => {
                good.insert(format!("PHP {} loads its extensions", state.version));
                good.extend(state.worked.iter().map(|name| format!("{name} works")));
                // The check of TLS has curl's authorities.
                for (name, why) in state.failed.iter().filter(|(name, _)| *name != "curl") {
                    let text = format!("{name}: {why}");
                    problems.push(Problem::new(text, mend(exam, state, name)));
                }
            }
            Err(why) => untried = Some(why.as_str()),
        }
        problems.extend(ldap(exam, php));
    }
    let good: Vec<_> = good.into_iter().collect();
    let good = if good.is_empty() {
        "its extensions are not known".to_owned()
    } else {
        good.join("; ")
    };
    Ok(CheckOutcome::judge(problems, good).unless(untried))
}

/// The preset with the files that an extension opens.
pub(super) fn preset_of(extension: &str) -> Option<&'static str> {
    let (_, preset) = PRESETS.iter().find(|(name, _)| *name == extension)?;
    Some(preset)
}

fn mend(exam: &Exam<'_>, state: &PhpState, extension: &str) -> Remedy {
    if extension == SESSIONS {
        let handler = state.get(SESSIONS).unwrap_or_default();
        return Remedy::act(format!(
            "install PHP's extension {handler} and load it, or correct `{SESSIONS}`"
        ));
    }
    match preset_of(extension) {
        Some(preset) if !exam.presets.contains(preset) => Remedy::preset(preset),
        _ if !exam.is_as_it_should_be() => exam.up(),
        _ => Remedy::act(format!(
            "see what it misses: `mountjail trace {} --pid PID`, with the id of a worker inside",
            exam.site.desired.site
        )),
    }
}

fn ldap(exam: &Exam<'_>, php: &PoolPhp<'_>) -> Option<Problem> {
    if !php.loads("ldap") {
        return None;
    }
    let file = LDAP_CONF
        .iter()
        .find(|file| exam.on_host(Path::new(file)))?;
    if exam.brings(file) {
        return None;
    }
    let text = format!("ldap: {file}, with the certificates that ldaps:// trusts, is not inside");
    let name = file.trim_start_matches("/etc/");
    Some(Problem::new(text, Remedy::line("etc", name)))
}

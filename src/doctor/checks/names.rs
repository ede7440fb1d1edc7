//! Users and groups, and the modules of the name service switch.

use std::path::PathBuf;

use super::Exam;
use crate::doctor::ask::Silence;
use crate::doctor::inside::{Account, Exist, NameServices};
use crate::doctor::types::{Outcome, Problem, Remedy};
use crate::manifest::HostPath;
use crate::resolve::ldso::Loader;

/// Part of the C library since glibc 2.34; where they are not, `dns` and `users` fail.
const BUILT_IN: [&str; 2] = ["files", "dns"];

pub(super) fn users(exam: &Exam<'_>) -> Result<Outcome, Silence> {
    let who = &exam.patient.who;
    if exam.patient.tenants.is_empty() && !exam.brings("/etc/passwd") {
        return Ok(Outcome::not_needed("no PHP-FPM pool is in it, and nothing brings /etc/passwd"));
    }
    let found = exam.ask(Account { uid: who.uid, gid: who.gid })?;
    let nameless = [("user", who.uid, &found.user), ("group", who.gid, &found.group)];
    let nameless = nameless.into_iter().filter(|(.., name)| name.is_none());
    let problems = nameless.map(|(what, id, _)| {
        Problem::new(format!("the {what} {id} has no name inside"), Remedy::line("users", &who.name))
    });
    let problems: Vec<_> = problems.collect();
    let name = |name: Option<String>| name.unwrap_or_default();
    let good = format!("{} is {}, {} is {}", who.uid, name(found.user), who.gid, name(found.group));
    Ok(Outcome::of(problems, good))
}

/// The modules for host names: the C library goes on without one that it does not find, and knows less.
pub(super) fn nss(exam: &Exam<'_>) -> Result<Outcome, Silence> {
    const DATABASE: &str = "hosts";
    let services = match exam.ask(NameServices { database: DATABASE.to_owned() })? {
        Ok(services) => services,
        Err(trouble) if trouble.is_missing() => {
            return Ok(Outcome::not_needed("there is no /etc/nsswitch.conf inside"));
        }
        Err(trouble) => return Ok(Outcome::could_not_check(format!("/etc/nsswitch.conf: {}", trouble.text))),
    };
    let loader = Loader::read(exam.host);
    let modules: Vec<(&String, HostPath)> = services
        .iter()
        .filter(|service| !BUILT_IN.contains(&service.as_str()))
        .filter_map(|service| Some((service, loader.library(&format!("libnss_{service}.so.2"))?)))
        .collect();
    let paths: Vec<PathBuf> = modules.iter().map(|(_, path)| path.as_path().to_owned()).collect();
    let there = exam.ask(Exist(paths))?;
    let missing = modules.iter().zip(there).filter(|(_, there)| !there).map(|((service, path), _)| {
        let text = format!("{path} is not inside: `{service}` answers for `{DATABASE}` in nsswitch.conf");
        Problem::new(text, exam.bring(path.as_path(), Remedy::line("nss", DATABASE)))
    });
    let good = format!("{DATABASE}: {}", services.join(" "));
    Ok(Outcome::of(missing.collect(), good))
}

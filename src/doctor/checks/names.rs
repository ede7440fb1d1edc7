//! Users and groups, and the modules of the name service switch.

use std::fs;
use std::path::PathBuf;

use nix::unistd::User;

use super::Exam;
use crate::base::HostPath;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Account, Exist, NameServices};
use crate::jail::JailUser;
use crate::resolve::ldso::Loader;

/// Part of the C library since glibc 2.34; where they are not, `dns` fails, if it can look names
/// up.
const BUILT_IN: [&str; 2] = ["files", "dns"];

pub(super) fn users(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if exam.patient.pool_users.is_empty() && !exam.brings("/etc/passwd") {
        return Ok(CheckOutcome::not_needed(
            "no PHP-FPM pool is in it, and nothing brings /etc/passwd",
        ));
    }
    let (mut problems, mut good) = (vec![], vec![]);
    for who in exam.everybody() {
        let found = exam.ask_as(
            who,
            Account {
                uid: who.uid,
                gid: who.gid,
            },
        )?;
        match found.user {
            Some(name) => good.push(format!("{} is {name}", who.uid)),
            None => problems.push(Problem::new(
                format!("the user {} has no name inside", who.uid),
                Remedy::line("users", &who.name),
            )),
        }
        match found.group {
            Some(name) => good.push(format!("the group {} is {name}", who.gid)),
            None => problems.push(Problem::new(
                format!("the group {} has no name inside", who.gid),
                bring_group(who),
            )),
        }
    }
    Ok(CheckOutcome::of(problems, good.join(", ")))
}

/// A group comes along with a user whose own it is.
fn bring_group(who: &JailUser) -> Remedy {
    let own = User::from_name(&who.name)
        .ok()
        .flatten()
        .filter(|user| user.gid.as_raw() == who.gid);
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let other = || user_of_group(&String::from_utf8_lossy(&passwd), who.gid);
    match own.map(|user| user.name).or_else(other) {
        Some(name) => Remedy::line("users", name),
        None => Remedy::act(format!(
            "give the pool a group that is some user's own: {} is nobody's",
            who.gid
        )),
    }
}

fn user_of_group(passwd: &str, gid: u32) -> Option<String> {
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let mut of_group = fields.filter(|fields| fields.get(3) == Some(&gid.to_string().as_str()));
    of_group.next()?.first().map(|name| (*name).to_owned())
}

/// The modules for host names: the C library goes on without one that it does not find, and knows
/// less.
pub(super) fn nss(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    const DATABASE: &str = "hosts";
    let services = match exam.ask(NameServices {
        database: DATABASE.to_owned(),
    })? {
        Ok(services) => services,
        Err(trouble) if trouble.is_missing() => {
            return Ok(CheckOutcome::not_needed(
                "there is no /etc/nsswitch.conf inside",
            ));
        }
        Err(trouble) => {
            return Ok(CheckOutcome::could_not_check(format!(
                "/etc/nsswitch.conf: {}",
                trouble.text
            )));
        }
    };
    let loader = Loader::read(exam.host);
    let module = |service: &String| loader.clone()?.library(&format!("libnss_{service}.so.2"));
    let mut modules: Vec<(&String, HostPath)> = vec![];
    for service in &services {
        match module(service) {
            Ok(path) => modules.extend(path.map(|path| (service, path))),
            Err(error) => return Ok(CheckOutcome::could_not_check(error.to_string())),
        }
    }
    let paths: Vec<PathBuf> = modules
        .iter()
        .map(|(_, path)| path.as_path().to_owned())
        .collect();
    let there = exam.ask(Exist(paths))?;
    let missing = modules
        .iter()
        .zip(there)
        .filter(|(_, there)| !there)
        .map(|(module, _)| module);
    let (built_in, missing): (Vec<_>, Vec<_>) =
        missing.partition(|(service, _)| BUILT_IN.contains(&service.as_str()));
    let missing = missing.into_iter().map(|(service, path)| {
        let text =
            format!("{path} is not inside: `{service}` answers for `{DATABASE}` in nsswitch.conf");
        Problem::new(
            text,
            exam.bring(path.as_path(), Remedy::line("nss", DATABASE)),
        )
    });
    let good = format!("{DATABASE}: {}", services.join(" "));
    Ok(CheckOutcome::of(missing.collect(), good)
        .unless(exam.other_c_library.filter(|_| !built_in.is_empty())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_group_is_found_by_its_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nmail:x:8:8:mail:/var/mail:/bin/sh\n";
        assert_eq!(super::user_of_group(passwd, 8), Some("mail".into()));
        assert_eq!(super::user_of_group(passwd, 9), None);
    }
}

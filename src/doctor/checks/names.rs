//! Users and groups, and the modules of the name service switch.

use std::fs;
use std::path::Path;

use nix::unistd::{Gid, Group, User};

use crate::Result;
use crate::base::HostPath;
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{AccountIds, Exist, NameServices};
use crate::jail::JailUser;
use crate::manifest::Request;
use crate::resolve::ldso::Loader;

/// The database of nsswitch.conf(5) that is examined.
const DATABASE: &str = "hosts";

/// These are part of the C library since glibc 2.34. Where they are not, the check `dns` fails, if
/// it can look names up.
const BUILT_IN: [&str; 2] = ["files", "dns"];

pub(super) fn users(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    if exam.site.pool_users.is_empty() && !exam.brings("/etc/passwd") {
        return Ok(CheckOutcome::not_needed(
            "no PHP-FPM pool has this chroot, and nothing brings /etc/passwd",
        ));
    }

    let (mut problems, mut good) = (vec![], vec![]);
    for user in exam.users() {
        let JailUser { uid, gid, .. } = *user;
        let names = exam.ask_as(user, AccountIds { uid, gid })?;
        match names.user {
            Some(name) => good.push(format!("{uid} is {name}")),
            None => problems.push(Problem::new(
                format!("the user {uid} ({}) has no name inside", user.name),
                bring_user(exam, &user.name),
            )),
        }
        match names.group {
            Some(name) => good.push(format!("the group {gid} is {name}")),
            None => match Group::from_gid(Gid::from_raw(gid)).ok().flatten() {
                Some(group) => problems.push(Problem::new(
                    format!("the group {gid} ({}) has no name inside", group.name),
                    bring_group(exam, user, &group.name),
                )),
                None => good.push(format!("the group {gid} has no name on this host either")),
            },
        }
    }
    Ok(CheckOutcome::judge(problems, good.join(", ")))
}

/// The line that names a user inside. One that names it already mends nothing.
fn bring_user(exam: &Exam<'_>, name: &str) -> Remedy {
    let file = Path::new("/etc/passwd");
    for entry in &exam.site.manifest.entries {
        if let Request::User(wanted) = &entry.request
            && wanted.any_of.iter().any(|known| known == name)
        {
            return exam.bring(file, Remedy::line("users", name));
        }
    }
    Remedy::line("users", name)
}

/// A generated group file has the primary groups of the manifest's users, and those that they are
/// members of.
fn bring_group(exam: &Exam<'_>, user: &JailUser, group: &str) -> Remedy {
    if let Ok(Some(account)) = User::from_name(&user.name)
        && account.gid.as_raw() == user.gid
    {
        return bring_user(exam, &user.name);
    }
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    if let Some(name) = user_with_group(&String::from_utf8_lossy(&passwd), user.gid) {
        return bring_user(exam, name);
    }
    let (name, site) = (&user.name, &exam.site.desired.site);
    Remedy::act(format!(
        "usermod -a -G {group} {name} && mountjail up {site}"
    ))
}

/// The first user of passwd(5) with this primary group.
fn user_with_group(passwd: &str, gid: u32) -> Option<&str> {
    let gid = gid.to_string();
    for line in passwd.lines() {
        let fields: Vec<_> = line.split(':').collect();
        if fields.get(3) == Some(&gid.as_str()) {
            return fields.first().copied();
        }
    }
    None
}

/// The modules for host names. The C library goes on without a module that it does not find, and
/// then finds fewer names.
pub(super) fn nss(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let probe = NameServices {
        database: DATABASE.to_owned(),
    };
    let services = match exam.ask(probe)? {
        Ok(services) => services,
        Err(error) if error.is_missing() => {
            let why = "there is no /etc/nsswitch.conf inside";
            return Ok(CheckOutcome::not_needed(why));
        }
        Err(error) => {
            let why = format!("/etc/nsswitch.conf: {error}");
            return Ok(CheckOutcome::could_not_check(why));
        }
    };
    let modules = match modules(exam, &services) {
        Ok(modules) => modules,
        Err(error) => return Ok(CheckOutcome::could_not_check(error.to_string())),
    };

    let mut paths = vec![];
    for (_, path) in &modules {
        paths.push(path.as_path().to_owned());
    }
    let are_there = exam.ask(Exist(paths))?;
    let mut problems = vec![];
    let mut untried = None;
    for ((service, path), is_there) in modules.into_iter().zip(are_there) {
        if is_there {
            continue;
        }
        if BUILT_IN.contains(&service) {
            untried = exam.other_c_library;
            continue;
        }
        let text =
            format!("{path} is not inside: `{service}` answers for `{DATABASE}` in nsswitch.conf");
        let remedy = exam.bring(path.as_path(), Remedy::line("nss", DATABASE));
        problems.push(Problem::new(text, remedy));
    }
    let good = format!("{DATABASE}: {}", services.join(" "));
    Ok(CheckOutcome::judge(problems, good).unless(untried))
}

/// The host's modules for these services, as far as it has any.
fn modules<'s>(exam: &Exam<'_>, services: &'s [String]) -> Result<Vec<(&'s str, HostPath)>> {
    let mut modules = vec![];
    if services.is_empty() {
        return Ok(modules);
    }
    let loader = Loader::read(exam.host)?;
    for service in services {
        if let Some(path) = loader.library(&format!("libnss_{service}.so.2"))? {
            modules.push((service.as_str(), path));
        }
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_group_is_found_by_its_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nmail:x:8:8:mail:/var/mail:/bin/sh\n";
        assert_eq!(super::user_with_group(passwd, 8), Some("mail"));
        assert_eq!(super::user_with_group(passwd, 9), None);
    }
}

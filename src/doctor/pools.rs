//! PHP as the pools of a site have it: its command line, run with their settings.

use std::path::{Path, PathBuf};

use super::ask::NoAnswer;
use super::exam::Exam;
use super::inside::{Php, PhpState};
use super::pool_php::PoolPhp;
use crate::base::HostPath;
use crate::import::fpm::PoolUser;
use crate::resolve::Host;

/// PHP's own answers for the site's pools. It is asked once.
pub(super) fn of<'e, 'x>(exam: &'x Exam<'e>) -> &'x [PoolPhp<'e>] {
    exam.php.get_or_init(|| ask(exam))
}

/// Asks PHP for each pool; never as root. Pools that differ in nothing share an answer.
fn ask<'e>(exam: &Exam<'e>) -> Vec<PoolPhp<'e>> {
    let mut asked: Vec<(Php, &PoolUser, Result<PhpState, String>)> = vec![];
    let mut found = vec![];
    for pool_user in exam.site.pool_users {
        if pool_user.user.is_root() {
            continue;
        }
        let state = match command_line(exam.host, pool_user) {
            Err(why) => Err(why),
            Ok(php) => {
                let mut known = asked.iter();
                let same = known.find(|(same, of, _)| *same == php && of.user == pool_user.user);
                if let Some((_, _, state)) = same {
                    state.clone()
                } else {
                    let answer = exam.ask_as(&pool_user.user, php.clone());
                    let state = answer.map_err(|why: NoAnswer| why.to_string());
                    asked.push((php, pool_user, state.clone()));
                    state
                }
            }
        };
        found.push(PoolPhp { pool_user, state });
    }
    found
}

/// The command line of the pool's PHP, with the pool's settings.
fn command_line(host: &Host, pool_user: &PoolUser) -> Result<Php, String> {
    let settings = &pool_user.settings;
    let candidates = candidates(settings.file.as_deref());
    let mut programs = candidates
        .iter()
        .filter_map(|path| HostPath::new(path).ok());
    // It is run as root.
    let is_roots = |path: &HostPath| host.others(path).is_ok_and(|others| others.is_none());
    match programs.find(is_roots) {
        Some(program) => Ok(Php {
            program,
            ini: settings.file.clone(),
            directory: settings.directory.clone(),
            settings: settings.of_pool().to_vec(),
        }),
        None => Err(format!(
            "the command line of PHP is not installed ({})",
            candidates[0].display()
        )),
    }
}

/// Where the command line of the PHP with this php.ini may be, the most likely place first.
fn candidates(php_ini: Option<&Path>) -> Vec<PathBuf> {
    let mut found = vec![];
    let parts: Vec<_> = php_ini
        .into_iter()
        .flat_map(Path::components)
        .filter_map(|part| part.as_os_str().to_str())
        .collect();
    match parts.as_slice() {
        [_, "etc", "php", version, "fpm", ..] => found.push(format!("/usr/bin/php{version}")),
        [_, "etc", "php", fpm, ..] if fpm.starts_with("fpm-php") => {
            let version = &fpm["fpm-".len()..];
            found.push(format!("/usr/lib64/{version}/bin/php"));
        }
        [_, "etc", "opt", vendor, name, ..] => {
            found.push(format!("/opt/{vendor}/{name}/root/usr/bin/php"));
        }
        [_, "etc", name, ..] if name.starts_with("php") => {
            let name = name.trim_end_matches(".ini");
            found.push(format!("/usr/bin/{name}"));
        }
        _ => {}
    }
    if let Some(etc) = parts.iter().rposition(|part| *part == "etc")
        && etc > 1
    {
        let prefix: PathBuf = parts[..etc].iter().collect();
        for below in ["bin/php", "usr/bin/php"] {
            found.push(prefix.join(below).display().to_string());
        }
    }
    if found.is_empty() {
        found.push("/usr/local/bin/php".to_owned());
    }
    found.push("/usr/bin/php".to_owned());
    found.into_iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_distribution_has_its_place() {
        let first = |php_ini: &str| {
            candidates(Some(Path::new(php_ini)))[0]
                .display()
                .to_string()
        };
        for (php_ini, program) in [
            ("/etc/php/8.2/fpm/php.ini", "/usr/bin/php8.2"),
            ("/etc/php/fpm-php8.2/php.ini", "/usr/lib64/php8.2/bin/php"),
            (
                "/etc/opt/remi/php82/php.ini",
                "/opt/remi/php82/root/usr/bin/php",
            ),
            (
                "/opt/cpanel/ea-php82/root/etc/php.ini",
                "/opt/cpanel/ea-php82/root/bin/php",
            ),
            (
                "/opt/plesk/php/8.2/etc/php.ini",
                "/opt/plesk/php/8.2/bin/php",
            ),
            ("/etc/php8/fpm/php.ini", "/usr/bin/php8"),
            ("/etc/php.ini", "/usr/bin/php"),
            ("/usr/local/etc/php/php.ini", "/usr/local/bin/php"),
        ] {
            assert_eq!(first(php_ini), program);
        }
        assert_eq!(candidates(None)[0], Path::new("/usr/local/bin/php"));
    }
}

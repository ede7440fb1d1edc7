//! Daemons whose configuration names a root by one key: named, unbound, nsd, haproxy, squid,
//! rsyncd, vsftpd, uwsgi.
//!
//! Their files have a key and a value in a line, whatever stands between the two.

use std::path::Path;

use super::{DaemonSites, FileLine, add};
use crate::observe::Units;

/// One of these daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Daemon {
    Named,
    Unbound,
    Nsd,
    Haproxy,
    Squid,
    Rsyncd,
    Vsftpd,
    Uwsgi,
}

/// A line that says something.
struct KeyLine<'t> {
    nth: usize,
    key: String,
    value: &'t str,
}

impl Daemon {
    /// The key of its root, and that of its user.
    fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Named => ("-t", "-u"),
            Self::Unbound | Self::Nsd => ("chroot", "username"),
            Self::Haproxy => ("chroot", "user"),
            Self::Squid => ("chroot", "cache_effective_user"),
            Self::Rsyncd => ("path", "uid"),
            Self::Vsftpd => ("secure_chroot_dir", "nopriv_user"),
            Self::Uwsgi => ("chroot", "uid"),
        }
    }

    /// Presets, and the names that distributions have for its unit.
    fn needs(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Named => (
                &["named"],
                &["named.service", "named-chroot.service", "bind9.service"],
            ),
            Self::Unbound => (&["unbound"], &["unbound.service"]),
            Self::Nsd => (&["nsd"], &["nsd.service"]),
            Self::Haproxy => (&["haproxy", "syslog"], &["haproxy.service"]),
            Self::Squid => (&["squid", "dns", "tls"], &["squid.service"]),
            Self::Rsyncd => (&["timezone"], &["rsync.service", "rsyncd.service"]),
            Self::Vsftpd => (&["timezone", "syslog"], &["vsftpd.service"]),
            Self::Uwsgi => (
                &["base", "dns", "tls", "timezone", "systemd-notify"],
                &["uwsgi.service"],
            ),
        }
    }
}

/// The sites of a file.
pub(in crate::import) fn read(
    daemon: Daemon,
    file: &Path,
    text: &str,
    units: &Units,
) -> DaemonSites {
    let lines: Vec<_> = text
        .lines()
        .zip(1..)
        .filter_map(|(line, nth)| split(line, nth))
        .collect();
    let mut read = DaemonSites::default();
    let (root_key, user_key) = daemon.keys();
    let roots = match daemon {
        Daemon::Named => of_options(&lines, root_key),
        Daemon::Rsyncd => of_modules(&lines),
        Daemon::Vsftpd => of_vsftpd(&lines),
        _ => of_key(&lines, root_key),
    };
    let user = match daemon {
        Daemon::Named => of_options(&lines, user_key).pop().map(|(_, user)| user),
        _ => last(&lines, user_key).map(|line| line.value.to_owned()),
    };
    for (nth, root) in roots
        .into_iter()
        .filter(|(_, root)| !root.is_empty() && root != "/")
    {
        let place = FileLine { file, line: nth };
        if root.contains(['$', '%']) {
            let each = "it differs from user to user; write a manifest for each";
            read.warnings.push(format!("{place}: {root}: {each}"));
            continue;
        }
        let said = format!("The {root_key} {root}");
        let Some(draft) = read.site(place, &said, &root) else {
            continue;
        };
        let (presets, services) = daemon.needs();
        let named = user
            .iter()
            .filter(|user| !user.bytes().all(|byte| byte.is_ascii_digit()));
        let users: Vec<_> = named.map(String::as_str).collect();
        add(draft, presets, &users, services, units);
    }
    if daemon == Daemon::Vsftpd
        && is_on(&lines, "chroot_local_user")
        && last(&lines, "local_root").is_none()
    {
        let homes = "chroot_local_user: each user's home is a root; write a manifest for each";
        read.warnings.push(format!("{}: {homes}", file.display()));
    }
    read
}

/// The key and the value of a line, without quotes and comments.
fn split(line: &str, nth: usize) -> Option<KeyLine<'_>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    if line.starts_with('[') {
        return Some(KeyLine {
            nth,
            key: line.to_owned(),
            value: "",
        });
    }
    let between = |c: char| c.is_whitespace() || c == ':' || c == '=';
    // rsyncd's keys have blanks in them.
    let end = match line.find('=') {
        Some(end)
            if line[..end]
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_- ".contains(c)) =>
        {
            end
        }
        _ => line.find(between).unwrap_or(line.len()),
    };
    let value = line[end..].trim_start_matches(between);
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
        _ => value.split(" #").next().unwrap_or_default().trim(),
    };
    Some(KeyLine {
        nth,
        key: line[..end].trim().to_ascii_lowercase(),
        value,
    })
}

fn last<'l, 't>(lines: &'l [KeyLine<'t>], key: &str) -> Option<&'l KeyLine<'t>> {
    lines.iter().rev().find(|line| line.key == key)
}

fn is_on(lines: &[KeyLine<'_>], key: &str) -> bool {
    let value = last(lines, key).map(|line| line.value.to_ascii_lowercase());
    value.is_some_and(|value| ["yes", "true", "1", "on"].contains(&value.as_str()))
}

fn of_key(lines: &[KeyLine<'_>], key: &str) -> Vec<(usize, String)> {
    last(lines, key)
        .map(|line| (line.nth, line.value.to_owned()))
        .into_iter()
        .collect()
}

/// The value of an option in `OPTIONS="…"`, or RHEL's `ROOTDIR=`.
fn of_options(lines: &[KeyLine<'_>], option: &str) -> Vec<(usize, String)> {
    let rootdir = of_key(lines, "rootdir")
        .into_iter()
        .filter(|_| option == "-t");
    let options = last(lines, "options").and_then(|line| {
        let words: Vec<_> = line.value.split_whitespace().collect();
        let after = words
            .iter()
            .position(|word| *word == option)
            .and_then(|at| words.get(at + 1).copied());
        let value = after.or_else(|| words.iter().find_map(|word| word.strip_prefix(option)))?;
        Some((line.nth, value.to_owned()))
    });
    rootdir.chain(options).collect()
}

/// The paths of rsync's modules that it enters; what follows `/./` is inside.
fn of_modules(lines: &[KeyLine<'_>]) -> Vec<(usize, String)> {
    let begins: Vec<_> = (0..lines.len())
        .filter(|at| lines[*at].key.starts_with('['))
        .collect();
    let global = &lines[..begins.first().copied().unwrap_or(lines.len())];
    let ends = begins.iter().skip(1).copied().chain([lines.len()]);
    let modules = begins
        .iter()
        .zip(ends)
        .map(|(begin, end)| &lines[*begin..end]);
    let entered = |module: &&[KeyLine<'_>]| {
        let set = last(module, "use chroot").or_else(|| last(global, "use chroot"));
        set.is_none_or(|line| {
            ["yes", "true", "1"].contains(&line.value.to_ascii_lowercase().as_str())
        })
    };
    let path = |module: &[KeyLine<'_>]| {
        let line = last(module, "path")?;
        Some((
            line.nth,
            line.value
                .split("/./")
                .next()
                .unwrap_or_default()
                .to_owned(),
        ))
    };
    modules.filter(entered).filter_map(path).collect()
}

fn of_vsftpd(lines: &[KeyLine<'_>]) -> Vec<(usize, String)> {
    let mut roots = of_key(lines, "secure_chroot_dir");
    if is_on(lines, "chroot_local_user") {
        roots.extend(of_key(lines, "local_root"));
    }
    if is_on(lines, "anonymous_enable") {
        roots.extend(of_key(lines, "anon_root"));
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(daemon: Daemon, text: &str) -> (Vec<String>, usize) {
        let read = read(daemon, Path::new("f"), text, &Units::default());
        let roots = read
            .sites
            .iter()
            .filter_map(|site| site.root())
            .map(ToString::to_string)
            .collect();
        (roots, read.warnings.len())
    }

    #[test]
    fn each_has_its_key() {
        for (daemon, text, expected) in [
            (
                Daemon::Named,
                "RESOLVCONF=no\nOPTIONS=\"-u bind -t /var/lib/named\"\n",
                vec!["/var/lib/named"],
            ),
            (
                Daemon::Named,
                "ROOTDIR=/var/named/chroot\n",
                vec!["/var/named/chroot"],
            ),
            (
                Daemon::Unbound,
                "server:\n\tchroot: \"/var/lib/unbound\" # x\n",
                vec!["/var/lib/unbound"],
            ),
            (Daemon::Unbound, "server:\n  chroot: \"\"\n", vec![]),
            (
                Daemon::Nsd,
                "server:\n  chroot: /var/lib/nsd/\n",
                vec!["/var/lib/nsd"],
            ),
            (
                Daemon::Haproxy,
                "global\n  chroot /var/lib/haproxy\n  user haproxy\n",
                vec!["/var/lib/haproxy"],
            ),
            (
                Daemon::Squid,
                "http_port 3128\nchroot /srv/squid\n",
                vec!["/srv/squid"],
            ),
            (
                Daemon::Rsyncd,
                "uid = nobody\n[a]\npath = /srv/a\n[b]\nuse chroot = no\npath=/srv/b\n[c]\npath = /srv/c/./in\n",
                vec!["/srv/a", "/srv/c"],
            ),
            (
                Daemon::Vsftpd,
                "secure_chroot_dir=/run/vsftpd/empty\nchroot_local_user=YES\nlocal_root=/srv/ftp\n",
                vec!["/run/vsftpd/empty", "/srv/ftp"],
            ),
            (
                Daemon::Uwsgi,
                "[uwsgi]\nchroot = /srv/app\nuid = www-data\n",
                vec!["/srv/app"],
            ),
        ] {
            assert_eq!(
                roots(daemon, text),
                (expected.into_iter().map(str::to_owned).collect(), 0),
                "{text}"
            );
        }
    }

    #[test]
    fn roots_that_differ_from_user_to_user_are_named() {
        assert_eq!(
            roots(Daemon::Vsftpd, "chroot_local_user=YES\n"),
            (vec![], 1)
        );
        assert_eq!(
            roots(
                Daemon::Vsftpd,
                "chroot_local_user=YES\nlocal_root=/home/$USER\n"
            ),
            (vec![], 1)
        );
        assert_eq!(
            roots(Daemon::Rsyncd, "[home]\npath = /home/%RSYNC_USER_NAME%\n"),
            (vec![], 1)
        );
    }
}

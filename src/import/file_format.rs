//! Which program's a file is, by what is in it: pure.

use std::path::Path;

use super::daemons::keys::Daemon;
use super::daemons::{postfix, sshd};
use super::{fstab, jailkit};

/// The kinds of files, for the message about one of another kind.
pub(super) const KNOWN: &str = "those are PHP-FPM's configuration, fstab(5), jailkit's jk_init.ini, sshd_config(5), \
                                Postfix's master.cf, units of systemd, and the configuration of named (its options), \
                                unbound, nsd, haproxy, squid, rsyncd, vsftpd and uwsgi";

/// Whether a line of the file is as asked.
type Any<'a> = &'a dyn Fn(&dyn Fn(&str) -> bool) -> bool;

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    Fpm,
    Fstab,
    Jailkit,
    Sshd,
    Postfix,
    Unit,
    Daemon(Daemon),
}

/// What only PHP-FPM's files set, besides `include` and what is in brackets.
const FPM: [&str; 14] = [
    "access.log",
    "catch_workers_output",
    "chroot",
    "clear_env",
    "daemonize",
    "error_log",
    "group",
    "include",
    "listen",
    "log_level",
    "pid",
    "pm",
    "prefix",
    "user",
];

/// Words that begin a line of squid.conf alone.
const SQUID: [&str; 8] = [
    "acl",
    "cache_dir",
    "cache_effective_user",
    "cache_mem",
    "cache_peer",
    "http_access",
    "http_port",
    "refresh_pattern",
];

/// Keys of vsftpd.conf alone.
const VSFTPD: [&str; 8] = [
    "anon_root",
    "anonymous_enable",
    "chroot_list_enable",
    "chroot_local_user",
    "local_enable",
    "local_root",
    "secure_chroot_dir",
    "userlist_enable",
];

/// Keys of nsd.conf that unbound.conf has not.
const NSD: [&str; 6] = [
    "database:",
    "pattern:",
    "xfrdfile:",
    "zone:",
    "zonelistfile:",
    "zonesdir:",
];

/// The lines that say something, without blanks around them.
fn lines(text: &[u8]) -> Vec<String> {
    let lines = text
        .split(|byte| *byte == b'\n')
        .map(|line| String::from_utf8_lossy(line.trim_ascii()).into_owned());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        .collect()
}

/// The kind of the file `path`; `None`: of none that is known.
pub(super) fn of(path: &Path, text: &[u8]) -> Option<FileFormat> {
    let lines = lines(text);
    let any = |is: &dyn Fn(&str) -> bool| lines.iter().any(|line| is(line));
    if any(&|line| line.starts_with('[')) {
        return with_sections(&any);
    }
    if any(&postfix::looks_like) {
        return Some(FileFormat::Postfix);
    }
    if let Some(daemon) = daemon(path, &any) {
        return Some(FileFormat::Daemon(daemon));
    }
    if any(&sshd::looks_like) {
        return Some(FileFormat::Sshd);
    }
    if any(&|line| fstab::looks_like(line.as_bytes())) {
        return Some(FileFormat::Fstab);
    }
    any(&is_fpm).then_some(FileFormat::Fpm)
}

fn with_sections(any: Any<'_>) -> Option<FileFormat> {
    let key = |line: &str| {
        line.split_once(['=', ':'])
            .map(|(key, _)| key.trim().to_ascii_lowercase())
    };
    let has_key = |wanted: &str| any(&|line| key(line).as_deref() == Some(wanted));
    if any(&|line| ["[Unit]", "[Service]", "[Install]"].contains(&line)) {
        return Some(FileFormat::Unit);
    }
    if any(&|line| line == "[uwsgi]") {
        return Some(FileFormat::Daemon(Daemon::Uwsgi));
    }
    if has_key("path") && !has_key("pm") {
        return Some(FileFormat::Daemon(Daemon::Rsyncd));
    }
    if any(&jailkit::looks_like) {
        return Some(FileFormat::Jailkit);
    }
    any(&is_fpm).then_some(FileFormat::Fpm)
}

fn daemon(path: &Path, any: Any<'_>) -> Option<Daemon> {
    let first = |line: &str| {
        line.split(char::is_whitespace)
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let begins = |words: &[&str]| any(&|line| words.contains(&first(line).as_str()));
    let key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
    if begins(&["server:"]) {
        let nsd = begins(&NSD) || path.to_string_lossy().contains("nsd");
        return Some(if nsd { Daemon::Nsd } else { Daemon::Unbound });
    }
    if begins(&["global"]) || begins(&["frontend", "backend"]) {
        return Some(Daemon::Haproxy);
    }
    if begins(&SQUID) {
        return Some(Daemon::Squid);
    }
    if any(&|line| key(line).is_some_and(|key| VSFTPD.contains(&key.as_str()))) {
        return Some(Daemon::Vsftpd);
    }
    let options = |line: &str| key(line).is_some_and(|key| key == "OPTIONS" || key == "ROOTDIR");
    let named = path
        .file_name()
        .is_some_and(|name| name == "named" || name == "bind9");
    (named && any(&options)).then_some(Daemon::Named)
}

/// Whether a line is one of PHP-FPM's: `[global]`, or a directive of its own.
fn is_fpm(line: &str) -> bool {
    if line.starts_with('[') {
        return line.eq_ignore_ascii_case("[global]");
    }
    let key = line
        .split_once('=')
        .map(|(key, _)| key.trim().to_ascii_lowercase());
    let own = [
        "pm.",
        "listen.",
        "php_value[",
        "php_flag[",
        "php_admin_",
        "env[",
    ];
    key.is_some_and(|key| FPM.contains(&key.as_str()) || own.iter().any(|own| key.starts_with(own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_what_is_in_the_file() {
        for (text, expected) in [
            ("", None),
            ("# only\n; comments\n", None),
            ("nothing that is known", None),
            ("[www\n", None),
            ("[client]\nport = 3306\n", None),
            ("options {\n  directory \"/var/cache/bind\";\n};\n", None),
            ("server {\n  listen 80;\n  root /srv/www;\n}\n", None),
            ("; a\n[www]\nuser = x\n", Some(FileFormat::Fpm)),
            ("include=/etc/php-fpm.d/*.conf\n", Some(FileFormat::Fpm)),
            ("[GLOBAL]\n", Some(FileFormat::Fpm)),
            (
                "# x\n[ssh]\ncomment = y\npaths = ssh\n",
                Some(FileFormat::Jailkit),
            ),
            ("[ssh]\nnonsense\nPaths: ssh\n", Some(FileFormat::Jailkit)),
            (
                "# /etc/fstab\nUUID=1-2 / ext4 defaults 0 1\n",
                Some(FileFormat::Fstab),
            ),
            ("/etc/x\t/srv/a/etc/x\n", Some(FileFormat::Fstab)),
            (
                "broken\n/dev/sda2 none swap sw 0 0\n",
                Some(FileFormat::Fstab),
            ),
            (
                "proc /srv/a/proc proc defaults 0 0\n",
                Some(FileFormat::Fstab),
            ),
            (
                "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n",
                Some(FileFormat::Sshd),
            ),
            ("smtp inet n - y - - smtpd\n", Some(FileFormat::Postfix)),
            (
                "[Unit]\nDescription=x\n[Service]\nRootDirectory=/srv/x\n",
                Some(FileFormat::Unit),
            ),
            (
                "global\n\tlog /dev/log local0\ndefaults\n\tmode http\n",
                Some(FileFormat::Daemon(Daemon::Haproxy)),
            ),
            (
                "http_port 3128\naccess_log /var/log/squid/a.log squid\n",
                Some(FileFormat::Daemon(Daemon::Squid)),
            ),
            (
                "server:\n  chroot: \"\"\n",
                Some(FileFormat::Daemon(Daemon::Unbound)),
            ),
            (
                "server:\n  zonesdir: /x\n",
                Some(FileFormat::Daemon(Daemon::Nsd)),
            ),
            (
                "uid = nobody\n[x]\npath = /srv/x\n",
                Some(FileFormat::Daemon(Daemon::Rsyncd)),
            ),
            (
                "listen=NO\nlocal_enable=YES\n",
                Some(FileFormat::Daemon(Daemon::Vsftpd)),
            ),
            (
                "[uwsgi]\nchroot = /srv/x\n",
                Some(FileFormat::Daemon(Daemon::Uwsgi)),
            ),
        ] {
            assert_eq!(of(Path::new("f"), text.as_bytes()), expected, "{text:?}");
        }
        let named = of(Path::new("/etc/default/named"), b"OPTIONS=\"-u bind\"\n");
        assert_eq!(named, Some(FileFormat::Daemon(Daemon::Named)));
    }
}

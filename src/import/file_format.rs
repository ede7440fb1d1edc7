//! The format of a configuration file, detected from its contents: pure.

use std::ffi::OsStr;
use std::path::Path;

use super::daemons::keys::DaemonKind;
use super::daemons::{postfix, sshd};
use super::{fstab, jailkit};

/// The known formats, for the message about a file in another one.
pub(super) const KNOWN: &str = "those are PHP-FPM's configuration, fstab(5), jailkit's \
                                jk_init.ini, sshd_config(5), Postfix's master.cf, systemd's units, \
                                and the configuration of named (its options), unbound, nsd, \
                                haproxy, squid, rsyncd, vsftpd and uwsgi";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    Fpm,
    Fstab,
    Jailkit,
    Sshd,
    Postfix,
    Unit,
    Daemon(DaemonKind),
}

/// Directives that only PHP-FPM's files have.
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

/// How other directives of PHP-FPM begin.
const FPM_PREFIXES: [&str; 6] = [
    "pm.",
    "listen.",
    "php_value[",
    "php_flag[",
    "php_admin_",
    "env[",
];

/// Words that begin a line only in squid.conf.
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

/// Keys that only vsftpd.conf has.
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

/// Keys of nsd.conf that unbound.conf does not have.
const NSD: [&str; 6] = [
    "database:",
    "pattern:",
    "xfrdfile:",
    "zone:",
    "zonelistfile:",
    "zonesdir:",
];

/// How lines begin that only the option files of mysqld and its clients have.
const MYSQL: [&str; 6] = [
    "!include", "[client", "[galera", "[mariadb", "[mysql", "[server]",
];

/// Keys that only smb.conf has.
const SAMBA: [&str; 10] = [
    "browseable",
    "browsable",
    "create mask",
    "guest ok",
    "map to guest",
    "netbios name",
    "printable",
    "valid users",
    "workgroup",
    "writable",
];

/// The lines of a file that are not comments.
struct Lines(Vec<String>);

impl Lines {
    fn new(text: &[u8]) -> Self {
        let mut lines = vec![];
        for line in text.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line.trim_ascii());
            if !line.is_empty() && !line.starts_with(['#', ';']) {
                lines.push(line.into_owned());
            }
        }
        Self(lines)
    }

    fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        self.0.iter().any(|line| is(line))
    }

    /// Whether a line begins with one of these words.
    fn begin_with(&self, words: &[&str]) -> bool {
        self.any(|line| match line.split_whitespace().next() {
            Some(first) => words.contains(&first),
            None => false,
        })
    }

    /// Whether a line begins with one of these texts.
    fn begin_with_any(&self, texts: &[&str]) -> bool {
        self.any(|line| texts.iter().any(|text| line.starts_with(text)))
    }

    /// Whether a line sets one of these keys: `key = value`.
    fn set(&self, keys: &[&str]) -> bool {
        self.any(|line| match line.split_once('=') {
            Some((key, _)) => keys.contains(&key.trim()),
            None => false,
        })
    }

    /// Whether a line sets this key, in upper or lower case: `key = value` or `key: value`.
    fn set_key(&self, wanted: &str) -> bool {
        self.any(|line| match line.split_once(['=', ':']) {
            Some((key, _)) => key.trim().eq_ignore_ascii_case(wanted),
            None => false,
        })
    }
}

impl FileFormat {
    /// The format of the file `path` with the contents `text`; `None`: it is not known.
    pub(super) fn detect(path: &Path, text: &[u8]) -> Option<Self> {
        let lines = Lines::new(text);
        if lines.any(|line| line.starts_with('[')) {
            return with_sections(path, &lines);
        }
        if lines.0.is_empty() && path.file_name() == Some(OsStr::new("fstab")) {
            return Some(Self::Fstab);
        }
        if lines.any(postfix::looks_like) {
            return Some(Self::Postfix);
        }
        if let Some(daemon) = daemon(path, &lines) {
            return Some(Self::Daemon(daemon));
        }
        if lines.any(sshd::looks_like) {
            return Some(Self::Sshd);
        }
        if lines.any(|line| fstab::looks_like(line.as_bytes())) {
            return Some(Self::Fstab);
        }
        lines.any(is_fpm).then_some(Self::Fpm)
    }
}

fn with_sections(path: &Path, lines: &Lines) -> Option<FileFormat> {
    if lines.any(|line| ["[Unit]", "[Service]", "[Mount]", "[Install]"].contains(&line)) {
        return Some(FileFormat::Unit);
    }
    if is_of_another_program(path, lines) {
        return None;
    }
    if lines.any(|line| line == "[uwsgi]") {
        return Some(FileFormat::Daemon(DaemonKind::Uwsgi));
    }
    if lines.set_key("path") && !lines.set_key("pm") {
        return Some(FileFormat::Daemon(DaemonKind::Rsyncd));
    }
    if lines.any(jailkit::looks_like) {
        return Some(FileFormat::Jailkit);
    }
    lines.any(is_fpm).then_some(FileFormat::Fpm)
}

/// Whether it has the keys of a known format for another purpose: the configuration of mysqld, of
/// Samba, or of jailkit's other programs, whose sections are named after roots.
fn is_of_another_program(path: &Path, lines: &Lines) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_fpm = lines.any(|line| line.eq_ignore_ascii_case("[global]"))
        || lines.set(&["pm", "listen"])
        || lines.begin_with_any(&FPM_PREFIXES);
    let is_samba = name == "smb.conf" || lines.set(&SAMBA);
    let is_jailkits = lines.begin_with_any(&["[/"]) || name == "jk_lsh.ini";
    is_samba || is_jailkits || (!is_fpm && lines.begin_with_any(&MYSQL))
}

fn daemon(path: &Path, lines: &Lines) -> Option<DaemonKind> {
    if lines.begin_with(&["server:"]) {
        let is_nsd = lines.begin_with(&NSD) || path.to_string_lossy().contains("nsd");
        return Some(if is_nsd {
            DaemonKind::Nsd
        } else {
            DaemonKind::Unbound
        });
    }
    if lines.begin_with(&["global", "frontend", "backend"]) {
        return Some(DaemonKind::Haproxy);
    }
    if lines.begin_with(&SQUID) {
        return Some(DaemonKind::Squid);
    }
    if lines.set(&VSFTPD) {
        return Some(DaemonKind::Vsftpd);
    }
    let name = path.file_name().unwrap_or_default();
    let is_named = name == "named" || name == "bind9";
    (is_named && lines.set(&["OPTIONS", "ROOTDIR"])).then_some(DaemonKind::Named)
}

/// Whether a line is one of PHP-FPM's: `[global]`, or a directive that only PHP-FPM has.
fn is_fpm(line: &str) -> bool {
    if line.starts_with('[') {
        return line.eq_ignore_ascii_case("[global]");
    }
    let Some((key, _)) = line.split_once('=') else {
        return false;
    };
    let key = key.trim().to_ascii_lowercase();
    FPM.contains(&key.as_str()) || FPM_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_detected_from_the_contents() {
        for (text, expected) in [
            ("", None),
            ("# only\n; comments\n", None),
            ("nothing that is known", None),
            ("[www\n", None),
            ("[client]\nport = 3306\n", None),
            ("[mysqld]\nchroot=/srv/d\nuser=mysql\n", None),
            ("[global]\nworkgroup = x\n[x]\npath = /srv/x\n", None),
            (
                "[/home/testjail]\nskips = /usr/bin/x\ndirectories = /usr\n",
                None,
            ),
            (
                "[Mount]\nWhat=/a\nWhere=/srv/x/a\nOptions=bind\n",
                Some(FileFormat::Unit),
            ),
            ("[mysql]\nuser = x\npm = static\n", Some(FileFormat::Fpm)),
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
                Some(FileFormat::Daemon(DaemonKind::Haproxy)),
            ),
            (
                "http_port 3128\naccess_log /var/log/squid/a.log squid\n",
                Some(FileFormat::Daemon(DaemonKind::Squid)),
            ),
            (
                "server:\n  chroot: \"\"\n",
                Some(FileFormat::Daemon(DaemonKind::Unbound)),
            ),
            (
                "server:\n  zonesdir: /x\n",
                Some(FileFormat::Daemon(DaemonKind::Nsd)),
            ),
            (
                "uid = nobody\n[x]\npath = /srv/x\n",
                Some(FileFormat::Daemon(DaemonKind::Rsyncd)),
            ),
            (
                "listen=NO\nlocal_enable=YES\n",
                Some(FileFormat::Daemon(DaemonKind::Vsftpd)),
            ),
            (
                "[uwsgi]\nchroot = /srv/x\n",
                Some(FileFormat::Daemon(DaemonKind::Uwsgi)),
            ),
        ] {
            let detected = FileFormat::detect(Path::new("f"), text.as_bytes());
            assert_eq!(detected, expected, "{text:?}");
        }
        let named = |name: &str, text: &[u8]| FileFormat::detect(Path::new(name), text);
        assert_eq!(named("/etc/fstab", b"# only\n"), Some(FileFormat::Fstab));
        assert_eq!(named("smb.conf", b"[x]\npath = /srv/x\n"), None);
        let text = b"OPTIONS=\"-u bind\"\n";
        let named = FileFormat::detect(Path::new("/etc/default/named"), text);
        assert_eq!(named, Some(FileFormat::Daemon(DaemonKind::Named)));
    }
}

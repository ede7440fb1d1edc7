//! Daemons whose configuration names a root by one key: named, unbound, nsd, haproxy, squid,
//! rsyncd, vsftpd, uwsgi.
//!
//! Their files have a key and a value per line, with different separators.

use std::ffi::OsStr;
use std::path::Path;

use super::{DaemonSites, FileLine, Needs};
use crate::import::logins;
use crate::observe::Units;

/// One of these daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum DaemonKind {
    Named,
    Unbound,
    Nsd,
    Haproxy,
    Squid,
    Rsyncd,
    Vsftpd,
    Uwsgi,
}

/// A line with a key and a value. The key of a section is `[name]`.
struct KeyLine<'t> {
    line: usize,
    key: String,
    value: &'t str,
}

/// A root that a file names, with its line and key.
type RootLine = (usize, &'static str, String);

impl DaemonKind {
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

    fn presets(self) -> &'static [&'static str] {
        match self {
            Self::Named => &["named"],
            Self::Unbound => &["unbound"],
            Self::Nsd => &["nsd"],
            Self::Haproxy => &["haproxy", "syslog"],
            Self::Squid => &["squid", "dns", "tls"],
            Self::Rsyncd => &["timezone"],
            Self::Vsftpd => &["timezone", "syslog"],
            Self::Uwsgi => &["base", "dns", "tls", "timezone", "systemd-notify"],
        }
    }

    /// The names that distributions have for its unit.
    fn services(self) -> &'static [&'static str] {
        match self {
            Self::Named => &["named.service", "named-chroot.service", "bind9.service"],
            Self::Unbound => &["unbound.service"],
            Self::Nsd => &["nsd.service"],
            Self::Haproxy => &["haproxy.service"],
            Self::Squid => &["squid.service"],
            Self::Rsyncd => &["rsync.service", "rsyncd.service"],
            Self::Vsftpd => &["vsftpd.service"],
            Self::Uwsgi => &["uwsgi.service"],
        }
    }

    fn roots(self, lines: &[KeyLine<'_>]) -> Vec<RootLine> {
        let (key, _) = self.keys();
        match self {
            Self::Named => of_options(lines, key),
            Self::Rsyncd => of_modules(lines),
            Self::Vsftpd => of_vsftpd(lines),
            _ => of_key(lines, key),
        }
    }

    /// The name of its user; `None` if the file gives an id without a name, or nothing.
    fn user(self, lines: &[KeyLine<'_>]) -> Option<String> {
        let (_, key) = self.keys();
        let user = match self {
            Self::Named => of_options(lines, key).pop()?.2,
            _ => last(lines, key)?.value.to_owned(),
        };
        logins::name_of(&user)
    }
}

/// The sites of a file.
pub(in crate::import) fn read(
    daemon: DaemonKind,
    file: &Path,
    text: &str,
    units: &Units,
) -> DaemonSites {
    let lines: Vec<_> = text
        .lines()
        .zip(1..)
        .filter_map(|(line, nth)| split(line, nth))
        .collect();
    let user = daemon.user(&lines);
    let users: Vec<_> = user.iter().map(String::as_str).collect();
    let needs = Needs {
        presets: daemon.presets(),
        users: &users,
        services: daemon.services(),
    };

    let mut read = DaemonSites::default();
    for (line, key, mut root) in daemon.roots(&lines) {
        if daemon == DaemonKind::Uwsgi {
            root = expanded_by_uwsgi(&root, file, &lines);
        }
        if root.is_empty() || root == "/" {
            continue;
        }
        let place = FileLine { file, line };
        if root.contains(['$', '%']) {
            let why = if daemon == DaemonKind::Uwsgi {
                "only uWSGI knows the value; write the manifest by hand"
            } else {
                "it differs from user to user; write a manifest for each"
            };
            read.warnings.push(format!("{place}: {root}: {why}"));
            continue;
        }
        if let Some(draft) = read.site(place, &format!("The {key} {root}"), &root) {
            needs.add_to(draft, units);
        }
    }

    let homes_are_roots = daemon == DaemonKind::Vsftpd
        && is_on(&lines, "chroot_local_user")
        && last(&lines, "local_root").is_none();
    if homes_are_roots {
        read.warnings.push(format!(
            "{}: chroot_local_user: each user's home is a root; write a manifest for each",
            file.display()
        ));
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
            line: nth,
            key: line.to_owned(),
            value: "",
        });
    }

    let is_separator = |c: char| c.is_whitespace() || c == ':' || c == '=';
    let end = match line.find('=') {
        // rsyncd's keys have blanks in them.
        Some(end) if line[..end].chars().all(is_key_char) => end,
        _ => line.find(is_separator).unwrap_or(line.len()),
    };
    let value = line[end..].trim_start_matches(is_separator);
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
        _ => value.split(" #").next().unwrap_or_default().trim(),
    };
    Some(KeyLine {
        line: nth,
        key: line[..end].trim().to_ascii_lowercase(),
        value,
    })
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_- ".contains(c)
}

fn last<'l, 't>(lines: &'l [KeyLine<'t>], key: &str) -> Option<&'l KeyLine<'t>> {
    lines.iter().rfind(|line| line.key == key)
}

fn is_on(lines: &[KeyLine<'_>], key: &str) -> bool {
    last(lines, key).is_some_and(|line| is_yes(line.value) || line.value.eq_ignore_ascii_case("on"))
}

fn is_yes(value: &str) -> bool {
    let yes = ["yes", "true", "1"];
    yes.iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

fn of_key(lines: &[KeyLine<'_>], key: &'static str) -> Vec<RootLine> {
    match last(lines, key) {
        Some(line) => vec![(line.line, key, line.value.to_owned())],
        None => vec![],
    }
}

/// The value of an option in `OPTIONS="…"`, and for the root also RHEL's `ROOTDIR=`.
fn of_options(lines: &[KeyLine<'_>], option: &'static str) -> Vec<RootLine> {
    let mut values = vec![];
    if option == "-t" {
        values.extend(of_key(lines, "rootdir"));
    }
    if let Some(line) = last(lines, "options")
        && let Some(value) = option_value(line.value, option)
    {
        values.push((line.line, option, value.to_owned()));
    }
    values
}

/// The value of `-t VALUE` or `-tVALUE`.
fn option_value<'o>(options: &'o str, option: &str) -> Option<&'o str> {
    let words: Vec<_> = options.split_whitespace().collect();
    if let Some(at) = words.iter().position(|word| *word == option)
        && let Some(value) = words.get(at + 1)
    {
        return Some(value);
    }
    words.iter().find_map(|word| word.strip_prefix(option))
}

/// The paths of rsync's modules that it enters.
fn of_modules(lines: &[KeyLine<'_>]) -> Vec<RootLine> {
    let is_begin = |line: &KeyLine<'_>| line.key.starts_with('[');
    let first = lines.iter().position(is_begin).unwrap_or(lines.len());
    let (global, modules) = lines.split_at(first);

    let mut roots = vec![];
    for module in modules.chunk_by(|_, next| !is_begin(next)) {
        let chroot = last(module, "use chroot").or_else(|| last(global, "use chroot"));
        let is_entered = chroot.is_none_or(|line| is_yes(line.value));
        if let Some(path) = last(module, "path")
            && is_entered
        {
            // The part after `/./` is inside.
            let root = path.value.split("/./").next().unwrap_or_default();
            roots.push((path.line, "path", root.to_owned()));
        }
    }
    roots
}

/// `text` with uWSGI's variables for the file itself, such as `%n`, and with `%(key)`, the value of
/// a key. Others stay.
fn expanded_by_uwsgi(text: &str, file: &Path, lines: &[KeyLine<'_>]) -> String {
    let file = std::path::absolute(file).unwrap_or(file.to_owned());
    let name = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let above = file.parent().unwrap_or(Path::new("/"));
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        whole.push_str(before);
        if let Some((key, after)) = after.strip_prefix('(').and_then(|key| key.split_once(')'))
            && let Some(line) = last(lines, &key.to_ascii_lowercase())
            && !line.value.contains('%')
        {
            whole.push_str(line.value);
            rest = after;
            continue;
        }
        let letter = after.chars().next().unwrap_or_default();
        // In upper case: of the file that includes this one.
        match letter.to_ascii_lowercase() {
            'n' => whole.push_str(&name(file.file_stem())),
            's' => whole.push_str(&name(file.file_name())),
            'e' => whole.push_str(&name(file.extension())),
            'c' => whole.push_str(&name(above.file_name())),
            'p' | 'o' => whole.push_str(&file.to_string_lossy()),
            'd' => {
                whole.push_str(&above.to_string_lossy());
                whole.push('/');
            }
            _ => {
                whole.push('%');
                rest = after;
                continue;
            }
        }
        rest = &after[1..];
    }
    whole.push_str(rest);
    whole
}

fn of_vsftpd(lines: &[KeyLine<'_>]) -> Vec<RootLine> {
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

    fn roots(daemon: DaemonKind, text: &str) -> (Vec<String>, usize) {
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
                DaemonKind::Named,
                "RESOLVCONF=no\nOPTIONS=\"-u bind -t /var/lib/named\"\n",
                vec!["/var/lib/named"],
            ),
            (
                DaemonKind::Named,
                "ROOTDIR=/var/named/chroot\n",
                vec!["/var/named/chroot"],
            ),
            (
                DaemonKind::Unbound,
                "server:\n\tchroot: \"/var/lib/unbound\" # x\n",
                vec!["/var/lib/unbound"],
            ),
            (DaemonKind::Unbound, "server:\n  chroot: \"\"\n", vec![]),
            (
                DaemonKind::Nsd,
                "server:\n  chroot: /var/lib/nsd/\n",
                vec!["/var/lib/nsd"],
            ),
            (
                DaemonKind::Haproxy,
                "global\n  chroot /var/lib/haproxy\n  user haproxy\n",
                vec!["/var/lib/haproxy"],
            ),
            (
                DaemonKind::Squid,
                "http_port 3128\nchroot /srv/squid\n",
                vec!["/srv/squid"],
            ),
            (
                DaemonKind::Rsyncd,
                "uid = nobody\n[a]\npath = /srv/a\n[b]\nuse chroot = no\npath=/srv/b\n[c]\npath \
                 = /srv/c/./in\n",
                vec!["/srv/a", "/srv/c"],
            ),
            (
                DaemonKind::Vsftpd,
                "secure_chroot_dir=/run/vsftpd/empty\nchroot_local_user=YES\nlocal_root=/srv/ftp\n",
                vec!["/run/vsftpd/empty", "/srv/ftp"],
            ),
            (
                DaemonKind::Uwsgi,
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
    fn the_key_that_names_the_root_is_named_and_an_id_is_a_name() {
        let text = "chroot_local_user=YES\nlocal_root=/srv/ftp\nnopriv_user=0\n";
        let read = read(DaemonKind::Vsftpd, Path::new("f"), text, &Units::default());
        let found = &read.sites[0].found;
        assert_eq!(found[0], "The local_root /srv/ftp of f:2.");
        assert_eq!(read.sites[0].users[0].any_of, ["root"]);
    }

    #[test]
    fn uwsgis_variables_are_those_of_its_file() {
        for (root, expected) in [
            ("/srv/%n", Some("/srv/app")),
            ("%d../r/%c/%s-%e", Some("/etc/uwsgi/../r/uwsgi/app.ini-ini")),
            ("%(Base)/x", Some("/srv/base/x")),
            ("/srv/%h", None),
            ("/srv/$(HOST)", None),
        ] {
            let text = format!("[uwsgi]\nbase = /srv/base\nchroot = {root}\n");
            let file = Path::new("/etc/uwsgi/app.ini");
            let lines: Vec<_> = text
                .lines()
                .zip(1..)
                .filter_map(|(l, nth)| split(l, nth))
                .collect();
            let found = expanded_by_uwsgi(root, file, &lines);
            if let Some(expected) = expected {
                assert_eq!(found, expected);
            } else {
                let read = read(DaemonKind::Uwsgi, file, &text, &Units::default());
                assert!(read.warnings[0].contains("only uWSGI knows"), "{read:?}");
            }
        }
    }

    #[test]
    fn roots_that_differ_from_user_to_user_are_named() {
        assert_eq!(
            roots(DaemonKind::Vsftpd, "chroot_local_user=YES\n"),
            (vec![], 1)
        );
        assert_eq!(
            roots(
                DaemonKind::Vsftpd,
                "chroot_local_user=YES\nlocal_root=/home/$USER\n"
            ),
            (vec![], 1)
        );
        assert_eq!(
            roots(
                DaemonKind::Rsyncd,
                "[home]\npath = /home/%RSYNC_USER_NAME%\n"
            ),
            (vec![], 1)
        );
    }
}

//! The line between an old copy and the site's own: pure.
//!
//! Below `/usr`, `/bin`, `/sbin` and `/lib*` only packages put files, and administrators of jails
//! put copies of them. There root's file of the same form as the host's is a copy. Anywhere else,
//! such as in `/etc`, files are made to be changed: there a file is a copy only if its contents say
//! so.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use crate::resolve::ldso::script;
use crate::sys::{self, Stat};

/// The longest file whose contents are judged.
pub(super) const LONGEST: u64 = 1 << 20;

/// The form of a file, as its beginning shows it. Versions of one file have the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Elf,
    /// A script, with the name of its interpreter.
    Script(String),
    Text,
    Binary,
}

impl Form {
    pub(super) fn of(beginning: &[u8]) -> Self {
        if beginning.starts_with(b"\x7fELF") {
            Self::Elf
        } else if let Some(interpreter) = interpreter(beginning) {
            Self::Script(interpreter)
        } else if beginning.contains(&0) {
            Self::Binary
        } else {
            Self::Text
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf => f.write_str("an ELF file"),
            Self::Script(interpreter) => write!(f, "a script for {interpreter}"),
            Self::Text => f.write_str("text"),
            Self::Binary => f.write_str("binary data"),
        }
    }
}

/// The name of a script's interpreter without its version. Shells that read `sh` are one.
fn interpreter(beginning: &[u8]) -> Option<String> {
    let script = script::parse(beginning)?;
    let name = script.reader();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    Some(match name {
        "bash" | "dash" | "ash" | "ksh" | "busybox" => "sh".to_owned(),
        name => name.to_owned(),
    })
}

/// Whether packages alone put files at `path`.
pub(super) fn is_of_packages(path: &Path) -> bool {
    let path = path.strip_prefix("/").unwrap_or(path);
    let mut names = path.iter().filter_map(OsStr::to_str);
    match (names.next(), names.next()) {
        (Some("usr"), Some(second)) => !matches!(second, "local" | "src"),
        (Some(first), _) => matches!(first, "bin" | "sbin" | "lib") || is_other_lib(first),
        _ => false,
    }
}

/// `lib64` and its kind.
fn is_other_lib(name: &str) -> bool {
    let rest = name.strip_prefix("lib");
    matches!(rest, Some("32" | "64" | "x32" | "o32" | "n32" | "exec"))
}

/// Whether root alone can change the file.
pub(super) fn is_roots_alone(stat: &Stat) -> bool {
    sys::is_roots(stat.uid) && stat.mode & 0o022 == 0
}

/// Whether the file at `path` of the jail, with the contents `mine`, is another version of the
/// host's file, with the contents `hosts`.
pub(super) fn is_other_version(path: &Path, mine: &[u8], hosts: &[u8]) -> bool {
    if path == Path::new("/etc/ld.so.cache") {
        return is_cache(mine) && is_cache(hosts);
    }
    match (rule_of_zone(mine), rule_of_zone(hosts)) {
        (Some(mine), Some(hosts)) => mine == hosts,
        _ => false,
    }
}

/// Whether ldconfig(8) made it.
fn is_cache(contents: &[u8]) -> bool {
    contents.starts_with(b"ld.so-1.7.0") || contents.starts_with(b"glibc-ld.so.cache1.1")
}

/// The rule that a tzfile(5) ends with, such as `CET-1CEST,M3.5.0,M10.5.0/3`.
fn rule_of_zone(contents: &[u8]) -> Option<&[u8]> {
    let rest = contents.strip_prefix(b"TZif")?;
    let lines = rest.strip_suffix(b"\n")?;
    let last = lines.rsplit(|byte| *byte == b'\n').next()?;
    (!last.is_empty() && last.len() < lines.len()).then_some(last)
}

/// Whether `mine`, in the format of passwd(5) or group(5), names only users or groups of the host,
/// with their ids and without passwords.
pub(super) fn names_only_hosts_users(mine: &[u8], hosts: &[u8]) -> bool {
    let (Some(mine), Some(hosts)) = (ids(mine), ids(hosts)) else {
        return false;
    };
    mine.iter().all(|(name, id)| hosts.get(name) == Some(id))
}

/// The names in `mine` that `generated` lacks.
pub(super) fn lost_names(mine: &[u8], generated: &[u8]) -> Vec<String> {
    let (mine, generated) = (
        ids(mine).unwrap_or_default(),
        ids(generated).unwrap_or_default(),
    );
    let lost = mine.keys().filter(|name| !generated.contains_key(*name));
    lost.map(|name| (*name).to_owned()).collect()
}

/// The ids by their names. `None`: a line has another form, or a password.
fn ids(text: &[u8]) -> Option<BTreeMap<&str, &str>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut ids = BTreeMap::new();
    for line in text.lines() {
        if line.trim().is_empty() {
            continue;
        }
        let mut fields = line.split(':');
        let (name, password, id) = (fields.next()?, fields.next()?, fields.next()?);
        if !matches!(password, "x" | "*" | "!" | "!!" | "") {
            return None;
        }
        ids.insert(name, id);
    }
    Some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_fill_usr_and_what_leads_there() {
        for path in [
            "/usr/bin/php",
            "/bin/sh",
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/libx32/a",
            "/usr/share/zoneinfo/UTC",
        ] {
            assert!(is_of_packages(Path::new(path)), "{path}");
        }
        for path in [
            "/etc/hosts",
            "/usr/local/bin/php",
            "/usr",
            "/library/a",
            "/lib64x/a",
            "/opt/a",
            "/",
        ] {
            assert!(!is_of_packages(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn versions_have_one_form() {
        let form = |text: &str| Form::of(text.as_bytes());
        assert_eq!(form("\x7fELF\x02\0"), form("\x7fELF\x01"));
        assert_eq!(form("#!/bin/sh\nx"), form("#! /usr/bin/bash -e\n\0"));
        assert_eq!(form("#!/usr/bin/env -S A=b php8.2"), form("#!/usr/bin/php"));
        assert_eq!(
            form("#!/usr/bin/python3.11 -I"),
            form("#!/usr/bin/env python3")
        );
        let forms = ["\x7fELF", "#!/bin/sh", "#!/usr/bin/php", "<?php", "TZif2\0"];
        for (nth, one) in forms.iter().enumerate() {
            for other in &forms[nth + 1..] {
                assert_ne!(form(one), form(other), "{one} {other}");
            }
        }
        assert_eq!(form("#!/bin/sh").to_string(), "a script for sh");
    }

    #[test]
    fn contents_tell_versions_apart_from_other_files() {
        let zone = |data: &str, rule: &str| format!("TZif2{data}\n{rule}\n").into_bytes();
        let localtime = Path::new("/etc/localtime");
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        assert!(is_other_version(
            localtime,
            &zone("old", berlin),
            &zone("new", berlin)
        ));
        assert!(!is_other_version(
            localtime,
            &zone("old", "UTC0"),
            &zone("new", berlin)
        ));
        assert!(!is_other_version(localtime, &zone("a", ""), &zone("b", "")));

        let cache = Path::new("/etc/ld.so.cache");
        let (old, new) = (b"ld.so-1.7.0\0old", b"glibc-ld.so.cache1.1 new");
        assert!(is_other_version(cache, old, new));
        assert!(!is_other_version(cache, b"text", new));
        assert!(!is_other_version(Path::new("/etc/hosts"), b"a", b"b"));
    }

    #[test]
    fn users_of_the_host_are_a_copy_and_others_are_not() {
        let host = b"root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:/bin/sh\n";
        for (mine, expected) in [
            ("root:x:0:0::/:/bin/false\n", true),
            ("www-data:x:33:33::/:\n\nroot:*:0:0:::\n", true),
            ("", true),
            ("alice:x:1000:1000::/:\n", false),
            ("www-data:x:34:33::/:\n", false),
            ("root:$6$hash:0:0::/:\n", false),
            ("no colons\n", false),
        ] {
            assert_eq!(
                names_only_hosts_users(mine.as_bytes(), host),
                expected,
                "{mine}"
            );
        }
        assert_eq!(lost_names(host, b"root:x:0:0:::\n"), ["www-data"]);
    }
}

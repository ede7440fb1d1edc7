//! The names in a manifest: devices, logins, units, databases of name services, files of `/etc`.
//!
//! Each check takes the text and returns it normalised, or a [`BadWord`] that tells what is wrong.

use crate::base::text::{listed, nearest};
use crate::base::{BadPath, HostPath, SiteName};

/// Why a word is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadWord {
    pub message: String,
    pub help: Option<String>,
}

impl BadWord {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

/// Device nodes that are often below `/dev`, to guess what was meant.
const DEVICES: [&str; 19] = [
    "console",
    "fd",
    "full",
    "fuse",
    "kvm",
    "log",
    "net/tun",
    "null",
    "ptmx",
    "pts",
    "random",
    "shm",
    "stderr",
    "stdin",
    "stdout",
    "tty",
    "urandom",
    "vhost-net",
    "zero",
];

/// The databases of nsswitch.conf(5).
pub(super) const DATABASES: [&str; 14] = [
    "aliases",
    "automount",
    "ethers",
    "group",
    "gshadow",
    "hosts",
    "initgroups",
    "netgroup",
    "networks",
    "passwd",
    "protocols",
    "rpc",
    "services",
    "shadow",
];

/// The suffixes of systemd.unit(5).
const UNIT_TYPES: [&str; 11] = [
    "automount",
    "device",
    "mount",
    "path",
    "scope",
    "service",
    "slice",
    "socket",
    "swap",
    "target",
    "timer",
];

/// A name under `/dev`, without the prefix.
pub(super) fn device(name: &str) -> Result<String, BadWord> {
    let name = below(name, "/dev")?;
    let is_word = name.len() > 2 && name.bytes().all(|b| b.is_ascii_lowercase());
    if !is_word || DEVICES.contains(&name.as_str()) {
        return Ok(name);
    }
    // Any name is possible, so only a single slip counts as a mistake.
    match nearest(&name, DEVICES) {
        Some(known) if strsim::damerau_levenshtein(&name, known) == 1 => {
            Err(BadWord::new(format!("there is no device `{name}`"))
                .help(format!("did you mean `{known}`?")))
        }
        _ => Ok(name),
    }
}

/// A name under `/etc`, without the prefix.
pub(super) fn etc(name: &str) -> Result<String, BadWord> {
    let name = below(name, "/etc")?;
    if name.contains(['*', '?']) {
        return Err(BadWord::new("patterns are not allowed here").help(format!(
            "name the files, or write `/etc/{name}` under `mounts`"
        )));
    }
    Ok(name)
}

/// `name` as a normal relative path below `dir`.
fn below(name: &str, dir: &str) -> Result<String, BadWord> {
    if name.starts_with('/') {
        let base = HostPath::new(dir).expect("a constant absolute path");
        let short = HostPath::new(name)
            .ok()
            .and_then(|path| path.below(&base).map(ToOwned::to_owned));
        let bad = BadWord::new(format!("names here are relative to {dir}"));
        return Err(match short.filter(|short| !short.as_os_str().is_empty()) {
            Some(short) => bad.help(format!("write `{}`", short.display())),
            None if name.trim_end_matches('/') == dir => {
                bad.help(format!("name the files of {dir} that are needed"))
            }
            None => bad.help("a path outside of it belongs under `mounts`"),
        });
    }
    let path =
        HostPath::new(format!("{dir}/{name}")).map_err(|why| BadWord::new(why.to_string()))?;
    let normal = path.to_string().split_off(dir.len());
    match normal.trim_start_matches('/') {
        "" => Err(BadWord::new(format!("it names all of {dir}"))
            .help(format!("name the files of {dir} that are needed"))),
        rest => Ok(rest.to_owned()),
    }
}

/// A login name, as shadow's `useradd --badname` accepts it. Hosting panels use such names
/// (`site1.example`).
pub(super) fn login(name: &str) -> Result<String, BadWord> {
    let usable = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    let body = name.strip_suffix('$').unwrap_or(name);
    let first = body.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(
            BadWord::new("a login name is not a number").help("write the name, not the user's ID")
        );
    }
    if name.len() > 32 {
        return Err(BadWord::new("a login name has at most 32 characters"));
    }
    if !first || !body.chars().all(usable) {
        return Err(BadWord::new(
            "a login name has letters, digits, `.`, `_`, `-` and `@`, \
             and begins with a letter, a digit or `_`",
        ));
    }
    Ok(name.to_owned())
}

/// The name of a group, which has the form of a login name.
pub(super) fn group(name: &str) -> Result<String, BadWord> {
    login(name).map_err(|bad| BadWord {
        message: bad.message.replace("a login name", "the name of a group"),
        help: bad
            .help
            .map(|_| "write the name, not the group's ID".to_owned()),
    })
}

/// The name of a program or library, without a slash.
pub(super) fn code(name: &str) -> Result<String, BadWord> {
    if name.starts_with('~') {
        return Err(BadWord::new("it is not absolute").help("write the home directory out"));
    }
    if name.contains(['*', '?']) {
        return Err(BadWord::new("a name without `/` is not a pattern")
            .help("write the pattern with its directory"));
    }
    let has_odd = |c: char| c.is_whitespace() || c.is_control();
    if name == "." || name == ".." || name.contains(has_odd) {
        return Err(BadWord::new("this is not the name of a file"));
    }
    Ok(name.to_owned())
}

/// The name of an instance of a template of sites.
pub(super) fn instance(name: &str) -> Result<String, BadWord> {
    if let Err(why) = SiteName::new(name) {
        let message = match why {
            BadPath::SiteName => "an instance's name has letters, digits, `.`, `_`, `-` and `@`, \
                                  and begins with a letter or digit"
                .to_owned(),
            why => why.to_string(),
        };
        let bad = BadWord::new(message);
        return Err(if name.contains(['*', '/']) {
            bad.help("a pattern begins with `/`, as in `/srv/customers/*`")
        } else {
            bad
        });
    }
    Ok(name.to_owned())
}

/// A database of nsswitch.conf(5).
pub(super) fn database(name: &str) -> Result<String, BadWord> {
    if DATABASES.contains(&name) {
        return Ok(name.to_owned());
    }
    let bad = BadWord::new("there is no such database in nsswitch.conf(5)");
    Err(match nearest(name, DATABASES) {
        Some(known) => bad.help(format!("did you mean `{known}`?")),
        None => bad.help(format!("one of {}", listed(&DATABASES))),
    })
}

/// A systemd unit's name, as systemd.unit(5) allows it.
pub(super) fn unit(name: &str) -> Result<String, BadWord> {
    let usable = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.len() > 255 {
        return Err(BadWord::new("a unit's name has at most 255 characters"));
    }
    if !name.chars().all(usable) {
        return Err(BadWord::new(
            "a unit's name has letters, digits and `:-_.\\@`",
        ));
    }
    let without_type = BadWord::new("a unit's name ends in its type");
    let Some((stem, suffix)) = name.rsplit_once('.') else {
        return Err(without_type.help(format!("write `{name}.service`")));
    };
    if !UNIT_TYPES.contains(&suffix) {
        return Err(match nearest(suffix, UNIT_TYPES) {
            Some(known) => without_type.help(format!("did you mean `{stem}.{known}`?")),
            None => without_type.help(format!("write `{name}.service`")),
        });
    }
    if stem.is_empty() || stem.starts_with('@') {
        return Err(BadWord::new(format!(
            "the name before `.{suffix}` is missing"
        )));
    }
    Ok(name.to_owned())
}

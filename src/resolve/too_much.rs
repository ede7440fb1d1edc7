//! Places of the host that are more than a site should get: one list, for what links and `trace`
//! may bring along, and for the warnings about mounts that a manifest asks for.

use std::path::Path;

use super::desired::{Desired, Mount};
use crate::base::HostPath;

/// A place that is not brought along unless a line names it.
struct HostPlace {
    path: &'static str,
    /// Nothing below it is brought along either.
    with_contents: bool,
    /// The danger of a jail that has it, even read-only.
    seen: Option<&'static str>,
    /// The danger of a jail that can write in it.
    written: Option<&'static str>,
}

const PROGRAMS: &str = "root inside can replace the programs that the host runs";
const SERVICES: &str = "root inside can change what the host's services keep there";
const COMMANDS: &str = "whoever can connect to it from inside has root's rights on the host";
const SECRETS: &str = "it holds secrets of the host, which root inside can read";

const COMMANDS_BY_SUDO: &str = "root inside can give the host's users root's rights";
const COMMANDS_BY_LOGIN: &str = "it is the home of the host's root, whose programs obey files \
                                 there, such as keys for ssh or .bashrc";

const PLACES: [HostPlace; 34] = [
    whole(
        "/",
        Some("it is the whole host, with all its secrets"),
        Some(PROGRAMS),
    ),
    whole("/usr", None, Some(PROGRAMS)),
    whole("/usr/lib", None, Some(PROGRAMS)),
    whole("/usr/lib64", None, Some(PROGRAMS)),
    whole("/usr/bin", None, Some(PROGRAMS)),
    whole("/usr/sbin", None, Some(PROGRAMS)),
    whole("/usr/share", None, Some(PROGRAMS)),
    whole(
        "/etc",
        None,
        Some("root inside can change the host's users, passwords and services"),
    ),
    dangerous("/etc/shadow", SECRETS),
    dangerous("/etc/gshadow", SECRETS),
    dangerous("/etc/ssh", SECRETS),
    dangerous("/etc/ssl/private", SECRETS),
    whole("/etc/sudoers", Some(SECRETS), Some(COMMANDS_BY_SUDO)),
    whole("/etc/sudoers.d", Some(SECRETS), Some(COMMANDS_BY_SUDO)),
    whole("/var", None, Some(SERVICES)),
    whole("/var/lib", None, Some(SERVICES)),
    whole(
        "/var/log",
        None,
        Some("root inside can change what the host has logged"),
    ),
    whole(
        "/run",
        Some(
            "the sockets in it take commands also where it is read-only: root inside can command \
             the host's services",
        ),
        Some("root inside can command the host's services by the sockets in it"),
    ),
    dangerous("/run/systemd", COMMANDS),
    dangerous("/run/systemd/private", COMMANDS),
    dangerous("/run/docker.sock", COMMANDS),
    dangerous("/run/containerd", COMMANDS),
    dangerous("/run/podman", COMMANDS),
    dangerous("/run/libvirt", COMMANDS),
    whole(
        "/boot",
        None,
        Some("root inside can change what the host boots"),
    ),
    whole("/srv", None, None),
    whole("/opt", None, Some(PROGRAMS)),
    with_contents(
        "/proc",
        Some(
            "it shows the host's processes, and /proc/PID/root of one leads out of the jail; \
             `proc: true` mounts one for the site",
        ),
        Some(
            "root inside can change the kernel's settings, and /proc/PID/root leads out of the \
             jail; `proc: true` mounts one for the site",
        ),
    ),
    with_contents(
        "/sys",
        None,
        Some("root inside can change the host's devices and the kernel's settings"),
    ),
    with_contents("/dev", None, None),
    with_contents(
        "/home",
        None,
        Some("root inside can change every user's files, such as the keys for ssh"),
    ),
    with_contents("/root", Some(SECRETS), Some(COMMANDS_BY_LOGIN)),
    with_contents(
        "/tmp",
        None,
        Some("root inside can change the temporary files of the host's programs"),
    ),
    whole(
        "/var/lib/mountjail",
        Some("it holds mountjail's own records"),
        Some("root inside can make mountjail unmount and remove what others have"),
    ),
];

const fn whole(
    path: &'static str,
    seen: Option<&'static str>,
    written: Option<&'static str>,
) -> HostPlace {
    HostPlace {
        path,
        with_contents: false,
        seen,
        written,
    }
}

/// A place that is as dangerous read-only.
const fn dangerous(path: &'static str, why: &'static str) -> HostPlace {
    whole(path, Some(why), Some(why))
}

const fn with_contents(
    path: &'static str,
    seen: Option<&'static str>,
    written: Option<&'static str>,
) -> HostPlace {
    HostPlace {
        with_contents: true,
        ..whole(path, seen, written)
    }
}

/// The places whose contents are not brought along either.
pub(super) fn contents_too() -> Vec<&'static str> {
    let places = PLACES.iter().filter(|place| place.with_contents);
    places.map(|place| place.path).collect()
}

/// Whether `path` is more than a site should get without a line that names it.
pub(super) fn is_too_much(path: &Path) -> bool {
    PLACES.iter().any(|place| {
        path == Path::new(place.path) || place.with_contents && path.starts_with(place.path)
    })
}

/// A warning for each mount of `desired` that gives the host away.
pub(super) fn warnings(desired: &Desired) -> Vec<String> {
    let binds = desired.mounts.iter();
    let binds = binds.filter(|mount| mount.file_system.is_none());
    binds.filter_map(|mount| warning(mount)).collect()
}

fn warning(mount: &Mount) -> Option<String> {
    let danger = danger(&mount.source, mount.attributes.read_only)?;
    let how = if mount.attributes.read_only {
        ""
    } else {
        ", read-write"
    };
    let origin = &mount.reasons.first()?.origin;
    Some(format!(
        "the site gets {}{how}: {danger}; name only what it needs ({origin})",
        mount.source
    ))
}

fn danger(source: &HostPath, read_only: bool) -> Option<&'static str> {
    // As bytes: paths of the host are normal, and each mount of each site is compared.
    let is_it = |place: &&HostPlace| source.as_path().as_os_str() == place.path;
    let place = PLACES.iter().find(is_it)?;
    if read_only { place.seen } else { place.written }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn danger_of(source: &str, read_only: bool) -> Option<&'static str> {
        danger(&HostPath::new(source).unwrap(), read_only)
    }

    #[test]
    fn places_are_dangerous_by_what_the_site_can_do_there() {
        for source in ["/etc", "/home", "/usr", "/var", "/sys", "/boot"] {
            assert_eq!(danger_of(source, true), None, "{source}");
            assert!(danger_of(source, false).is_some(), "{source}");
        }
        for source in [
            "/",
            "/proc",
            "/root",
            "/run",
            "/etc/shadow",
            "/run/docker.sock",
        ] {
            assert!(danger_of(source, true).is_some(), "{source}");
            assert!(danger_of(source, false).is_some(), "{source}");
        }
        for source in [
            "/etc/hosts",
            "/home/alice",
            "/run/mysqld",
            "/usr/share/fonts",
            "/srv/www",
        ] {
            assert_eq!(danger_of(source, false), None, "{source}");
        }
    }

    #[test]
    fn what_links_do_not_bring_includes_every_dangerous_place() {
        for path in [
            "/",
            "/etc",
            "/etc/shadow",
            "/home/alice/.ssh",
            "/proc/1/root",
            "/run",
        ] {
            assert!(is_too_much(Path::new(path)), "{path}");
        }
        for path in ["/etc/hosts", "/run/mysqld", "/usr/share/fonts", "/srv/www"] {
            assert!(!is_too_much(Path::new(path)), "{path}");
        }
    }
}

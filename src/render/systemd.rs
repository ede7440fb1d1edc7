//! What systemd has to know about a site.

use std::path::PathBuf;

use crate::manifest::{HostPath, SiteName};

/// The units that make what lies below a directory of `/run` at boot.
const MAKERS: [(&str, &[&str]); 13] = [
    ("/run/systemd/resolve", &["systemd-resolved.service"]),
    ("/run/systemd/journal", &["systemd-journald.socket"]),
    ("/run/NetworkManager", &["NetworkManager.service"]),
    ("/run/connman", &["connman.service"]),
    ("/run/resolvconf", &["resolvconf.service"]),
    ("/run/nscd", &["nscd.service"]),
    ("/run/dbus", &["dbus.socket"]),
    ("/run/mysqld", &["mariadb.service", "mysql.service"]),
    ("/run/postgresql", &["postgresql.service"]),
    ("/run/redis", &["redis-server.service"]),
    ("/run/valkey", &["valkey-server.service"]),
    ("/run/memcached", &["memcached.service"]),
    ("/run", &["systemd-tmpfiles-setup.service"]),
];

/// The units after which `source` can be expected after a boot: none for what is on a disk, and for what is on
/// `/run` those that make it, as far as they are known. A unit that the host has not is ignored by systemd.
pub fn makers(source: &HostPath) -> &'static [&'static str] {
    let known = MAKERS.iter().find(|(directory, _)| source.as_path().starts_with(directory));
    known.map_or(&[], |(_, units)| units)
}

/// Whether a service that is not known here makes `source` after a boot.
pub fn has_unknown_maker(source: &HostPath) -> bool {
    let (_, any) = MAKERS[MAKERS.len() - 1];
    makers(source) == any || source.as_path().starts_with("/dev/shm")
}

/// The first line of every drop-in of ours: what has it may be replaced and removed.
pub const HEADER: &str = "# Written by `mountjail units --install`.";

/// A drop-in file of systemd.unit(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    /// `php8.2-fpm.service.d/50-mountjail.conf`, below the directory of units.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// What makes `service` start after the sites are mounted.
pub fn after_sites(service: &str) -> DropIn {
    DropIn {
        path: format!("{service}.d/50-mountjail.conf").into(),
        text: format!(
            "{HEADER}\n# Sites that it runs in are mounted before it starts.\n[Unit]\nAfter=mountjail.service\n"
        ),
    }
}

/// What makes the `services` of `site` start after the unit of this site alone.
pub fn before_services(site: &SiteName, services: &[String]) -> DropIn {
    DropIn {
        path: format!("mountjail@{site}.service.d/50-mountjail.conf").into(),
        text: format!(
            "{HEADER}\n# The site is mounted before the services that run in it start.\n[Unit]\nBefore={}\n",
            services.join(" ")
        ),
    }
}

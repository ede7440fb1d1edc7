//! What systemd has to know about a site.

use crate::manifest::HostPath;

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

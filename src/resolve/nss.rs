//! nsswitch.conf(5): which modules answer for a database.

use super::host::Host;
use super::shared::Shared;
use crate::Result;
use crate::base::HostPath;

/// Where nscd(8) listens, which the C library asks before any module.
pub(super) const CACHE: &str = "/run/nscd";

/// The directories in which the daemon that the module of `service` asks listens or keeps its data.
///
/// Modules of systemd use varlink in the first place; the system's D-Bus is not for a jail.
pub(super) fn talks_to(service: &str) -> &'static [&'static str] {
    match service {
        "sss" => &["/var/lib/sss/pipes", "/var/lib/sss/mc"],
        "systemd" => &["/run/systemd/userdb"],
        "resolve" => &["/run/systemd/resolve"],
        "ldap" | "ldapd" => &["/run/nslcd"],
        "winbind" | "wins" => &["/run/samba/winbindd", "/run/winbindd"],
        "mymachines" => &["/run/systemd/machines"],
        _ if service.starts_with("mdns") => &["/run/avahi-daemon"],
        _ => &[],
    }
}

const CONF: &str = "/etc/nsswitch.conf";

/// The services that the C library asks for `database`, each with the file of its module, where it
/// has one: glibc 2.34 and later have `files` and `dns` built in, musl has no modules at all.
///
/// Errors: the configuration exists and cannot be read; it is unknown where modules are.
pub(super) fn modules(
    host: &Host,
    shared: &Shared,
    database: &str,
) -> Result<Vec<(String, HostPath)>> {
    let Ok(path) = HostPath::new(CONF) else {
        return Ok(vec![]);
    };
    let text = match host.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(vec![]),
        Err(error) => return Err(error.error(format!("cannot read {CONF}"))),
    };

    let loader = shared.loader(host)?;
    let mut modules = vec![];
    for service in services(&String::from_utf8_lossy(&text), database) {
        if let Some(path) = loader.library(&format!("libnss_{service}.so.2"))? {
            modules.push((service, path));
        }
    }
    Ok(modules)
}

/// The services named for `database`, in order, each once, without actions such as
/// `[NOTFOUND=return]`.
pub(crate) fn services(text: &str, database: &str) -> Vec<String> {
    let mut services: Vec<String> = vec![];
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some((name, rest)) = line.split_once(':') else {
            continue;
        };
        if name.trim() != database {
            continue;
        }
        let mut action = false;
        for word in rest
            .replace('[', " [ ")
            .replace(']', " ] ")
            .split_whitespace()
        {
            match word {
                "[" => action = true,
                "]" => action = false,
                _ if !action && !services.iter().any(|known| known == word) => {
                    services.push(word.to_owned());
                }
                _ => {}
            }
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::services;

    #[test]
    fn services_are_read_as_the_manual_has_it() {
        let text = "# hosts: nis\npasswd: files systemd\n\
                    hosts:\tfiles mymachines [!UNAVAIL=return NOTFOUND=return]dns#x\n";
        assert_eq!(services(text, "hosts"), ["files", "mymachines", "dns"]);
        assert_eq!(services(text, "passwd"), ["files", "systemd"]);
        assert!(services(text, "group").is_empty());
    }
}

//! The systemd drop-ins of the sites: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::base::{HostPath, SiteName};
use crate::observe::{Ordering, mounts_of};

/// These two start before every ordinary service. The shipped units start after them.
const TMPFILES: &str = "systemd-tmpfiles-setup.service";
const RESOLVED: &str = "systemd-resolved.service";

/// The units that make what lies below a directory of `/run` at boot.
const MAKERS: [(&str, &[&str]); 13] = [
    ("/run/systemd/resolve", &[RESOLVED]),
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
    ("/run", &[TMPFILES]),
];

/// The units that make `source` at boot, as far as they are known: none for what is on a disk.
/// systemd ignores units that the host does not have.
pub(crate) fn makers(source: &HostPath) -> &'static [&'static str] {
    let known = MAKERS
        .iter()
        .find(|(directory, _)| source.as_path().starts_with(directory));
    known.map_or(&[], |(_, units)| units)
}

/// All units that [`makers`] knows.
pub(crate) fn all_makers() -> impl Iterator<Item = &'static str> {
    MAKERS.iter().flat_map(|(_, units)| *units).copied()
}

/// Whether `source` is made at boot by a service that is not known here.
pub(crate) fn has_unknown_maker(source: &HostPath) -> bool {
    let (_, any) = MAKERS[MAKERS.len() - 1];
    makers(source) == any || source.as_path().starts_with("/dev/shm")
}

/// The first line of mountjail's drop-ins: files that begin with it may be replaced and removed.
pub(crate) const HEADER: &str = "# Written by `mountjail units --install`.";

/// A drop-in file of systemd.unit(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DropIn {
    /// `php8.2-fpm.service.d/50-mountjail.conf`, below the directory of units.
    pub path: PathBuf,
    pub text: String,
}

/// The unit of all sites.
pub(crate) const ALL: &str = "mountjail.service";

/// The unit of one site.
pub(crate) fn unit_of(site: &SiteName) -> String {
    format!("mountjail@{site}.service")
}

/// What one site needs from systemd.
#[derive(Clone, Debug)]
pub(crate) struct UnitNeeds {
    pub site: SiteName,
    pub root: HostPath,
    /// The services that run inside.
    pub services: Vec<String>,
    /// The services that make its sources ([`makers`]), without those that start early anyway.
    pub makers: BTreeSet<String>,
    /// The root and the sources that are on file systems which the boot does not wait for.
    pub late: Vec<HostPath>,
}

/// Two units that cannot be ordered as a site needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderingConflict {
    pub site: SiteName,
    /// The unit that the site would start after, or before if it is one of its services.
    pub unit: String,
    /// The units through which it would start after itself.
    pub way: Vec<String>,
}

/// The drop-ins of all sites, and what could not be ordered.
#[derive(Clone, Debug, Default)]
pub(crate) struct DropIns {
    /// That of mountjail.service, if it needs one.
    pub all: Option<DropIn>,
    /// Those of the sites' own units, where needed.
    pub sites: BTreeMap<SiteName, DropIn>,
    /// Those of the services.
    pub services: BTreeMap<String, DropIn>,
    /// Services that cannot start after their sites.
    pub refused: Vec<OrderingConflict>,
    /// Makers and mounts that cannot start before the sites that need them.
    pub missed: Vec<OrderingConflict>,
    /// The sites that mountjail.service leaves to their own units, because they wait for something
    /// that other sites must not wait for.
    pub apart: BTreeSet<SiteName>,
}

/// The drop-ins that order all `sites`, so that no unit starts after itself.
///
/// Services start after their sites: this has priority. mountjail.service waits for the makers of
/// the sites' sources, except for those that start after a service of any site. It never waits for
/// a file system that comes late, because all sites would wait with it; a site on such a file system
/// is left to its own unit. `ordering` is that of the host's units, and is extended.
pub(crate) fn drop_ins(sites: &[UnitNeeds], ordering: &mut Ordering) -> DropIns {
    let mut plan = DropIns::default();
    let mut users: BTreeMap<&str, Vec<&SiteName>> = BTreeMap::new();
    for early in ["basic.target", "local-fs.target"] {
        for unit in sites
            .iter()
            .map(|wishes| unit_of(&wishes.site))
            .chain([ALL.to_owned()])
        {
            let _ = ordering.order(early, &unit); // another order is not mountjail's
        }
    }
    for (wishes, service) in sites
        .iter()
        .flat_map(|wishes| wishes.services.iter().map(move |one| (wishes, one)))
    {
        let ordered = ordering
            .order(ALL, service)
            .and_then(|()| ordering.order(&unit_of(&wishes.site), service));
        match ordered {
            Ok(()) => users.entry(service).or_default().push(&wishes.site),
            Err(way) => {
                plan.refused.push(OrderingConflict {
                    site: wishes.site.clone(),
                    unit: service.clone(),
                    way,
                });
            }
        }
    }
    let makers: BTreeSet<_> = sites.iter().flat_map(|wishes| &wishes.makers).collect();
    let makers: BTreeMap<_, _> = makers
        .into_iter()
        .map(|maker| (maker, ordering.order(maker, ALL).is_ok()))
        .collect();
    for wishes in sites {
        let own = unit_of(&wishes.site);
        let mut lines = vec![];
        let services: Vec<_> = users
            .iter()
            .filter(|(_, sites)| sites.contains(&&wishes.site))
            .map(|(service, _)| *service)
            .collect();
        if !services.is_empty() {
            lines.push(format!("Before={}", services.join(" ")));
        }
        for maker in &wishes.makers {
            match ordering.order(maker, &own) {
                Ok(()) => {
                    lines.push(format!("After={maker}"));
                    if !makers[maker] {
                        plan.apart.insert(wishes.site.clone());
                    }
                }
                Err(way) => {
                    plan.missed.push(OrderingConflict {
                        site: wishes.site.clone(),
                        unit: maker.clone(),
                        way,
                    });
                }
            }
        }
        let root =
            (!lines.is_empty() && !wishes.late.contains(&wishes.root)).then_some(&wishes.root);
        for path in root.into_iter().chain(&wishes.late) {
            let Some(text) = quoted(path) else { continue };
            let mounts = mounts_of(path.as_path());
            match mounts
                .iter()
                .find_map(|mount| Some((mount, ordering.order(mount, &own).err()?)))
            {
                None => {
                    lines.push(format!("RequiresMountsFor={text}"));
                    if wishes.late.contains(path) {
                        plan.apart.insert(wishes.site.clone());
                    }
                }
                Some((mount, way)) => {
                    plan.missed.push(OrderingConflict {
                        site: wishes.site.clone(),
                        unit: mount.clone(),
                        way,
                    });
                }
            }
        }
        if plan.apart.contains(&wishes.site) {
            lines.push(format!("PartOf={ALL}"));
        }
        if !lines.is_empty() {
            let about = "Mounted after what it binds and before the services that run in it.";
            plan.sites
                .insert(wishes.site.clone(), drop_in(&own, about, &lines));
        }
    }
    for (service, sites) in users {
        let mut after = vec![format!("After={ALL}")];
        after.extend(
            sites
                .iter()
                .filter(|site| plan.apart.contains(site))
                .map(|site| format!("After={}", unit_of(site))),
        );
        let text = drop_in(
            service,
            "Sites that it runs in are mounted before it starts.",
            &after,
        );
        plan.services.insert(service.to_owned(), text);
    }
    let waited = makers
        .iter()
        .filter(|(_, ordered)| **ordered)
        .map(|(maker, _)| format!("After={maker}"));
    let mut lines: Vec<_> = waited.collect();
    lines.extend(
        plan.apart
            .iter()
            .map(|site| format!("Wants={}", unit_of(site))),
    );
    if !plan.apart.is_empty() {
        let names: Vec<_> = plan.apart.iter().map(SiteName::as_str).collect();
        lines.push(format!(
            "[Service]\nEnvironment=EXCEPT=--except={}",
            names.join(",")
        ));
    }
    if !lines.is_empty() {
        let about = "Daemons that make what sites bind; sites that wait for something else, by their own units.";
        plan.all = Some(drop_in(ALL, about, &lines));
    }
    plan
}

/// A drop-in of `unit`; the `lines` begin in the section `[Unit]`.
fn drop_in(unit: &str, about: &str, lines: &[String]) -> DropIn {
    DropIn {
        path: drop_in_of(unit),
        text: format!("{HEADER}\n# {about}\n[Unit]\n{}\n", lines.join("\n")),
    }
}

/// The path of the drop-in of `unit`, below the directory of units.
pub(crate) fn drop_in_of(unit: &str) -> PathBuf {
    format!("{unit}.d/50-mountjail.conf").into()
}

/// A path as it is written in a unit file: systemd.syntax(7), systemd.unit(5) on specifiers. `None`:
/// it cannot be written there.
fn quoted(path: &HostPath) -> Option<String> {
    let text = path
        .as_path()
        .to_str()
        .filter(|text| !text.contains(char::is_control))?;
    let text = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    Some(if text.contains([' ', '\\', '"', '\'']) {
        format!("\"{text}\"")
    } else {
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The versions of PHP whose FPM distributions name `phpVERSION-fpm.service`.
    const PHP: [&str; 7] = ["7.4", "8.0", "8.1", "8.2", "8.3", "8.4", "8.5"];

    fn ordering(unit: &str, key: &str) -> Vec<String> {
        let values = unit.lines().filter_map(|line| line.strip_prefix(key));
        values
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_shipped_units_are_ordered_alike() {
        let after = ["local-fs.target", TMPFILES, RESOLVED];
        let mut before = vec!["php-fpm.service".to_owned()];
        before.extend(PHP.map(|version| format!("php{version}-fpm.service")));
        for unit in [
            include_str!("../../packaging/systemd/mountjail.service"),
            include_str!("../../packaging/systemd/mountjail@.service"),
        ] {
            assert_eq!(ordering(unit, "After="), after);
            assert_eq!(ordering(unit, "Before="), before);
        }
    }
}

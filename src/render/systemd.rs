//! The systemd drop-ins of the sites: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

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
    for (directory, units) in MAKERS {
        if source.as_path().starts_with(directory) {
            return units;
        }
    }
    &[]
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

/// The needs of one site from systemd.
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
/// a file system that comes late, because all sites would wait with it; a site on such a file
/// system is left to its own unit. `ordering` is that of the host's units, and is extended.
pub(crate) fn drop_ins(sites: &[UnitNeeds], ordering: &mut Ordering) -> DropIns {
    let mut plan = DropIns::default();
    order_early(sites, ordering);

    // Services after their sites.
    let users = order_services(sites, ordering, &mut plan);

    // Sites after the makers of their sources and the mounts that they are on.
    let makers = order_all_makers(sites, ordering);
    for needs in sites {
        let mut lines = before_services(&needs.site, &users);
        order_makers(needs, &makers, ordering, &mut plan, &mut lines);
        order_mounts(needs, ordering, &mut plan, &mut lines);
        if plan.apart.contains(&needs.site) {
            lines.extend(part_of_all(&needs.site, ordering));
        }
        if !lines.is_empty() {
            let about = "Mounted after what it binds and before the services that run in it.";
            let drop_in = drop_in(&unit_of(&needs.site), about, &lines);
            plan.sites.insert(needs.site.clone(), drop_in);
        }
    }

    for (service, sites) in users {
        let mut lines = vec![format!("After={ALL}")];
        for site in sites {
            if plan.apart.contains(site) {
                lines.push(format!("After={}", unit_of(site)));
            }
        }
        let about = "Sites that it runs in are mounted before it starts.";
        let drop_in = drop_in(service, about, &lines);
        plan.services.insert(service.to_owned(), drop_in);
    }
    plan.all = drop_in_of_all(&makers, &plan.apart);
    plan
}

/// The sites of each service.
type SitesOfUnit<'s> = BTreeMap<&'s str, Vec<&'s SiteName>>;

/// The makers of all sites' sources, and whether mountjail.service can wait for each.
type Makers<'s> = BTreeMap<&'s String, bool>;

/// Notes that the sites' units start after the targets that every service starts after.
fn order_early(sites: &[UnitNeeds], ordering: &mut Ordering) {
    for early in ["basic.target", "local-fs.target"] {
        // Another order that exists already is not mountjail's.
        let _ = ordering.order(early, ALL);
        for needs in sites {
            let _ = ordering.order(early, &unit_of(&needs.site));
        }
    }
}

/// Notes that mountjail.service starts after the makers of all sites' sources, where it can.
fn order_all_makers<'s>(sites: &'s [UnitNeeds], ordering: &mut Ordering) -> Makers<'s> {
    let needed: BTreeSet<_> = sites.iter().flat_map(|needs| &needs.makers).collect();
    let mut makers = BTreeMap::new();
    for maker in needed {
        makers.insert(maker, ordering.order(maker, ALL).is_ok());
    }
    makers
}

fn order_services<'s>(
    sites: &'s [UnitNeeds],
    ordering: &mut Ordering,
    plan: &mut DropIns,
) -> SitesOfUnit<'s> {
    let mut users: SitesOfUnit<'s> = BTreeMap::new();
    for needs in sites {
        for service in &needs.services {
            let ordered = ordering
                .order(ALL, service)
                .and_then(|()| ordering.order(&unit_of(&needs.site), service));
            match ordered {
                Ok(()) => users.entry(service).or_default().push(&needs.site),
                Err(way) => plan.refused.push(conflict(needs, service, way)),
            }
        }
    }
    users
}

fn before_services(site: &SiteName, users: &SitesOfUnit<'_>) -> Vec<String> {
    let mut services = vec![];
    for (service, sites) in users {
        if sites.contains(&site) {
            services.push(*service);
        }
    }
    if services.is_empty() {
        vec![]
    } else {
        vec![format!("Before={}", services.join(" "))]
    }
}

fn order_makers(
    needs: &UnitNeeds,
    makers: &Makers<'_>,
    ordering: &mut Ordering,
    plan: &mut DropIns,
    lines: &mut Vec<String>,
) {
    for maker in &needs.makers {
        match ordering.order(maker, &unit_of(&needs.site)) {
            Ok(()) => {
                lines.push(format!("After={maker}"));
                if !makers[maker] {
                    plan.apart.insert(needs.site.clone());
                }
            }
            Err(way) => plan.missed.push(conflict(needs, maker, way)),
        }
    }
}

fn order_mounts(
    needs: &UnitNeeds,
    ordering: &mut Ordering,
    plan: &mut DropIns,
    lines: &mut Vec<String>,
) {
    let own = unit_of(&needs.site);
    let is_late = needs.late.contains(&needs.root);
    let root = (!lines.is_empty() && !is_late).then_some(&needs.root);
    for path in root.into_iter().chain(&needs.late) {
        let Some(text) = quoted(path) else { continue };
        if let Err((mount, way)) = order_after_all(&mounts_of(path.as_path()), &own, ordering) {
            plan.missed.push(conflict(needs, &mount, way));
            continue;
        }
        lines.push(format!("RequiresMountsFor={text}"));
        if needs.late.contains(path) {
            plan.apart.insert(needs.site.clone());
        }
    }
}

/// The lines of a site that mountjail.service leaves to its own unit. It restarts with
/// mountjail.service: it stops before, so that `down --all` finds it down, and starts after.
fn part_of_all(site: &SiteName, ordering: &mut Ordering) -> Vec<String> {
    let mut lines = vec![format!("PartOf={ALL}")];
    // Another order that exists already is not mountjail's.
    if ordering.order(ALL, &unit_of(site)).is_ok() {
        lines.push(format!("After={ALL}"));
    }
    lines
}

/// Notes that `unit` starts after the `mounts`. Errors: the first that cannot start before it, and
/// the units through which it would start after itself.
fn order_after_all(
    mounts: &[String],
    unit: &str,
    ordering: &mut Ordering,
) -> Result<(), (String, Vec<String>)> {
    for mount in mounts {
        if let Err(way) = ordering.order(mount, unit) {
            return Err((mount.clone(), way));
        }
    }
    Ok(())
}

fn conflict(needs: &UnitNeeds, unit: &str, way: Vec<String>) -> OrderingConflict {
    OrderingConflict {
        site: needs.site.clone(),
        unit: unit.to_owned(),
        way,
    }
}

/// The drop-in of mountjail.service, if it needs one.
fn drop_in_of_all(makers: &Makers<'_>, apart: &BTreeSet<SiteName>) -> Option<DropIn> {
    let mut lines = vec![];
    for (maker, can_wait) in makers {
        if *can_wait {
            lines.push(format!("After={maker}"));
        }
    }
    for site in apart {
        lines.push(format!("Wants={}", unit_of(site)));
    }
    if !apart.is_empty() {
        let names: Vec<_> = apart.iter().map(SiteName::as_str).collect();
        let names = names.join(",");
        lines.push(format!("[Service]\nEnvironment=EXCEPT=--except={names}"));
    }
    let about = "After daemons that make the sites' sources. Sites that wait for something else \
                 have their own units.";
    if lines.is_empty() {
        return None;
    }
    Some(drop_in(ALL, about, &lines))
}

/// A drop-in of `unit`; the `lines` begin in the section `[Unit]`.
fn drop_in(unit: &str, about: &str, lines: &[String]) -> DropIn {
    DropIn {
        path: drop_in_of(unit),
        text: format!("{HEADER}\n# {about}\n[Unit]\n{}\n", lines.join("\n")),
    }
}

/// The name of a drop-in that orders units.
pub(crate) const DROP_IN: &str = "50-mountjail.conf";

/// The path of the drop-in of `unit`, below the directory of units.
pub(crate) fn drop_in_of(unit: &str) -> PathBuf {
    Path::new(&format!("{unit}.d")).join(DROP_IN)
}

/// A path as it is written in a unit file: systemd.syntax(7), systemd.unit(5) on specifiers.
/// `None`: it cannot be written there.
fn quoted(path: &HostPath) -> Option<String> {
    let text = path.as_path().to_str()?;
    if text.contains(char::is_control) {
        return None;
    }
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

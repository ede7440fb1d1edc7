//! What systemd has to know about a site.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::base::{HostPath, SiteName};
use crate::observe::{Ordering, mounts_of};

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

/// The units after which `source` can be expected after a boot: none for what is on a disk, and for
/// what is on `/run` those that make it, as far as they are known. A unit that the host has not is
/// ignored by systemd.
pub fn makers(source: &HostPath) -> &'static [&'static str] {
    let known = MAKERS
        .iter()
        .find(|(directory, _)| source.as_path().starts_with(directory));
    known.map_or(&[], |(_, units)| units)
}

/// All units that [`makers`] knows.
pub fn all_makers() -> impl Iterator<Item = &'static str> {
    MAKERS.iter().flat_map(|(_, units)| *units).copied()
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

/// The unit of all sites.
pub const ALL: &str = "mountjail.service";

/// The unit of one site.
pub fn unit_of(site: &SiteName) -> String {
    format!("mountjail@{site}.service")
}

/// What one site asks of systemd.
#[derive(Clone, Debug)]
pub struct UnitNeeds {
    /// The site.
    pub site: SiteName,
    /// Its root.
    pub root: HostPath,
    /// The services that run inside.
    pub services: Vec<String>,
    /// The services that make what it binds, where they are not too early to be waited for: see
    /// [`makers`].
    pub makers: BTreeSet<String>,
    /// Its root and sources, those of them that are on file systems which the boot does not wait
    /// for.
    pub late: Vec<HostPath>,
}

/// What `up` at boot cannot wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderingConflict {
    /// The site that wishes it.
    pub site: SiteName,
    /// What the site would start after, or before if it is one of its services.
    pub unit: String,
    /// The units by which it would start after itself.
    pub way: Vec<String>,
}

/// The drop-ins of all sites, and what has none.
#[derive(Clone, Debug, Default)]
pub struct DropIns {
    /// Of mountjail.service, if it needs any.
    pub all: Option<DropIn>,
    /// Of each site's own unit, if it needs any.
    pub sites: BTreeMap<SiteName, DropIn>,
    /// Of each service.
    pub services: BTreeMap<String, DropIn>,
    /// Services that cannot start after their sites.
    pub refused: Vec<OrderingConflict>,
    /// Makers and mounts that start after the sites that wait for them.
    pub missed: Vec<OrderingConflict>,
    /// The sites that mountjail.service leaves to their own units, because these wait for something
    /// that others may not.
    pub apart: BTreeSet<SiteName>,
}

/// The drop-ins that order all `sites`, so that no unit starts after itself.
///
/// Services start after their sites: that comes first. mountjail.service waits for the makers of
/// what sites bind, unless one of them starts after a service of any site; and for no file system
/// that comes late, because all sites would wait with it. A site that needs such is left to its own
/// unit. `ordering` is that of the host's units; it is added to.
pub fn drop_ins(sites: &[UnitNeeds], ordering: &mut Ordering) -> DropIns {
    let mut plan = DropIns::default();
    let mut users: BTreeMap<&str, Vec<&SiteName>> = BTreeMap::new();
    for early in ["basic.target", "local-fs.target"] {
        for unit in sites
            .iter()
            .map(|wishes| unit_of(&wishes.site))
            .chain([ALL.to_owned()])
        {
            let _ = ordering.order(early, &unit); // if it is the other way round already, that is not ours
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

/// A drop-in of `unit`; `lines` begin in its section `[Unit]`.
fn drop_in(unit: &str, about: &str, lines: &[String]) -> DropIn {
    DropIn {
        path: drop_in_of(unit),
        text: format!("{HEADER}\n# {about}\n[Unit]\n{}\n", lines.join("\n")),
    }
}

/// Where the drop-in of `unit` is, below the directory of units.
pub fn drop_in_of(unit: &str) -> PathBuf {
    format!("{unit}.d/50-mountjail.conf").into()
}

/// A path as a unit's file has it: systemd.syntax(7), systemd.unit(5) on specifiers. `None` if it
/// cannot.
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

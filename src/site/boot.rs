//! How the sites are ordered at boot, by units and by lines of fstab(5): before the services that
//! run inside, after the units that make their sources, and after the file systems that they are
//! on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::context::Context;
use super::site_list::SiteList;
use super::{Site, SiteError, configuration, load};
use crate::base::{HostPath, SiteName};
use crate::manifest::{Manifest, Request};
use crate::observe::{FileSystems, Ordering, Units};
use crate::patience;
use crate::render::systemd::{HEADER, UnitNeeds, all_makers, makers, unit_of};
use crate::{Error, Result};

/// Where the administrator's units are; systemd looks there first.
pub(crate) const UNITS: &str = "/etc/systemd/system";

/// The host's units and file systems, read once per run.
pub(crate) struct BootUnits {
    units: Units,
    /// Without mountjail's own drop-ins.
    pub ordering: Ordering,
    systems: FileSystems,
}

/// How the lines of a site in fstab(5) are ordered.
#[derive(Clone, Debug, Default)]
pub(crate) struct FstabOrder {
    /// The services that start after the mounts.
    pub before: Vec<String>,
    /// The services that make sources, but wait for the mounts, directly or in turn.
    pub not_after: BTreeSet<String>,
    /// Why other services of the manifest do not start after the mounts.
    pub refused: Vec<String>,
}

impl BootUnits {
    /// `directory`: that of the administrator's units. `manifests`: those whose services will be
    /// asked about.
    pub(crate) fn read(directory: &Path, manifests: &[(Site, Manifest)]) -> Self {
        let mut named = vec![];
        for (_, manifest) in manifests {
            named.push(unit_of(&manifest.site));
            named.extend_from_slice(&manifest.services);
        }
        let ordering = Ordering::read(directory, &named, HEADER);
        Self {
            units: Units::read(),
            ordering,
            systems: FileSystems::read(),
        }
    }

    /// The units that a site with scope `host` needs, and an error for each of its services that
    /// cannot start after it.
    pub(crate) fn needs(&self, site: &Site, manifest: &Manifest) -> (UnitNeeds, Vec<Error>) {
        let (mut services, mut errors): (Vec<String>, _) = (vec![], vec![]);
        for service in &manifest.services {
            match self.refuse(site, manifest, service) {
                Ok(()) if services.contains(service) => {}
                Ok(()) => services.push(service.clone()),
                Err(error) => errors.push(error),
            }
        }
        let sources = sources(manifest);
        let mut makers = self.makers(&sources);
        makers.retain(|unit| self.has(unit));
        // A file system with optional sources only must not keep the site from coming up.
        let mut late = BTreeSet::from([&manifest.root]);
        for (source, optional) in &sources {
            if !optional {
                late.insert(source);
            }
        }
        late.retain(|path| self.systems.may_come_late(path.as_path(), &self.ordering));
        let needs = UnitNeeds {
            site: site.name.clone(),
            root: manifest.root.clone(),
            services,
            makers,
            late: late.into_iter().cloned().collect(),
        };
        (needs, errors)
    }

    /// Orders the mounts of each site before its services and after the units that make their
    /// sources, unless a unit would wait for itself.
    pub(crate) fn order_lines(
        &mut self,
        manifests: &[(Site, Manifest)],
    ) -> BTreeMap<SiteName, FstabOrder> {
        let mut orders = BTreeMap::new();
        for (site, manifest) in manifests {
            let mut order = FstabOrder::default();
            for service in &manifest.services {
                match self.order_line(site, manifest, service) {
                    Err(error) => order.refused.push(error.to_string()),
                    Ok(()) if order.before.contains(service) => {}
                    Ok(()) => order.before.push(service.clone()),
                }
            }
            orders.insert(site.name.clone(), order);
        }
        for (site, manifest) in manifests {
            let mounts = mounts_of(&site.name);
            let mut waiting = self.makers(&sources(manifest));
            waiting.retain(|maker| self.ordering.order(maker, &mounts).is_err());
            let names = all_makers().filter(|name| waiting.contains(self.ordering.name(name)));
            if let Some(order) = orders.get_mut(&site.name) {
                order.not_after = names.map(ToOwned::to_owned).collect();
            }
        }
        orders
    }

    /// Orders the mounts of the site before this service.
    fn order_line(&mut self, site: &Site, manifest: &Manifest, service: &str) -> Result<()> {
        self.refuse_order(site, manifest, service)?;
        let ordered = self.ordering.order(&mounts_of(&site.name), service);
        ordered.map_err(|way| {
            Error::failed(format!(
                "{}: {service} starts before the mounts: {}",
                site.name,
                way.join(", ")
            ))
        })
    }

    /// The services that make these sources, whether this host has them or not, without those that
    /// start before every service that a site can name.
    fn makers(&self, sources: &[(HostPath, bool)]) -> BTreeSet<String> {
        let mut late = BTreeSet::new();
        for (source, _) in sources {
            for unit in makers(source) {
                if is_service(unit) && !self.ordering.is_early(unit) {
                    late.insert(self.ordering.name(unit).to_owned());
                }
            }
        }
        late
    }

    pub(crate) fn has(&self, unit: &str) -> bool {
        self.units.has(unit) || self.ordering.knows(unit)
    }

    /// As [`refuse_order`](Self::refuse_order); also refuses units that this host does not have.
    fn refuse(&self, site: &Site, manifest: &Manifest, service: &str) -> Result<()> {
        self.refuse_order(site, manifest, service)?;
        self.refuse_unknown(site, manifest, service)
    }

    /// Refuses units that are not services, or that this host does not have.
    pub(crate) fn refuse_unit(
        &self,
        site: &Site,
        manifest: &Manifest,
        service: &str,
    ) -> Result<()> {
        refuse_kind(site, manifest, service, "cannot mount the site")?;
        self.refuse_unknown(site, manifest, service)
    }

    fn refuse_unknown(&self, site: &Site, manifest: &Manifest, service: &str) -> Result<()> {
        let (name, file) = (&site.name, manifest.file_of_service(service));
        if !self.has(service) {
            let unknown = Error::failed(format!("{name}: this host has no unit {service}"));
            return Err(match self.units.nearest(service) {
                Some(nearest) => unknown.hint(format!("did you mean {nearest}?")),
                None => unknown.hint(format!("correct `services` in {file}")),
            });
        }
        Ok(())
    }

    /// Refuses units that are not services, and services that must start before file systems are
    /// mounted.
    fn refuse_order(&self, site: &Site, manifest: &Manifest, service: &str) -> Result<()> {
        refuse_kind(site, manifest, service, WHEN_ORDERED)?;
        if self.ordering.is_early(service) {
            let error = cannot(site, service, WHEN_ORDERED).because_of(
                "it starts before file systems are mounted (its unit has DefaultDependencies=no)",
            );
            return Err(error.hint(remove_from(manifest, service)));
        }
        Ok(())
    }
}

/// The mounts of a site, where units are ordered. A unit's name has no slash.
fn mounts_of(site: &SiteName) -> String {
    format!("/{site}")
}

/// The thing that cannot be done with a refused unit.
const WHEN_ORDERED: &str = "cannot start after the site's mounts";

fn cannot(site: &Site, service: &str, what: &str) -> Error {
    Error::failed(format!("{}: {service} {what}", site.name))
}

pub(super) fn remove_from(manifest: &Manifest, service: &str) -> String {
    format!(
        "take it out of `services` in {}",
        manifest.file_of_service(service)
    )
}

/// Refuses units that are not services, and mountjail's own.
fn refuse_kind(site: &Site, manifest: &Manifest, service: &str, what: &str) -> Result<()> {
    let (stem, kind) = service.rsplit_once('.').unwrap_or((service, ""));
    if kind != "service" {
        let error = cannot(site, service, what);
        return Err(error
            .because_of(format!("a {kind} is not a service; nothing runs in it"))
            .hint(format!(
                "name the service that runs inside, as in `services: [{stem}.service]`"
            )));
    }
    if service == "mountjail.service"
        || service == "mountjail-watch.service"
        || stem.starts_with("mountjail@")
    {
        let error = cannot(site, service, what).because_of("it is mountjail's own unit");
        return Err(error.hint(remove_from(manifest, service)));
    }
    Ok(())
}

pub(crate) fn is_service(unit: &str) -> bool {
    matches!(unit.rsplit_once('.'), Some((_, "service")))
}

/// The manifests of several sites.
pub(crate) struct Manifests {
    pub known: Vec<(Site, Manifest)>,
    /// Why a site has none.
    pub unusable: BTreeMap<SiteName, SiteError>,
    /// Some files do not tell which sites they are for, so there may be more.
    is_partial: bool,
}

impl Manifests {
    /// Whether those of all sites besides `going` are known.
    pub(super) fn has_all_besides(&self, going: &[Site]) -> bool {
        let is_going = |name: &SiteName| going.iter().any(|site| site.name == *name);
        !self.is_partial && self.unusable.keys().all(is_going)
    }
}

/// The manifests of all sites of the configuration and of `others`. A site that does not answer
/// does not keep the others waiting.
///
/// Errors: the sites cannot be listed.
pub(crate) fn manifests(context: &Context, others: &[Site]) -> Result<Manifests> {
    let list = match configuration::list(&context.config) {
        Err(error) if error.errno() == Some(libc::ENOENT) => SiteList::default(),
        list => list?,
    };
    let is_partial = list.is_partial || !list.errors.is_empty();
    let mut all = list.sites;
    for other in others {
        if !all.contains(other) {
            all.push(other.clone());
        }
    }
    let loaded = load::manifests(context, &all);
    let mut manifests = Manifests {
        known: vec![],
        unusable: BTreeMap::new(),
        is_partial,
    };
    for (site, loaded) in all.into_iter().zip(loaded) {
        match loaded {
            Ok(manifest) => manifests.known.push((site, manifest)),
            Err(failed) => {
                manifests.unusable.insert(site.name, failed);
            }
        }
    }
    Ok(manifests)
}

/// The manifest of the site.
pub(super) fn manifest_of<'m>(
    site: &Site,
    manifests: &'m [(Site, Manifest)],
) -> Option<&'m Manifest> {
    let mut manifests = manifests.iter();
    let (_, manifest) = manifests.find(|(known, _)| known == site)?;
    Some(manifest)
}

/// The sources that the manifest names, each with whether the site comes up without it.
fn sources(manifest: &Manifest) -> Vec<(HostPath, bool)> {
    let mut sources = vec![];
    for entry in &manifest.entries {
        add_sources(&entry.request, &mut sources);
    }
    sources
}

fn add_sources(request: &Request, sources: &mut Vec<(HostPath, bool)>) {
    match request {
        Request::Mount(mount) => {
            let wanted = &mount.sources;
            let optional = wanted.optional || wanted.any_of.len() > 1;
            for source in &wanted.any_of {
                sources.push((without_links(source.path()), optional));
            }
        }
        Request::Etc(wanted) => {
            let names = wanted.any_of.clone();
            let look = |name: &String| end_in_etc(name);
            for end in patience::each_within(names, Some(patience::SHORT), look) {
                if let Some(Some(path)) = end {
                    sources.push((path, true));
                }
            }
        }
        _ => {}
    }
}

/// Where the name leads: for instance, /etc/resolv.conf is a link into /run.
fn end_in_etc(name: &str) -> Option<HostPath> {
    let end = fs::canonicalize(Path::new("/etc").join(name)).ok()?;
    HostPath::new(end).ok()
}

/// The path with the link `/var/run` resolved.
fn without_links(path: &HostPath) -> HostPath {
    if let Ok(below) = path.as_path().strip_prefix("/var/run")
        && let Ok(resolved) = HostPath::new(Path::new("/run").join(below))
    {
        return resolved;
    }
    path.clone()
}

//! What the sites ask of systemd, for units and for lines of fstab(5): the services that run
//! inside, what makes their sources, what they are mounted on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::SiteError;
use super::context::Context;
use super::{Site, parallel, select};
use crate::base::{HostPath, SiteName};
use crate::manifest::{Manifest, Request};
use crate::observe::{FileSystems, Ordering, Units};
use crate::patience::{self, Stop};
use crate::render::fstab::unescaped;
use crate::render::systemd::{HEADER, UnitNeeds, all_makers, makers, unit_of};
use crate::{Error, Result};

/// What systemd and the host tell, read once a run.
pub(crate) struct BootUnits {
    units: Units,
    /// Without our own drop-ins.
    pub ordering: Ordering,
    systems: FileSystems,
}

/// What the lines of a site in fstab(5) are ordered by.
#[derive(Clone, Debug, Default)]
pub(crate) struct FstabOrder {
    /// The services that start after the mounts.
    pub before: Vec<String>,
    /// The services that wait for the mounts, directly or in turn, and make sources.
    pub not_after: BTreeSet<String>,
    /// Why other services of the manifest are not among them.
    pub refused: Vec<String>,
}

impl BootUnits {
    /// `directory`: of units, which is looked into first. `manifests`: whose services will be asked
    /// about.
    pub(crate) fn read<'m>(
        directory: &Path,
        manifests: impl Iterator<Item = &'m Manifest>,
    ) -> Self {
        let units = |manifest: &'m Manifest| {
            [unit_of(&manifest.site)]
                .into_iter()
                .chain(manifest.services.clone())
        };
        let named: Vec<_> = manifests.flat_map(units).collect();
        let ordering = Ordering::read(directory, &named, HEADER);
        Self {
            units: Units::read(),
            ordering,
            systems: FileSystems::read(unescaped),
        }
    }

    /// What the site asks, and an error for each of its services that cannot be ordered after it.
    pub(crate) fn wishes(&self, site: &Site, manifest: &Manifest) -> (UnitNeeds, Vec<Error>) {
        let (mut services, mut errors): (Vec<String>, _) = (vec![], vec![]);
        for service in &manifest.services {
            match self.refuse(site, service) {
                Ok(()) if services.contains(service) => {}
                Ok(()) => services.push(service.clone()),
                Err(error) => errors.push(error),
            }
        }
        let sources = sources(manifest);
        let makers = self
            .makers(&sources)
            .filter(|unit| self.has(unit))
            .collect();
        // A file system that only optional sources are on must not keep the site from coming up.
        let needed = sources
            .iter()
            .filter(|(_, optional)| !optional)
            .map(|(source, _)| source);
        let late = [&manifest.root].into_iter().chain(needed);
        let late: BTreeSet<_> = late
            .filter(|path| self.systems.may_come_late(path.as_path(), &self.ordering))
            .cloned()
            .collect();
        let wishes = UnitNeeds {
            site: site.name.clone(),
            root: manifest.root.clone(),
            services,
            makers,
            late: late.into_iter().collect(),
        };
        (wishes, errors)
    }

    /// Has the mounts of each site start before its services and, where nobody comes to wait for
    /// itself by that, after what makes their sources.
    pub(crate) fn order_lines(
        &mut self,
        manifests: &[(Site, Manifest)],
    ) -> BTreeMap<SiteName, FstabOrder> {
        let mut orders = BTreeMap::new();
        // No unit has a name with a slash.
        let mounts = |site: &SiteName| format!("/{site}");
        for (site, manifest) in manifests {
            let mut order = FstabOrder::default();
            for service in &manifest.services {
                let refused = self.refuse_order(site, service).err();
                let refused = refused.or_else(|| {
                    let way = self.ordering.order(&mounts(&site.name), service).err()?;
                    Some(Error::failed(format!(
                        "{}: {service} starts before the mounts: {}",
                        site.name,
                        way.join(", ")
                    )))
                });
                match refused {
                    Some(error) => order.refused.push(error.to_string()),
                    None if order.before.contains(service) => {}
                    None => order.before.push(service.clone()),
                }
            }
            orders.insert(site.name.clone(), order);
        }
        for (site, manifest) in manifests {
            let mut waiting: BTreeSet<_> = self.makers(&sources(manifest)).collect();
            waiting.retain(|maker| self.ordering.order(maker, &mounts(&site.name)).is_err());
            let names = all_makers().filter(|name| waiting.contains(self.ordering.name(name)));
            if let Some(order) = orders.get_mut(&site.name) {
                order.not_after = names.map(ToOwned::to_owned).collect();
            }
        }
        orders
    }

    /// The services that make these sources, whether this host has them or not, but those that
    /// start before every service that a site can name.
    fn makers(&self, sources: &[(HostPath, bool)]) -> impl Iterator<Item = String> {
        let makers = sources.iter().flat_map(|(source, _)| makers(source));
        let late = makers.filter(|unit| is_service(unit) && !self.ordering.is_early(unit));
        late.map(|unit| self.ordering.name(unit).to_owned())
    }

    /// Whether this host has the unit.
    pub(crate) fn has(&self, unit: &str) -> bool {
        self.units.has(unit) || self.ordering.knows(unit)
    }

    /// As [`refuse_order`](Self::refuse_order), and what this host has not.
    fn refuse(&self, site: &Site, service: &str) -> Result<()> {
        self.refuse_order(site, service)?;
        let (name, file) = (&site.name, site.file.display());
        if !self.has(service) {
            let unknown = Error::failed(format!("{name}: this host has no unit {service}"));
            return Err(match self.units.nearest(service) {
                Some(nearest) => unknown.hint(format!("did you mean {nearest}?")),
                None => unknown.hint(format!("correct `services` in {file}")),
            });
        }
        Ok(())
    }

    /// Refuses what no service is, and what must start before file systems are mounted.
    fn refuse_order(&self, site: &Site, service: &str) -> Result<()> {
        let (name, file) = (&site.name, site.file.display());
        let cannot = |why: &str| {
            Error::failed(format!(
                "{name}: {service} cannot start after the site's mounts"
            ))
            .because_of(why)
        };
        let remove = format!("take it out of `services` in {file}");
        let (stem, kind) = service.rsplit_once('.').unwrap_or((service, ""));
        if kind != "service" {
            return Err(
                cannot(&format!("a {kind} is no service; nothing runs in it")).hint(format!(
                    "name the service that runs inside, as in `services: [{stem}.service]`"
                )),
            );
        }
        if service == "mountjail.service"
            || service == "mountjail-watch.service"
            || stem.starts_with("mountjail@")
        {
            return Err(cannot("it is mountjail's own unit").hint(remove));
        }
        if self.ordering.is_early(service) {
            return Err(cannot(
                "it starts before file systems are mounted (its unit has DefaultDependencies=no)",
            )
            .hint(remove));
        }
        Ok(())
    }
}

/// Whether this is a service's name.
pub(crate) fn is_service(unit: &str) -> bool {
    unit.rsplit_once('.')
        .is_some_and(|(_, kind)| kind == "service")
}

/// The manifests of all sites of the configuration and of `others`, and why there is none of a
/// site. One that does not answer keeps no other.
pub(crate) fn manifests(
    context: &Context,
    others: &[Site],
) -> (Vec<(Site, Manifest)>, BTreeMap<SiteName, SiteError>) {
    let mut all = select::known(context);
    all.extend(
        others
            .iter()
            .filter(|site| !all.contains(site))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let own = context.again();
    let load = move |site: &Site, _: &Stop| select::load(&own, site).map_err(SiteError::Manifest);
    let threads = parallel::processors();
    let loaded = parallel::each(context, &all, threads, &Arc::default(), load);
    let (mut manifests, mut unusable) = (vec![], BTreeMap::new());
    for (site, loaded) in all.into_iter().zip(loaded) {
        match loaded {
            Ok(manifest) => manifests.push((site, manifest)),
            Err(failed) => drop(unusable.insert(site.name, failed)),
        }
    }
    (manifests, unusable)
}

/// The sources that the manifest names as they are, and whether the site comes up without each.
fn sources(manifest: &Manifest) -> Vec<(HostPath, bool)> {
    manifest
        .entries
        .iter()
        .flat_map(|entry| sources_of(&entry.request))
        .collect()
}

fn sources_of(request: &Request) -> Vec<(HostPath, bool)> {
    match request {
        Request::Mount(mount) => {
            let wanted = &mount.sources;
            let optional = wanted.optional || wanted.any_of.len() > 1;
            wanted
                .any_of
                .iter()
                .map(|source| (without_links(source.path()), optional))
                .collect()
        }
        // Such as /etc/resolv.conf, which is a link into /run.
        Request::Etc(wanted) => {
            let end = |name: &String| {
                HostPath::new(fs::canonicalize(Path::new("/etc").join(name)).ok()?).ok()
            };
            let ends = patience::each_within(wanted.any_of.clone(), Some(patience::SHORT), end);
            ends.into_iter()
                .filter_map(Option::flatten)
                .map(|path| (path, true))
                .collect()
        }
        _ => vec![],
    }
}

/// The path without the link that `/var/run` is.
fn without_links(path: &HostPath) -> HostPath {
    let below = path.as_path().strip_prefix("/var/run").ok();
    below
        .and_then(|below| HostPath::new(Path::new("/run").join(below)).ok())
        .unwrap_or_else(|| path.clone())
}

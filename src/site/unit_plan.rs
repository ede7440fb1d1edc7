//! Which drop-ins for systemd the sites of a configuration need.

use std::collections::BTreeMap;
use std::path::Path;

use super::boot::{self, BootUnits, Manifests};
use super::context::Context;
use super::wrappers::WrappedServices;
use super::{Site, SiteError};
use crate::base::SiteName;
use crate::manifest::{Manifest, Scope};
use crate::render::systemd::{DropIn, DropIns, OrderingConflict, UnitNeeds, drop_ins, unit_of};
use crate::{Error, Result};

/// The drop-ins of all sites, and what was found while they were made.
pub(crate) struct PlannedUnits {
    pub drop_ins: DropIns,
    wrapped: WrappedServices,
    needs: Vec<UnitNeeds>,
    /// Why a site does not get all that its manifest names.
    errors: BTreeMap<SiteName, Vec<Error>>,
    pub manifests: Vec<(Site, Manifest)>,
    /// Why a site has no manifest.
    unusable: BTreeMap<SiteName, SiteError>,
    pub some_are_silent: bool,
    pub known: BootUnits,
}

impl PlannedUnits {
    /// The drop-ins of all sites of the configuration that `counts`, and of `named`, by the host's
    /// units, where those in `directory` take precedence.
    ///
    /// Errors: the sites cannot be listed.
    pub(crate) fn new(
        context: &Context,
        directory: &Path,
        named: &[Site],
        counts: impl Fn(&Site) -> bool,
    ) -> Result<Self> {
        let Manifests {
            known: mut manifests,
            unusable,
            ..
        } = boot::manifests(context, named)?;
        manifests.retain(|(site, _)| counts(site));
        let mut boot = BootUnits::read(directory, &manifests);
        let mut wrapped = WrappedServices::find(context, directory, &boot, &manifests);
        let (mut needs, mut errors) = (vec![], std::mem::take(&mut wrapped.errors));
        for (site, manifest) in &manifests {
            if manifest.scope == Scope::Services {
                continue;
            }
            let (needed, refused) = boot.needs(site, manifest);
            needs.push(needed);
            errors.insert(site.name.clone(), refused);
        }
        let drop_ins = drop_ins(&needs, &mut boot.ordering);
        for conflict in &drop_ins.refused {
            let errors = errors.entry(conflict.site.clone()).or_default();
            errors.push(error_of(conflict, &manifests));
        }
        Ok(Self {
            some_are_silent: unusable.values().any(SiteError::is_silent),
            drop_ins,
            wrapped,
            needs,
            errors,
            manifests,
            unusable,
            known: boot,
        })
    }

    pub(crate) fn manifest(&self, site: &Site) -> Option<&Manifest> {
        boot::manifest_of(site, &self.manifests)
    }

    /// The drop-ins that are written whichever sites are named: they depend on each other.
    pub(crate) fn always(&self) -> Vec<&DropIn> {
        let mut always: Vec<_> = self.drop_ins.all.iter().collect();
        for (site, _) in &self.manifests {
            if self.drop_ins.apart.contains(&site.name) {
                always.extend(self.of(site));
            }
        }
        always
    }

    /// The drop-ins of the site's own unit and of its services.
    pub(crate) fn of(&self, site: &Site) -> Vec<&DropIn> {
        let Some(manifest) = self.manifest(site) else {
            return vec![];
        };
        let mut own = vec![];
        for service in &manifest.services {
            own.extend(self.drop_ins.services.get(service));
        }
        own.extend(self.drop_ins.sites.get(&site.name));
        for service in self.wrapped.of(&site.name) {
            own.extend(&service.drop_in); // if it has one
        }
        own
    }

    /// Why the site does not get all that it asks for; returned once.
    pub(crate) fn failed(&mut self, site: &Site) -> Option<SiteError> {
        if let Some(unusable) = self.unusable.remove(&site.name) {
            return Some(unusable);
        }
        match self.errors.get(&site.name) {
            Some(errors) if !errors.is_empty() => Some(SiteError::Errors(errors.clone())),
            _ => None,
        }
    }

    pub(crate) fn report(&self, context: &Context, site: &Site) {
        let name = &site.name;
        let out = context.out.site(name);
        let mut wrapped = vec![];
        for service in self.wrapped.of(name) {
            wrapped.push(service.unit.as_str());
        }
        if !wrapped.is_empty() {
            out.info(format_args!(
                "mounted in the mount namespaces of {}, when they start",
                wrapped.join(", ")
            ));
            return;
        }
        let needs = self.needs.iter().find(|needs| needs.site == *name);
        match needs.map(|needs| needs.services.as_slice()) {
            None | Some([]) => out.info("its manifest names no services; nothing to order"),
            Some(names) => out.info(format_args!("mounted before {}", names.join(", "))),
        }
        if self.drop_ins.apart.contains(name) {
            let unit = unit_of(name);
            out.info(format_args!(
                "mounted by {unit}, because it waits for something that other sites do not wait for"
            ));
        }
        for missed in &self.drop_ins.missed {
            if missed.site != *name {
                continue;
            }
            let unit = &missed.unit;
            out.info(format_args!(
                "mounted without waiting for {unit}, which starts after the site's services; \
                 mountjail-watch.service mounts what {unit} makes"
            ));
        }
    }
}

/// The error of a service that cannot start after the mounts of its site.
fn error_of(conflict: &OrderingConflict, manifests: &[(Site, Manifest)]) -> Error {
    let OrderingConflict { site, unit, way } = conflict;
    let error = Error::failed(format!(
        "{site}: {unit} cannot start after the site's mounts"
    ))
    .because_of(format!(
        "they would wait for each other: {} start in this order",
        way.join(", ")
    ));
    match manifests.iter().find(|(known, _)| known.name == *site) {
        Some((_, manifest)) => error.hint(boot::remove_from(manifest, unit)),
        None => error,
    }
}

//! Sites with scope `services`: which of them a service needs, and how they come up in the mount
//! namespace of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nix::unistd::geteuid;
use serde::Serialize;

use super::context::Context;
use super::{Site, SiteError, load, select};
use crate::base::{SiteName, hints};
use crate::manifest::{Manifest, Scope};
use crate::observe::{self, Process, RunNamespace, RunNamespaces};
use crate::{Error, Result, engine};

/// Which sites are brought up for a program.
#[derive(Clone, Debug)]
pub(crate) enum SitesOfProgram {
    /// All with scope `services`.
    All,
    /// Those of them that list one of these units.
    OfUnits(Vec<String>),
    /// Those with these names, which must have that scope.
    Named(Vec<String>),
}

/// The sites of a program.
pub(crate) struct ProgramSites {
    /// Each with its manifest.
    pub known: Vec<(Site, Manifest)>,
    /// Sites that cannot come up, or of which it is not known whether they belong to the program.
    pub failed: Vec<(Site, SiteError)>,
}

impl ProgramSites {
    /// Those of `units` that no site lists, as far as it is known.
    pub(crate) fn unlisted<'u>(&self, units: &'u [String]) -> Vec<&'u String> {
        let mut unlisted: Vec<_> = units.iter().collect();
        for (_, manifest) in &self.known {
            unlisted.retain(|unit| !manifest.services.contains(unit));
        }
        unlisted
    }
}

impl SitesOfProgram {
    /// Finds them.
    ///
    /// Errors: the configuration cannot be listed, or a name cannot be a site's.
    pub(crate) fn find(&self, context: &Context) -> Result<ProgramSites> {
        let sites = match self {
            Self::All | Self::OfUnits(_) => select::all(context)?,
            Self::Named(names) => {
                let mut sites = vec![];
                for name in names {
                    sites.push(select::site(context, name)?);
                }
                sites
            }
        };
        let loaded = load::manifests(context, &sites);

        let mut found = ProgramSites {
            known: vec![],
            failed: vec![],
        };
        for (site, loaded) in sites.into_iter().zip(loaded) {
            let manifest = match loaded {
                Ok(manifest) => manifest,
                Err(failed) => {
                    found.failed.push((site, failed));
                    continue;
                }
            };
            match self.choose(&site, &manifest) {
                Ok(true) => found.known.push((site, manifest)),
                Ok(false) => {}
                Err(error) => found.failed.push((site, error.into())),
            }
        }
        Ok(found)
    }

    /// Whether the site is among them.
    fn choose(&self, site: &Site, manifest: &Manifest) -> Result<bool> {
        let is_for_services = manifest.scope == Scope::Services;
        match self {
            Self::All => Ok(is_for_services),
            Self::OfUnits(units) => {
                let lists = manifest.services.iter().any(|unit| units.contains(unit));
                Ok(is_for_services && lists)
            }
            Self::Named(_) if is_for_services => Ok(true),
            Self::Named(_) => Err(has_host_scope(site)),
        }
    }
}

fn has_host_scope(site: &Site) -> Error {
    let (name, file) = (&site.name, site.file.display());
    Error::failed(format!(
        "{name}: its mounts belong to the host, and not to the mount namespace of a service"
    ))
    .hint(format!(
        "bring it up with `mountjail up {name}`, or write `scope: services` in {file}"
    ))
}

/// A mount namespace of a service, as it is named to people and programs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServicePlace {
    /// `php8.2-fpm.service`
    pub unit: String,
    pub pid: u32,
}

impl ServicePlace {
    pub(crate) fn of(namespace: &RunNamespace) -> Self {
        Self {
            unit: namespace.to_string(),
            pid: namespace.process.pid,
        }
    }

    /// As [`locate`](Self::locate), for each of `errors`.
    pub(crate) fn locate_all(&self, site: &SiteName, errors: &mut [Error]) {
        for error in errors {
            *error = self.locate(site, error.clone());
        }
    }

    /// An error about `site` here: it names the service, and what is to be typed works here.
    pub(crate) fn locate(&self, site: &SiteName, error: Error) -> Error {
        error
            .in_place(site, &self.unit)
            .map_hint(|hint| hints::inside(hint, self.pid))
    }
}

impl fmt::Display for ServicePlace {
    /// `for php8.2-fpm.service`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {}", self.unit)
    }
}

/// An error about a site that may be one in the mount namespace of a service.
pub(crate) trait Located {
    /// The same, about `site` at `place`.
    fn located(self, site: &SiteName, place: &ServicePlace) -> Self;
}

impl Located for SiteError {
    fn located(self, site: &SiteName, place: &ServicePlace) -> Self {
        self.map(|error| place.locate(site, error))
    }
}

/// The outcomes for sites in each of the namespaces that they are in.
pub(crate) type InPlaces<T, E> = BTreeMap<SiteName, Vec<(ServicePlace, Result<T, E>)>>;

/// A site with scope `services`, and its services.
pub(crate) type ServedSite = (Site, Vec<String>);

/// The mount namespaces that `run` made, and that exist.
pub(crate) struct Namespaces(Vec<RunNamespace>);

impl Namespaces {
    /// Finds them. Removes what is left of those that are gone, if the caller may do so.
    pub(crate) fn find(context: &Context) -> Result<Self> {
        let boot = observe::boot_id()?;
        Ok(Self(if geteuid().is_root() {
            engine::swept(&context.state, &boot)
        } else {
            RunNamespaces::find(&context.state, &boot).living
        }))
    }

    /// Those in which the site is, or which belong to one of its `units`.
    pub(crate) fn of(
        &self,
        context: &Context,
        site: &SiteName,
        units: &[String],
    ) -> Vec<&RunNamespace> {
        let mut those = self.0.iter().collect::<Vec<_>>();
        those.retain(|namespace| has(context, namespace, site, units));
        those
    }

    /// Does `work` in each namespace that has one of `sites`, in a thread that is in it, with the
    /// configuration and records for it. A namespace that is gone by then has none.
    pub(crate) fn each<T: Send, E: From<Error> + Located + Send>(
        &self,
        context: &Context,
        sites: &[ServedSite],
        work: impl Fn(Context, &[Site]) -> Result<Vec<Result<T, E>>> + Sync,
    ) -> InPlaces<T, E> {
        let mut found: InPlaces<T, E> = BTreeMap::new();
        for namespace in &self.0 {
            let mut here = vec![];
            for (site, units) in sites {
                if has(context, namespace, &site.name, units) {
                    here.push(site.clone());
                }
            }
            if here.is_empty() {
                continue;
            }
            let own = context.with_state(namespace.state(&context.state));
            let results = engine::within(namespace, || work(own, &here));
            let results = match results {
                Ok(results) => results,
                Err(error) if error.is_overtaken() => {
                    context.out.detail(error);
                    continue;
                }
                Err(error) => Err(error),
            };
            let place = ServicePlace::of(namespace);
            for (site, result) in with_results(here, results) {
                let result = result.map_err(|error: E| error.located(&site, &place));
                found.entry(site).or_default().push((place.clone(), result));
            }
        }
        found
    }

    /// The processes of `units` that do not run in such a namespace, one per unit.
    pub(crate) fn without(&self, units: &[String]) -> Vec<Process> {
        let mut inodes = vec![];
        for namespace in &self.0 {
            inodes.push(namespace.record.id.inode);
        }
        let mut blind: BTreeMap<String, Process> = BTreeMap::new();
        let mut served = BTreeSet::new();
        for (process, namespace) in observe::of_units(units) {
            let Some(unit) = process.unit.clone() else {
                continue;
            };
            if inodes.contains(&namespace) {
                served.insert(unit);
            } else {
                blind.entry(unit).or_insert(process);
            }
        }
        blind.retain(|unit, _| !served.contains(unit));
        blind.into_values().collect()
    }
}

/// Whether the site is in the namespace, or this belongs to one of its `units`.
fn has(context: &Context, namespace: &RunNamespace, site: &SiteName, units: &[String]) -> bool {
    namespace.is_of(units) || namespace.has(site, &context.state)
}

/// The sites with their results, as far as they were begun; all with the error, if there is one.
fn with_results<T, E: From<Error>>(
    sites: Vec<Site>,
    results: Result<Vec<Result<T, E>>>,
) -> Vec<(SiteName, Result<T, E>)> {
    let mut ends = vec![];
    match results {
        Ok(results) => {
            for (site, result) in sites.into_iter().zip(results) {
                ends.push((site.name, result));
            }
        }
        Err(error) => {
            for site in sites {
                ends.push((site.name, Err(error.clone().into())));
            }
        }
    }
    ends
}

/// Why a service has none of its sites: it was not started by `run`.
pub(crate) fn runs_without(process: &Process) -> String {
    let unit = process.unit.as_deref().unwrap_or_default();
    format!(
        "{process} runs without the site's mounts: `mountjail units --all --install`, then \
         `systemctl restart {unit}`"
    )
}

/// How the mounts in a service's namespace get there, if it does not run.
pub(crate) fn comes_with(units: &[String]) -> String {
    let do_not = if units.len() == 1 {
        "does not"
    } else {
        "do not"
    };
    format!("comes up with {}, which {do_not} run", units.join(", "))
}

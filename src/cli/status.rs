//! `mountjail status`: every mount and its state.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::report::Report;
use super::{DIFFERENT, complete};
use crate::Result;
use crate::base::{HostPath, SiteName};
use crate::observe::{self, Inside, Process, WatchState, now};
use crate::patience;
use crate::plan::{Plan, SiteState};
use crate::render;
use crate::render::prometheus::{self, SiteMetrics};
use crate::render::text::{StatusDetail, line};
use crate::site::context::Context;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::services::{self, Namespaces, ServedSite, ServicePlace};
use crate::site::status::SiteStatus;
use crate::site::{Selection, Site, SiteError, configuration, parallel, records, select, wrappers};

/// Show the state of each site and of its mounts; exit code 3 if any is not ok
///
/// Of one site every mount is shown; of several sites a line each, with -v all mounts, with -q only
/// what is not right.
///
/// The states: ok, missing, stale (the source is another file now), wrong-source, wrong-options,
/// shadowed (something else is on top), absent (the source is gone, but the manifest names it),
/// orphan (mountjail's, but no longer in the manifest), hidden (mountjail's, below what is mounted
/// over the root), foreign (not mountjail's: never touched). Other reasons why a site is drifted
/// are in lines that begin with `because`.
///
/// A site with `scope: services` has a line per service that runs; it is down if none does, which
/// is as it should be. A note names processes inside that still use a file which was replaced, such
/// as a library after an upgrade.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mountjail status site1\n  \
                  mountjail status --json | jq '.sites[].state'\n  \
                  mountjail status --format prometheus")]
pub(super) struct StatusArgs {
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE", add = complete::site())]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// How to print; prometheus: metrics for Prometheus (textfile collector)
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: StatusFormat,
    /// Print the states as JSON, as --format json does
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StatusFormat {
    Text,
    Json,
    Prometheus,
}

/// A site in the mount namespaces of its services.
#[derive(Default)]
struct Served {
    units: Vec<String>,
    places: Vec<(ServicePlace, SiteStatus)>,
    /// Processes of services that run without the site's mounts.
    without: Vec<Process>,
    /// It is still on the host, where it was before its scope was changed.
    on_host: bool,
    /// What is wrong with how its services are started.
    complaints: Vec<String>,
}

impl Served {
    fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.places
            .iter()
            .filter_map(|(_, status)| status.plan.as_ref())
    }

    /// Up, if it is so for all services that run; down, if none does.
    fn state(&self) -> SiteState {
        let are = |state| self.plans().all(|plan| plan.site_state() == state);
        let is_whole = self.without.is_empty() && !self.on_host;
        let is_known = self.plans().count() == self.places.len();
        if self.places.is_empty() && is_whole {
            SiteState::Down
        } else if is_whole && is_known && are(SiteState::Up) {
            SiteState::Up
        } else {
            SiteState::Drifted
        }
    }

    fn reasons(&self, context: &Context, site: &SiteName) -> Vec<String> {
        let mut reasons: Vec<_> = self.without.iter().map(services::runs_without).collect();
        reasons.extend(self.complaints.iter().cloned());
        if self.on_host {
            let run = context.state.record(site);
            reasons.push(format!(
                "it is still mounted on the host ({}); `mountjail up {site}` takes that away",
                run.display()
            ));
        }
        reasons
    }
}

/// What there is to show.
struct StatusReport {
    sites: Vec<SiteStatus>,
    /// Of sites with scope `services`: what is in the namespaces of their services.
    served: BTreeMap<SiteName, Served>,
    /// Per site, the processes inside that use old files.
    inside: Vec<Inside>,
    /// What a running watcher says about these sites.
    watch: Option<WatchState>,
}

impl StatusArgs {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let format = if self.json {
            StatusFormat::Json
        } else {
            self.format
        };
        let found = self.look(context)?;

        let mut report = Report::new(context, format == StatusFormat::Json);
        let detail = detail(context, found.sites.len());
        for (status, inside) in found.sites.iter().zip(&found.inside) {
            let served = found.served.get(&status.site.name);
            if let Some(served) = served {
                add_served(&mut report, context, status, served);
            } else {
                add(&mut report, context, status, inside);
            }
            if format == StatusFormat::Text {
                report.styled(match served {
                    Some(served) => text_of_served(context, status, served, detail),
                    None => text(status, inside, detail),
                });
            }
        }
        match format {
            StatusFormat::Text => {
                if let Some(watch) = &found.watch {
                    report.text(render::text::watch(watch, now()));
                }
            }
            StatusFormat::Json => report.key("watch", json!(found.watch)),
            StatusFormat::Prometheus => report.text(found.metrics(context)?),
        }
        Ok(report.finish())
    }

    fn look(&self, context: &Context) -> Result<StatusReport> {
        let sites = Selection::named_or_all(&self.sites).sites(context)?;
        let known = sites
            .into_iter()
            .map(|site| records::with_manifest(context, site));
        let mut sites: Vec<_> = known.collect();
        let mut watch = WatchState::read(&context.state);
        let mut recorded = vec![];
        if self.sites.is_empty() {
            recorded = recorded_only(context, &sites)?;
        } else if let Some(watch) = &mut watch {
            let failures = &mut watch.failures;
            failures.retain(|failed, _| sites.iter().any(|site| site.name == *failed));
        }

        let pipeline = Pipeline::new(context.with_new_host(), MountLookup::WholeTable)?;
        let pipeline = Arc::new(pipeline);
        sites.extend(recorded.clone());
        let own = pipeline.clone();
        let look = move |site: &Site| -> Result<SiteStatus, SiteError> {
            Ok(
                if recorded.contains(site) && !configuration::has_manifest(site) {
                    SiteStatus::without_manifest(&own, site.clone())
                } else {
                    SiteStatus::of(&own, site.clone())
                },
            )
        };
        let results = parallel::look(&pipeline.context, &sites, look);

        let mut found = vec![];
        for (site, result) in sites.into_iter().zip(results) {
            let status = result.unwrap_or_else(|failed| SiteStatus::lost(site, failed));
            // Of some sites there is only a record of a boot that is over.
            if status.plan.is_some() || !status.failed.is_empty() {
                found.push(status);
            }
        }
        let served = served(context, &found)?;
        let inside = outdated(pipeline, &found);
        Ok(StatusReport {
            sites: found,
            served,
            inside,
            watch,
        })
    }
}

/// The sites that are recorded and not among those of the configuration.
fn recorded_only(context: &Context, sites: &[Site]) -> Result<Vec<Site>> {
    let mut recorded = vec![];
    for name in context.state.recorded_sites()? {
        if sites.iter().all(|site| site.name != name) {
            let site = select::site(context, name.as_str())?;
            recorded.push(records::with_manifest(context, site));
        }
    }
    Ok(recorded)
}

/// The sites with scope `services`, in the mount namespaces of their services.
fn served(context: &Context, sites: &[SiteStatus]) -> Result<BTreeMap<SiteName, Served>> {
    let mut served: Vec<ServedSite> = vec![];
    for status in sites {
        let units = status.units.clone();
        served.extend(units.map(|units| (status.site.clone(), units)));
    }
    if served.is_empty() {
        return Ok(BTreeMap::new());
    }
    let look = |own: Context, here: &[Site]| -> Result<Vec<Result<_, SiteError>>> {
        let pipeline = Pipeline::new(own.clone(), MountLookup::WholeTable)?;
        let look = move |site: &Site| Ok(SiteStatus::of(&pipeline, site.clone()));
        Ok(parallel::look(&own, here, look))
    };
    let namespaces = Namespaces::find(context)?;
    let mut places = namespaces.each(context, &served, look);
    let mut complaints = wrappers::complaints(context);
    let mut found = BTreeMap::new();
    for (site, units) in served {
        let of_site = places.remove(&site.name).unwrap_or_default().into_iter();
        let status = |(place, result): (ServicePlace, Result<SiteStatus, SiteError>)| {
            let lost = |failed| SiteStatus::lost(site.clone(), failed);
            (place, result.unwrap_or_else(lost))
        };
        let served = Served {
            places: of_site.map(status).collect(),
            without: namespaces.without(&units),
            on_host: context.state.record(&site.name).exists(),
            complaints: complaints.remove(&site.name).unwrap_or_default(),
            units,
        };
        found.insert(site.name, served);
    }
    Ok(found)
}

/// Per site, the processes inside that use old files.
fn outdated(pipeline: Arc<Pipeline>, sites: &[SiteStatus]) -> Vec<Inside> {
    let (mut nths, mut roots) = (vec![], vec![]);
    for (nth, status) in sites.iter().enumerate() {
        if let Some(plan) = &status.plan {
            nths.push(nth);
            roots.push(plan.root.clone());
        }
    }
    let limit = pipeline.context.limit;
    let look = move |roots: &Vec<HostPath>| {
        let table = pipeline.table.as_ref()?;
        Some(observe::outdated(&roots.iter().collect::<Vec<_>>(), table))
    };
    // The files of processes may lie on any file system.
    let mut answers = patience::each_within(vec![roots], limit, look);
    let found = answers.pop().flatten().flatten().unwrap_or_default();

    let mut inside = vec![Inside::default(); sites.len()];
    for (nth, found) in nths.into_iter().zip(found) {
        inside[nth] = found;
    }
    inside
}

/// Reports the errors of a site, and adds its exit code and its object.
fn add(report: &mut Report, context: &Context, status: &SiteStatus, inside: &Inside) {
    let mut errors = vec![];
    for failed in &status.failed {
        let (code, texts) = failed.report(context.out, &status.site);
        report.code(code);
        errors.extend(texts);
    }
    let mut object = match &status.plan {
        Some(plan) => render::json::status(plan, inside),
        None => json!({ "site": status.site.name }),
    };
    if status.is_silent() {
        object["state"] = json!("not answering");
    }
    if !errors.is_empty() {
        object["errors"] = json!(errors);
    }
    let is_up = |plan: &Plan| plan.site_state() == SiteState::Up;
    let code = if status.plan.as_ref().is_none_or(is_up) {
        0
    } else {
        DIFFERENT
    };
    report.site(code, object);
}

/// As [`add`], for a site in the mount namespaces of its services. That none of them runs is no
/// difference: it comes up with them.
fn add_served(report: &mut Report, context: &Context, status: &SiteStatus, served: &Served) {
    let mut errors = vec![];
    let places = served.places.iter().flat_map(|(_, status)| &status.failed);
    for failed in status.failed.iter().chain(places) {
        let (code, texts) = failed.report(context.out, &status.site);
        report.code(code);
        errors.extend(texts);
    }
    let name = &status.site.name;
    let place = |(place, status): &(ServicePlace, SiteStatus)| {
        let mut object = match &status.plan {
            Some(plan) => render::json::status(plan, &Inside::default()),
            None => json!({ "site": name }),
        };
        object["unit"] = json!(place.unit);
        object["pid"] = json!(place.pid);
        object
    };
    let places: Vec<_> = served.places.iter().map(place).collect();
    let state = served.state();
    let mut object = json!({
        "site": name,
        "root": status.plan.as_ref().map(|plan| &plan.root),
        "scope": "services",
        "services": served.units,
        "state": state,
        "reasons": served.reasons(context, name),
        "places": places,
    });
    if !errors.is_empty() {
        object["errors"] = json!(errors);
    }
    let code = if state == SiteState::Drifted || !served.complaints.is_empty() {
        DIFFERENT
    } else {
        0
    };
    report.site(code, object);
}

fn text_of_served(
    context: &Context,
    status: &SiteStatus,
    served: &Served,
    detail: StatusDetail,
) -> String {
    let name = &status.site.name;
    let mut text = String::new();
    let reasons = served.reasons(context, name);
    if served.state() == SiteState::Down && detail != StatusDetail::Wrong {
        line(
            &mut text,
            format_args!("{name}: down, {}", services::comes_with(&served.units)),
        );
    }
    for (place, status) in &served.places {
        match &status.plan {
            Some(plan) if detail == StatusDetail::Sites => {
                let inside = Inside::default();
                text += &render::overview::site(plan, Some(&place.unit), &inside, &reasons);
            }
            Some(plan) => text += &render::text::status(plan, Some(&place.unit), detail),
            None => line(
                &mut text,
                format_args!("{name}: not answering, for {}", place.unit),
            ),
        }
    }
    let is_overview = detail == StatusDetail::Sites;
    if served.places.is_empty() && served.state() == SiteState::Drifted {
        let drifted = format!("{name}: {}", SiteState::Drifted);
        match reasons.first().filter(|_| is_overview) {
            Some(reason) => line(&mut text, format_args!("{drifted}; {reason}")),
            None => line(&mut text, format_args!("{drifted}")),
        }
    }
    let reasons = reasons.iter().filter(|_| !is_overview);
    for reason in reasons {
        line(&mut text, format_args!("  because: {reason}"));
    }
    text
}

fn text(status: &SiteStatus, inside: &Inside, detail: StatusDetail) -> String {
    match &status.plan {
        Some(plan) if detail == StatusDetail::Sites => {
            render::overview::site(plan, None, inside, &[])
        }
        Some(plan) => render::text::status(plan, None, detail) + &render::text::outdated(inside),
        None if status.is_silent() => format!("{}: not answering\n", status.site.name),
        None => String::new(),
    }
}

/// How much to show of each of that many sites.
fn detail(context: &Context, sites: usize) -> StatusDetail {
    if context.out.is_quiet() {
        StatusDetail::Wrong
    } else if sites > 1 && !context.out.is_verbose() {
        StatusDetail::Sites
    } else {
        StatusDetail::Mounts
    }
}

impl StatusReport {
    fn metrics(&self, context: &Context) -> Result<String> {
        let boot = observe::boot_id()?;
        let mut sites = vec![];
        for (status, inside) in self.sites.iter().zip(&self.inside) {
            let name = &status.site.name;
            let record = context
                .state
                .read(name, &boot)
                .ok()
                .and_then(|read| read.record);
            let processes = inside.outdated.iter().map(|group| group.processes.len());
            // Of several places the worst one counts.
            let served = self.served.get(name).and_then(|served| {
                served
                    .plans()
                    .max_by_key(|plan| plan.site_state() != SiteState::Up)
            });
            sites.push(SiteMetrics {
                name,
                plan: served.or(status.plan.as_ref()),
                history: record.and_then(|record| record.history),
                outdated: processes.sum(),
            });
        }
        Ok(prometheus::metrics(&sites, self.watch.as_ref(), now()))
    }
}

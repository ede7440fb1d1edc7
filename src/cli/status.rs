//! `mountjail status`: every mount and its state.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::report::Report;
use super::{DIFFERENT, complete};
use crate::Result;
use crate::base::HostPath;
use crate::observe::{self, Inside, WatchState, now};
use crate::patience;
use crate::plan::{Plan, SiteState};
use crate::render::prometheus::{self, SiteMetrics};
use crate::render::{self, text::StatusDetail};
use crate::site::context::Context;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::status::SiteStatus;
use crate::site::{Selection, Site, SiteError, configuration, parallel, select};

/// Show every mount and its state; exit code 3 if any is not ok
///
/// The states: ok, missing, stale (the source is another file now), wrong-source, wrong-options,
/// shadowed (something else is on top), absent (the source is gone, but the manifest names it),
/// orphan (mountjail's, but no longer in the manifest), foreign (not mountjail's: never touched).
/// Other reasons why a site is drifted are in lines that begin with `because`. Of several sites
/// only mounts that are not ok are shown; with -v all mounts, with -q nothing of sites that are up.
/// A note names processes inside that still use a file which was replaced, such as a library after
/// an upgrade.
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

/// What there is to show.
struct StatusReport {
    sites: Vec<SiteStatus>,
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
            add(&mut report, context, status, inside);
            if format == StatusFormat::Text {
                report.text(text(status, inside, detail));
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
        let mut sites = Selection::named_or_all(&self.sites).sites(context)?;
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
        let inside = outdated(pipeline, &found);
        Ok(StatusReport {
            sites: found,
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
            recorded.push(select::site(context, name.as_str())?);
        }
    }
    Ok(recorded)
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

fn text(status: &SiteStatus, inside: &Inside, detail: StatusDetail) -> String {
    match &status.plan {
        Some(plan) => render::text::status(plan, detail) + &render::text::outdated(inside),
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
            sites.push(SiteMetrics {
                name,
                plan: status.plan.as_ref(),
                history: record.and_then(|record| record.history),
                outdated: processes.sum(),
            });
        }
        Ok(prometheus::metrics(&sites, self.watch.as_ref(), now()))
    }
}

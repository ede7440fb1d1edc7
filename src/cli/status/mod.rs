//! `mountjail status`: every mount and its state.

mod outdated;
mod served;
mod shown;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use self::outdated::outdated;
use self::served::{Served, served};
use self::shown::Shown;
use super::complete;
use super::report::Report;
use crate::base::SiteName;
use crate::observe::{self, Inside, ProcessesIn, WatchState, now};
use crate::render;
use crate::render::health::SiteHealth;
use crate::render::text::StatusDetail;
use crate::render::{nagios, prometheus};
use crate::site::context::Context;
use crate::site::left_behind;
use crate::site::out::FailureForm;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::services::ServicePlace;
use crate::site::status::SiteStatus;
use crate::site::{Selection, Site, SiteError, configuration, parallel, records, select};
use crate::{Error, Result};

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
                  mountjail status --format prometheus --output mountjail.prom")]
pub(super) struct StatusArgs {
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE", add = complete::site())]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// How to print; prometheus: metrics for Prometheus (textfile collector); nagios: a line with
    /// performance data, and the exit code of a Nagios plugin
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: StatusFormat,
    /// Print the states as JSON, as --format json does
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write to this file, which is replaced as a whole; the exit code then tells only whether that
    /// succeeded
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StatusFormat {
    Text,
    Json,
    Prometheus,
    Nagios,
}

/// The form that `--format` among these arguments asks for, even if they cannot be parsed.
pub(super) fn form_by_words(words: &[OsString]) -> Option<FailureForm> {
    if !words.iter().any(|word| word == "status") {
        return None;
    }
    let is = |format: &str| {
        let mut pairs = words.windows(2);
        words
            .iter()
            .any(|word| *word == *format!("--format={format}"))
            || pairs.any(|pair| pair[0] == "--format" && pair[1] == format)
    };
    if is("nagios") {
        Some(FailureForm::Plugin)
    } else if is("json") {
        Some(FailureForm::Json)
    } else {
        None
    }
}

/// The sites to show.
struct StatusReport {
    sites: Vec<SiteStatus>,
    /// Of sites with scope `services`: what is in the namespaces of their services.
    served: BTreeMap<SiteName, Served>,
    /// Per site, the processes inside that use old files.
    inside: Vec<Inside>,
    /// The news of a running watcher about these sites.
    watch: Option<WatchState>,
}

impl StatusArgs {
    /// The form of its output if it fails as a whole.
    pub(super) fn failure_form(&self) -> FailureForm {
        match self.format() {
            StatusFormat::Json => FailureForm::Json,
            StatusFormat::Nagios => FailureForm::Plugin,
            StatusFormat::Text | StatusFormat::Prometheus => FailureForm::Nothing,
        }
    }

    fn format(&self) -> StatusFormat {
        if self.json {
            StatusFormat::Json
        } else {
            self.format
        }
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let format = self.format();
        if format == StatusFormat::Nagios && self.output.is_some() {
            let cannot = Error::usage("--format nagios prints its line, and writes no file");
            return Err(cannot.hint("leave out --output").into());
        }
        let found = self.look(context)?;
        let shown = found.shown(context);
        if format == StatusFormat::Nagios {
            return Ok(found.check(context, &shown));
        }
        // JSON and metrics have the errors in them.
        if self.output.is_none() || format == StatusFormat::Text {
            found.report_errors(context);
        }

        let mut report = Report::new(context, format == StatusFormat::Json);
        match format {
            StatusFormat::Text => {
                let detail = detail(context, shown.len());
                report.styled(found.texts(context, detail).concat());
                if let Some(watch) = &found.watch {
                    report.text(render::text::watch(watch, now()));
                }
            }
            StatusFormat::Json => report.key("watch", json!(found.watch)),
            StatusFormat::Prometheus => report.text(found.metrics(context, &shown)?),
            StatusFormat::Nagios => {}
        }
        for site in shown {
            report.site(site.code, site.object);
        }
        Ok(match &self.output {
            Some(file) => report.finish_in(file),
            None => report.finish(),
        })
    }

    /// The sites that are named, or all of the configuration. Without one there are still those
    /// that are recorded.
    fn configured(&self, context: &Context) -> Result<Vec<Site>> {
        match Selection::named_or_all(&self.sites).sites(context) {
            Err(error) if self.sites.is_empty() && is_without_configuration(context, &error) => {
                let directory = context.config.join("sites");
                context.out.warn(format_args!(
                    "{} does not exist; only sites that are recorded are shown",
                    directory.display()
                ));
                Ok(vec![])
            }
            sites => sites,
        }
    }

    fn look(&self, context: &Context) -> Result<StatusReport> {
        let mut sites = vec![];
        for site in self.configured(context)? {
            sites.push(records::with_manifest(context, site));
        }
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
        let mut found = statuses(&pipeline, sites, recorded);
        if self.sites.is_empty() {
            found.retain(|status| !status.is_of_no_site()); // it was removed meanwhile
        }
        for status in &mut found {
            add_left_behind(context, status)?;
        }
        let served = served(context, &found)?;
        let inside = outdated(pipeline, &found, ProcessesIn::All);
        Ok(StatusReport {
            sites: found,
            served,
            inside,
            watch,
        })
    }
}

/// Whether the sites cannot be listed because there is no configuration, and some are recorded.
fn is_without_configuration(context: &Context, error: &Error) -> bool {
    let recorded = context.state.recorded_sites();
    error.errno() == Some(libc::ENOENT) && recorded.is_ok_and(|sites| !sites.is_empty())
}

/// Looks at the sites of the configuration, and at those that are only `recorded`.
fn statuses(
    pipeline: &Arc<Pipeline>,
    mut sites: Vec<Site>,
    recorded: Vec<Site>,
) -> Vec<SiteStatus> {
    sites.extend_from_slice(&recorded);
    let own = pipeline.clone();
    let look = move |site: &Site| -> Result<_, SiteError> {
        Ok(
            if recorded.contains(site) && !configuration::has_manifest(site) {
                SiteStatus::without_manifest(&own, site.clone())
            } else {
                SiteStatus::of(&own, site)
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
    found
}

/// Adds as a conflict that a site of the host is in mount namespaces of services, where it was
/// before its scope was changed.
fn add_left_behind(context: &Context, status: &mut SiteStatus) -> Result<()> {
    let name = &status.site.name;
    let (None, Some(plan)) = (&status.units, &mut status.plan) else {
        return Ok(());
    };
    for ServicePlace { unit, .. } in left_behind::places(context, name)? {
        plan.conflicts.push(Error::failed(format!(
            "{name}: it is still mounted in {unit}, where it does not belong any more; `mountjail \
             up {name}` unmounts it there, or says why not"
        )));
    }
    Ok(())
}

/// The sites that are recorded and not among those of the configuration.
fn recorded_only(context: &Context, sites: &[Site]) -> Result<Vec<Site>> {
    let known: HashSet<_> = sites.iter().map(|site| &site.name).collect();
    let mut recorded = vec![];
    for name in context.state.recorded_sites()? {
        if !known.contains(&name) {
            recorded.push(select::site_set_up(context, name.as_str())?);
        }
    }
    Ok(recorded)
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
    /// All sites, in their order.
    fn shown(&self, context: &Context) -> Vec<Shown> {
        let mut sites = vec![];
        for (status, inside) in self.sites.iter().zip(&self.inside) {
            sites.push(match self.served_of(status) {
                Some(served) => served::shown(context, status, served),
                None => Shown::of(status, inside),
            });
        }
        sites
    }

    fn served_of(&self, status: &SiteStatus) -> Option<&Served> {
        self.served.get(&status.site.name)
    }

    /// Reports why not everything could be looked at.
    fn report_errors(&self, context: &Context) {
        for status in &self.sites {
            let places = self
                .served_of(status)
                .into_iter()
                .flat_map(served::failures);
            for failed in status.failed.iter().chain(places) {
                failed.report(context.out, &status.site);
            }
        }
    }

    /// A text per site.
    fn texts(&self, context: &Context, detail: StatusDetail) -> Vec<String> {
        let mut texts = vec![];
        for (status, inside) in self.sites.iter().zip(&self.inside) {
            texts.push(match self.served_of(status) {
                Some(served) => served::text(context, status, served, detail),
                None => text(status, inside, detail),
            });
        }
        texts
    }

    fn metrics(&self, context: &Context, shown: &[Shown]) -> Result<String> {
        let boot = observe::boot_id()?;
        let mut histories = vec![];
        for status in &self.sites {
            let read = context.state.read(&status.site.name, &boot).ok();
            let record = read.and_then(|read| read.record);
            histories.push(record.and_then(|record| record.history));
        }
        let sites = self.health(shown);
        Ok(prometheus::metrics(
            &sites,
            &histories,
            self.watch.as_ref(),
            now(),
        ))
    }

    fn health(&self, shown: &[Shown]) -> Vec<SiteHealth<'_>> {
        let mut sites = vec![];
        for ((status, inside), shown) in self.sites.iter().zip(&self.inside).zip(shown) {
            let processes = inside.outdated.iter().map(|group| group.processes.len());
            let served = self.served_of(status).and_then(Served::worst_plan);
            sites.push(SiteHealth {
                name: &status.site.name,
                plan: served.or(status.plan.as_ref()),
                state: shown.state,
                is_right: shown.code == 0,
                outdated: processes.sum(),
            });
        }
        sites
    }

    /// Prints the line of a plugin; returns its exit code.
    fn check(&self, context: &Context, shown: &[Shown]) -> u8 {
        let mut lines = self.texts(context, StatusDetail::Sites);
        for (line, shown) in lines.iter_mut().zip(shown) {
            if line.is_empty()
                && let Some(error) = shown.errors.first()
            {
                line.clone_from(error);
            }
        }
        // Such as a file that is not a site.
        let is_whole = context.out.take_aside() == 0;
        let check = nagios::check(&self.health(shown), &lines, is_whole);
        let code = check.code();
        context.out.print_and(check.line, code)
    }
}

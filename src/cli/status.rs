//! `mountjail status`: every mount and its state.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{DIFFERENT, complete};
use crate::Result;
use crate::observe::{self, BootId, Inside, Table, WatchState, now};
use crate::patience::{self, Stop};
use crate::plan::{Plan, SiteState};
use crate::render::text::Detail;
use crate::render::{self, prometheus};
use crate::site::context::Context;
use crate::site::out::worst;
use crate::site::status::{self, SiteStatus};
use crate::site::{Site, parallel, select};

/// Show every mount and its state; exit code 3 if any is not ok
///
/// The states: ok, missing, stale (the source is another file now), wrong-source, wrong-options,
/// shadowed (something else on top), absent (the source is gone, and the manifest names it), orphan
/// (ours, no longer in the manifest), foreign (not ours: never touched). Why else a site is drifted
/// is in lines that begin with `because`. Of several sites only what is not ok is shown: a line
/// each, and mounts; with -v all, with -q nothing of sites that are up. Processes inside that still
/// use a file which was replaced, such as a library after an upgrade, are named in a note.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mountjail status site1\n  mountjail status --json | jq '.sites[].state'\n  mountjail status \
                  --format prometheus"
)]
pub(super) struct Status {
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE", add = complete::site())]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// How to print; prometheus: metrics for the textfile collector of Prometheus
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

/// What was seen.
struct StatusReport {
    sites: Vec<SiteStatus>,
    /// Of each site, who uses old files.
    inside: Vec<Inside>,
    /// What a running watcher says of these sites.
    watch: Option<WatchState>,
}

impl Status {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let boot = observe::boot_id()?;
        let seen = self.look(context, &boot)?;
        let format = if self.json {
            StatusFormat::Json
        } else {
            self.format
        };
        let (failed, errors): (Vec<_>, Vec<_>) = seen
            .sites
            .iter()
            .map(|shown| report(context, shown))
            .unzip();
        let different = |plan: &Plan| plan.site_state() != SiteState::Up;
        let plans = seen.sites.iter().filter_map(|shown| shown.plan.as_ref());
        let states = plans.map(|plan| if different(plan) { DIFFERENT } else { 0 });
        let code = worst(states.chain(failed));
        let text = match format {
            StatusFormat::Text => seen.text(Detail::of(context, seen.sites.len())),
            StatusFormat::Json => seen.json(&errors),
            StatusFormat::Prometheus => seen.metrics(context, &boot),
        };
        Ok(context.out.print_and(text, code))
    }

    fn look(&self, context: &Context, boot: &BootId) -> Result<StatusReport> {
        let everything = self.all || self.sites.is_empty();
        let (mut sites, recorded) = if everything {
            let sites = select::every(context)?;
            let recorded = context.state.recorded_sites();
            let without_manifest = |name: &_| sites.iter().all(|site: &Site| site.name != *name);
            let recorded: Vec<_> = recorded.into_iter().filter(without_manifest).collect();
            (sites, recorded)
        } else {
            (select::named(context, &self.sites)?, vec![])
        };
        let mut watch = WatchState::read(&context.state);
        if let Some(watch) = watch.as_mut().filter(|_| !everything) {
            watch
                .failures
                .retain(|failed, _| sites.iter().any(|site| site.name == *failed));
        }
        let context = context.afresh();
        let (resolver, table) = (context.resolver()?, Table::read()?);
        let (table, stop) = (Arc::new(table), Arc::default());
        let recorded = recorded
            .iter()
            .map(|name| select::one(&context, name.as_str()));
        let recorded = recorded.collect::<Result<Vec<_>>>()?;
        let own = (
            context.again(),
            resolver,
            boot.clone(),
            table.clone(),
            recorded.clone(),
        );
        let look = move |site: &Site, _: &Stop| {
            let (context, resolver, boot, table, recorded) = &own;
            Ok(if recorded.contains(site) {
                status::without_manifest(site.clone(), context, boot, table)
            } else {
                status::site(context, resolver, site.clone(), boot, table)
            })
        };
        sites.extend(recorded);
        let results = parallel::each(&context, &sites, parallel::processors(), &stop, look);
        let shown = |(site, result): (Site, Result<_, _>)| {
            result.unwrap_or_else(|failed| SiteStatus::lost(site, failed))
        };
        let mut shown: Vec<_> = sites.into_iter().zip(results).map(shown).collect();
        // Of some there is only a record of a boot that is over.
        shown.retain(|shown| shown.plan.is_some() || !shown.failed.is_empty());
        let (nths, roots): (Vec<_>, Vec<_>) = shown
            .iter()
            .enumerate()
            .filter_map(|(nth, shown)| Some((nth, shown.plan.as_ref()?.root.clone())))
            .unzip();
        let mut inside = vec![Inside::default(); shown.len()];
        // Files of processes may lie anywhere.
        let look =
            move |roots: &Vec<_>| observe::outdated(&roots.iter().collect::<Vec<_>>(), &table);
        let found = patience::each_within(vec![roots], context.limit, look)
            .pop()
            .flatten();
        for (nth, found) in nths.into_iter().zip(found.unwrap_or_default()) {
            inside[nth] = found;
        }
        Ok(StatusReport {
            sites: shown,
            inside,
            watch,
        })
    }
}

/// Says what failed; gives the exit code and the messages.
fn report(context: &Context, shown: &SiteStatus) -> (u8, Vec<String>) {
    let reports = shown
        .failed
        .iter()
        .map(|failed| failed.report(context.out, &shown.site));
    let (codes, errors): (Vec<_>, Vec<_>) = reports.unzip();
    (worst(codes), errors.concat())
}

impl Detail {
    /// How much to show of each of so many sites.
    fn of(context: &Context, sites: usize) -> Self {
        match () {
            () if context.out.is_quiet() => Self::Wrong,
            () if sites > 1 && !context.out.is_verbose() => Self::Sites,
            () => Self::Mounts,
        }
    }
}

impl StatusReport {
    fn text(&self, detail: Detail) -> String {
        let site = |(shown, inside): (&SiteStatus, &Inside)| {
            let Some(plan) = &shown.plan else {
                return shown
                    .is_silent()
                    .then(|| format!("{}: not answering\n", shown.site.name));
            };
            Some(render::text::status(plan, detail) + &render::text::outdated(inside))
        };
        let watch = self
            .watch
            .iter()
            .map(|watch| render::text::watch(watch, now()));
        self.sites
            .iter()
            .zip(&self.inside)
            .filter_map(site)
            .chain(watch)
            .collect()
    }

    /// `errors` are those of each site.
    fn json(&self, errors: &[Vec<String>]) -> String {
        let site = |((shown, inside), errors): ((&SiteStatus, &Inside), &Vec<String>)| {
            let plan = shown
                .plan
                .as_ref()
                .map(|plan| render::json::status(plan, inside));
            let mut site = plan.unwrap_or_else(|| json!({ "site": shown.site.name }));
            if shown.is_silent() {
                site["state"] = json!("not answering");
            }
            if !errors.is_empty() {
                site["errors"] = json!(errors);
            }
            site
        };
        let sites: Vec<_> = self
            .sites
            .iter()
            .zip(&self.inside)
            .zip(errors)
            .map(site)
            .collect();
        format!("{:#}\n", json!({ "sites": sites, "watch": self.watch }))
    }

    fn metrics(&self, context: &Context, boot: &BootId) -> String {
        let history = |name| context.state.read(name, boot).ok()?.record?.history;
        let processes =
            |inside: &Inside| inside.outdated.iter().map(|one| one.processes.len()).sum();
        let sites = self
            .sites
            .iter()
            .zip(&self.inside)
            .map(|(shown, inside)| prometheus::Site {
                name: &shown.site.name,
                plan: shown.plan.as_ref(),
                history: history(&shown.site.name),
                outdated: processes(inside),
            });
        prometheus::metrics(&sites.collect::<Vec<_>>(), self.watch.as_ref(), now())
    }
}

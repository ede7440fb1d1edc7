//! `mountjail status`: every mount and its state.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::DIFFERENT;
use super::complete;
use super::context::Context;
use super::out::worst;
use super::sites::{self, Site};
use super::work::{Failed, planned, readable};
use crate::Result;
use crate::observe::{self, BootId, Outdated, Table, WatchState, now};
use crate::plan::{self, Plan};
use crate::render::{self, prometheus};
use crate::resolve::Desired;

/// Show every mount and its state; exit code 3 if any is not ok
///
/// The states: ok, missing, stale (the source is another file now), wrong-source, wrong-options, shadowed
/// (something else on top), orphan (ours, no longer in the manifest), foreign (not ours: never touched).
/// Processes inside that still use a file which was replaced, such as a library after an upgrade, are named in a note.
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
    format: Format,
    /// Print the states as JSON, as --format json does
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Prometheus,
}

/// What was seen.
struct Seen {
    plans: Vec<Plan>,
    /// Of each plan, who uses old files.
    outdated: Vec<Vec<Outdated>>,
    failures: Vec<(Site, Failed)>,
    /// What a running watcher says of these sites.
    watch: Option<WatchState>,
}

impl Status {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        let boot = observe::boot_id()?;
        let seen = self.look(context, &boot)?;
        let format = if self.json { Format::Json } else { self.format };
        let (failed, errors): (Vec<_>, Vec<_>) =
            seen.failures.iter().map(|(site, failed)| failed.report(context, site)).unzip();
        let different = |plan: &Plan| render::site_state(plan) != render::SiteState::Up;
        let states = seen.plans.iter().map(|plan| if different(plan) { DIFFERENT } else { 0 });
        let code = worst(states.chain(failed));
        let text = match format {
            Format::Text => seen.text(),
            Format::Json => seen.json(&errors),
            Format::Prometheus => seen.metrics(context, &boot),
        };
        Ok(context.out.print_and(text, code))
    }

    fn look(&self, context: &Context<'_>, boot: &BootId) -> Result<Seen> {
        let everything = self.all || self.sites.is_empty();
        let (sites, recorded) = if everything {
            let sites = sites::every(context)?;
            let recorded = context.state.recorded_sites();
            let without_manifest = |name: &_| sites.iter().all(|site: &Site| site.name != *name);
            let recorded: Vec<_> = recorded.into_iter().filter(without_manifest).collect();
            (sites, recorded)
        } else {
            (sites::named(context, &self.sites)?, vec![])
        };
        let mut watch = WatchState::read(&context.state);
        if let Some(watch) = watch.as_mut().filter(|_| !everything) {
            watch.failures.retain(|failed, _| sites.iter().any(|site| site.name == *failed));
        }
        let (resolver, table) = (context.resolver()?, Table::read()?);
        let (mut plans, mut failures) = (vec![], vec![]);
        for site in sites {
            match planned(context, &resolver, &site, boot, &table) {
                Ok((_, plan)) => plans.push(plan),
                Err(failed) => failures.push((site, failed)),
            }
        }
        for name in recorded {
            let records = readable(context, &name, boot)?;
            if let Some(root) = records.root().cloned() {
                let nothing = Desired::nothing(name, root);
                let observed = observe::observe(&nothing, records, Some(&table))?;
                plans.push(plan::up(&nothing, &observed));
            }
        }
        let roots: Vec<_> = plans.iter().map(|plan| &plan.root).collect();
        let outdated = observe::outdated(&roots, &table);
        Ok(Seen { plans, outdated, failures, watch })
    }
}

impl Seen {
    fn text(&self) -> String {
        let site = |(plan, outdated): (&Plan, &Vec<Outdated>)| {
            let notes: String = outdated.iter().map(render::text::outdated).collect();
            render::text::status(plan) + &notes
        };
        let watch = self.watch.iter().map(|watch| render::text::watch(watch, now()));
        self.plans.iter().zip(&self.outdated).map(site).chain(watch).collect()
    }

    /// `errors` are those of the failures.
    fn json(&self, errors: &[Vec<String>]) -> String {
        let sites = self.plans.iter().zip(&self.outdated);
        let mut results: Vec<_> =
            sites.map(|(plan, outdated)| render::json::status(plan, outdated)).collect();
        let failures = self.failures.iter().zip(errors);
        results.extend(failures.map(|((site, _), errors)| json!({ "site": site.name, "errors": errors })));
        format!("{:#}\n", json!({ "sites": results, "watch": self.watch }))
    }

    fn metrics(&self, context: &Context<'_>, boot: &BootId) -> String {
        let history = |name| context.state.read(name, boot).ok()?.record?.history;
        let processes = |outdated: &[Outdated]| outdated.iter().map(|one| one.processes.len()).sum();
        let seen = self.plans.iter().zip(&self.outdated).map(|(plan, outdated)| prometheus::Site {
            name: &plan.site,
            plan: Some(plan),
            history: history(&plan.site),
            outdated: processes(outdated),
        });
        let failed = self.failures.iter().map(|(site, _)| prometheus::Site {
            name: &site.name,
            plan: None,
            history: history(&site.name),
            outdated: 0,
        });
        prometheus::metrics(&seen.chain(failed).collect::<Vec<_>>(), self.watch.as_ref(), now())
    }
}

//! `mountjail status`: every mount and its state.

use clap::Args;
use serde_json::json;

use super::DIFFERENT;
use super::context::Context;
use super::out::worst;
use super::sites::{self, Site};
use super::work::{now, planned};
use crate::manifest::SiteName;
use crate::observe::{self, Table, WatchState};
use crate::plan::Plan;
use crate::render;
use crate::resolve::Desired;

/// Show every mount and its state; exit code 3 if any is not ok
///
/// The states: ok, missing, stale (the source is another file now), wrong-source, wrong-options, shadowed
/// (something else on top), orphan (ours, no longer in the manifest), foreign (not ours: never touched).
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail status site1\n  mountjail status --json | jq '.sites[].state'")]
pub(super) struct Status {
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE")]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// Print the states as JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
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
        let (resolver, boot, table) = (context.resolver()?, observe::boot_id()?, Table::read()?);
        let (mut codes, mut results, mut text) = (vec![], vec![], String::new());
        let mut add = |plan: &Plan| {
            let state = render::site_state(plan);
            codes.push(if state == render::SiteState::Up { 0 } else { DIFFERENT });
            text.push_str(&render::text::status(plan));
            results.push(render::json::status(plan));
        };
        let mut failures = vec![];
        for site in &sites {
            match planned(context, &resolver, site, &boot, &table) {
                Ok((_, plan)) => add(&plan),
                Err(failed) => failures.push((site, failed)),
            }
        }
        for name in recorded {
            let records = context.state.read(&name, &boot);
            if let Some(root) = records.root().cloned() {
                let nothing = Desired::nothing(name, root);
                let observed = observe::observe(&nothing, records, Some(&table))?;
                add(&crate::plan::up(&nothing, &observed));
            }
        }
        for (site, failed) in failures {
            let (code, errors) = failed.report(context, site);
            codes.push(code);
            results.push(json!({ "site": site.name, "errors": errors }));
        }
        let watch = WatchState::read(&context.state);
        if self.json {
            text = format!("{:#}\n", json!({ "sites": results, "watch": watch }));
        } else if let Some(watch) = watch {
            let shown = |site: &&SiteName| everything || sites.iter().any(|named| named.name == **site);
            let failures = watch.failures.iter().filter(|(site, _)| shown(site));
            text.extend(failures.map(|(site, failure)| render::text::watch_failure(site, failure, now())));
        }
        Ok(context.out.print_and(&text, worst(codes)))
    }
}

//! `mountjail check`: validate and resolve, touching nothing.

use std::sync::Arc;

use clap::Args;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::complete;
use super::report::Report;
use crate::base::text::plural;
use crate::observe::{self, BootId, Table};
use crate::patience::Stop;
use crate::render;
use crate::resolve::{Desired, Note, Resolver};
use crate::site::context::Context;
use crate::site::pipeline::{desired, notes, observe_and_plan};
use crate::site::{Selection, Site, SiteError, parallel};

/// Validate manifests, resolve them on this host and see what is in the way, touching nothing
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail check\n  mountjail check ./site1.yaml")]
pub(super) struct Check {
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE|FILE", add = complete::site())]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = Selection::named_or_all(&self.sites).sites(context)?;
        let (resolver, boot, table) = (context.resolver()?, observe::boot_id()?, Table::read()?);
        let look = Look {
            context: context.again(),
            resolver,
            boot,
            table,
        };
        let at = move |site: &Site, _: &Stop| look.at(site);
        let found = parallel::each(context, &sites, parallel::processors(), &Arc::default(), at);

        let mut report = Report::new(context, self.json);
        for (site, found) in sites.iter().zip(found) {
            match found {
                Ok(desired) => {
                    notes(context.out, &desired);
                    render::text::line(report.text(), format_args!("{}", summary(&desired)));
                    report.site(0, as_json(&desired));
                }
                Err(failed) => report.failed(site, &failed, json!({ "ok": false })),
            }
        }
        Ok(report.finish())
    }
}

struct Look {
    context: Context,
    resolver: Resolver,
    boot: BootId,
    table: Table,
}

impl Look {
    /// What the site needs. Errors: what keeps it from coming up, as far as can be seen without
    /// doing it. What is in the root, only root can be sure to see.
    fn at(&self, site: &Site) -> Result<Desired, SiteError> {
        let desired = desired(&self.context, &self.resolver, site)?;
        match observe_and_plan(&self.context, &desired, &self.boot, Some(&self.table)) {
            Ok((_, plan)) if plan.conflicts.is_empty() => Ok(desired),
            Ok((_, plan)) => Err(SiteError::Errors(plan.conflicts)),
            Err(_) if !geteuid().is_root() => Ok(desired),
            Err(error) => Err(error.into()),
        }
    }
}

fn summary(desired: &Desired) -> String {
    let (mounts, links) = (desired.mounts.len(), desired.links.len());
    let counts = format!("{} and {}", plural(mounts, "mount"), plural(links, "link"));
    format!("{}: ok, {counts} in {}", desired.site, desired.root)
}

fn as_json(desired: &Desired) -> Value {
    let note = |note: &Note| json!({ "text": note.text, "line": note.origin.to_string() });
    json!({
        "site": desired.site, "ok": true, "root": desired.root, "mounts": desired.mounts.len(),
        "links": desired.links.len(), "notes": desired.notes.iter().map(note).collect::<Vec<_>>(),
        "warnings": desired.warnings,
    })
}

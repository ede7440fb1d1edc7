//! `mountjail plan`: the steps that `up` would take.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::out::worst;
use super::sites::{self, Site};
use super::work::{notes, planned};
use super::{DIFFERENT, Which, parallel};
use crate::observe::{self, Table};
use crate::patience::Stop;
use crate::render;

/// Show the steps that `up` would take; exit code 3 if there are any
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail plan site1")]
pub(super) struct Plan {
    #[command(flatten)]
    which: Which,
    /// Print the steps as JSON
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// What `up --dry-run` means.
    pub(super) fn of(which: &Which, json: bool) -> Self {
        Self {
            which: Which {
                sites: which.sites.clone(),
                all: which.all,
            },
            json,
        }
    }

    pub(super) fn run(&self, context: &Context<'static>) -> anyhow::Result<u8> {
        let sites = sites::which(context, &self.which)?;
        let (resolver, boot) = (context.resolver()?, observe::boot_id()?);
        let table = Table::read()?;
        let (own, stop) = (context.again(), Arc::default());
        let look = move |site: &Site, _: &Stop| planned(&own, &resolver, site, &boot, &table);
        let plans = parallel::each(context, &sites, parallel::processors(), &stop, look);
        let (mut codes, mut results, mut text) = (vec![], vec![], String::new());
        for (site, planned) in sites.iter().zip(plans) {
            match planned {
                Ok((desired, plan)) => {
                    notes(context, &desired);
                    for conflict in &plan.conflicts {
                        context.out.error(conflict);
                    }
                    codes.push(match (plan.conflicts.is_empty(), plan.steps.is_empty()) {
                        (false, _) => 1,
                        (true, false) => DIFFERENT,
                        (true, true) => 0,
                    });
                    text.push_str(&render::text::plan(&plan));
                    results.push(render::json::plan(&plan));
                }
                Err(failed) => {
                    let (code, errors) = failed.report(context, site);
                    codes.push(code);
                    results.push(json!({ "site": site.name, "errors": errors }));
                }
            }
        }
        if self.json {
            text = format!("{:#}\n", json!({ "sites": results }));
        }
        Ok(context.out.print_and(&text, worst(codes)))
    }
}

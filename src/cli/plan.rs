//! `mountjail plan`: the steps that `up` would take.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::report::Report;
use super::{DIFFERENT, Which};
use crate::observe::{self, Table};
use crate::patience::Stop;
use crate::render;
use crate::site::context::Context;
use crate::site::pipeline::{notes, planned};
use crate::site::{Site, parallel};

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

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = self.which.selection().sites(context)?;
        let (resolver, boot) = (context.resolver()?, observe::boot_id()?);
        let table = Table::read()?;
        let (own, stop) = (context.again(), Arc::default());
        let look = move |site: &Site, _: &Stop| planned(&own, &resolver, site, &boot, &table);
        let plans = parallel::each(context, &sites, parallel::processors(), &stop, look);

        let mut report = Report::new(context, self.json);
        for (site, planned) in sites.iter().zip(plans) {
            let (desired, plan) = match planned {
                Ok(planned) => planned,
                Err(failed) => {
                    report.failed(site, &failed, json!({}));
                    continue;
                }
            };
            notes(context.out, &desired);
            for conflict in &plan.conflicts {
                context.out.error(conflict);
            }
            report.text().push_str(&render::text::plan(&plan));
            let code = match (plan.conflicts.is_empty(), plan.steps.is_empty()) {
                (false, _) => 1,
                (true, false) => DIFFERENT,
                (true, true) => 0,
            };
            report.site(code, render::json::plan(&plan));
        }
        Ok(report.finish())
    }
}

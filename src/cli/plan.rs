//! `mountjail plan`: the steps that `up` would take.

use clap::Args;
use serde_json::json;

use super::report::Report;
use super::{DIFFERENT, Which};
use crate::render;
use crate::site::context::Context;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::{Site, parallel};

/// Show the steps that `up` would take; exit code 3 if there are any
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail plan site1")]
pub(super) struct PlanArgs {
    #[command(flatten)]
    which: Which,
    /// Print the steps as JSON
    #[arg(long)]
    json: bool,
}

impl PlanArgs {
    /// What `up --dry-run` does.
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
        let pipeline = Pipeline::new(context.clone(), MountLookup::WholeTable)?;
        let plans = parallel::look(context, &sites, move |site: &Site| pipeline.plan(site));

        let mut report = Report::new(context, self.json);
        for (site, planned) in sites.iter().zip(plans) {
            let (desired, plan) = match planned {
                Ok(planned) => (planned.desired, planned.plan),
                Err(failed) => {
                    report.failed(site, &failed, json!({}));
                    continue;
                }
            };
            context.out.notes(&desired);
            for conflict in &plan.conflicts {
                context.out.error(conflict);
            }
            report.text(render::text::plan(&plan));
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

//! `mountjail plan`: the steps that `up` would take.

use clap::Args;
use serde_json::json;

use super::args::{OnlyScope, Which};
use super::report::{DIFFERENT, Report};
use crate::manifest::Scope;
use crate::site::context::Context;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::services::{self, Namespaces, ServedSite, ServicePlace};
use crate::site::{Site, parallel};
use crate::{plan, render};

/// Show the steps that `up` would take; exit code 3 if there are any
///
/// Those of a site with `scope: services` are shown for each of its services that runs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail plan site1")]
pub(super) struct PlanArgs {
    #[command(flatten)]
    which: Which,
    /// The steps of `up --renew`
    #[arg(long)]
    renew: bool,
    /// Print the steps as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl PlanArgs {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = self.which.selection().sites(context)?;
        let which = WhichSteps {
            only: None,
            renew: self.renew,
        };
        show(context, sites, which, self.json)
    }
}

/// Which steps are shown.
#[derive(Clone, Copy)]
pub(super) struct WhichSteps {
    /// The sites that count.
    pub(super) only: Option<OnlyScope>,
    /// Those of `up --renew`.
    pub(super) renew: bool,
}

impl WhichSteps {
    fn pipeline(self, context: &Context) -> crate::Result<Pipeline> {
        let mut pipeline = Pipeline::new(context.clone(), MountLookup::WholeTable)?;
        if self.renew {
            pipeline.renew();
        }
        Ok(pipeline)
    }
}

/// Prints the plans of `sites`; returns the exit code.
pub(super) fn show(
    context: &Context,
    sites: Vec<Site>,
    which: WhichSteps,
    json: bool,
) -> anyhow::Result<u8> {
    let pipeline = which.pipeline(context)?;
    let plans = parallel::look(context, &sites, move |site: &Site| pipeline.plan(site));

    let mut report = Report::new(context, json);
    let mut served = vec![];
    for (site, planned) in sites.into_iter().zip(plans) {
        match planned {
            Ok(planned) if planned.manifest.scope == Scope::Services => {
                if which.only != Some(OnlyScope::Host) {
                    context.out.notes(&planned.desired);
                    served.push((site, planned.manifest.services));
                }
            }
            Ok(planned) => {
                context.out.notes(&planned.desired);
                add(&mut report, context, &planned.plan, None);
            }
            Err(failed) => report.failed(&site, &failed, json!({})),
        }
    }
    if !served.is_empty() {
        add_served(&mut report, context, &served, which)?;
    }
    Ok(report.finish())
}

/// The plans in the mount namespaces of services.
fn add_served(
    report: &mut Report,
    context: &Context,
    served: &[ServedSite],
    which: WhichSteps,
) -> crate::Result<()> {
    let look = |own: Context, here: &[Site]| {
        let pipeline = which.pipeline(&own)?;
        Ok(parallel::look(&own, here, move |site: &Site| {
            pipeline.plan(site)
        }))
    };
    let namespaces = Namespaces::find(context)?;
    let mut places = namespaces.each(context, served, look);
    for (site, units) in served {
        let of_site = places.remove(&site.name).unwrap_or_default();
        if of_site.is_empty() {
            let out = context.out.site(&site.name);
            out.info(services::comes_with(units));
            report.site(0, json!({ "site": site.name, "scope": "services" }));
        }
        for (place, planned) in of_site {
            match planned {
                Ok(planned) => add(report, context, &planned.plan, Some(&place)),
                Err(failed) => report.failed(site, &failed, json!(place)),
            }
        }
    }
    Ok(())
}

/// Adds a plan on the host, or for the service at `place`.
fn add(report: &mut Report, context: &Context, plan: &plan::Plan, place: Option<&ServicePlace>) {
    context.out.errors(&plan.conflicts);
    let unit = place.map(|place| place.unit.as_str());
    report.styled(render::text::plan(plan, unit));
    let code = match (plan.conflicts.is_empty(), plan.steps.is_empty()) {
        (false, _) => 1,
        (true, false) => DIFFERENT,
        (true, true) => 0,
    };
    let mut object = render::json::plan(plan);
    if let Some(place) = place {
        object["unit"] = json!(place.unit);
        object["pid"] = json!(place.pid);
    }
    report.site(code, object);
}

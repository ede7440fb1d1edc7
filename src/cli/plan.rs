//! `mountjail plan`: the steps that `up` would take.

use clap::Args;
use serde_json::json;

use super::args::{OnlyScope, Which};
use super::down::name_users;
use super::report::{DIFFERENT, Report};
use crate::manifest::Scope;
use crate::plan::Plan;
use crate::render;
use crate::site::context::Context;
use crate::site::left_behind::{self, Leaving};
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::services::{self, Namespaces, ServedSite, ServicePlace};
use crate::site::{Site, parallel};

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
            of_all: self.which.all,
            only: None,
            renew: self.renew,
        };
        show(context, sites, which, self.json)
    }
}

/// Which steps are shown.
#[derive(Clone, Copy)]
pub(super) struct WhichSteps {
    /// The sites are all of the configuration.
    pub(super) of_all: bool,
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

    let mut report = Report::new(context, json).of_all(which.of_all);
    let (mut served, mut on_host) = (vec![], vec![]);
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
                if planned.plan.conflicts.is_empty() {
                    on_host.push(site);
                }
                add(&mut report, context, planned.plan, None);
            }
            Err(failed) => report.failed(&site, &failed, json!({})),
        }
    }
    if !served.is_empty() {
        add_served(&mut report, context, &served, which)?;
    }
    if which.only != Some(OnlyScope::Host) {
        add_left_in_services(&mut report, context, &on_host)?;
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
            let object = json!({ "site": site.name, "scope": "services", "changed": false });
            report.site(0, object);
        }
        let (is_served, mut comes_up) = (!of_site.is_empty(), true);
        for (place, planned) in of_site {
            match planned {
                Ok(planned) => {
                    comes_up &= planned.plan.conflicts.is_empty();
                    add(report, context, planned.plan, Some(&place));
                }
                Err(failed) => {
                    comes_up = false;
                    report.failed(site, &failed, json!(place));
                }
            }
        }
        if comes_up {
            match left_behind::plan_on_host(context, site, is_served) {
                Ok(leaving) => add_leaving(report, context, site, leaving, None),
                Err(failed) => report.failed(site, &failed, json!({})),
            }
        }
    }
    Ok(())
}

/// The steps that take sites of the host out of the mount namespaces of services.
fn add_left_in_services(
    report: &mut Report,
    context: &Context,
    sites: &[Site],
) -> crate::Result<()> {
    let mut left = left_behind::plans_in_services(context, sites)?;
    for site in sites {
        for (place, leaving) in left.remove(&site.name).unwrap_or_default() {
            match leaving {
                Ok(leaving) => add_leaving(report, context, site, leaving, Some(&place)),
                Err(failed) => report.failed(site, &failed, json!(place)),
            }
        }
    }
    Ok(())
}

/// Adds how a site leaves the host, or the service at `place`, if anything is to be done.
fn add_leaving(
    report: &mut Report,
    context: &Context,
    site: &Site,
    leaving: Option<Leaving>,
    place: Option<&ServicePlace>,
) {
    match leaving {
        Some(Leaving::Steps(plan)) if plan.steps.is_empty() => {}
        Some(Leaving::Steps(plan)) => {
            let at = place.map_or("on the host".to_owned(), ServicePlace::to_string);
            add_at(report, context, &plan, place, Some(&at));
        }
        Some(Leaving::InUse(by)) => stays(context, site, place, &by),
        None => {}
    }
}

/// Reports that a site stays where it does not belong any more, because it is used there.
pub(super) fn stays(context: &Context, site: &Site, place: Option<&ServicePlace>, by: &[String]) {
    let at = place.map_or("on the host".to_owned(), |place| {
        format!("in {}", place.unit)
    });
    let out = context.out.site(&site.name);
    out.info(format_args!(
        "its mounts {at} stay as long as they are in use"
    ));
    name_users(&out, by, "");
}

/// Adds a plan on the host, or for the service at `place`.
fn add(report: &mut Report, context: &Context, mut plan: Plan, place: Option<&ServicePlace>) {
    if let Some(place) = place {
        place.locate_all(&plan.site, &mut plan.conflicts);
    }
    let at = place.map(ServicePlace::to_string);
    add_at(report, context, &plan, place, at.as_deref());
}

/// As [`add`]. `at`: the place in words.
fn add_at(
    report: &mut Report,
    context: &Context,
    plan: &Plan,
    place: Option<&ServicePlace>,
    at: Option<&str>,
) {
    context.out.errors_of(&plan.site, &plan.conflicts);
    if !context.out.is_quiet() {
        report.styled(render::text::plan(plan, at));
    }
    let code = match (plan.conflicts.is_empty(), plan.steps.is_empty()) {
        (false, _) => 1,
        (true, false) => DIFFERENT,
        (true, true) => 0,
    };
    let mut object = render::json::plan(plan);
    object["changed"] = json!(code == DIFFERENT);
    if let Some(place) = place {
        object["unit"] = json!(place.unit);
        object["pid"] = json!(place.pid);
    }
    report.site(code, object);
}

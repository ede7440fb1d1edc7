//! `mountjail check`: validate and resolve, without changing anything.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use nix::unistd::geteuid;
use serde_json::json;

use super::args::ImageRoot;
use super::complete;
use super::report::Report;
use crate::base::JailPath;
use crate::observe::Table;
use crate::plan::{Plan, Step};
use crate::resolve::Desired;
use crate::site::context::Context;
use crate::site::event::Event;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::{Selection, Site, SiteError, parallel};
use crate::{Error, adopt, observe, render};

/// Validate manifests and report whatever would keep `up` from working; change nothing
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mountjail check\n  mountjail check ./site1.yaml")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    image: ImageRoot,
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE|FILE", add = complete::site())]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl CheckArgs {
    /// The root of the image that it works on.
    pub(super) fn image(&self) -> Option<&Path> {
        self.image.root.as_deref()
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = Selection::named_or_all(&self.sites).sites(context)?;
        let pipeline = Pipeline::new(context.clone(), MountLookup::WholeTable)?;
        let found = parallel::look(context, &sites, move |site: &Site| check(&pipeline, site));

        let mut report = Report::new(context, self.json);
        if let Some(mistakes) = context.presets.mistakes_in_defaults() {
            let out = context.out.about(Event::Mistake, &[]);
            out.diagnostics(&"defaults.yaml", mistakes);
            report.code(2);
        }
        for (site, found) in sites.iter().zip(found) {
            match found {
                Ok(desired) => {
                    context.out.notes(&desired);
                    report.styled(render::text::checked(&desired));
                    report.site(0, render::json::checked(&desired));
                }
                Err(failed) => report.failed(site, &failed, json!({ "ok": false })),
            }
        }
        Ok(report.finish())
    }
}

/// What the site needs. Errors: what keeps it from coming up, as far as that can be seen without
/// doing it. Only root can be sure to see what is in the root.
fn check(pipeline: &Pipeline, site: &Site) -> Result<Desired, SiteError> {
    let mut desired = pipeline.desired(site)?;
    desired.warnings.extend(observe::users_outside(&desired));
    match pipeline.observe_and_plan(&desired) {
        Ok((_, plan)) if plan.conflicts.is_empty() => {
            let unwritable = unwritable(&desired, &plan, pipeline.table.as_ref());
            if !unwritable.is_empty() {
                return Err(SiteError::Errors(unwritable));
            }
            let warnings = [desired.warnings.clone(), adopt::leftovers(&desired)].concat();
            Ok(Desired {
                warnings,
                ..desired
            })
        }
        Ok((_, plan)) => Err(SiteError::Errors(plan.conflicts)),
        Err(_) if !geteuid().is_root() => Ok(desired),
        Err(error) => Err(error.into()),
    }
}

/// An error for each directory of the root in which the plan makes or removes something and cannot.
/// Paths in mounts of ours are left out: these may go first.
fn unwritable(desired: &Desired, plan: &Plan, table: Option<&Table>) -> Vec<Error> {
    let ours = plan.states.iter().filter(|state| state.source.is_some());
    let ours: BTreeSet<_> = ours.map(|state| &state.target).collect();
    let is_in_root = |path: &&JailPath| {
        let above = path.directories_above();
        !above.iter().any(|above| ours.contains(above))
    };
    let steps = plan.steps.iter().filter(|step| !step.changes_mounts());
    let paths = steps.filter_map(Step::path).filter(is_in_root);
    let errors = observe::unwritable(&desired.root, paths, table).into_iter();
    errors.map(|error| error.context(&desired.site)).collect()
}

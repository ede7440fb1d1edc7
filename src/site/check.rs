//! Obstacles that would keep a site from coming up, as far as they can be seen without doing it.

use std::collections::BTreeSet;

use nix::unistd::geteuid;

use super::pipeline::Pipeline;
use super::{Site, SiteError};
use crate::base::JailPath;
use crate::observe::{self, Table};
use crate::plan::{Plan, Step};
use crate::resolve::Desired;
use crate::{Error, adopt};

/// The mounts of the site. Errors: obstacles that keep it from coming up, as far as they can be
/// seen without doing it. Only root can be sure to see what is in the root.
pub(crate) fn check(pipeline: &Pipeline, site: &Site) -> Result<Desired, SiteError> {
    let mut desired = pipeline.desired(site)?;
    desired.warnings.extend(observe::users_outside(&desired));
    match pipeline.observe_and_plan(&desired) {
        Ok((_, plan)) if plan.conflicts.is_empty() => {
            let unwritable = unwritable(&desired, &plan, pipeline.table.as_ref());
            if !unwritable.is_empty() {
                return Err(SiteError::Errors(unwritable));
            }
            let leftovers = adopt::leftovers(&desired);
            desired.warnings.extend(leftovers);
            Ok(desired)
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

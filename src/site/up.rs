//! One site brought to what its manifest asks for: what `up` does once, and `watch` again and
//! again.

use super::SiteError;
use super::context::{Context, table};
use super::pipeline::{lock, observe_and_plan, resolved};
use super::{Site, select};
use crate::Result;
use crate::base::JailPath;
use crate::base::text::plural;
use crate::engine::{Engine, Outcome};
use crate::observe::{BootId, Table};
use crate::patience::Stop;
use crate::plan::{SiteState, Step};
use crate::resolve::{Desired, Resolver, create_root};

/// What all sites of one run share.
pub(crate) struct BringUp {
    pub context: Context,
    pub engine: Engine,
    pub resolver: Resolver,
    pub boot: BootId,
    /// The whole mount table, as it was before the first site.
    pub table: Option<Table>,
    /// Sites that are down stay so.
    pub leave_down: bool,
}

/// What became of one site.
pub(crate) struct Done {
    pub desired: Desired,
    /// The units that run inside.
    pub services: Vec<String>,
    pub outcome: Outcome,
    /// The mounts that were made, replaced and taken away.
    pub changed: Vec<Changed>,
}

impl Done {
    /// What was done, in one line.
    pub(crate) fn summary(&self) -> String {
        let Outcome {
            attached,
            swapped,
            detached,
            ..
        } = self.outcome;
        let total = plural(self.desired.mounts.len(), "mount");
        let parts = [
            (attached, "attached"),
            (swapped, "swapped"),
            (detached, "detached"),
        ];
        let parts: Vec<_> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if parts.is_empty() {
            return format!("in sync, {total}; nothing to do");
        }
        format!("up, {total}: {}", parts.join(", "))
    }
}

/// What was done to one mount, in a word, and where it is.
pub(crate) type Changed = (&'static str, JailPath);

impl BringUp {
    /// Brings the site up. `create`: makes a missing root. `None`: it is down, and was left alone.
    pub(crate) fn site(
        &self,
        site: &Site,
        create: bool,
        stop: &Stop,
    ) -> Result<Option<Done>, SiteError> {
        let manifest = select::load(&self.context, site).map_err(SiteError::Manifest)?;
        let _lock = lock(&self.context, &self.engine, site)?;
        if create && create_root(&manifest.root).map_err(|error| error.context(&site.name))? {
            self.context.out.info(format_args!(
                "{}: made the root {}",
                site.name, manifest.root
            ));
        }
        match self.resolver.resolve(&manifest, self.context.roots()) {
            Err(_) if self.leave_down && self.was_never_up(site)? => Ok(None),
            Err(errors) => Err(SiteError::Errors(errors)),
            Ok(desired) => {
                let anew =
                    |_| resolved(&self.context, &self.context.afresh().resolver()?, &manifest);
                self.make_so(desired, manifest.services.clone(), stop, anew)
            }
        }
    }

    /// In this boot, and by `up`.
    fn was_never_up(&self, site: &Site) -> Result<bool> {
        let records = self.context.state.read(&site.name, &self.boot);
        records
            .map(|records| records.record.is_none())
            .map_err(|error| error.context(&site.name))
    }

    /// Makes the site, whose lock is held, as `desired`. `None`: it is down, and was left alone.
    ///
    /// What fails while something was changed is tried once more, with a new look at it: somebody
    /// may have mounted after the table was read, before the lock was taken; or the failure says so
    /// itself, and then `anew` tells what is desired now.
    pub(crate) fn make_so(
        &self,
        mut desired: Desired,
        services: Vec<String>,
        stop: &Stop,
        anew: impl FnOnce(Desired) -> Result<Desired, SiteError>,
    ) -> Result<Option<Done>, SiteError> {
        let applied = match self.apply(&desired, self.table.as_ref(), stop) {
            Err(failed) if !stop.is_set() && (failed.is_overtaken() || self.table.is_some()) => {
                self.context.out.detail(format_args!(
                    "{}: tried once more: something changed after it was looked at",
                    desired.site
                ));
                if failed.is_overtaken() {
                    desired = anew(desired)?;
                }
                self.apply(&desired, table(false)?.as_ref(), stop)
            }
            result => result,
        }?;
        Ok(applied.map(|(outcome, changed)| Done {
            desired,
            services,
            outcome,
            changed,
        }))
    }

    /// Observes, plans and carries out, again as long as the plan says that there will be more to
    /// see.
    fn apply(
        &self,
        desired: &Desired,
        table: Option<&Table>,
        stop: &Stop,
    ) -> Result<Option<(Outcome, Vec<Changed>)>, SiteError> {
        let log = |line: std::fmt::Arguments<'_>| self.context.out.detail(line);
        let (observed, plan) = observe_and_plan(&self.context, desired, &self.boot, table)?;
        // One that is recorded with no mounts is up: all that it needs was absent.
        let is_up = observed
            .record
            .as_ref()
            .is_some_and(|record| record.mounts.is_empty());
        if self.leave_down && !is_up && plan.site_state() == SiteState::Down {
            return Ok(None);
        }
        if !plan.conflicts.is_empty() {
            return Err(SiteError::Errors(plan.conflicts));
        }
        let mut outcome = self
            .engine
            .up(&plan, &observed, stop, &log)
            .map_err(SiteError::Engine)?;
        let mut changed: Vec<_> = plan.steps.iter().filter_map(change).collect();
        if plan.unfinished {
            let table = table.map(|_| Table::read()).transpose()?;
            if let Some((more, also)) = self.apply(desired, table.as_ref(), stop)? {
                outcome = outcome.and(more);
                changed.extend(also);
            }
        }
        Ok(Some((outcome, changed)))
    }
}

fn change(step: &Step) -> Option<Changed> {
    match step {
        Step::Attach(mount) => Some(("attached", mount.target.clone())),
        Step::Swap { mount, .. } => Some(("swapped", mount.target.clone())),
        Step::Detach { target, .. } => Some(("detached", target.clone())),
        Step::DetachStray(stray) => Some(("detached", stray.target.clone())),
        _ => None,
    }
}

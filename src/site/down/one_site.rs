//! One site that is being taken down.

use super::placeholders::PlaceholderFate;
use super::run::{DownError, TakeDown, TakenDown, has_copies_aside};
use crate::Result;
use crate::base::HostPath;
use crate::engine::Outcome;
use crate::observe::{self, Depth, Observed, SiteRecords};
use crate::plan::{self, Plan};
use crate::resolve::Desired;
use crate::site::{Site, SiteError};
use crate::sys::IfInUse;

/// A site that is being taken down, while its lock is held.
pub(super) struct Down<'r> {
    run: &'r TakeDown,
    site: &'r Site,
    root: HostPath,
    /// Those of this root.
    records: SiteRecords,
    placeholders: PlaceholderFate,
}

impl<'r> Down<'r> {
    pub(super) fn new(
        run: &'r TakeDown,
        site: &'r Site,
        root: HostPath,
        records: SiteRecords,
    ) -> Result<Self> {
        let out = run.context.out.site(&site.name);
        if let Some(recorded) = records.root()
            && *recorded != root
        {
            out.info(format_args!("the root {recorded} was moved to {root}"));
        }
        let records = records.moved_to(&root);
        let placeholders = PlaceholderFate::of(run, site, &root, &records)?;
        Ok(Self {
            run,
            site,
            root,
            records,
            placeholders,
        })
    }

    /// Takes away what is recorded, without a look at the mount table; returns also the number of
    /// steps. `None`: that is not enough, or something uses the mounts.
    pub(super) fn as_recorded(&self) -> Result<Option<(Outcome, usize)>, DownError> {
        if self.run.options.if_in_use == IfInUse::Detach {
            return Ok(None);
        }
        let users = self.run.users();
        let Some(observed) = observe::as_recorded(&self.records, || users.processes()) else {
            return Ok(None);
        };
        self.stop_if_in_use(&observed, Depth::BesidesKernel)?;
        let plan = plan::down(&self.site.name, &self.root, None, &observed);
        let (plan, stays) = self.keep_placeholders(plan);
        let log = self.run.context.out.site(&plan.site).log();
        let outcome = self.run.engine.down_if_quiet(&plan, &observed, &log);
        let Some(mut outcome) = outcome.map_err(SiteError::Engine)? else {
            return Ok(None);
        };
        outcome.left.extend(stays);
        Ok(Some((outcome, plan.steps.len())))
    }

    /// The mounts of the site that are in the mount table, and how to take them away. `desired`:
    /// what the manifest asks for, if the record is lost.
    pub(super) fn observe_and_plan(&self, desired: Option<Desired>) -> Result<(Observed, Plan)> {
        let (name, root) = (&self.site.name, &self.root);
        let desired = match desired {
            Some(desired) if desired.root == *root => desired,
            _ => Desired::nothing(name, root),
        };
        let table = self.run.table(root)?;
        let observed = observe::standing(&desired, self.records.clone(), &table);
        let plan = plan::down(name, root, Some(&desired), &observed);
        Ok((observed, plan))
    }

    /// The plan without the steps that remove what stays, and a sentence about what stays.
    pub(super) fn keep_placeholders(&self, plan: Plan) -> (Plan, Option<String>) {
        self.placeholders.apply((&self.site.name, &self.root), plan)
    }

    pub(super) fn has_recorded_mounts(&self) -> bool {
        let record = self.records.record.as_ref();
        record.is_some_and(|record| !record.mounts.is_empty())
    }

    pub(super) fn stop_if_in_use(
        &self,
        observed: &Observed,
        depth: Depth,
    ) -> Result<(), DownError> {
        self.run
            .stop_if_in_use(self.site, &self.root, observed, depth)
    }

    pub(super) fn done(self, outcome: Outcome, steps: usize) -> TakenDown {
        TakenDown {
            has_copies_aside: has_copies_aside(&self.root),
            changed: steps > 0 || self.records.record.is_some(),
            root: self.root,
            outcome,
        }
    }
}

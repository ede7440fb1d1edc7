//! One site brought to what its manifest asks for: what `up` does once, and `watch` again and again.

use std::sync::atomic::AtomicBool;

use super::context::{Context, is_set, table};
use super::sites::{self, Site};
use super::work::{Failed, lock, observe_and_plan, plural};
use crate::Result;
use crate::engine::{Engine, Outcome};
use crate::manifest::JailPath;
use crate::observe::{BootId, Table};
use crate::plan::Step;
use crate::resolve::{Desired, Resolver, create_root};

/// What all sites of one run share.
pub(super) struct Run<'c> {
    pub context: &'c Context<'c>,
    pub engine: Engine,
    pub resolver: Resolver<'c>,
    pub boot: BootId,
    /// The whole mount table, as it was before the first site.
    pub table: Option<Table>,
    pub stop: &'c AtomicBool,
}

/// What became of one site.
pub(super) struct Done {
    pub desired: Desired,
    /// The units that run inside.
    pub services: Vec<String>,
    pub outcome: Outcome,
    /// The mounts that were made, replaced and taken away.
    pub changed: Vec<Changed>,
}

/// What was done to one mount, in a word, and where it is.
pub(super) type Changed = (&'static str, JailPath);

impl Run<'_> {
    /// Brings the site up. `create`: makes a missing root.
    pub(super) fn site(&self, site: &Site, create: bool) -> Result<Done, Failed> {
        let manifest = sites::load(self.context, site).map_err(Failed::Manifest)?;
        let _lock = lock(self.context, &self.engine, site)?;
        if create && create_root(&manifest.root).map_err(|error| error.context(&site.name))? {
            self.context.out.info(format_args!("{}: made the root {}", site.name, manifest.root));
        }
        let desired = self.resolver.resolve(&manifest, self.context.roots()).map_err(Failed::Errors)?;
        self.make_so(desired, manifest.services)
    }

    /// Makes the site, whose lock is held, as `desired`.
    pub(super) fn make_so(&self, desired: Desired, services: Vec<String>) -> Result<Done, Failed> {
        let (outcome, changed) = match self.apply(&desired, self.table.as_ref()) {
            // The table was read before the lock was taken: somebody may have mounted since.
            Err(Failed::Engine(_) | Failed::Errors(_)) if self.table.is_some() && !is_set(self.stop) => {
                self.apply(&desired, table(false)?.as_ref())
            }
            result => result,
        }?;
        Ok(Done { desired, services, outcome, changed })
    }

    /// Observes, plans and carries out, again as long as the plan says that there will be more to see.
    fn apply(&self, desired: &Desired, table: Option<&Table>) -> Result<(Outcome, Vec<Changed>), Failed> {
        let log = |line: std::fmt::Arguments<'_>| self.context.out.detail(line);
        let (observed, plan) = observe_and_plan(self.context, desired, &self.boot, table)?;
        if !plan.conflicts.is_empty() {
            return Err(Failed::Errors(plan.conflicts));
        }
        let outcome = self.engine.up(&plan, &observed, self.stop, &log).map_err(Failed::Engine)?;
        let mut changed: Vec<_> = plan.steps.iter().filter_map(change).collect();
        if !plan.unfinished {
            return Ok((outcome, changed));
        }
        let table = table.map(|_| Table::read()).transpose()?;
        let (more, also) = self.apply(desired, table.as_ref())?;
        changed.extend(also);
        Ok((outcome.and(more), changed))
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

/// How it went, in one line.
pub(super) fn summary(done: &Done) -> String {
    let Outcome { attached, swapped, detached, .. } = done.outcome;
    let total = plural(done.desired.mounts.len(), "mount");
    let parts = [(attached, "attached"), (swapped, "swapped"), (detached, "detached")];
    let parts: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() {
        return format!("in sync, {total}; nothing to do");
    }
    format!("up, {total}: {}", parts.join(", "))
}

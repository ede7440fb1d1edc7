//! One site's way through all stages: load, lock, resolve, observe, plan, carry out. `up`, `apply`,
//! `run` and the watcher take it.

use std::sync::Arc;

use super::context::{Context, Purpose};
use super::error::{MAX_PLANS, never_finished};
use super::pipeline::{self, MountLookup, Pipeline, read_table};
use super::settled::SettledSites;
use super::templates::{self, SiteRun, Templates};
use super::up::{Changes, Done};
use super::users::SiteUsers;
use super::{Site, SiteError, manifest_file};
use crate::base::{ErrorContext, HostPath, SiteName};
use crate::engine::{Engine, Log, Outcome, SiteLock, create_root};
use crate::manifest::{Manifest, Scope};
use crate::observe::{self, Depth, Observed, Stray, Table};
use crate::patience::Stop;
use crate::plan::{Graft, Plan, SiteState};
use crate::resolve::Desired;
use crate::{Error, Result};

/// How often a site is brought up that changes meanwhile.
const ATTEMPTS: usize = 6;

/// How often the templates of a site may change in one run. Once is enough, unless the host changes
/// meanwhile.
const MAX_REFRESHES: usize = 5;

/// The outcome for a site that was to come up.
pub(crate) enum Brought {
    /// It is as its manifest asks for.
    Up(Box<Done>),
    /// It is down, and was left alone.
    LeftDown,
    /// Its mounts belong to the namespaces of these services, not to the host.
    ForServices(Vec<String>),
}

/// All stages, and what all sites of one run share for them.
pub(crate) struct BringUp {
    pub pipeline: Pipeline,
    pub engine: Engine,
    /// `None`: everything is mounted one by one.
    pub templates: Option<Templates>,
    /// Sites that are down stay down.
    pub leave_down: bool,
    /// A root directory that does not exist is made.
    pub create_root: bool,
    /// The last step, which has to succeed when a site is up, or else it is left as it was.
    pub then: Option<FinalStep>,
    /// Sites that were found to need nothing.
    settled: SettledSites,
}

/// A last step, when a site is as desired.
pub(crate) type FinalStep = Arc<dyn Fn() -> Result<()> + Send + Sync>;

impl BringUp {
    /// For a run over that many sites.
    pub(crate) fn new(context: Context, lookup: MountLookup, sites: usize) -> Result<Self> {
        let engine = context.engine(observe::boot_id()?, sites, Purpose::Mount)?;
        let pipeline = Pipeline::new(context, lookup)?;
        let (state, boot) = (&pipeline.context.state, &pipeline.boot);
        let sharing = pipeline.sharing.clone();
        let templates =
            sharing.map(|sharing| Templates::new(&engine, state, boot, sharing.templates));
        Ok(Self {
            templates: templates.transpose()?,
            engine,
            pipeline,
            leave_down: false,
            create_root: false,
            then: None,
            settled: SettledSites::default(),
        })
    }

    /// Takes a site from its manifest to its mounts.
    pub(crate) fn site(&self, site: &Site, stop: &Stop) -> Result<Brought, SiteError> {
        let Pipeline { context, .. } = &self.pipeline;

        // Load: the manifest, with the presets that it includes.
        let of_services = |manifest: &Manifest| {
            manifest.scope == Scope::Services && !context.state.is_of_namespace()
        };
        let version = manifest_file::version(site);
        let mut manifest = self.pipeline.load(site)?;
        if of_services(&manifest) {
            return self.for_services(site, manifest);
        }

        // A site that needs nothing needs no lock: another mountjail that works on it comes after
        // this one.
        if let Some(done) = self.settled_already(&manifest) {
            return Ok(Brought::Up(Box::new(done)));
        }

        // Lock: another mountjail finishes its work on the site first. It may be `apply`, which
        // replaces the manifest.
        let _lock = lock(context, &self.engine, &site.name, stop)?;
        if manifest_file::version(site) != version {
            manifest = self.pipeline.load(site)?;
            if of_services(&manifest) {
                return self.for_services(site, manifest);
            }
        }
        self.locked(site, manifest, stop)
    }

    /// The site, if it is as one that needs nothing. If anything is odd, this is not known yet.
    fn settled_already(&self, manifest: &Manifest) -> Option<Done> {
        let Pipeline { context, boot, .. } = &self.pipeline;
        if self.settled.is_empty() || self.pipeline.table.is_some() || self.then.is_some() {
            return None;
        }
        let records = context.state.read(&manifest.site, boot).ok()?;
        let desired = self.pipeline.resolve(manifest).ok()?;
        let is_settled = self.settled.have_one_like(&desired, &records);
        is_settled.then(|| Done {
            desired,
            services: manifest.services.clone(),
            changes: Changes::default(),
        })
    }

    /// Leaves the mounts of the site to its services.
    fn for_services(&self, site: &Site, manifest: Manifest) -> Result<Brought, SiteError> {
        if self.create_root {
            self.make_root(site, &manifest.root)?;
        }
        Ok(Brought::ForServices(manifest.services))
    }

    /// Brings the site, whose lock is held, to what `manifest` asks for.
    pub(crate) fn locked(
        &self,
        site: &Site,
        manifest: Manifest,
        stop: &Stop,
    ) -> Result<Brought, SiteError> {
        let Pipeline { context, .. } = &self.pipeline;

        // Resolve: the mounts and links that the manifest asks for on this host.
        if self.create_root {
            self.make_root(site, &manifest.root)?;
        }
        let desired = match self.pipeline.resolve(&manifest) {
            Err(_) if self.leave_down && self.was_never_up(site)? => {
                return Ok(Brought::LeftDown);
            }
            resolved => resolved?,
        };

        // Observe, plan, carry out.
        let resolve_again = |_| {
            let context = context.with_new_host();
            pipeline::resolve(&context, &context.resolver()?, &manifest)
        };
        let Some((desired, changes)) = self.reconcile(desired, stop, resolve_again)? else {
            return Ok(Brought::LeftDown);
        };
        Ok(Brought::Up(Box::new(Done {
            desired,
            services: manifest.services,
            changes,
        })))
    }

    /// Brings the site, whose lock is held, to what is `desired`, and returns that with what was
    /// changed. `None`: the site is down, and was left alone.
    ///
    /// A run that fails because something changed meanwhile is tried again, with a new look at what
    /// is mounted. Something may have been mounted after the table was read and before the lock was
    /// taken. Or the failure itself says that it was overtaken; then the site is resolved again.
    pub(crate) fn reconcile(
        &self,
        mut desired: Desired,
        stop: &Stop,
        mut resolve_again: impl FnMut(Desired) -> Result<Desired, SiteError>,
    ) -> Result<Option<(Desired, Changes)>, SiteError> {
        let table = self.pipeline.table.as_ref();
        let mut changes = self.try_reconcile(&desired, table, stop);
        for attempt in 1..ATTEMPTS {
            let Err(failed) = &changes else { break };
            let is_overtaken = failed.is_overtaken();
            let table_is_old = attempt == 1 && table.is_some();
            if stop.is_set() || !(is_overtaken || table_is_old) {
                break;
            }

            let out = self.pipeline.context.out.site(&desired.site);
            out.detail("trying again: something changed after it was looked at");
            if is_overtaken {
                desired = resolve_again(desired)?;
            }
            let table = read_table(MountLookup::OneByOne)?;
            changes = self.try_reconcile(&desired, table.as_ref(), stop);
        }
        Ok(changes?.map(|changes| (desired, changes)))
    }

    fn try_reconcile(
        &self,
        desired: &Desired,
        table: Option<&Table>,
        stop: &Stop,
    ) -> Result<Option<Changes>, SiteError> {
        self.reconcile_in(desired, table, stop, MAX_REFRESHES)
    }

    /// Observes, plans and carries out; again, as long as the plan cannot see all steps yet.
    /// `refreshes`: how often a template may still be changed.
    fn reconcile_in(
        &self,
        desired: &Desired,
        table: Option<&Table>,
        stop: &Stop,
        refreshes: usize,
    ) -> Result<Option<Changes>, SiteError> {
        let Pipeline { context, .. } = &self.pipeline;
        let log = context.out.site(&desired.site).log();
        let mut changes: Option<Changes> = None;
        let mut newer_table = None;
        for _ in 0..MAX_PLANS {
            // Observe: the mounts that are there, and the records. A site that is like one that
            // needs nothing needs nothing, either.
            let table = newer_table.as_ref().or(table);
            let records = self.pipeline.records(desired)?;
            if table.is_none() && self.settled.have_one_like(desired, &records) {
                return Ok(Some(changes.unwrap_or_default()));
            }
            let observed = observe::observe(desired, records, table).context(&desired.site)?;

            // Plan: the steps from there to what is desired.
            let (observed, plan) = self.plan(desired, observed, table)?;
            if self.leave_down && plan.site_state() == SiteState::Down {
                return Ok(changes);
            }
            if !plan.conflicts.is_empty() {
                return Err(SiteError::Errors(plan.conflicts));
            }

            // Carry out: the steps, or undo what was done. A template that the site has a graft of
            // changes first; the rest can only be planned when that is done.
            let changes = changes.get_or_insert_default();
            if let Some(graft) = plan.refreshed() {
                let rest = || {
                    let table = table.map(|_| Table::read()).transpose()?;
                    self.reconcile_in(desired, table.as_ref(), stop, refreshes - 1)
                };
                if refreshes == 0 {
                    return Err(stays_stale(&plan).into());
                }
                changes.extend(self.refresh(graft, (&plan, &observed), stop, &log, rest)?);
                return Ok(Some(std::mem::take(changes)));
            }
            Self::spare_replaced_root(desired, &observed)?;
            let carried_out = self.carry_out(&plan, &observed, stop, &log);
            self.release_templates(&plan, &observed, carried_out.is_err());
            changes.add(carried_out?, &plan);
            self.settled.add(desired, &observed, &plan);
            if !plan.unfinished {
                return Ok(Some(std::mem::take(changes)));
            }
            newer_table = table.map(|_| Table::read()).transpose()?;
        }
        Err(never_finished(&desired.site, &desired.root).into())
    }

    /// The steps from what is observed to what is desired. A graft goes with all that is in it.
    fn plan(
        &self,
        desired: &Desired,
        mut observed: Observed,
        table: Option<&Table>,
    ) -> Result<(Observed, Plan)> {
        let mut plan = self.pipeline.plan_up(desired, &observed)?;
        if table.is_none() && plan.changes_grafts() {
            observe::look_into_grafts(&desired.root, &mut observed).context(&desired.site)?;
            plan = self.pipeline.plan_up(desired, &observed)?;
        }
        Ok((observed, plan))
    }

    /// Refuses to go on if another directory is at the root now, and something still runs in the
    /// one that the site was set up in: that would lose its mounts.
    fn spare_replaced_root(desired: &Desired, observed: &Observed) -> Result<()> {
        let Desired { site, root, .. } = desired;
        let mut homes = observed.strays.iter().filter_map(Stray::home);
        let Some(home) = homes.find(|home| home != root) else {
            return Ok(());
        };
        let users = SiteUsers::default();
        let inside = users.of(&home, &Observed::default(), Depth::All)?;
        if inside.by.is_empty() {
            return Ok(());
        }
        Err(Error::failed(format!(
            "{site}: another directory is at {root} now, and the one that the site was set up in, \
             {home}, is in use: {}; nothing was changed",
            inside.by.join(", ")
        ))
        .hint(format!(
            "end what runs there, or take the mounts away anyway: `mountjail down --lazy {site}`"
        )))
    }

    /// Carries `plan` out, with the templates that it needs.
    fn carry_out(
        &self,
        plan: &Plan,
        observed: &Observed,
        stop: &Stop,
        log: Log<'_>,
    ) -> Result<Outcome, SiteError> {
        if let Some(templates) = &self.templates
            && !plan.grafts.is_empty()
            && !plan.steps.is_empty()
        {
            let store = self.engine.templates()?;
            templates.prepare(SiteRun { store, stop, log }, plan, observed)?;
        }
        let mut then = || match &self.then {
            Some(then) if !plan.unfinished => then(),
            _ => Ok(()),
        };
        self.engine
            .up_then(plan, observed, stop, log, &mut then)
            .map_err(SiteError::Engine)
    }

    /// Changes the template of `graft`, and does the `rest`. If one of the two fails, both are
    /// undone. Returns what was changed.
    fn refresh(
        &self,
        graft: &Graft,
        (plan, observed): (&Plan, &Observed),
        stop: &Stop,
        log: Log<'_>,
        rest: impl Fn() -> Result<Option<Changes>, SiteError> + Sync,
    ) -> Result<Changes, SiteError> {
        let Some(templates) = &self.templates else {
            return Ok(Changes::default());
        };
        let (store, site) = (self.engine.templates()?, &plan.site);
        let mut done = None;
        let mut then = || match done.insert(rest()) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::failed(format!("{site}: the rest of its mounts"))),
        };
        let run = SiteRun { store, stop, log };
        let refreshed = templates.refresh(run, site, graft, observed, &mut then);
        let out = self.pipeline.context.out.site(site);
        match (refreshed, done) {
            (Ok(mut refreshed), Some(Ok(rest))) => {
                if let Err(error) = self.engine.remember(site, &refreshed.outcome) {
                    out.warn(error);
                }
                refreshed.extend(rest.unwrap_or_default());
                Ok(refreshed)
            }
            (refreshed, Some(Err(failed))) => Err(match refreshed {
                Err(SiteError::Engine(template)) => failed.and_not_undone(*template),
                _ => failed,
            }),
            (refreshed, _) => refreshed,
        }
    }

    /// Releases the templates that the site does not use any more after `plan`, or that it does not
    /// use because that `failed`. If they cannot be released, they stay until the site is taken
    /// down.
    fn release_templates(&self, plan: &Plan, observed: &Observed, failed: bool) {
        let may_be_unused = !observed.grafts.is_empty() || failed;
        if may_be_unused && !plan.steps.is_empty() {
            let Pipeline { context, boot, .. } = &self.pipeline;
            let released =
                templates::release_unused(&self.engine, &context.state, boot, &plan.site);
            if let Err(error) = released {
                context.out.site(&plan.site).warn(error);
            }
        }
    }

    pub(super) fn make_root(&self, site: &Site, root: &HostPath) -> Result<()> {
        if create_root(root).context(&site.name)? {
            let out = self.pipeline.context.out.site(&site.name);
            out.info(format_args!("made the root {root}"));
        }
        Ok(())
    }

    /// Whether `up` has not brought the site up since the boot.
    fn was_never_up(&self, site: &Site) -> Result<bool> {
        let Pipeline { context, boot, .. } = &self.pipeline;
        let records = context.state.read(&site.name, boot).context(&site.name)?;
        Ok(records.record.is_none())
    }
}

/// Mounts of a graft that do not follow their template.
fn stays_stale(plan: &Plan) -> Error {
    Error::failed(format!(
        "{}: the mounts of a graft do not follow its template",
        plan.site
    ))
    .hint(format!(
        "take the site down and up again: `mountjail down {}`",
        plan.site
    ))
}

/// Takes the site's lock. If another mountjail has it, that is reported before the wait.
pub(crate) fn lock(
    context: &Context,
    engine: &Engine,
    site: &SiteName,
    stop: &Stop,
) -> Result<SiteLock> {
    let out = context.out.site(site);
    let waiting = |other: &str| out.info(format_args!("waiting for {other} to finish"));
    engine
        .lock(site, context.limit, stop, waiting)
        .context(site)
}

//! The templates that sites share: made and refreshed before a site is brought up, and removed when
//! no site has a graft of them any more.

use std::collections::HashSet;
use std::sync::Mutex;

use super::SiteError;
use super::error::{MAX_PLANS, never_finished};
use super::up::Changes;
use crate::base::sync::lock;
use crate::base::{ErrorContext, HostPath, SiteName};
use crate::engine::{Engine, Log, ShownTemplate, TemplateStore, Then};
use crate::observe::{self, BootId, BootRecord, KnownGraft, Observed, StateDir, Table};
use crate::patience::Stop;
use crate::plan::{self, Graft, Plan, Step, Template};
use crate::resolve::{Desired, FileId};
use crate::{Error, Result, sys};

/// The run of a site that needs templates.
#[derive(Clone, Copy)]
pub(super) struct SiteRun<'r> {
    /// That of the site's engine.
    pub store: &'r TemplateStore,
    pub stop: &'r Stop,
    pub log: Log<'r>,
}

/// Makes templates, and keeps them as the host is.
pub(crate) struct Templates {
    /// Of the sites.
    engine: Engine,
    boot: BootId,
    state: StateDir,
    directory: HostPath,
    /// The templates that this run found or made to be as the host is, with their files.
    ready: Mutex<HashSet<ShownTemplate>>,
}

impl Templates {
    /// For the sites of `engine`. `directory`: that of the templates.
    pub(crate) fn new(
        engine: &Engine,
        state: &StateDir,
        boot: &BootId,
        directory: HostPath,
    ) -> Result<Self> {
        Ok(Self {
            engine: engine.for_templates()?,
            boot: boot.clone(),
            state: state.templates(),
            directory,
            ready: Mutex::default(),
        })
    }

    /// Makes the templates that `plan` mounts something of, and brings them to the state of the
    /// host.
    pub(super) fn prepare(
        &self,
        run: SiteRun<'_>,
        plan: &Plan,
        observed: &Observed,
    ) -> Result<(), SiteError> {
        let store = run.store;
        for graft in &plan.grafts {
            let Some(need) = need(plan, graft) else {
                continue;
            };
            let template = &graft.template;
            let name = match (need, known(observed, graft)) {
                (TemplateNeed::Member, Some(known)) => known.template.clone(),
                _ => store
                    .hold(&template.contents, &plan.site)
                    .context(&plan.site)?,
            };
            let shown = (name, files(template));
            if need == TemplateNeed::Mounted && lock(&self.ready).contains(&shown) {
                continue;
            }

            let name = &shown.0;
            let _lock = store.lock_of(name).context(&plan.site)?;
            self.bring_up(run, name, template, None)
                .map_err(|failed| failed.of_site(&plan.site))?;
            lock(&self.ready).insert(shown);
        }
        Ok(())
    }

    /// Brings the template of `graft`, which the site has, to what the site needs now. Then does
    /// `then`; if that fails, the template is left as it was. Returns what was changed.
    pub(super) fn refresh(
        &self,
        run: SiteRun<'_>,
        site: &SiteName,
        graft: &Graft,
        observed: &Observed,
        then: Then<'_>,
    ) -> Result<Changes, SiteError> {
        let (store, template) = (run.store, &graft.template);
        let Some(known) = known(observed, graft) else {
            return Err(
                Error::failed(format!("{site}: no graft is known at {}", template.at)).into(),
            );
        };
        let name = &known.template;
        let mut lock = store.lock_of(name).context(site)?;
        if known.contents.as_ref() != Some(&template.contents) {
            store.begin_change(name, site).context(site)?;
        }

        let mut then = || {
            drop(lock.take()); // the site may put a mount of the template back
            then()
        };
        let result = self.bring_up(run, name, template, Some(&mut then));
        match (&result, &known.contents) {
            // Without it, other sites get a template of their own.
            (Ok(_), _) => drop(store.publish(name, &template.contents)),
            // The first error is the one to report.
            (Err(_), Some(old)) => {
                let _ = store.within(name, || {
                    store.end_change(name, old, &template.at)?;
                    store.seal(name)?;
                    store.publish(name, old)
                });
            }
            // Its contents stay unknown, and are brought up by the next run.
            (Err(_), None) => {
                let _ = store.begin_change(name, site);
            }
        }
        result.map_err(|failed| failed.of_site(site))
    }

    /// Brings a template into the state of the host, as a site whose root it is, and does `then`
    /// where the sites are.
    fn bring_up(
        &self,
        run: SiteRun<'_>,
        name: &SiteName,
        template: &Template,
        mut then: Option<Then<'_>>,
    ) -> Result<Changes, SiteError> {
        let store = run.store;
        let root = self.directory.join(name.as_str()).map_err(|why| {
            Error::failed(format!("cannot use the directory of {name}")).because_of(why)
        })?;
        let desired = template.desired(name, &root);
        let log: Log<'_> = &|line| (run.log)(format_args!("template of {}: {line}", template.at));
        let run = SiteRun { log, ..run };
        let mut then = || {
            store.end_change(name, &template.contents, &template.at)?;
            store.seal(name)?;
            let done = match &mut then {
                Some(then) => self.engine.in_host(&mut **then),
                None => Ok(()),
            };
            if done.is_err() {
                store.unseal(name)?; // to undo what was made in it
            }
            done
        };
        store.within(name, || {
            self.engine.sweep();
            store.make_root(name)?;
            if store.lacks_record(name, &template.at)? {
                let engine = &self.engine;
                engine.in_host(|| store.restore_record(name, &template.at))?;
            }
            self.carry_out(run, &desired, &mut then)
        })?
    }

    fn carry_out(
        &self,
        run: SiteRun<'_>,
        desired: &Desired,
        then: Then<'_>,
    ) -> Result<Changes, SiteError> {
        let SiteRun { store, stop, log } = run;
        let name = &desired.site;
        let mut changes = Changes::default();
        for _ in 0..MAX_PLANS {
            let records = self.state.read(name, &self.boot)?;
            let table = if sys::probe::statmount() {
                None
            } else {
                Some(Table::read()?)
            };
            let observed = observe::observe(desired, records, table.as_ref())?;
            let plan = plan::up(desired, &observed, None);
            if !plan.conflicts.is_empty() {
                return Err(SiteError::Errors(plan.conflicts));
            }

            if !plan.steps.is_empty() {
                store.unseal(name)?;
            }
            let mut nothing = || Ok(());
            let then: Then<'_> = if plan.unfinished {
                &mut nothing
            } else {
                &mut *then
            };
            let outcome = self.engine.up_then(&plan, &observed, stop, log, then);
            changes.add(outcome.map_err(SiteError::Engine)?, &plan);
            if !plan.unfinished {
                return Ok(changes);
            }
        }
        Err(never_finished(name, &desired.root).into())
    }
}

/// The sites that need the template of a graft.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TemplateNeed {
    /// The graft stays as it is, and one of its mounts is put back.
    Member,
    /// It is mounted.
    Mounted,
}

/// What `plan` needs the template of the graft for.
fn need(plan: &Plan, graft: &Graft) -> Option<TemplateNeed> {
    let at = &graft.mount.target;
    for step in &plan.steps {
        if let Step::Attach {
            mount,
            graft: of_graft,
            ..
        }
        | Step::Swap {
            mount,
            graft: of_graft,
            ..
        } = step
        {
            match of_graft {
                Some(_) if mount.target == *at => return Some(TemplateNeed::Mounted),
                None if graft.has(&mount.target) => return Some(TemplateNeed::Member),
                _ => {}
            }
        }
    }
    None
}

/// The record of the graft at the same place.
fn known<'o>(observed: &'o Observed, graft: &Graft) -> Option<&'o KnownGraft> {
    let mut known = observed.grafts.iter();
    known.find(|known| known.target == graft.template.at)
}

fn files(template: &Template) -> Vec<Option<FileId>> {
    template.mounts.iter().map(|mount| mount.file).collect()
}

/// The templates of the recorded grafts.
pub(crate) fn grafted(record: Option<&BootRecord>) -> HashSet<SiteName> {
    let mut grafted = HashSet::new();
    if let Some(record) = record {
        for mount in &record.mounts {
            grafted.extend(mount.template.clone());
        }
    }
    grafted
}

/// Releases the templates of which the site has no graft any more by its record.
pub(crate) fn release_unused(
    engine: &Engine,
    state: &StateDir,
    boot: &BootId,
    site: &SiteName,
) -> Result<()> {
    if !state.templates().run.exists() {
        return Ok(());
    }
    let used = if state.lacks_record(site) {
        HashSet::new()
    } else {
        grafted(state.read(site, boot)?.record.as_ref())
    };
    engine.templates()?.release_besides(&used, site)
}

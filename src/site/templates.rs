//! The templates that sites share: made and refreshed before a site is brought up, and removed when
//! no site has a graft of them any more.

use std::collections::HashSet;
use std::sync::Mutex;

use super::SiteError;
use super::up::Changes;
use crate::base::sync::lock;
use crate::base::{HostPath, SiteName};
use crate::engine::{Engine, Log, TemplateStore};
use crate::observe::{self, BootId, BootRecord, Observed, StateDir, Table};
use crate::patience::Stop;
use crate::plan::{self, Graft, Plan, Step, Template};
use crate::resolve::FileId;
use crate::{Error, Result, sys};

/// Makes templates, and keeps them as the host is.
pub(crate) struct Templates {
    /// Of the sites.
    engine: Engine,
    boot: BootId,
    state: StateDir,
    directory: HostPath,
    /// The templates that this run found or made to be as the host is, with their files.
    ready: Mutex<HashSet<Shown>>,
}

/// A template, and the files of its mounts.
type Shown = (SiteName, Vec<Option<FileId>>);

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

    /// Makes the templates that `plan` needs, and replaces the files in them of which the host has
    /// new ones. Returns what was changed in templates that the site has already. `store`: that of
    /// the site's engine.
    pub(crate) fn prepare(
        &self,
        store: &TemplateStore,
        plan: &Plan,
        observed: &Observed,
        stop: &Stop,
        log: Log<'_>,
    ) -> Result<Changes, SiteError> {
        let mut changes = Changes::default();
        for graft in &plan.grafts {
            let Some(need) = need(plan, graft) else {
                continue;
            };
            let template = &graft.template;
            let known = observed.grafts.iter();
            let known = known.filter(|known| known.target == template.at).last();
            let name = match (&need, known) {
                (Need::Refreshed | Need::Member, Some(known)) => known.template.clone(),
                _ => store.hold(&template.contents, &plan.site)?,
            };
            let shown = (name.clone(), files(template));
            if need == Need::Mounted && lock(&self.ready).contains(&shown) {
                continue;
            }

            let _lock = store.lock_of(&name)?;
            let is_new =
                known.is_none_or(|known| known.contents.as_ref() != Some(&template.contents));
            if need == Need::Refreshed && is_new {
                store.begin_change(&name, &plan.site, &self.boot)?;
            }
            let made = store
                .within(|| self.bring_up(store, &name, template, stop, log))?
                .map_err(|failed| failed.of_site(&plan.site))?;
            lock(&self.ready).insert(shown);
            if need == Need::Refreshed {
                changes.extend(made);
            }
        }
        Ok(changes)
    }

    /// Brings a template into the state of the host, as a site whose root it is. It is called where
    /// the templates are.
    fn bring_up(
        &self,
        store: &TemplateStore,
        name: &SiteName,
        template: &Template,
        stop: &Stop,
        log: Log<'_>,
    ) -> Result<Changes, SiteError> {
        let mut changes = Changes::default();
        self.engine.sweep();
        store.make_root(name)?;
        let root = self.directory.join(name.as_str()).map_err(|why| {
            Error::failed(format!("cannot use the directory of {name}")).because_of(why)
        })?;
        let desired = template.desired(name.clone(), root);
        loop {
            let records = self.state.read(name, &self.boot)?;
            let table = match sys::probe::statmount() {
                true => None,
                false => Some(Table::read()?),
            };
            let observed = observe::observe(&desired, records, table.as_ref())?;
            let plan = plan::up(&desired, &observed, None);
            if !plan.conflicts.is_empty() {
                return Err(SiteError::Errors(plan.conflicts));
            }
            if plan.steps.is_empty() {
                break;
            }
            store.unseal(name)?;
            let outcome = self
                .engine
                .up(&plan, &observed, stop, log)
                .map_err(SiteError::Engine)?;
            changes.add(outcome, &plan);
        }
        store.end_change(name, &template.contents, &template.at, &self.boot)?;
        store.seal(name)?;
        Ok(changes)
    }
}

/// What the template of a graft is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The graft stays, and its template changes.
    Refreshed,
    /// The graft stays, and one of its mounts is put back.
    Member,
    /// It is mounted.
    Mounted,
}

/// What `plan` needs the template of the graft for.
fn need(plan: &Plan, graft: &Graft) -> Option<Need> {
    let at = &graft.mount.target;
    let is_refreshed =
        |step: &Step| matches!(step, Step::Refresh { graft, .. } if graft.mount.target == *at);
    if plan.steps.iter().any(is_refreshed) {
        return Some(Need::Refreshed);
    }
    plan.steps.iter().find_map(|step| match step {
        Step::Attach {
            mount,
            graft: of_graft,
        }
        | Step::Swap {
            mount,
            graft: of_graft,
            ..
        } => match of_graft {
            Some(_) if mount.target == *at => Some(Need::Mounted),
            None if graft.has(&mount.target) => Some(Need::Member),
            _ => None,
        },
        _ => None,
    })
}

fn files(template: &Template) -> Vec<Option<FileId>> {
    template.mounts.iter().map(|mount| mount.file).collect()
}

/// The templates of the recorded grafts.
pub(crate) fn grafted(record: Option<&BootRecord>) -> HashSet<SiteName> {
    let mounts = record.into_iter().flat_map(|record| &record.mounts);
    mounts.filter_map(|mount| mount.template.clone()).collect()
}

/// Releases the templates of which the site has no graft any more by its record.
pub(crate) fn release_unused(
    store: &TemplateStore,
    state: &StateDir,
    boot: &BootId,
    site: &SiteName,
) -> Result<()> {
    let held = store.held_by(site);
    if held.is_empty() {
        return Ok(());
    }
    let used = grafted(state.read(site, boot)?.record.as_ref());
    let unused: Vec<_> = held.iter().filter(|name| !used.contains(*name)).collect();
    store.release(unused, site)
}

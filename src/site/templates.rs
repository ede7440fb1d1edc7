//! The templates that sites share: made and refreshed before a site is brought up, and removed when
//! no site has a graft of them any more.

use std::collections::HashSet;
use std::sync::Mutex;

use super::SiteError;
use super::up::Changes;
use crate::base::sync::lock;
use crate::base::{HostPath, SiteName};
use crate::engine::{Engine, Log, TemplateStore};
use crate::observe::{self, BootId, BootRecord, StateDir, Table};
use crate::patience::Stop;
use crate::plan::{self, Graft, Plan, Step, Template};
use crate::resolve::FileId;
use crate::{Result, sys};

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
        stop: &Stop,
        log: Log<'_>,
    ) -> Result<Changes, SiteError> {
        let mut changes = Changes::default();
        for graft in &plan.grafts {
            let (touched, stale) = needs(plan, graft);
            let shown = shown(&graft.template);
            if !touched || !stale && lock(&self.ready).contains(&shown) {
                if touched {
                    store.hold(&graft.template.name, &plan.site)?;
                }
                continue;
            }

            store.hold(&graft.template.name, &plan.site)?;
            let _lock = store.lock_of(&graft.template.name)?;
            let made = store
                .within(|| self.bring_up(store, &graft.template, stop, log))?
                .map_err(|failed| failed.of_site(&plan.site))?;
            lock(&self.ready).insert(shown);
            if stale {
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
        template: &Template,
        stop: &Stop,
        log: Log<'_>,
    ) -> Result<Changes, SiteError> {
        let mut changes = Changes::default();
        self.engine.sweep();
        store.make_root(&template.name)?;
        let desired = template.desired(&self.directory);
        loop {
            let records = self.state.read(&template.name, &self.boot)?;
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
            store.unseal(&template.name)?;
            let outcome = self
                .engine
                .up(&plan, &observed, stop, log)
                .map_err(SiteError::Engine)?;
            changes.add(outcome, &plan);
        }
        store.record_peer_groups(&template.name, &self.boot)?;
        store.seal(&template.name)?;
        Ok(changes)
    }
}

/// Whether `plan` mounts the graft or one of its members, and whether its template is stale.
fn needs(plan: &Plan, graft: &Graft) -> (bool, bool) {
    let at = &graft.mount.target;
    let mut stale = false;
    let mut touched = false;
    for step in &plan.steps {
        match step {
            Step::Refresh(other) => stale |= other.mount.target == *at,
            Step::Attach { mount, .. } | Step::Swap { mount, .. } => {
                touched |= mount.target == *at
                    || graft.template.mounts.iter().any(|member| member.target == mount.target);
            }
            _ => {}
        }
    }
    (touched || stale, stale)
}

fn shown(template: &Template) -> Shown {
    let files = template.mounts.iter().map(|mount| mount.file).collect();
    (template.name.clone(), files)
}

/// The templates of the recorded grafts.
pub(crate) fn grafted(record: Option<&BootRecord>) -> HashSet<SiteName> {
    let mounts = record.into_iter().flat_map(|record| &record.mounts);
    mounts.filter_map(|mount| mount.template.clone()).collect()
}

/// Releases those of `templates` of which the site has no graft any more by its record.
pub(crate) fn release(
    store: &TemplateStore,
    state: &StateDir,
    boot: &BootId,
    site: &SiteName,
    templates: HashSet<SiteName>,
) -> Result<()> {
    if templates.is_empty() {
        return Ok(());
    }
    let still = grafted(state.read(site, boot)?.record.as_ref());
    store.release(templates.difference(&still), site)
}

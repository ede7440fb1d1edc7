//! What the sites of one run of `down` share, and what becomes of each.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::adopt;
use crate::base::sync::lock;
use crate::base::text::few;
use crate::base::{ErrorCode, ErrorContext, HostPath, SiteName};
use crate::engine::{Engine, Outcome};
use crate::observe::{self, BootId, CloneIds, Depth, Observed, Table};
use crate::resolve::Resolver;
use crate::site::context::Purpose;
use crate::site::fstab::FstabLines;
use crate::site::services::{Located, ServicePlace};
use crate::site::templates;
use crate::site::users::SiteUsers;
use crate::site::{Context, Site, SiteError};
use crate::sys::IfInUse;
use crate::{Error, Result};

/// How many targets are named.
const SHOWN: usize = 20;

/// The choices of a run.
#[derive(Clone, Copy)]
pub(crate) struct DownOptions {
    /// What becomes of mounts in use.
    pub if_in_use: IfInUse,
    /// Remove placeholders also from storage that hosts share.
    pub remove_placeholders: bool,
    /// Take away only mounts that are recorded, and none that looks like one of the site: it may be
    /// the host's, in the namespace of a service.
    pub only_recorded: bool,
}

/// What all sites of one run share.
pub(crate) struct TakeDown {
    pub(super) context: &'static Context,
    pub(super) options: DownOptions,
    pub(super) engine: Engine,
    pub(super) resolver: Arc<Resolver>,
    pub(super) boot: BootId,
    /// Read when the first site needs it, and again when it is not current any more.
    pub(super) table: Mutex<Option<Arc<Table>>>,
    /// The grafts of the sites, as far as they were known before the run.
    grafts: Vec<CloneIds>,
    /// The templates that each site held before the run, if they are removed at its end. `None`:
    /// they are removed with the last site that holds them.
    held: Option<HashMap<SiteName, Vec<SiteName>>>,
    /// The users of the sites, as of the last look.
    users: Mutex<Arc<SiteUsers>>,
    pub(super) fstab_lines: FstabLines,
}

/// A site that was taken down.
pub(crate) struct TakenDown {
    pub root: HostPath,
    pub outcome: Outcome,
    /// Whether anything was, or the site was recorded as up.
    pub changed: bool,
    /// Copies that were in the way of the mounts are still moved aside.
    pub has_copies_aside: bool,
}

impl TakenDown {
    /// Nothing was to be done in `root`.
    pub(super) fn nothing(root: HostPath) -> Self {
        Self {
            root,
            outcome: Outcome::default(),
            changed: false,
            has_copies_aside: false,
        }
    }
}

/// Why a site is not down.
pub(crate) enum DownError {
    Failed(SiteError),
    /// It is in use: an error, and a line per user. Nothing was changed.
    InUse(Box<Error>, Vec<String>),
}

impl Located for DownError {
    fn located(self, site: &SiteName, place: &ServicePlace) -> Self {
        match self {
            Self::Failed(failed) => Self::Failed(failed.located(site, place)),
            in_use @ Self::InUse(..) => in_use, // its users are named
        }
    }
}

impl<E: Into<SiteError>> From<E> for DownError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl TakeDown {
    /// For a run over that many sites.
    pub(crate) fn new(
        context: &'static Context,
        sites: usize,
        options: DownOptions,
    ) -> Result<Self> {
        let boot = observe::boot_id()?;
        Ok(Self {
            context,
            options,
            engine: context.engine(boot.clone(), sites, Purpose::Mount)?,
            resolver: Arc::new(context.resolver()?),
            boot,
            table: Mutex::default(),
            grafts: vec![],
            held: None,
            users: Mutex::default(),
            fstab_lines: FstabLines::default(),
        })
    }

    /// The same run, for sites that have these grafts.
    #[must_use]
    pub(crate) fn of_grafts(mut self, grafts: Vec<CloneIds>) -> Self {
        self.grafts = grafts;
        self.forget_users();
        self
    }

    /// The same run, which removes templates only at its end, by
    /// [`remove_templates`](Self::remove_templates).
    pub(crate) fn keeping_templates(mut self) -> Result<Self> {
        let mut held = HashMap::new();
        if self.has_templates() {
            held = self.engine.templates()?.held_by_sites();
        }
        self.held = Some(held);
        Ok(self)
    }

    /// Releases the templates of `site`, which had those that are `grafted`.
    pub(super) fn release_templates(
        &self,
        site: &SiteName,
        mut grafted: HashSet<SiteName>,
    ) -> Result<()> {
        let state = &self.context.state;
        let Some(held) = &self.held else {
            return templates::release_unused(&self.engine, state, &self.boot, site);
        };
        grafted.extend(held.get(site).into_iter().flatten().cloned());
        if grafted.is_empty() || !self.has_templates() {
            return Ok(());
        }
        if !state.lacks_record(site) {
            return templates::release_unused(&self.engine, state, &self.boot, site);
        }
        for template in &grafted {
            self.engine.templates()?.release(template, site)?;
        }
        Ok(())
    }

    /// Removes the templates that were kept and that no site holds any more.
    pub(crate) fn remove_templates(&self) -> Result<()> {
        if self.held.is_some() && self.has_templates() {
            self.engine.templates()?.remove_unheld()?;
        }
        Ok(())
    }

    fn has_templates(&self) -> bool {
        self.context.state.templates().run.exists()
    }

    /// Looks for users again when they are needed: they may have changed.
    pub(super) fn forget_users(&self) {
        let users = SiteUsers::of_grafts(self.grafts.clone());
        *lock(&self.users) = Arc::new(users);
    }

    /// Refuses to go on if the site is in use. With `--lazy` its users are only reported.
    pub(super) fn stop_if_in_use(
        &self,
        site: &Site,
        root: &HostPath,
        observed: &Observed,
        depth: Depth,
    ) -> Result<(), DownError> {
        let found = self.users().of(root, observed, depth).context(&site.name)?;
        if found.by.is_empty() {
            return Ok(());
        }
        if self.options.if_in_use == IfInUse::Detach {
            let out = self.context.out.site(&site.name);
            for user in &found.by {
                out.info(format_args!("left without the mounts: {user}"));
            }
            return Ok(());
        }
        let what = if found.targets.is_empty() {
            "in use by what runs inside".to_owned()
        } else {
            format!("in use: {}", few(&found.targets, SHOWN))
        };
        let error = Error::failed(format!("{}: {what}; nothing was unmounted", site.name))
            .at(root)
            .coded(ErrorCode::InUse)
            .hint("end what uses them, or detach them anyway with `mountjail down --lazy`");
        Err(DownError::InUse(Box::new(error), found.by))
    }

    pub(super) fn users(&self) -> Arc<SiteUsers> {
        Arc::clone(&lock(&self.users))
    }

    /// The mount table, in which what is below `root` is current: another mountjail may have had
    /// the site's lock since the table was read.
    pub(super) fn table(&self, root: &HostPath) -> Result<Arc<Table>> {
        let mut known = lock(&self.table);
        let current = known.take();
        let table = match current.filter(|table| table.is_current_below(root.as_path())) {
            Some(table) => table,
            None => Arc::new(Table::read()?),
        };
        Ok(Arc::clone(known.insert(table)))
    }
}

/// Whether copies that were in the way are moved aside in `root`.
pub(in crate::site) fn has_copies_aside(root: &HostPath) -> bool {
    match adopt::read(root) {
        Ok(Some(record)) => !record.moved.is_empty(),
        _ => false,
    }
}

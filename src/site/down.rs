//! One site taken down: what it uses is found and asked for before the first change.

use std::sync::{Arc, OnceLock};

use super::fstab_lines::FstabLines;
use super::pipeline::{self, lock};
use super::users::SiteUsers;
use super::{Context, Site, SiteError, configuration, select};
use crate::base::text::plural;
use crate::base::{HostPath, SiteName};
use crate::engine::{Engine, Outcome};
use crate::observe::{self, BootId, Depth, Observed, Records, Table};
use crate::plan::{self, Step};
use crate::resolve::{Desired, Host, Resolver};
use crate::{Error, Result, patience};

/// So many targets are named.
const SHOWN: usize = 20;

/// What a run does where it has a choice.
#[derive(Clone, Copy)]
pub(crate) struct DownOptions {
    /// Detach also what is in use.
    pub lazy: bool,
    /// Remove placeholders also from storage that hosts share.
    pub remove_placeholders: bool,
}

/// What all sites of one run share.
pub(crate) struct TakeDown {
    context: &'static Context,
    options: DownOptions,
    engine: Engine,
    resolver: Arc<Resolver>,
    boot: BootId,
    table: OnceLock<Table>,
    users: SiteUsers,
    fstab_lines: FstabLines,
}

/// Why a site is not down.
pub(crate) enum DownError {
    Failed(SiteError),
    /// It is in use: what says so, and a line for each user. Nothing was changed.
    InUse(Error, Vec<String>),
}

impl<E: Into<SiteError>> From<E> for DownError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl TakeDown {
    /// A run over `many` sites or one.
    pub(crate) fn new(context: &'static Context, many: bool, options: DownOptions) -> Result<Self> {
        let boot = observe::boot_id()?;
        Ok(Self {
            context,
            options,
            engine: context.engine(boot.clone(), many)?,
            resolver: Arc::new(context.resolver()?),
            boot,
            table: OnceLock::new(),
            users: SiteUsers::default(),
            fstab_lines: FstabLines::default(),
        })
    }

    /// Takes the site down. Returns its root and what was done.
    ///
    /// Errors: it is in use, or something of it could not be taken away.
    pub(crate) fn site(&self, site: &Site) -> Result<(HostPath, Outcome), DownError> {
        let named = |error: Error| error.context(&site.name);
        let _lock = lock(self.context, &self.engine, site)?;
        let records = self
            .context
            .state
            .read(&site.name, &self.boot)
            .map_err(named)?;
        for warning in &records.warnings {
            self.context
                .out
                .warn(format_args!("{}: {warning}", site.name));
        }
        let known = if records.record.is_none() {
            self.known(site)
        } else {
            None
        };
        let Some(root) = self.root(site, &records, known.as_ref())? else {
            return self.root_is_gone(site, records);
        };
        if let Some(recorded) = records.root().filter(|recorded| **recorded != root) {
            self.context.out.info(format_args!(
                "{}: the root {recorded} was moved to {root}",
                site.name
            ));
        }
        let records = records.moved_to(&root);
        let kept = records.kept.as_ref().filter(|kept| kept.root == root);
        let needed_by = self
            .fstab_lines
            .file_of(&site.name, kept.and_then(|kept| kept.fstab.as_ref()))
            .cloned();
        if let Some(file) = &needed_by {
            self.context.out.info(format_args!(
                "{}: what its lines in {file} mount on stays; `mountjail fstab --uninstall {}` removes it",
                site.name, site.name
            ));
        }
        let shared = observe::shared_storage(&root).map_err(named)?;
        let shared = shared.filter(|_| !self.options.remove_placeholders);
        let plan = |known: Option<&Desired>, observed: &Observed| {
            let plan = plan::down(site.name.clone(), root.clone(), known, observed);
            match (&needed_by, &shared) {
                (Some(_), _) => (plan.only_mounts(), None),
                (None, Some(kind)) => {
                    let left = stays_on(kind, &site.name, &root, plan.removals());
                    (plan.keeping_placeholders(), left)
                }
                (None, None) => (plan, None),
            }
        };
        let log = |line: std::fmt::Arguments<'_>| self.context.out.detail(line);
        // The usual case, for which the mount table need not be read.
        if let Some(observed) = observe::as_recorded(&records).filter(|_| !self.options.lazy) {
            self.stop_if_in_use(site, &root, &observed, Depth::BesidesKernel)?;
            let (plan, left) = plan(None, &observed);
            let done = self
                .engine
                .down_if_quiet(&plan, &observed, &log)
                .map_err(SiteError::Engine)?;
            if let Some(outcome) = done {
                return Ok((root, with(outcome, left)));
            }
        }
        let table = self.table()?;
        let look = |known: Option<Desired>| {
            let known = known.filter(|known| known.root == root);
            let desired =
                known.unwrap_or_else(|| Desired::nothing(site.name.clone(), root.clone()));
            let observed = observe::standing(&desired, records.clone(), table);
            let plan = plan(Some(&desired), &observed);
            (observed, plan)
        };
        let (mut observed, (mut plan, mut left)) = look(known);
        let unmounts = |step: &Step| matches!(step, Step::Detach { .. } | Step::DetachStray(_));
        let recorded = records
            .record
            .as_ref()
            .is_some_and(|record| !record.mounts.is_empty());
        if recorded && !plan.steps.iter().any(unmounts) {
            // A record that nothing there agrees with is as good as lost, as one from another mount
            // namespace is.
            (observed, (plan, left)) = look(self.known(site));
        }
        if plan.steps.iter().any(unmounts) {
            self.stop_if_in_use(site, &root, &observed, Depth::All)?;
        }
        let outcome = self
            .engine
            .down(&plan, &observed, self.options.lazy, &log)
            .map_err(SiteError::Engine)?;
        Ok((root, with(outcome, left)))
    }

    /// Before the first change: who uses the site. With --lazy it is only said whom it leaves
    /// without the mounts.
    fn stop_if_in_use(
        &self,
        site: &Site,
        root: &HostPath,
        observed: &Observed,
        depth: Depth,
    ) -> Result<(), DownError> {
        let found = self
            .users
            .of(root, observed, depth)
            .map_err(|error| error.context(&site.name))?;
        if found.by.is_empty() {
            return Ok(());
        }
        if self.options.lazy {
            for user in &found.by {
                self.context.out.info(format_args!(
                    "{}: left without the mounts: {user}",
                    site.name
                ));
            }
            return Ok(());
        }
        let targets: Vec<_> = found
            .targets
            .iter()
            .take(SHOWN)
            .map(ToString::to_string)
            .collect();
        let more = found.targets.len() - targets.len();
        let what = match (targets.is_empty(), more) {
            (true, _) => "in use by what runs inside".to_owned(),
            (false, 0) => format!("in use: {}", targets.join(", ")),
            (false, more) => format!("in use: {} and {more} more", targets.join(", ")),
        };
        let error = Error::failed(format!("{}: {what}; nothing was unmounted", site.name))
            .hint("end what uses them, or detach them all the same with `mountjail down --lazy`");
        Err(DownError::InUse(error, found.by))
    }

    /// The mount table, read when the first site asks for it.
    fn table(&self) -> Result<&Table> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = Table::read()?;
        Ok(self.table.get_or_init(|| table))
    }

    /// A root that is nowhere was removed, or is on a disk that is not mounted now: what was made
    /// in it stays recorded.
    fn root_is_gone(
        &self,
        site: &Site,
        records: Records,
    ) -> Result<(HostPath, Outcome), DownError> {
        let named = |error: Error| error.context(&site.name);
        let root = records
            .root()
            .cloned()
            .or_else(|| configuration::root_of(site))
            .unwrap_or_else(HostPath::slash);
        let nothing = Desired::nothing(site.name.clone(), root.clone());
        let observed = observe::standing(&nothing, records, &Table::default());
        if !observed.strays.is_empty() {
            self.stop_if_in_use(site, &root, &observed, Depth::All)?;
        }
        let detached = self
            .engine
            .down_without_root(&site.name, &root, &observed)
            .map_err(named)?;
        if observed.kept.is_some_and(|kept| !kept.made.is_empty()) {
            self.context.out.warn(format_args!(
                "{}: the root {root} is not there; `down` removes what mountjail made in it when it is there again, and \
                 `up` forgets it when the manifest names another root",
                site.name
            ));
        }
        Ok((
            root,
            Outcome {
                detached,
                ..Outcome::default()
            },
        ))
    }

    /// What the manifest asks for, to recognise mounts whose record is lost. Sources that do not
    /// answer keep no site up: then only what is recorded is ours.
    fn known(&self, site: &Site) -> Option<Desired> {
        let (context, resolver) = (self.context.again(), self.resolver.clone());
        let limit = self
            .context
            .limit
            .map(|limit| (limit / 2).min(patience::SHORT));
        let desired = move |site: &Site| pipeline::desired(&context, &resolver, site).ok();
        let found = patience::each_within(vec![site.clone()], limit, desired)
            .pop()
            .flatten();
        if found.is_none() {
            self.context.out.info(format_args!(
                "{}: its sources do not answer; mounts that no record tells of are not recognised",
                site.name
            ));
        }
        found.flatten()
    }

    /// Where the site is; `None`: its root is nowhere, so nothing can be in it.
    fn root(
        &self,
        site: &Site,
        records: &Records,
        known: Option<&Desired>,
    ) -> Result<Option<HostPath>, SiteError> {
        if records.root().is_some() {
            let manifest = || Some(Host::new().walk(&configuration::root_of(site)?).ok()?.real);
            return Ok(records.home(manifest));
        }
        if let Some(known) = known {
            return Ok(Some(known.root.clone()));
        }
        // Neither recorded nor resolvable: a site that is not there is an error, one with a wrong
        // manifest has nothing that could be recognised as ours.
        let manifest = select::load(self.context, site).map_err(SiteError::Manifest)?;
        Ok(Host::new().walk(&manifest.root).ok().map(|walk| walk.real))
    }
}

fn with(mut outcome: Outcome, left: Option<String>) -> Outcome {
    outcome.left.extend(left);
    outcome
}

/// What is said of the `count` placeholders that stay on storage of this kind.
fn stays_on(kind: &str, site: &SiteName, root: &HostPath, count: usize) -> Option<String> {
    let what = plural(count, "placeholder");
    (count > 0).then(|| {
        format!(
            "{what} in {root} stay: it is on {kind}, which other hosts may have mounted, and to remove one takes the \
             mount on it away there as well; when the site is down on all of them: `mountjail down --remove-placeholders \
             {site}`"
        )
    })
}

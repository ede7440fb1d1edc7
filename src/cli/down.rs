//! `mountjail down`: take it away.

use std::sync::{Arc, OnceLock};

use clap::Args;
use serde_json::{Value, json};

use super::context::{Context, is_set, stop_flag};
use super::fstab::Needs;
use super::out::worst;
use super::sites::{self, Site};
use super::users::Users;
use super::work::{self, Failed, lock, plural};
use super::{Which, parallel};
use crate::engine::{Engine, Outcome};
use crate::manifest::{HostPath, SiteName};
use crate::observe::{self, BootId, Depth, Observed, Records, Table};
use crate::patience::{self, Stop};
use crate::plan::{self, Step};
use crate::resolve::{Desired, Host, Resolver};
use crate::{Error, Result};

/// An unmount waits for a grace period of the kernel's, outside of any lock: threads wait together.
const THREADS: usize = 32;

/// Unmount what mountjail mounted and remove what it made, nothing else
///
/// Works from the records, so also for a site whose manifest is gone, or whose root was moved.
/// While processes use the mounts, in whatever mount namespace, or run inside, it names them and
/// changes nothing. A running PHP-FPM with a pool that has the site's root counts as well.
///
/// On storage that other hosts may have mounted (NFS and its kind) what mountjail made in the root
/// stays: to remove a placeholder there takes the mount on it away in every other kernel.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  mountjail down site1\n  mountjail down --all --lazy")]
pub(super) struct Down {
    #[command(flatten)]
    which: Which,
    /// Detach also what is in use: it vanishes when its last user ends
    #[arg(long)]
    lazy: bool,
    /// Remove also what was made on storage that hosts share: when the site is down on all of them
    #[arg(long)]
    remove_placeholders: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Down {
    pub(super) fn run(&self, context: &'static Context<'static>) -> anyhow::Result<u8> {
        let sites = self.sites(context)?;
        let stop = stop_flag()?;
        let boot = observe::boot_id()?;
        let engine = context.engine(boot.clone(), sites.len() > 1)?;
        let resolver = Arc::new(context.resolver()?);
        let run = Arc::new(Run {
            arguments: self.clone(),
            context,
            engine,
            resolver,
            boot,
            table: OnceLock::new(),
            users: Users::default(),
            needs: Needs::default(),
        });
        context.out.progress(sites.len());
        let each = run.clone();
        let down = move |site: &Site, _: &Stop| each.site(site);
        let results = parallel::each(context, &sites, THREADS, &stop, down);
        let begun = results.len();
        let (mut codes, json): (Vec<_>, Vec<_>) = sites
            .iter()
            .zip(results)
            .map(|(site, result)| run.report(site, result))
            .unzip();
        if is_set(&stop) && begun < sites.len() {
            let rest = plural(sites.len() - begun, "site");
            context.out.error(&Error::interrupted(format!(
                "stopped by a signal; {rest} not begun"
            )));
            codes.push(1);
        }
        let code = worst(codes);
        if self.json {
            return Ok(context
                .out
                .print_and(format!("{:#}\n", json!({ "sites": json })), code));
        }
        Ok(code)
    }

    /// With --all also those that only the records know, of this configuration.
    fn sites(&self, context: &'static Context<'static>) -> Result<Vec<Site>> {
        if !self.which.all {
            return sites::which(context, &self.which);
        }
        let recorded = context.state.recorded_sites();
        let mut sites = match sites::all(context) {
            Err(_) if !recorded.is_empty() => vec![],
            result => result?,
        };
        for name in recorded {
            if sites.iter().all(|site| site.name != name) {
                sites.push(sites::one(context, name.as_str())?);
            }
        }
        let boot = observe::boot_id()?;
        let look = move |site: &Site| sites::of_another_configuration(context, site, &boot);
        let others = patience::each_within(sites.clone(), Some(patience::SHORT), look);
        let goes = |(site, other): (Site, Option<Option<String>>)| {
            match &other {
                Some(None) => return Some(site),
                Some(Some(why)) => context.out.warn(format_args!("{}: left: {why}", site.name)),
                None => context.out.error_aside(&unknown_configuration(&site)),
            }
            None
        };
        Ok(sites.into_iter().zip(others).filter_map(goes).collect())
    }
}

/// The manifest that brought the site up, or the one that it has here, cannot be looked at.
fn unknown_configuration(site: &Site) -> Error {
    let name = &site.name;
    Error::silent(format!(
        "{name}: left: its manifest does not answer, so whether this configuration brought it up \
         is not known"
    ))
    .hint(format!(
        "`mountjail down {name}` takes it away all the same"
    ))
}

struct Run {
    arguments: Down,
    context: &'static Context<'static>,
    engine: Engine,
    resolver: Arc<Resolver>,
    boot: BootId,
    table: OnceLock<Table>,
    users: Users,
    needs: Needs,
}

/// Why a site is not down.
enum Stays {
    Failed(Failed),
    /// It is in use: what says so, and a line for each user. Nothing was changed.
    InUse(Error, Vec<String>),
}

impl<E: Into<Failed>> From<E> for Stays {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Run {
    fn site(&self, site: &Site) -> Result<(HostPath, Outcome), Stays> {
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
            .needs
            .file_of(&site.name, kept.and_then(|kept| kept.fstab.as_ref()))
            .cloned();
        if let Some(file) = &needed_by {
            self.context.out.info(format_args!(
                "{}: what its lines in {file} mount on stays; `mountjail fstab --uninstall {}` removes it",
                site.name, site.name
            ));
        }
        let shared = observe::shared_storage(&root).map_err(named)?;
        let shared = shared.filter(|_| !self.arguments.remove_placeholders);
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
        if let Some(observed) = observe::as_recorded(&records).filter(|_| !self.arguments.lazy) {
            self.stop_if_in_use(site, &root, &observed, Depth::BesidesKernel)?;
            let (plan, left) = plan(None, &observed);
            let done = self
                .engine
                .down_if_quiet(&plan, &observed, &log)
                .map_err(Failed::Engine)?;
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
            .down(&plan, &observed, self.arguments.lazy, &log)
            .map_err(Failed::Engine)?;
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
    ) -> Result<(), Stays> {
        let found = self
            .users
            .of(root, observed, depth)
            .map_err(|error| error.context(&site.name))?;
        if found.by.is_empty() {
            return Ok(());
        }
        if self.arguments.lazy {
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
        Err(Stays::InUse(error, found.by))
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
    fn root_is_gone(&self, site: &Site, records: Records) -> Result<(HostPath, Outcome), Stays> {
        let named = |error: Error| error.context(&site.name);
        let root = records
            .root()
            .cloned()
            .or_else(|| sites::root_of(site))
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
        let desired = move |site: &Site| work::desired(&context, &resolver, site).ok();
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
    ) -> Result<Option<HostPath>, Failed> {
        if records.root().is_some() {
            let manifest = || Some(Host::new().walk(&sites::root_of(site)?).ok()?.real);
            return Ok(records.home(manifest));
        }
        if let Some(known) = known {
            return Ok(Some(known.root.clone()));
        }
        // Neither recorded nor resolvable: a site that is not there is an error, one with a wrong
        // manifest has nothing that could be recognised as ours.
        let manifest = sites::load(self.context, site).map_err(Failed::Manifest)?;
        Ok(Host::new().walk(&manifest.root).ok().map(|walk| walk.real))
    }

    /// Says how it went; gives the exit code and the same as JSON.
    fn report(&self, site: &Site, result: Result<(HostPath, Outcome), Stays>) -> (u8, Value) {
        let out = self.context.out;
        match result {
            Ok((root, outcome)) => {
                for left in &outcome.left {
                    out.warn(format_args!("{}: {left}", site.name));
                }
                match outcome.detached {
                    0 => out.info(format_args!("{}: down; nothing was mounted", site.name)),
                    count => {
                        out.info(format_args!(
                            "{}: down, {} detached",
                            site.name,
                            plural(count, "mount")
                        ));
                    }
                }
                let json = json!({
                    "site": site.name, "root": root, "down": true, "detached": outcome.detached, "left": outcome.left,
                });
                (0, json)
            }
            Err(Stays::InUse(error, by)) => {
                out.error(&error);
                let by: Vec<_> = by.iter().map(|user| format!("used by {user}")).collect();
                for line in by.iter().take(SHOWN) {
                    out.info(format_args!("{}: {line}", site.name));
                }
                if by.len() > SHOWN {
                    let more = plural(by.len() - SHOWN, "more user");
                    out.info(format_args!("{}: and {more}; --json lists all", site.name));
                }
                let errors: Vec<_> = [error.to_string()].into_iter().chain(by).collect();
                (
                    error.exit_code(),
                    json!({ "site": site.name, "down": false, "errors": errors }),
                )
            }
            Err(Stays::Failed(failed)) => {
                let (code, errors) = failed.report(self.context, site);
                if matches!(&failed, Failed::Engine(failure) if failure.busy) {
                    out.info(format_args!(
                        "{}: no process shows it: one that began just now uses them, or the kernel (a loop device, a swap \
                         file, an export)",
                        site.name
                    ));
                }
                (
                    code,
                    json!({ "site": site.name, "down": false, "errors": errors }),
                )
            }
        }
    }
}

/// So many users, and so many targets, are named.
const SHOWN: usize = 20;

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

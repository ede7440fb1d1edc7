//! `mountjail down`: take it away.

use std::sync::OnceLock;

use clap::Args;
use serde_json::{Value, json};

use super::context::{Context, is_set, stop_flag};
use super::fstab::Needs;
use super::out::worst;
use super::sites::{self, Site};
use super::work::{self, Failed, lock, plural};
use super::{Which, parallel};
use crate::engine::{Engine, Failure, Outcome};
use crate::manifest::HostPath;
use crate::observe::{self, BootId, Observed, Records, Table};
use crate::plan::{self, Plan, Step};
use crate::resolve::{Desired, Host, Resolver};
use crate::{Error, Result};

/// An unmount waits for a grace period of the kernel's, outside of any lock: threads wait together.
const THREADS: usize = 32;

/// Unmount what mountjail mounted and remove what it made, nothing else
///
/// Works from the records, so also for a site whose manifest is gone. While processes use the mounts it
/// names them and stops.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail down site1\n  mountjail down --all --lazy")]
pub(super) struct Down {
    #[command(flatten)]
    which: Which,
    /// Detach also what is in use: it vanishes when its last user ends
    #[arg(long)]
    lazy: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Down {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        let sites = self.sites(context)?;
        let stop = stop_flag()?;
        let boot = observe::boot_id()?;
        let engine = context.engine(boot.clone(), sites.len() > 1)?;
        let resolver = context.resolver()?;
        let (table, needs) = (OnceLock::new(), Needs::default());
        let run = Run { context, engine, resolver, boot, table, lazy: self.lazy, needs };
        context.out.progress(sites.len());
        let results = parallel::each(&sites, THREADS, &stop, context.out, |site| run.site(site));
        let begun = results.len();
        let (mut codes, json): (Vec<_>, Vec<_>) =
            sites.iter().zip(results).map(|(site, result)| run.report(site, result)).unzip();
        if is_set(&stop) && begun < sites.len() {
            let rest = plural(sites.len() - begun, "site");
            context.out.error(&Error::interrupted(format!("stopped by a signal; {rest} not begun")));
            codes.push(1);
        }
        let code = worst(codes);
        if self.json {
            return Ok(context.out.print_and(format!("{:#}\n", json!({ "sites": json })), code));
        }
        Ok(code)
    }

    /// With --all also those that only the records know, of this configuration.
    fn sites(&self, context: &Context<'_>) -> Result<Vec<Site>> {
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
        sites.retain(|site| match sites::of_another_configuration(context, site, &boot) {
            Some(why) => {
                context.out.warn(format_args!("{}: left: {why}", site.name));
                false
            }
            None => true,
        });
        Ok(sites)
    }
}

struct Run<'c> {
    context: &'c Context<'c>,
    engine: Engine,
    resolver: Resolver<'c>,
    boot: BootId,
    table: OnceLock<Table>,
    lazy: bool,
    needs: Needs,
}

impl Run<'_> {
    fn site(&self, site: &Site) -> Result<(HostPath, Outcome), Failed> {
        let named = |error: Error| error.context(&site.name);
        let _lock = lock(self.context, &self.engine, site)?;
        let records = self.context.state.read(&site.name, &self.boot).map_err(named)?;
        for warning in &records.warnings {
            self.context.out.warn(format_args!("{}: {warning}", site.name));
        }
        let known = if records.record.is_none() { self.known(site) } else { None };
        let Some(root) = self.root(site, &records, known.as_ref())? else {
            return self.root_is_gone(site, records).map_err(|error| named(error).into());
        };
        let kept = records.kept.as_ref().filter(|kept| kept.root == root);
        let needed_by = self.needs.file_of(&site.name, kept.and_then(|kept| kept.fstab.as_ref())).cloned();
        if let Some(file) = &needed_by {
            self.context.out.info(format_args!(
                "{}: what its lines in {file} mount on stays; `mountjail fstab --uninstall {}` removes it",
                site.name, site.name
            ));
        }
        let plan = |known: Option<&Desired>, observed: &Observed| {
            let plan = plan::down(site.name.clone(), root.clone(), known, observed);
            if needed_by.is_some() { plan.only_mounts() } else { plan }
        };
        let log = |line: std::fmt::Arguments<'_>| self.context.out.detail(line);
        // The usual case, for which the mount table need not be read.
        if let Some(observed) = observe::as_recorded(&records).filter(|_| !self.lazy) {
            let done = self.engine.down_if_quiet(&plan(None, &observed), &observed, &log);
            if let Some(outcome) = done.map_err(Failed::Engine)? {
                return Ok((root, outcome));
            }
        }
        let table = self.table()?;
        let look = |known: Option<Desired>| -> Result<(Observed, Plan)> {
            let known = known.filter(|known| known.root == root);
            let desired = known.unwrap_or_else(|| Desired::nothing(site.name.clone(), root.clone()));
            let observed = observe::observe(&desired, records.clone(), Some(table)).map_err(named)?;
            let plan = plan(Some(&desired), &observed);
            Ok((observed, plan))
        };
        let (mut observed, mut plan) = look(known)?;
        let unmounts = |step: &Step| matches!(step, Step::Detach { .. } | Step::DetachStray(_));
        let recorded = records.record.as_ref().is_some_and(|record| !record.mounts.is_empty());
        if recorded && !plan.steps.iter().any(unmounts) {
            // A record that nothing there agrees with is as good as lost, as one from another mount namespace is.
            (observed, plan) = look(self.known(site))?;
        }
        let outcome = self.engine.down(&plan, &observed, self.lazy, &log).map_err(Failed::Engine)?;
        Ok((root, outcome))
    }

    /// The mount table, read when the first site asks for it.
    fn table(&self) -> Result<&Table> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = Table::read()?;
        Ok(self.table.get_or_init(|| table))
    }

    /// A root that is not there was moved away, with its mounts, or is on a disk that is not mounted now: what was
    /// made in it stays recorded.
    fn root_is_gone(&self, site: &Site, records: Records) -> Result<(HostPath, Outcome)> {
        let root = records.root().cloned().or_else(|| sites::root_of(site)).unwrap_or_else(HostPath::slash);
        let nothing = Desired::nothing(site.name.clone(), root.clone());
        let observed = observe::observe(&nothing, records, Some(&Table::default()))?;
        let detached = self.engine.down_without_root(&site.name, &root, &observed)?;
        if observed.kept.is_some() {
            self.context.out.warn(format_args!(
                "{}: the root {root} is not there; what mountjail made in it stays recorded in {} (if the root is \
                 gone for good, remove that file)",
                site.name,
                self.context.state.kept(&site.name).display()
            ));
        }
        Ok((root, Outcome { detached, ..Outcome::default() }))
    }

    /// What the manifest asks for, to recognise mounts whose record is lost.
    fn known(&self, site: &Site) -> Option<Desired> {
        work::desired(self.context, &self.resolver, site).ok()
    }

    /// Where the site is; `None`: its root is nowhere, so nothing can be in it.
    fn root(
        &self,
        site: &Site,
        records: &Records,
        known: Option<&Desired>,
    ) -> Result<Option<HostPath>, Failed> {
        if let Some(root) = records.root() {
            return Ok(std::fs::symlink_metadata(root).is_ok().then(|| root.clone()));
        }
        if let Some(known) = known {
            return Ok(Some(known.root.clone()));
        }
        // Neither recorded nor resolvable: a site that is not there is an error, one with a wrong manifest
        // has nothing that could be recognised as ours.
        let manifest = sites::load(self.context, site).map_err(Failed::Manifest)?;
        Ok(Host::new().walk(&manifest.root).ok().map(|walk| walk.real))
    }

    /// Says how it went; gives the exit code and the same as JSON.
    fn report(&self, site: &Site, result: Result<(HostPath, Outcome), Failed>) -> (u8, Value) {
        let out = self.context.out;
        match result {
            Ok((root, outcome)) => {
                for left in &outcome.left {
                    out.warn(format_args!("{}: {left}", site.name));
                }
                match outcome.detached {
                    0 => out.info(format_args!("{}: down; nothing was mounted", site.name)),
                    count => {
                        out.info(format_args!("{}: down, {} detached", site.name, plural(count, "mount")));
                    }
                }
                let json = json!({
                    "site": site.name, "root": root, "down": true, "detached": outcome.detached, "left": outcome.left,
                });
                (0, json)
            }
            Err(failed) => {
                let (code, mut errors) = failed.report(self.context, site);
                if let Failed::Engine(failure) = &failed {
                    errors.extend(self.name_holders(site, failure));
                }
                (code, json!({ "site": site.name, "down": false, "errors": errors }))
            }
        }
    }

    fn name_holders(&self, site: &Site, failure: &Failure) -> Vec<String> {
        if !failure.busy {
            return vec![];
        }
        let records = self.context.state.read(&site.name, &self.boot).unwrap_or_default();
        let Some(root) = records.root().cloned().or_else(|| sites::root_of(site)) else { return vec![] };
        let used: Vec<_> =
            observe::holders(&root).iter().map(|process| format!("used by {process}")).collect();
        for line in &used {
            self.context.out.info(format_args!("{}: {line}", site.name));
        }
        if used.is_empty() {
            let why =
                "no process of this pid namespace shows it: another mount namespace or the kernel uses them";
            self.context.out.info(format_args!("{}: {why}", site.name));
        }
        used
    }
}

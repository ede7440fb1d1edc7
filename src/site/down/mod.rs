//! One site taken down: its users are looked for, and asked to end, before the first change.

mod one_site;
mod placeholders;
mod run;

use std::collections::BTreeSet;
use std::path::PathBuf;

use self::one_site::Down;
pub(super) use self::run::has_copies_aside;
pub(crate) use self::run::{DownError, DownOptions, TakeDown, TakenDown};
use super::bring_up::lock;
use super::pipeline;
use super::select::known_to_be_brought_up_by;
use super::templates;
use super::{Site, SiteError, load, manifest_file};
use crate::Result;
use crate::base::quote::shell_path;
use crate::base::text::few;
use crate::base::{ErrorContext, HostPath, SiteName};
use crate::engine::{Outcome, SiteLock};
use crate::observe::{self, Depth, KnownGraft, Observed, SiteRecords, Table};
use crate::patience::{self, Stop};
use crate::plan::{self, Plan, State, Step};
use crate::resolve::{Desired, FileKind, Host};
use crate::sys::IfInUse;

/// How many mounts are named that may be left of a killed run.
const SHOWN: usize = 20;

impl TakeDown {
    /// Takes the site down.
    ///
    /// Errors: it is in use, or some of it could not be taken away.
    pub(crate) fn site(&self, site: &Site, stop: &Stop) -> Result<TakenDown, DownError> {
        // Lock: another mountjail finishes its work on the site first.
        let lock = self.lock(site, stop)?;
        self.locked(site, &lock)
    }

    /// Takes the site down, whose lock is held.
    pub(crate) fn locked(&self, site: &Site, lock: &SiteLock) -> Result<TakenDown, DownError> {
        if lock.is_from_another() {
            self.forget_users();
        }
        self.without_lock(site)
    }

    /// As [`locked`](Self::locked), where the caller has the lock.
    pub(super) fn without_lock(&self, site: &Site) -> Result<TakenDown, DownError> {
        let records = self.records(site)?;
        let grafted = templates::grafted(records.record.as_ref());
        let taken_down = self.take_down(site, records)?;
        self.release_templates(&site.name, grafted)
            .context(&site.name)?;
        Ok(taken_down)
    }

    /// The steps that would take the site down.
    ///
    /// Errors: it is in use, and is not to be taken down then.
    pub(crate) fn look(&self, site: &Site) -> Result<Plan, DownError> {
        let records = self.records(site)?;
        let desired = self.desired(site);
        let Some(root) = self.root(site, &records, desired.as_ref())? else {
            let root = match records.root() {
                Some(root) => root.clone(),
                None => HostPath::slash(),
            };
            let nothing = Observed::default();
            return Ok(plan::down(&site.name, &root, None, &nothing));
        };
        let down = Down::new(self, site, root, records)?;
        let (observed, plan) = down.observe_and_plan(desired)?;
        if unmounts(&plan) && self.options.if_in_use == IfInUse::Fail {
            down.stop_if_in_use(&observed, Depth::All)?;
        }
        Ok(down.keep_placeholders(plan).0)
    }

    /// Takes the lock of the site.
    pub(crate) fn lock(&self, site: &Site, stop: &Stop) -> Result<SiteLock> {
        lock(self.context, &self.engine, &site.name, stop)
    }

    /// Takes away what is seen of the site, then what that has hidden.
    fn take_down(&self, site: &Site, records: SiteRecords) -> Result<TakenDown, DownError> {
        let first = self.take_down_what_is_seen(site, records)?;
        if first.outcome.detached == 0 || self.context.state.lacks_record(&site.name) {
            return Ok(first);
        }
        let mut rest = self.take_down(site, self.records(site)?)?;
        rest.outcome.detached += first.outcome.detached;
        rest.outcome.left.splice(..0, first.outcome.left);
        Ok(rest)
    }

    fn take_down_what_is_seen(
        &self,
        site: &Site,
        records: SiteRecords,
    ) -> Result<TakenDown, DownError> {
        // Load: if the records are lost, what the manifest asks for.
        let desired = match records.record {
            Some(_) if !records.lack_members() => None,
            _ => self.desired(site),
        };
        let Some(root) = self.root(site, &records, desired.as_ref())? else {
            return self.without_root(site, records);
        };
        if records.record.is_none()
            && let Some(other) = self.set_up_as(&site.name, &root)
        {
            self.context.out.site(&site.name).warn(format_args!(
                "the mounts in {root} belong to the site {other}: `mountjail down {other}`"
            ));
            return Ok(TakenDown::nothing(root));
        }
        if let Some(other) = known_to_be_brought_up_by(site, &records) {
            let out = self.context.out.site(&site.name);
            out.warn(format_args!("{other}, and not this configuration"));
        }
        let grafts = records.grafts.clone();
        let down = Down::new(self, site, root, records)?;

        // Carry out what is recorded, if nothing else is there. This is the usual case, for which
        // the mount table need not be read.
        if let Some((outcome, steps)) = down.as_recorded()? {
            return Ok(down.done(outcome, steps));
        }

        // Observe and plan: the mounts of the site that are in the mount table.
        let (mut observed, mut plan) = down.observe_and_plan(desired)?;
        let may_be_lost = down.has_recorded_mounts() && !unmounts(&plan);
        if may_be_lost && !self.options.only_recorded {
            // A record that nothing agrees with, such as one from another mount namespace, is as
            // good as lost.
            (observed, plan) = down.observe_and_plan(self.desired(site))?;
        }

        if has_foreign(&plan) && self.were_changed(site, &grafts)? {
            // It is not foreign: another run made it.
            return self.take_down(site, self.records(site)?);
        }

        // Carry out: unless the site is in use.
        if unmounts(&plan) {
            down.stop_if_in_use(&observed, Depth::All)?;
        }
        let (plan, stays) = down.keep_placeholders(plan);
        let log = self.context.out.site(&plan.site).log();
        let mut outcome = self
            .engine
            .down(&plan, &observed, self.options.if_in_use, &log)
            .map_err(SiteError::Engine)?;
        outcome.left.extend(stays);
        Ok(down.done(outcome, plan.steps.len()))
    }

    /// Whether another run changed a template of the site after these `grafts` were known.
    fn were_changed(&self, site: &Site, grafts: &[KnownGraft]) -> Result<bool> {
        let records = self.context.state.read(&site.name, &self.boot);
        Ok(records.context(&site.name)?.grafts != grafts)
    }

    fn records(&self, site: &Site) -> Result<SiteRecords> {
        let records = self.context.state.read(&site.name, &self.boot);
        let records = records.and_then(SiteRecords::with_ids);
        let records = records.context(&site.name)?;
        for warning in &records.warnings {
            self.context.out.site(&site.name).warn(warning);
        }
        let suspects = records.suspects();
        self.report_suspects(site, suspects.context(&site.name)?);
        Ok(records)
    }

    /// Names the mounts that may be the site's, and that nothing shows to be. Those in the roots of
    /// other sites are theirs.
    fn report_suspects(&self, site: &Site, mut suspects: BTreeSet<PathBuf>) {
        if suspects.is_empty() {
            return;
        }
        let state = &self.context.state;
        for name in state.recorded_sites().unwrap_or_default() {
            if name != site.name
                && let Ok(records) = state.read(&name, &self.boot)
                && let Some(root) = records.root()
            {
                suspects.retain(|point| !point.starts_with(root));
            }
        }
        let mut points = vec![];
        for point in &suspects {
            points.push(shell_path(point));
        }
        if !points.is_empty() {
            self.context.out.site(&site.name).warn(format_args!(
                "a run was killed before it recorded what it had mounted, and the root was moved \
                 since: these may be left of it, unmount them if so: {}",
                few(&points, SHOWN)
            ));
        }
    }

    /// The mounts of the manifest, to recognise mounts whose record is lost. A source that does not
    /// answer does not keep the site up: then only what is recorded counts as mountjail's.
    fn desired(&self, site: &Site) -> Option<Desired> {
        let limit = self.context.limit;
        let limit = limit.map(|limit| (limit / 2).min(patience::SHORT));
        let (context, resolver) = (self.context.clone(), self.resolver.clone());
        let resolve = move |site: &Site| {
            let manifest = load::manifest(&context, site).ok()?;
            pipeline::resolve(&context, &resolver, &manifest).ok()
        };
        let mut answers = patience::each_within(vec![site.clone()], limit, resolve);
        let answer = answers.pop().flatten();
        if answer.is_none() {
            self.context
                .out
                .site(&site.name)
                .info("its sources do not answer; mounts that are not recorded are not recognised");
        }
        answer.flatten()
    }

    /// Where the site is; `None`: there is no such directory, so nothing can be in it.
    fn root(
        &self,
        site: &Site,
        records: &SiteRecords,
        desired: Option<&Desired>,
    ) -> Result<Option<HostPath>, SiteError> {
        if records.root().is_some() {
            return Ok(records.home(|| real_root(&manifest_file::root_of(site)?)));
        }
        if let Some(desired) = desired {
            return Ok(Some(desired.root.clone()));
        }
        // Neither recorded nor resolvable: a site without a manifest is an error; of one whose
        // manifest has mistakes, nothing could be recognised.
        let manifest = load::manifest(self.context, site)?;
        Ok(real_root(&manifest.root))
    }

    /// Takes down a site whose root does not exist: it was removed, or is on a disk that is not
    /// mounted now. The record of all that was made in it stays.
    fn without_root(&self, site: &Site, records: SiteRecords) -> Result<TakenDown, DownError> {
        let root = match records.root() {
            Some(root) => root.clone(),
            None => manifest_file::root_of(site).unwrap_or_else(HostPath::slash),
        };
        let was_up = records.record.is_some();
        let nothing = Desired::nothing(&site.name, &root);
        let observed = observe::standing(&nothing, records, &Table::default());
        if !observed.strays.is_empty() {
            self.stop_if_in_use(site, &root, &observed, Depth::All)?;
        }
        let detached = self
            .engine
            .down_without_root(&site.name, &root, &observed)
            .context(&site.name)?;
        if let Some(kept) = &observed.kept
            && !kept.made.is_empty()
        {
            self.context.out.site(&site.name).warn(format_args!(
                "the root {root} does not exist, or another directory is in its place, as when \
                 its disk is not mounted; `down` removes what mountjail made in it once it is \
                 back, and `up` forgets it once the manifest names another root"
            ));
        }
        let outcome = Outcome {
            detached,
            ..Outcome::default()
        };
        Ok(TakenDown {
            changed: detached > 0 || was_up,
            outcome,
            ..TakenDown::nothing(root)
        })
    }

    /// The other site that is up in the directory `root`, by whatever path.
    fn set_up_as(&self, site: &SiteName, root: &HostPath) -> Option<SiteName> {
        let mut overlaps = self.context.roots().overlaps(site, root).into_iter();
        let is_up = |site: &SiteName| {
            let records = self.context.state.read(site, &self.boot);
            records.is_ok_and(|records| records.record.is_some())
        };
        let other = overlaps.find(|other| other.is_same() && is_up(&other.site))?;
        Some(other.site)
    }
}

/// The root without links, if it is a directory.
fn real_root(root: &HostPath) -> Option<HostPath> {
    let walk = Host::new().walk(root).ok()?;
    (walk.stat.kind == FileKind::Directory).then_some(walk.real)
}

fn unmounts(plan: &Plan) -> bool {
    let mut steps = plan.steps.iter();
    steps.any(|step| matches!(step, Step::Detach { .. } | Step::DetachStray(_)))
}

fn has_foreign(plan: &Plan) -> bool {
    let mut states = plan.states.iter();
    states.any(|seen| matches!(seen.state, State::Foreign | State::Shadowed))
}

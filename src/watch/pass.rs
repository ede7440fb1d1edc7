//! One pass over some sites: it does what `up` does, for the sites that are up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::grace::{self, Retained};
use super::index::Dependent;
use super::pass_result::{PassResult, RecordId};
use crate::base::sync::processors;
use crate::base::{ErrorContext, HostPath, JailPath, SiteName};
use crate::engine::SiteLock;
use crate::manifest::{Manifest, Scope};
use crate::observe::{self, NamespaceDirectories, SiteRecords};
use crate::patience::{Crew, Stop};
use crate::resolve::{Aspect, Dependencies, Desired, Host, Resolution};
use crate::site::bring_up::{BringUp, lock};
use crate::site::context::Context;
use crate::site::pipeline::MountLookup;
use crate::site::services::{Located, Namespaces};
use crate::site::up::{Change, Changes, Done};
use crate::site::{ManifestError, Site, SiteError, configuration, instances};
use crate::{Error, Result};

/// The threads of a pass over sites without templates. Each of them has mounts to detach, which
/// waits for the kernel's RCU grace period, outside of any lock: many threads can wait at the same
/// time.
const THREADS_TO_DETACH: usize = 8;

/// Whether the grace period of a target of a site is over.
pub(super) type GraceIsOver = dyn Fn(&SiteName, &JailPath) -> bool + Send + Sync;

/// The way to treat a site whose lock another mountjail has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenLocked {
    Wait,
    Skip,
}

/// The choices of a pass.
#[derive(Clone)]
pub(super) struct PassPolicy {
    pub when_locked: WhenLocked,
    pub grace_is_over: Arc<GraceIsOver>,
}

/// The outcome for the site.
pub(super) enum PassOutcome {
    /// Another mountjail works on it.
    Busy,
    /// It is down, and stays down.
    Down,
    /// It is up, and its manifest is gone.
    WithoutManifest,
    /// It is right, apart from the mounts that were retained.
    Right(Box<Done>, Retained),
    Failed(SiteError),
    /// Its file systems do not answer, and a thread waits for them.
    Lost(SiteError),
}

/// The threads of a pass.
pub(super) type PassThreads = Crew<Site, SiteFound>;

/// The outcome for a site, and the knowledge of it now; `None`: as before.
pub(super) type SiteFound = (PassOutcome, Option<PassResult>);

/// Begins a pass over `sites`, until `stop` is set. A site that was begun is finished: undoing
/// would take as long.
pub(super) fn begin(
    context: Context,
    sites: Vec<Site>,
    stop: &Arc<AtomicBool>,
    policy: PassPolicy,
) -> Result<PassThreads> {
    let limit = context.limit;
    let run = BringUp::new(context, MountLookup::OneByOne, sites.len())?;
    // What templates share is detached once. The others are looked at, which takes processors away
    // from those who want to see the new file.
    let threads = match &run.templates {
        Some(_) => processors(),
        None => THREADS_TO_DETACH,
    };
    let work = move |site: &Site, stop: &Stop| {
        let pass = SitePass {
            run: &run,
            site,
            policy: &policy,
            stop: &stop.whatever_the_signal(),
        };
        pass.bring_right()
    };
    Ok(Crew::start(sites, threads, limit, stop, work))
}

/// A pass over one site.
struct SitePass<'p> {
    run: &'p BringUp,
    site: &'p Site,
    policy: &'p PassPolicy,
    stop: &'p Stop,
}

impl SitePass<'_> {
    fn context(&self) -> &Context {
        &self.run.pipeline.context
    }

    /// Brings the site right, if it is up.
    fn bring_right(&self) -> SiteFound {
        match self.locked() {
            Ok(None) => (PassOutcome::Busy, None),
            Ok(Some(lock)) => self.under_lock(&lock),
            Err(error) => (PassOutcome::Failed(error.into()), None),
        }
    }

    fn locked(&self) -> Result<Option<SiteLock>> {
        let (engine, name) = (&self.run.engine, &self.site.name);
        match self.policy.when_locked {
            WhenLocked::Wait => lock(self.context(), engine, name, self.stop).map(Some),
            WhenLocked::Skip => engine.lock_if_free(name).context(name),
        }
    }

    fn under_lock(&self, lock: &SiteLock) -> SiteFound {
        let records = match self.records() {
            Ok(records) => records,
            Err(error) => {
                let failed = error.context(&self.site.name).into();
                return (PassOutcome::Failed(failed), None);
            }
        };
        if records.record.is_none() {
            return match damaged(self.site, &records) {
                None => self.in_services(lock),
                Some(error) => (PassOutcome::Failed(error.into()), None),
            };
        }
        let host = self.context().host.scope();
        let mut lookups = vec![];
        let mut outcome = self.on_host(&records, &host, &mut lookups);
        if self.may_be_in_services() {
            let (there, more) = self.left_in_services(&host, lock);
            outcome = worse(outcome, there);
            lookups.extend(more);
        }
        lookups.push(Arc::new(host.into_dependencies()));
        (outcome, self.learned(lookups))
    }

    fn records(&self) -> Result<SiteRecords> {
        let boot = &self.run.pipeline.boot;
        self.context().state.read(&self.site.name, boot)
    }

    /// Brings a site that is not on the host right in the mount namespaces of its services. The
    /// records of these are watched: it may come up there at any time.
    fn in_services(&self, lock: &SiteLock) -> SiteFound {
        let context = self.context();
        if context.state.is_of_namespace() {
            return (PassOutcome::Down, self.learned(vec![]));
        }
        let loaded = self.run.pipeline.load(self.site);
        let is_of_host = |manifest: &Manifest| manifest.scope == Scope::Host;
        if loaded.as_ref().is_ok_and(is_of_host) && !self.may_be_in_services() {
            return (PassOutcome::Down, self.learned(vec![]));
        }
        let namespaces = match Namespaces::find(context) {
            Ok(namespaces) => namespaces,
            Err(error) => return (PassOutcome::Failed(error.into()), None),
        };
        let units = match loaded {
            Ok(manifest) if is_of_host(&manifest) => vec![], // where it was before is known
            Ok(manifest) => manifest.services,
            Err(error) => return self.without_services(&namespaces, error),
        };
        let host = context.host.scope();
        self.depend_on_namespaces(&host, &namespaces, &units);
        self.depend_on_manifest(&host);

        let (outcome, mut lookups) = self.in_namespaces(&namespaces, units, lock);
        lookups.push(Arc::new(host.into_dependencies()));
        (outcome, self.learned(lookups))
    }

    /// Whether this is a pass over the host, and a service may have the site.
    fn may_be_in_services(&self) -> bool {
        let state = &self.context().state;
        !state.is_of_namespace() && NamespaceDirectories::list(state).may_have(&self.site.name)
    }

    /// Brings a site that is on the host right where it was before its scope was changed: in mount
    /// namespaces of services, as long as it is in use there.
    fn left_in_services(
        &self,
        host: &Host,
        lock: &SiteLock,
    ) -> (PassOutcome, Vec<Arc<Dependencies>>) {
        match Namespaces::find(self.context()) {
            Ok(namespaces) => {
                self.depend_on_namespaces(host, &namespaces, &[]);
                self.in_namespaces(&namespaces, vec![], lock)
            }
            Err(error) => (PassOutcome::Failed(error.into()), vec![]),
        }
    }

    /// The records in the namespaces that the site may be in are watched.
    fn depend_on_namespaces(&self, host: &Host, namespaces: &Namespaces, units: &[String]) {
        let context = self.context();
        depend_on_names(host, &context.state.namespaces());
        for namespace in namespaces.of(context, &self.site.name, units) {
            depend_on_names(host, &namespace.state(&context.state).run);
        }
    }

    /// The outcome for a site that is not on the host and whose services are not known, because its
    /// manifest has mistakes or is gone. It may be up in some of the `namespaces`.
    fn without_services(&self, namespaces: &Namespaces, error: ManifestError) -> SiteFound {
        let context = self.context();
        let host = context.host.scope();
        self.depend_on_manifest(&host);
        let learned = self.learned(vec![Arc::new(host.into_dependencies())]);
        if namespaces.of(context, &self.site.name, &[]).is_empty() {
            let learned = learned.map(|learned| PassResult {
                is_up: false,
                ..learned
            });
            return (PassOutcome::Down, learned);
        }
        (self.unloaded(error), learned)
    }

    /// The outcome for a site that is up and whose manifest cannot be loaded.
    fn unloaded(&self, error: ManifestError) -> PassOutcome {
        if is_gone(&error, self.site) {
            PassOutcome::WithoutManifest
        } else {
            PassOutcome::Failed(SiteError::Manifest(error))
        }
    }

    /// Brings the site right in each of the namespaces of its `units`. Returns the outcome that
    /// there is most to say about, and the dependencies in all of them.
    fn in_namespaces(
        &self,
        namespaces: &Namespaces,
        units: Vec<String>,
        lock: &SiteLock,
    ) -> (PassOutcome, Vec<Arc<Dependencies>>) {
        let bring_right = |own: Context, here: &[Site]| {
            let run = BringUp::new(own.with_new_host(), MountLookup::OneByOne, 1)?;
            let mut results = vec![];
            for site in here {
                let pass = SitePass {
                    run: &run,
                    site,
                    ..*self
                };
                results.push(Ok(pass.under_lock(lock)));
            }
            Ok(results)
        };
        let served = [(self.site.clone(), units)];
        let mut places = namespaces.each(self.context(), &served, bring_right);

        let (mut outcome, mut lookups) = (PassOutcome::Down, vec![]);
        for (place, result) in places.remove(&self.site.name).unwrap_or_default() {
            let (here, found) = match result {
                Ok((PassOutcome::Failed(failed), found)) => {
                    let failed = failed.located(&self.site.name, &place);
                    (PassOutcome::Failed(failed), found)
                }
                Ok(found) => found,
                Err(failed) => (PassOutcome::Failed(failed), None),
            };
            if let Some(found) = found {
                lookups.extend(found.lookups);
            }
            outcome = worse(outcome, here);
        }
        (outcome, lookups)
    }

    fn depend_on_manifest(&self, host: &Host) {
        if let Ok(file) = HostPath::new(&self.site.file) {
            host.depend_on(&file, Aspect::CONTENTS);
        }
        for directory in instances::directories(self.site) {
            host.depend_on(&directory, Aspect::NAME);
        }
    }

    /// Brings the site right on the host.
    fn on_host(
        &self,
        records: &SiteRecords,
        host: &Host,
        lookups: &mut Vec<Arc<Dependencies>>,
    ) -> PassOutcome {
        self.depend_on_manifest(host);
        let pipeline = &self.run.pipeline;
        let manifest = match pipeline.load(self.site) {
            Ok(manifest) => manifest,
            Err(error) => return self.unloaded(error),
        };
        let roots = pipeline.context.roots();
        let mut resolution = pipeline.resolver.resolve_partly(&manifest, roots);
        *lookups = std::mem::take(&mut resolution.dependencies);

        let (desired, retained) = match self.retain(resolution, records, host, lookups) {
            Ok(retained) => retained,
            Err(errors) => return PassOutcome::Failed(SiteError::Errors(errors)),
        };
        match self.run.reconcile(desired, self.stop, Ok) {
            Ok(Some((desired, mut changes))) => {
                note_gone(&mut changes, &retained.expired);
                let done = Done {
                    desired,
                    services: manifest.services,
                    changes,
                };
                PassOutcome::Right(Box::new(done), retained)
            }
            Ok(None) => PassOutcome::Down,
            Err(failed) => PassOutcome::Failed(failed),
        }
    }

    /// What the site should have, with the mounts that are retained without their source.
    ///
    /// Errors: those of the resolution, if they are about more than sources that cannot be looked
    /// at.
    fn retain(
        &self,
        resolution: Resolution,
        records: &SiteRecords,
        host: &Host,
        lookups: &[Arc<Dependencies>],
    ) -> Result<(Desired, Retained), Vec<Error>> {
        let errors = resolution.errors;
        let Some(mut desired) = resolution.desired else {
            return Err(errors);
        };
        let retained = if errors.is_empty() {
            let is_over = |target: &JailPath| (self.policy.grace_is_over)(&self.site.name, target);
            grace::retain(&mut desired, records, host, lookups, is_over)
        } else if errors.iter().all(could_not_look) {
            grace::retain_all(&mut desired, records, errors)
        } else {
            return Err(errors);
        };
        Ok((desired, retained))
    }

    /// The knowledge of the site now; `None`: the record cannot be read at the moment.
    fn learned(&self, lookups: Vec<Arc<Dependencies>>) -> Option<PassResult> {
        // This comes before the record is read: a later one counts as a change.
        let id = RecordId::of(&self.context().state.record(&self.site.name));
        let records = self.records().ok()?;
        Some(PassResult {
            user: Dependent::of(&self.site.name),
            is_up: !lookups.is_empty(),
            lookups,
            ids: mount_ids(&records),
            root: records.record.map(|record| record.root),
            record: id,
        })
    }
}

fn depend_on_names(host: &Host, directory: &Path) {
    if let Ok(directory) = HostPath::new(directory) {
        host.depend_on(&directory, Aspect::NAMES);
    }
}

/// Notes which of the mounts were detached because their source is gone.
fn note_gone(changes: &mut Changes, expired: &[JailPath]) {
    for (change, target) in &mut changes.mounts {
        if *change == Change::Detached && expired.contains(target) {
            *change = Change::Gone;
        }
    }
}

/// The unique mount IDs of the mounts of a site.
fn mount_ids(records: &SiteRecords) -> Vec<u64> {
    let Some(record) = &records.record else {
        return vec![];
    };
    let mut ids = vec![];
    for mount in &record.mounts {
        ids.extend(mount.unique_id);
    }
    let members = records.grafts.iter().flat_map(|graft| graft.members.iter());
    let targets = members.map(|member| &member.target);
    ids.extend(observe::mount_ids(&record.root, targets));
    ids
}

/// Of two places, the one that there is more to say about.
fn worse(one: PassOutcome, other: PassOutcome) -> PassOutcome {
    if weight(&other) > weight(&one) {
        other
    } else {
        one
    }
}

fn weight(outcome: &PassOutcome) -> u8 {
    match outcome {
        PassOutcome::Failed(_) | PassOutcome::Lost(_) => 3,
        PassOutcome::Right(done, _) if !done.changes.is_empty() => 2,
        PassOutcome::Down => 0,
        _ => 1,
    }
}

/// Why it is not known whether the site is up.
fn damaged(site: &Site, records: &SiteRecords) -> Option<Error> {
    let warning = records.warnings.first()?;
    let error = Error::failed(format!("{}: {warning}", site.name));
    Some(error.hint(format!(
        "if the site should be up, `mountjail up {}` writes a new record",
        site.name
    )))
}

/// Whether the kernel refused to look at a path: it is not known what is there, but all else can be
/// kept right.
fn could_not_look(error: &Error) -> bool {
    match error.errno() {
        None | Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => false,
        Some(_) => true,
    }
}

/// The error of a site that is up and has no manifest.
pub(super) fn without_manifest(site: &Site) -> SiteError {
    let name = &site.name;
    let gone = configuration::no_manifest(site)
        .because_of("its mounts stay, but are no longer kept in sync")
        .hint(format!("`mountjail down {name}` takes it down"));
    SiteError::Errors(vec![gone])
}

fn is_gone(error: &ManifestError, site: &Site) -> bool {
    matches!(error, ManifestError::Error(_)) && !configuration::has_manifest(site)
}

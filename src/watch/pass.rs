//! One pass over some sites: it does what `up` does, for the sites that are up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::grace::{self, Retained};
use super::index::Dependent;
use super::pass_result::{PassResult, RecordId};
use crate::base::sync::processors;
use crate::base::{HostPath, JailPath, SiteName};
use crate::engine::SiteLock;
use crate::manifest::Scope;
use crate::observe::{self, SiteRecords};
use crate::patience::{Crew, Stop};
use crate::resolve::{Aspect, Dependencies, Host, Resolution};
use crate::site::bring_up::{BringUp, lock};
use crate::site::context::Context;
use crate::site::pipeline::MountLookup;
use crate::site::services::Namespaces;
use crate::site::up::{Change, Done};
use crate::site::{ManifestError, Site, SiteError, configuration, instances};
use crate::{Error, Result};

/// The threads of a pass over sites without templates. Each of them has mounts to detach, which
/// waits for the kernel's RCU grace period, outside of any lock: many threads can wait at the same
/// time.
const THREADS_TO_DETACH: usize = 8;

/// Whether the grace period of a target of a site is over.
pub(crate) type GraceIsOver = dyn Fn(&SiteName, &JailPath) -> bool + Send + Sync;

/// The way to treat a site whose lock another mountjail has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenLocked {
    Wait,
    Skip,
}

/// The choices of a pass.
#[derive(Clone)]
pub(crate) struct PassPolicy {
    pub when_locked: WhenLocked,
    pub grace_is_over: Arc<GraceIsOver>,
}

/// The outcome for the site.
pub(crate) enum PassOutcome {
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
pub(crate) type PassThreads = Crew<Site, SiteFound>;

/// The outcome for a site, and the knowledge of it now; `None`: as before.
pub(crate) type SiteFound = (PassOutcome, Option<PassResult>);

/// Begins a pass over `sites`, until `stop` is set. A site that was begun is finished: undoing
/// would take as long.
pub(crate) fn begin(
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
    let work =
        move |each: &Site, stop: &Stop| site(&run, each, &policy, &stop.whatever_the_signal());
    Ok(Crew::start(sites, threads, limit, stop, work))
}

/// Brings the site right, if it is up.
fn site(run: &BringUp, site: &Site, policy: &PassPolicy, stop: &Stop) -> SiteFound {
    match locked(run, site, policy, stop) {
        Ok(None) => (PassOutcome::Busy, None),
        Ok(Some(lock)) => under_lock(run, site, policy, stop, &lock),
        Err(error) => (PassOutcome::Failed(error.into()), None),
    }
}

fn locked(
    run: &BringUp,
    site: &Site,
    policy: &PassPolicy,
    stop: &Stop,
) -> Result<Option<SiteLock>> {
    match policy.when_locked {
        WhenLocked::Wait => lock(&run.pipeline.context, &run.engine, &site.name, stop).map(Some),
        WhenLocked::Skip => run
            .engine
            .lock_if_free(&site.name)
            .map_err(|error| error.context(&site.name)),
    }
}

fn under_lock(
    run: &BringUp,
    site: &Site,
    policy: &PassPolicy,
    stop: &Stop,
    lock: &SiteLock,
) -> SiteFound {
    let records = match run
        .pipeline
        .context
        .state
        .read(&site.name, &run.pipeline.boot)
    {
        Ok(records) => records,
        Err(error) => return (PassOutcome::Failed(error.context(&site.name).into()), None),
    };
    if records.record.is_none() {
        return match damaged(site, &records) {
            None => in_services(run, site, policy, stop, lock),
            Some(error) => (PassOutcome::Failed(error.into()), None),
        };
    }
    let host = run.pipeline.context.host.scope();
    let mut lookups = vec![];
    let ended = bring_right(run, site, (policy, stop), &records, &host, &mut lookups);
    lookups.push(Arc::new(host.into_dependencies()));
    (ended, learned(run, site, lookups))
}

/// Brings a site that is not on the host right in the mount namespaces of its services. The records
/// of these are watched: it may come up there at any time.
fn in_services(
    run: &BringUp,
    site: &Site,
    policy: &PassPolicy,
    stop: &Stop,
    lock: &SiteLock,
) -> SiteFound {
    let context = &run.pipeline.context;
    let units = match run.pipeline.load(site) {
        Ok(manifest) if manifest.scope == Scope::Services => manifest.services,
        _ => return (PassOutcome::Down, learned(run, site, vec![])),
    };
    if context.state.is_of_namespace() {
        return (PassOutcome::Down, learned(run, site, vec![]));
    }
    let namespaces = match Namespaces::find(context) {
        Ok(namespaces) => namespaces,
        Err(error) => return (PassOutcome::Failed(error.into()), None),
    };
    let host = context.host.scope();
    depend_on_names(&host, &context.state.namespaces());
    for namespace in namespaces.of(context, &site.name, &units) {
        depend_on_names(&host, &namespace.state(&context.state).run);
    }
    if let Ok(file) = HostPath::new(&site.file) {
        host.depend_on(&file, Aspect::CONTENTS);
    }

    let served = [(site.clone(), units)];
    let bring_right = |own: Context, here: &[Site]| -> Result<Vec<Result<_, SiteError>>> {
        let run = BringUp::new(own.with_new_host(), MountLookup::OneByOne, 1)?;
        let right = |site| Ok(under_lock(&run, site, policy, stop, lock));
        Ok(here.iter().map(right).collect())
    };
    let mut places = namespaces.each(context, &served, bring_right);
    let (mut outcome, mut lookups) = (PassOutcome::Down, vec![]);
    for (_, result) in places.remove(&site.name).unwrap_or_default() {
        let (here, found) = result.unwrap_or_else(|failed| (PassOutcome::Failed(failed), None));
        lookups.extend(found.into_iter().flat_map(|found| found.lookups));
        outcome = worse(outcome, here);
    }
    lookups.push(Arc::new(host.into_dependencies()));
    (outcome, learned(run, site, lookups))
}

fn depend_on_names(host: &Host, directory: &Path) {
    if let Ok(directory) = HostPath::new(directory) {
        let names = Aspect {
            names: true,
            ..Aspect::default()
        };
        host.depend_on(&directory, names);
    }
}

/// Of two places, the one that there is more to say about.
fn worse(one: PassOutcome, other: PassOutcome) -> PassOutcome {
    let rank = |outcome: &PassOutcome| match outcome {
        PassOutcome::Failed(_) | PassOutcome::Lost(_) => 3,
        PassOutcome::Right(done, _) if !done.changes.is_empty() => 2,
        PassOutcome::Down => 0,
        _ => 1,
    };
    if rank(&other) > rank(&one) {
        other
    } else {
        one
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

fn bring_right(
    run: &BringUp,
    site: &Site,
    (policy, stop): (&PassPolicy, &Stop),
    records: &SiteRecords,
    host: &Host,
    lookups: &mut Vec<Arc<Dependencies>>,
) -> PassOutcome {
    if let Ok(file) = HostPath::new(&site.file) {
        host.depend_on(&file, Aspect::CONTENTS);
    }
    for directory in instances::directories(site) {
        host.depend_on(&directory, Aspect::NAME);
    }
    let manifest = match run.pipeline.load(site) {
        Ok(manifest) => manifest,
        Err(error) if is_gone(&error, site) => return PassOutcome::WithoutManifest,
        Err(error) => return PassOutcome::Failed(SiteError::Manifest(error)),
    };
    let roots = run.pipeline.context.roots();
    let Resolution {
        desired,
        errors,
        dependencies,
    } = run.pipeline.resolver.resolve_partly(&manifest, roots);
    *lookups = dependencies;

    let is_over = |target: &JailPath| (policy.grace_is_over)(&site.name, target);
    let (desired, retained) = match desired {
        Some(mut desired) if errors.is_empty() => {
            let retained = grace::retain(&mut desired, records, host, lookups, is_over);
            (desired, retained)
        }
        Some(mut desired) if errors.iter().all(could_not_look) => {
            let retained = grace::retain_all(&mut desired, records, errors);
            (desired, retained)
        }
        _ => return PassOutcome::Failed(SiteError::Errors(errors)),
    };

    match run.reconcile(desired, stop, Ok) {
        Ok(Some((desired, mut changes))) => {
            for (change, target) in &mut changes.mounts {
                if *change == Change::Detached && retained.expired.contains(target) {
                    *change = Change::Gone;
                }
            }
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

/// Whether the kernel refused to look at a path: it is not known what is there, but all else can be
/// kept right.
fn could_not_look(error: &Error) -> bool {
    error
        .errno()
        .is_some_and(|errno| !matches!(errno, libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

/// The error of a site that is up and has no manifest.
pub(crate) fn without_manifest(site: &Site) -> SiteError {
    let name = &site.name;
    let gone = configuration::no_manifest(site)
        .because_of("its mounts stay, but are no longer kept in sync")
        .hint(format!("`mountjail down {name}` takes it down"));
    SiteError::Errors(vec![gone])
}

fn is_gone(error: &ManifestError, site: &Site) -> bool {
    matches!(error, ManifestError::Error(_)) && !configuration::has_manifest(site)
}

/// The knowledge of the site now; `None`: the record cannot be read at the moment.
fn learned(run: &BringUp, site: &Site, lookups: Vec<Arc<Dependencies>>) -> Option<PassResult> {
    let path = run.pipeline.context.state.record(&site.name);
    // This comes before the record is read: a later one counts as a change.
    let id = RecordId::of(&path);
    let records = run
        .pipeline
        .context
        .state
        .read(&site.name, &run.pipeline.boot)
        .ok()?;
    let record = records.record.as_ref();
    let mounts = record.into_iter().flat_map(|record| &record.mounts);
    let mut ids: Vec<u64> = mounts.filter_map(|mount| mount.unique_id).collect();
    if let Some(record) = record {
        let members = records.grafts.iter().flat_map(|graft| graft.members.iter());
        let targets = members.map(|member| &member.target);
        ids.extend(observe::mount_ids(&record.root, targets));
    }
    Some(PassResult {
        user: Dependent::Site(site.name.clone()),
        lookups,
        root: record.map(|record| record.root.clone()),
        ids,
        record: id,
    })
}

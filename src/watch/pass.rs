//! One pass over some sites: what `up` does, for those that are up.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::grace::{self, Retained};
use super::index::Dependent;
use super::pass_result::{PassResult, RecordId};
use crate::base::{HostPath, JailPath, SiteName};
use crate::engine::Lock;
use crate::observe::{self, Records};
use crate::patience::{Crew, Stop};
use crate::resolve::{Aspect, Dependencies, Host};
use crate::site::context::{Context, table};
use crate::site::pipeline::lock;
use crate::site::up::{BringUp, Done};
use crate::site::{ManifestError, Site, SiteError, select};
use crate::{Error, Result};

/// From so many sites on a pass reads the mount table once instead of asking for each mount.
const MANY: usize = 32;

/// Taking the old mount off waits for a grace period of the kernel's, outside of any lock: threads
/// wait together.
const THREADS: usize = 8;

/// Tells of a site and a target.
pub(crate) type GraceIsOver = dyn Fn(&SiteName, &JailPath) -> bool + Send + Sync;

/// What a pass does where it has a choice.
#[derive(Clone)]
pub(crate) struct PassPolicy {
    /// Wait for another mountjail that works on the site.
    pub wait: bool,
    /// Whether a mount whose source is gone is taken off by now.
    pub grace_is_over: Arc<GraceIsOver>,
}

/// What became of the site.
pub(crate) enum PassOutcome {
    /// Another mountjail works on it.
    Busy,
    /// It is not up, and stays so.
    Down,
    /// It is up and its manifest is gone.
    WithoutManifest,
    /// It is right, but for what was left.
    Right(Box<Done>, Retained),
    Failed(SiteError),
    /// Its file systems do not answer, and a thread waits for them.
    Lost(SiteError),
}

/// The threads of a pass.
pub(crate) type PassThreads = Crew<Site, SiteFound>;

/// What came of a site, and what is known of it now; `None`: no more than before.
pub(crate) type SiteFound = (PassOutcome, Option<PassResult>);

/// Begins a pass over `sites`, until `stop`. One that is begun is finished: undoing would take as
/// long.
pub(crate) fn begin(
    context: Context,
    sites: Vec<Site>,
    stop: &Arc<AtomicBool>,
    policy: PassPolicy,
) -> Result<PassThreads> {
    let boot = observe::boot_id()?;
    let engine = context.engine(boot.clone(), sites.len() > 1)?;
    let table = table(sites.len() >= MANY)?;
    let (limit, resolver) = (context.limit, context.resolver()?);
    let run = BringUp {
        context,
        engine,
        resolver,
        boot,
        table,
        leave_down: false,
    };
    let work =
        move |each: &Site, stop: &Stop| site(&run, each, &policy, &stop.whatever_the_signal());
    Ok(Crew::start(sites, THREADS, limit, stop, work))
}

/// Brings the site right, if it is up.
fn site(run: &BringUp, site: &Site, policy: &PassPolicy, stop: &Stop) -> SiteFound {
    match locked(run, site, policy) {
        Ok(None) => (PassOutcome::Busy, None),
        Ok(Some(lock)) => under_lock(run, site, policy, stop, &lock),
        Err(error) => (PassOutcome::Failed(error.into()), None),
    }
}

fn locked(run: &BringUp, site: &Site, policy: &PassPolicy) -> Result<Option<Lock>> {
    if policy.wait {
        return lock(&run.context, &run.engine, site).map(Some);
    }
    run.engine
        .lock_if_free(&site.name)
        .map_err(|error| error.context(&site.name))
}

fn under_lock(
    run: &BringUp,
    site: &Site,
    policy: &PassPolicy,
    stop: &Stop,
    _lock: &Lock,
) -> SiteFound {
    let records = match run.context.state.read(&site.name, &run.boot) {
        Ok(records) => records,
        Err(error) => return (PassOutcome::Failed(error.context(&site.name).into()), None),
    };
    if records.record.is_none() {
        return match damaged(site, &records) {
            None => (PassOutcome::Down, learned(run, site, vec![])),
            Some(error) => (PassOutcome::Failed(error.into()), None),
        };
    }
    let host = run.context.host.scope();
    let mut lookups = vec![];
    let ended = bring_right(run, site, (policy, stop), &records, &host, &mut lookups);
    lookups.push(Arc::new(host.into_lookups()));
    (ended, learned(run, site, lookups))
}

/// Why it cannot be known whether the site is up.
fn damaged(site: &Site, records: &Records) -> Option<Error> {
    let warning = records.warnings.first()?;
    let error = Error::failed(format!("{}: {warning}", site.name));
    Some(error.hint(format!(
        "if the site is to be up, `mountjail up {}` writes it anew",
        site.name
    )))
}

fn bring_right(
    run: &BringUp,
    site: &Site,
    (policy, stop): (&PassPolicy, &Stop),
    records: &Records,
    host: &Host,
    lookups: &mut Vec<Arc<Dependencies>>,
) -> PassOutcome {
    if let Ok(file) = HostPath::new(&site.file) {
        host.depend_on(&file, Aspect::CONTENTS);
    }
    let manifest = match select::load(&run.context, site) {
        Ok(manifest) => manifest,
        Err(unusable) if is_gone(&unusable, site) => return PassOutcome::WithoutManifest,
        Err(unusable) => return PassOutcome::Failed(SiteError::Manifest(unusable)),
    };
    let (desired, errors, found) = run.resolver.resolve_in_part(&manifest, run.context.roots());
    *lookups = found;
    let grace_is_over = |target: &JailPath| (policy.grace_is_over)(&site.name, target);
    let (desired, left) = match desired {
        Some(mut desired) if errors.is_empty() => {
            let left = grace::keep(&mut desired, records, host, lookups, grace_is_over);
            (desired, left)
        }
        Some(mut desired) if errors.iter().all(could_not_look) => {
            let left = grace::keep_all(&mut desired, records, errors);
            (desired, left)
        }
        _ => return PassOutcome::Failed(SiteError::Errors(errors)),
    };
    match run.make_so(desired, manifest.services, stop, Ok) {
        Ok(Some(mut done)) => {
            for (verb, target) in &mut done.changed {
                if *verb == "detached" && left.expired.contains(target) {
                    *verb = "gone";
                }
            }
            PassOutcome::Right(Box::new(done), left)
        }
        Ok(None) => PassOutcome::Down,
        Err(failed) => PassOutcome::Failed(failed),
    }
}

/// Whether the kernel refused a look: what is there nobody knows, and all else can be kept right.
fn could_not_look(error: &Error) -> bool {
    error
        .errno()
        .is_some_and(|errno| !matches!(errno, libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

/// What there is to say of a site that is up and has no manifest.
pub(crate) fn without_manifest(Site { name, file }: &Site) -> SiteError {
    let gone = Error::failed(format!("{name}: the manifest {} is gone", file.display()))
        .because_of("what is mounted stays, and is not kept right any more")
        .hint(format!("`mountjail down {name}` takes it away"));
    SiteError::Errors(vec![gone])
}

fn is_gone(unusable: &ManifestError, site: &Site) -> bool {
    matches!(unusable, ManifestError::Error(_)) && std::fs::symlink_metadata(&site.file).is_err()
}

/// `None`: the record cannot be read just now.
fn learned(run: &BringUp, site: &Site, lookups: Vec<Arc<Dependencies>>) -> Option<PassResult> {
    let path = run.context.state.record(&site.name);
    // Before it is read: what comes later is news.
    let id = RecordId::of(&path);
    let records = run.context.state.read(&site.name, &run.boot).ok()?;
    let record = records.record.as_ref();
    let mounts = record.into_iter().flat_map(|record| &record.mounts);
    Some(PassResult {
        user: Dependent::Site(site.name.clone()),
        lookups,
        root: record.map(|record| record.root.clone()),
        ids: mounts.filter_map(|mount| mount.unique_id).collect(),
        record: id,
    })
}

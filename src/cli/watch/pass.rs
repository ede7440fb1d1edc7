//! One pass over some sites: what `up` does, for those that are up.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::cli::apply::{Done, Run};
use crate::cli::context::{Context, table};
use crate::cli::parallel;
use crate::cli::sites::{self, Site, Unusable};
use crate::cli::work::{Failed, lock};
use crate::engine::Lock;
use crate::manifest::HostPath;
use crate::observe::{self, MadeKind, RecordedMount, Records};
use crate::resolve::{Desired, Host, Interest, Link, Lookups, Mount};
use crate::watch::{Learned, RecordId, User};
use crate::{Error, Result, sys};

/// From so many sites on a pass reads the mount table once instead of asking for each mount.
const MANY: usize = 32;

/// Taking the old mount off waits for a grace period of the kernel's, outside of any lock: threads wait together.
const THREADS: usize = 8;

/// What a pass does where it has a choice.
#[derive(Clone, Copy)]
pub(super) struct Policy {
    /// Wait for another mountjail that works on the site.
    pub wait: bool,
    /// Leave mounts whose source is gone, as long as they show what they did.
    pub keep_vanished: bool,
}

/// What became of the site.
pub(super) enum Ended {
    /// Another mountjail works on it.
    Busy,
    /// It is not up, and stays so.
    Down,
    /// It is up and its manifest is gone.
    WithoutManifest,
    /// It is right; mounts whose source is gone were left.
    Right(Box<Done>, usize),
    Failed(Failed),
}

/// One pass over `sites`, until `stop`; what came of each that was begun.
pub(super) fn over(
    context: &Context<'_>,
    sites: &[Site],
    stop: &AtomicBool,
    policy: impl Fn(&Site) -> Policy + Sync,
) -> Result<Vec<(Ended, Option<Learned>)>> {
    if sites.is_empty() {
        return Ok(vec![]);
    }
    let boot = observe::boot_id()?;
    let engine = context.engine(boot.clone(), sites.len() > 1)?;
    let table = table(sites.len() >= MANY)?;
    // A site that is begun is finished: undoing would take as long.
    let never = AtomicBool::new(false);
    let resolver = context.resolver()?;
    let run = Run { context, engine, resolver, boot, table, stop: &never, leave_down: false };
    Ok(parallel::each(sites, THREADS, stop, context.out, |each| site(&run, each, policy(each))))
}

/// Brings the site right, if it is up. Also tells what is known of it now; `None`: no more than before.
fn site(run: &Run<'_>, site: &Site, policy: Policy) -> (Ended, Option<Learned>) {
    match locked(run, site, policy) {
        Ok(None) => (Ended::Busy, None),
        Ok(Some(lock)) => under_lock(run, site, policy, &lock),
        Err(error) => (Ended::Failed(error.into()), None),
    }
}

fn locked(run: &Run<'_>, site: &Site, policy: Policy) -> Result<Option<Lock>> {
    if policy.wait {
        return lock(run.context, &run.engine, site).map(Some);
    }
    run.engine.lock_if_free(&site.name).map_err(|error| error.context(&site.name))
}

fn under_lock(run: &Run<'_>, site: &Site, policy: Policy, _lock: &Lock) -> (Ended, Option<Learned>) {
    let records = match run.context.state.read(&site.name, &run.boot) {
        Ok(records) => records,
        Err(error) => return (Ended::Failed(error.context(&site.name).into()), None),
    };
    if records.record.is_none() {
        return match damaged(site, &records) {
            None => (Ended::Down, learned(run, site, vec![])),
            Some(error) => (Ended::Failed(error.into()), None),
        };
    }
    let host = run.context.host.scope();
    let mut lookups = vec![];
    let ended = bring_right(run, site, policy, &records, &host, &mut lookups);
    lookups.push(Arc::new(host.into_lookups()));
    (ended, learned(run, site, lookups))
}

/// Why it cannot be known whether the site is up.
fn damaged(site: &Site, records: &Records) -> Option<Error> {
    let warning = records.warnings.first()?;
    let error = Error::failed(format!("{}: {warning}", site.name));
    Some(error.hint(format!("if the site is to be up, `mountjail up {}` writes it anew", site.name)))
}

fn bring_right(
    run: &Run<'_>,
    site: &Site,
    policy: Policy,
    records: &Records,
    host: &Host,
    lookups: &mut Vec<Arc<Lookups>>,
) -> Ended {
    if let Ok(file) = HostPath::new(&site.file) {
        host.depend_on(&file, Interest::CONTENTS);
    }
    let manifest = match sites::load(run.context, site) {
        Ok(manifest) => manifest,
        Err(unusable) if is_gone(&unusable, site) => return Ended::WithoutManifest,
        Err(unusable) => return Ended::Failed(Failed::Manifest(unusable)),
    };
    let (desired, found) = run.resolver.resolve_and_tell(&manifest, run.context.roots());
    *lookups = found;
    let mut desired = match desired {
        Ok(desired) => desired,
        Err(errors) => return Ended::Failed(Failed::Errors(errors)),
    };
    let kept = if policy.keep_vanished { keep_vanished(&mut desired, records, host) } else { 0 };
    match run.make_so(desired, manifest.services) {
        Ok(Some(done)) => Ended::Right(Box::new(done), kept),
        Ok(None) => Ended::Down,
        Err(failed) => Ended::Failed(failed),
    }
}

fn is_gone(unusable: &Unusable, site: &Site) -> bool {
    matches!(unusable, Unusable::Error(_)) && std::fs::symlink_metadata(&site.file).is_err()
}

/// `None`: the record cannot be read just now.
fn learned(run: &Run<'_>, site: &Site, lookups: Vec<Arc<Lookups>>) -> Option<Learned> {
    let path = run.context.state.record(&site.name);
    // Before it is read: what comes later is news.
    let id = RecordId::of(&path);
    let records = run.context.state.read(&site.name, &run.boot).ok()?;
    let record = records.record.as_ref();
    let mounts = record.into_iter().flat_map(|record| &record.mounts);
    Some(Learned {
        user: User::Site(site.name.clone()),
        lookups,
        root: record.map(|record| record.root.clone()),
        ids: mounts.filter_map(|mount| mount.unique_id).collect(),
        record: id,
    })
}

/// Adds to `desired` the recorded mounts whose source is gone and that still show what they showed: a file that is
/// replaced in two steps, and the directory of a service that restarts, are away for a moment. Returns how many.
fn keep_vanished(desired: &mut Desired, records: &Records, host: &Host) -> usize {
    let Some(record) = records.record.as_ref().filter(|record| record.root == desired.root) else { return 0 };
    let kept: Vec<_> = record
        .mounts
        .iter()
        .filter(|mount| desired.mounts.iter().all(|known| known.target != mount.target))
        .filter(|mount| host.walk(&mount.source).is_err_and(|error| error.is_missing()))
        .filter_map(|mount| still_there(&desired.root, mount))
        .collect();
    if kept.is_empty() {
        return 0;
    }
    let count = kept.len();
    desired.mounts.extend(kept);
    desired.mounts.sort_by(|a, b| a.target.cmp(&b.target));
    desired.mounts.dedup_by(|a, b| a.target == b.target);
    keep_links(desired, records);
    count
}

/// Links that were made stay as well: they may lead to what was kept.
fn keep_links(desired: &mut Desired, records: &Records) {
    for made in records.kept.iter().flat_map(|kept| &kept.made) {
        let taken = desired.links.iter().any(|link| link.path == made.path)
            || desired.mounts.iter().any(|mount| mount.target == made.path);
        if let (MadeKind::Link(text), false) = (&made.kind, taken) {
            desired.links.push(Link { path: made.path.clone(), text: text.clone(), reasons: vec![] });
        }
    }
    desired.links.sort_by(|a, b| a.path.cmp(&b.path));
}

/// The recorded mount as one that is wanted, if it is there.
fn still_there(root: &HostPath, mount: &RecordedMount) -> Option<Arc<Mount>> {
    let root = sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY).ok()?;
    let found =
        sys::open_beneath(&root, mount.target.relative(), libc::O_PATH).and_then(sys::stat_fd).ok()?;
    (found.file == mount.file).then(|| {
        Arc::new(Mount {
            target: mount.target.clone(),
            source: mount.source.clone(),
            file: Some(mount.file),
            kind: found.kind,
            options: mount.options,
            recursive: mount.recursive,
            reasons: vec![],
        })
    })
}

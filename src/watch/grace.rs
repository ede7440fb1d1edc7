//! Mounts that a pass leaves although their source is not there: for a while, if it is gone,
//! because a file that is replaced in two steps, and the directory of a service that restarts, are
//! away for a moment; as long as nobody can say whether it is there, if the kernel refuses to look.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::{HostPath, JailPath, SiteName};
use crate::observe::{CreatedKind, RecordedMount, Records};
use crate::resolve::{Dependencies, Desired, Host, Link, Mount};
use crate::{Error, sys};

/// A mount whose source is gone is left for so long.
const GRACE: Duration = Duration::from_secs(10);

/// What was left of one site.
#[derive(Default)]
pub(crate) struct Retained {
    /// The targets whose source is gone.
    pub gone: Vec<JailPath>,
    /// Those whose source has been gone for long enough, and which are not left.
    pub expired: Vec<JailPath>,
    /// Why sources cannot be looked at.
    pub unseen: Vec<Error>,
}

/// Since when sources are gone, by target.
#[derive(Clone, Default)]
pub(crate) struct GracePeriods(HashMap<SiteName, BTreeMap<JailPath, Instant>>);

impl GracePeriods {
    /// Whether that was long enough ago.
    pub(crate) fn grace_is_over(&self, site: &SiteName, target: &JailPath, now: Instant) -> bool {
        let since = self.0.get(site).and_then(|targets| targets.get(target));
        since.is_some_and(|since| now.saturating_duration_since(*since) >= GRACE)
    }

    /// These are gone now, and no others. When the first of them has been so for long enough.
    pub(crate) fn set(
        &mut self,
        site: &SiteName,
        targets: Vec<JailPath>,
        now: Instant,
    ) -> Option<Instant> {
        let mut before = self.0.remove(site).unwrap_or_default();
        let since = |target: JailPath| {
            let since = before.remove(&target).unwrap_or(now);
            (target, since)
        };
        let gone: BTreeMap<_, _> = targets.into_iter().map(since).collect();
        let first = gone.values().min().copied()?;
        self.0.insert(site.clone(), gone);
        Some(first + GRACE)
    }
}

/// Adds to `desired` the recorded mounts that are left: those that still show what they showed, and
/// whose source was asked for, as `lookups` tell, and not found.
pub(crate) fn keep(
    desired: &mut Desired,
    records: &Records,
    host: &Host,
    lookups: &[Arc<Dependencies>],
    grace_is_over: impl Fn(&JailPath) -> bool,
) -> Retained {
    let mut left = Retained::default();
    let mut kept = vec![];
    for mount in recorded_besides(desired, records) {
        let Err(error) = host.walk(&mount.source) else {
            continue;
        };
        if !lookups
            .iter()
            .any(|lookups| lookups.has(error.at().as_path()))
        {
            continue; // the manifest does not ask for it any more
        }
        if !error.is_unknown() && grace_is_over(&mount.target) {
            left.expired.push(mount.target.clone());
            continue;
        }
        let Some(still) = still_there(&desired.root, mount) else {
            continue;
        };
        kept.push(still);
        left.gone.push(mount.target.clone());
    }
    add(desired, records, kept);
    left
}

/// Adds to `desired`, which is what could be resolved although there were the errors `unseen`, all
/// recorded mounts that are there: nobody can tell which of them the manifest asks for.
pub(crate) fn keep_all(desired: &mut Desired, records: &Records, unseen: Vec<Error>) -> Retained {
    let kept = recorded_besides(desired, records);
    let kept = kept
        .into_iter()
        .filter_map(|mount| still_there(&desired.root, mount))
        .collect();
    add(desired, records, kept);
    Retained {
        unseen,
        ..Retained::default()
    }
}

/// The recorded mounts at targets that `desired` does not have.
fn recorded_besides<'r>(desired: &Desired, records: &'r Records) -> Vec<&'r RecordedMount> {
    let record = records
        .record
        .iter()
        .filter(|record| record.root == desired.root);
    let mounts = record.flat_map(|record| &record.mounts);
    mounts
        .filter(|mount| {
            desired
                .mounts
                .iter()
                .all(|known| known.target != mount.target)
        })
        .collect()
}

fn add(desired: &mut Desired, records: &Records, kept: Vec<Arc<Mount>>) {
    if kept.is_empty() {
        return;
    }
    desired.mounts.extend(kept);
    desired.mounts.sort_by(|a, b| a.target.cmp(&b.target));
    desired.mounts.dedup_by(|a, b| a.target == b.target);
    keep_links(desired, records);
}

/// Links that were made stay as well: they may lead to what was kept.
fn keep_links(desired: &mut Desired, records: &Records) {
    for made in records.kept.iter().flat_map(|kept| &kept.made) {
        let taken = desired.links.iter().any(|link| link.path == made.path)
            || desired.mounts.iter().any(|mount| mount.target == made.path);
        if let (CreatedKind::Link(text), false) = (&made.kind, taken) {
            desired.links.push(Link {
                path: made.path.clone(),
                text: text.clone(),
                reasons: vec![],
            });
        }
    }
    desired.links.sort_by(|a, b| a.path.cmp(&b.path));
}

/// The recorded mount as one that is wanted, if it is there.
fn still_there(root: &HostPath, mount: &RecordedMount) -> Option<Arc<Mount>> {
    let root = sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY).ok()?;
    let found = sys::open_beneath(&root, mount.target.relative(), libc::O_PATH)
        .and_then(sys::stat_fd)
        .ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_time() {
        let (site, now) = (SiteName::new("s").unwrap(), Instant::now());
        let [a, b] = ["/a", "/b"].map(|path| JailPath::new(path).unwrap());
        let mut gone = GracePeriods::default();
        assert_eq!(gone.set(&site, vec![a.clone()], now), Some(now + GRACE));
        let later = now + GRACE / 2;
        assert_eq!(
            gone.set(&site, vec![a.clone(), b.clone()], later),
            Some(now + GRACE)
        );
        assert!(!gone.grace_is_over(&site, &a, later));
        let end = now + GRACE;
        assert!(gone.grace_is_over(&site, &a, end) && !gone.grace_is_over(&site, &b, end));
        assert_eq!(gone.set(&site, vec![b.clone()], end), Some(later + GRACE));
        assert!(!gone.grace_is_over(&site, &a, end + GRACE), "it is back");
        assert_eq!(gone.set(&site, vec![], end), None);
        assert!(gone.0.is_empty() && !gone.grace_is_over(&site, &b, end + GRACE));
    }
}

//! Mounts that are retained although their source is missing. If the source is gone, they are
//! retained for a grace period, because a file that is replaced in two steps, or the directory of a
//! service that restarts, is missing for a moment. If the kernel refuses to look at the source,
//! they are retained as long as it does.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::{HostPath, JailPath, SiteName};
use crate::observe::{RecordedMount, SiteRecords};
use crate::resolve::{Dependencies, Desired, FileKind, Host, Mount};
use crate::site::records::{add_recorded, recorded_besides};
use crate::sys::Stat;
use crate::{Error, sys};

/// How long a mount is retained after its source is gone.
const GRACE: Duration = Duration::from_secs(10);

/// The mounts of one site without a source.
#[derive(Default)]
pub(super) struct Retained {
    /// Targets that are retained for their grace period.
    pub in_grace: Vec<JailPath>,
    /// Targets whose grace period is over, and that are not retained.
    pub expired: Vec<JailPath>,
    /// Why sources cannot be looked at.
    pub unseen: Vec<Error>,
}

/// The beginnings of the grace periods, by target.
#[derive(Clone, Default)]
pub(super) struct GracePeriods(HashMap<SiteName, BTreeMap<JailPath, Instant>>);

impl GracePeriods {
    /// Whether the grace period of the target is over.
    pub(super) fn is_over(&self, site: &SiteName, target: &JailPath, now: Instant) -> bool {
        let Some(since) = self.0.get(site).and_then(|periods| periods.get(target)) else {
            return false;
        };
        now.saturating_duration_since(*since) >= GRACE
    }

    /// These targets of the site are in their grace periods now, and no others. Returns when the
    /// first period is over.
    pub(super) fn set(
        &mut self,
        site: &SiteName,
        targets: Vec<JailPath>,
        now: Instant,
    ) -> Option<Instant> {
        let mut before = self.0.remove(site).unwrap_or_default();
        let mut periods = BTreeMap::new();
        for target in targets {
            let since = before.remove(&target).unwrap_or(now);
            periods.insert(target, since);
        }
        let first = periods.values().min().copied()?;
        self.0.insert(site.clone(), periods);
        Some(first + GRACE)
    }
}

/// Adds to `desired` the recorded mounts that are retained: they still show what they showed, and
/// the manifest asks for their source, as `lookups` tell, but it is not found.
pub(super) fn retain(
    desired: &mut Desired,
    records: &SiteRecords,
    host: &Host,
    lookups: &[Arc<Dependencies>],
    is_over: impl Fn(&JailPath) -> bool,
) -> Retained {
    let mut retained = Retained::default();
    let mut mounts = vec![];
    for mount in recorded_besides(desired, records) {
        if mount.file_system.is_some() {
            continue; // it has no source
        }
        let Err(error) = host.walk(&mount.source) else {
            continue;
        };
        let missing = error.at();
        let is_asked_for = lookups.iter().any(|lookups| lookups.has(missing.as_path()));
        if !is_asked_for {
            continue;
        }
        if !error.is_unknown() && is_over(&mount.target) {
            retained.expired.push(mount.target.clone());
        } else if let Some(mount) = still_there(&desired.root, mount) {
            retained.in_grace.push(mount.target.clone());
            mounts.push(mount);
        }
    }
    if !mounts.is_empty() {
        add_recorded(desired, records, mounts);
    }
    retained
}

/// Adds to `desired`, which could be resolved only in part because of the errors `unseen`, all
/// recorded mounts that are still there: it is not known which of them the manifest asks for.
pub(super) fn retain_all(
    desired: &mut Desired,
    records: &SiteRecords,
    unseen: Vec<Error>,
) -> Retained {
    let mut mounts = vec![];
    for mount in recorded_besides(desired, records) {
        mounts.extend(still_there(&desired.root, mount));
    }
    if !mounts.is_empty() {
        add_recorded(desired, records, mounts);
    }
    Retained {
        unseen,
        ..Retained::default()
    }
}

/// The recorded mount as a desired one, if it still is there. One that cannot be looked at may be.
fn still_there(root: &HostPath, mount: &RecordedMount) -> Option<Arc<Mount>> {
    let (file, kind) = match stat_target(root, &mount.target) {
        Ok(found) if found.file == mount.file => (Some(found.file), found.kind),
        Err(error) if !is_absent(&error) => (None, FileKind::File),
        _ => return None,
    };
    Some(Arc::new(Mount {
        target: mount.target.clone(),
        source: mount.source.clone(),
        file_system: None,
        file,
        kind,
        attributes: mount.attributes,
        recursive: mount.recursive,
        reasons: vec![],
    }))
}

fn stat_target(root: &HostPath, target: &JailPath) -> io::Result<Stat> {
    let root = sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY)?;
    sys::stat_fd(sys::open_beneath(&root, target.relative(), libc::O_PATH)?)
}

/// Whether nothing is there, or something else is on the way.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_time() {
        let (site, now) = (SiteName::new("s").unwrap(), Instant::now());
        let [a, b] = ["/a", "/b"].map(|path| JailPath::new(path).unwrap());
        let mut grace = GracePeriods::default();
        assert_eq!(grace.set(&site, vec![a.clone()], now), Some(now + GRACE));
        let later = now + GRACE / 2;
        assert_eq!(
            grace.set(&site, vec![a.clone(), b.clone()], later),
            Some(now + GRACE)
        );
        assert!(!grace.is_over(&site, &a, later));
        let end = now + GRACE;
        assert!(grace.is_over(&site, &a, end) && !grace.is_over(&site, &b, end));
        assert_eq!(grace.set(&site, vec![b.clone()], end), Some(later + GRACE));
        assert!(!grace.is_over(&site, &a, end + GRACE), "it is back");
        assert_eq!(grace.set(&site, vec![], end), None);
        assert!(grace.0.is_empty() && !grace.is_over(&site, &b, end + GRACE));
    }
}

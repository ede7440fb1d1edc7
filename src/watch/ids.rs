//! Unique mount IDs: which site a mount event concerns.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::SiteName;

/// The dependents that a mount event concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Affected {
    /// Nothing: mountjail itself made the change.
    Nobody,
    /// This site: another program unmounted one of its mounts.
    Site(SiteName),
    /// All that depends on this path, and sites with a root below it.
    At(PathBuf),
    /// Perhaps all sites: it is not known where the mount was.
    Anybody,
}

/// The unique mount IDs of this namespace. An id is in one of `ours`, `retired` and `others`.
#[derive(Debug, Default)]
pub(super) struct MountIds {
    ours: HashMap<u64, Arc<SiteName>>,
    by_site: HashMap<Arc<SiteName>, Vec<u64>>,
    /// Mounts that mountjail detached, until the kernel reports it.
    retired: HashSet<u64>,
    /// The mount points of all other mounts.
    others: HashMap<u64, PathBuf>,
}

impl MountIds {
    /// Replaces the site's mounts by those that are recorded now.
    pub(super) fn set(&mut self, site: &SiteName, ids: Vec<u64>) {
        let (key, before) = match self.by_site.remove_entry(site) {
            Some(known) => known,
            None => (Arc::new(site.clone()), vec![]),
        };
        for id in before {
            if !ids.contains(&id) {
                self.ours.remove(&id);
                self.retired.insert(id);
            }
        }
        for id in &ids {
            self.ours.insert(*id, key.clone());
            self.others.remove(id);
        }
        if !ids.is_empty() {
            self.by_site.insert(key, ids);
        }
    }

    /// Notes a mount at `point` that belongs to no site.
    pub(super) fn add_other(&mut self, id: u64, point: PathBuf) {
        if !self.ours.contains_key(&id) {
            self.others.insert(id, point);
        }
    }

    /// Events were lost, and will not be reported again.
    pub(super) fn lost(&mut self) {
        self.retired.clear();
        self.others.clear();
    }

    /// A mount was attached. `point` returns its mount point, if it still exists.
    pub(super) fn attached(
        &mut self,
        id: u64,
        point: impl FnOnce() -> Option<PathBuf>,
    ) -> Affected {
        if self.ours.contains_key(&id) || self.retired.contains(&id) {
            return Affected::Nobody;
        }
        let Some(point) = point() else {
            self.retired.insert(id); // it is gone already, and its end will be reported, too
            return Affected::Nobody;
        };
        self.others.insert(id, point.clone());
        Affected::At(point)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.ours.is_empty() && self.others.is_empty() && self.retired.is_empty()
    }

    /// A mount was detached.
    pub(super) fn detached(&mut self, id: u64) -> Affected {
        if self.retired.remove(&id) {
            return Affected::Nobody;
        }
        if let Some(site) = self.ours.get(&id) {
            return Affected::Site(SiteName::clone(site));
        }
        self.others
            .remove(&id)
            .map_or(Affected::Anybody, Affected::At)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteName {
        SiteName::new(name).unwrap()
    }

    #[test]
    fn our_own_swaps_concern_nobody() {
        let mut ids = MountIds::default();
        ids.set(&site("a"), vec![1, 2]);
        ids.set(&site("a"), vec![1, 3]); // 2 was swapped for 3
        assert_eq!(ids.attached(3, || unreachable!()), Affected::Nobody);
        assert_eq!(ids.detached(2), Affected::Nobody);
        assert_eq!(ids.detached(2), Affected::Anybody, "it was told once");
        ids.set(&site("a"), vec![]);
        assert_eq!(
            (ids.detached(1), ids.detached(3)),
            (Affected::Nobody, Affected::Nobody)
        );
        assert!(ids.is_empty());
    }

    #[test]
    fn a_mount_of_ours_that_somebody_takes_off_concerns_its_site() {
        let mut ids = MountIds::default();
        ids.set(&site("a"), vec![1]);
        ids.set(&site("b"), vec![2]);
        assert_eq!(ids.detached(2), Affected::Site(site("b")));
    }

    #[test]
    fn other_mounts_concern_their_place() {
        let mut ids = MountIds::default();
        ids.add_other(7, "/mnt".into());
        assert_eq!(ids.detached(7), Affected::At("/mnt".into()));
        assert_eq!(ids.detached(7), Affected::Anybody);
        assert_eq!(
            ids.attached(8, || Some("/srv".into())),
            Affected::At("/srv".into())
        );
        assert_eq!(ids.detached(8), Affected::At("/srv".into()));
        assert_eq!(
            ids.attached(9, || None),
            Affected::Nobody,
            "mounted and unmounted meanwhile"
        );
        assert_eq!(ids.detached(9), Affected::Nobody);
        ids.add_other(10, "/x".into());
        ids.lost();
        assert_eq!(ids.detached(10), Affected::Anybody);
    }
}

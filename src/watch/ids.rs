//! Which mounts are whose: what a mount event means.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::SiteName;

/// Whom a mount event concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// Nobody: it was our own doing.
    Nobody,
    /// This site, whose mount somebody took off.
    Site(SiteName),
    /// Whoever depends on this place, or has its root above it.
    At(PathBuf),
    /// It is not known where that mount was.
    Anybody,
}

/// The never reused ids of the mounts of this namespace.
#[derive(Debug, Default)]
pub struct MountIds {
    ours: HashMap<u64, Arc<SiteName>>,
    by_site: HashMap<Arc<SiteName>, Vec<u64>>,
    /// What we took off, until the kernel says so.
    retired: HashSet<u64>,
    /// Where all others are.
    others: HashMap<u64, PathBuf>,
}

impl MountIds {
    /// The mounts of the site, as recorded.
    pub fn set(&mut self, site: &SiteName, ids: Vec<u64>) {
        let key = self
            .by_site
            .get_key_value(site)
            .map_or_else(|| Arc::new(site.clone()), |(key, _)| key.clone());
        for id in self.by_site.remove(site).unwrap_or_default() {
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

    /// A mount that is no site's is at `point`.
    pub fn add_other(&mut self, id: u64, point: PathBuf) {
        if !self.ours.contains_key(&id) {
            self.others.insert(id, point);
        }
    }

    /// Events were lost: what the kernel did not say it will not say.
    pub fn lost(&mut self) {
        self.retired.clear();
        self.others.clear();
    }

    /// Somebody mounted; `point` tells where, if it still is there.
    pub fn attached(&mut self, id: u64, point: impl FnOnce() -> Option<PathBuf>) -> Affected {
        if self.ours.contains_key(&id) || self.retired.contains(&id) {
            return Affected::Nobody;
        }
        let Some(point) = point() else {
            self.retired.insert(id); // gone by now: its end will be told as well
            return Affected::Nobody;
        };
        self.others.insert(id, point.clone());
        Affected::At(point)
    }

    /// Somebody unmounted.
    pub fn detached(&mut self, id: u64) -> Affected {
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
        assert!(ids.ours.is_empty() && ids.others.is_empty() && ids.retired.is_empty());
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

//! The mounts of this namespace without their paths, which makes them quick to list.

use std::collections::{HashMap, HashSet};
use std::io;

use super::clone_ids::CloneIds;
use super::namespace::Pair;
use super::table;
use crate::sys::{self, MountOutline};

/// The mounts of this namespace. Those that came along with a graft are looked at only when it
/// matters, as far as their ids tell that they are in it.
#[derive(Debug)]
pub(crate) struct Outline {
    /// With their ids, sorted by these: mounts that were made together are beside each other.
    mounts: Vec<(u64, MountOutline)>,
    /// The indices of `mounts`, sorted by the mounts that they are on.
    by_parent: Vec<usize>,
    /// The id of the mount that mounts with these devices are on; `None`: there are several.
    parents: HashMap<Pair, Option<u64>>,
    /// Grafts that have all that came along with them, with nothing mounted on that, sorted by
    /// their ids. What came along is not in `mounts`.
    whole: Vec<CloneIds>,
    /// The highest unique mount ID of all.
    newest: u64,
}

impl Outline {
    /// `clones`: the grafts that may be whole.
    pub(super) fn read(clones: &[CloneIds]) -> io::Result<Self> {
        let mut ids = sys::list_mounts()?;
        ids.sort_unstable();
        let newest = ids.last().copied().unwrap_or(0);
        let mut whole = whole(clones, &ids)?;
        let mounts = look(ids, &mut whole)?;

        let mut by_parent: Vec<_> = (0..mounts.len()).collect();
        by_parent.sort_by_key(|nth| mounts[*nth].1.parent);
        let mut parents = HashMap::new();
        for (_, mount) in &mounts {
            let parent = parents
                .entry(pair_of(&mounts, mount))
                .or_insert(Some(mount.parent));
            *parent = parent.filter(|known| *known == mount.parent);
        }
        Ok(Self {
            mounts,
            by_parent,
            parents,
            whole,
            newest,
        })
    }

    /// The highest unique mount ID of all. Mounts that are made later have higher ones.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// The ids of what came along with this graft, if it is all there, nothing is mounted on it,
    /// and besides it only mounts with one of the ids `own` are in the graft.
    pub(super) fn whole(&self, graft: u64, own: &HashSet<u64>) -> Option<CloneIds> {
        let clone = self.clone_by(graft)?;
        let besides = self.besides_clones(graft);
        let is_whole = besides.iter().all(|(id, _)| own.contains(id));
        is_whole.then_some(clone)
    }

    fn clone_by(&self, graft: u64) -> Option<CloneIds> {
        let nth = self
            .whole
            .binary_search_by_key(&graft, |clone| clone.graft());
        nth.ok().map(|nth| self.whole[nth])
    }

    /// The mounts in the one with this id, at any depth, with their ids.
    pub(super) fn inside(&self, unique_id: u64) -> Vec<(u64, MountOutline)> {
        let mut inside = self.besides_clones(unique_id);
        let holders = inside.iter().map(|(id, _)| *id).chain([unique_id]);
        let clones: Vec<_> = holders.filter_map(|id| self.clone_by(id)).collect();
        for clone in clones {
            inside.extend(outlines(clone.members()));
        }
        inside
    }

    /// As [`inside`](Self::inside), without what came along with whole grafts.
    fn besides_clones(&self, unique_id: u64) -> Vec<(u64, MountOutline)> {
        let (mut inside, mut next) = (vec![], vec![unique_id]);
        while let Some(holder) = next.pop() {
            for (id, mount) in self.on(holder).filter(|(id, _)| *id != holder) {
                inside.push((id, mount));
                next.push(id);
            }
        }
        inside
    }

    /// The mounts on the one with this id, with their ids.
    fn on(&self, unique_id: u64) -> impl Iterator<Item = (u64, MountOutline)> {
        let parent = |nth: &usize| self.mounts[*nth].1.parent;
        let start = self
            .by_parent
            .partition_point(|nth| parent(nth) < unique_id);
        let on = self.by_parent[start..].iter();
        on.take_while(move |nth| parent(nth) == unique_id)
            .map(|nth| self.mounts[*nth])
    }

    /// The devices of the mount. `None` if it does not exist.
    pub(super) fn pair(&self, unique_id: u64) -> Option<Pair> {
        let mount = self.get(unique_id)?;
        let on = self.get(mount.parent).map(|on| on.device);
        Some((on, mount.device))
    }

    fn get(&self, unique_id: u64) -> Option<MountOutline> {
        match clone_of(&self.whole, unique_id) {
            Some(_) => sys::mount_outline(unique_id).ok(),
            None => find(&self.mounts, unique_id).copied(),
        }
    }

    /// Whether mounts with the devices of this one are on more than one other mount. A copy at
    /// another place is on a copy of the mount that the first one is on. What came along with a
    /// graft may have copies in other grafts.
    pub(super) fn has_several(&self, unique_id: u64) -> bool {
        if clone_of(&self.whole, unique_id).is_some() {
            return true;
        }
        let Some(mount) = find(&self.mounts, unique_id) else {
            return false;
        };
        match self.parents.get(&pair_of(&self.mounts, mount)) {
            Some(parent) => parent.is_none(),
            None => false,
        }
    }
}

/// Those of `clones` that are whole, sorted by their ids. `existing`: the ids of all mounts,
/// sorted.
fn whole(clones: &[CloneIds], existing: &[u64]) -> io::Result<Vec<CloneIds>> {
    let check = |clones: &[CloneIds]| {
        let clones = clones.iter().copied();
        Ok(clones.filter(|clone| clone.are_whole(existing)).collect())
    };
    let mut whole = table::in_shares(clones, check)?;
    whole.sort_unstable_by_key(|clone| clone.graft());
    whole.dedup();
    Ok(whole)
}

/// The mounts `ids`, besides what came along with grafts that are `whole`, and those that they are
/// on. A graft with a mount on what came along with it is not whole.
fn look(mut ids: Vec<u64>, whole: &mut Vec<CloneIds>) -> io::Result<Vec<(u64, MountOutline)>> {
    ids.retain(|id| clone_of(whole, *id).is_none());
    let mut mounts = table::in_shares(&ids, |ids| Ok(outlines(ids.iter().copied())))?;
    mounts.sort_unstable_by_key(|(id, _)| *id);

    let (mut above, mut covered) = (HashSet::new(), HashSet::new());
    for (_, mount) in &mounts {
        match clone_of(whole, mount.parent) {
            Some(clone) => drop(covered.insert(clone)),
            None if find(&mounts, mount.parent).is_none() => drop(above.insert(mount.parent)),
            None => {}
        }
    }
    whole.retain(|clone| !covered.contains(clone));
    mounts.extend(outlines(above));
    for clone in covered {
        mounts.extend(outlines(clone.members()));
    }
    mounts.sort_unstable_by_key(|(id, _)| *id);
    Ok(mounts)
}

/// The one of `whole` with which the mount with this id came along.
fn clone_of(whole: &[CloneIds], unique_id: u64) -> Option<CloneIds> {
    let nth = whole.partition_point(|clone| clone.graft() < unique_id);
    let clone = *whole.get(nth.checked_sub(1)?)?;
    clone.has(unique_id).then_some(clone)
}

/// The mount with this id of `mounts`, which are sorted by their ids.
fn find(mounts: &[(u64, MountOutline)], unique_id: u64) -> Option<&MountOutline> {
    let nth = mounts.binary_search_by_key(&unique_id, |(id, _)| *id);
    nth.ok().map(|nth| &mounts[nth].1)
}

/// The outlines of the mounts `ids`, as far as they still exist.
fn outlines(ids: impl IntoIterator<Item = u64>) -> Vec<(u64, MountOutline)> {
    let mut outlines = vec![];
    for id in ids {
        if let Ok(outline) = sys::mount_outline(id) {
            outlines.push((id, outline));
        }
    }
    outlines
}

fn pair_of(mounts: &[(u64, MountOutline)], mount: &MountOutline) -> Pair {
    let on = find(mounts, mount.parent).map(|on| on.device);
    (on, mount.device)
}

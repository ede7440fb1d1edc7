//! Grafts whose mounts are known by their unique IDs alone.
//!
//! `open_tree(2)` clones a graft with its mounts in one call, and the kernel counts unique IDs up,
//! without ever giving one twice. So the mounts with the IDs that follow that of the graft came
//! along with it, whatever has happened to them since.

use std::ops::RangeInclusive;

use super::record::KnownGraft;
use crate::sys;

/// The unique IDs of a graft and of the mounts that came along with it, if nothing got an ID
/// between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloneIds {
    graft: u64,
    /// The ID of the mount that was cloned last.
    last: u64,
    /// The peer group of the youngest mount in the template: mounts are cloned in the order in
    /// which they were mounted.
    youngest: u64,
}

impl CloneIds {
    /// The IDs of `graft`, which has the ID `id`. `None`: its template shows nothing, is being
    /// changed, or has lost its record.
    pub(crate) fn of(graft: &KnownGraft, id: u64) -> Option<Self> {
        let members = graft.members.iter();
        if !members.clone().is_sorted_by(|a, b| a.target < b.target) {
            return None;
        }
        let youngest = members.max_by_key(|member| member.unique_id)?;
        Some(Self {
            graft: id,
            last: id.checked_add(u64::try_from(graft.members.len()).ok()?)?,
            youngest: youngest.peer_group?,
        })
    }

    /// Whether these are the IDs of `graft`, as far as its records tell now.
    pub(super) fn are_of(self, graft: &KnownGraft) -> bool {
        Self::of(graft, self.graft) == Some(self)
    }

    pub(super) fn graft(self) -> u64 {
        self.graft
    }

    /// Whether a mount that came along has the ID `id`.
    pub fn has(self, id: u64) -> bool {
        self.members().contains(&id)
    }

    /// The IDs of the mounts that came along.
    pub(super) fn members(self) -> RangeInclusive<u64> {
        self.graft + 1..=self.last
    }

    fn count(self) -> usize {
        usize::try_from(self.last - self.graft).unwrap_or(usize::MAX)
    }

    /// Whether all of them came along with the graft and are in it now. `existing`: the IDs of all
    /// mounts, sorted.
    pub(super) fn are_whole(self, existing: &[u64]) -> bool {
        self.all_exist(existing) && self.all_are_inside() && self.are_of_one_clone()
    }

    fn all_exist(self, existing: &[u64]) -> bool {
        let Ok(at) = existing.binary_search(&self.graft) else {
            return false;
        };
        existing.get(at + self.count()) == Some(&self.last)
    }

    fn all_are_inside(self) -> bool {
        let inside = sys::list_some_mounts_in(self.graft, self.graft, self.count());
        inside.is_ok_and(|inside| inside.into_iter().eq(self.members()))
    }

    /// Whether the mount that was cloned last has the last ID. If another mount was made at that
    /// moment, one of the IDs is that mount's.
    fn are_of_one_clone(self) -> bool {
        let last = sys::mount_outline(self.last);
        last.is_ok_and(|last| last.master == Some(self.youngest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{JailPath, MountAttributes, SiteName};
    use crate::observe::RecordedMount;

    /// A graft with mounts at these targets, by the unique IDs and peer groups of those in the
    /// template.
    fn graft(members: &[(&str, u64, u64)]) -> KnownGraft {
        let member = |(target, unique_id, peer_group): &(&str, u64, u64)| {
            let record = serde_json::json!({
                "target": target, "source": "/etc/hosts", "file": { "dev": 1, "ino": 1 },
                "options": MountAttributes::DATA,
                "recursive": false, "unique_id": unique_id,
                "peer_group": peer_group,
            });
            serde_json::from_value::<RecordedMount>(record).unwrap()
        };
        KnownGraft {
            target: JailPath::new("/x").unwrap(),
            template: SiteName::new("template-1").unwrap(),
            contents: None,
            alone: false,
            members_are_lost: false,
            may_be_a_copy: false,
            members: members.iter().map(member).collect(),
        }
    }

    #[test]
    fn ids_follow_that_of_the_graft() {
        let graft = graft(&[("/x/a", 5, 1), ("/x/b", 9, 3), ("/x/c", 7, 2)]);
        let clone = CloneIds::of(&graft, 100).unwrap();
        assert_eq!((clone.members(), clone.youngest), (101..=103, 3));
        assert!(clone.has(101) && clone.has(103) && !clone.has(100) && !clone.has(104));
        assert!(clone.are_of(&graft));
        assert!(clone.all_exist(&[7, 100, 101, 102, 103, 104]));
        for existing in [
            &[100, 101, 103, 104][..],
            &[101, 102, 103],
            &[100, 101, 102],
        ] {
            assert!(!clone.all_exist(existing), "{existing:?}");
        }
    }

    #[test]
    fn nothing_is_known_of_a_template_that_is_empty_or_being_changed() {
        let swapped = graft(&[("/x/a", 5, 1), ("/x/a", 6, 2)]);
        assert_eq!(CloneIds::of(&swapped, 100), None);
        assert_eq!(CloneIds::of(&graft(&[]), 100), None);
    }
}

//! A site that is as another one is, which was found to need nothing. It is looked at only as far
//! as the two can differ: where one plan has no steps, the other has none.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::observed::{Observed, PathState};
use super::record::{
    BootRecord, CreatedPath, Identity, KnownGraft, PersistentRecord, RecordedMount, RootDirectory,
    VERSION,
};
use super::state::SiteRecords;
use crate::base::{JailPath, MountAttributes};
use crate::resolve::{Desired, FileId, FileKind};
use crate::sys::{self, Stat};

/// A site that needs nothing: what it asks for, what is recorded of it, and what was seen. All its
/// mounts are grafts and what came along with them.
#[derive(Debug)]
pub(crate) struct Settled {
    desired: Desired,
    record: BootRecord,
    kept: Option<PersistentRecord>,
    grafts: Vec<KnownGraft>,
    /// Those of a directory one after the other.
    members: Vec<Member>,
    /// Links, and directories on the way to them.
    paths: BTreeMap<JailPath, PathState>,
}

/// A mount that came along with a graft.
#[derive(Debug)]
struct Member {
    directory: JailPath,
    name: OsString,
    file: FileId,
    attributes: MountAttributes,
    /// The peer group that it follows.
    master: u64,
}

impl Settled {
    /// The site, if it can serve as an example for others: nothing of it is its own.
    pub(crate) fn of(desired: &Desired, observed: &Observed) -> Option<Self> {
        let record = observed.record.as_ref()?;
        let is_example = !has_own(desired)
            && !has_oddities(observed)
            && !record.mounts.is_empty()
            && record.mounts.iter().all(|graft| is_alone(graft, observed))
            && has_all_that_was_made(observed)
            && has_plain_paths(desired, observed);
        if !is_example {
            return None;
        }
        Some(Self {
            members: members(observed, record)?,
            desired: desired.clone(),
            record: record.clone(),
            kept: observed.kept.clone(),
            grafts: observed.grafts.clone(),
            paths: observed.paths.clone(),
        })
    }

    /// Whether the site, which has these records, needs nothing either. If it cannot be looked at,
    /// that is not known, and the answer is no.
    pub(crate) fn is_like(&self, desired: &Desired, records: &SiteRecords) -> bool {
        let Some(record) = &records.record else {
            return false;
        };
        self.wants_the_same(desired)
            && self.is_recorded_alike(desired, record)
            && self.has_made_the_same(desired, records.kept.as_ref())
            && self.has_the_same_grafts(&records.grafts)
            && self
                .stands(desired, record, records.kept.as_ref())
                .unwrap_or(false)
    }

    fn wants_the_same(&self, desired: &Desired) -> bool {
        let (mine, theirs) = (&self.desired, desired);
        if mine.mounts.len() != theirs.mounts.len() {
            return false;
        }
        let mut mounts = mine.mounts.iter().zip(&theirs.mounts);
        let same_mounts = mounts.all(|(mine, theirs)| Arc::ptr_eq(mine, theirs));
        same_mounts && mine.links == theirs.links && !has_own(theirs)
    }

    fn is_recorded_alike(&self, desired: &Desired, record: &BootRecord) -> bool {
        record.version == VERSION
            && record.root == desired.root
            && record.manifest == desired.manifest
            && record.contents == self.record.contents
            && record.more == self.record.more
            && are_all(&self.record.mounts, &record.mounts, is_mounted_alike)
    }

    fn has_made_the_same(&self, desired: &Desired, kept: Option<&PersistentRecord>) -> bool {
        let (mine, theirs) = match (&self.kept, kept) {
            (None, None) => return true,
            (Some(mine), Some(theirs)) => (mine, theirs),
            _ => return false,
        };
        theirs.root == desired.root
            && mine.files == theirs.files
            && mine.fstab.is_some() == theirs.fstab.is_some()
            && are_all(&mine.made, &theirs.made, is_made_alike)
    }

    fn has_the_same_grafts(&self, grafts: &[KnownGraft]) -> bool {
        are_all(&self.grafts, grafts, is_same_graft)
    }

    /// Whether the root has the recorded grafts with the same in them, and the same links.
    fn stands(
        &self,
        desired: &Desired,
        record: &BootRecord,
        kept: Option<&PersistentRecord>,
    ) -> io::Result<bool> {
        let root = sys::open_host(desired.root.as_path(), libc::O_PATH | libc::O_DIRECTORY)?;
        let stat = sys::stat_fd(&root)?;
        let Some(directory) = RootDirectory::of(&stat) else {
            return Ok(false);
        };
        let mut ground = Ground {
            root,
            device: stat.file.dev,
            mount: directory.mount,
            grafts: &record.mounts,
            is_shared: None,
            last: None,
        };
        if record.directory != Some(directory) {
            return Ok(false);
        }
        for graft in &record.mounts {
            if !ground.has_graft(graft)? {
                return Ok(false);
            }
        }
        for member in &self.members {
            if !ground.has_member(member)? {
                return Ok(false);
            }
        }
        for (path, seen) in &self.paths {
            // A graft covers what was made for it.
            let is_covered = ground.mount_above(path) != ground.mount;
            let made = kept.iter().flat_map(|kept| &kept.made);
            let made = made.filter(|made| made.path == *path && !is_covered);
            if !ground.has_path(path, seen, made)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether something was seen that other sites do not have.
fn has_oddities(observed: &Observed) -> bool {
    let Observed {
        paths: _,
        mounts: _,
        whole: _,
        elsewhere,
        as_in_source,
        holders,
        strays,
        under_root,
        current_files,
        absent,
        unseen,
        grafts: _,
        newest: _,
        directory: _,
        record: _,
        kept: _,
    } = observed;
    !elsewhere.is_empty()
        || !as_in_source.is_empty()
        || !holders.is_empty()
        || !strays.is_empty()
        || !under_root.is_empty()
        || !current_files.is_empty()
        || !absent.is_empty()
        || !unseen.is_empty()
}

fn has_all_that_was_made(observed: &Observed) -> bool {
    let mut made = observed.kept.iter().flat_map(|kept| &kept.made);
    made.all(|made| !observed.is_gone(made))
}

/// Whether there are only links, and directories in which there are some.
fn has_plain_paths(desired: &Desired, observed: &Observed) -> bool {
    for (path, seen) in &observed.paths {
        let is_plain = match seen.kind {
            FileKind::Symlink => true,
            FileKind::Directory => desired.links.iter().all(|link| link.path != *path),
            _ => false,
        };
        if !is_plain {
            return false;
        }
    }
    true
}

/// Whether the recorded mount is a graft and stands alone at its target.
fn is_alone(graft: &RecordedMount, observed: &Observed) -> bool {
    let [seen] = observed.stack(&graft.target) else {
        return false;
    };
    graft.is_graft() && graft.unique_id.is_some() && seen.unique_id == graft.unique_id
}

/// Whether the lists are equally long, and each pair of them is `alike`.
fn are_all<T>(mine: &[T], theirs: &[T], alike: fn(&T, &T) -> bool) -> bool {
    let mut pairs = mine.iter().zip(theirs);
    mine.len() == theirs.len() && pairs.all(|(mine, theirs)| alike(mine, theirs))
}

fn is_mounted_alike(mine: &RecordedMount, theirs: &RecordedMount) -> bool {
    let alike = RecordedMount {
        unique_id: theirs.unique_id,
        since: theirs.since,
        ..mine.clone()
    };
    alike == *theirs && theirs.unique_id.is_some() && mine.since.is_some() == theirs.since.is_some()
}

fn is_made_alike(mine: &CreatedPath, theirs: &CreatedPath) -> bool {
    mine.path == theirs.path
        && mine.kind == theirs.kind
        && mine.more == theirs.more
        && mine.file.is_some() == theirs.file.is_some()
}

fn is_same_graft(mine: &KnownGraft, theirs: &KnownGraft) -> bool {
    mine.target == theirs.target
        && mine.template == theirs.template
        && mine.contents == theirs.contents
        && mine.alone == theirs.alone
        && Arc::ptr_eq(&mine.members, &theirs.members)
}

/// The mounts that came along with the grafts of `record`. `None`: others are there as well.
fn members(observed: &Observed, record: &BootRecord) -> Option<Vec<Member>> {
    let mut members = vec![];
    for (target, stack) in &observed.mounts {
        if record.mounts.iter().any(|graft| graft.target == *target) {
            continue;
        }
        let [seen] = stack.as_slice() else {
            return None;
        };
        observed.member(target, seen)?;
        members.push(Member {
            directory: target.parent()?,
            name: target.file_name()?.to_owned(),
            file: seen.file?,
            attributes: seen.attributes,
            master: seen.master?,
        });
    }
    Some(members)
}

/// Whether some of what the site asks for is its own.
fn has_own(desired: &Desired) -> bool {
    !desired.files.is_empty() || !desired.placeholders.is_empty() || !desired.directories.is_empty()
}

/// The root of a site, and its grafts by their records.
struct Ground<'r> {
    root: OwnedFd,
    device: u64,
    /// The unique ID of the mount that the root is on.
    mount: u64,
    grafts: &'r [RecordedMount],
    /// Whether that mount is shared, once it was asked for.
    is_shared: Option<bool>,
    /// The directory that was opened last, and the mount that it is on.
    last: Option<(JailPath, OwnedFd, u64)>,
}

impl Ground<'_> {
    /// The `statx(2)` of what is visible at `name` in `directory`, and the mount that the directory
    /// is on.
    fn stat(&mut self, directory: &JailPath, name: &OsStr) -> io::Result<(Stat, u64)> {
        let is_open = matches!(&self.last, Some((known, ..)) if known == directory);
        if !is_open {
            self.last = Some(self.open(directory)?);
        }
        let Some((_, open, mount)) = &self.last else {
            return Err(io::ErrorKind::NotFound.into());
        };
        Ok((sys::stat_at(open, Path::new(name))?, *mount))
    }

    fn stat_of(&mut self, path: &JailPath) -> io::Result<(Stat, u64)> {
        match (path.parent(), path.file_name()) {
            (Some(directory), Some(name)) => self.stat(&directory, name),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Opens a directory, with the mount that it is on, which must be the expected one.
    fn open(&self, directory: &JailPath) -> io::Result<(JailPath, OwnedFd, u64)> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let open = sys::open_beneath(&self.root, directory.relative(), flags)?;
        let mount = self.mount_above(directory);
        if sys::stat_fd(&open)?.mount_id != Some(mount) {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        Ok((directory.clone(), open, mount))
    }

    /// The unique ID of the mount that should be visible at `path`: that of the nearest graft, or
    /// that of the root.
    fn mount_above(&self, path: &JailPath) -> u64 {
        let above = self.grafts.iter();
        let above = above.filter(|graft| path.starts_with(&graft.target));
        match above.max_by(|a, b| a.target.cmp(&b.target)) {
            Some(graft) => graft.unique_id.unwrap_or(self.mount),
            None => self.mount,
        }
    }

    /// Whether a mount in the root may be `shared`: it becomes so by itself if the root's is.
    fn may_be_shared(&mut self, shared: bool) -> io::Result<bool> {
        if !shared {
            return Ok(true);
        }
        if self.is_shared.is_none() {
            self.is_shared = Some(sys::mount_outline(self.mount)?.shared);
        }
        Ok(self.is_shared == Some(true))
    }

    /// Whether the recorded graft is where it was mounted.
    fn has_graft(&mut self, graft: &RecordedMount) -> io::Result<bool> {
        let (stat, on) = self.stat_of(&graft.target)?;
        let (Some(id), Some(true)) = (graft.unique_id, stat.mount_root) else {
            return Ok(false);
        };
        let found = sys::mount_outline(id)?;
        Ok(stat.mount_id == Some(id)
            && on == self.mount
            && found.parent == on
            && self.may_be_shared(found.shared)?
            && MountAttributes::from_statmount(found.attributes) == graft.attributes)
    }

    /// Whether a mount like `member` is at its place in a graft.
    fn has_member(&mut self, member: &Member) -> io::Result<bool> {
        let (stat, on) = self.stat(&member.directory, &member.name)?;
        let (Some(id), Some(true)) = (stat.mount_id, stat.mount_root) else {
            return Ok(false);
        };
        if stat.file != member.file {
            return Ok(false);
        }
        let found = sys::mount_outline(id)?;
        Ok(found.parent == on
            && on != self.mount
            && self.may_be_shared(found.shared)?
            && found.master == Some(member.master)
            && MountAttributes::from_statmount(found.attributes) == member.attributes)
    }

    /// Whether the same as `seen` is at `path`; if it was made for the site, by the record `made`,
    /// whether it is what was made.
    fn has_path<'m>(
        &mut self,
        path: &JailPath,
        seen: &PathState,
        mut made: impl Iterator<Item = &'m CreatedPath>,
    ) -> io::Result<bool> {
        let (stat, _) = self.stat_of(path)?;
        let (stat, link) = match (stat.kind, path.file_name(), &self.last) {
            (FileKind::Symlink, Some(name), Some((_, directory, _))) => {
                sys::entry_at(directory, Path::new(name))?
            }
            _ => (stat, None),
        };
        let found = Identity::of(&stat, self.device);
        let is_it = |made: &CreatedPath| match made.file {
            Some(file) => file.is(&found),
            None => true,
        };
        Ok(stat.kind == seen.kind && link == seen.link && made.all(is_it))
    }
}

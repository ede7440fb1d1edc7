//! Looks at one site as it is now.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use super::file_systems;
use super::holders::{self, Apart};
use super::lost_grafts;
use super::mountinfo::MountInfo;
use super::namespace::Outline;
use super::observed::{Observed, ObservedMount, PathState, Stray};
use super::record::{CreatedKind, Identity, KnownGraft, RecordedMount, RootDirectory};
use super::state::SiteRecords;
use super::submounts::{self, in_the_jail};
use super::table::{self, Table};
use crate::base::{HostPath, JailPath, MountAttributes};
use crate::resolve::{Desired, FileKind};
use crate::sys::{self, MountOutline, OnMount, Stat, proc};
use crate::{Error, Result};

/// A path of this many bytes is too long for system calls.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// Observes the site `desired` at its targets and at those in `records`.
///
/// With a table, each target is looked up in it. Without one, the kernel is asked target by target
/// with statmount(2) (Linux 6.8), and mounts elsewhere below the root are not seen.
///
/// Errors: the root, or something below it, cannot be looked at. A root that does not exist is
/// taken as empty.
pub fn observe(desired: &Desired, records: SiteRecords, table: Option<&Table>) -> Result<Observed> {
    let templates = records.templates.clone();
    let observed = look(desired, records, table)?;
    let found = templates.and_then(|known| lost_grafts::found(&observed, &desired.root, &known));
    match found {
        Some(records) => look(desired, records, table),
        None => Ok(observed),
    }
}

fn look(desired: &Desired, records: SiteRecords, table: Option<&Table>) -> Result<Observed> {
    let mut observed = only_of(&desired.root, records);
    observed.current_files = desired
        .files
        .iter()
        .filter(|file| fs::read(&file.path).is_ok_and(|found| found == file.contents))
        .map(|file| file.path.clone())
        .collect();

    let root = match sys::open_host(desired.root.as_path(), libc::O_PATH | libc::O_DIRECTORY) {
        Ok(root) => root,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT)) => {
            find_strays(&mut observed); // the root itself may have been moved away
            return Ok(observed);
        }
        Err(error) => {
            return Err(
                Error::failed(format!("cannot open the root {}", desired.root)).because(&error),
            );
        }
    };

    let failed =
        |error| Error::failed(format!("cannot look at the root {}", desired.root)).because(&error);
    let stat = sys::stat_fd(&root).map_err(failed)?;
    observed.directory = RootDirectory::of(&stat);
    let mut site = ObservedRoot::new(root, &stat, desired, &observed, table);
    site.look(desired, &mut observed)?;
    observed.holders = holders::holders(&desired.root, site.apart.take(), &observed, table)?;
    find_strays(&mut observed);
    Ok(observed)
}

/// Adds the recorded mounts that were moved away, and takes them out of the mounts elsewhere.
pub(super) fn find_strays(observed: &mut Observed) {
    let strays = strays(observed);
    observed.elsewhere.retain(|_, mounts| {
        mounts.retain(|seen| {
            strays
                .iter()
                .all(|stray| Some(stray.unique_id) != seen.unique_id)
        });
        !mounts.is_empty()
    });
    observed.strays = strays;
}

/// The records of the root `root`, without looking at anything.
pub(super) fn only_of(root: &HostPath, records: SiteRecords) -> Observed {
    Observed {
        grafts: records.grafts,
        record: records.record.filter(|record| record.root == *root),
        kept: records.kept.filter(|kept| kept.root == *root),
        ..Observed::default()
    }
}

/// The site by its records, without looking at it. `None` if they are not enough: a mount has no
/// unique ID, has submounts, or is being swapped; or something else is in a graft than what came
/// along with it, by the `outline` of all mounts.
pub(crate) fn as_recorded<'o>(
    records: &SiteRecords,
    outline: impl FnOnce() -> Option<&'o Outline>,
) -> Option<Observed> {
    let record = records.record.as_ref()?;
    let mut observed = Observed {
        record: records.record.clone(),
        kept: records.kept.clone(),
        grafts: records.grafts.clone(),
        ..Observed::default()
    };
    for mount in &record.mounts {
        let seen = ObservedMount {
            id: 0,
            unique_id: Some(mount.unique_id?),
            file: Some(mount.file),
            kind: None,
            fs_root: None,
            device: None,
            file_system: mount.file_system,
            attributes: mount.attributes,
            made_shared: false,
            master: None,
        };
        let before = observed.mounts.insert(mount.target.clone(), vec![seen]);
        if before.is_some() || mount.recursive && mount.template.is_none() {
            return None;
        }
    }
    if !records.grafts.is_empty() {
        let outline = outline()?;
        observed.newest = Some(outline.newest());
        for graft in &records.grafts {
            let id = observed.mounts.get(&graft.target)?.last()?.unique_id?;
            observed.mounts.extend(came_along(graft, id, outline)?);
        }
    }

    let same_root = records
        .kept
        .as_ref()
        .is_none_or(|kept| kept.root == record.root);
    (same_root && !record.mounts.is_empty()).then_some(observed)
}

/// Adds the mounts that are in grafts and did not come along with them. Without the whole table
/// they are only looked for where it matters, since the kernel examines every mount for this.
pub(crate) fn look_into_grafts(root: &HostPath, observed: &mut Observed) -> Result<()> {
    let cannot =
        |error| Error::failed(format!("cannot ask for the mounts in {root}")).because(&error);
    for target in observed.graft_targets() {
        let top = observed.mounts.get(&target).and_then(|stack| stack.last());
        if let Some(id) = top.and_then(|top| top.unique_id) {
            let inside = Table::inside(id).map_err(cannot)?;
            list(root, inside.below(root.as_path()), observed);
        }
    }
    Ok(())
}

/// Adds the mounts at paths that were not looked at as targets.
fn list(root: &HostPath, mounts: &[MountInfo], observed: &mut Observed) {
    for mounts in mounts.chunk_by(|a, b| a.point == b.point) {
        let path = in_the_jail(root, &mounts[0].point);
        if !observed.mounts.contains_key(&path) {
            let stack = table::stack(mounts).into_iter().map(listed).collect();
            observed.elsewhere.insert(path, stack);
        }
    }
}

/// The mounts that came along with the graft, whose unique mount ID is `id`, at their targets.
/// `None`: one is gone, or others are in it.
fn came_along(
    graft: &KnownGraft,
    id: u64,
    outline: &Outline,
) -> Option<Vec<(JailPath, Vec<ObservedMount>)>> {
    let inside = outline.inside(id);
    if inside.len() != graft.members.len() {
        return None;
    }
    let mut by_group: HashMap<_, _> = graft
        .members
        .iter()
        .map(|member| Some((member.peer_group?, member)))
        .collect::<Option<_>>()?;
    let member = |(id, found): (u64, &MountOutline)| {
        let member: &RecordedMount = by_group.remove(&found.master?)?;
        let seen = ObservedMount {
            id: found.id,
            unique_id: Some(id),
            file: Some(member.file),
            kind: None,
            fs_root: None,
            device: None,
            file_system: None,
            attributes: member.attributes,
            made_shared: false,
            master: found.master,
        };
        Some((member.target.clone(), vec![seen]))
    };
    inside.into_iter().map(member).collect()
}

struct ObservedRoot<'a> {
    root: Rc<OwnedFd>,
    path: &'a HostPath,
    /// The id of the mount that the root is on.
    root_mount: Option<u64>,
    /// The device that the root is on.
    root_device: u64,
    /// The mountinfo id of the root's mount, if that mount is not shared. Mounts on it do not
    /// become shared by themselves.
    private: Option<u64>,
    /// The mounts below the root, sorted by mount point. `None`: the kernel is asked for each.
    table: Option<&'a [MountInfo]>,
    kept: HashSet<JailPath>,
    /// Nothing is recorded as mounted, so directories that were made can be looked into.
    is_down: bool,
    recorded: Vec<JailPath>,
    /// The directory that was looked into last. Most targets share it with the target before.
    last: RefCell<Option<(JailPath, Rc<OwnedFd>)>>,
    /// The directories that were looked for and are not there.
    absent: RefCell<BTreeSet<JailPath>>,
    /// The directories on the way to something that were looked at and are not there.
    missing: RefCell<BTreeSet<JailPath>>,
    /// The recorded grafts, with the unique mount IDs of those at their targets.
    grafts: Vec<(KnownGraft, Vec<u64>)>,
    /// The directories that were looked into and are on another mount than the root.
    apart: RefCell<BTreeMap<JailPath, Apart>>,
}

impl<'a> ObservedRoot<'a> {
    fn new(
        root: OwnedFd,
        stat: &Stat,
        desired: &'a Desired,
        observed: &Observed,
        table: Option<&'a Table>,
    ) -> Self {
        let kept = observed
            .kept
            .iter()
            .flat_map(|kept| &kept.made)
            .map(|made| made.path.clone())
            .collect();
        let recorded: BTreeSet<_> = observed
            .recorded_mounts()
            .map(|mount| mount.target.clone())
            .collect();
        let below = table.map(|table| table.below(desired.root.as_path()));
        let ids_at = |target: &JailPath| {
            let recorded = observed.recorded_mounts();
            let there = recorded.filter(|mount| mount.target == *target);
            there.filter_map(|mount| mount.unique_id).collect()
        };
        let grafts = observed.grafts.iter();
        Self {
            root: Rc::new(root),
            path: &desired.root,
            root_mount: stat.mount_id,
            root_device: stat.file.dev,
            private: private_mount(stat, table),
            table: below,
            kept,
            is_down: observed.record.is_none(),
            recorded: recorded.into_iter().collect(),
            last: RefCell::default(),
            absent: RefCell::default(),
            missing: RefCell::default(),
            grafts: grafts
                .map(|graft| (graft.clone(), ids_at(&graft.target)))
                .collect(),
            apart: RefCell::default(),
        }
    }

    fn look(&mut self, desired: &Desired, observed: &mut Observed) -> Result<()> {
        let targets = desired.mounts.iter().map(|mount| &mount.target);
        let members: Vec<_> = observed.member_targets().cloned().collect();
        for target in targets.chain(&self.recorded).chain(&members) {
            if observed.mounts.contains_key(target) {
                continue;
            }
            let stat = match self.stat(target) {
                Ok(stat) => stat,
                Err(error) => {
                    let error = self.cannot(target, &error);
                    let Some(mounts) = self.mounts_unseen(target)? else {
                        return Err(error);
                    };
                    observed.mounts.insert(target.clone(), mounts);
                    observed.unseen.insert(target.clone(), error);
                    continue;
                }
            };
            let mounts = self.mounts(target, stat.as_ref())?;
            if mounts.is_empty() {
                self.look_at(target, stat, &mut observed.paths)?;
            } else {
                observed.mounts.insert(target.clone(), mounts);
            }
        }

        for link in &desired.links {
            let stat = self
                .stat(&link.path)
                .map_err(|error| self.cannot(&link.path, &error))?;
            self.look_at(&link.path, stat, &mut observed.paths)?;
        }

        self.look_at_what_was_made(observed)?;
        let own = desired.directories.iter().map(|own| &own.path);
        for path in desired.placeholders.iter().map(|(path, _)| path).chain(own) {
            let stat = self.stat(path).map_err(|error| self.cannot(path, &error))?;
            self.look_at(path, stat, &mut observed.paths)?;
        }
        file_systems::name(desired, observed)?;

        self.look_elsewhere(desired, observed).map_err(|error| {
            Error::failed(format!("cannot ask for the mounts in {}", self.path)).because(&error)
        })?;
        let file_at = |path: &JailPath| self.stat(path).ok().flatten().map(|stat| stat.file);
        submounts::name_moved(observed, file_at);
        submounts::compare(desired, observed, file_at);
        Ok(())
    }

    /// Looks at all directories that were made in the root of a site that is down.
    fn look_at_what_was_made(&self, observed: &mut Observed) -> Result<()> {
        if !self.is_down {
            return Ok(());
        }
        let kept = observed.kept.iter().flat_map(|kept| &kept.made);
        let directories = kept.filter(|made| made.kind == CreatedKind::Directory);
        let paths: Vec<_> = directories.map(|made| made.path.clone()).collect();
        for path in paths {
            let stat = self
                .stat(&path)
                .map_err(|error| self.cannot(&path, &error))?;
            self.look_at(&path, stat, &mut observed.paths)?;
        }
        Ok(())
    }

    fn look_elsewhere(&self, desired: &Desired, observed: &mut Observed) -> io::Result<()> {
        let Some(table) = self.table else {
            return self.ask_elsewhere(desired, observed);
        };
        let seen: usize = observed.mounts.values().map(Vec::len).sum();
        if table.len() > seen {
            list(self.path, table, observed);
        }
        Ok(())
    }

    /// Adds the mounts elsewhere without a table: those in recursive mounts besides grafts, or all
    /// of them if a recorded mount is lost.
    fn ask_elsewhere(&self, desired: &Desired, observed: &mut Observed) -> io::Result<()> {
        let is_lost = |mount: &RecordedMount| submounts::is_lost(mount, &observed.mounts);
        if observed.recorded_mounts().any(is_lost) {
            let table = Table::read().map_err(io::Error::other)?;
            list(self.path, table.below(self.path.as_path()), observed);
            return Ok(());
        }

        let recorded = observed
            .recorded_mounts()
            .filter(|mount| mount.recursive && mount.template.is_none())
            .map(|mount| &mount.target);
        let desired = desired
            .mounts
            .iter()
            .filter(|mount| mount.recursive)
            .map(|mount| &mount.target);
        let recursive: BTreeSet<_> = recorded.chain(desired).cloned().collect();

        for target in recursive {
            let top = observed
                .mounts
                .get(&target)
                .and_then(|mounts| mounts.last());
            if let Some(id) = top.and_then(|top| top.unique_id) {
                let inside = Table::inside(id)?;
                list(self.path, inside.below(self.path.as_path()), observed);
            }
        }
        Ok(())
    }

    /// The mounts at `target`, whose statx(2) is `stat`, bottom first.
    fn mounts(&self, target: &JailPath, stat: Option<&Stat>) -> Result<Vec<ObservedMount>> {
        let in_table = self.table.map(|table| {
            let at = |mount: &MountInfo| {
                self.in_the_jail(mount)
                    .as_os_str()
                    .cmp(target.as_path().as_os_str())
            };
            let first = table.partition_point(|mount| at(mount).is_lt());
            let count = table[first..].partition_point(|mount| at(mount).is_eq());
            &table[first..first + count]
        });
        if let Some(seen) = in_table.and_then(|mounts| mounts_by_table(mounts, stat, self.private))
        {
            return Ok(seen);
        }

        // Nothing is mounted there, or it was mounted after the table was read.
        self.mounts_by_asking(target, stat)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOSYS) => self.mounted_meanwhile(target),
                _ => self.cannot(target, &error),
            })
    }

    /// The mounts at `target`, whose topmost one cannot be looked at, bottom first; no server is
    /// asked. `None`: no mount is there.
    fn mounts_unseen(&self, target: &JailPath) -> Result<Option<Vec<ObservedMount>>> {
        let found = target.file_name().and_then(|name| {
            let directory = self.directory_of(target).ok()?;
            sys::mount_of(&directory, Path::new(name)).ok()
        });
        let Some(OnMount {
            id: Some(id),
            is_root: Some(true),
            ..
        }) = found
        else {
            return Ok(None);
        };
        let table = Table::read()?;
        let mounts = table.at(self.path.inside(target).as_path());
        let stack = table::stack_below(mounts, |mount| mount.id == id);
        Ok(stack.map(|stack| stack.into_iter().map(listed).collect()))
    }

    /// The path in the jail of a mount below the root.
    fn in_the_jail<'m>(&self, mount: &'m MountInfo) -> &'m Path {
        let root = self.path.as_path().as_os_str().len();
        Path::new(OsStr::from_bytes(
            &mount.point.as_os_str().as_bytes()[root..],
        ))
    }

    fn mounts_by_asking(
        &self,
        target: &JailPath,
        stat: Option<&Stat>,
    ) -> io::Result<Vec<ObservedMount>> {
        let Some(stat) = stat else { return Ok(vec![]) };
        let (Some(true), Some(id)) = (stat.mount_root, stat.mount_id) else {
            return Ok(vec![]);
        };
        if let Some(member) = self.member(target, stat, id)? {
            return Ok(vec![member]);
        }
        let stack = self.stack_by_asking(target, id)?;
        Ok(observed_stack(
            &stack.iter().collect::<Vec<_>>(),
            stat,
            self.private,
        ))
    }

    /// The mount with the unique mount ID `id` at `target`, if it is on a graft and follows the
    /// mount there that came along with the graft. Its paths are not asked for.
    fn member(&self, target: &JailPath, stat: &Stat, id: u64) -> io::Result<Option<ObservedMount>> {
        let mut grafts = self.grafts.iter();
        let Some((on, groups)) = grafts.find_map(|(graft, on)| {
            let groups = graft.members_at(target).iter();
            let groups: Vec<_> = groups.filter_map(|mount| mount.peer_group).collect();
            (!groups.is_empty()).then_some((on, groups))
        }) else {
            return Ok(None);
        };
        let found = sys::mount_outline(id)?;
        let follows = found.master.is_some_and(|master| groups.contains(&master));
        Ok(
            (follows && on.contains(&found.parent)).then(|| ObservedMount {
                id: found.id,
                unique_id: Some(id),
                file: Some(stat.file),
                kind: Some(stat.kind),
                fs_root: None,
                device: None,
                file_system: None,
                attributes: MountAttributes::from_statmount(found.attributes),
                made_shared: false,
                master: found.master,
            }),
        )
    }

    /// The mount with the id `top` and the mounts beneath it at the same place, bottom first.
    fn stack_by_asking(&self, target: &JailPath, top: u64) -> io::Result<Vec<MountInfo>> {
        let point = self.path.inside(target);
        let mut stack = vec![];
        let mut id = top;
        loop {
            let mount = match sys::stat_mount(id) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) && !stack.is_empty() => {
                    break;
                }
                result => result?,
            };
            if !stack.is_empty() && mount.point != point.as_path() {
                break;
            }
            let parent = mount.parent;
            stack.push(MountInfo::from_statmount(id, mount));
            if Some(parent) == self.root_mount || parent == id {
                break;
            }
            id = parent;
        }
        stack.reverse();
        Ok(stack)
    }

    /// The statx(2) of `target`, or of the mount on it. `None` if nothing is there, or a link is on
    /// the way.
    fn stat(&self, target: &JailPath) -> io::Result<Option<Stat>> {
        let Some(name) = target.file_name() else {
            return Ok(None);
        };
        let found = self
            .directory_of(target)
            .and_then(|directory| sys::stat_at(&directory, Path::new(name)));
        match found {
            Err(error) if is_absent(&error) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Opens the directory that holds `path`, following no links.
    fn directory_of(&self, path: &JailPath) -> io::Result<Rc<OwnedFd>> {
        let parent = path.parent().unwrap_or_else(JailPath::slash);
        if parent == JailPath::slash() {
            return Ok(self.root.clone());
        }
        if self.absent.borrow().contains(&parent) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let mut last = self.last.borrow_mut();
        if let Some((known, directory)) = &*last
            && *known == parent
        {
            return Ok(directory.clone());
        }

        let directory = sys::open_beneath(
            &self.root,
            parent.relative(),
            libc::O_PATH | libc::O_DIRECTORY,
        )
        .inspect_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                self.absent.borrow_mut().insert(parent.clone());
            }
        })?;
        let stat = sys::stat_fd(&directory)?;
        if stat.mount_id != self.root_mount {
            self.apart
                .borrow_mut()
                .insert(parent.clone(), Apart::of(&directory, stat));
        }

        let directory = Rc::new(directory);
        *last = Some((parent, directory.clone()));
        Ok(directory)
    }

    /// Adds what is at `path`, whose statx(2) is `stat`, and at every directory on the way, as far
    /// as they exist.
    fn look_at(
        &self,
        path: &JailPath,
        stat: Option<Stat>,
        paths: &mut BTreeMap<JailPath, PathState>,
    ) -> Result<()> {
        if self.look_at_ancestors(path, paths)?
            && let Some(stat) = stat
            && !paths.contains_key(path)
        {
            let seen = self
                .seen(path, &stat, true)
                .map_err(|error| self.cannot(path, &error))?;
            paths.insert(path.clone(), seen);
        }
        Ok(())
    }

    /// Adds every directory on the way to `path`. Returns whether all of them are directories.
    fn look_at_ancestors(
        &self,
        path: &JailPath,
        paths: &mut BTreeMap<JailPath, PathState>,
    ) -> Result<bool> {
        let Some(parent) = path.parent().filter(|parent| *parent != JailPath::slash()) else {
            return Ok(true);
        };
        if let Some(seen) = paths.get(&parent) {
            return Ok(seen.kind == FileKind::Directory);
        }
        if !self.look_at_ancestors(&parent, paths)? || self.missing.borrow().contains(&parent) {
            return Ok(false);
        }
        let cannot = |error| self.cannot(&parent, &error);
        let Some(stat) = self.stat(&parent).map_err(cannot)? else {
            self.missing.borrow_mut().insert(parent);
            return Ok(false);
        };
        paths.insert(
            parent.clone(),
            self.seen(&parent, &stat, self.is_down && self.kept.contains(&parent))
                .map_err(cannot)?,
        );
        Ok(stat.kind == FileKind::Directory)
    }

    fn seen(&self, path: &JailPath, stat: &Stat, look_inside: bool) -> io::Result<PathState> {
        let (stat, link) = match (stat.kind, path.file_name()) {
            (FileKind::Symlink, Some(name)) => {
                sys::entry_at(self.directory_of(path)?, Path::new(name))?
            }
            _ => (*stat, None),
        };
        let empty = match stat.kind {
            FileKind::Directory => !look_inside || self.is_empty(path)?,
            _ => stat.size == 0,
        };
        Ok(PathState {
            kind: stat.kind,
            file: Identity::of(&stat, self.root_device),
            empty,
            link,
        })
    }

    /// Whether the directory is empty except for what mountjail made.
    fn is_empty(&self, path: &JailPath) -> io::Result<bool> {
        let directory = sys::open_beneath(
            &self.root,
            path.relative(),
            libc::O_RDONLY | libc::O_DIRECTORY,
        )?;
        for entry in fs::read_dir(proc::path_of_descriptor(&directory))? {
            let inside = path.join(entry?.file_name());
            if !inside.is_ok_and(|inside| self.kept.contains(&inside)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn mounted_meanwhile(&self, target: &JailPath) -> Error {
        let path = self.path.inside(target);
        Error::failed(format!(
            "something was mounted on {path} while the command ran"
        ))
        .overtaken()
    }

    fn cannot(&self, target: &JailPath, error: &io::Error) -> Error {
        let cannot =
            Error::failed(format!("cannot look at {}", self.path.inside(target))).because(error);
        match cannot.errno() {
            // It was there just before, or it was a link and is not one any more.
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EINVAL) => cannot.overtaken(),
            _ => cannot,
        }
    }
}

/// Recorded mounts that still exist but were not seen where they were made. A mount that has come
/// back meanwhile is included: somebody moves it to and fro, and without an entry in this list it
/// would be forgotten.
fn strays(observed: &Observed) -> Vec<Stray> {
    let recorded = observed.recorded_mounts();
    let elsewhere = recorded.filter_map(|mount| {
        let id = mount.unique_id?;
        let here = observed.mounts.get(&mount.target).into_iter().flatten();
        let here = here.chain(observed.elsewhere.get(&mount.target).into_iter().flatten());
        if here.into_iter().any(|seen| seen.unique_id == Some(id)) {
            return None;
        }
        let point = sys::stat_mount(id).map(|mount| mount.point).ok();
        let point = point.filter(|point| (1..PATH_MAX).contains(&point.as_os_str().len()));
        (point.is_some() || sys::mount_exists(id)).then(|| Stray {
            target: mount.target.clone(),
            unique_id: id,
            point,
        })
    });
    elsewhere.collect()
}

/// The mountinfo id of the mount that `stat` is on, if that mount is not shared.
fn private_mount(stat: &Stat, table: Option<&Table>) -> Option<u64> {
    let id = stat.mount_id?;
    if stat.mount_id_is_unique {
        let mount = sys::stat_mount(id).ok()?;
        return (mount.propagation & libc::MS_SHARED == 0).then_some(mount.id);
    }
    table?.get(id)?.peer_group.is_none().then_some(id)
}

/// Whether the error means that nothing is there, or that a link or a file is on the way.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
    )
}

/// The mounts at one point, bottom first. The topmost one is the mount that `stat` is of; the table
/// may have others there that a mount above hides. `None` if none of them is that mount.
fn mounts_by_table(
    mounts: &[MountInfo],
    stat: Option<&Stat>,
    private: Option<u64>,
) -> Option<Vec<ObservedMount>> {
    let stat = stat.filter(|stat| stat.mount_root != Some(false))?;
    let stack = table::stack_below(mounts, |mount| is_found(mount, stat))?;
    let mut seen = observed_stack(&stack, stat, private);
    if let Some(top) = seen.last_mut() {
        top.unique_id = stat.mount_id.filter(|_| stat.mount_id_is_unique);
    }
    Some(seen)
}

/// A stack of mounts, bottom first. `stat` is of the root of the topmost one. `private`: the id of
/// the mount that the jail's root is on, if mounts on it do not become shared by themselves.
fn observed_stack(stack: &[&MountInfo], stat: &Stat, private: Option<u64>) -> Vec<ObservedMount> {
    let top = stack.last().map(|top| (top.device, &top.root));
    let is_whole = |root: &Path| !root.as_os_str().as_bytes().ends_with(b"//deleted");
    let seen = stack.iter().enumerate().map(|(nth, mount)| {
        let same = nth + 1 == stack.len()
            || is_whole(&mount.root) && top == Some((mount.device, &mount.root));
        let (file, kind) = if same {
            (Some(stat.file), Some(stat.kind))
        } else {
            (None, None)
        };
        let made_shared = mount.peer_group.is_some() && private == Some(mount.parent);
        ObservedMount {
            file,
            kind,
            made_shared,
            ..listed(mount)
        }
    });
    seen.collect()
}

/// Whether `stat` is of the root of `mount`. The answer is yes if their ids are not of the same
/// kind and cannot be compared.
fn is_found(mount: &MountInfo, stat: &Stat) -> bool {
    let id = if stat.mount_id_is_unique {
        mount.unique_id
    } else {
        Some(mount.id)
    };
    id.is_none() || stat.mount_id.is_none() || id == stat.mount_id
}

/// A mount in the table, without the file that is visible at its root.
pub(super) fn listed(mount: &MountInfo) -> ObservedMount {
    ObservedMount {
        id: mount.id,
        unique_id: mount.unique_id,
        file: None,
        kind: None,
        fs_root: Some(mount.root.clone()),
        device: Some(mount.device),
        file_system: None,
        attributes: mount.attributes,
        made_shared: false,
        master: mount.master,
    }
}

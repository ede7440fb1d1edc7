//! Looks at one site as it is now.

mod elsewhere;
mod mounts;
mod paths;

pub(crate) use self::elsewhere::look_into_grafts;
pub(super) use self::mounts::listed;

use std::cell::{LazyCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::file_systems;
use super::holders::{self, Apart};
use super::lost_grafts;
use super::mountinfo::MountInfo;
use super::observed::Observed;
use super::record::{CreatedKind, KnownGraft, RootDirectory};
use super::recorded::only_of;
use super::state::SiteRecords;
use super::strays::find_strays;
use super::submounts;
use super::table::Table;
use crate::base::{HostPath, JailPath};
use crate::resolve::Desired;
use crate::sys::{self, Stat};
use crate::{Error, Result};

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
    let found = templates.and_then(|known| lost_grafts::found(&observed, desired, &known));
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
    let mut site = ObservedRoot::new(root, stat, desired, &observed, table);
    site.look(desired, &mut observed)?;
    observed.holders = holders::holders(&desired.root, site.apart.take(), &observed, table)?;
    find_strays(&mut observed);
    Ok(observed)
}

struct ObservedRoot<'a> {
    root: Rc<OwnedFd>,
    path: &'a HostPath,
    /// The id of the mount that the root is on.
    root_mount: Option<u64>,
    /// The device that the root is on.
    root_device: u64,
    /// The mountinfo id of the root's mount, if that mount is not shared. Mounts on it do not
    /// become shared by themselves. It is asked for when it is needed.
    private: LazyCell<Option<u64>, Box<dyn FnOnce() -> Option<u64> + 'a>>,
    /// The mounts below the root, sorted by mount point. `None`: the kernel is asked for each.
    table: Option<&'a [MountInfo]>,
    kept: HashSet<JailPath>,
    /// Directories that were made are looked into, because a graft can go there: the site is down,
    /// or has mounts that were made one by one.
    has_soil: bool,
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
        stat: Stat,
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
            private: LazyCell::new(Box::new(move || private_mount(&stat, table))),
            table: below,
            kept,
            has_soil: observed.record.is_none()
                || observed.has_mounts_besides(&observed.graft_targets()),
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

        self.look_elsewhere(desired, observed)
            .map_err(|error| elsewhere::cannot_ask(self.path, &error))?;
        let file_at = |path: &JailPath| self.stat(path).ok().flatten().map(|stat| stat.file);
        submounts::name_moved(observed, file_at);
        submounts::compare(desired, observed, file_at);
        Ok(())
    }

    /// Looks at all directories that were made in the root, if a graft can go there.
    fn look_at_what_was_made(&self, observed: &mut Observed) -> Result<()> {
        if !self.has_soil {
            return Ok(());
        }
        let kept = observed.kept.iter().flat_map(|kept| &kept.made);
        let directories = kept.filter(|made| made.kind == CreatedKind::Directory);
        let is_mounted = |path: &JailPath| observed.mounts.contains_key(path);
        let bare = directories.filter(|made| {
            !is_mounted(&made.path) && !made.path.directories_above().iter().any(is_mounted)
        });
        let paths: Vec<_> = bare.map(|made| made.path.clone()).collect();
        for path in paths {
            let stat = self
                .stat(&path)
                .map_err(|error| self.cannot(&path, &error))?;
            self.look_at(&path, stat, &mut observed.paths)?;
        }
        Ok(())
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

/// The mountinfo id of the mount that `stat` is on, if that mount is not shared.
fn private_mount(stat: &Stat, table: Option<&Table>) -> Option<u64> {
    let id = stat.mount_id?;
    if stat.mount_id_is_unique {
        let mount = sys::stat_mount(id).ok()?;
        return (mount.propagation & libc::MS_SHARED == 0).then_some(mount.id);
    }
    table?.get(id)?.peer_group.is_none().then_some(id)
}

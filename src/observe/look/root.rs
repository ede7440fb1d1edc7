//! The root of a site that is looked at, and what is known about it by then.

use std::cell::{LazyCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::Error;
use crate::base::{HostPath, JailPath};
use crate::observe::holders::Apart;
use crate::observe::mountinfo::MountInfo;
use crate::observe::observed::Observed;
use crate::observe::record::KnownGraft;
use crate::observe::table::Table;
use crate::resolve::Desired;
use crate::sys::{self, Stat};

pub(super) struct ObservedRoot<'a> {
    pub root: Rc<OwnedFd>,
    pub path: &'a HostPath,
    /// The id of the mount that the root is on.
    pub root_mount: Option<u64>,
    /// The device that the root is on.
    pub root_device: u64,
    /// The mountinfo id of the root's mount, if that mount is not shared. Mounts on it do not
    /// become shared by themselves. It is asked for when it is needed.
    pub private: LazyCell<Option<u64>, Box<dyn FnOnce() -> Option<u64> + 'a>>,
    /// The mounts below the root, sorted by mount point. `None`: the kernel is asked for each.
    pub table: Option<&'a [MountInfo]>,
    pub kept: HashSet<JailPath>,
    /// Directories that were made are looked into, because a graft can go there: the site is down,
    /// or has mounts that were made one by one.
    pub has_soil: bool,
    pub recorded: Vec<JailPath>,
    /// The directory that was looked into last. Most targets share it with the target before.
    pub last: RefCell<Option<(JailPath, Rc<OwnedFd>)>>,
    /// The directories that were looked for and are not there.
    pub absent: RefCell<BTreeSet<JailPath>>,
    /// The directories on the way to something that were looked at and are not there.
    pub missing: RefCell<BTreeSet<JailPath>>,
    /// The recorded grafts, with the unique mount IDs of those at their targets.
    pub grafts: Vec<(KnownGraft, Vec<u64>)>,
    /// The directories that were looked into and are on another mount than the root.
    pub apart: RefCell<BTreeMap<JailPath, Apart>>,
}

impl<'a> ObservedRoot<'a> {
    pub(super) fn new(
        root: OwnedFd,
        stat: Stat,
        desired: &'a Desired,
        observed: &Observed,
        table: Option<&'a Table>,
    ) -> Self {
        let made = observed.kept.iter().flat_map(|kept| &kept.made);
        let mut recorded = BTreeSet::new();
        for mount in observed.recorded_mounts() {
            recorded.insert(mount.target.clone());
        }
        let mut grafts = vec![];
        for graft in &observed.grafts {
            grafts.push((graft.clone(), recorded_ids(observed, &graft.target)));
        }
        Self {
            root: Rc::new(root),
            path: &desired.root,
            root_mount: stat.mount_id,
            root_device: stat.file.dev,
            private: LazyCell::new(Box::new(move || private_mount(&stat, table))),
            table: table.map(|table| table.below(desired.root.as_path())),
            kept: made.map(|made| made.path.clone()).collect(),
            has_soil: observed.record.is_none()
                || observed.has_mounts_besides(&observed.graft_targets()),
            recorded: recorded.into_iter().collect(),
            last: RefCell::default(),
            absent: RefCell::default(),
            missing: RefCell::default(),
            grafts,
            apart: RefCell::default(),
        }
    }
}

/// The unique IDs of the recorded mounts at `target`.
fn recorded_ids(observed: &Observed, target: &JailPath) -> Vec<u64> {
    let mut ids = vec![];
    for mount in observed.recorded_mounts() {
        if mount.target == *target {
            ids.extend(mount.unique_id);
        }
    }
    ids
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

/// The error that the kernel does not tell which mounts are in the root.
pub(super) fn cannot_ask(root: &HostPath, error: &io::Error) -> Error {
    Error::failed(format!("cannot ask for the mounts in {root}")).because(error)
}

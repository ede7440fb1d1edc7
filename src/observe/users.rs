//! The users of a site: processes whose root or working directory, program, open files or maps are
//! in its mounts, in any mount namespace.
//!
//! No file system is asked, so a file system that hangs does not matter. The kernel shows the files
//! of a process as links with the paths in the process's own mount namespace (`proc_pid_fd(5)`).
//! The table of that namespace (`proc_pid_mountinfo(5)`) tells which mount a path is in. A copy of
//! one of our mounts in another namespace is recognised by what it shows and what it is mounted on:
//! the same directories of the same file systems, wherever that namespace has them. So users are
//! also found where the root is `/`, as with systemd's `RootDirectory=`. A namespace without
//! processes is not seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use super::clone_ids::CloneIds;
use super::mountinfo::Line;
use super::namespace::{MountIdentity, Namespace, On, key_of_mount};
use super::outline::Outline;
use super::process::Process;
use super::space::{FileCounts, OtherSpace, Space, spaces};
use crate::base::sync::processors;
use crate::base::{HostPath, JailPath};
use crate::{Result, sys};

/// A process that uses a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The process, with its unit.
    pub process: Process,
    /// The targets of the mounts that it uses, sorted. Empty if it only has the site's root as its
    /// root directory.
    pub targets: Vec<JailPath>,
}

/// A mount of a site whose users are looked for.
#[derive(Clone, Debug)]
pub struct Used<'t> {
    /// The mount point inside the jail.
    pub target: &'t JailPath,
    /// Its mount point on the host now.
    pub point: PathBuf,
    /// Its unique ID, if it is known.
    pub unique_id: Option<u64>,
    /// Whether the kernel is not asked about it, since other mounts of the site are in it.
    pub is_graft: bool,
}

/// The mounts of one site by their mount points.
type ByPoint<'m> = HashMap<&'m Path, &'m Used<'m>>;

/// The kinds of users that are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Users that the kernel ignores when it checks whether the mounts are busy: processes inside,
    /// and users of copies.
    BesidesKernel,
    /// All users.
    All,
}

/// The mounts that all processes use. Each process is looked at once, and only when it matters.
///
/// With many mounts, most of the time is spent on reading mount tables, and each mount namespace
/// has one. The table of this process is read only if a mount may have a copy in it. The files of
/// processes are looked at only if the table of their namespace has one of the mounts.
///
/// If a process has very many files ([`MAX_FILES`], [`MAX_FILES_OF_USER`]), not all are looked at.
/// Then its root, working directory and program decide.
#[derive(Debug)]
pub struct Users {
    own: Space,
    own_table: OnceLock<Result<Namespace>>,
    others: Vec<OtherSpace>,
    outline: OnceLock<Option<Outline>>,
    /// Grafts that are known.
    clones: Vec<CloneIds>,
    looked: FileCounts,
}

impl Users {
    /// Lists the processes besides this one. Only root sees those of all users. `clones`: the known
    /// grafts, which are then quicker to look at.
    pub fn look(clones: Vec<CloneIds>) -> Self {
        let (own, others) = spaces();
        let share = others.len().div_ceil(processors()).max(1);
        thread::scope(|scope| {
            for spaces in others.chunks(share).skip(1) {
                // If no thread can be started, each table is read when it is needed.
                let _ = thread::Builder::new().spawn_scoped(scope, || read_tables(spaces));
            }
            read_tables(&others[..share.min(others.len())]);
        });
        Self {
            own,
            own_table: OnceLock::new(),
            others,
            outline: OnceLock::new(),
            clones,
            looked: FileCounts::default(),
        }
    }

    /// The users of the site at `root` with these `mounts`, sorted by pid.
    ///
    /// Errors: this process's own table of mounts cannot be read.
    pub fn of(&self, root: &HostPath, mounts: &[Used<'_>], depth: Depth) -> Result<Vec<User>> {
        let mut found: BTreeMap<u32, BTreeSet<&JailPath>> = BTreeMap::new();
        for pid in self.inside(root)? {
            found.entry(pid).or_default();
        }

        let mut site = ByPoint::new();
        for mount in mounts {
            site.insert(&mount.point, mount);
        }
        for mount in mounts {
            for pid in self.users_of(mount, &site, depth)? {
                found.entry(pid).or_default().insert(mount.target);
            }
        }

        let mut users = vec![];
        for (pid, targets) in found {
            if let Some(process) = Process::of(pid) {
                let targets = targets.into_iter().cloned().collect();
                users.push(User { process, targets });
            }
        }
        Ok(users)
    }

    /// Whether the mount with this unique ID may be mounted elsewhere as well, in this or another
    /// namespace.
    pub(crate) fn may_have_copies(&self, unique_id: u64) -> bool {
        let Some(outline) = self.outline() else {
            return true;
        };
        let Some(pair) = outline.pair(unique_id) else {
            return true;
        };
        outline.has_several(unique_id) || self.others.iter().any(|other| other.may_have(pair))
    }

    /// The processes whose root directory is `root` and has mounts. A copy of the root without
    /// mounts does not count, because its processes have none to lose.
    fn inside(&self, root: &HostPath) -> Result<Vec<u32>> {
        let id = sys::file_known_at(root.as_path()).ok();
        let path = root.as_path().as_os_str(); // comparing the names on the way takes longer
        let mut pids = vec![];
        for found in &self.own.processes {
            if found.root.as_os_str() == path
                || (id.is_some()
                    && found.root_id == id
                    && self.own_table()?.has_mounts_in(&found.root))
            {
                pids.push(found.pid);
            }
        }

        for other in &self.others {
            let processes = &other.space.processes;
            if id.is_none() || processes.iter().all(|found| found.root_id != id) {
                continue;
            }
            let Some(table) = other.table() else {
                continue;
            };
            for found in processes {
                if found.root_id == id && table.has_mounts_in(&found.root) {
                    pids.push(found.pid);
                }
            }
        }
        Ok(pids)
    }

    /// The processes that use `mount`, one of those of the `site`, or a copy of it.
    fn users_of(
        &self,
        mount: &Used<'_>,
        site: &ByPoint<'_>,
        depth: Depth,
    ) -> Result<BTreeSet<u32>> {
        let known = self.outline();
        let pair = match (known, mount.unique_id) {
            (Some(outline), Some(id)) => outline.pair(id),
            _ => None,
        };
        let outline = known.filter(|_| depth == Depth::BesidesKernel);
        let mut pids = BTreeSet::new();
        let here = outline.is_none()
            || mount.is_graft && self.own.is_used_below(&mount.point, &self.looked);
        if here || has_copies(outline, mount) {
            let table = self.own_table()?;
            if self.own.may_use(table, pair, &self.looked) {
                for line in self.copies(table, mount, site, outline)? {
                    let point = line.mount.point.as_os_str();
                    if here || point != mount.point.as_os_str() {
                        pids.extend(self.own.users_at(table, point, &self.looked));
                    }
                }
            }
        }

        for other in &self.others {
            let Some(table) = other.table() else {
                continue;
            };
            let space = &other.space;
            if !table.may_have(pair) || !space.may_use(table, pair, &self.looked) {
                continue;
            }
            for line in self.copies(table, mount, site, outline)? {
                let point = line.mount.point.as_os_str();
                pids.extend(space.users_at(table, point, &self.looked));
            }
        }
        Ok(pids)
    }

    /// The mount and its copies in `table`. A submount that came along with a recursive mount has
    /// the same key as the host's own submount. So it must be on a copy of the site's mount that it
    /// is on, if the table shows that one.
    fn copies<'n>(
        &self,
        table: &'n Namespace,
        mount: &Used<'_>,
        site: &ByPoint<'_>,
        outline: Option<&Outline>,
    ) -> Result<Vec<&'n Line>> {
        let keys = self.keys(mount, outline)?;
        if let Some(parent) = nearest_above(mount, site)
            && self.is_on(mount, parent)?
        {
            let on = self.copies(table, parent, site, outline)?;
            return Ok(table.lines_on(&keys, &on));
        }
        Ok(table.lines_with(&keys))
    }

    /// Whether `mount`, or the stack of mounts that it is in, is on `parent`, and not beneath it.
    fn is_on(&self, mount: &Used<'_>, parent: &Used<'_>) -> Result<bool> {
        if let Some(id) = mount.unique_id
            && let Ok(mut found) = sys::stat_mount(id)
        {
            while let Ok(on) = sys::stat_mount(found.parent) {
                if on.point != mount.point {
                    return Ok(on.point == parent.point);
                }
                if on.parent == found.parent {
                    break; // the root of the namespace is on itself
                }
                found = on;
            }
            return Ok(false);
        }
        let table = self.own_table()?;
        for line in table.at(mount.point.as_os_str()) {
            if let Some(on) = table.holder(line)
                && on.mount.point == parent.point
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The keys of the mount. There may be several if the own table has several mounts at its
    /// place.
    fn keys(&self, mount: &Used<'_>, outline: Option<&Outline>) -> Result<Vec<MountIdentity>> {
        let mut keys = match mount.unique_id {
            Some(id) if outline.is_some() => key_of_mount(id).into_iter().collect(),
            _ => vec![],
        };
        if keys.is_empty() {
            keys = self.own_table()?.keys_at(mount.point.as_os_str());
        }
        let as_path =
            |(shows, _): &MountIdentity| (shows.clone(), On::Path(mount.point.clone().into()));
        let as_paths: Vec<_> = keys.iter().map(as_path).collect();
        keys.extend(as_paths);
        Ok(keys)
    }

    fn own_table(&self) -> Result<&Namespace> {
        let table = self.own_table.get_or_init(Namespace::own);
        table.as_ref().map_err(Clone::clone)
    }

    /// `None` if the kernel does not support it (before Linux 6.8).
    pub(crate) fn outline(&self) -> Option<&Outline> {
        let read = || Outline::read(&self.clones).ok();
        self.outline.get_or_init(read).as_ref()
    }
}

/// Reads the tables of `spaces`, which keep them.
fn read_tables(spaces: &[OtherSpace]) {
    for space in spaces {
        space.table();
    }
}

/// Whether mounts with the devices of this one are mounted several times; without an outline, that
/// is not known.
fn has_copies(outline: Option<&Outline>, mount: &Used<'_>) -> bool {
    match (outline, mount.unique_id) {
        (None, _) => true,
        (Some(outline), Some(id)) => outline.has_several(id),
        (Some(_), None) => false,
    }
}

/// The mount of the site that is nearest above `mount`.
fn nearest_above<'m>(mount: &Used<'_>, site: &ByPoint<'m>) -> Option<&'m Used<'m>> {
    for above in mount.point.ancestors().skip(1) {
        if let Some(parent) = site.get(above) {
            return Some(parent);
        }
    }
    None
}

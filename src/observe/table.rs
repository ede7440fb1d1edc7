//! The whole mount table of this namespace, read once.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::mountinfo::{self, MountInfo, OWN_TABLE};
use crate::base::ErrorContext;
use crate::base::sync::processors;
use crate::sys::{self, proc};
use crate::{Error, Result};

/// The number of mounts (2 µs each) from which on a thread is worth its start.
const WORTH_A_THREAD: usize = 500;

/// The mount table, ordered by path.
#[derive(Debug, Default)]
pub struct Table {
    /// Sorted by mount point, byte by byte. Mounts at one point are in the order of the table. A
    /// mount at an unknown place has an empty mount point and is below nothing.
    mounts: Vec<MountInfo>,
}

impl Table {
    /// Reads the table of this process's mount namespace: with `listmount(2)` and `statmount(2)` if
    /// the kernel has them, else from `/proc/self/mountinfo`.
    pub fn read() -> Result<Self> {
        if sys::probe::statmount() {
            let mounts = ask().context("cannot ask for the mount table")?;
            return Ok(Self::new(mounts));
        }
        Self::read_text()
    }

    /// As [`read`](Self::read), but always from `/proc/self/mountinfo`. This is slower, but has
    /// mount points of any length.
    pub fn read_text() -> Result<Self> {
        Self::parse(&mountinfo::own_text()?).map_err(|line| {
            Error::failed(format!("cannot read the mount table {OWN_TABLE}")).because_of(format!(
                "line {line} is not in the form of proc_pid_mountinfo(5)"
            ))
        })
    }

    /// The table that the process `pid` sees; `None` if it has ended or cannot be read.
    pub(super) fn of_process(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(proc::of(pid).join("mountinfo")).ok()?).ok()
    }

    /// The table of a mountinfo file.
    ///
    /// Errors: as [`mountinfo::parse`].
    pub(super) fn parse(text: &[u8]) -> Result<Self, usize> {
        mountinfo::parse(text).map(Self::new)
    }

    /// Whether the mounts below `path` are still as they were when the table was read: no mount was
    /// made since, and none of those is gone. `false` if mounts have no unique IDs (before Linux
    /// 6.8), because then that is unknown.
    pub(crate) fn is_current_below(&self, path: &Path) -> bool {
        let newest = self.mounts.iter().filter_map(|mount| mount.unique_id).max();
        let Some(newest) = newest else { return false };
        match sys::list_newer_mounts(newest) {
            Ok(newer) => newer.is_empty() && self.below(path).iter().all(MountInfo::exists),
            Err(_) => false,
        }
    }

    /// The mounts in the one with the unique ID `unique_id` (Linux 6.8).
    pub(super) fn inside(unique_id: u64) -> io::Result<Self> {
        Ok(Self::new(ask_for(&sys::list_mounts_in(unique_id)?)?))
    }

    fn new(mut mounts: Vec<MountInfo>) -> Self {
        mounts.sort_by(|a, b| bytes(&a.point).cmp(bytes(&b.point)));
        Self { mounts }
    }

    /// The mount points below `path`, each once.
    pub fn points_below(&self, path: &Path) -> Vec<PathBuf> {
        let below = self.below(path).iter();
        let mut points: Vec<_> = below.map(|mount| mount.point.clone()).collect();
        points.dedup();
        points
    }

    pub(super) fn mounts(&self) -> &[MountInfo] {
        &self.mounts
    }

    /// The mount with this id, which is the one in mountinfo and not the unique one.
    pub(super) fn get(&self, id: u64) -> Option<&MountInfo> {
        self.mounts.iter().find(|mount| mount.id == id)
    }

    /// The mount point of the mount with this id.
    pub fn point_of(&self, id: u64) -> Option<PathBuf> {
        Some(self.get(id)?.point.clone())
    }

    /// The peer group of the mount at `point`: the one with this unique id, or, if it has none, the
    /// topmost one.
    pub(crate) fn peer_group_at(&self, point: &Path, unique_id: Option<u64>) -> Option<u64> {
        for mount in stack(self.at(point)).into_iter().rev() {
            if unique_id.is_none() || mount.unique_id == unique_id {
                return mount.peer_group;
            }
        }
        None
    }

    /// Whether the mount with this id receives the mounts that are made in another mount namespace.
    pub(crate) fn follows(&self, id: u64) -> bool {
        self.get(id).is_some_and(|mount| mount.master.is_some())
    }

    /// Whether all mounts below `path` that are in `other`, the table of another mount namespace,
    /// appear here.
    pub(crate) fn shows_all_of(&self, other: &Self, path: &Path) -> bool {
        other.below(path).iter().all(|mount| {
            let mut here = self.at(&mount.point).iter();
            mount.peer_group.is_some() && here.any(|seen| seen.master == mount.peer_group)
        })
    }

    /// The mount that is visible at `path`, if one is mounted there: the others at this path are
    /// hidden by what is mounted above.
    pub(super) fn visible_at(&self, path: &Path) -> Option<&MountInfo> {
        let mut visible = *stack(self.at(Path::new("/"))).last()?;
        let mut above: Vec<_> = path.ancestors().collect();
        above.reverse();
        for point in above {
            while let Some(on_top) = self
                .at(point)
                .iter()
                .find(|mount| mount.parent == visible.id && mount.id != visible.id)
            {
                visible = on_top;
            }
        }
        (visible.point == path).then_some(visible)
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.get(id).is_some()
    }

    /// The mounts at `point`, in the order of the table.
    pub(super) fn at(&self, point: &Path) -> &[MountInfo] {
        let from_here = self.from(bytes(point));
        let count = from_here.partition_point(|mount| mount.point == point);
        &from_here[..count]
    }

    /// The mounts below `path`, sorted by mount point.
    pub(super) fn below(&self, path: &Path) -> &[MountInfo] {
        let mut prefix = bytes(path).to_vec();
        if prefix != b"/" {
            prefix.push(b'/');
        }
        let from_here = self.from(&prefix);
        let count = from_here.partition_point(|mount| bytes(&mount.point).starts_with(&prefix));
        let found = &from_here[..count];
        // The prefix `/` also matches `/` itself.
        &found[found.partition_point(|mount| mount.point == path)..]
    }

    /// The mounts whose mount points are `first` or sorted after it.
    fn from(&self, first: &[u8]) -> &[MountInfo] {
        let is_before = |mount: &MountInfo| bytes(&mount.point) < first;
        &self.mounts[self.mounts.partition_point(is_before)..]
    }
}

/// Asks the kernel for every mount.
fn ask() -> io::Result<Vec<MountInfo>> {
    let mut ids = sys::list_mounts()?;
    ids.extend(mount_of_slash()?); // listmount(2) leaves it out
    in_shares(&ids, ask_for)
}

/// Does `ask` for all of `mounts`: for many of them in several threads, each of which gets a share.
pub(super) fn in_shares<T: Sync, M: Send>(
    mounts: &[T],
    ask: impl Fn(&[T]) -> io::Result<Vec<M>> + Sync,
) -> io::Result<Vec<M>> {
    if mounts.len() <= WORTH_A_THREAD {
        return ask(mounts);
    }
    let threads = processors().min(mounts.len().div_ceil(WORTH_A_THREAD));
    let share = mounts.len().div_ceil(threads.max(1));
    let ask = &ask;

    thread::scope(|scope| {
        let mut threads = vec![];
        for share in mounts.chunks(share) {
            let thread = thread::Builder::new().spawn_scoped(scope, move || ask(share));
            threads.push((share, thread));
        }
        let mut answers = Vec::with_capacity(mounts.len());
        for (share, thread) in threads {
            let answer = match thread {
                Ok(thread) => match thread.join() {
                    Ok(answer) => answer,
                    Err(_) => return Err(io::Error::other("a thread panicked")),
                },
                Err(_) => ask(share), // there are too many threads
            };
            answers.extend(answer?);
        }
        Ok(answers)
    })
}

/// The unique ID of the mount that the root directory is on.
fn mount_of_slash() -> io::Result<Option<u64>> {
    let stat = sys::stat_fd(sys::open_host(
        Path::new("/"),
        libc::O_PATH | libc::O_DIRECTORY,
    )?)?;
    Ok(stat.unique_mount_id())
}

fn ask_for(ids: &[u64]) -> io::Result<Vec<MountInfo>> {
    let mut mounts = Vec::with_capacity(ids.len());
    for id in ids {
        match sys::stat_mount(*id) {
            Ok(mount) => mounts.push(MountInfo::from_statmount(*id, mount)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it is gone
            Err(error) => return Err(error),
        }
    }
    Ok(mounts)
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The mounts at one point, from the lowest up. Each one is mounted on the one before. The table
/// may have another order, since a mount made beneath another one is the younger.
pub(super) fn stack(mounts: &[MountInfo]) -> Vec<&MountInfo> {
    if let [only] = mounts {
        return vec![only];
    }
    let mut rest: Vec<_> = mounts.iter().collect();
    let mut stack: Vec<&MountInfo> = vec![];
    while !rest.is_empty() {
        let next = match stack.last() {
            None => rest.iter().position(|mount| below(mount, mounts).is_none()),
            Some(top) => rest.iter().position(|mount| mount.parent == top.id),
        };
        stack.push(rest.remove(next.unwrap_or(0)));
    }
    stack
}

/// The mount for which `is_top` holds, with the mounts at the same point that it is mounted on,
/// from the lowest up. If it holds for several mounts, all of them are returned in the order of
/// [`stack`]; if it holds for none, `None`.
pub(super) fn stack_below(
    mounts: &[MountInfo],
    is_top: impl Fn(&MountInfo) -> bool,
) -> Option<Vec<&MountInfo>> {
    let mut tops = mounts.iter().filter(|mount| is_top(mount));
    let top = tops.next()?;
    if tops.next().is_some() {
        return Some(stack(mounts));
    }

    let mut stack = vec![top];
    let mut lowest = top;
    while let Some(mount) = below(lowest, mounts)
        && stack.len() < mounts.len()
    {
        stack.push(mount);
        lowest = mount;
    }
    stack.reverse();
    Some(stack)
}

/// The one of `mounts` that `mount` is on.
fn below<'m>(mount: &MountInfo, mounts: &'m [MountInfo]) -> Option<&'m MountInfo> {
    let mut mounts = mounts.iter();
    mounts.find(|other| other.id == mount.parent && other.id != mount.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[(u64, u64, &str)]) -> Vec<MountInfo> {
        let text: Vec<_> = lines
            .iter()
            .map(|(id, parent, point)| format!("{id} {parent} 0:1 / {point} rw - t n rw\n"))
            .collect();
        mountinfo::parse(text.concat().as_bytes()).unwrap()
    }

    #[test]
    fn below_is_by_whole_components() {
        let table = Table::new(table(&[
            (1, 0, "/"),
            (2, 1, "/a"),
            (3, 2, "/a/b"),
            (4, 1, "/a.b"),
            (5, 3, "/a/b/c"),
        ]));
        let below = |path: &str| table.points_below(Path::new(path));
        assert_eq!(
            below("/a"),
            [PathBuf::from("/a/b"), PathBuf::from("/a/b/c")]
        );
        assert_eq!(below("/a/b/c"), Vec::<PathBuf>::new());
        assert_eq!(below("/").len(), 4);
    }

    #[test]
    fn a_mount_is_visible_unless_another_one_above_hides_it() {
        let table = Table::new(table(&[
            (1, 0, "/"),
            (2, 1, "/a"),
            (3, 2, "/a"),
            (4, 2, "/a/b"), // hidden by 3
            (5, 3, "/a/b"),
            (6, 2, "/a/c"), // hidden by 3
        ]));
        let id = |path: &str| Some(table.visible_at(Path::new(path))?.id);
        assert_eq!(id("/a/b"), Some(5));
        assert_eq!((id("/"), id("/a/c"), id("/a/d")), (Some(1), None, None));
    }

    #[test]
    fn a_stack_is_ordered_by_what_is_mounted_on_what() {
        let mounts = table(&[(9, 7, "/a"), (7, 8, "/a"), (8, 1, "/a")]);
        let ids: Vec<_> = stack(&mounts).iter().map(|mount| mount.id).collect();
        assert_eq!(ids, [8, 7, 9]);
    }
}

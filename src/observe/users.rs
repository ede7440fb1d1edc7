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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use super::mountinfo::{self, Line};
use super::processes::{Process, all, root_of};
use crate::base::text::unescape_octal;
use crate::base::{HostPath, JailPath};
use crate::sys::{self, FileId, MountOutline};
use crate::{Error, Result};

/// The limit of open files per process, and of mapped ones.
const MAX_FILES: usize = 4096;
/// The limit of bytes of a process's list of maps. That is about ten thousand maps.
const MAX_MAPS_BYTES: u64 = 1 << 20;
/// The limit of files of all processes per user other than root.
const MAX_FILES_OF_USER: usize = 1 << 16;

const OWN_TABLE: &str = "/proc/self/mountinfo";

/// A process that uses a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The process.
    pub process: Process,
    /// The targets of the mounts that it uses, sorted. Empty if it only has the site's root as its
    /// root directory.
    pub targets: Vec<JailPath>,
}

/// A mount of a site whose users are looked for.
#[derive(Clone, Debug)]
pub struct Used<'t> {
    /// Its target.
    pub target: &'t JailPath,
    /// Its mount point on the host now.
    pub point: PathBuf,
    /// Its unique id, if it is known.
    pub unique_id: Option<u64>,
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
    others: Vec<Space>,
    outline: OnceLock<Option<Outline>>,
    /// The number of files looked at per user.
    files: Mutex<HashMap<u32, usize>>,
}

impl Users {
    /// Lists the processes besides this one. Only root sees those of all users.
    pub fn look() -> Self {
        let (own, others) = spaces();
        let share = others.len().div_ceil(processors()).max(1);
        thread::scope(|scope| {
            for spaces in others.chunks(share).skip(1) {
                // If no thread can be started, each table is read when it is needed.
                let read = move || spaces.iter().for_each(|space| drop(space.table()));
                let _ = thread::Builder::new().spawn_scoped(scope, read);
            }
            let first = others.iter().take(share);
            first.for_each(|space| drop(space.table()));
        });
        Self {
            own,
            others,
            outline: OnceLock::new(),
            files: Mutex::default(),
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

        let site = mounts
            .iter()
            .map(|mount| (mount.point.as_path(), mount))
            .collect();
        for mount in mounts {
            for pid in self.users_of(mount, &site, depth)? {
                found.entry(pid).or_default().insert(mount.target);
            }
        }

        let user = |(pid, targets): (u32, BTreeSet<&JailPath>)| {
            Some(User {
                process: Process::of(pid)?,
                targets: targets.into_iter().cloned().collect(),
            })
        };
        Ok(found.into_iter().filter_map(user).collect())
    }

    /// The processes whose root directory is `root` and has mounts. A copy of the root without
    /// mounts does not count, because its processes have none to lose.
    fn inside(&self, root: &HostPath) -> Result<Vec<u32>> {
        let id = sys::file_known_at(root.as_path()).ok();
        let mut pids = vec![];
        for found in &self.own.processes {
            if found.root == root.as_path()
                || (id.is_some()
                    && found.root_id == id
                    && self.own_table()?.has_mounts_in(&found.root))
            {
                pids.push(found.pid);
            }
        }

        for space in &self.others {
            let mut inside = space
                .processes
                .iter()
                .filter(|found| id.is_some() && found.root_id == id)
                .peekable();
            if inside.peek().is_some()
                && let Some(table) = space.table()?
            {
                pids.extend(
                    inside
                        .filter(|found| table.has_mounts_in(&found.root))
                        .map(|found| found.pid),
                );
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
        let outline = self.outline().filter(|_| depth == Depth::BesidesKernel);
        let pair = outline.and_then(|outline| outline.pair(mount.unique_id?));
        let mut pids = BTreeSet::new();
        let has_copy = |outline: &Outline| pair.is_some_and(|pair| outline.has_several(pair));
        if outline.is_none_or(has_copy) {
            let table = self.own_table()?;
            for line in self.copies(table, mount, site, outline)? {
                let point = line.mount.point.as_os_str();
                if outline.is_none() || point != mount.point.as_os_str() {
                    pids.extend(self.own.users_at(table, point, &self.files));
                }
            }
        }

        for space in &self.others {
            let Some(table) = space.table()?.filter(|table| table.may_have(pair)) else {
                continue;
            };
            for line in self.copies(table, mount, site, outline)? {
                let point = line.mount.point.as_os_str();
                pids.extend(space.users_at(table, point, &self.files));
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
        let mut lines = table.lines_with(&self.keys(mount, outline)?);
        let mut above = mount.point.ancestors().skip(1);
        if let Some(parent) = above.find_map(|above| site.get(above))
            && self.is_on(mount, parent)?
        {
            let on = self.copies(table, parent, site, outline)?;
            let on: HashSet<_> = on.iter().map(|line| line.mount.id).collect();
            lines.retain(|line| {
                let parent = table.parent(line);
                parent.is_none_or(|parent| on.contains(&parent.mount.id))
            });
        }
        Ok(lines)
    }

    /// Whether `mount` is on `parent`, and not beneath it.
    fn is_on(&self, mount: &Used<'_>, parent: &Used<'_>) -> Result<bool> {
        if let Some(found) = mount.unique_id.and_then(|id| sys::stat_mount(id).ok()) {
            let on = sys::stat_mount(found.parent);
            return Ok(on.is_ok_and(|on| on.point == parent.point));
        }
        let table = self.own_table()?;
        Ok(table.at(mount.point.as_os_str()).any(|line| {
            let on = table.parent(line);
            on.is_some_and(|on| on.mount.point == parent.point)
        }))
    }

    /// The keys of the mount. There may be several if the own table has several mounts at its
    /// place.
    fn keys(&self, mount: &Used<'_>, outline: Option<&Outline>) -> Result<Vec<Key>> {
        let key_by_id = outline
            .and(mount.unique_id)
            .and_then(|id| key_of_mount(id).ok());
        let keys = match key_by_id {
            Some(key) => vec![key],
            None => self.own_table()?.keys_at(mount.point.as_os_str()),
        };
        let as_path = |(shows, _): &Key| (shows.clone(), On::Path(mount.point.clone().into()));
        let as_paths: Vec<_> = keys.iter().map(as_path).collect();
        Ok(keys.into_iter().chain(as_paths).collect())
    }

    fn own_table(&self) -> Result<&Namespace> {
        self.own
            .table()?
            .ok_or_else(|| Error::failed(format!("cannot read the mount table {OWN_TABLE}")))
    }

    /// `None` if the kernel does not support it (before Linux 6.8).
    fn outline(&self) -> Option<&Outline> {
        self.outline.get_or_init(|| Outline::read().ok()).as_ref()
    }
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The type of the file system that `root` is on, if other hosts may also have it mounted, as with
/// NFS.
///
/// Errors: this process's own table of mounts cannot be read.
pub fn shared_storage(root: &HostPath) -> Result<Option<String>> {
    if is_on_local_storage(root).unwrap_or(false) {
        return Ok(None);
    }
    Ok(Namespace::own()?
        .shared_storage(root)
        .map(ToOwned::to_owned))
}

/// Whether statmount(2) reports that `root` is on a type of file system that no other kernel mounts
/// at the same time.
fn is_on_local_storage(root: &HostPath) -> io::Result<bool> {
    let root = sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY)?;
    let stat = sys::stat_fd_unsynced(root)?;
    let id = stat.mount_id.filter(|_| stat.mount_id_is_unique);
    let magic = sys::mount_outline(id.ok_or(io::ErrorKind::Unsupported)?)?.magic;
    Ok(LOCAL_MAGICS.contains(&magic))
}

/// The magic numbers of such types, as in statfs(2): ext2 to ext4, XFS, btrfs, tmpfs, F2FS,
/// overlay, ZFS, bcachefs.
const LOCAL_MAGICS: [u64; 8] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0xf2f5_2010,
    0x794c_7630,
    0x2fc1_2fc1,
    0xca45_1a4e,
];

/// The types of file systems that several kernels may mount at once.
const SHARED_TYPES: [&str; 34] = [
    "9p",
    "acfs",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "fhgfs",
    "fuse.ceph-fuse",
    "fuse.gcsfuse",
    "fuse.glusterfs",
    "fuse.juicefs",
    "fuse.lizardfs",
    "fuse.mfs",
    "fuse.moosefs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.seaweedfs",
    "fuse.sshfs",
    "fuse.vmhgfs-fuse",
    "gfs2",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "prl_fs",
    "pvfs2",
    "smb3",
    "smbfs",
    "vboxsf",
    "virtiofs",
];

/// A process that may use a site.
#[derive(Debug)]
struct Found {
    pid: u32,
    /// Its directory in `/proc`.
    proc: PathBuf,
    /// Its root directory, as its mount namespace has it.
    root: PathBuf,
    /// The identity of that directory. Not asked for if it is the root of this mount namespace.
    root_id: Option<FileId>,
}

/// This mount namespace and all others, with their processes.
fn spaces() -> (Space, Vec<Space>) {
    let own_pid = std::process::id();
    let own_namespace = fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    let mut namespaces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (pid, proc) in all().filter(|(pid, _)| *pid != own_pid) {
        if let (Ok(namespace), Ok(root)) = (
            fs::read_link(proc.join("ns/mnt")),
            fs::read_link(proc.join("root")),
        ) {
            let is_plain = namespace == own_namespace && root == Path::new("/");
            let found = Found {
                pid,
                proc,
                root,
                root_id: if is_plain { None } else { root_of(pid) },
            };
            namespaces.entry(namespace).or_default().push(found);
        }
    }
    let own = namespaces.remove(&own_namespace).unwrap_or_default();
    let others = namespaces
        .into_values()
        .map(|processes| Space::of(processes, false));
    (Space::of(own, true), others.collect())
}

/// A mount namespace with its processes.
#[derive(Debug)]
struct Space {
    is_own: bool,
    processes: Vec<Found>,
    /// The mount table. `None` if all processes have ended.
    table: OnceLock<Result<Option<Namespace>>>,
    /// Mount point → the processes that use the mounts there.
    used: OnceLock<HashMap<OsString, BTreeSet<u32>>>,
}

impl Space {
    fn of(mut processes: Vec<Found>, is_own: bool) -> Self {
        // A process shows only the mounts below its own root directory, so the one with the
        // shortest root path is asked first.
        processes.sort_by_key(|found| found.root.as_os_str().len());
        Self {
            is_own,
            processes,
            table: OnceLock::new(),
            used: OnceLock::new(),
        }
    }

    fn table(&self) -> Result<Option<&Namespace>> {
        let read = |found: &Found| {
            let text = fs::read(found.proc.join("mountinfo")).ok()?;
            Some(Namespace::of(&text, &found.root))
        };
        let table = self.table.get_or_init(|| {
            if self.is_own {
                Namespace::own().map(Some)
            } else {
                Ok(self.processes.iter().find_map(read))
            }
        });
        table.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }

    /// The processes that use the mounts at `point`. `looked`: the number of files looked at per
    /// user.
    fn users_at(
        &self,
        table: &Namespace,
        point: &OsStr,
        looked: &Mutex<HashMap<u32, usize>>,
    ) -> impl Iterator<Item = u32> {
        let look = || {
            let mut used: HashMap<OsString, BTreeSet<u32>> = HashMap::new();
            let mut looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
            for found in &self.processes {
                let mut points = HashSet::new();
                each_file(&found.proc, &mut looked, |path| {
                    points.extend(table.nearest(path));
                });
                for point in points {
                    used.entry(point.to_owned()).or_default().insert(found.pid);
                }
            }
            used
        };
        let used = self.used.get_or_init(look);
        used.get(point).into_iter().flatten().copied()
    }
}

/// Calls `add` with the path of each file that the process uses, in its own mount namespace.
/// `looked`: the number of files looked at per user.
fn each_file(proc: &Path, looked: &mut HashMap<u32, usize>, mut add: impl FnMut(&Path)) {
    let mut look = |link: PathBuf| fs::read_link(link).map(|path| add(&path));
    for link in ["root", "cwd", "exe"] {
        let _ = look(proc.join(link)); // fails if it has ended or is a kernel thread
    }

    let uid = fs::metadata(proc).map_or(u32::MAX, |found| found.uid());
    let before = looked.entry(uid).or_default();
    let room = if uid == 0 {
        MAX_FILES
    } else {
        MAX_FILES.min(MAX_FILES_OF_USER.saturating_sub(*before))
    };
    let descriptors = fs::read_dir(proc.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in descriptors.take(room) {
        let _ = look(entry.path()); // fails if it has been closed
        *before += 1;
    }

    let mut maps = vec![];
    if room > 0 {
        // Maps that were read before an error count.
        let _ = File::open(proc.join("maps"))
            .and_then(|file| file.take(MAX_MAPS_BYTES).read_to_end(&mut maps));
    }
    let files: HashSet<_> = maps
        .split(|byte| *byte == b'\n')
        .filter_map(mapped)
        .take(room)
        .collect();
    *before += files.len();
    for path in files {
        add(&unescape_octal(path));
    }
}

/// The path in a line of `proc_pid_maps(5)`, such as
/// `7f06-7f07 r-xp 00003000 fe:00 326970 /usr/lib/libz.so.1`.
fn mapped(line: &[u8]) -> Option<&[u8]> {
    line.iter()
        .position(|byte| *byte == b'/')
        .map(|start| &line[start..])
}

/// The identity of a directory or file across namespaces: the device and the path in its file
/// system or, if these are not shown, the path in the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum On {
    Place(u64, OsString),
    Path(OsString),
}

/// The identity of a mount and its copies across namespaces: what it shows, and what it is mounted
/// on.
type Key = (On, On);

/// The device of what a mount is on, if it is known, and its own device. They distinguish a mount
/// from most others without its paths.
type Pair = (Option<u64>, u64);

/// The key of the mount with this unique id.
fn key_of_mount(unique_id: u64) -> io::Result<Key> {
    let mount = sys::stat_mount(unique_id)?;
    let on = sys::stat_mount(mount.parent)?;
    let shows = On::Place(mount.device, mount.root.into());
    let on = place(on.device, &on.root, &on.point, &mount.point);
    Ok((shows, on))
}

/// The mounts of this namespace without their paths, which makes them quick to list.
#[derive(Debug)]
struct Outline {
    mounts: HashMap<u64, MountOutline>,
    /// The ids of the mounts that mounts with these devices are on.
    parents: HashMap<Pair, HashSet<u64>>,
}

impl Outline {
    fn read() -> io::Result<Self> {
        let mut mounts = HashMap::new();
        for id in sys::list_mounts()? {
            // It may be gone by now.
            mounts.extend(sys::mount_outline(id).ok().map(|mount| (id, mount)));
        }

        let above: HashSet<_> = mounts.values().map(|mount| mount.parent).collect();
        for id in above {
            if !mounts.contains_key(&id) {
                mounts.extend(sys::mount_outline(id).ok().map(|mount| (id, mount)));
            }
        }

        let mut parents: HashMap<_, HashSet<_>> = HashMap::new();
        for mount in mounts.values() {
            let pair = pair_of(&mounts, mount);
            parents.entry(pair).or_default().insert(mount.parent);
        }
        Ok(Self { mounts, parents })
    }

    /// The devices of the mount. `None` if it does not exist.
    fn pair(&self, unique_id: u64) -> Option<Pair> {
        let mount = self.mounts.get(&unique_id)?;
        Some(pair_of(&self.mounts, mount))
    }

    /// Whether mounts with these devices are on more than one other mount. A copy at another place
    /// is on a copy of the mount that the first one is on.
    fn has_several(&self, pair: Pair) -> bool {
        self.parents
            .get(&pair)
            .is_some_and(|parents| parents.len() > 1)
    }
}

fn pair_of(mounts: &HashMap<u64, MountOutline>, mount: &MountOutline) -> Pair {
    let on = mounts.get(&mount.parent).map(|on| on.device);
    (on, mount.device)
}

/// The mounts of one namespace.
#[derive(Debug)]
struct Namespace {
    lines: Vec<Line>,
    by_id: HashMap<u64, usize>,
    by_point: HashMap<OsString, Vec<usize>>,
    pairs: HashSet<Pair>,
    by_key: OnceLock<HashMap<Key, Vec<usize>>>,
}

impl Namespace {
    /// The namespace of this process.
    fn own() -> Result<Self> {
        let cannot = || Error::failed(format!("cannot read the mount table {OWN_TABLE}"));
        let text = fs::read(OWN_TABLE)
            .map_err(|error| cannot().because(&error).hint("is /proc mounted?"))?;
        Ok(Self::of(&text, Path::new("/")))
    }

    /// The table `text`, read from a process with the root directory `root`. Its mount points are
    /// relative to that root.
    fn of(text: &[u8], root: &Path) -> Self {
        let mut lines: Vec<_> = mountinfo::lines(text).collect();
        let (mut by_id, mut by_point) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (nth, line) in lines.iter_mut().enumerate() {
            let point = &mut line.mount.point;
            if root != Path::new("/") {
                *point = joined(root, below(point, Path::new("/")).unwrap_or_default()).into();
            }
            by_id.insert(line.mount.id, nth);
            by_point
                .entry(point.clone().into_os_string())
                .or_default()
                .push(nth);
        }

        let mut namespace = Self {
            lines,
            by_id,
            by_point,
            pairs: HashSet::new(),
            by_key: OnceLock::new(),
        };
        let pair = |line| {
            let on = namespace.parent(line).map(|on| on.mount.device);
            (on, line.mount.device)
        };
        namespace.pairs = namespace.lines.iter().map(pair).collect();
        namespace
    }

    /// The mount that the one of `line` is on, if the table has it.
    fn parent(&self, line: &Line) -> Option<&Line> {
        let parent = self.by_id.get(&line.mount.parent)?;
        (line.mount.parent != line.mount.id).then(|| &self.lines[*parent])
    }

    /// Whether the namespace may have a copy of a mount with these devices. `None`: they are not
    /// known.
    fn may_have(&self, pair: Option<Pair>) -> bool {
        pair.is_none_or(|(on, device)| {
            self.pairs.contains(&(on, device)) || self.pairs.contains(&(None, device))
        })
    }

    /// The mounts with one of `keys`.
    fn lines_with(&self, keys: &[Key]) -> Vec<&Line> {
        let by_key = self.by_key.get_or_init(|| {
            let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
            for (nth, line) in self.lines.iter().enumerate() {
                by_key.entry(self.key(line)).or_default().push(nth);
            }
            by_key
        });

        let found = keys.iter().filter_map(|key| by_key.get(key)).flatten();
        let found: BTreeSet<_> = found.copied().collect();
        found.into_iter().map(|nth| &self.lines[nth]).collect()
    }

    /// The keys of the mounts at `point`.
    fn keys_at(&self, point: &OsStr) -> Vec<Key> {
        self.at(point).map(|line| self.key(line)).collect()
    }

    /// The mounts at `point`.
    fn at(&self, point: &OsStr) -> impl Iterator<Item = &Line> {
        let at = self.by_point.get(point).into_iter().flatten();
        at.map(|nth| &self.lines[*nth])
    }

    /// The nearest mount point that `path` is at or below.
    fn nearest(&self, path: &Path) -> Option<&OsStr> {
        let mut above = path.ancestors().filter(|_| path.is_absolute());
        above.find_map(|above| {
            self.by_point
                .get_key_value(above.as_os_str())
                .map(|(point, _)| point.as_os_str())
        })
    }

    /// Whether anything is mounted below `path`.
    fn has_mounts_in(&self, path: &Path) -> bool {
        self.lines
            .iter()
            .any(|line| below(&line.mount.point, path).is_some_and(|rest| !rest.is_empty()))
    }

    /// The mount that is visible at `path`.
    fn mount_of(&self, path: &Path) -> Option<&Line> {
        let stack = &self.by_point[self.nearest(path)?];
        let lines = || stack.iter().map(|nth| &self.lines[*nth]);
        let is_covered = |line: &Line| {
            lines().any(|on| on.mount.id != line.mount.id && on.mount.parent == line.mount.id)
        };
        lines().find(|line| !is_covered(line))
    }

    fn shared_storage(&self, path: &HostPath) -> Option<&str> {
        let kind = self.mount_of(path.as_path())?.kind.as_str();
        SHARED_TYPES.contains(&kind).then_some(kind)
    }

    fn key(&self, line: &Line) -> Key {
        let mount = &line.mount;
        let shows = On::Place(mount.device, mount.root.clone().into());
        let on = self.parent(line).map(|on| {
            let on = &on.mount;
            place(on.device, &on.root, &on.point, &mount.point)
        });
        (
            shows,
            on.unwrap_or_else(|| On::Path(mount.point.clone().into())),
        )
    }
}

/// The place of `path` on the file system of `device`. Its directory `root` is mounted at `point`,
/// which is at or above `path`.
fn place(device: u64, root: &Path, point: &Path, path: &Path) -> On {
    match below(path, point) {
        Some(rest) => On::Place(device, joined(root, rest)),
        None => On::Path(path.into()),
    }
}

/// The part of `path` below `above`. They are compared byte by byte, because tables are long and
/// their paths are in normal form.
fn below<'p>(path: &'p Path, above: &Path) -> Option<&'p [u8]> {
    let (path, above) = (path.as_os_str().as_bytes(), above.as_os_str().as_bytes());
    let rest = path.strip_prefix(above.strip_suffix(b"/").unwrap_or(above))?;
    match rest {
        [] => Some(rest),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Joins `path` and `below`, without a slash at the end.
fn joined(path: &Path, below: &[u8]) -> OsString {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    if !below.is_empty() {
        if !bytes.ends_with(b"/") {
            bytes.push(b'/');
        }
        bytes.extend(below);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"1 0 8:1 / / rw - ext4 d rw\n\
        2 1 8:1 /usr/lib/a.so /srv/s/lib/a.so ro - ext4 d rw\n\
        3 1 8:1 /data /srv/s/dir ro - ext4 d rw\n\
        4 3 0:9 / /srv/s/dir/sub ro - tmpfs d rw\n\
        5 1 8:1 /srv/s /mnt/copy rw - ext4 d rw\n";

    fn key(namespace: &Namespace, point: &str) -> Key {
        namespace.keys_at(OsStr::new(point)).remove(0)
    }

    #[test]
    fn a_copy_is_known_wherever_the_root_is() {
        let host = Namespace::of(HOST, Path::new("/"));
        // As systemd makes it for RootDirectory=/srv/s.
        let service = b"21 20 8:1 /srv/s / rw - ext4 d rw\n\
            22 21 8:1 /usr/lib/a.so /lib/a.so ro - ext4 d rw\n\
            23 21 8:1 /data /dir ro - ext4 d rw\n\
            24 23 0:9 / /dir/sub ro - tmpfs d rw\n\
            25 21 8:1 /usr/lib/a.so /lib/b.so ro - ext4 d rw\n";
        let service = Namespace::of(service, Path::new("/"));
        for target in ["/lib/a.so", "/dir", "/dir/sub"] {
            assert_eq!(
                key(&host, &format!("/srv/s{target}")),
                key(&service, target),
                "{target}"
            );
        }
        assert_ne!(
            key(&host, "/srv/s/lib/a.so"),
            key(&service, "/lib/b.so"),
            "mounted elsewhere"
        );
        // The table of a process inside, which does not see the mount that its root directory is
        // on.
        let inside = b"32 31 8:1 /usr/lib/a.so /lib/a.so ro - ext4 d rw\n";
        let inside = Namespace::of(inside, Path::new("/srv/s"));
        let found = inside.nearest(Path::new("/srv/s/lib/a.so")).unwrap();
        assert_eq!(found, "/srv/s/lib/a.so");
        assert_eq!(
            key(&inside, "/srv/s/lib/a.so").1,
            On::Path("/srv/s/lib/a.so".into())
        );
        assert!(
            inside.has_mounts_in(Path::new("/srv/s"))
                && !inside.has_mounts_in(Path::new("/srv/s/lib/a.so"))
        );
    }

    #[test]
    fn a_path_is_in_the_mount_that_is_nearest_above_it() {
        let host = Namespace::of(HOST, Path::new("/"));
        let nearest = |path: &str| {
            host.nearest(Path::new(path))
                .map(|point| point.to_str().unwrap())
        };
        assert_eq!(
            nearest("/srv/s/dir/sub/x (deleted)"),
            Some("/srv/s/dir/sub")
        );
        assert_eq!(nearest("/srv/s/dirt"), Some("/"));
        assert_eq!(nearest("socket:[7]"), None);
    }

    #[test]
    fn maps_name_files() {
        let line = b"7f06-7f07 r-xp 00003000 fe:00 326970                     /usr/lib/libz.so.1 \
        (deleted)";
        assert_eq!(mapped(line), Some(&b"/usr/lib/libz.so.1 (deleted)"[..]));
        assert_eq!(
            mapped(b"7f06-7f07 rw-p 00000000 00:00 0                          [heap]"),
            None
        );
    }
}

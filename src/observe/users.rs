//! Who uses a site: in which processes' root or working directory, program, open files or maps its
//! mounts are, in whatever mount namespace.
//!
//! No file system is asked for that, so none that hangs matters: the kernel shows what a process
//! uses as a link with the path in the process's own mount namespace (`proc_pid_fd(5)`), and that
//! namespace's table (`proc_pid_mountinfo(5)`) tells which mount the path is in. A copy of one of
//! our mounts in another namespace is known by what it shows and what it is mounted on: the same
//! directories of the same file systems, wherever that namespace has them. So users are also found
//! where the root is `/`, as systemd's `RootDirectory=` makes it. A namespace that has no process
//! is not seen.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mountinfo::{self, Line};
use super::processes::{Process, all};
use crate::base::text::unescape_octal;
use crate::base::{HostPath, JailPath};
use crate::{Error, Result};

/// So many open files of a process are looked at, and so many mapped ones.
const FILES: usize = 4096;
/// So much of a process's list of maps is read: some ten thousand of them.
const MAPS: u64 = 1 << 20;
/// So many files of all processes of one user other than root are looked at.
const FILES_OF_USER: usize = 1 << 16;

const SELF: &str = "/proc/self/mountinfo";

/// A process that uses a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Which.
    pub process: Process,
    /// The targets of the mounts that it uses, sorted; empty: the site's root is its root
    /// directory.
    pub targets: Vec<JailPath>,
}

/// What all processes use, looked at once.
///
/// Of a process with very many files ([`FILES`], [`FILES_OF_USER`]) not all are looked at: then its
/// root and working directory and its program tell.
#[derive(Debug)]
pub struct Users {
    own: Namespace,
    /// Where mounts of this namespace are → the processes that use them or a copy of them.
    by_mount: HashMap<PathBuf, BTreeSet<u32>>,
    /// Root directories with mounts in them → processes.
    by_root: HashMap<On, BTreeSet<u32>>,
}

impl Users {
    /// Looks at all processes but this one. Only root sees those of all users.
    ///
    /// Errors: this process's own table of mounts cannot be read.
    pub fn look() -> Result<Self> {
        let own = Namespace::own()?;
        let mut used = Used::default();
        for processes in by_namespace().into_values() {
            used.add_namespace(&processes);
        }
        let mut by_mount: HashMap<_, BTreeSet<u32>> = HashMap::new();
        for line in &own.lines {
            let (shows, on) = own.key(line);
            let as_path = (shows.clone(), On::Path(line.mount.point.clone()));
            for pids in [(shows, on), as_path]
                .iter()
                .filter_map(|key| used.by_mount.get(key))
            {
                by_mount
                    .entry(line.mount.point.clone())
                    .or_default()
                    .extend(pids);
            }
        }
        Ok(Self {
            own,
            by_mount,
            by_root: used.by_root,
        })
    }

    /// The users of the site at `root`, by their ids; `mounts` are the targets of its mounts, each
    /// with where it is on the host now.
    pub fn of<'t>(
        &self,
        root: &HostPath,
        mounts: impl IntoIterator<Item = (&'t JailPath, PathBuf)>,
    ) -> Vec<User> {
        let mut found: BTreeMap<u32, BTreeSet<&JailPath>> = BTreeMap::new();
        let as_path = On::Path(root.as_path().to_owned());
        for place in [self.own.place_of(root.as_path()), as_path] {
            for pid in self.by_root.get(&place).into_iter().flatten() {
                found.entry(*pid).or_default();
            }
        }
        for (target, point) in mounts {
            for pid in self.by_mount.get(&point).into_iter().flatten() {
                found.entry(*pid).or_default().insert(target);
            }
        }
        let user = |(pid, targets): (u32, BTreeSet<&JailPath>)| {
            Some(User {
                process: Process::of(pid)?,
                targets: targets.into_iter().cloned().collect(),
            })
        };
        found.into_iter().filter_map(user).collect()
    }

    /// As [`shared_storage`], by the table that was read.
    pub fn shared_storage(&self, root: &HostPath) -> Option<&str> {
        self.own.shared_storage(root)
    }
}

/// The type of the file system that `root` is on, if other hosts may have it mounted as well: NFS
/// and its kind.
///
/// Errors: this process's own table of mounts cannot be read.
pub fn shared_storage(root: &HostPath) -> Result<Option<String>> {
    Ok(Namespace::own()?
        .shared_storage(root)
        .map(ToOwned::to_owned))
}

/// Types of file systems that several kernels mount at once.
const SHARED: [&str; 34] = [
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

/// A process: its id, its directory in `/proc`, its root directory.
type Found = (u32, PathBuf, PathBuf);

/// The processes of each mount namespace.
fn by_namespace() -> BTreeMap<PathBuf, Vec<Found>> {
    let own = std::process::id();
    let mut namespaces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (pid, proc) in all().filter(|(pid, _)| *pid != own) {
        if let (Ok(namespace), Ok(root)) = (
            fs::read_link(proc.join("ns/mnt")),
            fs::read_link(proc.join("root")),
        ) {
            namespaces
                .entry(namespace)
                .or_default()
                .push((pid, proc, root));
        }
    }
    namespaces
}

/// What is used, while the processes are looked at.
#[derive(Default)]
struct Used {
    by_mount: HashMap<Key, BTreeSet<u32>>,
    by_root: HashMap<On, BTreeSet<u32>>,
    /// How many files of each user were looked at.
    files: HashMap<u32, usize>,
}

impl Used {
    /// Looks at the processes of one mount namespace.
    fn add_namespace(&mut self, processes: &[Found]) {
        // A process shows what is mounted below its own root directory: best is one that has the
        // namespace's.
        let mut by_root: Vec<_> = processes.iter().collect();
        by_root.sort_by_key(|(_, _, root)| root.as_os_str().len());
        let table = |(_, proc, root): &&Found| {
            Some(Namespace::of(&fs::read(proc.join("mountinfo")).ok()?, root))
        };
        let Some(namespace) = by_root.iter().find_map(table) else {
            return;
        }; // all have ended
        for (pid, proc, root) in processes {
            if namespace.has_mounts_in(root) {
                self.by_root
                    .entry(namespace.place_of(root))
                    .or_default()
                    .insert(*pid);
            }
            let mut points = HashSet::new();
            self.each_file(proc, |path| points.extend(namespace.nearest(path)));
            for nth in points
                .into_iter()
                .flat_map(|point| &namespace.by_point[point])
            {
                let key = namespace.key(&namespace.lines[*nth]);
                self.by_mount.entry(key).or_default().insert(*pid);
            }
        }
    }

    /// Calls `add` with the path of each file that the process uses, as its own mount namespace has
    /// it.
    fn each_file(&mut self, proc: &Path, mut add: impl FnMut(&Path)) {
        let mut look = |link: PathBuf| fs::read_link(link).map(|path| add(&path));
        for link in ["root", "cwd", "exe"] {
            let _ = look(proc.join(link)); // it has ended, or is the kernel's
        }
        let uid = fs::metadata(proc).map_or(u32::MAX, |found| found.uid());
        let before = self.files.entry(uid).or_default();
        let room = if uid == 0 {
            FILES
        } else {
            FILES.min(FILES_OF_USER.saturating_sub(*before))
        };
        for entry in fs::read_dir(proc.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .take(room)
        {
            let _ = look(entry.path()); // it has been closed
            *before += 1;
        }
        let mut maps = vec![];
        if room > 0 {
            // What was read before an error counts.
            let _ = File::open(proc.join("maps"))
                .and_then(|file| file.take(MAPS).read_to_end(&mut maps));
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
}

/// The path in a line of `proc_pid_maps(5)`: `7f06-7f07 r-xp 00003000 fe:00 326970
/// /usr/lib/libz.so.1`.
fn mapped(line: &[u8]) -> Option<&[u8]> {
    line.iter()
        .position(|byte| *byte == b'/')
        .map(|start| &line[start..])
}

/// A directory or file, for all namespaces: the device and the path in its file system; where that
/// is not shown, the path in the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum On {
    Place(u64, PathBuf),
    Path(PathBuf),
}

/// What identifies a mount in all namespaces that have a copy of it: what it shows, and what it is
/// mounted on.
type Key = (On, On);

/// The mounts of one namespace.
#[derive(Debug)]
struct Namespace {
    lines: Vec<Line>,
    by_id: HashMap<u64, usize>,
    by_point: BTreeMap<PathBuf, Vec<usize>>,
}

impl Namespace {
    /// The one of this process.
    fn own() -> Result<Self> {
        let cannot = || Error::failed(format!("cannot read the mount table {SELF}"));
        let text =
            fs::read(SELF).map_err(|error| cannot().because(&error).hint("is /proc mounted?"))?;
        Ok(Self::of(&text, Path::new("/")))
    }

    /// The table `text` as a process with the root directory `root` shows it: mount points are
    /// below that.
    fn of(text: &[u8], root: &Path) -> Self {
        let mut lines: Vec<_> = mountinfo::lines(text).collect();
        let (mut by_id, mut by_point) = (HashMap::new(), BTreeMap::<_, Vec<_>>::new());
        for (nth, line) in lines.iter_mut().enumerate() {
            let point = &mut line.mount.point;
            *point = joined(root, point.strip_prefix("/").unwrap_or(point));
            by_id.insert(line.mount.id, nth);
            by_point.entry(point.clone()).or_default().push(nth);
        }
        Self {
            lines,
            by_id,
            by_point,
        }
    }

    /// The mount point that `path` is at or below.
    fn nearest(&self, path: &Path) -> Option<&PathBuf> {
        let mut above = path.ancestors().filter(|_| path.is_absolute());
        above.find_map(|above| self.by_point.get_key_value(above).map(|(point, _)| point))
    }

    /// Whether anything is mounted below `path`: in a directory without mounts nobody has any to
    /// lose.
    fn has_mounts_in(&self, path: &Path) -> bool {
        let mut after = self
            .by_point
            .range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
        after
            .next()
            .is_some_and(|(point, _)| point.starts_with(path))
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

    /// What is visible at `path`.
    fn place_of(&self, path: &Path) -> On {
        self.mount_of(path).map_or_else(
            || On::Path(path.to_owned()),
            |line| in_file_system(line, path),
        )
    }

    fn shared_storage(&self, path: &HostPath) -> Option<&str> {
        let kind = self.mount_of(path.as_path())?.kind.as_str();
        SHARED.contains(&kind).then_some(kind)
    }

    fn key(&self, line: &Line) -> Key {
        let point = &line.mount.point;
        let parent = self
            .by_id
            .get(&line.mount.parent)
            .filter(|_| line.mount.parent != line.mount.id);
        let on = parent.map(|parent| in_file_system(&self.lines[*parent], point));
        (
            in_file_system(line, point),
            on.unwrap_or_else(|| On::Path(point.clone())),
        )
    }
}

/// What of the file system of a mount `path` is, which is at or below its mount point.
fn in_file_system(line: &Line, path: &Path) -> On {
    match path.strip_prefix(&line.mount.point) {
        Ok(below) => On::Place(line.mount.device, joined(&line.mount.root, below)),
        Err(_) => On::Path(path.to_owned()),
    }
}

/// As [`Path::join`], but without a slash at the end.
fn joined(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() {
        path.to_owned()
    } else {
        path.join(below)
    }
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
        let nth = namespace.by_point[Path::new(point)][0];
        namespace.key(&namespace.lines[nth])
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
        assert_eq!(
            host.place_of(Path::new("/srv/s")),
            service.place_of(Path::new("/"))
        );
        assert_ne!(
            key(&host, "/srv/s/lib/a.so"),
            key(&service, "/lib/b.so"),
            "mounted elsewhere"
        );
        // PathState by a process inside, which does not see what its root directory is on.
        let inside = b"32 31 8:1 /usr/lib/a.so /lib/a.so ro - ext4 d rw\n";
        let inside = Namespace::of(inside, Path::new("/srv/s"));
        let found = inside.nearest(Path::new("/srv/s/lib/a.so")).unwrap();
        assert_eq!(found, Path::new("/srv/s/lib/a.so"));
        assert_eq!(
            inside.place_of(Path::new("/srv/s")),
            On::Path("/srv/s".into())
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
        let same = On::Place(libc::makedev(8, 1), "/srv/s/etc".into());
        assert_eq!(host.place_of(Path::new("/mnt/copy/etc")), same);
        assert_eq!(host.place_of(Path::new("/srv/s/etc")), same);
    }

    #[test]
    fn maps_name_files() {
        let line = b"7f06-7f07 r-xp 00003000 fe:00 326970                     /usr/lib/libz.so.1 (deleted)";
        assert_eq!(mapped(line), Some(&b"/usr/lib/libz.so.1 (deleted)"[..]));
        assert_eq!(
            mapped(b"7f06-7f07 rw-p 00000000 00:00 0                          [heap]"),
            None
        );
    }
}

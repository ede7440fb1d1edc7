//! Mount namespaces with their processes, and the files that these use.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::namespace::{Namespace, Pair};
use super::processes::{own_namespace, root_of};
use crate::Result;
use crate::base::sync::lock;
use crate::base::text::unescape_octal;
use crate::sys::{FileId, proc};

/// The limit of open files per process, and of mapped ones.
const MAX_FILES: usize = 4096;
/// The limit of bytes of a process's list of maps. That is about ten thousand maps.
const MAX_MAPS_BYTES: u64 = 1 << 20;
/// The limit of files of all processes per user other than root.
const MAX_FILES_OF_USER: usize = 1 << 16;

/// A process that may use a site.
#[derive(Debug)]
pub(super) struct PossibleUser {
    pub(super) pid: u32,
    /// Its directory in `/proc`.
    proc: PathBuf,
    /// Its root directory, as its mount namespace has it.
    pub(super) root: PathBuf,
    /// The identity of that directory. Not asked for if it is the root of this mount namespace.
    pub(super) root_id: Option<FileId>,
}

/// This mount namespace and all others, with their processes.
pub(super) fn spaces() -> (Space, Vec<Space>) {
    let own_pid = std::process::id();
    let own_namespace = own_namespace().unwrap_or_default();
    let mut namespaces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (pid, proc) in proc::processes().filter(|(pid, _)| *pid != own_pid) {
        if let (Ok(namespace), Ok(root)) = (
            proc::mount_namespace(&proc),
            fs::read_link(proc.join("root")),
        ) {
            let is_plain = namespace == own_namespace && root == Path::new("/");
            let found = PossibleUser {
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
pub(super) struct Space {
    is_own: bool,
    pub(super) processes: Vec<PossibleUser>,
    /// The mount table. `None` if all processes have ended.
    table: OnceLock<Result<Option<Namespace>>>,
    /// The files that the processes use.
    files: OnceLock<BTreeMap<PathBuf, BTreeSet<u32>>>,
    /// Mount point → the processes that use the mounts there.
    used: OnceLock<HashMap<OsString, BTreeSet<u32>>>,
    /// The devices of the mounts that are used.
    pairs: OnceLock<HashSet<Pair>>,
}

impl Space {
    fn of(mut processes: Vec<PossibleUser>, is_own: bool) -> Self {
        // A process shows only the mounts below its own root directory, so the one with the
        // shortest root path is asked first.
        processes.sort_by_key(|found| found.root.as_os_str().len());
        Self {
            is_own,
            processes,
            table: OnceLock::new(),
            files: OnceLock::new(),
            used: OnceLock::new(),
            pairs: OnceLock::new(),
        }
    }

    pub(super) fn table(&self) -> Result<Option<&Namespace>> {
        let read = |found: &PossibleUser| {
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
    pub(super) fn users_at(
        &self,
        table: &Namespace,
        point: &OsStr,
        looked: &Mutex<HashMap<u32, usize>>,
    ) -> impl Iterator<Item = u32> {
        let used = self.used(table, looked);
        used.get(point).into_iter().flatten().copied()
    }

    fn used(
        &self,
        table: &Namespace,
        looked: &Mutex<HashMap<u32, usize>>,
    ) -> &HashMap<OsString, BTreeSet<u32>> {
        self.used.get_or_init(|| {
            let mut used: HashMap<OsString, BTreeSet<u32>> = HashMap::new();
            for (path, pids) in self.files(looked) {
                if let Some(point) = table.nearest(path) {
                    used.entry(point.to_owned()).or_default().extend(pids);
                }
            }
            used
        })
    }

    /// Whether a process uses a mount that may be one with these devices. `None`: they are not
    /// known.
    pub(super) fn may_use(
        &self,
        table: &Namespace,
        pair: Option<Pair>,
        looked: &Mutex<HashMap<u32, usize>>,
    ) -> bool {
        let Some((on, device)) = pair else {
            return true;
        };
        let pairs = self.pairs.get_or_init(|| {
            let used = self.used(table, looked).keys();
            let lines = used.flat_map(|point| table.at(point));
            lines.map(|line| table.pair(line)).collect()
        });
        pairs.contains(&(on, device)) || pairs.contains(&(None, device))
    }

    /// Whether a process uses a file that is at or below `point` by its path.
    pub(super) fn is_used_below(&self, point: &Path, looked: &Mutex<HashMap<u32, usize>>) -> bool {
        let mut from = self.files(looked).range(point.to_owned()..);
        from.next().is_some_and(|(path, _)| path.starts_with(point))
    }

    fn files(&self, looked: &Mutex<HashMap<u32, usize>>) -> &BTreeMap<PathBuf, BTreeSet<u32>> {
        self.files.get_or_init(|| {
            let mut files: BTreeMap<PathBuf, BTreeSet<u32>> = BTreeMap::new();
            let mut looked = lock(looked);
            for found in &self.processes {
                each_file(&found.proc, &mut looked, |path| {
                    files.entry(path.to_owned()).or_default().insert(found.pid);
                });
            }
            files
        })
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

#[cfg(test)]
mod tests {
    use super::*;

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

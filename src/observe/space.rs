//! Mount namespaces with their processes, and the files that these use.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::namespace::{Namespace, Pair};
use super::processes::{maps, own_namespace, root_of};
use crate::base::sync::lock;
use crate::base::text::unescape_octal;
use crate::sys::{FileId, proc};

/// The limit of open files per process, and of mapped ones.
const MAX_FILES: usize = 4096;
/// The limit of files of all processes per user other than root.
const MAX_FILES_OF_USER: usize = 1 << 16;

/// The number of files looked at per user.
pub(super) type FileCounts = Mutex<HashMap<u32, usize>>;

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

/// The processes of this mount namespace, and all others.
pub(super) fn spaces() -> (Space, Vec<OtherSpace>) {
    let own_pid = std::process::id();
    let own_namespace = own_namespace().unwrap_or_default();
    let mut namespaces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (pid, proc) in proc::processes() {
        if pid != own_pid
            && let Ok(namespace) = proc::mount_namespace(&proc)
            && let Ok(root) = fs::read_link(proc.join("root"))
        {
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
    let mut others = vec![];
    for processes in namespaces.into_values() {
        others.push(OtherSpace::of(processes));
    }
    (Space::of(own), others)
}

/// A mount namespace that this process is not in.
#[derive(Debug)]
pub(super) struct OtherSpace {
    pub(super) space: Space,
    /// The mount table. `None` if all processes have ended.
    table: OnceLock<Option<Namespace>>,
}

impl OtherSpace {
    fn of(mut processes: Vec<PossibleUser>) -> Self {
        // A process shows only the mounts below its own root directory, so the one with the
        // shortest root path is asked first.
        processes.sort_by_key(|found| found.root.as_os_str().len());
        Self {
            space: Space::of(processes),
            table: OnceLock::new(),
        }
    }

    pub(super) fn table(&self) -> Option<&Namespace> {
        self.table.get_or_init(|| self.read_table()).as_ref()
    }

    fn read_table(&self) -> Option<Namespace> {
        for found in &self.space.processes {
            if let Ok(text) = fs::read(found.proc.join("mountinfo")) {
                return Some(Namespace::of(&text, &found.root));
            }
        }
        None
    }

    /// Whether it may have a mount with these devices.
    pub(super) fn may_have(&self, pair: Pair) -> bool {
        self.table().is_some_and(|table| table.may_have(Some(pair)))
    }
}

/// The processes of a mount namespace.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) processes: Vec<PossibleUser>,
    /// The files that the processes use.
    files: OnceLock<BTreeMap<PathBuf, BTreeSet<u32>>>,
    /// Mount point → the processes that use the mounts there.
    used: OnceLock<HashMap<OsString, BTreeSet<u32>>>,
    /// The devices of the mounts that are used.
    pairs: OnceLock<HashSet<Pair>>,
}

impl Space {
    fn of(processes: Vec<PossibleUser>) -> Self {
        Self {
            processes,
            files: OnceLock::new(),
            used: OnceLock::new(),
            pairs: OnceLock::new(),
        }
    }

    /// The processes that use the mounts at `point`.
    pub(super) fn users_at(
        &self,
        table: &Namespace,
        point: &OsStr,
        looked: &FileCounts,
    ) -> impl Iterator<Item = u32> {
        let used = self.used(table, looked);
        used.get(point).into_iter().flatten().copied()
    }

    fn used(&self, table: &Namespace, looked: &FileCounts) -> &HashMap<OsString, BTreeSet<u32>> {
        self.used.get_or_init(|| {
            let mut used = HashMap::<OsString, BTreeSet<u32>>::new();
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
        looked: &FileCounts,
    ) -> bool {
        let Some((on, device)) = pair else {
            return true;
        };
        let pairs = self.pairs.get_or_init(|| {
            let mut pairs = HashSet::new();
            for point in self.used(table, looked).keys() {
                for line in table.at(point) {
                    pairs.insert(table.pair(line));
                }
            }
            pairs
        });
        pairs.contains(&(on, device)) || pairs.contains(&(None, device))
    }

    /// Whether a process uses a file that is at or below `point` by its path.
    pub(super) fn is_used_below(&self, point: &Path, looked: &FileCounts) -> bool {
        let mut from = self.files(looked).range(point.to_owned()..);
        match from.next() {
            Some((path, _)) => path.starts_with(point),
            None => false,
        }
    }

    fn files(&self, looked: &FileCounts) -> &BTreeMap<PathBuf, BTreeSet<u32>> {
        self.files.get_or_init(|| {
            let mut files: BTreeMap<PathBuf, BTreeSet<u32>> = BTreeMap::new();
            let mut looked = lock(looked);
            for found in &self.processes {
                for path in files_of(&found.proc, &mut looked) {
                    files.entry(path).or_default().insert(found.pid);
                }
            }
            files
        })
    }
}

/// The paths of the files that the process uses, in its own mount namespace. `looked`: the number
/// of files looked at per user.
fn files_of(proc: &Path, looked: &mut HashMap<u32, usize>) -> Vec<PathBuf> {
    let mut files = vec![];
    for link in ["root", "cwd", "exe"] {
        files.extend(fs::read_link(proc.join(link))); // fails if it has ended or is a kernel thread
    }

    let uid = fs::metadata(proc).map_or(u32::MAX, |found| found.uid());
    let before = looked.entry(uid).or_default();
    let room = if uid == 0 {
        MAX_FILES
    } else {
        MAX_FILES.min(MAX_FILES_OF_USER.saturating_sub(*before))
    };
    let descriptors = fs::read_dir(proc.join("fd")).into_iter().flatten();
    for entry in descriptors.flatten().take(room) {
        files.extend(fs::read_link(entry.path())); // fails if it has been closed
        *before += 1;
    }

    if room > 0 {
        let maps = maps(proc);
        let mapped: HashSet<_> = mapped_files(&maps).take(room).collect();
        *before += mapped.len();
        for path in mapped {
            files.push(unescape_octal(path));
        }
    }
    files
}

fn mapped_files(maps: &[u8]) -> impl Iterator<Item = &[u8]> {
    maps.split(|byte| *byte == b'\n').filter_map(mapped)
}

/// The path in a line of `proc_pid_maps(5)`, such as
/// `7f06-7f07 r-xp 00003000 fe:00 326970 /usr/lib/libz.so.1`.
fn mapped(line: &[u8]) -> Option<&[u8]> {
    let start = line.iter().position(|byte| *byte == b'/')?;
    Some(&line[start..])
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

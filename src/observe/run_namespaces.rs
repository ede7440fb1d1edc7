//! The mount namespaces that `mountjail run` made, in which services have their sites.
//!
//! Each has a directory `<run>/namespaces/<id>` with the records of the sites in it, as `<run>` has
//! those of the host, and with a [`NamespaceRecord`] by which it is found again. It exists as long
//! as a process is in it. Then the directory is removed.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::Process;
use super::record::BootId;
use super::record_file::read_regular;
use super::state::StateDir;
use super::table::Table;
use crate::base::SiteName;
use crate::sys::{self, Stat, proc};

/// The version of [`NamespaceRecord`]s.
pub const NAMESPACE_VERSION: u32 = 1;

/// What identifies a mount namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceId {
    /// Its inode number, as in `mnt:[4026532281]`. The kernel reuses it.
    pub inode: u64,
    /// The id of the mount that is its root. It is never reused since Linux 6.8.
    pub root_mount: u64,
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.inode, self.root_mount)
    }
}

/// The record by which a namespace is found again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// The version of the record.
    pub version: u32,
    /// The boot that it belongs to.
    pub boot: BootId,
    /// The namespace.
    pub id: NamespaceId,
    /// The process that made it, and became the service.
    pub pid: u32,
    /// When that process began, in clock ticks since boot (`proc_pid_stat(5)`).
    pub started: Option<u64>,
    /// The PID namespace that this process was in. Only from there can it be told whether any
    /// process is left.
    pub pid_namespace: Option<u64>,
    /// The names of the unit that the sites list.
    pub units: Vec<String>,
}

/// A mount namespace that `run` made, and that exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunNamespace {
    /// Its record.
    pub record: NamespaceRecord,
    /// A process in it.
    pub process: Process,
}

impl fmt::Display for RunNamespace {
    /// `php8.2-fpm.service`, or the process if it was not started for a unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.record.units.first().or(self.process.unit.as_ref()) {
            Some(unit) => f.write_str(unit),
            None => write!(f, "{}", self.process),
        }
    }
}

impl RunNamespace {
    /// The directories of its records.
    pub fn state(&self, host: &StateDir) -> StateDir {
        host.of_namespace(&self.record.id.to_string())
    }

    /// Whether the site is up in it, or was.
    pub fn has(&self, site: &SiteName, host: &StateDir) -> bool {
        self.state(host).record(site).exists()
    }

    /// Whether it is that of one of these units.
    pub fn is_of(&self, units: &[String]) -> bool {
        let mut own = self.process.unit.iter().chain(&self.record.units);
        own.any(|unit| units.contains(unit))
    }
}

/// The namespaces that `run` made.
#[derive(Clone, Debug, Default)]
pub struct RunNamespaces {
    /// Those that exist, in the order of their processes.
    pub living: Vec<RunNamespace>,
    /// The directories of those that are gone.
    pub gone: Vec<PathBuf>,
}

/// The directories of namespaces, of which some may be gone.
pub(crate) struct NamespaceDirectories(Vec<PathBuf>);

impl NamespaceDirectories {
    pub(crate) fn list(state: &StateDir) -> Self {
        let directories = fs::read_dir(state.namespaces()).into_iter().flatten();
        Self(directories.flatten().map(|entry| entry.path()).collect())
    }

    /// Whether a namespace may have the site, by the records alone.
    pub(crate) fn may_have(&self, site: &SiteName) -> bool {
        let record = format!("{site}.json");
        let mut directories = self.0.iter();
        directories.any(|directory| directory.join(&record).exists())
    }
}

impl RunNamespaces {
    /// Finds them by their records and by the processes of this host.
    pub fn find(state: &StateDir, boot: &BootId) -> Self {
        // The records come first: a namespace that has one by now has a process by then.
        let records = records(&state.namespaces());
        let mut found = Self::default();
        if records.is_empty() {
            return found;
        }
        let processes = Processes::look();
        for (directory, record) in records {
            let Some(record) = record else {
                if !processes.may_be_in(&directory) {
                    found.gone.push(directory);
                }
                continue;
            };
            if record.boot != *boot {
                found.gone.push(directory);
            } else if let Some(process) = processes.within(&record, state) {
                found.living.push(RunNamespace { record, process });
            } else if processes.are_all(&record) {
                found.gone.push(directory);
            }
        }
        found.living.sort_by_key(|namespace| namespace.process.pid);
        found
    }
}

/// The directories of the namespaces, each with its record; `None`: it has none that is whole.
fn records(directory: &Path) -> Vec<(PathBuf, Option<NamespaceRecord>)> {
    let mut records = vec![];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let record = record_in(&entry.path());
        records.push((entry.path(), record));
    }
    records
}

fn record_in(directory: &Path) -> Option<NamespaceRecord> {
    let bytes = read_regular(&namespace_record(directory)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The record in the directory of a namespace. No site can have this name.
pub fn namespace_record(directory: &Path) -> PathBuf {
    directory.join(".namespace.json")
}

/// The inode number of the namespace that a link in `/proc/PID/ns` names: `mnt:[4026531841]`.
pub fn namespace_inode(link: &Path) -> Option<u64> {
    read_inode(link).ok()
}

fn read_inode(link: &Path) -> io::Result<u64> {
    let name = fs::read_link(link)?;
    inode_in(&name).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn inode_in(name: &Path) -> Option<u64> {
    let name = name.to_str()?.strip_suffix(']')?;
    let (_, number) = name.split_once('[')?;
    number.parse().ok()
}

/// The processes of `units`, each with the inode number of its mount namespace.
pub fn of_units(units: &[String]) -> Vec<(Process, u64)> {
    let mut found = vec![];
    for (pid, proc) in proc::processes() {
        let Some(process) = Process::read(pid, &proc) else {
            continue;
        };
        if let Some(unit) = &process.unit
            && units.contains(unit)
            && let Some(namespace) = namespace_inode(&proc.join("ns/mnt"))
        {
            found.push((process, namespace));
        }
    }
    found
}

/// The processes that can be seen, by their mount namespaces.
struct Processes {
    by_namespace: HashMap<u64, Vec<u32>>,
    /// Whether the namespace of every process could be seen.
    all_seen: bool,
    pid_namespace: Option<u64>,
    /// Whether the kernel never reuses the id of a mount (since Linux 6.8).
    ids_are_unique: bool,
}

impl Processes {
    fn look() -> Self {
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        let mut all_seen = Path::new("/proc/1").exists();
        for (pid, proc) in proc::processes() {
            match read_inode(&proc.join("ns/mnt")) {
                Ok(inode) => by_namespace.entry(inode).or_default().push(pid),
                // The first process is in the host's namespace, and may be more privileged. One
                // that ends is in none any more (ENOENT, ESRCH).
                Err(error) => {
                    all_seen &= pid == 1 || error.kind() != io::ErrorKind::PermissionDenied;
                }
            }
        }
        Self {
            by_namespace,
            all_seen,
            pid_namespace: namespace_inode(Path::new("/proc/self/ns/pid")),
            ids_are_unique: root(std::process::id()).is_some_and(|root| root.mount_id_is_unique),
        }
    }

    /// A process in the namespace, if it exists: the one that made it, or the oldest. A process
    /// whose root directory is that of the namespace tells whether the inode number was reused.
    /// Before Linux 6.8 the kernel gives both numbers to the next namespace once one is gone; then
    /// the service, or a mount of a site, has to be in it.
    fn within(&self, record: &NamespaceRecord, state: &StateDir) -> Option<Process> {
        let mut pids = self.by_namespace.get(&record.id.inode)?.clone();
        pids.sort_by_key(|pid| (*pid != record.pid, *pid));
        let expected = Some(record.id.root_mount);
        let is_on_root = |pid: u32| root(pid).is_some_and(|root| root.mount_id == expected);
        let process = match pids.iter().find(|pid| is_on_root(**pid)) {
            Some(pid) => *pid,
            None if pids.iter().any(|pid| is_at_slash(*pid)) => return None, // it was reused
            None => *pids.first()?,
        };
        let is_it = self.ids_are_unique
            || pids.iter().any(|pid| is_of_service(*pid, record))
            || has_recorded_mount(process, record, state);
        if !is_it {
            return None; // both numbers were reused
        }
        Process::of(process)
    }

    /// Whether a process may be in the namespace with this directory, which has no record that can
    /// be read: perhaps it is being made now.
    fn may_be_in(&self, directory: &Path) -> bool {
        match inode_of_directory(directory) {
            Some(inode) => !self.all_seen || self.by_namespace.contains_key(&inode),
            None => false,
        }
    }

    /// Whether all processes that may be in the namespace were seen.
    fn are_all(&self, record: &NamespaceRecord) -> bool {
        self.all_seen && record.pid_namespace == self.pid_namespace
    }
}

/// The inode number in the name of the directory of a namespace, which is its [`NamespaceId`].
fn inode_of_directory(directory: &Path) -> Option<u64> {
    let (inode, _) = directory.file_name()?.to_str()?.split_once('-')?;
    inode.parse().ok()
}

/// The root directory of the process.
fn root(pid: u32) -> Option<Stat> {
    let root = proc::open_link(&proc::of(pid).join("root")).ok()?;
    sys::stat_fd_unsynced(root).ok()
}

/// Whether the process made the namespace, or is of a unit that it was made for.
fn is_of_service(pid: u32, record: &NamespaceRecord) -> bool {
    if pid == record.pid && proc::start_time(&proc::of(pid)) == record.started {
        return true;
    }
    let unit = Process::of(pid).and_then(|process| process.unit);
    unit.is_some_and(|unit| record.units.contains(&unit))
}

/// Whether the process sees a mount where a site has one in the recorded namespace, and the host
/// has none: each new namespace begins with those of the host.
fn has_recorded_mount(pid: u32, record: &NamespaceRecord, state: &StateDir) -> bool {
    let own = state.of_namespace(&record.id.to_string());
    let (Some(table), Ok(host)) = (Table::of_process(pid), Table::read_text()) else {
        return false;
    };
    for site in own.sites_of_boot().unwrap_or_default() {
        let records = own.read(&site, &record.boot);
        let Some(found) = records.ok().and_then(|records| records.record) else {
            continue;
        };
        for mount in &found.mounts {
            let point = found.root.inside(&mount.target);
            let is_mounted = |table: &Table| !table.at(point.as_path()).is_empty();
            if is_mounted(&table) && !is_mounted(&host) {
                return true;
            }
        }
    }
    false
}

/// Whether the process sees its root directory at `/`, as one that entered no root does.
fn is_at_slash(pid: u32) -> bool {
    fs::read_link(proc::of(pid).join("root")).is_ok_and(|root| root == Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, record: &NamespaceRecord) {
        fs::create_dir_all(directory).unwrap();
        let text = serde_json::to_vec(record).unwrap();
        fs::write(namespace_record(directory), text).unwrap();
    }

    #[test]
    fn a_namespace_is_found_while_a_process_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        let boot = BootId("b".into());
        let record = |inode, boot: &BootId| NamespaceRecord {
            version: NAMESPACE_VERSION,
            boot: boot.clone(),
            id: NamespaceId {
                inode,
                root_mount: root(std::process::id()).unwrap().mount_id.unwrap(),
            },
            pid: std::process::id(),
            started: proc::start_time(&proc::of(std::process::id())),
            pid_namespace: namespace_inode(Path::new("/proc/self/ns/pid")),
            units: vec!["a.service".to_owned()],
        };
        let own = namespace_inode(Path::new("/proc/thread-self/ns/mnt")).unwrap();
        write(&state.namespaces().join("own"), &record(own, &boot));
        write(&state.namespaces().join("gone"), &record(3, &boot));
        let mut reused = record(own, &boot);
        reused.id.root_mount += 1;
        write(&state.namespaces().join("reused"), &reused);
        let before = BootId("a".into());
        write(&state.namespaces().join("before"), &record(own, &before));
        let hidden = NamespaceRecord {
            pid_namespace: Some(1),
            ..record(3, &boot)
        };
        write(&state.namespaces().join("hidden"), &hidden);
        // One is being made, or its record cannot be read; the other was left while it was made.
        let unread = [format!("{own}-1"), "3-1".to_owned()];
        for name in &unread {
            fs::create_dir(state.namespaces().join(name)).unwrap();
        }
        let found = RunNamespaces::find(&state, &boot);
        let [living] = found.living.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(living.record.id.inode, own);
        assert!(living.is_of(&["a.service".to_owned()]) && !living.is_of(&[]));
        let mut gone = found.gone;
        gone.sort();
        let name = |name: &str| state.namespaces().join(name);
        let expected = ["3-1", "before", "gone", "reused"].map(name);
        assert_eq!(gone, expected);
    }
}

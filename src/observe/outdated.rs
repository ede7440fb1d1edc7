//! The processes inside a root that still use replaced files, for example after an upgrade of a
//! library.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Table;
use super::process::Process;
use super::processes::{maps, same_namespace};
use crate::base::HostPath;
use crate::base::quote::shell_word;
use crate::base::text::and_more;
use crate::resolve::ldso::elf::Object;
use crate::sys::{self, FileId, proc};

/// The end of a removed file's path.
const DELETED: &[u8] = b" (deleted)";

/// Directories where programs remove files on purpose while they use them.
const TEMPORARY: [&str; 5] = ["/dev", "/run", "/tmp", "/var/run", "/var/tmp"];

/// The number of old files that are named per process. A single one is reason to restart it.
const MAX_NAMED: usize = 5;

/// The number of pids that are named per group of processes.
const MAX_PIDS: usize = 10;

/// The limit of files per process.
const MAX_FILES: usize = 2000;

/// Limits per root, over all processes in it.
const MAX_FILES_IN_ROOT: usize = 20_000;
const MAX_PROCESSES_IN_ROOT: usize = 2000;

/// The processes with old files in one root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// The processes that use old files, in groups.
    pub outdated: Vec<Outdated>,
    /// The number of processes that were not looked at, because there are too many processes or
    /// they have too many files.
    pub not_looked_at: usize,
}

/// The processes with the same name, unit and old files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// At least one, sorted by pid.
    pub processes: Vec<Process>,
    /// The paths as the processes see them. A file without a path is called `program` or by its
    /// soname.
    pub files: Vec<String>,
    /// There may be more files than these.
    pub more: bool,
}

impl fmt::Display for Outdated {
    /// `php-fpm8.2 (pid 812 813, php8.2-fpm.service) still has the old libssl.so.3`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(process) = self.processes.first() else {
            return Ok(());
        };
        let named = self.processes.iter().take(MAX_PIDS);
        let pids: Vec<_> = named.map(|process| process.pid.to_string()).collect();
        let others = and_more(self.processes.len() - pids.len());
        let unit = match &process.unit {
            Some(unit) => format!(", {unit}"),
            None => String::new(),
        };
        let (pids, files) = (pids.join(" "), self.files.join(", "));
        let more = if self.more { " and more" } else { "" };
        write!(
            f,
            "{} (pid {pids}{others}{unit}) still has the old {files}{more}",
            shell_word(&process.name)
        )
    }
}

/// The processes that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessesIn {
    /// Those in all mount namespaces.
    All,
    /// Those in the mount namespace of this thread.
    Own,
}

/// The processes inside each of `roots` that have mapped a library, program or other file that is
/// not there any more: it was removed or replaced, or its mount was swapped. `table` is the mount
/// table of this namespace.
///
/// A file does not count while its path still leads to it, as in a stale mount, because a restart
/// of the process would change nothing. A file that is mapped shared and writable does not count
/// either.
pub fn outdated(roots: &[&HostPath], table: &Table, which: ProcessesIn) -> Vec<Inside> {
    let mut by_root: Vec<OldInRoot> = roots.iter().map(|_| OldInRoot::default()).collect();
    for (pid, proc) in proc::processes() {
        let Ok(at) = fs::read_link(proc.join("root")) else {
            continue;
        };
        let Some(nth) = roots.iter().position(|root| at.starts_with(root.as_path())) else {
            continue;
        };
        if which == ProcessesIn::Own && !same_namespace(&proc) {
            continue;
        }

        let found = &mut by_root[nth];
        if found.processes >= MAX_PROCESSES_IN_ROOT || found.files >= MAX_FILES_IN_ROOT {
            found.not_looked_at += 1;
            continue;
        }

        let maps = Maps {
            proc: &proc,
            root: &at,
            table,
        };
        found.add(pid, &maps);
    }

    by_root.into_iter().map(OldInRoot::into_inside).collect()
}

/// The properties that processes of a group have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    unit: Option<String>,
    name: String,
    /// The old files.
    files: BTreeSet<String>,
    /// There may be more files than these.
    more: bool,
}

/// The groups of processes in one root, and the numbers of processes and files looked at.
#[derive(Default)]
struct OldInRoot {
    groups: BTreeMap<Group, Vec<Process>>,
    processes: usize,
    files: usize,
    not_looked_at: usize,
}

impl OldInRoot {
    /// Adds the process `pid` with its `maps`.
    fn add(&mut self, pid: u32, maps: &Maps<'_>) {
        let old = maps.old_files();
        self.processes += 1;
        self.files += old.looked_at;
        if old.names.is_empty() {
            return;
        }
        if let Some(process) = Process::read(pid, maps.proc) {
            let group = Group {
                unit: process.unit.clone(),
                name: process.name.clone(),
                files: old.names,
                more: old.more,
            };
            self.groups.entry(group).or_default().push(process);
        }
    }

    fn into_inside(self) -> Inside {
        let mut outdated = vec![];
        for (group, mut processes) in self.groups {
            processes.sort_by_key(|process| process.pid);
            outdated.push(Outdated {
                processes,
                files: group.files.into_iter().collect(),
                more: group.more,
            });
        }
        Inside {
            outdated,
            not_looked_at: self.not_looked_at,
        }
    }
}

/// The old files of one process.
#[derive(Default)]
struct Old {
    names: BTreeSet<String>,
    /// There may be more names than these.
    more: bool,
    looked_at: usize,
}

/// The mapped files of one process, whose root directory is `root`.
struct Maps<'p> {
    proc: &'p Path,
    root: &'p Path,
    table: &'p Table,
}

/// One file of a process, with all its mappings.
#[derive(Debug, PartialEq, Eq)]
struct Mapped<'m> {
    /// The path in `/proc/PID/maps`, without the mark of a removed file.
    path: &'m [u8],
    deleted: bool,
    /// The address range of one mapping, which is the name of its link in `map_files`.
    range: &'m str,
    /// It is mapped shared and writable, so it is not a library.
    written: bool,
}

impl Maps<'_> {
    /// The first few files that differ from what the process would find at their paths now.
    fn old_files(&self) -> Old {
        let mut old = Old::default();
        for mapped in parse(&maps(self.proc)) {
            old.more = old.names.len() == MAX_NAMED;
            if old.more || old.looked_at == MAX_FILES {
                break;
            }
            old.looked_at += 1;
            if !mapped.written && !mapped.is_memory() && self.is_old(&mapped) {
                old.names.insert(self.name(&mapped));
            }
        }
        old
    }

    /// The link to the mapped file, which works even if the path does not lead to it any more.
    fn link(&self, mapped: &Mapped<'_>) -> PathBuf {
        self.proc.join("map_files").join(mapped.range)
    }

    fn is_old(&self, mapped: &Mapped<'_>) -> bool {
        let Ok(used) = fs::metadata(self.link(mapped)) else {
            return false;
        };
        let used = FileId::of(&used);
        match self.found_now(mapped.path()) {
            Some(now) if now == used => false,
            None if is_temporary(&self.path_inside(mapped)) => false,
            _ => mapped.deleted || self.is_detached(mapped),
        }
    }

    /// The file that the process would find at `path` if it opened it again.
    fn found_now(&self, path: &Path) -> Option<FileId> {
        if let Ok(inside) = path.strip_prefix(self.root) {
            let root = proc::open_link(&self.proc.join("root")).ok()?;
            let found = sys::open_beneath(&root, inside, libc::O_PATH).ok()?;
            return Some(sys::stat_fd(found).ok()?.file);
        }
        // It was mapped before the process entered its root, as in the pools of PHP-FPM.
        known_file(path)
    }

    /// Whether the file is on a mount that is not in the mount table any more because it was
    /// swapped. This is only known for processes in this mount namespace, since the table does not
    /// have the mounts of others.
    fn is_detached(&self, mapped: &Mapped<'_>) -> bool {
        if !same_namespace(self.proc) {
            return false;
        }
        match mount_id(&self.link(mapped)) {
            Some(id) => !self.table.has(id),
            None => false,
        }
    }

    /// The path as the process sees it. For a file from before it entered its root, the path on the
    /// host.
    fn path_inside(&self, mapped: &Mapped<'_>) -> PathBuf {
        match mapped.path().strip_prefix(self.root) {
            Ok(inside) => Path::new("/").join(inside),
            Err(_) => mapped.path().to_owned(),
        }
    }

    /// The path inside. A file that was a mount of its own has no path any more; it is called
    /// `program` or by its soname.
    fn name(&self, mapped: &Mapped<'_>) -> String {
        let shown = self.path_inside(mapped);
        if shown != Path::new("/") {
            return shown.to_string_lossy().into_owned();
        }

        let link = self.link(mapped);
        if known_file(&link) == known_file(&self.proc.join("exe")) {
            return "program".to_owned();
        }
        match soname(&link) {
            Some(name) => String::from_utf8_lossy(&name).into_owned(),
            None => "unnamed file".to_owned(),
        }
    }
}

fn known_file(path: &Path) -> Option<FileId> {
    Some(FileId::of(&fs::metadata(path).ok()?))
}

fn soname(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    Object::read(&file).ok()?.soname
}

impl Mapped<'_> {
    fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path))
    }

    /// Whether it is memory that is shown with a path, and not a file in a directory.
    fn is_memory(&self) -> bool {
        [&b"/memfd:"[..], b"/SYSV", b"/anon_hugepage", b"/dev/zero"]
            .iter()
            .any(|name| self.path.starts_with(name))
    }
}

/// Whether a removed file with this path was probably a temporary one.
fn is_temporary(path: &Path) -> bool {
    TEMPORARY
        .iter()
        .any(|directory| path.starts_with(directory))
}

/// The files in a `/proc/PID/maps` (`proc_pid_maps(5)`), or in the beginning of one. Each is listed
/// once, in the order of the file.
fn parse(maps: &[u8]) -> Vec<Mapped<'_>> {
    let (mut files, mut nths) = (vec![], HashMap::new());
    for line in maps.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else {
            continue; // it is not whole
        };
        let Some((inode, mapped)) = parse_line(line) else {
            continue;
        };
        let nth = *nths.entry((inode, mapped.path)).or_insert(files.len());
        match files.get_mut(nth) {
            None => files.push(mapped),
            Some(Mapped { written, .. }) => *written |= mapped.written,
        }
    }
    files
}

/// Parses `7f06-7f07 r-xp 00003000 fe:00 326970   /usr/lib/libz.so.1 (deleted)`. Returns the device
/// with the inode, and the mapping.
fn parse_line(line: &[u8]) -> Option<(&str, Mapped<'_>)> {
    let (head, path) = line.split_at(line.iter().position(|byte| *byte == b'/')?);
    let head = std::str::from_utf8(head).ok()?;
    let mut fields = head.split_ascii_whitespace();
    let (range, mode, device) = (fields.next()?, fields.next()?, fields.nth(1)?);
    let inode = head.get(head.find(device)?..)?.trim_end();
    if fields.next()? == "0" {
        return None; // a mapping without a file may have a slash in its name
    }

    let deleted = path.ends_with(DELETED);
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    Some((
        inode,
        Mapped {
            path,
            deleted,
            range,
            written: mode.contains('w') && mode.ends_with('s'),
        },
    ))
}

/// The mountinfo id of the mount that the file behind `link` is on.
fn mount_id(link: &Path) -> Option<u64> {
    sys::mount_id_in_table(proc::open_link(link).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maps_of_a_process_are_read() {
        let maps = b"00400000-00401000 r--p 00000000 fe:00 18504      /srv/a/bin/x\n\
            00401000-00402000 r-xp 00001000 fe:00 18504      /srv/a/bin/x\n\
            7f01-7f02 r-xp 00000000 00:29 7                          / (deleted)\n\
            7f02-7f03 r--s 00000000 00:29 8                          /srv/a/var/db (deleted)\n\
            7f03-7f04 rw-s 00000000 00:29 8                          /srv/a/var/db (deleted)\n\
            7f05-7f06 rw-p 00000000 00:00 0                          [heap]\n\
            7f06-7f07 rw-p 00000000 00:00 0 \n\
            7f07-7f08 rw-s 00000000 00:01 1024                       /dev/zero (deleted)\n\
            7f08-7f09 r-xp 00000000 00:01 9                          /memfd:jit (deleted)\n";
        let files = parse(maps);
        let seen: Vec<_> = files
            .iter()
            .map(|m| (m.path, m.deleted, m.written, m.is_memory()))
            .collect();
        let expected: [(&[u8], _, _, _); 5] = [
            (b"/srv/a/bin/x", false, false, false),
            (b"/", true, false, false),
            (b"/srv/a/var/db", true, true, false),
            (b"/dev/zero", true, true, true),
            (b"/memfd:jit", true, false, true),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn this_process_has_mounts_that_the_table_knows() {
        let table = Table::read().unwrap();
        let id = mount_id(Path::new("/proc/self/exe")).unwrap();
        assert!(table.has(id) && !table.has(u64::MAX));
    }
}

//! Which processes inside a root still use files that have been replaced, as after an upgrade of a
//! library.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Table;
use super::processes::{Process, all, same_namespace};
use crate::base::HostPath;
use crate::base::quote::word;
use crate::base::text::and_more;
use crate::resolve::ldso::elf::Object;
use crate::sys::{self, FileId};

/// What a removed file's path ends in.
const DELETED: &[u8] = b" (deleted)";

/// Where programs keep files that they remove on purpose while they use them.
const TEMPORARY: [&str; 5] = ["/dev", "/run", "/tmp", "/var/run", "/var/tmp"];

/// So many old files of one process are named: it has to start again after one.
const NAMED: usize = 5;

/// So many of its pids are named.
const PIDS: usize = 10;

/// So much of what a process has mapped is looked at: its owner can map 65,530 files
/// (`vm.max_map_count`) with names of 4 KiB.
const MAPS: u64 = 1 << 20;
const FILES: usize = 2000;

/// So many files of all processes in one root, and so many processes, are looked at.
const FILES_IN_ROOT: usize = 20_000;
const PROCESSES_IN_ROOT: usize = 2000;

/// What was found in one root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Who uses old files.
    pub outdated: Vec<Outdated>,
    /// How many processes were not looked at, because there are too many, or those before have too
    /// many files.
    pub not_looked_at: usize,
}

/// Processes of one name and unit, with the same old files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// At least one, by their ids.
    pub processes: Vec<Process>,
    /// Paths as the processes have them, or, where a file has none any more, `program` or its name
    /// as a library.
    pub files: Vec<String>,
    /// There may be more than these.
    pub more: bool,
}

impl fmt::Display for Outdated {
    /// `php-fpm8.2 (pid 812 813, php8.2-fpm.service) still has the old libssl.so.3`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(process) = self.processes.first() else {
            return Ok(());
        };
        let pids: Vec<_> = self
            .processes
            .iter()
            .take(PIDS)
            .map(|process| process.pid.to_string())
            .collect();
        let others = self.processes.len() - pids.len();
        let others = and_more(others);
        let unit = process
            .unit
            .as_ref()
            .map(|unit| format!(", {unit}"))
            .unwrap_or_default();
        let (pids, files) = (pids.join(" "), self.files.join(", "));
        let more = if self.more { " and more" } else { "" };
        write!(
            f,
            "{} (pid {pids}{others}{unit}) still has the old {files}{more}",
            word(&process.name)
        )
    }
}

/// The processes inside each of `roots` that have mapped a library, program or other file that is
/// not there any more: removed, replaced, or on a mount that has been swapped. `table` is the mount
/// table of this namespace.
///
/// A file is not counted while its path still leads to it, as in a mount that is stale: to start
/// the process again would change nothing. Nor is a file that is mapped to write to it together
/// with others.
pub fn outdated(roots: &[&HostPath], table: &Table) -> Vec<Inside> {
    let mut by_root: Vec<Found> = roots.iter().map(|_| Found::default()).collect();
    for (pid, proc) in all() {
        let Ok(at) = fs::read_link(proc.join("root")) else {
            continue;
        };
        let Some(nth) = roots.iter().position(|root| at.starts_with(root.as_path())) else {
            continue;
        };
        let found = &mut by_root[nth];
        if found.processes >= PROCESSES_IN_ROOT || found.files >= FILES_IN_ROOT {
            found.not_looked_at += 1;
            continue;
        }
        let old = Maps {
            proc: &proc,
            root: &at,
            table,
        }
        .old_files();
        (found.processes, found.files) = (found.processes + 1, found.files + old.looked_at);
        if let Some(process) = Process::read(pid, &proc).filter(|_| !old.names.is_empty()) {
            let key = (
                process.unit.clone(),
                process.name.clone(),
                old.names,
                old.more,
            );
            found.groups.entry(key).or_default().push(process);
        }
    }
    let group = |((_, _, files, more), mut processes): (Group, Vec<Process>)| {
        processes.sort_by_key(|process| process.pid);
        Outdated {
            processes,
            files: files.into_iter().collect(),
            more,
        }
    };
    let inside = |found: Found| {
        let outdated = found.groups.into_iter().map(group).collect();
        Inside {
            outdated,
            not_looked_at: found.not_looked_at,
        }
    };
    by_root.into_iter().map(inside).collect()
}

/// Of processes with old files: their unit, name, files, and whether there may be more of these.
type Group = (Option<String>, String, BTreeSet<String>, bool);

/// What was found in one root, and how much was looked at.
#[derive(Default)]
struct Found {
    groups: BTreeMap<Group, Vec<Process>>,
    processes: usize,
    files: usize,
    not_looked_at: usize,
}

/// The old files of one process.
#[derive(Default)]
struct Old {
    names: BTreeSet<String>,
    /// There may be more than these.
    more: bool,
    looked_at: usize,
}

/// What one process with this root directory has mapped.
struct Maps<'p> {
    proc: &'p Path,
    root: &'p Path,
    table: &'p Table,
}

/// One file of a process, with all its mappings.
#[derive(Debug, PartialEq, Eq)]
struct Mapped<'m> {
    /// As in `/proc/PID/maps`, without what says that it is removed.
    path: &'m [u8],
    deleted: bool,
    /// The address range of one mapping, which is its name in `map_files`.
    range: &'m str,
    /// Shared with others and written to: no library.
    written: bool,
}

impl Maps<'_> {
    /// The names of the first few files that are not what the process would find now.
    fn old_files(&self) -> Old {
        let mut maps = vec![];
        let mut old = Old::default();
        let Ok(file) = File::open(self.proc.join("maps")) else {
            return old;
        };
        if file.take(MAPS).read_to_end(&mut maps).is_err() {
            return old; // the process is gone
        }
        for mapped in parse(&maps) {
            old.more = old.names.len() == NAMED;
            if old.more || old.looked_at == FILES {
                break;
            }
            old.looked_at += 1;
            if !mapped.written && !mapped.is_memory() && self.is_old(&mapped) {
                old.names.insert(self.name(&mapped));
            }
        }
        old
    }

    /// Where the file of a mapping can be reached, whatever became of its path.
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

    /// What the process would find at `path` if it opened it again.
    fn found_now(&self, path: &Path) -> Option<FileId> {
        if let Ok(inside) = path.strip_prefix(self.root) {
            let root = File::open(self.proc.join("root")).ok()?;
            let found = sys::open_beneath(&root, inside, libc::O_PATH).and_then(sys::stat_fd);
            return found.ok().map(|stat| stat.file);
        }
        // Mapped before the process entered its root, as the pools of PHP-FPM do.
        fs::metadata(path).ok().map(|now| FileId::of(&now))
    }

    /// Whether the file is on a mount that is in no place any more: one that was swapped. Known of
    /// processes in this mount namespace; other ones hide their mounts outside of the root.
    fn is_detached(&self, mapped: &Mapped<'_>) -> bool {
        same_namespace(self.proc)
            && mount_id(&self.link(mapped)).is_some_and(|id| !self.table.has(id))
    }

    /// As the process sees it; the host's, of a file from before it entered its root.
    fn path_inside(&self, mapped: &Mapped<'_>) -> PathBuf {
        let inside = mapped
            .path()
            .strip_prefix(self.root)
            .map(|inside| Path::new("/").join(inside));
        inside.unwrap_or_else(|_| mapped.path().to_owned())
    }

    /// The path inside; of a file that was a mount of its own, which has none any more, `program`
    /// or the name as a library.
    fn name(&self, mapped: &Mapped<'_>) -> String {
        let shown = self.path_inside(mapped);
        if shown != Path::new("/") {
            return shown.to_string_lossy().into_owned();
        }
        let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        if file(&self.link(mapped)) == file(&self.proc.join("exe")) {
            return "program".to_owned();
        }
        let object = File::open(self.link(mapped))
            .ok()
            .and_then(|file| Object::read(&file).ok());
        let soname = object.and_then(|object| object.soname);
        soname.map_or_else(
            || "unnamed file".to_owned(),
            |name| String::from_utf8_lossy(&name).into_owned(),
        )
    }
}

impl Mapped<'_> {
    fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path))
    }

    /// No file of a directory, though it is shown as one.
    fn is_memory(&self) -> bool {
        [&b"/memfd:"[..], b"/SYSV", b"/anon_hugepage", b"/dev/zero"]
            .iter()
            .any(|name| self.path.starts_with(name))
    }
}

/// Whether a file of this path that is gone was likely never meant to stay.
fn is_temporary(path: &Path) -> bool {
    TEMPORARY
        .iter()
        .any(|directory| path.starts_with(directory))
}

/// The files of a `/proc/PID/maps` (`proc_pid_maps(5)`), or of the begin of one, each once and in
/// its order.
fn parse(maps: &[u8]) -> Vec<Mapped<'_>> {
    let (mut files, mut nths) = (vec![], HashMap::new());
    let whole = maps
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"));
    for (inode, mapped) in whole.filter_map(parse_line) {
        let nth = *nths.entry((inode, mapped.path)).or_insert(files.len());
        match files.get_mut(nth) {
            None => files.push(mapped),
            Some(Mapped { written, .. }) => *written |= mapped.written,
        }
    }
    files
}

/// `7f06-7f07 r-xp 00003000 fe:00 326970   /usr/lib/libz.so.1 (deleted)`, with the device and
/// inode.
fn parse_line(line: &[u8]) -> Option<(&str, Mapped<'_>)> {
    let (head, path) = line.split_at(line.iter().position(|byte| *byte == b'/')?);
    let head = std::str::from_utf8(head).ok()?;
    let mut fields = head.split_ascii_whitespace();
    let (range, mode, device) = (fields.next()?, fields.next()?, fields.nth(1)?);
    let inode = head.get(head.find(device)?..)?.trim_end();
    // What is no file may have a slash in its name.
    fields.next().filter(|inode| *inode != "0")?;
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

/// The id of the mount that the open file at `link` is on, as mountinfo has it.
fn mount_id(link: &Path) -> Option<u64> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(link)
        .ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?
        .trim()
        .parse()
        .ok()
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

//! Processes by what they are, and by the root and the mount namespace that they are in.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::process::Process;
use crate::base::HostPath;
use crate::resolve::{Host, Mount};
use crate::sys::{self, FileId, proc};

/// All processes of the unit `name`.
pub fn of_unit(name: &str) -> Vec<Process> {
    let mut found = vec![];
    for (pid, proc) in proc::processes() {
        if let Some(process) = Process::read(pid, &proc)
            && process.unit.as_deref() == Some(name)
        {
            found.push(process);
        }
    }
    found
}

/// The program of systemd that starts services (systemd 255).
const EXECUTOR: &str = "systemd-executor";

/// Whether systemd has just made the process, which still runs a program of systemd's. The name
/// proves nothing; inside a root it only says which look-ups are not a daemon's.
pub fn is_managers(pid: u32) -> bool {
    let program = program_name(pid);
    program.starts_with("systemd (") || program == "systemd" || program.starts_with(EXECUTOR)
}

/// Whether systemd waits until the process executes [`EXECUTOR`]: vfork(2). It must not be stopped.
pub fn holds_manager(pid: u32) -> bool {
    is_managers(pid)
        && !program_name(pid).starts_with(EXECUTOR)
        && Path::new("/usr/lib/systemd").join(EXECUTOR).exists()
}

/// The name of the file that the process executes.
fn program_name(pid: u32) -> String {
    let program = fs::read_link(proc::of(pid).join("exe")).unwrap_or_default();
    let name = program.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The master processes of PHP-FPM that run as root, each with its configuration file, which its
/// title names. Those that have another file at that path, as in a container, are left out.
pub fn php_fpm_masters() -> Vec<(Process, PathBuf)> {
    let mut masters = vec![];
    for (pid, proc) in proc::processes() {
        if let Ok(title) = fs::read(proc.join("cmdline"))
            && let Some(file) = configuration(&title)
            && is_roots(&proc)
            && sees_same(pid, &file)
            && let Some(process) = Process::read(pid, &proc)
        {
            masters.push((process, file));
        }
    }
    masters
}

/// Whether the process has the same file at `path` as this one.
pub fn sees_same(pid: u32, path: &Path) -> bool {
    match (sys::file_known_at(path), file_in_root_of(pid, path)) {
        (Ok(ours), Some(theirs)) => ours == theirs,
        _ => false,
    }
}

/// The file that `path` leads to in the root of the process.
fn file_in_root_of(pid: u32, path: &Path) -> Option<FileId> {
    let root = proc::of(pid).join("root");
    let inside = path.strip_prefix("/").unwrap_or(path);
    match sys::open_in_root(proc::open_link(&root).ok()?, inside) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let path = HostPath::new(path).ok()?;
            Some(Host::at(root).stat(&path).ok()?.file)
        }
        found => Some(sys::stat_fd_unsynced(found.ok()?).ok()?.file),
    }
}

/// The file in `php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)`.
fn configuration(title: &[u8]) -> Option<PathBuf> {
    let title = title.strip_prefix(b"php-fpm: master process (")?;
    let end = title.iter().rposition(|byte| *byte == b')')?;
    Some(PathBuf::from(OsStr::from_bytes(&title[..end])))
}

/// Whether the process runs as root. A title proves nothing, because any process can choose its
/// own.
fn is_roots(proc: &Path) -> bool {
    uid(proc) == Some(0)
}

/// The effective user id, by `proc_pid_status(5)`.
pub(super) fn uid(proc: &Path) -> Option<u32> {
    let status = proc::status(proc)?;
    status.get("Uid")?.split_whitespace().nth(1)?.parse().ok()
}

/// All processes whose root directory is `root`.
pub fn inside(root: FileId) -> Vec<Process> {
    let mut inside = vec![];
    for (_, process) in inside_each(&[root]) {
        inside.push(process);
    }
    inside
}

/// The processes whose root directory is one of `roots`, each with the index of its root.
pub fn inside_each(roots: &[FileId]) -> Vec<(usize, Process)> {
    let mut found = vec![];
    for (pid, proc) in proc::processes() {
        if let Some(root) = root_of(pid)
            && let Some(nth) = roots.iter().position(|known| *known == root)
            && let Some(process) = Process::read(pid, &proc)
        {
            found.push((nth, process));
        }
    }
    found
}

/// The root directory of the process `pid`.
pub fn root_of(pid: u32) -> Option<FileId> {
    // The directory may be on a file system that does not answer.
    sys::file_known_at(&proc::of(pid).join("root")).ok()
}

/// The name of this thread's mount namespace.
pub(super) fn own_namespace() -> io::Result<PathBuf> {
    let namespace = sys::stat_fd_unsynced(sys::mount_namespace()?)?;
    Ok(format!("mnt:[{}]", namespace.file.ino).into())
}

/// Whether the process with the directory `proc` is in the same mount namespace as this one.
pub(super) fn same_namespace(proc: &Path) -> bool {
    match (proc::mount_namespace(proc), own_namespace()) {
        (Ok(namespace), Ok(own)) => namespace == own,
        _ => false,
    }
}

/// Whether this process has another mount namespace than PID 1, which has the host's or, in a
/// container, the container's.
///
/// Errors: EACCES and others if that cannot be seen, as without `CAP_SYS_PTRACE` over PID 1.
pub fn apart_from_first() -> io::Result<bool> {
    Ok(proc::mount_namespace(&proc::of(1))? != own_namespace()?)
}

/// Whether the owner of the root directory is not mapped into the user namespace of this process
/// (`user_namespaces(7)`). If so, all older files seem to belong to nobody.
pub fn owners_are_hidden() -> bool {
    match (sys::maps_all_users(), fs::metadata("/")) {
        (Some(false), Ok(root)) => root.uid() != 0,
        _ => false,
    }
}

/// The processes inside one of `roots` whose own mount namespace does not show the mounts there,
/// each with the index of its root.
pub fn without_mounts(roots: &[(&HostPath, &[Arc<Mount>])]) -> Vec<(usize, Process)> {
    let own = own_namespace().ok();
    let mut found = vec![];
    for (pid, proc) in proc::processes() {
        // Most processes have `/`. Reading this link takes most of the time here.
        let Ok(at) = fs::read_link(proc.join("root")) else {
            continue;
        };
        if at == Path::new("/") {
            continue;
        }
        let mut all = roots.iter();
        let Some(nth) = all.position(|(root, _)| at.starts_with(root.as_path())) else {
            continue;
        };
        let namespace = proc::mount_namespace(&proc).ok();
        if namespace.is_none() || namespace == own {
            continue;
        }
        if !sees(&proc, roots[nth].1)
            && let Some(process) = Process::read(pid, &proc)
        {
            found.push((nth, process));
        }
    }
    found
}

/// The limit of bytes of a process's list of maps. That is about ten thousand maps. The owner of a
/// process can map 65,530 files (`vm.max_map_count`) with names of 4 KiB.
const MAX_MAPS_BYTES: u64 = 1 << 20;

/// The beginning of the list of the process's maps: `proc_pid_maps(5)`. It is empty if the process
/// has ended.
pub(super) fn maps(proc: &Path) -> Vec<u8> {
    let mut maps = vec![];
    if let Ok(file) = fs::File::open(proc.join("maps")) {
        // Maps that were read before an error count.
        let _ = file.take(MAX_MAPS_BYTES).read_to_end(&mut maps);
    }
    maps
}

/// Whether the process finds every mount at its target.
fn sees(proc: &Path, mounts: &[Arc<Mount>]) -> bool {
    let Ok(root) = proc::open_link(&proc.join("root")) else {
        return true;
    };
    for mount in mounts {
        let found = sys::open_beneath(&root, mount.target.relative(), libc::O_PATH);
        let Ok(stat) = found.and_then(sys::stat_fd) else {
            return false;
        };
        if mount.file.is_some() && mount.file != Some(stat.file) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_has_the_name_that_proc_shows() {
        let shown = proc::mount_namespace(Path::new("/proc/thread-self"));
        assert_eq!(own_namespace().unwrap(), shown.unwrap());
    }

    #[test]
    fn a_master_tells_its_configuration() {
        let of = |title: &[u8]| configuration(title).map(|file| file.display().to_string());
        let title = b"php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)\0\0\0";
        assert_eq!(of(title).as_deref(), Some("/etc/php/8.2/fpm/php-fpm.conf"));
        assert_eq!(of(b"php-fpm: pool www\0"), None);
        assert!(is_roots(Path::new("/proc/1")));
    }
}

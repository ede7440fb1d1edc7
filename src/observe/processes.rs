//! The processes that use a root, and those of them that do not see the mounts in it.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use crate::base::HostPath;
use crate::base::quote::shell_word;
use crate::resolve::Mount;
use crate::sys::{self, FileId, proc};

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The process ID.
    pub pid: u32,
    /// Its name, as `ps` shows it.
    pub name: String,
    /// The unit of the system manager that it belongs to, if systemd runs.
    pub unit: Option<String>,
}

impl fmt::Display for Process {
    /// `php-fpm8.2 (pid 812, php8.2-fpm.service)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}", shell_word(&self.name), self.pid)?;
        match &self.unit {
            Some(unit) => write!(f, ", {unit})"),
            None => f.write_str(")"),
        }
    }
}

impl Process {
    /// How to restart it. The process name is not used, because the process chooses it.
    pub fn restart(&self) -> String {
        self.by_service("restart")
    }

    /// How to make it look at its files anew. A service that cannot reload is restarted.
    pub fn reload(&self) -> String {
        self.by_service("try-reload-or-restart")
    }

    /// The command of systemctl(1) with `verb` for its service; without a service, a restart.
    fn by_service(&self, verb: &str) -> String {
        match &self.unit {
            // A user's own manager may run anything.
            Some(unit) if unit.ends_with(".service") && !unit.starts_with("user@") => {
                format!("systemctl {verb} {}", shell_word(unit))
            }
            _ => format!("restart the process {}", self.pid),
        }
    }

    /// The process `pid`, if it exists.
    pub fn of(pid: u32) -> Option<Self> {
        Self::read(pid, &proc::of(pid))
    }

    pub(super) fn read(pid: u32, proc: &Path) -> Option<Self> {
        let name = proc::name(proc)?;
        let unit = unit_of(proc);
        Some(Self { pid, name, unit })
    }
}

impl Process {
    /// The time of its start, in milliseconds since boot like [`since_boot`](super::since_boot). It
    /// is precise to about 10 ms.
    pub fn started(&self) -> Option<u64> {
        let ticks_per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
        proc::start_time(&proc::of(self.pid))?
            .checked_mul(1000)?
            .checked_div(ticks_per_second)
    }
}

/// The unit that this process is of.
pub(crate) fn own_unit() -> Option<String> {
    unit_of(Path::new("/proc/self"))
}

fn unit_of(proc: &Path) -> Option<String> {
    if !systemd_runs() {
        return None;
    }
    unit(&proc::control_groups(proc)?)
}

/// Whether systemd is this system's manager (`sd_booted(3)`). Otherwise anybody may have named the
/// control groups.
fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The unit in a `/proc/PID/cgroup` file (cgroups(7)). As for systemd, it is the first component
/// that is not a slice. The components below it may be delegated and named by others, as below
/// `user@1000.service`.
fn unit(text: &str) -> Option<String> {
    let is_slice = |name: &str| matches!(name.rsplit_once('.'), Some((_, "slice")));
    let mut names = control_group(text)?.split('/');
    let name = names.find(|name| !name.is_empty() && !is_slice(name))?;

    // systemd escapes names that look like files of the kernel's.
    let name = name.strip_prefix('_').unwrap_or(name);
    is_unit(name).then(|| name.to_owned())
}

/// The path of systemd's control group in a `/proc/PID/cgroup` file.
fn control_group(text: &str) -> Option<&str> {
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("0::") {
            return Some(path);
        }
        if let Some((_, path)) = line.split_once("name=systemd:") {
            return Some(path);
        }
    }
    None
}

/// Whether `name` is that of a service or scope, in the characters of systemd's names.
fn is_unit(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    match name.rsplit_once('.') {
        Some((prefix, "service" | "scope")) => !prefix.is_empty() && name.chars().all(valid),
        _ => false,
    }
}

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
    let theirs = proc::of(pid)
        .join("root")
        .join(path.strip_prefix("/").unwrap_or(path));
    match (sys::file_known_at(path), sys::file_known_at(&theirs)) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        _ => false,
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
    let (Ok(map), Ok(root)) = (fs::read_to_string("/proc/self/uid_map"), fs::metadata("/")) else {
        return false;
    };
    let all_are_mapped = map.split_whitespace().eq(["0", "0", "4294967295"]);
    !all_are_mapped && root.uid() != 0
}

/// The processes inside one of `roots` whose own mount namespace does not show the mounts there,
/// each with the index of its root.
pub fn without_mounts(roots: &[(&HostPath, &[Arc<Mount>])]) -> Vec<(usize, Process)> {
    let own = own_namespace().ok();
    let mut found = vec![];
    for (pid, proc) in proc::processes() {
        // Of most processes this is `/`; to ask for it is what takes the time here.
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

/// Whether the process finds every mount at its target.
fn sees(proc: &Path, mounts: &[Arc<Mount>]) -> bool {
    let Ok(root) = fs::File::open(proc.join("root")) else {
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
    use super::super::state::since_boot;
    use super::*;

    #[test]
    fn the_unit_is_the_one_that_systemd_made() {
        assert_eq!(
            unit("0::/system.slice/php8.2-fpm.service\n"),
            Some("php8.2-fpm.service".into())
        );
        assert_eq!(
            unit("0::/user.slice/user-0.slice/session-1.scope\n"),
            Some("session-1.scope".into())
        );
        assert_eq!(
            unit("3:cpu:/x\n1:name=systemd:/system.slice/a.service/sub\n"),
            Some("a.service".into())
        );
        let delegated =
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/mariadb.service\n";
        assert_eq!(unit(delegated), Some("user@1000.service".into()));
        assert_eq!(
            unit("0::/system.slice/a.service/mariadb.service\n"),
            Some("a.service".into())
        );
        assert_eq!(
            unit("0::/system.slice/system-php.slice/_b.service\n"),
            Some("b.service".into())
        );
        for none in [
            "0::/\n",
            "0::/../x.service/y\n",
            "0::/a/b.service\n",
            "0::/system.slice/$(id).service\n",
            "",
        ] {
            assert_eq!(unit(none), None, "{none:?}");
        }
        let of = |unit: Option<&str>| Process {
            pid: 7,
            name: "x; y".into(),
            unit: unit.map(Into::into),
        };
        assert_eq!(
            of(Some("a.service")).restart(),
            "systemctl restart a.service"
        );
        assert_eq!(
            of(Some("user@1000.service")).restart(),
            "restart the process 7"
        );
        assert_eq!(
            (of(None).restart(), of(None).to_string()),
            ("restart the process 7".into(), "'x; y' (pid 7)".into())
        );
    }

    #[test]
    fn the_own_namespace_has_the_name_that_proc_shows() {
        let shown = proc::mount_namespace(Path::new("/proc/thread-self"));
        assert_eq!(own_namespace().unwrap(), shown.unwrap());
    }

    #[test]
    fn a_process_knows_when_it_started() {
        let before = since_boot().saturating_sub(20);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let started = Process {
            pid: child.id(),
            name: "sleep".into(),
            unit: None,
        }
        .started()
        .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((before..=since_boot()).contains(&started), "{started}");
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

//! Which processes use a root, and which of them do not see what is mounted in it.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use crate::manifest::HostPath;
use crate::quote::word;
use crate::resolve::Mount;
use crate::sys::{self, FileId};

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, as `ps` shows it.
    pub name: String,
    /// Its systemd unit, from its control group.
    pub unit: Option<String>,
}

impl fmt::Display for Process {
    /// `php-fpm8.2 (pid 812, php8.2-fpm.service)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}", self.name, self.pid)?;
        match &self.unit {
            Some(unit) => write!(f, ", {unit})"),
            None => f.write_str(")"),
        }
    }
}

/// All process directories of `/proc`.
pub(super) fn all() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

impl Process {
    /// What makes it begin anew.
    pub fn restart(&self) -> String {
        match &self.unit {
            Some(unit) if unit.ends_with(".service") => format!("systemctl restart {}", word(unit)),
            _ => format!("restart {}", self.name),
        }
    }

    /// The process `pid`, if it is there.
    pub fn of(pid: u32) -> Option<Self> {
        Self::read(pid, Path::new(&format!("/proc/{pid}")))
    }

    pub(super) fn read(pid: u32, proc: &Path) -> Option<Self> {
        let name = fs::read(proc.join("comm")).ok()?;
        let unit = fs::read_to_string(proc.join("cgroup")).ok().and_then(|text| unit(&text));
        Some(Self { pid, name: String::from_utf8_lossy(&name).trim_end().to_owned(), unit })
    }
}

impl Process {
    /// When it was started, by `/proc/PID/stat` (proc(5)).
    pub fn started(&self) -> Option<SystemTime> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let ticks: u64 = start_ticks(&text)?.parse().ok()?;
        let a_second = sysconf(SysconfVar::CLK_TCK).ok()??;
        let after_boot = Duration::from_millis(ticks * 1000 / u64::try_from(a_second).ok()?);
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
        SystemTime::now().checked_sub(now.checked_sub(after_boot)?)
    }
}

/// The 22nd field of `/proc/PID/stat`; the second one, a name in parentheses, may contain anything.
fn start_ticks(text: &str) -> Option<&str> {
    text.rsplit_once(')')?.1.split_whitespace().nth(19)
}

/// The unit in a `/proc/PID/cgroup` file (cgroups(7)): the innermost component that is a unit's name.
fn unit(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| {
        line.strip_prefix("0::").or_else(|| line.split_once("name=systemd:").map(|(_, path)| path))
    })?;
    let mut components = path.rsplit('/');
    components
        .find(|name| matches!(name.rsplit_once('.'), Some((_, "service" | "scope"))))
        .map(ToOwned::to_owned)
}

/// All processes of the unit `name`.
pub fn of_unit(name: &str) -> Vec<Process> {
    let processes = all().filter_map(|(pid, proc)| Process::read(pid, &proc));
    processes.filter(|process| process.unit.as_deref() == Some(name)).collect()
}

/// The master processes of PHP-FPM that run as root, each with the file that it was configured by, as its title says.
pub fn php_fpm_masters() -> Vec<(Process, PathBuf)> {
    let masters = all().filter_map(|(pid, proc)| {
        let title = fs::read(proc.join("cmdline")).ok()?;
        let file = configuration(&title)?;
        is_roots(&proc).then(|| Some((Process::read(pid, &proc)?, file)))?
    });
    masters.collect()
}

/// The file in `php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)`.
fn configuration(title: &[u8]) -> Option<PathBuf> {
    let title = title.strip_prefix(b"php-fpm: master process (")?;
    let end = title.iter().rposition(|byte| *byte == b')')?;
    Some(PathBuf::from(OsStr::from_bytes(&title[..end])))
}

/// Whether the process runs as root, by the effective user id in its `proc_pid_status(5)`: anybody can choose his title.
fn is_roots(proc: &Path) -> bool {
    let Ok(status) = fs::read_to_string(proc.join("status")) else { return false };
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

/// All processes whose root directory is `root`.
pub fn inside(root: FileId) -> Vec<Process> {
    all()
        .filter(|(pid, _)| root_of(*pid) == Some(root))
        .filter_map(|(pid, proc)| Process::read(pid, &proc))
        .collect()
}

/// Which directory is the root of the process `pid`.
pub fn root_of(pid: u32) -> Option<FileId> {
    let root = fs::metadata(format!("/proc/{pid}/root")).ok()?;
    Some(FileId { dev: root.dev(), ino: root.ino() })
}

/// Whether the process of the directory `proc` is in the mount namespace of this one.
pub(super) fn same_namespace(proc: &Path) -> bool {
    let namespace = fs::read_link(proc.join("ns/mnt"));
    namespace.is_ok_and(|namespace| fs::read_link("/proc/self/ns/mnt").is_ok_and(|own| own == namespace))
}

/// Whether this process has another mount namespace than PID 1, which has the host's, or in a container the
/// container's. `false` where that cannot be seen.
pub fn apart_from_first() -> bool {
    let namespace = |pid| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    namespace("1").is_some_and(|first| namespace("self").is_some_and(|own| own != first))
}

/// Processes inside one of `roots` whose own mount namespace does not show what is mounted there, each with
/// the index of its root.
pub fn without_mounts(roots: &[(&HostPath, &[std::sync::Arc<Mount>])]) -> Vec<(usize, Process)> {
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let mut found = vec![];
    for (pid, proc) in all() {
        let namespace = fs::read_link(proc.join("ns/mnt")).ok();
        if namespace.is_none() || namespace == own {
            continue;
        }
        let Ok(at) = fs::read_link(proc.join("root")) else { continue };
        let Some(nth) = roots.iter().position(|(root, _)| at.starts_with(root.as_path())) else { continue };
        if !sees(&proc, roots[nth].1) {
            found.extend(Process::read(pid, &proc).map(|process| (nth, process)));
        }
    }
    found
}

/// Whether the process finds every mount at its target.
fn sees(proc: &Path, mounts: &[std::sync::Arc<Mount>]) -> bool {
    let Ok(root) = fs::File::open(proc.join("root")) else { return true };
    mounts.iter().all(|mount| {
        let found = sys::open_beneath(&root, mount.target.relative(), libc::O_PATH).and_then(sys::stat_fd);
        found.is_ok_and(|stat| mount.file.is_none_or(|file| file == stat.file))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_innermost_one() {
        assert_eq!(unit("0::/system.slice/php8.2-fpm.service\n"), Some("php8.2-fpm.service".into()));
        assert_eq!(unit("0::/user.slice/user-0.slice/session-1.scope\n"), Some("session-1.scope".into()));
        assert_eq!(unit("3:cpu:/x\n1:name=systemd:/system.slice/a.service/sub\n"), Some("a.service".into()));
        assert_eq!(unit("0::/\n"), None);
    }

    #[test]
    fn a_process_knows_when_it_started() {
        assert_eq!(start_ticks("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 9"), Some("4711"));
        let before = SystemTime::now() - Duration::from_secs(1);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = Process { pid: child.id(), name: "sleep".into(), unit: None }.started().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(started > before && started <= SystemTime::now() + Duration::from_millis(20), "{started:?}");
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

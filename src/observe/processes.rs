//! Which processes use a root, and which of them do not see what is mounted in it.

use std::fmt;
use std::fs;
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

/// Processes other than this one that use something below `root`: as their root or working directory, as an
/// open file or a mapped one. Only root sees those of all users.
pub fn holders(root: &HostPath) -> Vec<Process> {
    let inside = |link: PathBuf| fs::read_link(link).is_ok_and(|path| path.starts_with(root.as_path()));
    let uses = |proc: &Path| {
        inside(proc.join("root"))
            || inside(proc.join("cwd"))
            || inside(proc.join("exe"))
            || ["fd", "map_files"].iter().any(|dir| {
                fs::read_dir(proc.join(dir)).into_iter().flatten().flatten().any(|entry| inside(entry.path()))
            })
    };
    let own = std::process::id();
    all()
        .filter(|(pid, proc)| *pid != own && uses(proc))
        .filter_map(|(pid, proc)| Process::read(pid, &proc))
        .collect()
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
    fn a_process_with_an_open_file_is_a_holder() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("x")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
        let root = HostPath::new(fs::canonicalize(dir.path()).unwrap()).unwrap();
        let found = holders(&root);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.iter().any(|process| process.pid == child.id()), "{found:?}");
    }
}

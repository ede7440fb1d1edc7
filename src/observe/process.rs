//! One process: its name, its unit, how to restart it.

use std::fmt;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use crate::base::quote::shell_word;
use crate::sys::proc;

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

#[cfg(test)]
mod tests {
    use super::super::clock::since_boot;
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
}

//! Unix sockets in bound directories: a server listens, and the user may connect.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Exam;
use crate::base::quote::shell_word;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Connect, InsideError, Socket, Sockets};
use crate::resolve::{FileKind, Mount};

/// The presets that bring a socket, and the server that it belongs to.
const SERVERS: [(&str, &str); 4] = [
    ("mysql", "MySQL or MariaDB"),
    ("postgresql", "PostgreSQL"),
    ("redis", "Redis or Valkey"),
    ("memcached", "memcached"),
];

/// systemd's own sockets, which not everybody may use. Those that matter have checks of their own.
const SYSTEMD: &str = "/run/systemd";

const LOG: &str = "/dev/log";

/// Settings of PHP that name a socket.
const SETTINGS: [&str; 2] = ["mysqli.default_socket", "pdo_mysql.default_socket"];

pub(super) fn sockets(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let named = named_by_php(exam);
    let mut places: Vec<_> = named.iter().cloned().collect();
    for mount in &exam.site.desired.mounts {
        if may_have_sockets(mount) {
            places.push(mount.target.as_path().to_owned());
        }
    }
    let mut found = exam.ask(Sockets(places))?;
    found.retain(|socket| socket.path != Path::new(LOG));

    let mut problems = missing_servers(exam, &found);
    for path in &named {
        if found.iter().all(|socket| socket.path != *path) {
            let shown = path.display();
            let text = format!("{shown}, which PHP's settings name, is not a socket inside");
            problems.push(Problem::new(text, bring_socket(exam, path)));
        }
    }
    for socket in &found {
        if let Some(error) = &socket.error {
            let text = format!("{}: {error}", socket.path.display());
            problems.push(Problem::new(text, repair_socket(exam, &socket.path, error)));
        }
    }

    if problems.is_empty() && found.is_empty() {
        let why = "no bound directory has a socket";
        return Ok(CheckOutcome::not_needed(why));
    }
    let paths: Vec<_> = found
        .iter()
        .map(|socket| socket.path.display().to_string())
        .collect();
    let good = format!("a server listens at {}", paths.join(", "));
    Ok(CheckOutcome::judge(problems, good))
}

/// Sockets are in directories of data, or mounted by themselves; systemd's are left out.
fn may_have_sockets(mount: &Mount) -> bool {
    let is_data = matches!(mount.kind, FileKind::Directory | FileKind::Socket);
    is_data && mount.attributes.noexec && !mount.source.as_path().starts_with(SYSTEMD)
}

/// The sockets that the pools' PHP settings name.
fn named_by_php(exam: &Exam<'_>) -> BTreeSet<PathBuf> {
    let mut named = BTreeSet::new();
    for pool_user in exam.site.pool_users {
        for key in SETTINGS {
            match pool_user.settings.get(key) {
                Some(path) if path.starts_with('/') => drop(named.insert(PathBuf::from(path))),
                _ => {}
            }
        }
    }
    named
}

/// The presets that should have brought a socket and did not.
fn missing_servers(exam: &Exam<'_>, found: &[Socket]) -> Vec<Problem> {
    let mut problems = vec![];
    for (preset, server) in SERVERS {
        if !exam.presets.contains(preset) || has_socket_of(exam, preset, found) {
            continue;
        }
        let remedy = if exam.site.plan.in_sync() {
            let site = &exam.site.desired.site;
            Remedy::act(format!("start {server}, then run `mountjail up {site}`"))
        } else {
            exam.up()
        };
        let text = format!("preset {preset}: there is no socket of {server}");
        problems.push(Problem::new(text, remedy));
    }
    problems
}

/// Whether a socket was found in a mount that the preset brings.
fn has_socket_of(exam: &Exam<'_>, preset: &str, found: &[Socket]) -> bool {
    exam.site.desired.mounts.iter().any(|mount| {
        let mut reasons = mount.reasons.iter();
        reasons.any(|reason| reason.origin.presets.iter().any(|name| name == preset))
            && found
                .iter()
                .any(|socket| socket.path.starts_with(mount.target.as_path()))
    })
}

/// What to do about a socket that cannot be connected to.
fn repair_socket(exam: &Exam<'_>, path: &Path, error: &InsideError) -> Remedy {
    let shown = path.display();
    if matches!(error.errno, Some(libc::EACCES | libc::EPERM)) {
        return Remedy::act(format!(
            "give {} the right to it, most often by its group: `ls -l {}`",
            exam.site.user.name,
            shell_word(&path.to_string_lossy())
        ));
    }
    match exam.mount_of(path) {
        Some(mount) if mount.kind == FileKind::Socket => Remedy::act(format!(
            "bind the directory {} instead: the server makes a new socket when it restarts",
            path.parent().unwrap_or(path).display()
        )),
        _ => Remedy::act(format!(
            "start the server of {shown}: nothing listens there"
        )),
    }
}

fn bring_socket(exam: &Exam<'_>, path: &Path) -> Remedy {
    let directory = path.parent().unwrap_or(path);
    let is_mysqls = directory.starts_with("/run/mysqld") || directory.starts_with("/run/mariadb");
    let line = if is_mysqls {
        Remedy::preset("mysql")
    } else {
        Remedy::line("mounts", directory.display().to_string())
    };
    exam.bring(directory, line)
}

/// `/dev/log`, where syslog(3) writes.
pub(super) fn syslog(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let mut pool_users = exam.site.pool_users.iter();
    let is_set = pool_users.any(|user| user.settings.get("error_log") == Some("syslog"));
    if !is_set && !exam.brings(LOG) && !exam.presets.contains("syslog") {
        return Ok(CheckOutcome::not_needed(
            "no `error_log = syslog`, and nothing brings /dev/log",
        ));
    }

    let Err(error) = exam.ask(Connect(LOG.into()))? else {
        return Ok(CheckOutcome::ok(format!("a server listens at {LOG}")));
    };
    let remedy = if error.errno == Some(libc::ECONNREFUSED) {
        let site = &exam.site.desired.site;
        Remedy::act(format!(
            "start the system's log service, then run `mountjail up {site}`"
        ))
    } else {
        exam.bring(Path::new(LOG), Remedy::preset("syslog"))
    };
    Ok(CheckOutcome::failed(Problem::new(
        format!("{LOG}: {error}"),
        remedy,
    )))
}

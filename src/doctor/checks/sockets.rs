//! Unix sockets in bound directories: somebody listens, and the user may talk to them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Exam;
use crate::base::quote::word;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Connect, InsideError, Sockets};
use crate::resolve::{FileKind, Mount};

/// Presets that are there for a socket, and whose it is.
const SERVERS: [(&str, &str); 4] = [
    ("mysql", "MySQL or MariaDB"),
    ("postgresql", "PostgreSQL"),
    ("redis", "Redis or Valkey"),
    ("memcached", "memcached"),
];

/// Sockets of systemd's own, which not everybody may use; what of them counts has a check of its
/// own.
const SYSTEMD: &str = "/run/systemd";

/// Settings of PHP that name a socket.
const SETTINGS: [&str; 2] = ["mysqli.default_socket", "pdo_mysql.default_socket"];

pub(super) fn sockets(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let named = named_by_php(exam);
    let bound = exam
        .patient
        .desired
        .mounts
        .iter()
        .filter(|mount| may_have_one(mount));
    let places = bound
        .map(|mount| mount.target.as_path().to_owned())
        .chain(named.iter().cloned())
        .collect();
    let mut found = exam.ask(Sockets(places))?;
    found.retain(|socket| socket.path != Path::new("/dev/log"));
    let mut problems = silent_servers(
        exam,
        &found.iter().map(|socket| socket.path.clone()).collect(),
    );
    for path in named
        .iter()
        .filter(|path| found.iter().all(|socket| socket.path != **path))
    {
        let text = format!(
            "{}, which PHP's settings name, is no socket inside",
            path.display()
        );
        problems.push(Problem::new(text, bring_socket(exam, path)));
    }
    for socket in &found {
        if let Some(trouble) = &socket.trouble {
            let text = format!("{}: {}", socket.path.display(), trouble.text);
            problems.push(Problem::new(text, mend(exam, &socket.path, trouble)));
        }
    }
    if problems.is_empty() && found.is_empty() {
        return Ok(CheckOutcome::not_needed("no bound directory has a socket"));
    }
    let listen: Vec<_> = found
        .iter()
        .map(|socket| socket.path.display().to_string())
        .collect();
    Ok(CheckOutcome::of(
        problems,
        format!("somebody listens at {}", listen.join(", ")),
    ))
}

/// Sockets are in directories of data, or mounted by themselves; systemd's are left out.
fn may_have_one(mount: &Mount) -> bool {
    let kind = matches!(mount.kind, FileKind::Directory | FileKind::Socket) && mount.options.noexec;
    kind && !mount.source.as_path().starts_with(SYSTEMD)
}

fn named_by_php(exam: &Exam<'_>) -> BTreeSet<PathBuf> {
    let settings = exam
        .patient
        .pool_users
        .iter()
        .map(|tenant| &tenant.settings);
    let values = settings.flat_map(|settings| SETTINGS.iter().filter_map(|key| settings.get(key)));
    values
        .filter(|value| value.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// The presets that should have brought a socket and did not.
fn silent_servers(exam: &Exam<'_>, found: &BTreeSet<PathBuf>) -> Vec<Problem> {
    let mut problems = vec![];
    for (preset, server) in SERVERS
        .iter()
        .filter(|(preset, _)| exam.presets.contains(preset))
    {
        let mounts = exam.patient.desired.mounts.iter().filter(|mount| {
            mount
                .reasons
                .iter()
                .any(|reason| reason.origin.presets.iter().any(|name| name == preset))
        });
        let mut directories = mounts.map(|mount| mount.target.as_path());
        if !directories.any(|directory| found.iter().any(|socket| socket.starts_with(directory))) {
            let text = format!("preset {preset}: there is no socket of {server}");
            let start = format!(
                "start {server}, then `mountjail up {}`",
                exam.patient.desired.site
            );
            let in_sync = exam.patient.plan.in_sync();
            problems.push(Problem::new(
                text,
                if in_sync {
                    Remedy::act(start)
                } else {
                    exam.up()
                },
            ));
        }
    }
    problems
}

fn mend(exam: &Exam<'_>, path: &Path, trouble: &InsideError) -> Remedy {
    let who = &exam.patient.who.name;
    match trouble.errno {
        Some(libc::EACCES | libc::EPERM) => Remedy::act(format!(
            "give {who} the right to it, most often by its group: `ls -l {}`",
            word(&path.to_string_lossy())
        )),
        _ if exam
            .mount_of(path)
            .is_some_and(|mount| mount.kind == FileKind::Socket) =>
        {
            let directory = path.parent().unwrap_or(path);
            Remedy::act(format!(
                "bind the directory {} instead: a socket is another one after its server's restart",
                directory.display()
            ))
        }
        _ => Remedy::act(format!(
            "start the server of {}, which nobody listens at",
            path.display()
        )),
    }
}

fn bring_socket(exam: &Exam<'_>, path: &Path) -> Remedy {
    let directory = path.parent().unwrap_or(path);
    let preset = if directory.starts_with("/run/mysqld") || directory.starts_with("/run/mariadb") {
        Remedy::preset("mysql")
    } else {
        Remedy::line("mounts", directory.display().to_string())
    };
    exam.bring(directory, preset)
}

/// `/dev/log`, where syslog(3) writes.
pub(super) fn syslog(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    const LOG: &str = "/dev/log";
    let configured = exam
        .patient
        .pool_users
        .iter()
        .any(|tenant| tenant.settings.get("error_log") == Some("syslog"));
    if !configured && !exam.brings(LOG) && !exam.presets.contains("syslog") {
        return Ok(CheckOutcome::not_needed(
            "no `error_log = syslog`, and nothing brings /dev/log",
        ));
    }
    let problem = exam.ask(Connect(LOG.into()))?.err().map(|trouble| {
        let remedy = match trouble.errno {
            Some(libc::ECONNREFUSED) => Remedy::act(format!(
                "start the system's log, then `mountjail up {}`",
                exam.patient.desired.site
            )),
            _ => exam.bring(Path::new(LOG), Remedy::preset("syslog")),
        };
        Problem::new(format!("{LOG}: {}", trouble.text), remedy)
    });
    Ok(CheckOutcome::of(
        problem.into_iter().collect(),
        format!("somebody listens at {LOG}"),
    ))
}

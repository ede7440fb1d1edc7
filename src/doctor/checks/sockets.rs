//! Unix sockets in bound directories: a server listens, and the user may connect.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::HostPath;
use crate::base::quote::shell_path;
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Connect, InsideError, Socket, Sockets};
use crate::doctor::pool_php::PoolPhp;
use crate::doctor::pools;
use crate::resolve::{FileKind, Mount};

/// The presets that bring a socket, and the server that it belongs to.
const SERVERS: [(&str, &str); 4] = [
    ("mysql", "MySQL or MariaDB"),
    ("postgresql", "PostgreSQL"),
    ("redis", "Redis or Valkey"),
    ("memcached", "memcached"),
];

/// The directories that presets bring.
const OF_PRESETS: [(&str, &str); 6] = [
    ("/run/mysqld", "mysql"),
    ("/run/mariadb", "mysql"),
    ("/run/mysql", "mysql"),
    ("/run/postgresql", "postgresql"),
    ("/run/redis", "redis"),
    ("/run/memcached", "memcached"),
];

/// systemd's own sockets, which not everybody may use. Those that matter have checks of their own.
const SYSTEMD: &str = "/run/systemd";

const LOG: &str = "/dev/log";

/// Extensions of PHP that connect to a socket, and the settings that name it.
const DATABASES: [(&str, &str); 2] = [
    ("mysqli", "mysqli.default_socket"),
    ("pdo_mysql", "pdo_mysql.default_socket"),
];

/// Where `PostgreSQL`'s library connects to if nothing is named.
const POSTGRESQL: &str = "/var/run/postgresql/.s.PGSQL.5432";

pub(super) fn sockets(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let named = named_by_php(exam);
    let mut places: Vec<_> = named.keys().cloned().collect();
    for mount in &exam.site.desired.mounts {
        if may_have_sockets(mount) {
            places.push(mount.target.as_path().to_owned());
        }
    }
    let mut found = exam.ask(Sockets(places))?;
    found.retain(|socket| socket.path != Path::new(LOG));
    let mut problems = missing_servers(exam, &found);
    for (path, why) in &named {
        if found.iter().all(|socket| socket.path != *path) {
            let text = match exam.denied(path) {
                Some(at) => format!("{}: {}", path.display(), exam.described(&at)),
                None => format!("{}, {why}, is not a socket inside", path.display()),
            };
            problems.push(Problem::new(text, bring_socket(exam, path)));
        }
    }
    remove_aliases(&mut found);
    for socket in &found {
        if let Some(error) = &socket.error {
            let why = exam.explained(&socket.path, error);
            let text = format!("{}: {why}", socket.path.display());
            problems.push(Problem::new(text, repair_socket(exam, &socket.path, error)));
        }
    }

    if problems.is_empty() && found.is_empty() {
        let why = "no bound directory has a socket";
        return Ok(CheckOutcome::not_needed(why));
    }
    let mut paths = vec![];
    for socket in &found {
        paths.push(socket.path.display().to_string());
    }
    let good = format!("a server listens at {}", paths.join(", "));
    Ok(CheckOutcome::judge(problems, good))
}

/// A socket with two names, in /run and in /var/run, is one.
fn remove_aliases(found: &mut Vec<Socket>) {
    let mut known = BTreeSet::new();
    for socket in found.iter() {
        known.insert(socket.path.clone());
    }
    found.retain(|socket| {
        let other_name = on_run(&socket.path);
        other_name == socket.path || !known.contains(&other_name)
    });
}

/// The name in `/run` of what is in `/var/run`; any other path as it is.
fn on_run(path: &Path) -> PathBuf {
    match path.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => path.to_owned(),
    }
}

/// Sockets are in directories of data, or mounted by themselves; systemd's are left out.
fn may_have_sockets(mount: &Mount) -> bool {
    let is_data = matches!(mount.kind, FileKind::Directory | FileKind::Socket);
    is_data && mount.attributes.noexec && !mount.source.as_path().starts_with(SYSTEMD)
}

/// The sockets that the pools' PHP connects to: those that settings name, and PHP's own defaults
/// where a server of this host listens there.
fn named_by_php(exam: &Exam<'_>) -> BTreeMap<PathBuf, String> {
    let mut named = BTreeMap::new();
    for php in pools::of(exam) {
        let settings = &php.pool_user.settings;
        for (extension, key) in DATABASES {
            let socket = match (settings.get(key), php.get(key)) {
                (Some(set), _) => Some(PathBuf::from(set)),
                (None, Some(default)) if php.loads(extension) => listening(exam, default),
                _ => None,
            };
            if let Some(path) = socket
                && path.is_absolute()
            {
                let why = if settings.get(key).is_some() {
                    "which PHP's settings name".to_owned()
                } else {
                    format!("which {extension} connects to")
                };
                named.entry(path).or_insert(why);
            }
        }
        if (php.loads("pgsql") || php.loads("pdo_pgsql"))
            && let Some(path) = listening(exam, POSTGRESQL)
        {
            named.insert(path, "which PHP's pgsql connects to".to_owned());
        }
        if let Some(path) = session_socket(php) {
            named.insert(path, "which session.save_path names".to_owned());
        }
    }
    named
}

/// The path, if it is a socket of the host.
fn listening(exam: &Exam<'_>, path: &str) -> Option<PathBuf> {
    let walk = exam.host.walk(&HostPath::new(path).ok()?).ok()?;
    if walk.stat.kind != FileKind::Socket {
        return None;
    }
    Some(PathBuf::from(path))
}

/// The socket of the server that keeps sessions: `unix:///run/redis/redis.sock?…` for Redis,
/// `/run/memcached/memcached.sock` for memcached.
fn session_socket(php: &PoolPhp<'_>) -> Option<PathBuf> {
    let handler = php.get("session.save_handler")?;
    // Without the extension no server is asked; the check of PHP has that.
    if !["redis", "memcached", "memcache"].contains(&handler) || !php.loads(handler) {
        return None;
    }
    let path = php.get("session.save_path")?;
    let path = path.strip_prefix("unix://").unwrap_or(path);
    let path = path.split(['?', ':', ',']).next()?;
    if !path.starts_with('/') {
        return None;
    }
    Some(PathBuf::from(path))
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
    for mount in &exam.site.desired.mounts {
        let target = mount.target.as_path();
        if is_of_preset(mount, preset) && found.iter().any(|socket| socket.path.starts_with(target))
        {
            return true;
        }
    }
    false
}

fn is_of_preset(mount: &Mount, preset: &str) -> bool {
    for reason in &mount.reasons {
        if reason.origin.presets.iter().any(|name| name == preset) {
            return true;
        }
    }
    false
}

/// The remedy for a socket that cannot be connected to.
fn repair_socket(exam: &Exam<'_>, path: &Path, error: &InsideError) -> Remedy {
    let shown = path.display();
    if matches!(error.errno, Some(libc::EACCES | libc::EPERM)) {
        return Remedy::act(format!(
            "give {} the right to it, most often by its group: `ls -l {}`",
            exam.site.user.name,
            shell_path(path)
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
    let shown = path.display();
    if exam.on_host(path) && listening(exam, &shown.to_string()).is_none() {
        return Remedy::act(format!(
            "correct the setting: {shown} is not a socket on the host either"
        ));
    }
    let directory = path.parent().unwrap_or(path);
    let on_run = on_run(directory);
    let preset = OF_PRESETS
        .iter()
        .find(|(below, _)| on_run.starts_with(below));
    let line = match preset {
        Some((_, preset)) if !exam.presets.contains(preset) => Remedy::preset(preset),
        _ => Remedy::line("mounts", directory.display().to_string()),
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
    let why = exam.explained(Path::new(LOG), &error);
    Ok(CheckOutcome::failed(Problem::new(
        format!("{LOG}: {why}"),
        remedy,
    )))
}

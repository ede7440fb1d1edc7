//! The prefix of a master that runs, where its unit does not tell: PHP-FPM writes its title over
//! its arguments, but its workers are in the roots of their pools.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::master::Master;
use super::pool::{FpmConfiguration, Pool};
use super::reader;
use crate::Result;
use crate::observe::root_of;
use crate::sys::{self, FileId, proc};

/// The beginning of a worker's title.
const WORKER: &str = "php-fpm: pool ";

/// A worker of a pool.
struct Worker {
    pool: String,
    root: FileId,
    /// The path of its root.
    path: PathBuf,
}

/// The pools of `files`, with the prefix with which they have the roots that the workers of the
/// master have. If there is none, or one cannot know which of several it is, what depends on the
/// prefix is an error.
///
/// Errors: one of the files cannot be read.
pub(super) fn files(files: &[PathBuf], master: &Master, pid: u32) -> Result<FpmConfiguration> {
    let without = reader::files(files, None, master)?;
    if !without.needs_prefix {
        return Ok(without);
    }
    let workers = workers(pid);
    let mut found: Vec<(usize, FpmConfiguration)> = vec![];
    for prefix in candidates(files, master, pid, &workers) {
        let read = reader::files(files, Some(&prefix), master)?;
        if let Some(agreeing) = agreeing(&read.pools, &workers) {
            found.push((agreeing, read));
        }
    }
    let most = found.iter().map(|(agreeing, _)| *agreeing).max();
    found.retain(|(agreeing, _)| Some(*agreeing) == most);
    let Some((_, first)) = found.pop() else {
        return Ok(without);
    };
    let is_only = found.iter().all(|(_, other)| other.pools == first.pools);
    Ok(if is_only { first } else { without })
}

/// The workers of the master `pid`.
fn workers(pid: u32) -> Vec<Worker> {
    let mut workers = vec![];
    for (worker, proc) in proc::processes() {
        if parent(&proc) == Some(pid) {
            workers.extend(worker_of(worker, &proc));
        }
    }
    workers
}

fn worker_of(pid: u32, proc: &Path) -> Option<Worker> {
    let title = fs::read(proc.join("cmdline")).ok()?;
    let title = String::from_utf8_lossy(&title);
    let pool = title.strip_prefix(WORKER)?.trim_end_matches(['\0', ' ']);
    Some(Worker {
        pool: pool.to_owned(),
        root: root_of(pid)?,
        path: fs::read_link(proc.join("root")).ok()?,
    })
}

fn parent(proc: &Path) -> Option<u32> {
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// The directories that may be the prefix: that of the build, and those above the configuration,
/// the workers' roots, and the files that the master has open.
fn candidates(
    files: &[PathBuf],
    master: &Master,
    pid: u32,
    workers: &[Worker],
) -> BTreeSet<PathBuf> {
    let proc = proc::of(pid);
    let mut below = files.to_vec();
    below.extend(workers.iter().map(|worker| worker.path.join("x")));
    below.extend(fs::read_link(proc.join("cwd")).map(|directory| directory.join("x")));
    for descriptor in fs::read_dir(proc.join("fd"))
        .into_iter()
        .flatten()
        .flatten()
    {
        below.extend(fs::read_link(descriptor.path()));
    }
    let mut candidates = BTreeSet::from([master.prefix.clone()]);
    for path in below.iter().filter(|path| path.is_absolute()) {
        candidates.extend(path.ancestors().skip(1).map(Path::to_owned));
    }
    candidates
}

/// How many workers are in the roots that the pools name; `None`: there is none, or one is
/// elsewhere.
fn agreeing(pools: &[Pool], workers: &[Worker]) -> Option<usize> {
    let mut count = 0;
    for worker in workers {
        let Some(pool) = pools.iter().find(|pool| pool.name == worker.pool) else {
            continue;
        };
        let root = Path::new(pool.chroot().unwrap_or("/"));
        if sys::file_known_at(root).ok() != Some(worker.root) {
            return None;
        }
        count += 1;
    }
    (count > 0).then_some(count)
}

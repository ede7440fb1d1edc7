//! Links to directories by which every program on the host knows other paths: `/lib`, `/var/run`.

use std::fs;
use std::path::{Path, PathBuf};

use super::dependencies::Aspect;
use super::host::{Host, unreadable};
use super::lookup_error::{LookupError, found};
use crate::base::{HostPath, lexical};
use crate::patience;
use crate::sys::FileKind;

/// A link straight to a directory: `/lib -> usr/lib`.
#[derive(Clone, Debug)]
pub(super) struct TopLink {
    pub path: HostPath,
    pub destination: PathBuf,
    /// The directory on the host, all links followed.
    pub real: HostPath,
}

/// The links in `/` to directories.
pub(super) fn in_slash(host: &Host) -> Result<Vec<TopLink>, LookupError> {
    let slash = HostPath::slash();
    host.note(slash.as_path(), Aspect::NAMES);
    let unreadable = |error| unreadable(&slash, &error);
    let mut paths = vec![];
    for entry in fs::read_dir(host.on_disk(slash.as_path())).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // Known from the directory alone: another entry may be a mount whose server is gone.
        if entry.file_type().map_err(unreadable)?.is_symlink() {
            paths.extend(slash.join(entry.file_name()));
        }
    }
    paths.sort();
    directory_links_that_answer(host, paths)
}

/// `/var/run` and `/var/lock`, where they are links, as in the Filesystem Hierarchy Standard 3.0.
/// Programs know sockets below `/run` by these names.
pub(super) fn to_run(host: &Host) -> Result<Vec<TopLink>, LookupError> {
    let paths = ["/var/run", "/var/lock"]
        .into_iter()
        .filter_map(|path| HostPath::new(path).ok());
    directory_links(host, paths.collect())
}

/// As [`directory_links`], but without waiting for file systems that do not answer soon.
fn directory_links_that_answer(
    host: &Host,
    paths: Vec<HostPath>,
) -> Result<Vec<TopLink>, LookupError> {
    let scope = host.scope();
    let look = move |path: &HostPath| {
        let scope = scope.scope();
        let links = directory_links(&scope, vec![path.clone()]);
        (links, scope.into_dependencies())
    };
    let answers = patience::each_within(paths.clone(), Some(patience::SHORT), look);

    let mut links = vec![];
    for (path, answer) in paths.into_iter().zip(answers) {
        if let Some((found, dependencies)) = answer {
            host.note_all(&dependencies);
            links.extend(found?);
        } else if let Ok(node) = host.node(path.as_path())
            && let Some(destination) = node.link
        {
            links.extend(by_destination(path, destination));
        }
    }
    Ok(links)
}

/// Those of `paths` that are links straight to a directory.
fn directory_links(host: &Host, paths: Vec<HostPath>) -> Result<Vec<TopLink>, LookupError> {
    let mut links = vec![];
    for path in paths {
        let entry = found(host.entry(&path))?;
        let Some(destination) = entry.and_then(|entry| entry.link) else {
            continue;
        };
        match host.walk(&path) {
            Ok(walk) => {
                if walk.links.len() == 1 && walk.stat.kind == FileKind::Directory {
                    links.push(TopLink {
                        path,
                        destination,
                        real: walk.real,
                    });
                }
            }
            // It cannot be looked at: a request for something there will report that.
            Err(error) if error.is_unknown() => links.extend(by_destination(path, destination)),
            Err(_) => {}
        }
    }
    Ok(links)
}

/// The link at `path`, as its destination alone tells.
fn by_destination(path: HostPath, destination: PathBuf) -> Option<TopLink> {
    let directory = path.as_path().parent().unwrap_or(Path::new("/"));
    let real = HostPath::new(lexical(directory, &destination)).ok()?;
    Some(TopLink {
        path,
        destination,
        real,
    })
}

//! Links inside a bound directory that would dangle in the jail bring their targets along.
//!
//! Only links that root made count: they must be root's, in directories that only root can write, or a
//! site's owner could ask for any file of the host by a link.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::host::{Entry, Host};
use super::part::{Item, lexical};
use super::types::{Cause, FileKind};
use crate::manifest::{HostPath, JailPath};

/// From this many links into one directory on, the directory itself is brought.
const MANY: usize = 4;

/// The most entries that are looked at below one mount.
const MAX_ENTRIES: usize = 200_000;

/// Never brought by a link, as a whole.
const NEVER: [&str; 20] = [
    "/",
    "/usr",
    "/etc",
    "/var",
    "/home",
    "/root",
    "/run",
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/srv",
    "/opt",
    "/tmp",
    "/usr/lib",
    "/usr/bin",
    "/usr/sbin",
    "/usr/share",
    "/var/lib",
    "/var/log",
];

/// Nothing in them is ever brought by a link.
const NEVER_BELOW: [&str; 6] = ["/proc", "/sys", "/dev", "/home", "/root", "/tmp"];

/// What the links below one directory need.
#[derive(Default)]
pub(super) struct Brought {
    pub items: Vec<Item>,
    pub notes: Vec<String>,
}

/// A link that leads out of the mount it is in.
struct Outward {
    /// Where it is on the host.
    link: PathBuf,
    /// What a process in the jail then looks up.
    looked_up: HostPath,
    /// Where that is on the host: the same, but for a directory that is mounted elsewhere.
    real: HostPath,
}

/// Everything that links inside `top` lead to, and what links inside that lead to.
pub(super) fn bring(host: &Host, top: &Item) -> Brought {
    let mut brought = Brought::default();
    let mut known = HashSet::from([top.path.clone()]);
    let mut queue = vec![top.clone()];
    while let Some(directory) = queue.pop() {
        for item in directory_needs(host, &directory, &mut brought.notes) {
            if !known.insert(item.path.clone()) {
                continue;
            }
            if item.kind == FileKind::Directory {
                queue.push(item.clone());
            }
            brought.items.push(item);
        }
    }
    brought
}

fn directory_needs(host: &Host, directory: &Item, notes: &mut Vec<String>) -> Vec<Item> {
    let mut by_parent: BTreeMap<PathBuf, Vec<Outward>> = BTreeMap::new();
    let mut refused = 0;
    for (link, text) in links_below(host, directory, notes) {
        let Some(outward) = outward(host, directory, link, &text) else { continue };
        if !may_be_brought(host, &outward.real) {
            refused += 1;
            continue;
        }
        let parent = outward.looked_up.as_path().parent().unwrap_or(Path::new("/")).to_owned();
        by_parent.entry(parent).or_default().push(outward);
    }
    if refused > 0 {
        let (s, verb) = if refused == 1 { ("", "leads") } else { ("s", "lead") };
        notes.push(format!(
            "{refused} link{s} in {} {verb} to files that are not brought along by a link alone: private ones, \
             or below {}",
            directory.source,
            NEVER_BELOW.join(", ")
        ));
    }
    by_parent.into_iter().flat_map(|(parent, links)| one_parent(host, directory, &parent, links)).collect()
}

/// The items for the links that lead into `parent`: one each, or the directory.
fn one_parent(host: &Host, directory: &Item, parent: &Path, links: Vec<Outward>) -> Vec<Item> {
    let chain = |cause| directory.chain.iter().cloned().chain([cause]).collect::<Vec<_>>();
    if links.len() >= MANY {
        let cause =
            Cause::ManyLinkedFrom { directory: directory.source.as_path().to_owned(), links: links.len() };
        let path = HostPath::new(parent).ok().filter(|path| may_be_brought(host, path));
        let item = path.and_then(|path| Item::at(host, &path, directory.options, chain(cause)).ok());
        if let Some(item) = item {
            return vec![item];
        }
    }
    let single = |outward: Outward| {
        let name = JailPath::new(outward.looked_up.as_path()).ok()?;
        Item::named(host, &outward.real, name, directory.options, chain(Cause::LinkedFrom(outward.link))).ok()
    };
    links.into_iter().filter_map(single).collect()
}

/// Where a link leads, if that is out of the mount and exists.
fn outward(host: &Host, directory: &Item, link: PathBuf, text: &Path) -> Option<Outward> {
    let below = link.strip_prefix(directory.source.as_path()).ok()?;
    let holder = directory.path.as_path().join(below);
    let looked_up = lexical(holder.parent()?, text);
    let real = HostPath::new(lexical(link.parent()?, text)).ok()?;
    if looked_up.starts_with(directory.path.as_path()) && real.starts_with(&directory.source) {
        return None;
    }
    host.walk(&real).ok()?; // it dangles on the host as well
    let looked_up = HostPath::new(looked_up).ok()?;
    Some(Outward { link, looked_up, real })
}

/// Whether something may come along though no line names it, because a link leads to it or a program looked for it:
/// everybody on the host may read it, and it is not more than a site should get.
pub fn may_be_brought(host: &Host, path: &HostPath) -> bool {
    let Ok(walk) = host.walk(path) else { return false };
    let real = walk.real.as_path();
    let open = |above: HostPath| host.stat(&above).is_ok_and(|stat| stat.mode & 0o001 != 0);
    let above = real.ancestors().skip(1).filter_map(|above| HostPath::new(above).ok());
    let readable = walk.stat.mode & 0o004 != 0 && above.into_iter().all(open);
    let ordinary = matches!(walk.stat.kind, FileKind::File | FileKind::Directory);
    let whole = |never: &&str| real == Path::new(never) || path.as_path() == Path::new(never);
    let below = |never: &&str| real.starts_with(never) || path.as_path().starts_with(never);
    readable && ordinary && !NEVER.iter().any(whole) && !NEVER_BELOW.iter().any(below)
}

/// All trustworthy links below the directory, each with its text, sorted.
fn links_below(host: &Host, directory: &Item, notes: &mut Vec<String>) -> Vec<(PathBuf, PathBuf)> {
    let mut links = vec![];
    let mut seen = 0;
    let mut queue = vec![directory.source.clone()];
    while let Some(path) = queue.pop() {
        let Some(entries) = host.roots_entries(&path) else { continue };
        seen += entries.len();
        if seen > MAX_ENTRIES {
            notes.push(format!("{} has too many files to look at each for links", directory.source));
            break;
        }
        for entry in entries {
            match entry {
                Entry::Directory(path) => queue.push(path),
                Entry::Link(path, text) => links.push((path, text)),
            }
        }
    }
    links.sort();
    links
}

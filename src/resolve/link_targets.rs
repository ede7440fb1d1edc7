//! Links inside a bound directory that would dangle in the jail bring their targets along.
//!
//! Only links that root made count: they must be root's, in directories that only root can write,
//! or a site's owner could ask for any file of the host by a link.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::desired::{Cause, FileKind};
use super::expand::{Item, lexical};
use super::host::{Entry, Host};
use super::walk::{LookupError, Walk, found};
use crate::base::{HostPath, JailPath};

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

/// A link, and what it says.
type LinkText = (PathBuf, PathBuf);

/// A directory that the jail has, and through which links may lead.
struct Directory {
    item: Item,
    /// It is here for the names alone that links lead to; what else is in it need not lead
    /// anywhere.
    for_names: bool,
}

/// What a link that leads out of the directory it is in leads to.
struct Outward {
    /// Where the link is on the host.
    link: PathBuf,
    /// What a process in the jail then looks up.
    looked_up: HostPath,
    /// Where that is on the host: the same, but for a directory that is mounted elsewhere.
    real: HostPath,
}

/// The links below one directory, and below what they lead to, on their way.
struct Search<'h> {
    host: &'h Host,
    directories: Vec<Directory>,
    /// Links to follow, each batch with the directory that it is in.
    queue: Vec<(usize, Vec<LinkText>)>,
    seen: HashSet<PathBuf>,
    /// By source of the directory, how many links lead to what is not brought along.
    refused: BTreeMap<PathBuf, usize>,
    brought: Brought,
}

/// Everything that links inside `top` lead to, and what links inside that lead to.
///
/// Errors: where a link leads cannot be told.
pub(super) fn bring(host: &Host, top: &Item) -> Result<Brought, LookupError> {
    let mut search = Search {
        host,
        directories: vec![],
        queue: vec![],
        seen: HashSet::new(),
        refused: BTreeMap::new(),
        brought: Brought::default(),
    };
    search.add(top.clone())?;
    while let Some((directory, links)) = search.queue.pop() {
        search.follow(directory, links)?;
    }
    Ok(search.finish())
}

impl Search<'_> {
    /// All links below `directory` count.
    fn add(&mut self, directory: Item) -> Result<(), LookupError> {
        if self
            .directories
            .iter()
            .any(|known| !known.for_names && known.item.path == directory.path)
        {
            return Ok(());
        }
        let links = links_below(self.host, &directory.source, &mut self.brought.notes)?;
        self.queue.push((self.directories.len(), links));
        self.directories.push(Directory {
            item: directory,
            for_names: false,
        });
        Ok(())
    }

    fn follow(&mut self, directory: usize, links: Vec<LinkText>) -> Result<(), LookupError> {
        let mut by_parent: BTreeMap<(PathBuf, PathBuf), Vec<Outward>> = BTreeMap::new();
        let mut through: BTreeMap<usize, Vec<HostPath>> = BTreeMap::new();
        for (link, text) in links {
            if !self.seen.insert(link.clone()) {
                continue;
            }
            let Some(outward) = outward(&self.directories[directory].item, link, &text) else {
                continue;
            };
            if let Some(there) = self
                .directories
                .iter()
                .position(|there| shows(&there.item, &outward))
            {
                through.entry(there).or_default().push(outward.real);
                continue;
            }
            if !self.host.is_there(&outward.real)? {
                continue; // it dangles on the host as well
            }
            if may_be_brought(self.host, &outward.real)? {
                let parent =
                    |path: &HostPath| path.as_path().parent().unwrap_or(Path::new("/")).to_owned();
                let key = (parent(&outward.looked_up), parent(&outward.real));
                by_parent.entry(key).or_default().push(outward);
            } else {
                let source = self.directories[directory].item.source.as_path().to_owned();
                *self.refused.entry(source).or_default() += 1;
            }
        }
        for (there, paths) in through {
            self.through(there, &paths)?;
        }
        for ((looked_up, real), links) in by_parent {
            self.bring(directory, &looked_up, &real, links)?;
        }
        Ok(())
    }

    /// What `links` lead to in one directory, which is `parent` on the host: the files, or, if it
    /// is many, the directory.
    fn bring(
        &mut self,
        from: usize,
        looked_up: &Path,
        parent: &Path,
        links: Vec<Outward>,
    ) -> Result<(), LookupError> {
        let Item {
            source,
            options,
            chain,
            ..
        } = self.directories[from].item.clone();
        let chain = |cause| chain.iter().cloned().chain([cause]).collect::<Vec<_>>();
        let host = self.host;
        let item = |real: &HostPath, looked_up: &Path, cause| {
            let Ok(name) = JailPath::new(looked_up) else {
                return Ok(None);
            };
            found(Item::named(host, real, name, options, chain(cause)))
        };
        if links.len() >= MANY
            && let Ok(parent) = HostPath::new(parent)
            && may_be_brought(host, &parent)?
        {
            let cause = Cause::ManyLinkedFrom {
                directory: source.as_path().to_owned(),
                links: links.len(),
            };
            if let Some(item) = item(&parent, looked_up, cause)? {
                self.brought.items.push(item.clone());
                self.directories.push(Directory {
                    item,
                    for_names: true,
                });
                let paths: Vec<_> = links.into_iter().map(|link| link.real).collect();
                return self.through(self.directories.len() - 1, &paths);
            }
        }
        for link in links {
            let cause = Cause::LinkedFrom(link.link);
            let Some(item) = item(&link.real, link.looked_up.as_path(), cause)? else {
                continue;
            };
            self.brought.items.push(item.clone());
            if item.kind == FileKind::Directory {
                self.add(item)?;
            }
        }
        Ok(())
    }

    /// Links lead to `paths`, in a directory that the jail has: the links on the way there count,
    /// and, of a directory, all below it.
    fn through(&mut self, there: usize, paths: &[HostPath]) -> Result<(), LookupError> {
        let Directory {
            item,
            for_names: true,
        } = &self.directories[there]
        else {
            return Ok(());
        };
        let inside = |path: &HostPath| path.starts_with(&item.source);
        let mut links = vec![];
        for path in paths {
            let Some(walk) = found(self.host.walk(path))? else {
                continue;
            };
            for link in walk.links.into_iter().filter(|link| inside(&link.path)) {
                if self.host.others_on_name(&link.path)?.is_none() {
                    links.push((link.path.as_path().to_owned(), link.text));
                }
            }
            if walk.stat.kind == FileKind::Directory && inside(&walk.real) {
                links.extend(links_below(self.host, &walk.real, &mut self.brought.notes)?);
            }
        }
        self.queue.push((there, links));
        Ok(())
    }

    fn finish(mut self) -> Brought {
        for (directory, refused) in self.refused {
            let (s, verb) = if refused == 1 {
                ("", "leads")
            } else {
                ("s", "lead")
            };
            self.brought.notes.push(format!(
                "{refused} link{s} in {} {verb} to files that are not brought along by a link alone: private ones, \
                 or below {}",
                directory.display(),
                NEVER_BELOW.join(", ")
            ));
        }
        self.brought
    }
}

/// Whether the jail has in `directory` what the link leads to.
fn shows(directory: &Item, outward: &Outward) -> bool {
    outward
        .looked_up
        .as_path()
        .starts_with(directory.path.as_path())
        && outward.real.starts_with(&directory.source)
}

/// Where a link leads.
fn outward(directory: &Item, link: PathBuf, text: &Path) -> Option<Outward> {
    let below = link.strip_prefix(directory.source.as_path()).ok()?;
    let holder = directory.path.as_path().join(below);
    let looked_up = HostPath::new(lexical(holder.parent()?, text)).ok()?;
    let real = HostPath::new(lexical(link.parent()?, text)).ok()?;
    Some(Outward {
        link,
        looked_up,
        real,
    })
}

/// Whether something may come along though no line names it, because a link leads to it or a
/// program looked for it: everybody on the host may read it, and it is not more than a site should
/// get.
///
/// Errors: what is there cannot be told.
pub fn may_be_brought(host: &Host, path: &HostPath) -> Result<bool, LookupError> {
    let Some(walk) = found(host.walk(path))? else {
        return Ok(false);
    };
    let real = walk.real.as_path();
    let ordinary = matches!(walk.stat.kind, FileKind::File | FileKind::Directory);
    let whole = |never: &&str| real == Path::new(never) || path.as_path() == Path::new(never);
    let below = |never: &&str| real.starts_with(never) || path.as_path().starts_with(never);
    let little = ordinary && !NEVER.iter().any(whole) && !NEVER_BELOW.iter().any(below);
    Ok(little && everybody_may_read(host, &walk)?)
}

/// Whether everybody on the host may read what was walked to, and enter the directories on the way.
pub(super) fn everybody_may_read(host: &Host, walk: &Walk) -> Result<bool, LookupError> {
    if walk.stat.mode & 0o004 == 0 {
        return Ok(false);
    }
    let mut above = walk.real.parent();
    while let Some(directory) = above {
        if host.stat(&directory)?.mode & 0o001 == 0 {
            return Ok(false);
        }
        above = directory.parent();
    }
    Ok(true)
}

/// All trustworthy links below the directory, each with its text, sorted.
fn links_below(
    host: &Host,
    directory: &HostPath,
    notes: &mut Vec<String>,
) -> Result<Vec<LinkText>, LookupError> {
    let mut links = vec![];
    if host.others_on_name(directory)?.is_some() {
        return Ok(links); // somebody may have moved it here
    }
    let mut seen = 0;
    let mut queue = vec![directory.clone()];
    while let Some(path) = queue.pop() {
        let Some(entries) = host.roots_entries(&path)? else {
            continue;
        };
        seen += entries.len();
        if seen > MAX_ENTRIES {
            notes.push(format!(
                "{directory} has too many files to look at each for links"
            ));
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
    Ok(links)
}

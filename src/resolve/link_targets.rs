//! Links inside a bound directory that would dangle in the jail bring their targets along.
//!
//! Only links that root made count: they must belong to root, in directories that only root can
//! write to. Otherwise a site's owner could obtain any file of the host by a link.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use super::desired::{Cause, FileKind};
use super::files::{RootsEntry, RootsLink};
use super::host::Host;
use super::item::Item;
use super::ldso::is_library_name;
use super::lookup_error::{LookupError, found};
use super::too_much::{self, is_too_much};
use crate::base::text::{few, plural};
use crate::base::{HostPath, JailPath, MountAttributes, lexical};

/// With this many links into one directory or more, the directory itself is brought.
const MANY: usize = 4;

/// The most entries that are searched below one mount.
const MAX_ENTRIES: usize = 200_000;

/// The items that the links below one directory need.
#[derive(Default)]
pub(super) struct BroughtByLinks {
    pub items: Vec<Item>,
    pub notes: Vec<String>,
}

/// A directory that the jail has, and through which links may lead.
struct BoundDirectory {
    item: Item,
    links: Follow,
}

/// Which links in a directory are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    All,
    /// Only those on the way of other links: the directory is bound for their sake.
    OnTheWay,
}

/// Where a link leads that is in one directory and leads out of it.
struct Outward {
    /// Where the link is on the host.
    link: PathBuf,
    /// The path that a process in the jail then looks up.
    looked_up: HostPath,
    /// Where that is on the host: the same, unless the directory is mounted elsewhere.
    real: HostPath,
}

/// The directory in which some links lead to something.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct DirectoryOfLinked {
    /// As a process in the jail looks it up.
    looked_up: HostPath,
    /// Where that is on the host.
    real: HostPath,
}

/// How many links of a directory are named.
const NAMED: usize = 3;

/// A search through the links below one directory, and below what they lead to.
struct LinkSearch<'h> {
    host: &'h Host,
    directories: Vec<BoundDirectory>,
    /// Links to follow, each batch with the index of the directory that it is in.
    queue: Vec<(usize, Vec<RootsLink>)>,
    seen: HashSet<PathBuf>,
    /// By source of the directory, the links to files that are not brought along.
    refused: BTreeMap<HostPath, BTreeSet<String>>,
    brought: BroughtByLinks,
}

/// Everything that links inside `top` lead to, and what links inside that lead to.
///
/// Errors: it is unknown where a link leads.
pub(super) fn bring(host: &Host, top: &Item) -> Result<BroughtByLinks, LookupError> {
    let mut search = LinkSearch {
        host,
        directories: vec![],
        queue: vec![],
        seen: HashSet::new(),
        refused: BTreeMap::new(),
        brought: BroughtByLinks::default(),
    };
    search.add(top.clone())?;
    while let Some((directory, links)) = search.queue.pop() {
        search.follow(directory, links)?;
    }
    Ok(search.finish())
}

impl LinkSearch<'_> {
    /// Follows all links below `directory`.
    fn add(&mut self, directory: Item) -> Result<(), LookupError> {
        for known in &self.directories {
            if known.links == Follow::All && known.item.path == directory.path {
                return Ok(());
            }
        }
        let links = links_below(self.host, &directory.source, &mut self.brought.notes)?;
        self.queue.push((self.directories.len(), links));
        self.directories.push(BoundDirectory {
            item: directory,
            links: Follow::All,
        });
        Ok(())
    }

    fn follow(&mut self, directory: usize, links: Vec<RootsLink>) -> Result<(), LookupError> {
        let mut by_parent: BTreeMap<DirectoryOfLinked, Vec<Outward>> = BTreeMap::new();
        let mut through: BTreeMap<usize, Vec<HostPath>> = BTreeMap::new();
        for link in links {
            if !self.seen.insert(link.at.clone()) {
                continue;
            }
            let from = &self.directories[directory].item;
            let Some(outward) = outward(from, link) else {
                continue;
            };
            if let Some(there) = self.shown_by(&outward) {
                through.entry(there).or_default().push(outward.real);
                continue;
            }
            if !self.host.is_there(&outward.real)? {
                continue; // it dangles on the host, too
            }
            if may_be_brought(self.host, &outward.real)? {
                let parent = DirectoryOfLinked {
                    looked_up: parent(&outward.looked_up),
                    real: parent(&outward.real),
                };
                by_parent.entry(parent).or_default().push(outward);
            } else {
                let link = format!("{} -> {}", outward.link.display(), outward.real);
                let refused = self.refused.entry(from.source.clone());
                refused.or_default().insert(link);
            }
        }

        for (there, paths) in through {
            self.follow_on_the_way(there, &paths)?;
        }
        for (parent, links) in by_parent {
            self.bring(directory, &parent, links)?;
        }
        Ok(())
    }

    /// The directory in which the jail has what the link leads to.
    fn shown_by(&self, outward: &Outward) -> Option<usize> {
        self.directories
            .iter()
            .position(|BoundDirectory { item, .. }| {
                let target = item.path.as_path();
                outward.looked_up.as_path().starts_with(target)
                    && outward.real.starts_with(&item.source)
            })
    }

    /// Brings what `links` lead to in the directory `parent`: the files, or, if there are many, the
    /// directory.
    fn bring(
        &mut self,
        from: usize,
        parent: &DirectoryOfLinked,
        links: Vec<Outward>,
    ) -> Result<(), LookupError> {
        if links.len() >= MANY && may_be_brought(self.host, &parent.real)? {
            let cause = Cause::ManyLinkedFrom {
                directory: self.directories[from].item.source.as_path().to_owned(),
                links: links.len(),
            };
            if let Some(item) = self.item(from, &parent.real, &parent.looked_up, cause)? {
                self.brought.items.push(item.clone());
                self.directories.push(BoundDirectory {
                    item,
                    links: Follow::OnTheWay,
                });
                let paths: Vec<_> = links.into_iter().map(|link| link.real).collect();
                return self.follow_on_the_way(self.directories.len() - 1, &paths);
            }
        }

        for link in links {
            let cause = Cause::LinkedFrom(link.link);
            let Some(item) = self.item(from, &link.real, &link.looked_up, cause)? else {
                continue;
            };
            self.brought.items.push(item.clone());
            if item.kind == FileKind::Directory {
                self.add(item)?;
            }
        }
        Ok(())
    }

    /// The item at `real` on the host and `looked_up` in the jail, because of a link in the
    /// directory `from`.
    fn item(
        &self,
        from: usize,
        real: &HostPath,
        looked_up: &HostPath,
        cause: Cause,
    ) -> Result<Option<Item>, LookupError> {
        let Ok(name) = JailPath::new(looked_up) else {
            return Ok(None);
        };
        let from = &self.directories[from].item;
        let chain = from.chain_to(cause);
        let attributes = MountAttributes {
            noexec: from.attributes.noexec || self.is_data(real)?,
            ..from.attributes
        };
        found(Item::named(self.host, real, name, attributes, chain))
    }

    /// Whether a file cannot be meant to be run or loaded.
    fn is_data(&self, path: &HostPath) -> Result<bool, LookupError> {
        let stat = found(self.host.stat(path))?;
        let runs = stat.is_none_or(|stat| stat.kind != FileKind::File || stat.mode & 0o111 != 0);
        Ok(!runs && !path.file_name().is_some_and(is_library_name))
    }

    /// Follows the links on the way to `paths`, which are in a directory that the jail has, and, if
    /// one is a directory, all links below it.
    fn follow_on_the_way(&mut self, there: usize, paths: &[HostPath]) -> Result<(), LookupError> {
        let BoundDirectory { item, links } = &self.directories[there];
        if *links == Follow::All {
            return Ok(());
        }
        let mut links = vec![];
        for path in paths {
            let Some(walk) = found(self.host.walk(path))? else {
                continue;
            };
            for link in walk.links {
                let inside = link.path.starts_with(&item.source);
                if inside && self.host.others_on_name(&link.path)?.is_none() {
                    links.push(RootsLink {
                        at: link.path.as_path().to_owned(),
                        destination: link.destination,
                    });
                }
            }
            if walk.stat.kind == FileKind::Directory && walk.real.starts_with(&item.source) {
                links.extend(links_below(self.host, &walk.real, &mut self.brought.notes)?);
            }
        }
        self.queue.push((there, links));
        Ok(())
    }

    fn finish(mut self) -> BroughtByLinks {
        for (directory, refused) in self.refused {
            let links = plural(refused.len(), "link");
            let lead = if refused.len() == 1 { "leads" } else { "lead" };
            self.brought.notes.push(format!(
                "{links} in {directory} {lead} to files that are not brought along by a link \
                 alone, because they are private or below {}: {}",
                too_much::contents_too().join(", "),
                few(&refused, NAMED)
            ));
        }
        self.brought
    }
}

/// Where a link in `directory` leads.
fn outward(directory: &Item, link: RootsLink) -> Option<Outward> {
    let RootsLink { at, destination } = link;
    let below = at.strip_prefix(directory.source.as_path()).ok()?;
    let in_jail = directory.path.as_path().join(below);
    let looked_up = HostPath::new(lexical(in_jail.parent()?, &destination)).ok()?;
    let real = HostPath::new(lexical(at.parent()?, &destination)).ok()?;
    Some(Outward {
        link: at,
        looked_up,
        real,
    })
}

fn parent(path: &HostPath) -> HostPath {
    path.parent().unwrap_or_else(HostPath::slash)
}

/// Whether something may come along although no line names it, because a link leads to it or a
/// program looked for it: everybody on the host may read it, and it is not more than a site should
/// get.
///
/// Errors: it is unknown what is there.
pub(crate) fn may_be_brought(host: &Host, path: &HostPath) -> Result<bool, LookupError> {
    let Some(walk) = found(host.walk(path))? else {
        return Ok(false);
    };
    if !matches!(walk.stat.kind, FileKind::File | FileKind::Directory) {
        return Ok(false);
    }
    let names = [walk.real.as_path(), path.as_path()];
    if names.into_iter().any(is_too_much) {
        return Ok(false);
    }
    host.everybody_may_read(&walk)
}

/// All trustworthy links below the directory, sorted.
fn links_below(
    host: &Host,
    directory: &HostPath,
    notes: &mut Vec<String>,
) -> Result<Vec<RootsLink>, LookupError> {
    let mut links = vec![];
    if host.others_on_name(directory)?.is_some() {
        return Ok(links); // others may have moved it here
    }

    let mut seen = 0;
    let mut queue = vec![directory.clone()];
    while let Some(path) = queue.pop() {
        let Some(entries) = host.roots_entries(&path)? else {
            continue;
        };
        let is_looked_into = |entry: &&RootsEntry| !matches!(entry, RootsEntry::File(_));
        seen += entries.iter().filter(is_looked_into).count();
        if seen > MAX_ENTRIES {
            notes.push(format!(
                "{directory} has too many files to search each for links"
            ));
            break;
        }
        for entry in entries {
            match entry {
                RootsEntry::Directory(path) => queue.push(path),
                RootsEntry::Link(link) => links.push(link),
                RootsEntry::File(_) => {}
            }
        }
    }
    links.sort();
    Ok(links)
}

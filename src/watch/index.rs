//! The index of dependencies: by directory and name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{MountAttributes, SiteName};
use crate::resolve::{Aspect, Dependencies};

/// The dependents of files of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Dependent {
    /// The presets and the defaults, and with them all sites.
    Presets,
    /// The list of sites.
    Sites,
    Site(SiteName),
}

impl Dependent {
    pub(super) fn of(site: &SiteName) -> Self {
        Self::Site(site.clone())
    }
}

/// A change to a name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameEvent {
    /// It appeared, disappeared, or its attributes changed: another file may have the name now.
    Name,
    /// The file was written to.
    Contents,
}

/// Dependencies by directory. A set of them that several users have is kept once.
///
/// Each user has a number (`names`, `numbers`), and so has each set. `sets_of` (user to sets) and
/// `DependencySet::users` (set to users) always agree, and `directories` and `mounts` name only
/// sets that have users.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The users by number; a number is never used again.
    names: Vec<Dependent>,
    numbers: HashMap<Dependent, u32>,
    /// The sets of each user.
    sets_of: HashMap<u32, Vec<u32>>,
    sets: HashMap<u32, DependencySet>,
    by_contents: HashMap<Arc<Dependencies>, u32>,
    next: u32,
    directories: BTreeMap<PathBuf, DirectoryIndex>,
    /// By unique mount ID, the attributes that each set depends on.
    mounts: BTreeMap<u64, Vec<(u32, MountAttributes)>>,
}

#[derive(Debug)]
struct DependencySet {
    lookups: Arc<Dependencies>,
    /// Sorted.
    users: Vec<u32>,
}

/// The dependencies in one directory, each with its set.
#[derive(Debug, Default)]
struct DirectoryIndex {
    names: HashMap<OsString, Vec<(u32, Aspect)>>,
    listed: Vec<u32>,
}

impl Index {
    /// Replaces the dependencies of these users.
    pub(super) fn set_all(&mut self, all: &[(Dependent, Vec<Arc<Dependencies>>)]) {
        // Within one pass, equal sets have the same pointer: their contents are hashed once.
        let mut known: HashMap<*const Dependencies, u32> = HashMap::new();
        for (user, lookups) in all {
            let mut sets = vec![];
            for set in lookups {
                let number = known.entry(Arc::as_ptr(set));
                sets.push(*number.or_insert_with(|| self.intern(set)));
            }
            sets.sort_unstable();
            sets.dedup();
            self.set(user, sets);
        }
    }

    /// The users that depend on this name in this directory.
    pub(super) fn at(
        &self,
        directory: &Path,
        name: &OsStr,
        event: NameEvent,
    ) -> BTreeSet<Dependent> {
        let Some(directory) = self.directories.get(directory) else {
            return BTreeSet::new();
        };
        let mut sets = BTreeSet::new();
        for (set, interest) in directory.names.get(name).into_iter().flatten() {
            if event == NameEvent::Name || interest.contents {
                sets.insert(*set);
            }
        }
        if event == NameEvent::Name {
            sets.extend(&directory.listed);
        }
        self.users_of(&sets)
    }

    /// The users that depend on anything in this directory.
    pub(super) fn inside(&self, directory: &Path) -> BTreeSet<Dependent> {
        let mut sets = BTreeSet::new();
        if let Some(directory) = self.directories.get(directory) {
            directory.add_sets(&mut sets);
        }
        self.users_of(&sets)
    }

    /// The users that depend on the path or on anything below it.
    pub(super) fn below(&self, path: &Path) -> BTreeSet<Dependent> {
        let mut users = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.at(parent, name, NameEvent::Name),
            _ => BTreeSet::new(),
        };
        let mut sets = BTreeSet::new();
        for (at, directory) in self.directories.range(path.to_owned()..) {
            if !at.starts_with(path) {
                break;
            }
            directory.add_sets(&mut sets);
        }
        users.extend(self.users_of(&sets));
        users
    }

    /// The users that depend on a mount whose attributes have changed. `now` returns what a mount
    /// forbids, if it exists.
    pub(super) fn remounted(
        &self,
        now: impl Fn(u64) -> Option<MountAttributes>,
    ) -> BTreeSet<Dependent> {
        let mut changed = BTreeSet::new();
        for (id, sets) in &self.mounts {
            let Some(now) = now(*id) else {
                continue;
            };
            for (set, then) in sets {
                if *then != now {
                    changed.insert(*set);
                }
            }
        }
        self.users_of(&changed)
    }

    /// All directories that something depends on, and whether on contents of files in it.
    pub(super) fn directories(&self) -> impl Iterator<Item = (&Path, bool)> {
        self.directories
            .iter()
            .map(|(path, directory)| (path.as_path(), directory.has_contents()))
    }

    /// The directories that one of `users` depends on, and whether any user depends on contents of
    /// files in it.
    pub(super) fn directories_of<'u>(
        &self,
        users: impl IntoIterator<Item = &'u Dependent>,
    ) -> BTreeMap<&Path, bool> {
        let mut sets: BTreeSet<u32> = BTreeSet::new();
        for user in users {
            if let Some(number) = self.numbers.get(user)
                && let Some(of_user) = self.sets_of.get(number)
            {
                sets.extend(of_user);
            }
        }
        let mut found = BTreeMap::new();
        for set in &sets {
            let Some(set) = self.sets.get(set) else {
                continue;
            };
            for (path, interest) in set.lookups.iter() {
                let listed = interest.names.then_some(path);
                for place in path.parent().into_iter().chain(listed) {
                    if let Some((path, directory)) = self.directories.get_key_value(place) {
                        found.insert(path.as_path(), directory.has_contents());
                    }
                }
            }
        }
        found
    }

    /// Whether anything depends on this directory.
    pub(super) fn has(&self, directory: &Path) -> bool {
        self.directories.contains_key(directory)
    }

    /// The users of these sets.
    fn users_of(&self, sets: &BTreeSet<u32>) -> BTreeSet<Dependent> {
        let mut users = BTreeSet::new();
        for set in sets {
            let Some(set) = self.sets.get(set) else {
                continue;
            };
            for user in &set.users {
                users.insert(self.names[*user as usize].clone());
            }
        }
        users
    }

    fn set(&mut self, user: &Dependent, sets: Vec<u32>) {
        let number = self.number(user);
        let old = self.sets_of.remove(&number).unwrap_or_default();
        for set in &sets {
            if !old.contains(set)
                && let Some(set) = self.sets.get_mut(set)
                && let Err(at) = set.users.binary_search(&number)
            {
                set.users.insert(at, number);
            }
        }
        for set in old {
            if !sets.contains(&set) {
                self.release(set, number);
            }
        }
        if !sets.is_empty() {
            self.sets_of.insert(number, sets);
        }
    }

    fn number(&mut self, user: &Dependent) -> u32 {
        if let Some(number) = self.numbers.get(user) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(user.clone());
        self.numbers.insert(user.clone(), number);
        number
    }

    fn intern(&mut self, lookups: &Arc<Dependencies>) -> u32 {
        if let Some(known) = self.by_contents.get(lookups) {
            return *known;
        }
        let number = self.next;
        self.next += 1;
        self.by_contents.insert(lookups.clone(), number);
        self.sets.insert(
            number,
            DependencySet {
                lookups: lookups.clone(),
                users: vec![],
            },
        );
        for (path, interest) in lookups.iter() {
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                let directory = self.directories.entry(parent.to_owned()).or_default();
                directory
                    .names
                    .entry(name.to_owned())
                    .or_default()
                    .push((number, interest));
            }
            if interest.names {
                self.directories
                    .entry(path.to_owned())
                    .or_default()
                    .listed
                    .push(number);
            }
        }
        for (id, options) in lookups.mounts() {
            self.mounts.entry(id).or_default().push((number, options));
        }
        number
    }

    /// Takes a user from a set; a set without users is removed.
    fn release(&mut self, number: u32, user: u32) {
        let Some(set) = self.sets.get_mut(&number) else {
            return;
        };
        set.users.retain(|other| *other != user);
        if !set.users.is_empty() {
            return;
        }
        let Some(set) = self.sets.remove(&number) else {
            return;
        };
        self.by_contents.remove(&set.lookups);
        for (path, interest) in set.lookups.iter() {
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                self.forget(parent, |directory| directory.forget_name(name, number));
            }
            if interest.names {
                self.forget(path, |directory| {
                    directory.listed.retain(|set| *set != number);
                });
            }
        }
        self.mounts.retain(|_, sets| {
            sets.retain(|(set, _)| *set != number);
            !sets.is_empty()
        });
    }

    fn forget(&mut self, at: &Path, change: impl FnOnce(&mut DirectoryIndex)) {
        let Some(directory) = self.directories.get_mut(at) else {
            return;
        };
        change(directory);
        if directory.names.is_empty() && directory.listed.is_empty() {
            self.directories.remove(at);
        }
    }
}

impl DirectoryIndex {
    fn has_contents(&self) -> bool {
        self.names
            .values()
            .flatten()
            .any(|(_, interest)| interest.contents)
    }

    fn add_sets(&self, sets: &mut BTreeSet<u32>) {
        for (set, _) in self.names.values().flatten() {
            sets.insert(*set);
        }
        sets.extend(&self.listed);
    }

    fn forget_name(&mut self, name: &OsStr, number: u32) {
        if let Some(sets) = self.names.get_mut(name) {
            sets.retain(|(set, _)| *set != number);
            if sets.is_empty() {
                self.names.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests;

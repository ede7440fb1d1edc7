//! What was looked up and not found.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::JailPath;

/// How many paths are kept: a program inside could make up names without end.
const MOST: usize = 20_000;

/// A path that was looked up inside and was not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// As a process inside sees it.
    pub path: JailPath,
    /// What was to be done with it first: `open`, `exec`, `connect`.
    pub call: &'static str,
    /// Whether all that looked it up wanted to write.
    pub writes: bool,
    /// How often.
    pub lookups: u64,
    /// The names of the programs, as `ps` shows them.
    pub programs: BTreeSet<String>,
    /// The ids of the users that these ran as.
    pub users: BTreeSet<u32>,
    /// Their threads.
    pub(super) threads: BTreeSet<i32>,
}

impl Miss {
    /// That `path` is not there, whoever may look for it.
    pub fn of(path: JailPath) -> Self {
        Self {
            path,
            call: "open",
            writes: false,
            lookups: 0,
            programs: BTreeSet::new(),
            users: BTreeSet::new(),
            threads: BTreeSet::new(),
        }
    }
}

/// One failed look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FailedLookup {
    pub path: JailPath,
    pub call: &'static str,
    pub writes: bool,
}

/// All of a trace, each path once.
#[derive(Debug, Default)]
pub struct Misses {
    by_path: BTreeMap<JailPath, Miss>,
    dropped: u64,
}

impl Misses {
    /// Takes in one more of a thread; `who`, asked once for each path, gives its name and its user.
    pub(super) fn add(
        &mut self,
        lookup: FailedLookup,
        thread: i32,
        who: impl Fn() -> (String, Option<u32>),
    ) {
        let FailedLookup { path, call, writes } = lookup;
        if !self.by_path.contains_key(&path) && self.by_path.len() >= MOST {
            self.dropped += 1;
            return;
        }
        let new = || Miss {
            call,
            writes,
            ..Miss::of(path.clone())
        };
        let miss = self.by_path.entry(path.clone()).or_insert_with(new);
        miss.lookups += 1;
        miss.writes &= writes;
        if miss.threads.insert(thread) {
            let (program, user) = who();
            miss.programs.insert(program);
            miss.users.extend(user);
        }
    }

    /// Sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = &Miss> {
        self.by_path.values()
    }

    /// How many look-ups of further paths were not kept.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(path: &str, writes: bool) -> FailedLookup {
        FailedLookup {
            path: JailPath::new(path).unwrap(),
            call: "open",
            writes,
        }
    }

    #[test]
    fn each_path_is_kept_once() {
        let mut misses = Misses::default();
        misses.add(lookup("/b", true), 1, || ("php".into(), Some(33)));
        misses.add(lookup("/b", false), 2, || ("sh".into(), None));
        misses.add(lookup("/b", false), 2, || panic!("it is known who that is"));
        misses.add(lookup("/a", true), 1, || ("php".into(), Some(33)));
        let all: Vec<_> = misses.iter().collect();
        assert_eq!(all.len(), 2);
        assert!(all[0].writes && !all[1].writes, "one that reads is enough");
        assert_eq!(
            (all[1].lookups, all[1].programs.len(), all[1].users.len()),
            (3, 2, 1)
        );
    }

    #[test]
    fn there_is_an_end() {
        let mut misses = Misses::default();
        (0..MOST + 5).for_each(|nth| {
            misses.add(lookup(&format!("/{nth}"), false), 1, || ("x".into(), None));
        });
        misses.add(lookup("/0", false), 1, || ("x".into(), None));
        assert_eq!((misses.iter().count(), misses.dropped()), (MOST, 5));
    }
}

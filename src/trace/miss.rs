//! The paths that were looked up and not found.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::JailPath;

/// How many paths are kept. A program inside could invent names without end.
const MOST: usize = 20_000;

/// The call that asks where a link leads.
pub(super) const READLINK: &str = "readlink";

/// Why a path inside could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LookupFailure {
    /// It is not there.
    Absent,
    /// It was denied, by the rights of a directory on the way or by its own.
    Denied,
    /// It is there and could not be executed, as on a mount with `noexec`.
    NotExecutable,
    /// It was to be written, and is in a read-only mount.
    ReadOnly,
}

/// A path that was looked up inside in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Miss {
    pub path: JailPath,
    /// The first call that looked it up, such as `open`, `exec`, `connect`; `readlink` only if no
    /// other call did.
    pub call: &'static str,
    /// Whether each call that looked it up was to write.
    pub writes: bool,
    /// Whether any of them was.
    pub is_written: bool,
    /// Why it could not be used; of several reasons, the last of these.
    pub failure: LookupFailure,
    /// How often it was looked up.
    pub lookups: u64,
    /// The names of the programs, as `ps` shows them.
    pub programs: BTreeSet<String>,
    /// The ids of the users that they ran as.
    pub users: BTreeSet<u32>,
    /// The ids of their threads.
    pub(super) threads: BTreeSet<i32>,
}

impl Miss {
    /// A path that nobody has looked up yet.
    pub(crate) fn new(path: JailPath) -> Self {
        Self {
            path,
            call: "open",
            writes: false,
            is_written: false,
            failure: LookupFailure::Absent,
            lookups: 0,
            programs: BTreeSet::new(),
            users: BTreeSet::new(),
            threads: BTreeSet::new(),
        }
    }
}

/// One look-up that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FailedLookup {
    pub path: JailPath,
    pub call: &'static str,
    pub writes: bool,
    pub failure: LookupFailure,
}

/// All misses of a trace, each path once.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    by_path: BTreeMap<JailPath, Miss>,
    dropped: u64,
}

impl Misses {
    /// Adds a look-up of a thread. `program`, which is called once per path and thread, gives the
    /// program's name and its user.
    pub(super) fn add(
        &mut self,
        lookup: FailedLookup,
        thread: i32,
        program: impl Fn() -> (String, Option<u32>),
    ) {
        let FailedLookup {
            path,
            call,
            writes,
            failure,
        } = lookup;
        if !self.by_path.contains_key(&path) && self.by_path.len() >= MOST {
            self.dropped += 1;
            return;
        }

        let miss = self.by_path.entry(path.clone()).or_insert_with(|| Miss {
            call,
            writes,
            failure,
            ..Miss::new(path)
        });
        if miss.call == READLINK {
            miss.call = call;
        }
        miss.lookups += 1;
        miss.writes &= writes;
        miss.is_written |= writes;
        miss.failure = miss.failure.max(failure);
        if miss.threads.insert(thread) {
            let (program, user) = program();
            miss.programs.insert(program);
            miss.users.extend(user);
        }
    }

    /// Sorted by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Miss> {
        self.by_path.values()
    }

    /// How many look-ups of other paths were not kept.
    pub(crate) fn dropped(&self) -> u64 {
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
            failure: LookupFailure::Absent,
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
        for nth in 0..MOST + 5 {
            misses.add(lookup(&format!("/{nth}"), false), 1, || ("x".into(), None));
        }
        misses.add(lookup("/0", false), 1, || ("x".into(), None));
        assert_eq!((misses.iter().count(), misses.dropped()), (MOST, 5));
    }
}

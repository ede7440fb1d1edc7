//! The order of units as a graph.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The order in which systemd starts units, as a graph. Orders that only matter for stopping are
/// left out.
///
/// The graph has what the unit files say, and possibly more where systemd decides by what is
/// running. Two units without an order here have none, or one that is in no file.
#[derive(Clone, Debug, Default)]
pub struct Ordering {
    /// Unit → the units that start after it.
    pub(super) then: BTreeMap<String, BTreeSet<String>>,
    /// The units with `DefaultDependencies=no`.
    pub(super) early: BTreeSet<String>,
    /// The units that have a file or whose template has one. Templates are not included.
    pub(super) units: BTreeSet<String>,
    /// Another name of a unit → its own.
    pub(super) aliases: BTreeMap<String, String>,
}

impl Ordering {
    /// The name by which systemd knows `unit`, which may be an alias.
    pub fn name<'n>(&'n self, unit: &'n str) -> &'n str {
        self.aliases.get(unit).map_or(unit, String::as_str)
    }

    /// Whether the unit has `DefaultDependencies=no`, so that it may start before the local file
    /// systems are mounted.
    pub fn is_early(&self, unit: &str) -> bool {
        self.early.contains(self.name(unit))
    }

    /// Whether the unit has a file.
    pub fn knows(&self, unit: &str) -> bool {
        self.units.contains(self.name(unit))
    }

    /// The chain of units by which `to` starts after `from`, both included.
    pub fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let (from, to) = (self.name(from), self.name(to));
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(unit) = queue.pop_front() {
            if unit == to {
                let mut way = vec![unit.to_owned()];
                let back = std::iter::successors(Some(unit), |unit| before.get(unit).copied());
                way.extend(back.skip(1).map(ToOwned::to_owned));
                way.reverse();
                return Some(way);
            }
            for next in self.then.get(unit).into_iter().flatten() {
                if next != from && !before.contains_key(next.as_str()) {
                    before.insert(next, unit);
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Has `then` start after `first`.
    ///
    /// Errors: the chain of units by which `then` already starts before `first`.
    pub fn order(&mut self, first: &str, then: &str) -> Result<(), Vec<String>> {
        if let Some(way) = self.way(then, first) {
            return Err(way);
        }
        self.add(first, then);
        Ok(())
    }

    pub(super) fn add(&mut self, first: &str, then: &str) {
        let (first, then) = (self.name(first).to_owned(), self.name(then).to_owned());
        self.then.entry(first).or_default().insert(then);
    }
}

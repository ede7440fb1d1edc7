//! Whether anything is in use, as far as the kernel knows: it also knows users other than
//! processes.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::{DownRun, is_at};
use crate::base::{Error, JailPath, Result};
use crate::engine::outcome::EngineFailure;
use crate::engine::root::{Spot, Spots};
use crate::plan::{Along, Step};

impl<'a> DownRun<'a> {
    /// Asks the kernel about each mount before the first one is unmounted. A mount that holds
    /// others of ours counts as used by these, so it is not asked about. The same is true of a
    /// mount with another one at the same target.
    pub(super) fn stop_if_in_use(&self) -> Result<(), Box<EngineFailure>> {
        let foreign = self
            .detaches()
            .filter_map(|(target, _)| self.foreign_in(target));
        let mut errors = self.shadowed().chain(foreign);
        if let Some(error) = errors.next() {
            return Err(Box::new(EngineFailure {
                also: errors.collect(),
                ..EngineFailure::from(error)
            }));
        }

        let busy = self.busy_targets();
        if busy.is_empty() {
            return Ok(());
        }

        let error = Error::failed(format!(
            "in use: {}; nothing was unmounted",
            busy.join(", ")
        ))
        .hint("end what uses them, or detach them anyway with `mountjail down --lazy`");
        Err(Box::new(EngineFailure {
            busy: true,
            ..EngineFailure::from(error)
        }))
    }

    /// The mounts that the kernel reports as in use.
    fn busy_targets(&self) -> Vec<String> {
        let mut spots = Spots::new(&self.root);
        let above = self.above();
        let mut asked = HashSet::new();
        let mut busy = vec![];
        for target in self.asked_about() {
            // A second question in a row would unmount it.
            if above.contains(target.as_path()) || !asked.insert(target) {
                continue;
            }
            let is_busy = self.spot(target, &mut spots).and_then(Spot::is_busy);
            if is_busy.unwrap_or(false) {
                busy.push(target.to_string());
            }
        }
        busy
    }

    /// Whether each mount is the planned one, holds no other of ours and is not in use.
    pub(super) fn is_quiet(&self) -> bool {
        let mut spots = Spots::new(&self.root);
        let above = self.above();
        self.plan.steps.iter().all(|step| match step {
            Step::Detach {
                target,
                expected,
                along: Along::Members(members),
                ..
            } => {
                let is_it = spots
                    .on_mount(target)
                    .and_then(|spot| is_at(spot, expected));
                is_it.unwrap_or(false) && self.are_quiet(members, &above)
            }
            Step::Detach {
                target, expected, ..
            } => {
                let is_quiet = |spot: &Spot| Ok(is_at(spot, expected)? && !spot.is_busy()?);
                !above.contains(target.as_path())
                    && self
                        .spot(target, &mut spots)
                        .and_then(is_quiet)
                        .unwrap_or(false)
            }
            _ => true,
        })
    }

    /// Whether each of the mounts that came along with a graft is the one that was seen, and is not
    /// in use, unless others hold it.
    fn are_quiet(&self, members: &[JailPath], above: &HashSet<&Path>) -> bool {
        let mut spots = Spots::new(&self.root);
        let mut is_it = |member: &JailPath| {
            let [expected] = self.observed.stack(member) else {
                return Ok(false);
            };
            let found = spots.get(member)?.mount()?;
            Ok::<_, io::Error>(found.id == Some(expected.id) && found.is_root != Some(false))
        };
        if !members.iter().all(|member| is_it(member).unwrap_or(false)) {
            return false;
        }

        let mut in_one_directory = members.chunk_by(|one, other| one.parent() == other.parent());
        in_one_directory.all(|members| {
            let held = |member: &&JailPath| above.contains(member.as_path());
            let free = members.iter().filter(|member| !held(member));
            let names = free.filter_map(JailPath::file_name);
            let spot = spots.get(&members[0]);
            spot.is_ok_and(|spot| matches!(spot.is_any_busy(names), Ok(false)))
        })
    }

    /// The targets of the mounts whose users matter. A graft itself always holds its members.
    fn asked_about(&self) -> impl Iterator<Item = &'a JailPath> {
        self.plan.steps.iter().flat_map(|step| match step {
            Step::Detach {
                along: Along::Members(members),
                ..
            } => members.iter().collect(),
            Step::Detach { target, .. } => vec![target],
            _ => vec![],
        })
    }

    /// All paths above the mounts that are to be detached.
    fn above(&self) -> HashSet<&Path> {
        self.detaches()
            .map(|(target, _)| target)
            .chain(self.asked_about())
            .flat_map(|target| target.as_path().ancestors().skip(1))
            .collect()
    }
}

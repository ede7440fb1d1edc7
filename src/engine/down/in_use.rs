//! Whether anything is in use, as far as the kernel knows: it also knows users other than
//! processes.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::thread;

use super::{DownRun, is_at, pauses};
use crate::base::{Error, JailPath, Result};
use crate::engine::outcome::EngineFailure;
use crate::engine::root::{Spot, Spots};
use crate::engine::target::nothing_in_stray;
use crate::observe::ObservedMount;
use crate::plan::{Along, Step};

impl<'a> DownRun<'a> {
    /// Asks the kernel about each mount before the first one is unmounted. A mount that holds
    /// others of ours counts as used by these, so it is not asked about. The same is true of a
    /// mount with another one at the same target.
    pub(super) fn stop_if_in_use(&self) -> Result<(), Box<EngineFailure>> {
        let mut errors = self.shadowed();
        for (target, _) in self.detaches() {
            errors.extend(self.foreign_in(target));
        }
        for stray in &self.observed.strays {
            errors.extend(nothing_in_stray(&self.plan.root, stray, self.observed).err());
        }
        if !errors.is_empty() {
            let first = errors.remove(0);
            return Err(Box::new(EngineFailure {
                also: errors,
                ..EngineFailure::from(first)
            }));
        }

        let busy = self.still_busy_targets();
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

    /// The mounts that stay in use.
    fn still_busy_targets(&self) -> Vec<String> {
        let mut busy = self.busy_targets();
        for pause in pauses() {
            if busy.is_empty() {
                break;
            }
            thread::sleep(pause);
            busy = self.busy_targets();
        }
        busy
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
            if matches!(is_busy, Ok(true)) {
                busy.push(target.to_string());
            }
        }
        busy
    }

    /// Whether each mount is the planned one, holds no other of ours and is not in use.
    pub(super) fn is_quiet(&self) -> bool {
        let mut spots = Spots::new(&self.root);
        let above = self.above();
        for step in &self.plan.steps {
            let Step::Detach {
                target,
                expected,
                along,
                ..
            } = step
            else {
                continue;
            };
            let is_quiet = match along {
                Along::Members(members) => match spots.on_mount(target) {
                    Ok(spot) => {
                        matches!(is_at(spot, expected), Ok(true))
                            && matches!(self.are_quiet(target, members, &above), Ok(true))
                    }
                    Err(_) => false,
                },
                Along::Nothing | Along::Submounts => {
                    !above.contains(target.as_path())
                        && matches!(self.is_unused(target, expected, &mut spots), Ok(true))
                }
            };
            if !is_quiet {
                return false;
            }
        }
        true
    }

    /// Whether the mount `expected` is at `target`, and not in use.
    fn is_unused(
        &self,
        target: &JailPath,
        expected: &ObservedMount,
        spots: &mut Spots<'_>,
    ) -> io::Result<bool> {
        let spot = self.spot(target, spots)?;
        Ok(is_at(spot, expected)? && !spot.is_busy()?)
    }

    /// Whether each of the mounts that came along with the graft at `target` is one that was seen,
    /// and is not in use, unless others hold it.
    fn are_quiet(
        &self,
        target: &JailPath,
        members: &[JailPath],
        above: &HashSet<&Path>,
    ) -> io::Result<bool> {
        for members in members.chunk_by(JailPath::is_beside) {
            let spot = self.root.spot(&members[0])?;
            for member in members {
                let name = member.file_name().unwrap_or_default();
                match spot.mounted_beside(name)? {
                    Some(id) if self.is_as_seen(target, member, id) => {}
                    _ => return Ok(false),
                }
            }
            let free = members
                .iter()
                .filter(|member| !above.contains(member.as_path()));
            if spot.is_any_busy(free.filter_map(JailPath::file_name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the mount with the unique ID `id` is the only one that was seen at `member` of the
    /// graft at `target`, or any that came along with the graft, if that is whole.
    fn is_as_seen(&self, target: &JailPath, member: &JailPath, id: u64) -> bool {
        if let Some(clone) = self.observed.whole.get(target) {
            return clone.has(id);
        }
        match self.observed.stack(member) {
            [seen] => seen.unique_id == Some(id),
            _ => false,
        }
    }

    /// The targets of the mounts whose users matter. A graft itself always holds its members.
    fn asked_about(&self) -> Vec<&'a JailPath> {
        let mut targets = vec![];
        for step in &self.plan.steps {
            match step {
                Step::Detach {
                    along: Along::Members(members),
                    ..
                } => targets.extend(members),
                Step::Detach { target, .. } => targets.push(target),
                _ => {}
            }
        }
        targets
    }

    /// All paths above the mounts that are to be detached.
    fn above(&self) -> HashSet<&Path> {
        let detached = self.detaches().map(|(target, _)| target);
        let targets: Vec<_> = detached.chain(self.asked_about()).collect();
        let mut above = HashSet::new();
        for beside in targets.chunk_by(|one, other| one.is_beside(other)) {
            above.extend(beside[0].as_path().ancestors().skip(1));
        }
        above
    }
}

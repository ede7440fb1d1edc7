//! The mount that a path lies on. Nothing is made or changed on foreign mounts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Planner;
use crate::Error;
use crate::base::hints::unmount_tree;
use crate::base::{ErrorCode, JailPath};
use crate::observe::{Holder, Observed};
use crate::plan::compare::came_along;
use crate::plan::placeholders;
use crate::plan::state::{MountState, State};
use crate::plan::step::Step;

/// The mount that the directory of a path is on.
pub(super) enum Held<'o> {
    /// The root's own mount.
    Root,
    /// A foreign mount at this path on the host: a volume of the site's own.
    Volume(&'o Path),
    /// A mount of ours at this path in the jail.
    Ours(&'o JailPath),
    /// Any other foreign mount at this path on the host.
    Theirs(PathBuf),
}

impl<'a> Planner<'a> {
    /// The kind of mount that the directory of `path` is on, as far as that directory exists now.
    pub(super) fn held_by(&self, path: &JailPath) -> Held<'a> {
        let observed = self.observed;
        let above = path.directories_above();
        let target = target_among(&above, observed);
        for directory in above.iter().rev() {
            if let Some(holder) = observed.holders.get(directory) {
                return self.kind_of_holder(holder, target);
            }
            if Some(directory) == target {
                break;
            }
        }
        match target {
            None => Held::Root,
            Some(target) if self.is_theirs(target) || self.is_taken(target) => {
                Held::Theirs(self.desired.root.inside(target).as_path().to_owned())
            }
            Some(target) => Held::Ours(target),
        }
    }

    /// The kind of a mount that is not at a target. `target`: the nearest mounted target above it.
    fn kind_of_holder(&self, holder: &'a Holder, target: Option<&'a JailPath>) -> Held<'a> {
        match (self.is_part_of_ours(holder), target) {
            (true, Some(target)) => Held::Ours(target),
            (false, None) if holder.own_volume => Held::Volume(&holder.point),
            _ => Held::Theirs(holder.point.clone()),
        }
    }

    /// Whether `holder` came along with a recursive mount of ours.
    fn is_part_of_ours(&self, holder: &Holder) -> bool {
        let Some(at) = self.desired.root.path_inside(&holder.point) else {
            return false;
        };
        for seen in self.observed.elsewhere.get(&at).into_iter().flatten() {
            if holder.is(seen) && came_along(self.observed, &at, seen) {
                return true;
            }
        }
        false
    }

    /// Whether the topmost mount at `target` is a foreign one.
    fn is_theirs(&self, target: &JailPath) -> bool {
        let mut states = self.plan.states.iter();
        states.any(|state| state.target == *target && is_theirs(state))
    }

    fn is_on_theirs(&self, path: &JailPath) -> bool {
        matches!(self.held_by(path), Held::Theirs(_))
    }

    /// Refuses to change paths that are on foreign mounts, since the changes could also appear
    /// outside the root. A mount of ours that was moved there goes first.
    pub(super) fn refuse_outside(&mut self, made: &mut placeholders::Placeholders) {
        if self.observed.holders.is_empty() && !self.plan.states.iter().any(is_theirs) {
            return;
        }

        let paths = self.mount.keys().chain(self.detach.keys()).copied();
        let created = made.create.iter().filter_map(Step::path);
        let mut found: BTreeMap<PathBuf, Vec<&JailPath>> = BTreeMap::new();
        for path in paths.chain(created) {
            if let Held::Theirs(above) = self.held_by(path)
                && !self.is_moved_to(&above)
            {
                found.entry(above).or_default().push(path);
            }
        }
        // A later plan removes what is on them, when that is possible.
        made.remove.retain(|step| match step.path() {
            Some(path) => !self.is_on_theirs(path),
            None => true,
        });
        let conflicts: Vec<_> = found
            .iter()
            .map(|(above, paths)| self.on_theirs(above, paths))
            .collect();
        self.plan.conflicts.extend(conflicts);
    }

    fn on_theirs(&self, above: &Path, paths: &[&JailPath]) -> Error {
        let how = unmount_tree(above);
        let (site, above) = (&self.desired.site, above.display());
        let mut changed = vec![];
        for path in paths {
            changed.push(self.desired.root.inside(path).to_string());
        }
        changed.sort();
        changed.dedup();
        let first = &changed[0];
        let also = match changed.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        Error::failed(format!("{site}: cannot change {first}{also}"))
            .at(first)
            .coded(ErrorCode::Conflict)
            .because_of(format!(
                "{above} is mounted above it, and not by mountjail: what is done there may \
                 be done outside the root as well"
            ))
            .hint(format!(
                "unmount it: {how}; or take what lies in it out of the manifest"
            ))
    }
}

/// The innermost of `directories` at which something is mounted.
fn target_among<'o>(directories: &[JailPath], observed: &'o Observed) -> Option<&'o JailPath> {
    for directory in directories.iter().rev() {
        if let Some((target, _)) = observed.mounts.get_key_value(directory) {
            return Some(target);
        }
    }
    None
}

/// Whether the topmost mount is a foreign one.
fn is_theirs(state: &MountState) -> bool {
    matches!(state.state, State::Foreign | State::Shadowed)
}

//! The mount that a path lies on. Nothing is made or changed on foreign mounts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Planner;
use crate::Error;
use crate::base::hints::unmount_tree;
use crate::base::{ErrorCode, JailPath};
use crate::observe::Holder;
use crate::plan::compare::came_along;
use crate::plan::placeholders;
use crate::plan::step::{MountState, State, Step};

/// The mount that the directory of a path is on.
pub(super) enum Held {
    /// The root's own mount.
    Root,
    /// A foreign mount at this path on the host: a volume of the site's own.
    Volume(PathBuf),
    /// A mount of ours at this path in the jail.
    Ours(JailPath),
    /// Any other foreign mount at this path on the host.
    Theirs(PathBuf),
}

impl Planner<'_> {
    /// The kind of mount that the directory of `path` is on, as far as that directory exists now.
    pub(super) fn held_by(&self, path: &JailPath) -> Held {
        let above = path.directories_above();
        let mounted = above
            .iter()
            .rposition(|above| self.observed.mounts.contains_key(above));
        let holder = above.iter().enumerate().rev().find_map(|(depth, above)| {
            let holder = self.observed.holders.get(above)?;
            mounted
                .is_none_or(|mounted| mounted <= depth)
                .then_some(holder)
        });
        let target = mounted.map(|nth| &above[nth]);

        if let Some(holder) = holder {
            return self.kind_of_holder(holder, target);
        }
        let Some(above) = target else {
            return Held::Root;
        };
        let mut theirs = self.plan.states.iter().filter(|state| is_theirs(state));
        if theirs.any(|state| state.target == *above) {
            return Held::Theirs(self.desired.root.inside(above).as_path().to_owned());
        }
        Held::Ours(above.clone())
    }

    /// The kind of a mount that is not at a target. `target`: the nearest mounted target above it.
    fn kind_of_holder(&self, holder: &Holder, target: Option<&JailPath>) -> Held {
        let at = self.desired.root.path_inside(&holder.point);
        let part_of_ours = at.as_ref().filter(|at| {
            let stack = self.observed.elsewhere.get(*at).into_iter().flatten();
            let mut same = stack.filter(|seen| holder.is(seen));
            same.any(|seen| came_along(self.observed, at, seen))
        });
        match (part_of_ours, target) {
            (Some(_), Some(target)) => Held::Ours(target.clone()),
            (None, None) if holder.own_volume => Held::Volume(holder.point.clone()),
            _ => Held::Theirs(holder.point.clone()),
        }
    }

    /// Refuses to change paths that are on foreign mounts, since the changes could also appear
    /// outside the root.
    pub(super) fn refuse_outside(&mut self, made: &mut placeholders::Placeholders) {
        if self.observed.holders.is_empty() && !self.plan.states.iter().any(is_theirs) {
            return;
        }

        let paths = self.mount.keys().chain(self.detach.keys());
        let created = made.create.iter().filter_map(Step::path);
        let mut found: BTreeMap<PathBuf, Vec<&JailPath>> = BTreeMap::new();
        for path in paths.chain(created) {
            if let Held::Theirs(above) = self.held_by(path) {
                found.entry(above).or_default().push(path);
            }
        }
        let conflicts: Vec<_> = found
            .iter()
            .map(|(above, paths)| self.on_theirs(above, paths))
            .collect();
        self.plan.conflicts.extend(conflicts);

        // A later plan removes the rest, when that is possible.
        made.remove.retain(|step| {
            step.path()
                .is_none_or(|path| !matches!(self.held_by(path), Held::Theirs(_)))
        });
    }

    fn on_theirs(&self, above: &Path, paths: &[&JailPath]) -> Error {
        let how = unmount_tree(above);
        let (site, above) = (&self.desired.site, above.display());
        let mut paths: Vec<_> = paths
            .iter()
            .map(|path| self.desired.root.inside(path).to_string())
            .collect();
        paths.sort();
        paths.dedup();
        let others = paths.len() - 1;
        let also = if others > 0 {
            format!(" (and {others} more)")
        } else {
            String::new()
        };
        Error::failed(format!("{site}: cannot change {}{also}", paths[0]))
            .at(&paths[0])
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

/// Whether the topmost mount is a foreign one.
fn is_theirs(state: &MountState) -> bool {
    matches!(state.state, State::Foreign | State::Shadowed)
}

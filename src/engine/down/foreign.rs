//! Mounts of others in the way of a run: what they keep from being unmounted or removed.

use super::DownRun;
use crate::base::{Error, JailPath};
use crate::observe::unmount_command;
use crate::plan::{State, Step};

impl DownRun<'_> {
    /// Returns a sentence about a placeholder that cannot be removed now, because somebody else has
    /// mounted something in it.
    pub(super) fn foreign_on(&self, step: &Step) -> Option<String> {
        let Step::RemovePlaceholder { path, .. } = step else {
            return None;
        };
        let foreign = self
            .states(State::Foreign)
            .find(|foreign| foreign.starts_with(path))?;
        let (path, foreign) = (
            self.root.path().inside(path),
            self.root.path().inside(foreign),
        );
        Some(format!(
            "{path} stays: {foreign} is mounted there, and not by mountjail"
        ))
    }

    /// Returns an error for each mount of ours that has a foreign one on top.
    pub(super) fn shadowed(&self) -> Vec<Error> {
        let mut errors = vec![];
        for state in &self.plan.states {
            if state.state != State::Shadowed {
                continue;
            }
            let path = self.root.path().inside(&state.target);
            let detail = state.detail.as_deref().unwrap_or_default();
            let how = unmount_command(self.root.path(), path.as_path());
            let error = Error::failed(format!("{path} stays mounted: {detail}"));
            errors.push(error.hint(format!("unmount that first: {how}")));
        }
        errors
    }

    /// Returns an error about the mount at `target` if somebody else has mounted something in it.
    pub(super) fn foreign_in(&self, target: &JailPath) -> Option<Error> {
        let is_in = |path: &&JailPath| *path != target && path.starts_with(target);
        let foreign = self.states(State::Foreign).find(is_in)?;
        let (path, foreign) = (
            self.root.path().inside(target),
            self.root.path().inside(foreign),
        );
        let what =
            format!("{path} stays mounted: {foreign} is mounted in it, and not by mountjail");
        let how = unmount_command(self.root.path(), foreign.as_path());
        Some(Error::failed(what).hint(format!("unmount that first: {how}")))
    }
}

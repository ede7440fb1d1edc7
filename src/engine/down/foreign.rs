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
    pub(super) fn shadowed(&self) -> impl Iterator<Item = Error> {
        let shadowed = self
            .plan
            .states
            .iter()
            .filter(|state| state.state == State::Shadowed);
        shadowed.map(|state| {
            let (path, detail) = (
                self.root.path().inside(&state.target),
                state.detail.as_deref(),
            );
            let how = unmount_command(self.root.path(), path.as_path());
            Error::failed(format!(
                "{path} stays mounted: {}",
                detail.unwrap_or_default()
            ))
            .hint(format!("unmount that first: {how}"))
        })
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

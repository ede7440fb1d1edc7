//! How a whole site stands, and why it is not as it should be.

use std::fmt;

use serde::Serialize;

use super::step::{MountState, Plan, State, Step};
use crate::resolve::FileKind;

/// How a whole site stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteState {
    /// Every mount is ok, and nothing is to be done.
    Up,
    /// Some are, or something that should not be there is.
    Drifted,
    /// None is.
    Down,
}

impl fmt::Display for SiteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Drifted => "drifted",
            Self::Down => "down",
        })
    }
}

impl Plan {
    /// How the site of this plan, one of [`up`](super::up), stands. Foreign mounts elsewhere do not
    /// count: they are not ours.
    pub fn site_state(&self) -> SiteState {
        let are_all = |state: State| self.counted().all(|mount| mount.state == state);
        match () {
            () if self.in_sync() && are_all(State::Ok) => SiteState::Up,
            () if are_all(State::Missing) => SiteState::Down,
            () => SiteState::Drifted,
        }
    }

    /// Why a site is not up that no state of a mount tells: files, placeholders and links, and what
    /// is in the way. Of a site that is down, only the latter.
    pub fn reasons(&self) -> Vec<String> {
        let in_the_way = self.conflicts.iter().map(ToString::to_string);
        if self.site_state() == SiteState::Down {
            return in_the_way.collect();
        }
        self.steps
            .iter()
            .filter_map(|step| self.reason(step))
            .chain(in_the_way)
            .collect()
    }

    /// Why there is this step, unless the state of a mount tells it.
    fn reason(&self, step: &Step) -> Option<String> {
        match step {
            Step::WriteFile(file) => Some(format!(
                "the generated file {} is not as it should be",
                file.path
            )),
            Step::RemoveFile(path) => {
                Some(format!("the generated file {path} is not needed any more"))
            }
            Step::RemovePlaceholder { path, .. } => {
                Some(format!("the placeholder {path} is not needed any more"))
            }
            Step::RemoveLink { path, .. } => {
                Some(format!("the link {path} is not needed any more"))
            }
            Step::CreateLink { path, destination } => Some(format!(
                "the link {path} -> {} is not there",
                destination.display()
            )),
            Step::CreatePlaceholder { path, kind } => {
                let kind = if *kind == FileKind::Directory {
                    "directory"
                } else {
                    "file"
                };
                let told = self
                    .states
                    .iter()
                    .any(|state| state.target.starts_with(path));
                (!told).then(|| format!("the {kind} {path} is not there"))
            }
            Step::Detach { .. } | Step::DetachStray(_) | Step::Attach(_) | Step::Swap { .. } => {
                None
            }
        }
    }

    /// The mounts that tell how the site stands.
    fn counted(&self) -> impl Iterator<Item = &MountState> {
        self.states
            .iter()
            .filter(|state| state.state != State::Foreign || state.mount.is_some())
    }
}

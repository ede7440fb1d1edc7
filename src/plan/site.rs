//! The state of a whole site, and the reasons why it is not up.

use std::fmt;

use serde::Serialize;

use super::altered;
use super::state::{MountState, State};
use super::step::{Plan, Step};
use crate::observe::ObservedMount;
use crate::resolve::{FileKind, Mount};

/// The state of a whole site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteState {
    /// Every mount is ok, and nothing has to be done.
    Up,
    /// Some mounts are ok, or something is there that should not be.
    Drifted,
    /// Every mount is missing, and the site was not brought up without them.
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
    /// The state of the site, by a plan that [`up`](super::up) made. Foreign mounts at other paths
    /// do not count, since they are not ours, nor do mounts on a root that is hidden.
    pub fn site_state(&self) -> SiteState {
        if self.in_sync() && self.are_all(State::Ok) {
            SiteState::Up
        } else if self.are_all(State::Missing) && !self.up_without_mounts {
            SiteState::Down
        } else {
            SiteState::Drifted
        }
    }

    /// The reasons why the site is not up, as far as the states of its mounts do not show them:
    /// files, placeholders and links, and conflicts. For a site that is down, the conflicts alone.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = vec![];
        if self.site_state() != SiteState::Down {
            for step in &self.steps {
                reasons.extend(self.reason(step));
            }
        }
        for conflict in &self.conflicts {
            reasons.push(conflict.to_string());
        }
        reasons
    }

    fn are_all(&self, state: State) -> bool {
        self.counted().all(|mount| mount.state == state)
    }

    /// The reason for this step, unless the state of a mount shows it.
    fn reason(&self, step: &Step) -> Option<String> {
        match step {
            Step::WriteFile(file) => Some(format!(
                "the generated file {} is not as it should be",
                file.path
            )),
            Step::RemoveFile(path) => {
                Some(format!("the generated file {path} is not needed any more"))
            }
            Step::CreateDirectory { path, .. } => {
                Some(format!("the directory {path} is not there"))
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
                let mut states = self.states.iter();
                if states.any(|state| state.target.starts_with(path)) {
                    return None; // the states of the mounts show it
                }
                Some(format!("the {kind} {path} is not there"))
            }
            Step::Swap {
                mount,
                expected,
                because,
                graft: Some(_),
                ..
            } => wrong_with_graft(mount, expected, *because),
            Step::Refresh { .. }
            | Step::Detach { .. }
            | Step::DetachStray(_)
            | Step::DetachCovered { .. }
            | Step::Attach { .. }
            | Step::Swap { .. } => None,
        }
    }

    /// The mounts that decide the state of the site.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &MountState> {
        self.states.iter().filter(|state| match state.state {
            State::Foreign => state.mount.is_some(),
            State::Hidden => false,
            _ => true,
        })
    }
}

/// What is wrong with the mount `seen` of a graft that is to be as `mount`, unless the states of
/// the mounts in it show that.
fn wrong_with_graft(mount: &Mount, seen: &ObservedMount, because: State) -> Option<String> {
    let at = &mount.target;
    match because {
        State::Stale => Some(format!(
            "what is mounted in {at} follows no template, and so not the host"
        )),
        State::WrongOptions => {
            let how = altered::graft(seen, mount)?;
            Some(format!("the mount on {at}: {how}"))
        }
        _ => None,
    }
}

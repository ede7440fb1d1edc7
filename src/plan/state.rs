//! The states of mounts, as `status` shows them.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::base::{HostPath, JailPath};
use crate::resolve::Mount;

/// The state of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountState {
    /// The path in the jail.
    pub target: JailPath,
    /// The desired source, else the recorded one. `None` for a foreign mount.
    pub source: Option<HostPath>,
    /// Whether the mount is as it should be, and if not, how it differs.
    pub state: State,
    /// The finding if the state is not `ok`: "mounted rw,nosuid, wanted ro,nosuid,nodev,noexec".
    pub detail: Option<String>,
    /// The desired mount, if there is one.
    pub mount: Option<Arc<Mount>>,
}

impl MountState {
    /// The state of a desired mount.
    pub(super) fn desired(mount: &Arc<Mount>, state: State, detail: Option<String>) -> Self {
        Self {
            target: mount.target.clone(),
            source: Some(mount.source.clone()),
            state,
            detail,
            mount: Some(Arc::clone(mount)),
        }
    }

    /// The state of a mount that is there and that the manifest does not ask for.
    pub(super) fn undesired(
        target: &JailPath,
        source: Option<&HostPath>,
        state: State,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            target: target.clone(),
            source: source.cloned(),
            state,
            detail: Some(detail.into()),
            mount: None,
        }
    }
}

/// The states of a mount, as `status` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Mounted as desired.
    Ok,
    /// Nothing is mounted there.
    Missing,
    /// The source path now names another file than the mounted one.
    Stale,
    /// Our mount, but from another source than the manifest names now.
    WrongSource,
    /// The right file, but with other attributes.
    WrongOptions,
    /// Something else is mounted on top of ours.
    Shadowed,
    /// The source is not there, though the manifest still names it.
    Absent,
    /// Our mount, but no longer in the manifest.
    Orphan,
    /// Our mount, which something that is mounted over the root hides. It is recorded until it can
    /// be seen again, and is in the way of nothing.
    Hidden,
    /// A mount below the root that is not ours. It is reported, and never touched.
    Foreign,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::WrongSource => "wrong-source",
            Self::WrongOptions => "wrong-options",
            Self::Shadowed => "shadowed",
            Self::Absent => "absent",
            Self::Orphan => "orphan",
            Self::Hidden => "hidden",
            Self::Foreign => "foreign",
        })
    }
}

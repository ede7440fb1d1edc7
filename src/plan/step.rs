//! A plan is data; `Display` is its one text form, used by `plan`, by `-v` and by errors.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::Error;
use crate::base::{HostPath, JailPath, SiteName};
use crate::observe::{Identity, ObservedMount, RecordedMount, Stray};
use crate::resolve::{FileKind, GeneratedFile, Mount};

/// The steps from observed to desired for one site, and how every mount stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The site.
    pub site: SiteName,
    /// The jail's directory on the host.
    pub root: HostPath,
    /// The manifest that asks for it.
    pub manifest: Option<PathBuf>,
    /// In the order of carrying out; empty when in sync.
    pub steps: Vec<Step>,
    /// Every desired, recorded or foreign mount below the root, sorted by target.
    pub states: Vec<MountState>,
    /// The mounts that are ours and stay as they are; with the steps' results they are the new
    /// record.
    pub keep: Vec<RecordedMount>,
    /// Some mounts can only be planned once these steps are done, because a mount that goes hides
    /// what stands at their targets: plan again after them.
    pub unfinished: bool,
    /// What stands in the way and is not mountjail's to change. While there is any, nothing is
    /// carried out.
    pub conflicts: Vec<Error>,
}

impl Plan {
    /// What of this plan prepares the root for mounts that mount(8) makes: files, placeholders and
    /// links.
    #[must_use]
    pub fn without_mounts(mut self) -> Self {
        self.steps.retain(|step| !step.changes_mounts());
        self
    }

    /// What of this plan unmounts: files, placeholders and links stay.
    #[must_use]
    pub fn only_mounts(mut self) -> Self {
        self.steps.retain(Step::changes_mounts);
        self
    }

    /// How many steps remove something from the root.
    pub fn removals(&self) -> usize {
        self.steps.iter().filter(|step| step.removes()).count()
    }

    /// The plan that leaves what mountjail made in the root.
    #[must_use]
    pub fn keeping_placeholders(mut self) -> Self {
        self.steps.retain(|step| !step.removes());
        self
    }

    /// Whether everything is as desired.
    pub fn in_sync(&self) -> bool {
        self.steps.is_empty() && self.conflicts.is_empty()
    }
}

/// One step. `Display` says it in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a generated file on the host (atomic replace).
    WriteFile(GeneratedFile),
    /// Unmount the topmost mount at `target`, if it is still `expected`.
    Detach {
        /// Where inside.
        target: JailPath,
        /// Which mount it must be.
        expected: ObservedMount,
        /// What it shows, for people.
        source: Option<HostPath>,
        /// It has submounts that came along.
        recursive: bool,
    },
    /// Unmount a mount of ours that was moved out of its place with a directory.
    DetachStray(Stray),
    /// Remove a placeholder that mountjail made, if it is still that file and empty.
    RemovePlaceholder {
        /// Where inside.
        path: JailPath,
        /// Directory or file.
        kind: FileKind,
        /// Which file it must be; `None` when a crash left it unrecorded: then only if empty.
        file: Option<Identity>,
    },
    /// Remove a link that mountjail made, if it still leads to `destination`.
    RemoveLink {
        /// Where inside.
        path: JailPath,
        /// Where it must lead.
        destination: PathBuf,
    },
    /// Remove a generated file from the host.
    RemoveFile(HostPath),
    /// Make an empty directory or file to mount on, or a directory on the way.
    CreatePlaceholder {
        /// Where inside.
        path: JailPath,
        /// [`FileKind::Directory`] or [`FileKind::File`].
        kind: FileKind,
    },
    /// Make a symbolic link.
    CreateLink {
        /// Where inside.
        path: JailPath,
        /// What it says.
        destination: PathBuf,
    },
    /// Mount on a target that has no mount.
    Attach(Arc<Mount>),
    /// Replace our mount at the target without a moment's gap where the kernel can.
    Swap {
        /// What shall be there.
        mount: Arc<Mount>,
        /// Which mount is replaced.
        expected: ObservedMount,
        /// That one has submounts that came along.
        recursive: bool,
        /// Why.
        because: State,
    },
}

impl Step {
    /// Whether it removes something from the root's own file system.
    fn removes(&self) -> bool {
        matches!(
            self,
            Self::RemovePlaceholder { .. } | Self::RemoveLink { .. }
        )
    }

    /// Whether it mounts or unmounts.
    pub fn changes_mounts(&self) -> bool {
        matches!(
            self,
            Self::Attach(_) | Self::Swap { .. } | Self::Detach { .. } | Self::DetachStray(_)
        )
    }

    /// The path in the jail that it changes, if it is where it was made.
    pub fn path(&self) -> Option<&JailPath> {
        match self {
            Self::Detach { target, .. } => Some(target),
            Self::RemovePlaceholder { path, .. }
            | Self::RemoveLink { path, .. }
            | Self::CreatePlaceholder { path, .. }
            | Self::CreateLink { path, .. } => Some(path),
            Self::Attach(mount) | Self::Swap { mount, .. } => Some(&mount.target),
            Self::WriteFile(_) | Self::RemoveFile(_) | Self::DetachStray(_) => None,
        }
    }
}

/// How one mount stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountState {
    /// Where inside.
    pub target: JailPath,
    /// The source: desired, else recorded; `None` for a foreign mount.
    pub source: Option<HostPath>,
    /// The state.
    pub state: State,
    /// What was found, where it is not `ok`: "mounted rw,nosuid, wanted ro,nosuid,nodev,noexec".
    pub detail: Option<String>,
    /// The desired mount, where there is one.
    pub mount: Option<Arc<Mount>>,
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
    /// Our mount, but of another source than the manifest now says.
    WrongSource,
    /// The right file with other attributes.
    WrongOptions,
    /// Something else is mounted on top of ours.
    Shadowed,
    /// Its source is not there, and the manifest still names it.
    Absent,
    /// Ours, no longer in the manifest.
    Orphan,
    /// Below the root and not ours: reported, never touched.
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
            Self::Foreign => "foreign",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteFile(file) => write!(f, "write {}", file.path),
            Self::Detach {
                target,
                source: Some(source),
                ..
            } => write!(f, "detach {target} (was {source})"),
            Self::Detach {
                target,
                source: None,
                ..
            } => write!(f, "detach {target}"),
            Self::DetachStray(stray) => {
                write!(
                    f,
                    "detach {} (moved away from {})",
                    stray.place(),
                    stray.target
                )
            }
            Self::RemovePlaceholder { path, .. } => write!(f, "remove placeholder {path}"),
            Self::RemoveLink { path, destination } => {
                write!(f, "remove link {path} -> {}", destination.display())
            }
            Self::RemoveFile(path) => write!(f, "delete {path}"),
            Self::CreatePlaceholder {
                path,
                kind: FileKind::Directory,
            } => {
                write!(f, "create directory {path}")
            }
            Self::CreatePlaceholder { path, .. } => write!(f, "create file {path}"),
            Self::CreateLink { path, destination } => {
                write!(f, "create link {path} -> {}", destination.display())
            }
            Self::Attach(mount) => write!(
                f,
                "attach {} on {} ({}{})",
                mount.source,
                mount.target,
                mount.options,
                if mount.recursive { ",recursive" } else { "" }
            ),
            Self::Swap { mount, because, .. } => {
                write!(
                    f,
                    "swap {} on {} ({}; {because})",
                    mount.source, mount.target, mount.options
                )
            }
        }
    }
}

//! A plan is data. `Display` is its only text form, used by `plan`, by `-v` and in errors.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::change::GraftChange;
use super::graft::Graft;
use super::state::{MountState, State};
use crate::Error;
use crate::base::{FileSystem, HostPath, JailPath, SiteName};
use crate::observe::{Identity, ObservedMount, RecordedMount, Stray};
use crate::resolve::{FileKind, GeneratedFile, Mount, Ownership};

/// The steps to the desired state of one site, and the state of every mount before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The name of the site.
    pub site: SiteName,
    /// The jail's directory on the host.
    pub root: HostPath,
    /// The file that the site's manifest was read from.
    pub manifest: Option<PathBuf>,
    /// The steps in the order in which they are carried out. Empty if the site is in sync.
    pub steps: Vec<Step>,
    /// Every desired, recorded or foreign mount below the root, sorted by target.
    pub states: Vec<MountState>,
    /// The grafts of the site as it will be.
    pub grafts: Vec<Graft>,
    /// The site was brought up when nothing could be mounted, so it is up without a mount.
    pub up_without_mounts: bool,
    /// Our mounts that stay as they are. With the results of the steps they become the new record.
    pub unchanged: Vec<RecordedMount>,
    /// Some steps can only be planned after these, because a mount that is detached hides what is
    /// at their paths. Plan again then.
    pub unfinished: bool,
    /// Things in the way that do not belong to mountjail. No step is carried out while there are
    /// any.
    pub conflicts: Vec<Error>,
    /// The paths in the root of the conflicts that could be moved aside.
    pub in_the_way: Vec<JailPath>,
}

impl Plan {
    /// A plan in which nothing is known and nothing is to do.
    pub(super) fn empty(site: SiteName, root: HostPath) -> Self {
        Self {
            site,
            root,
            manifest: None,
            steps: vec![],
            states: vec![],
            grafts: vec![],
            up_without_mounts: false,
            unchanged: vec![],
            unfinished: false,
            conflicts: vec![],
            in_the_way: vec![],
        }
    }

    /// The part of this plan that prepares the root for mount(8): files, placeholders and links.
    #[must_use]
    pub fn without_mounts(mut self) -> Self {
        self.steps.retain(|step| !step.changes_mounts());
        self
    }

    /// The part of this plan that mounts and unmounts. Files, placeholders and links stay.
    #[must_use]
    pub fn only_mounts(mut self) -> Self {
        self.steps.retain(Step::changes_mounts);
        self
    }

    /// Whether a graft covers the mount at `target`, which is detached after that.
    pub(crate) fn covers(&self, target: &JailPath) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|step| matches!(step, Step::DetachCovered { target: old, .. } if old == target))
    }

    /// The number of steps that remove something from the root.
    pub fn removals(&self) -> usize {
        self.steps.iter().filter(|step| step.removes()).count()
    }

    /// This plan without the steps that remove what mountjail made in the root.
    #[must_use]
    pub fn keeping_placeholders(mut self) -> Self {
        self.steps.retain(|step| !step.removes());
        self
    }

    /// The first graft that stays and whose template changes.
    pub(crate) fn refreshed(&self) -> Option<&Graft> {
        for step in &self.steps {
            if let Step::Refresh { graft, .. } = step {
                return Some(graft);
            }
        }
        None
    }

    /// The graft that brings a mount to `target`, if one does.
    pub(crate) fn graft_with(&self, target: &JailPath) -> Option<&Graft> {
        self.grafts.iter().find(|graft| graft.has(target))
    }

    /// Whether a graft goes or is replaced or covers mounts, or its template changes.
    pub(crate) fn changes_grafts(&self) -> bool {
        self.steps.iter().any(Step::changes_a_graft)
    }

    /// Whether everything is as desired.
    pub fn in_sync(&self) -> bool {
        self.steps.is_empty() && self.conflicts.is_empty()
    }
}

/// One step. `Display` describes it in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a generated file on the host. An existing one is replaced atomically.
    WriteFile(GeneratedFile),
    /// Unmount the topmost mount at `target`, if it is still `expected`.
    Detach {
        /// The path in the jail.
        target: JailPath,
        /// The mount that must be there.
        expected: ObservedMount,
        /// Its source, for messages.
        source: Option<HostPath>,
        /// The mounts that go with it.
        along: Along,
    },
    /// Unmount a mount of ours that was moved away with a directory.
    DetachStray(Stray),
    /// Unmount a mount of ours that a graft covers, once that is in its place.
    DetachCovered {
        /// Its path in the jail.
        target: JailPath,
        /// Its unique mount ID.
        unique_id: u64,
    },
    /// Remove a placeholder that mountjail made, if it is still the same file and empty.
    RemovePlaceholder {
        /// The path in the jail.
        path: JailPath,
        /// Directory or file.
        kind: FileKind,
        /// The file that must be there. `None` if a crash left it unrecorded: then it only has to
        /// be empty.
        file: Option<Identity>,
    },
    /// Remove a link that mountjail made, if it still leads to `destination`.
    RemoveLink {
        /// The path in the jail.
        path: JailPath,
        /// The destination that it must have.
        destination: PathBuf,
    },
    /// Remove a generated file from the host.
    RemoveFile(HostPath),
    /// Make an empty directory or file to mount on, or a directory on the way to one.
    CreatePlaceholder {
        /// The path in the jail.
        path: JailPath,
        /// [`FileKind::Directory`] or [`FileKind::File`].
        kind: FileKind,
    },
    /// Make a directory of the site's own, with this owner and mode.
    CreateDirectory {
        /// The path in the jail.
        path: JailPath,
        /// Its owner, group and mode.
        owner: Ownership,
    },
    /// Make a symbolic link.
    CreateLink {
        /// The path in the jail.
        path: JailPath,
        /// The destination of the link.
        destination: PathBuf,
    },
    /// Change a template: all sites with a graft of it follow. Files that the host has replaced are
    /// swapped. If no other site has a graft of it, mounts may also come and go.
    Refresh {
        /// The site's graft.
        graft: Graft,
        /// What changes.
        change: GraftChange,
    },
    /// Mount on a target that has no mount.
    Attach {
        /// The desired mount.
        mount: Arc<Mount>,
        /// The mounts that come with it, if it is a graft.
        graft: Option<GraftChange>,
        /// A tmpfs that goes from there, and whose files the new one has.
        again: Option<ObservedMount>,
    },
    /// Replace our mount at the target, without a gap where the kernel supports that.
    Swap {
        /// The desired mount.
        mount: Arc<Mount>,
        /// The mount that is replaced.
        expected: ObservedMount,
        /// The mounts that go with the one that is replaced.
        along: Along,
        /// The reason.
        because: State,
        /// The mounts that change with it, if it is a graft.
        graft: Option<GraftChange>,
    },
}

impl Step {
    /// Unmounts `seen`, which was mounted from `source`.
    pub(super) fn detach(
        target: &JailPath,
        seen: &ObservedMount,
        source: Option<&HostPath>,
        along: Along,
    ) -> Self {
        Self::Detach {
            target: target.clone(),
            expected: seen.clone(),
            source: source.cloned(),
            along,
        }
    }

    /// Whether it removes something from the root's own file system.
    fn removes(&self) -> bool {
        matches!(
            self,
            Self::RemovePlaceholder { .. } | Self::RemoveLink { .. }
        )
    }

    /// Whether it takes a graft away, changes its template, or detaches what it covers.
    fn changes_a_graft(&self) -> bool {
        match self {
            Self::Refresh { .. } | Self::DetachCovered { .. } => true,
            Self::Detach { along, .. } | Self::Swap { along, .. } => {
                matches!(along, Along::Members(_))
            }
            _ => false,
        }
    }

    /// The tmpfs that goes, and whose files the new mount has.
    pub(crate) fn carried_over(&self) -> Option<&ObservedMount> {
        match self {
            Self::Attach { again, .. } => again.as_ref(),
            Self::Swap {
                mount, expected, ..
            } => has_files_for(expected, mount).then_some(expected),
            _ => None,
        }
    }

    /// Whether the files of a tmpfs that goes are in the new mount; `None`: no tmpfs goes.
    pub(crate) fn keeps_files(&self) -> Option<bool> {
        match self {
            Self::Attach { again, .. } => again.is_some().then_some(true),
            Self::Swap { expected, .. } => match expected.file_system {
                Some(FileSystem::Tmpfs { .. }) => Some(self.carried_over().is_some()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it mounts or unmounts.
    pub fn changes_mounts(&self) -> bool {
        matches!(
            self,
            Self::Refresh { .. }
                | Self::Attach { .. }
                | Self::Swap { .. }
                | Self::Detach { .. }
                | Self::DetachStray(_)
                | Self::DetachCovered { .. }
        )
    }

    /// The mount that the step makes.
    pub(crate) fn mount(&self) -> Option<&Arc<Mount>> {
        match self {
            Self::Attach { mount, .. } | Self::Swap { mount, .. } => Some(mount),
            _ => None,
        }
    }

    /// What changes in a graft.
    pub(crate) fn change(&self) -> Option<&GraftChange> {
        match self {
            Self::Refresh { change, .. } => Some(change),
            Self::Attach { graft, .. } | Self::Swap { graft, .. } => graft.as_ref(),
            _ => None,
        }
    }

    /// The target of the mount that the step makes or takes away; `None` for other steps, and for
    /// mounts that were moved away.
    pub(crate) fn mount_target(&self) -> Option<&JailPath> {
        match self {
            Self::Detach { target, .. } => Some(target),
            _ => self.mount().map(|mount| &mount.target),
        }
    }

    /// The path in the jail that the step changes. `None` for files on the host and for mounts that
    /// were moved away or that a graft covers.
    pub fn path(&self) -> Option<&JailPath> {
        match self {
            Self::Detach { target, .. } => Some(target),
            Self::RemovePlaceholder { path, .. }
            | Self::RemoveLink { path, .. }
            | Self::CreatePlaceholder { path, .. }
            | Self::CreateDirectory { path, .. }
            | Self::CreateLink { path, .. } => Some(path),
            Self::Attach { mount, .. } | Self::Swap { mount, .. } => Some(&mount.target),
            Self::Refresh { .. }
            | Self::WriteFile(_)
            | Self::RemoveFile(_)
            | Self::DetachStray(_)
            | Self::DetachCovered { .. } => None,
        }
    }
}

/// Whether `seen` is a tmpfs that the one of `mount` can take the files of.
pub(super) fn has_files_for(seen: &ObservedMount, mount: &Mount) -> bool {
    match (seen.file_system, mount.file_system) {
        (Some(seen), Some(wanted)) => seen.can_become(wanted),
        _ => false,
    }
}

/// The mounts that came along with one, and go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Along {
    /// Nothing: no mount may be in it.
    Nothing,
    /// The submounts of a recursive bind mount.
    Submounts,
    /// The mounts of a graft, at these targets.
    Members(Vec<JailPath>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteFile(file) => write!(f, "write {}", file.path),
            Self::Detach {
                target,
                source,
                along,
                ..
            } => match (along, source) {
                (Along::Members(_), _) => write!(f, "detach the graft {target}"),
                (_, Some(source)) => write!(f, "detach {target} (was {source})"),
                (_, None) => write!(f, "detach {target}"),
            },
            Self::DetachStray(stray) => {
                let place = stray.place();
                write!(f, "detach {place} (moved away from {})", stray.target)
            }
            Self::DetachCovered { target, .. } => write!(f, "detach {target} beneath the graft"),
            Self::RemovePlaceholder { path, .. } => write!(f, "remove placeholder {path}"),
            Self::RemoveLink { path, destination } => {
                write!(f, "remove link {path} -> {}", destination.display())
            }
            Self::RemoveFile(path) => write!(f, "delete {path}"),
            Self::CreatePlaceholder { path, kind } => match kind {
                FileKind::Directory => write!(f, "create directory {path}"),
                _ => write!(f, "create file {path}"),
            },
            Self::CreateDirectory { path, owner } => write!(f, "create directory {path} ({owner})"),
            Self::CreateLink { path, destination } => {
                write!(f, "create link {path} -> {}", destination.display())
            }
            Self::Refresh { graft, change } => {
                write!(f, "change the template of {}: {change}", graft.mount.target)
            }
            Self::Attach {
                mount,
                graft: Some(change),
                ..
            } => write!(f, "graft {}: {change}", mount.target),
            Self::Attach { mount, .. } => {
                let (what, target, options) = (mount.what(), &mount.target, mount.options());
                write!(f, "attach {what} on {target} ({options})")?;
                f.write_str(files_in_words(self))
            }
            Self::Swap {
                mount,
                graft: Some(change),
                ..
            } => write!(f, "swap the graft {}: {change}", mount.target),
            Self::Swap { mount, because, .. } => {
                let (what, target) = (mount.what(), &mount.target);
                write!(
                    f,
                    "swap {what} on {target} ({}; {because})",
                    mount.attributes
                )?;
                f.write_str(files_in_words(self))
            }
        }
    }
}

fn files_in_words(step: &Step) -> &'static str {
    match step.keeps_files() {
        Some(true) => ", with its files",
        Some(false) => ", without its files",
        None => "",
    }
}

//! What a site needs: the output of this stage and the vocabulary of all later ones.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::statvfs::FsFlags;
use serde::{Deserialize, Serialize};

use crate::manifest::{HostPath, JailPath, Origin, SiteName};
pub use crate::sys::{FileId, FileKind};

/// Everything that a site needs on this host now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The site.
    pub site: SiteName,
    /// The jail's directory on the host.
    pub root: HostPath,
    /// The file that asks for it, if one does.
    pub manifest: Option<PathBuf>,
    /// Sorted by target, so parents come before children; one mount a target.
    pub mounts: Vec<Arc<Mount>>,
    /// Symbolic links to reproduce, sorted by path.
    pub links: Vec<Link>,
    /// Files to write on the host before they are bound, sorted by path.
    pub files: Vec<GeneratedFile>,
    /// What was left out and why: optional sources that are absent, links that were not followed.
    pub notes: Vec<Note>,
    /// Who else could harm the site: sentences.
    pub warnings: Vec<String>,
}

impl Desired {
    /// A site that needs nothing: what `down` makes so.
    pub fn nothing(site: SiteName, root: HostPath) -> Self {
        let (mounts, links, files, notes, warnings) = Default::default();
        Self {
            site,
            root,
            manifest: None,
            mounts,
            links,
            files,
            notes,
            warnings,
        }
    }

    /// The root's own directories on the way to its mounts, parents first.
    pub fn ways(&self) -> Vec<JailPath> {
        let targets: BTreeSet<_> = self.mounts.iter().map(|mount| &mount.target).collect();
        let in_root = |path: &JailPath| {
            !targets.contains(path)
                && path
                    .ancestors()
                    .iter()
                    .all(|above| !targets.contains(above))
        };
        let ways: BTreeSet<_> = self
            .mounts
            .iter()
            .flat_map(|mount| mount.target.ancestors())
            .collect();
        ways.into_iter().filter(in_root).collect()
    }
}

/// One bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mount {
    /// Where inside; no component of it is a link in the finished jail.
    pub target: JailPath,
    /// The real file on the host: all links followed.
    pub source: HostPath,
    /// Which file `source` is; `None` for a generated file that is not written yet.
    pub file: Option<FileId>,
    /// What `source` is, and so what the placeholder must be.
    pub kind: FileKind,
    /// The mount's attributes.
    pub options: Options,
    /// Submounts come along, with the same attributes.
    pub recursive: bool,
    /// Why it is here; at least one.
    pub reasons: Vec<Reason>,
}

/// A mount's attributes, as mount(8) names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // they are the kernel's independent flags
pub struct Options {
    /// `ro`.
    pub read_only: bool,
    /// `nosuid`.
    pub nosuid: bool,
    /// `nodev`.
    pub nodev: bool,
    /// `noexec`.
    pub noexec: bool,
}

impl Options {
    /// Libraries and programs: `ro,nosuid,nodev`.
    pub const CODE: Self = Self {
        read_only: true,
        nosuid: true,
        nodev: true,
        noexec: false,
    };
    /// Devices: `ro,nosuid,noexec`; writing to `/dev/null` works on a read-only mount.
    pub const DEVICE: Self = Self {
        read_only: true,
        nosuid: true,
        nodev: false,
        noexec: true,
    };
    /// Everything else: `ro,nosuid,nodev,noexec`.
    pub const DATA: Self = Self {
        read_only: true,
        nosuid: true,
        nodev: true,
        noexec: true,
    };

    /// Nothing is forbidden.
    pub const OPEN: Self = Self {
        read_only: false,
        nosuid: false,
        nodev: false,
        noexec: false,
    };

    /// What `statfs(2)` says of a mount; `ro` also where its file system is.
    pub(crate) fn of_statfs(flags: FsFlags) -> Self {
        Self {
            read_only: flags.contains(FsFlags::ST_RDONLY),
            nosuid: flags.contains(FsFlags::ST_NOSUID),
            nodev: flags.contains(FsFlags::ST_NODEV),
            noexec: flags.contains(FsFlags::ST_NOEXEC),
        }
    }

    /// What `statmount(2)` says of a mount: `MOUNT_ATTR_*`.
    pub(crate) fn of_attributes(attributes: u64) -> Self {
        let has = |attribute| attributes & attribute != 0;
        Self {
            read_only: has(libc::MOUNT_ATTR_RDONLY),
            nosuid: has(libc::MOUNT_ATTR_NOSUID),
            nodev: has(libc::MOUNT_ATTR_NODEV),
            noexec: has(libc::MOUNT_ATTR_NOEXEC),
        }
    }

    /// The same, but set-user-ID bits, devices and programs work only where they do on a mount with
    /// `host` as well.
    pub(crate) fn within(self, host: Self) -> Self {
        Self {
            nosuid: self.nosuid || host.nosuid,
            nodev: self.nodev || host.nodev,
            noexec: self.noexec || host.noexec,
            ..self
        }
    }

    /// Whether a mount with `self` allows all that one with `other` allows.
    pub fn allows(self, other: Self) -> bool {
        (!self.read_only || other.read_only)
            && (!self.nosuid || other.nosuid)
            && (!self.nodev || other.nodev)
            && (!self.noexec || other.noexec)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.read_only { "ro" } else { "rw" })?;
        for (set, name) in [
            (self.nosuid, "nosuid"),
            (self.nodev, "nodev"),
            (self.noexec, "noexec"),
        ] {
            if set {
                write!(f, ",{name}")?;
            }
        }
        Ok(())
    }
}

/// A symbolic link in the jail, with the host's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Where inside.
    pub path: JailPath,
    /// What it says: `usr/lib`.
    pub text: PathBuf,
    /// Why it is here.
    pub reasons: Vec<Reason>,
}

/// A file that mountjail writes on the host: the site's passwd or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Where on the host; below the state directory that a reboot keeps.
    pub path: HostPath,
    /// All of it.
    pub contents: Vec<u8>,
}

/// Something that the user should know, though nothing failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Note {
    /// The line it is about.
    pub origin: Arc<Origin>,
    /// A sentence: `/run/mysqld is not on this host; skipped, because it is optional`.
    pub text: String,
    /// It is to be said of a preset's line as well: something will not work.
    pub always: bool,
}

/// Why something is in the jail: the line that asked, and the steps from there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// The line.
    pub origin: Arc<Origin>,
    /// From the line's own file outwards; empty for what the line names itself.
    pub chain: Vec<Cause>,
}

/// One step from something asked for to something it needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The ELF interpreter or the `#!` interpreter of this file.
    InterpreterOf(PathBuf),
    /// Needed as `name` by this object.
    LibraryOf {
        /// The `DT_NEEDED` text.
        name: String,
        /// The object that needs it.
        object: PathBuf,
    },
    /// The loader's own configuration, which every program needs.
    LoaderConfiguration,
    /// This link inside a bound directory leads there.
    LinkedFrom(PathBuf),
    /// This many links inside a bound directory lead into this directory.
    ManyLinkedFrom {
        /// The bound directory.
        directory: PathBuf,
        /// How many of its links lead there.
        links: usize,
    },
    /// A directory link on the way to this path.
    OnTheWayTo(PathBuf),
    /// The module for this database of nsswitch.conf.
    NameService {
        /// `hosts`.
        database: String,
        /// `dns`.
        service: String,
    },
    /// The generated passwd or group.
    Users,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterpreterOf(file) => write!(f, "interpreter of {}", file.display()),
            Self::LibraryOf { name, object } => write!(f, "{name} needed by {}", object.display()),
            Self::LoaderConfiguration => f.write_str("configuration of the dynamic loader"),
            Self::LinkedFrom(link) => write!(f, "the link {} leads there", link.display()),
            Self::ManyLinkedFrom { directory, links } => {
                write!(f, "{links} links in {} lead there", directory.display())
            }
            Self::OnTheWayTo(path) => write!(f, "on the way to {}", path.display()),
            Self::NameService { database, service } => {
                write!(f, "`{service}` answers for `{database}` in nsswitch.conf")
            }
            Self::Users => f.write_str("the site's own users and groups"),
        }
    }
}

//! The mounts and links of a site: the output of this stage and the vocabulary of all later ones.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::{Extent, FileSystem, HostPath, JailPath, MountAttributes, SiteName};
use crate::manifest::Origin;
pub use crate::sys::{FileId, FileKind};

/// Everything that a site needs on this host now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The site's name.
    pub site: SiteName,
    /// The jail's directory on the host.
    pub root: HostPath,
    /// The file that asks for the site, if one does.
    pub manifest: Option<PathBuf>,
    /// Sorted by target, so parents come before children; one mount per target.
    pub mounts: Vec<Arc<Mount>>,
    /// Symbolic links to reproduce, sorted by path.
    pub links: Vec<Link>,
    /// Placeholders that others mount on, sorted by path: directories and files.
    pub placeholders: Vec<(JailPath, FileKind)>,
    /// Directories of the site's own, sorted by path.
    pub directories: Vec<OwnDirectory>,
    /// Files to write on the host before they are bound, sorted by path.
    pub files: Vec<GeneratedFile>,
    /// Omissions, with the reasons: optional sources that are absent, links that were not followed.
    pub notes: Vec<Note>,
    /// Sentences about who else could harm the site, and how it could harm the host.
    pub warnings: Vec<String>,
    /// Programs that do not start, because they find their libraries by `/proc/self/exe` and the
    /// root has no `/proc`.
    pub without_proc: Vec<HostPath>,
}

impl Desired {
    /// A site that needs nothing, as after `down`.
    pub fn nothing(site: &SiteName, root: &HostPath) -> Self {
        Self {
            site: site.clone(),
            root: root.clone(),
            manifest: None,
            mounts: vec![],
            links: vec![],
            placeholders: vec![],
            directories: vec![],
            files: vec![],
            notes: vec![],
            warnings: vec![],
            without_proc: vec![],
        }
    }

    /// The targets of the mounts.
    pub(crate) fn targets(&self) -> BTreeSet<&JailPath> {
        self.mounts.iter().map(|mount| &mount.target).collect()
    }

    /// Sorts the mounts, once some were added.
    pub(super) fn sort_mounts(&mut self) {
        self.mounts.sort_by(|a, b| a.target.cmp(&b.target));
    }

    /// The mount at `target`.
    pub(crate) fn mount_at(&self, target: &JailPath) -> Option<&Arc<Mount>> {
        self.mounts.iter().find(|mount| mount.target == *target)
    }

    /// The root's own directories on the way to its mounts, parents first.
    pub fn ways(&self) -> Vec<JailPath> {
        let targets = self.targets();
        let mut ways = BTreeSet::new();
        for mount in &self.mounts {
            for directory in mount.target.directories_above() {
                if targets.contains(&directory) {
                    break; // what is below is in that mount
                }
                ways.insert(directory);
            }
        }
        ways.into_iter().collect()
    }
}

/// One mount: a bind mount, or a file system of the site's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mount {
    /// The mount point inside; none of its components is a link in the finished jail.
    pub target: JailPath,
    /// The real file on the host: all links followed. For a file system of the site's own, which
    /// has none, the target.
    pub source: HostPath,
    /// The file system of the site's own that is mounted; `None`: `source` is bound.
    pub file_system: Option<FileSystem>,
    /// The identity of `source`; `None` for a generated file that is not written yet, and for a
    /// file system of the site's own.
    pub file: Option<FileId>,
    /// The kind of `source`, and therefore of the placeholder.
    pub kind: FileKind,
    /// The mount's attributes.
    pub attributes: MountAttributes,
    /// Submounts come along, with the same attributes.
    pub recursive: bool,
    /// Why it is here; at least one.
    pub reasons: Vec<Reason>,
}

impl Mount {
    /// The thing that is mounted, in words: the source, or the file system.
    pub fn what(&self) -> String {
        match self.file_system {
            Some(file_system) => format!("a {} of its own", file_system.name()),
            None => self.source.to_string(),
        }
    }

    /// The source, as mount(8) names it.
    pub fn source_name(&self) -> String {
        match self.file_system {
            Some(file_system) => file_system.name().to_owned(),
            None => self.source.to_string(),
        }
    }

    /// Which mounts of the source's tree are mounted.
    pub fn extent(&self) -> Extent {
        Extent::from_recursive(self.recursive)
    }

    /// How it is mounted, as options of mount(8): `ro,nosuid,nodev,noexec,recursive`.
    pub fn options(&self) -> String {
        let mut options = self.attributes.to_string();
        for (name, value) in self.file_system.into_iter().flat_map(FileSystem::options) {
            options = format!("{options},{name}={value}");
        }
        if self.recursive {
            options.push_str(",recursive");
        }
        options
    }
}

/// A directory of the site's own, with what it gets when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnDirectory {
    /// The path inside.
    pub path: JailPath,
    /// Owner, group and mode.
    pub owner: Ownership,
    /// Why it is here; at least one.
    pub reasons: Vec<Reason>,
}

/// Owner, group and mode of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The user's ID.
    pub uid: u32,
    /// The group's ID.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
}

impl fmt::Display for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, gid, mode } = self;
        write!(f, "{uid}:{gid} {mode:04o}")
    }
}

/// A symbolic link in the jail, as on the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The path of the link inside.
    pub path: JailPath,
    /// Where it leads, as readlink(2) has it: `usr/lib`.
    pub destination: PathBuf,
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
    /// It is reported for a preset's line too, because something will not work.
    pub always: bool,
}

impl Note {
    /// A note about the line at `origin`.
    pub(super) fn new(origin: &Arc<Origin>, text: String) -> Self {
        Self {
            origin: Arc::clone(origin),
            text,
            always: false,
        }
    }

    /// The same, reported for a preset's line too.
    pub(super) fn always(origin: &Arc<Origin>, text: String) -> Self {
        Self {
            always: true,
            ..Self::new(origin, text)
        }
    }
}

/// Something that a line asks for, and that line.
pub(super) type Asked<'a, T> = (&'a T, &'a Arc<Origin>);

/// Why something is in the jail: the line that asked, and the steps from there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// The line of a manifest or preset that asks for it.
    pub origin: Arc<Origin>,
    /// From the line's own file outwards; empty for what the line itself names.
    pub chain: Vec<Cause>,
}

impl Reason {
    /// A line that names the thing itself.
    pub(super) fn line(origin: &Arc<Origin>) -> Self {
        Self::chain(origin, vec![])
    }

    /// A line that asks for the thing by way of `chain`.
    pub(super) fn chain(origin: &Arc<Origin>, chain: Vec<Cause>) -> Self {
        let origin = Arc::clone(origin);
        Self { origin, chain }
    }
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
    /// This configuration file includes it.
    IncludedBy(PathBuf),
    /// This configuration file has it loaded.
    ModuleOf(PathBuf),
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
            Self::IncludedBy(file) => write!(f, "{} includes it", file.display()),
            Self::ModuleOf(file) => write!(f, "module of {}", file.display()),
            Self::OnTheWayTo(path) => write!(f, "on the way to {}", path.display()),
            Self::NameService { database, service } => {
                write!(f, "`{service}` answers for `{database}` in nsswitch.conf")
            }
            Self::Users => f.write_str("the site's own users and groups"),
        }
    }
}

//! The requests of a manifest, after validation, with those of its presets.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::instances::Instances;
use crate::base::{FileSystem, HostPath, JailPath, SiteName};

/// One site: its root, and everything that it and its presets ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The site's name: the manifest's file name without `.yaml`.
    pub site: SiteName,
    /// The file that it is from.
    pub file: SourceFile,
    /// The jail's directory on the host, as written.
    pub root: HostPath,
    /// The lines of the defaults and the site's own lines first, then each preset's once, in the
    /// order of inclusion. Those of the defaults and of presets are the same for every site that
    /// has them, so they are shared.
    pub entries: Vec<Arc<Entry>>,
    /// systemd units that run inside, those of the defaults first.
    pub services: Vec<String>,
    /// Those of the services that the defaults name, and the file of the defaults.
    pub default_services: Option<(Vec<String>, SourceFile)>,
    /// Where its mounts are.
    pub scope: Scope,
    /// All instances of the template that the file is; `None`: it is the manifest of one site.
    pub instances: Option<Instances>,
}

impl Manifest {
    /// The file that names `service`.
    pub fn file_of_service(&self, service: &str) -> &SourceFile {
        match &self.default_services {
            Some((names, file)) if names.iter().any(|name| name == service) => file,
            _ => &self.file,
        }
    }
}

/// `scope:` of a site: the mount namespaces that its mounts are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The host's own, which is the default.
    #[default]
    Host,
    /// Those of its services.
    Services,
}

/// One line of a manifest or preset, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The request of the line.
    pub request: Request,
    /// The file and line that ask for it, for messages and `why`.
    pub origin: Arc<Origin>,
}

/// The request of one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// `devices`: names under `/dev`, without the prefix.
    Device(Wanted<String>),
    /// `etc`: names under `/etc`, without the prefix; may contain `/`.
    Etc(Wanted<String>),
    /// `programs`: executables, with interpreter and shared libraries.
    Program(Wanted<CodeName>),
    /// `libraries`: objects opened at run time, with the libraries they need.
    Library(Wanted<CodeName>),
    /// `users`: one login name of the generated passwd and group.
    User(Wanted<String>),
    /// `nss`: one database of nsswitch.conf(5), whose modules come along.
    NameService(String),
    /// `mounts`: a file or directory.
    Mount(MountRequest),
    /// `directories`: one of the site's own, which is made where it is missing.
    Directory(DirectoryRequest),
    /// `tmpfs` and `proc`: a file system of the site's own, and its mount point inside.
    FileSystem(JailPath, FileSystem),
}

impl Request {
    /// Whether files of the host may be mounted for it.
    pub fn may_bring_mounts(&self) -> bool {
        !matches!(
            self,
            Self::User(_) | Self::Directory(_) | Self::FileSystem(..)
        )
    }
}

/// One thing, or alternatives of which the first that exists on this host is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted<T> {
    /// At least one; more where the file says `any_of`.
    pub any_of: Vec<T>,
    /// It may be absent on this host: it is then skipped with a note.
    pub optional: bool,
}

/// An absolute path in which `*`, `?` and `[…]` may stand for more than one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    path: HostPath,
    glob: bool,
}

impl Pattern {
    /// A pattern from an already validated path.
    pub fn new(path: HostPath) -> Self {
        let text = path.as_path().to_string_lossy();
        // glob(7): a bracket that is never closed stands for itself, as in /usr/bin/[.
        let range = text
            .split_once('[')
            .is_some_and(|(_, rest)| rest.contains(']'));
        let glob = range || text.contains(['*', '?']);
        Self { path, glob }
    }

    /// A path in which no character stands for others.
    pub fn literal(path: HostPath) -> Self {
        Self { path, glob: false }
    }

    /// The path as written.
    pub fn path(&self) -> &HostPath {
        &self.path
    }

    /// Whether it may match more than one file.
    pub fn is_glob(&self) -> bool {
        self.glob
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// A program or library: where it is, or what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CodeName {
    /// A path or pattern.
    Path(Pattern),
    /// A name without a slash. Programs are looked for in the default `PATH`, libraries as the
    /// loader looks for them.
    Name(String),
}

impl fmt::Display for CodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(pattern) => pattern.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// An item of `directories`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirectoryRequest {
    /// The path inside.
    pub path: JailPath,
    /// The login name of its owner; `None`: root.
    pub user: Option<String>,
    /// Its group; `None`: the owner's.
    pub group: Option<String>,
    /// Its mode.
    pub mode: u32,
}

/// An item of `mounts`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MountRequest {
    /// `source` or `any_of`, and `optional`.
    pub sources: Wanted<Pattern>,
    /// The mount point inside; `None`: the path of the source. Never set together with a glob.
    pub target: Option<JailPath>,
    /// Whether the jail may write through it.
    pub access: Access,
    /// Take submounts along.
    pub recursive: bool,
    /// Whether files in it can be executed; `None`: by class.
    pub executable: Option<bool>,
    /// Whether device nodes in it work; `None`: by class.
    pub devices: Option<bool>,
    /// Whether setuid bits in it count; `None`: by class.
    pub setuid: Option<bool>,
}

/// `access:` of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// The default.
    #[default]
    ReadOnly,
    /// It must be requested explicitly.
    ReadWrite,
}

/// The file that a line is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceFile {
    /// A file on disk.
    File(PathBuf),
    /// A preset that is part of the binary, by name.
    BuiltIn(String),
}

impl fmt::Display for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::BuiltIn(name) => write!(f, "<built-in preset {name}>"),
        }
    }
}

/// Where an entry is: the line that brought something in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The manifest or preset that has the line.
    pub file: SourceFile,
    /// The key's path in it: `mounts[3]`.
    pub key: String,
    /// The item as the user wrote it, on one line: `/usr/share/fonts`.
    pub text: String,
    /// The presets that led here, outermost first: `["php-fpm", "dns"]`; empty for the site's own
    /// lines.
    pub presets: Vec<String>,
    /// The defaults of all sites led here: the line is in them, or in a preset that they include.
    pub defaults: bool,
}

impl Origin {
    /// Whether the line is in the site's own manifest.
    pub fn is_sites_own(&self) -> bool {
        self.presets.is_empty() && !self.defaults
    }
}

impl fmt::Display for Origin {
    /// `etc[2] (resolv.conf) of preset dns, included by php-fpm` or `/etc/mountjail/sites/a.yaml:
    /// etc[2] (hosts)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((preset, including)) = self.presets.split_last() else {
            return write!(f, "{}: {} ({})", self.file, self.key, self.text);
        };
        write!(f, "{} ({}) of preset {preset}", self.key, self.text)?;
        for outer in including.iter().rev() {
            write!(f, ", included by {outer}")?;
        }
        if self.defaults {
            write!(f, ", included by defaults.yaml")?;
        }
        Ok(())
    }
}

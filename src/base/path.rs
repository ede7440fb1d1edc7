//! Names and paths, validated once, at the edge.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The links that the kernel follows in one lookup; one more is ELOOP (`path_resolution(7)`).
pub(crate) const MAX_LINKS: usize = 40;

/// Where programs are looked for when nothing else is configured, as Debian and systemd have it for
/// services.
pub(crate) const SEARCH_PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Why a text is not a usable path or name; `Display` is a clause: "it is not absolute".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// The empty text.
    #[error("it is empty")]
    Empty,
    /// It does not begin with `/`.
    #[error("it is not absolute")]
    NotAbsolute,
    /// It has a `..` component.
    #[error("it contains `..`")]
    ParentComponent,
    /// It has a NUL byte.
    #[error("it contains a NUL byte")]
    Nul,
    /// A component is longer than 255 bytes or the whole longer than 4095 (`NAME_MAX`, `PATH_MAX`).
    #[error("it is longer than the kernel allows")]
    TooLong,
    /// A site's name that could not be a file's name, an fstab comment or a unit instance.
    #[error(
        "a site's name has letters, digits, `.`, `_`, `-` and `@`, \
         and begins with a letter or digit"
    )]
    SiteName,
}

/// Checks `path`, and removes `.` components, doubled and trailing slashes.
fn normal(path: &Path) -> Result<PathBuf, BadPath> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Err(BadPath::Empty);
    }
    if bytes.contains(&0) {
        return Err(BadPath::Nul);
    }
    if bytes.len() > 4095 {
        return Err(BadPath::TooLong);
    }
    if bytes[0] != b'/' {
        return Err(BadPath::NotAbsolute);
    }
    if is_normal(bytes) {
        return Ok(path.to_owned());
    }
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) if name.len() > 255 => return Err(BadPath::TooLong),
            Component::Normal(name) => out.push(name),
            Component::ParentDir => return Err(BadPath::ParentComponent),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

/// Whether every component between the slashes is a name.
fn is_normal(bytes: &[u8]) -> bool {
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= 255;
    bytes == b"/" || bytes[1..].split(|byte| *byte == b'/').all(is_name)
}

/// Where a link in `directory` leads that says `destination`, if no name on the way is itself a
/// link.
pub(crate) fn lexical(directory: &Path, destination: &Path) -> PathBuf {
    let mut path = if destination.is_absolute() {
        PathBuf::from("/")
    } else {
        directory.to_owned()
    };
    for component in destination.components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path
}

/// Whether programs are looked for in `directory`, by the default PATH.
pub(crate) fn is_searched(directory: &Path) -> bool {
    SEARCH_PATH
        .iter()
        .any(|known| directory == Path::new(known))
}

/// Where `path` leads: `next` gives it with the first link on its way followed, or `None` if there
/// is none. After [`MAX_LINKS`] it is returned as far as it came.
pub(crate) fn follow_links<P: PartialEq>(path: P, mut next: impl FnMut(&P) -> Option<P>) -> P {
    let mut at = path;
    for _ in 0..MAX_LINKS {
        match next(&at) {
            Some(further) if further != at => at = further,
            _ => break,
        }
    }
    at
}

/// The order of normal paths by their components: `/` sorts before every other byte.
fn by_component(a: &[u8], b: &[u8]) -> Ordering {
    let same = length_of_same(a, b);
    match (a.get(same), b.get(same)) {
        (Some(a), Some(b)) => rank(*a).cmp(&rank(*b)),
        _ => a.len().cmp(&b.len()),
    }
}

fn rank(byte: u8) -> u16 {
    if byte == b'/' { 0 } else { u16::from(byte) + 1 }
}

/// How many bytes at the beginning are the same. Paths often have a long part in common.
fn length_of_same(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = size_of::<u64>();
    let words = a.as_chunks::<WORD>().0.iter().zip(b.as_chunks::<WORD>().0);
    let words = words.take_while(|(a, b)| a == b).count() * WORD;
    let rest = a[words..].iter().zip(&b[words..]);
    words + rest.take_while(|(a, b)| a == b).count()
}

macro_rules! absolute_path {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(try_from = "PathText", into = "PathText")]
        pub struct $name(Arc<Path>);

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.bytes() == other.bytes()
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.bytes().hash(state);
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                by_component(self.bytes(), other.bytes())
            }
        }

        impl $name {
            /// Validates and normalises `path`: absolute, no `..`, no NUL, within the kernel's
            /// lengths.
            pub fn new(path: impl AsRef<Path>) -> Result<Self, BadPath> {
                normal(path.as_ref()).map(Self::from_buffer)
            }

            /// The path itself.
            pub fn as_path(&self) -> &Path {
                &self.0
            }

            /// `/`.
            pub fn slash() -> Self {
                Self::of_bytes(b"/")
            }

            fn from_buffer(path: PathBuf) -> Self {
                Self(path.into())
            }

            fn of_bytes(bytes: &[u8]) -> Self {
                Self(Path::new(OsStr::from_bytes(bytes)).into())
            }

            /// The length of the directory that holds it, as a path; `None` for `/`.
            fn length_of_parent(&self) -> Option<usize> {
                let bytes = self.bytes();
                let slash = bytes.iter().rposition(|byte| *byte == b'/')?;
                (bytes.len() > 1).then_some(slash.max(1))
            }

            /// The directory that holds it; `None` for `/`.
            pub fn parent(&self) -> Option<Self> {
                self.length_of_parent()
                    .map(|length| Self::of_bytes(&self.bytes()[..length]))
            }

            /// Whether `other` is in the same directory.
            pub fn is_beside(&self, other: &Self) -> bool {
                match (self.length_of_parent(), other.length_of_parent()) {
                    (Some(mine), Some(theirs)) => {
                        self.bytes()[..mine] == other.bytes()[..theirs]
                    }
                    _ => false,
                }
            }

            /// The last component; `None` for `/`.
            pub fn file_name(&self) -> Option<&OsStr> {
                let slash = self.length_of_parent()?;
                let name = &self.bytes()[slash..];
                Some(OsStr::from_bytes(name.strip_prefix(b"/").unwrap_or(name)))
            }

            /// Whether `self` is `base` or below it, by whole components.
            pub fn starts_with(&self, base: &Self) -> bool {
                self.below(base).is_some()
            }

            /// The part after `base`, with no leading slash; `None` if `self` is not below `base`.
            pub fn below(&self, base: &Self) -> Option<&Path> {
                let rest = match self.bytes().strip_prefix(base.bytes())? {
                    rest if base.bytes() == b"/" => rest,
                    [] => &[],
                    [b'/', rest @ ..] => rest,
                    _ => return None,
                };
                Some(Path::new(OsStr::from_bytes(rest)))
            }

            fn bytes(&self) -> &[u8] {
                self.0.as_os_str().as_bytes()
            }

            /// `self` with one more component or a relative path of such; refuses what
            /// [`Self::new`] refuses.
            pub fn join(&self, name: impl AsRef<Path>) -> Result<Self, BadPath> {
                if name.as_ref().is_absolute() {
                    return Err(BadPath::NotAbsolute);
                }
                Self::new(self.0.join(name))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.display(), f)
            }
        }

        impl AsRef<Path> for $name {
            fn as_ref(&self) -> &Path {
                &self.0
            }
        }

        impl TryFrom<PathText> for $name {
            type Error = BadPath;
            fn try_from(text: PathText) -> Result<Self, BadPath> {
                Self::new(text.decoded())
            }
        }

        impl From<$name> for PathText {
            fn from(path: $name) -> Self {
                Self::encoded(&path.0)
            }
        }
    };
}

absolute_path! {
    /// A path on the host: absolute, normal, without `..`.
    HostPath
}

absolute_path! {
    /// A path as a process inside the jail sees it: absolute, normal, without `..`.
    ///
    /// Its order is by component, so a parent sorts before what is below it.
    JailPath
}

impl HostPath {
    /// The path itself and all directories above it, innermost first; the last is `/`.
    pub fn ancestors(&self) -> impl Iterator<Item = HostPath> {
        std::iter::successors(Some(self.clone()), Self::parent)
    }

    /// Where `path` of the jail with the root `self` is on the host.
    ///
    /// This is for display and comparison. Code that mounts or writes opens
    /// [`JailPath::relative`] beneath the root's file descriptor, so that no link can lead
    /// elsewhere.
    #[must_use]
    pub fn inside(&self, path: &JailPath) -> HostPath {
        match (self.bytes(), path.bytes()) {
            (_, b"/") => self.clone(),
            (b"/", path) => HostPath::of_bytes(path),
            (root, path) => HostPath::of_bytes(&[root, path].concat()),
        }
    }

    /// Where the host's `path`, as the kernel gave it, is inside the jail with the root `self`: the
    /// inverse of [`inside`](Self::inside). `None`: it is not below the root.
    pub fn path_inside(&self, path: &Path) -> Option<JailPath> {
        let below = path.strip_prefix(&self.0).ok()?;
        Some(JailPath::normal(Path::new("/").join(below)))
    }
}

impl JailPath {
    /// A path that is absolute and normal, because the kernel gave it. It may be longer than the
    /// paths that the kernel accepts.
    pub(crate) fn normal(path: PathBuf) -> Self {
        debug_assert!(is_normal(path.as_os_str().as_bytes()));
        Self::from_buffer(path)
    }

    /// The path without its leading slash, as `openat2` wants it; `.` for `/`.
    pub fn relative(&self) -> &Path {
        match self.bytes() {
            [b'/', rest @ ..] if !rest.is_empty() => Path::new(OsStr::from_bytes(rest)),
            _ => Path::new("."),
        }
    }

    /// All directories on the way, outermost first, without `/` and without the path itself.
    pub fn directories_above(&self) -> Vec<JailPath> {
        let bytes = self.bytes();
        let ends = (1..bytes.len()).filter(|end| bytes[*end] == b'/');
        ends.map(|end| Self::of_bytes(&bytes[..end])).collect()
    }

    /// The same path on the host, which is what `source:` alone means.
    pub fn on_host(&self) -> HostPath {
        HostPath(Arc::clone(&self.0))
    }
}

/// A path in JSON: text if it is UTF-8, otherwise `{"bytes": [..]}`, so nothing is lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum PathText {
    Text(String),
    Bytes { bytes: Vec<u8> },
}

impl PathText {
    fn encoded(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes {
                bytes: path.as_os_str().as_bytes().to_vec(),
            },
        }
    }

    fn decoded(&self) -> PathBuf {
        match self {
            Self::Text(text) => PathBuf::from(text),
            Self::Bytes { bytes } => PathBuf::from(OsStr::from_bytes(bytes)),
        }
    }
}

/// A site's name: the stem of its manifest's file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteName(String);

impl SiteName {
    /// Validates `name`: 1 to 200 letters, digits, `.`, `_`, `-` or `@`, the first a letter or
    /// digit.
    pub fn new(name: &str) -> Result<Self, BadPath> {
        let usable = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        let Some(first) = name.chars().next() else {
            return Err(BadPath::Empty);
        };
        if !first.is_ascii_alphanumeric() || !name.chars().all(usable) {
            return Err(BadPath::SiteName);
        }
        if name.len() > 200 {
            return Err(BadPath::TooLong);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names of the template and of the instance, as those of a unit: what is before the first
    /// `@`, and what is after it. `None`: one of them is empty.
    pub fn instance(&self) -> Option<(&str, &str)> {
        let (template, instance) = self.0.split_once('@')?;
        (!template.is_empty() && !instance.is_empty()).then_some((template, instance))
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for SiteName {
    type Error = BadPath;
    fn try_from(name: String) -> Result<Self, BadPath> {
        Self::new(&name)
    }
}

impl From<SiteName> for String {
    fn from(name: SiteName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests;

//! Facts about a dynamic loader from its file. It is read, never executed.
//!
//! A loader's name does not tell what it is: behind glibc's name there may be musl's loader, or a
//! program that starts musl's with a library of glibc's functions (gcompat).

use super::system::{self, Family};
use crate::base::HostPath;

/// The beginning of the name of musl's configuration, which only its own loader has in it.
const MUSL_PATH_FILE: &[u8] = b"/etc/ld-musl-";

/// The longest path that is looked for in a loader.
const LONGEST: usize = 256;

/// The facts that were found in the file of a loader.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LoaderFile {
    /// `None`: the file does not tell.
    pub family: Option<Family>,
    /// glibc's default directories.
    pub directories: Option<Vec<String>>,
    /// musl's architecture: `x86_64`.
    pub architecture: Option<String>,
    /// gcompat: musl's loader and the library, which it starts and preloads.
    pub starts: Vec<HostPath>,
}

impl LoaderFile {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let directories = system::default_directories(bytes);
        if let Some(path) = text_with(bytes, MUSL_PATH_FILE) {
            let name = path.strip_prefix("/etc/ld-musl-").unwrap_or_default();
            return Self {
                family: Some(Family::Musl),
                architecture: name.strip_suffix(".path").map(ToOwned::to_owned),
                ..Self::default()
            };
        }
        let starts = started(bytes);
        let family = if starts.is_empty() {
            directories.as_ref().map(|_| Family::Glibc)
        } else {
            Some(Family::Musl)
        };
        Self {
            family,
            directories,
            architecture: None,
            starts,
        }
    }
}

/// The paths of musl's loader and of gcompat's library in `bytes`, if both are there.
fn started(bytes: &[u8]) -> Vec<HostPath> {
    let loader = path_with(bytes, b"/ld-musl-");
    let library = path_with(bytes, b"/libgcompat.so");
    match (loader, library) {
        (Some(loader), Some(library)) => vec![loader, library],
        _ => vec![],
    }
}

fn path_with(bytes: &[u8], mark: &[u8]) -> Option<HostPath> {
    HostPath::new(text_with(bytes, mark)?).ok()
}

/// The path in `bytes` that begins with `mark`, or that has it in it: up to the NUL behind it, and
/// from the slash with which the text begins, or else from `mark`. musl's is the end of a format.
fn text_with<'b>(bytes: &'b [u8], mark: &[u8]) -> Option<&'b str> {
    for text in bytes.split(|byte| *byte == 0) {
        let mut parts = text.windows(mark.len());
        if let Some(at) = parts.position(|part| part == mark)
            && text.len() < LONGEST
        {
            let from = if text.starts_with(b"/") { 0 } else { at };
            return std::str::from_utf8(&text[from..]).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_is_known_by_its_contents() {
        let musl = LoaderFile::of(b"\x7fELF\0x\0%.*s/etc/ld-musl-x86_64.path\0/lib:/usr/lib\0");
        assert_eq!(musl.family, Some(Family::Musl));
        assert_eq!(musl.architecture.as_deref(), Some("x86_64"));
        let stub = LoaderFile::of(b"\0/lib/ld-musl-x86_64.so.1\0/lib/libgcompat.so.0\0--preload\0");
        assert_eq!((stub.family, stub.starts.len()), (Some(Family::Musl), 2));
        let glibc = LoaderFile::of(
            b"\0/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0",
        );
        assert_eq!(glibc.family, Some(Family::Glibc));
        assert_eq!(LoaderFile::of(b"\x7fELF"), LoaderFile::default());
    }
}

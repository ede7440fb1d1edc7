//! The properties of a source on this host, as far as the manifest's keys depend on them.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::resolve::ldso::{Code, is_library_name};
use crate::sys;

/// How many files of a directory are examined. A directory with more is taken to have programs.
const MAX_FILES: usize = 20_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceProperties {
    pub kind: SourceKind,
    /// It is or holds something that can be executed or mapped as code.
    pub code: bool,
    /// It has or holds a setuid or setgid bit.
    pub setuid: bool,
    /// It is or holds a device node.
    pub devices: bool,
}

/// The kind of the file, links followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SourceKind {
    #[default]
    Missing,
    Directory,
    /// An executable, with an ELF header or `#!`.
    Program,
    /// A shared object.
    Library,
    Device,
    /// Another file.
    File,
}

impl SourceProperties {
    /// The properties of `path` and, if it is a directory, of its files.
    pub(super) fn of(path: &Path) -> Self {
        let mut properties = Self {
            kind: SourceKind::of(path),
            ..Self::default()
        };
        if properties.kind == SourceKind::Directory {
            let files = files_below(path);
            properties.code = files.len() >= MAX_FILES;
            for file in &files {
                properties.add(file);
            }
        } else {
            properties.add(path);
        }
        properties
    }

    fn add(&mut self, path: &Path) {
        let Ok(metadata) = fs::metadata(path) else {
            return;
        };
        let kind = metadata.file_type();
        self.code |= kind.is_file() && is_code(path, metadata.mode());
        self.setuid |= kind.is_file() && metadata.mode() & 0o6000 != 0;
        self.devices |= kind.is_char_device() || kind.is_block_device();
    }
}

impl SourceKind {
    pub(super) fn of(path: &Path) -> Self {
        let Ok(metadata) = fs::metadata(path) else {
            return Self::Missing;
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            Self::Directory
        } else if kind.is_char_device() || kind.is_block_device() {
            Self::Device
        } else if !kind.is_file() {
            Self::File
        } else {
            match code_of(path, metadata.mode()) {
                Some(Code::Program | Code::Script) => Self::Program,
                Some(Code::Library | Code::RunnableLibrary) => Self::Library,
                None => Self::File,
            }
        }
    }
}

/// Whether it is a script or program, or may be loaded by one. A text whose executable bits are set
/// by accident is not code.
fn is_code(path: &Path, mode: u32) -> bool {
    is_object_name(path) || code_of(path, mode).is_some()
}

fn code_of(path: &Path, mode: u32) -> Option<Code> {
    let file = sys::open_regular(path).ok()?;
    Code::of(&file, path.file_name()?, mode & 0o111 != 0)
}

/// Whether a file of this name is a shared object: `libc.so.6`, `mod_a.so`.
pub(super) fn is_object_name(path: &Path) -> bool {
    path.file_name().is_some_and(is_library_name)
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = sys::open_regular(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"\x7fELF"
}

/// The files in the directory `top` and below, links not followed, no more than [`MAX_FILES`].
fn files_below(top: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if !kind.is_symlink() => files.push(entry.path()),
                _ => {}
            }
            if files.len() >= MAX_FILES {
                return files;
            }
        }
    }
    files
}

/// The programs and shared objects in a directory and below; `None`: there are more than `most`.
pub(super) fn objects_below(top: &Path, most: usize) -> Option<Vec<PathBuf>> {
    let files = files_below(top);
    if files.len() >= MAX_FILES {
        return None;
    }

    let mut objects = vec![];
    for file in files {
        if is_elf(&file) {
            objects.push(file);
        }
        if objects.len() > most {
            return None;
        }
    }
    objects.sort();
    Some(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_known_by_their_contents_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &[u8], mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        assert_eq!(
            SourceKind::of(&file("script", b"#!/bin/sh\n", 0o755)),
            SourceKind::Program
        );
        assert_eq!(
            SourceKind::of(&file("liba.so.1", b"\x7fELF\x02", 0o644)),
            SourceKind::Library
        );
        assert_eq!(SourceKind::of(&file("text", b"x", 0o755)), SourceKind::File);
        assert_eq!(
            SourceKind::of(&file("elf", b"\x7fELF\x02", 0o644)),
            SourceKind::File
        );
        assert_eq!(
            (
                SourceKind::of(dir.path()),
                SourceKind::of(Path::new("/dev/null"))
            ),
            (SourceKind::Directory, SourceKind::Device)
        );
        assert_eq!(
            SourceKind::of(&dir.path().join("none")),
            SourceKind::Missing
        );
        let found = SourceProperties::of(dir.path());
        assert!(found.code && !found.setuid && !found.devices, "{found:?}");
        file("setuid", b"x", 0o4755);
        assert!(SourceProperties::of(dir.path()).setuid);
        assert_eq!(
            objects_below(dir.path(), 2).unwrap(),
            [dir.path().join("elf"), dir.path().join("liba.so.1")]
        );
        assert_eq!(objects_below(dir.path(), 1), None);
    }
}

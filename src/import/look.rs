//! What a path is on this host, as far as a manifest's keys differ by it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::resolve::ldso::{Code, is_library_name};
use crate::sys;

/// How many files of a directory are looked at. In one with more there are surely programs.
const MANY: usize = 20_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub kind: What,
    /// It is, or holds, something that can be executed or mapped as code.
    pub code: bool,
    /// It has, or holds something with, a setuid or setgid bit.
    pub setuid: bool,
    /// It is, or holds, a device node.
    pub devices: bool,
}

/// What kind of file, links followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing is there.
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

/// Looks at `path`, and, if it is a directory, at what is in it.
pub(super) fn look(path: &Path) -> Look {
    let mut look = Look {
        kind: what(path),
        ..Look::default()
    };
    if look.kind == What::Directory {
        let files = files_below(path);
        look.code = files.len() >= MANY;
        for file in &files {
            look.add(file);
        }
    } else {
        look.add(path);
    }
    look
}

impl Look {
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

/// What kind of file `path` is.
pub(super) fn what(path: &Path) -> What {
    let Ok(metadata) = fs::metadata(path) else {
        return What::Missing;
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        return What::Directory;
    }
    if kind.is_char_device() || kind.is_block_device() {
        return What::Device;
    }
    if !kind.is_file() {
        return What::File;
    }
    match code_of(path, metadata.mode()) {
        Some(Code::Program) => What::Program,
        Some(Code::Library | Code::RunnableLibrary) => What::Library,
        None => What::File,
    }
}

/// A script or program, or what may be loaded by one. Text with its bits set by accident is none.
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

/// The files in the directory `top` and below, links not followed, no more than [`MANY`].
fn files_below(top: &Path) -> Vec<PathBuf> {
    let (mut files, mut directories) = (vec![], vec![top.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if !kind.is_symlink() => files.push(entry.path()),
                _ => {}
            }
            if files.len() >= MANY {
                return files;
            }
        }
    }
    files
}

/// The programs and shared objects in a directory and below; `None`: there are more than `most`.
pub(super) fn objects_below(top: &Path, most: usize) -> Option<Vec<PathBuf>> {
    let files = files_below(top);
    let mut objects: Vec<_> = files
        .iter()
        .filter(|file| is_elf(file))
        .take(most + 1)
        .cloned()
        .collect();
    objects.sort();
    (files.len() < MANY && objects.len() <= most).then_some(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_told_by_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &[u8], mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        assert_eq!(what(&file("script", b"#!/bin/sh\n", 0o755)), What::Program);
        assert_eq!(
            what(&file("liba.so.1", b"\x7fELF\x02", 0o644)),
            What::Library
        );
        assert_eq!(what(&file("text", b"x", 0o755)), What::File);
        assert_eq!(what(&file("elf", b"\x7fELF\x02", 0o644)), What::File);
        assert_eq!(
            (what(dir.path()), what(Path::new("/dev/null"))),
            (What::Directory, What::Device)
        );
        assert_eq!(what(&dir.path().join("none")), What::Missing);
        let found = look(dir.path());
        assert!(found.code && !found.setuid && !found.devices, "{found:?}");
        file("setuid", b"x", 0o4755);
        assert!(look(dir.path()).setuid);
        assert_eq!(
            objects_below(dir.path(), 2).unwrap(),
            [dir.path().join("elf"), dir.path().join("liba.so.1")]
        );
        assert_eq!(objects_below(dir.path(), 1), None);
    }
}

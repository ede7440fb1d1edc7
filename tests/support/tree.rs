//! A directory as it is on its own file system, to compare before and after.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mountjail::base::Extent;

/// The entries of a directory: for each path a line with everything that should be as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, String>);

/// Lists `path` and what is below it, without any mount on top: placeholders show as themselves.
///
/// Of each entry: type, mode, owner, extended attributes; of a file also length, modification time
/// and a hash of its contents; of a link its text; of a device its number.
pub fn tree(path: &Path) -> Tree {
    let dir = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(path)
        .unwrap();
    let bare = File::from(mountjail::sys::clone_mount(&dir, Extent::Mount).unwrap());
    let top = PathBuf::from(format!("/proc/self/fd/{}/.", bare.as_raw_fd()));
    let mut entries = BTreeMap::new();
    collect(&top, Path::new("."), &mut entries);
    Tree(entries)
}

impl Tree {
    /// The paths in it, relative, with `.` for the directory itself.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// The same without the modification times of empty files, which placeholders are.
    #[must_use]
    pub fn without_times_of_empty_files(mut self) -> Tree {
        for line in self
            .0
            .values_mut()
            .filter(|line| line.contains(" 0 bytes, "))
        {
            line.truncate(line.find(", of ").unwrap());
        }
        self
    }

    /// Fails with the differences if `after` is not the same.
    #[track_caller]
    pub fn assert_same(&self, after: &Tree) {
        let changes = self.changes(after);
        assert!(
            changes.is_empty(),
            "the directory is not as before:\n{changes}"
        );
    }

    /// The differences to `after`; empty if there are none.
    pub fn changes(&self, after: &Tree) -> String {
        let mut text = String::new();
        for (path, was) in &self.0 {
            match after.0.get(path) {
                Some(is) if is == was => {}
                Some(is) => writeln!(text, "~ {}: {was}\n  now {is}", path.display()).unwrap(),
                None => writeln!(text, "- {}: {was}", path.display()).unwrap(),
            }
        }
        for (path, is) in after
            .0
            .iter()
            .filter(|(path, _)| !self.0.contains_key(*path))
        {
            writeln!(text, "+ {}: {is}", path.display()).unwrap();
        }
        text
    }
}

fn collect(top: &Path, relative: &Path, entries: &mut BTreeMap<PathBuf, String>) {
    let path = top.join(relative);
    let meta = path.symlink_metadata().unwrap();
    entries.insert(relative.to_owned(), describe(&path, &meta));
    if meta.is_dir() {
        for entry in fs::read_dir(&path).unwrap() {
            collect(top, &relative.join(entry.unwrap().file_name()), entries);
        }
    }
}

fn describe(path: &Path, meta: &Metadata) -> String {
    let kind = meta.file_type();
    let what = if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        format!(
            "{} bytes, {:016x}, of {}.{:09}",
            meta.len(),
            hash(path),
            meta.mtime(),
            meta.mtime_nsec()
        )
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {:#x}", meta.rdev())
    } else {
        String::new()
    };
    format!(
        "{:o} {}:{} {what}{}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        attributes(path)
    )
}

fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    fs::read(path).unwrap().hash(&mut hasher);
    hasher.finish()
}

/// The extended attributes, access lists and capabilities among them.
fn attributes(path: &Path) -> String {
    let mut names = vec![0u8; 64 * 1024];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut text = String::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = std::str::from_utf8(name).unwrap();
        let mut value = vec![0u8; 64 * 1024];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        write!(text, " {name}={:02x?}", &value[..length]).unwrap();
    }
    text
}

//! The kernel's mount table, with a parser of its own: the tests must not trust the parser that
//! they test.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

use super::{Ran, soon};

/// One line of `/proc/self/mountinfo`, as `proc_pid_mountinfo(5)` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's id: reused once it is gone.
    pub id: u64,
    /// The path within the file system that is the mount's root.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The options of this mount alone, such as `ro`, `nosuid`.
    pub options: Vec<String>,
    /// `shared:N`, `master:N`; empty when it is private.
    pub propagation: Vec<String>,
    /// The file system's type.
    pub kind: String,
    /// It shows a directory of a template.
    pub is_graft: bool,
}

impl Mount {
    /// Whether the mount has this option.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
}

/// Also mounts `source` on `target`.
pub fn bind(source: &Path, target: &Path) {
    let no_text = None::<&str>;
    mount(Some(source), target, no_text, MsFlags::MS_BIND, no_text).unwrap();
}

/// Every mount of this namespace, in the table's order.
pub fn mounts() -> Vec<Mount> {
    let table = fs::read("/proc/self/mountinfo").unwrap();
    table
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(parse)
        .collect()
}

/// The mounts at and below `path`, in the table's order.
pub fn mounts_below(path: &Path) -> Vec<Mount> {
    mounts()
        .into_iter()
        .filter(|mount| mount.point.starts_with(path) && !mount.is_graft)
        .collect()
}

/// Unmounts everything below `path`, also grafts and templates.
pub fn unmount_all(path: &Path) {
    for mount in mounts().iter().rev() {
        if mount.point.starts_with(path) {
            // What is in a lazily unmounted mount goes with it.
            let _ = umount2(&mount.point, MntFlags::MNT_DETACH);
        }
    }
    assert!(mounts().iter().all(|mount| !mount.point.starts_with(path)));
}

/// Unmounts what is mounted at `path`. It may be in use for a moment: a process that lists what
/// others have open, such as a mountjail of another trial, holds each file for as long.
#[track_caller]
pub fn unmount(path: &Path) {
    soon("it is unmounted", || {
        let ran = Ran::of(Command::new("umount").arg(path));
        (ran.code == 0).then_some(()).ok_or_else(|| ran.to_string())
    });
}

/// The grafts below `path`: the directories that come from templates.
pub fn grafts_below(path: &Path) -> Vec<Mount> {
    mounts()
        .into_iter()
        .filter(|mount| mount.point.starts_with(path) && mount.is_graft)
        .collect()
}

fn parse(line: &[u8]) -> Mount {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let text = |field: &[u8]| String::from_utf8(field.to_vec()).unwrap();
    let separator = fields
        .iter()
        .position(|field| *field == b"-")
        .expect("the separator field");
    Mount {
        id: text(fields[0]).parse().unwrap(),
        root: unescape(fields[3]),
        point: unescape(fields[4]),
        options: text(fields[5]).split(',').map(str::to_owned).collect(),
        propagation: fields[6..separator]
            .iter()
            .map(|field| text(field))
            .collect(),
        kind: text(fields[separator + 1]),
        is_graft: fields[separator + 2] == b"mountjail" && fields[3] != b"/",
    }
}

/// Undoes the kernel's `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = (first == b'\\').then(|| tail.get(..3)).flatten();
        let octal = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The size of the file system at `path`, in bytes.
pub fn size_at(path: &Path) -> u64 {
    let found = statvfs(path).unwrap();
    found.blocks() * found.fragment_size()
}

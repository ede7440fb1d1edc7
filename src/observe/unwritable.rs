//! Directories in which even root can make and remove nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sys::statfs::{Statfs, fstatfs};
use nix::sys::statvfs::FsFlags;

use super::table::Table;
use crate::Error;
use crate::base::quote::shell_path;
use crate::base::{HostPath, JailPath};
use crate::sys;

/// Why nothing can be made or removed in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// The mount that it is on is read-only, or its file system is. The mount point, if it is
    /// known.
    ReadOnly(Option<PathBuf>),
    /// It is on a file system of this type, which is never writable.
    Image(&'static str),
    /// It has the attribute `i` of `chattr(1)`.
    Immutable,
}

/// A directory in which nothing can be made or removed, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Obstacle {
    directory: HostPath,
    why: Why,
}

impl Obstacle {
    /// The obstacle that keeps anything from being made or removed in the open directory.
    fn of(directory: HostPath, file: &OwnedFd, table: Option<&Table>) -> Option<Self> {
        let found = fstatfs(file).ok()?;
        let why = if let Some(image) = image_type(&found) {
            Why::Image(image)
        } else if found.flags().contains(FsFlags::ST_RDONLY) {
            let id = sys::mount_id_in_table(file).ok();
            Why::ReadOnly(id.and_then(|id| table?.point_of(id)))
        } else if sys::is_immutable(file).ok()? {
            Why::Immutable
        } else {
            return None;
        };
        Some(Self { directory, why })
    }

    fn error(&self) -> Error {
        Error::failed(format!("cannot make anything in {}", self.directory))
            .because_of(self.reason())
            .hint(self.hint())
    }

    fn reason(&self) -> String {
        match &self.why {
            Why::ReadOnly(Some(point)) if point != self.directory.as_path() => {
                format!("it is on {}, which is mounted read-only", point.display())
            }
            Why::ReadOnly(_) => "it is mounted read-only".to_owned(),
            Why::Image(image) => format!("it is on an image ({image}), which is never writable"),
            Why::Immutable => "it is immutable (attribute i)".to_owned(),
        }
    }

    fn hint(&self) -> String {
        let directory = shell_path(&self.directory);
        match &self.why {
            Why::ReadOnly(Some(point)) => format!(
                "{0} is mounted read-only: `mount -o remount,rw {0}` makes it writable; if its \
                 disk has failed, see `dmesg`",
                shell_path(point)
            ),
            Why::ReadOnly(None) => format!(
                "its file system is mounted read-only: `findmnt --target {directory}` shows it, \
                 `mount -o remount,rw` makes it writable"
            ),
            Why::Image(_) => "make the files and directories that `mountjail plan` shows in the \
                              image, or mount an overlay of it as the root (`mount -t overlay`)"
                .to_owned(),
            Why::Immutable => format!(
                "`chattr -i {directory}` allows changes again; `lsattr -d {directory}` shows it"
            ),
        }
    }
}

/// The type of the file system, if it is one that is never writable, by its magic number in
/// statfs(2).
fn image_type(found: &Statfs) -> Option<&'static str> {
    Some(match u32::try_from(found.filesystem_type().0).ok()? {
        0x7371_7368 => "squashfs",
        0xe0f5_e1e2 => "erofs",
        0x9660 => "iso9660",
        0x28cd_3d45 => "cramfs",
        0x7275 => "romfs",
        _ => return None,
    })
}

/// The nearest directory above `path` in the root that is there.
fn nearest(root: &HostPath, path: &JailPath) -> io::Result<(HostPath, OwnedFd)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let top = sys::open_host(root.as_path(), flags)?;
    for above in path.directories_above().iter().rev() {
        match sys::open_beneath(&top, above.relative(), flags) {
            Ok(found) => return Ok((root.inside(above), found)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((root.clone(), top))
}

/// An error for each directory of `root` in which one of `paths` is to be made or removed, and
/// nothing can be.
pub(crate) fn unwritable<'p>(
    root: &HostPath,
    paths: impl Iterator<Item = &'p JailPath>,
    table: Option<&Table>,
) -> Vec<Error> {
    let parents: BTreeMap<_, _> = paths.map(|path| (path.parent(), path)).collect();
    let mut directories = BTreeMap::new();
    for path in parents.into_values() {
        directories.extend(nearest(root, path));
    }
    let mut errors = vec![];
    for (directory, file) in directories {
        if let Some(obstacle) = Obstacle::of(directory, &file, table) {
            errors.push(obstacle.error());
        }
    }
    errors
}

/// What to do about EROFS or EPERM when `path` in `root` was to be made or removed, if the
/// directory shows why.
pub(crate) fn how_to_write(root: &HostPath, path: &JailPath) -> Option<String> {
    let (directory, file) = nearest(root, path).ok()?;
    let table = Table::read().ok();
    Some(Obstacle::of(directory, &file, table.as_ref())?.hint())
}

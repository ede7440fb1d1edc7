//! The site's root as an open directory: everything below it is reached from its descriptor, with no link
//! followed, so nothing can be made or mounted elsewhere, whatever the site's owner does meanwhile.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::error::{Error, Result};
use crate::manifest::{HostPath, JailPath};
use crate::observe::MadeKind;
use crate::sys::{self, FileId, FileKind, OnMount, Stat};

/// An open site root.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    path: HostPath,
}

/// An open directory below the root and a name in it.
pub(super) struct Spot {
    dir: OwnedFd,
    name: OsString,
}

impl Root {
    /// Opens the directory `path`, no component of which may be a link.
    pub(super) fn open(path: &HostPath) -> Result<Self> {
        sys::open_host(path.as_path(), libc::O_PATH | libc::O_DIRECTORY)
            .map(|fd| Self { fd, path: path.clone() })
            .map_err(|error| Error::failed(format!("cannot open the root {path}")).because(&error))
    }

    /// The open directory `fd`, which is that of the root `path`, though something may hide it there.
    pub(super) fn of(fd: OwnedFd, path: &HostPath) -> Self {
        Self { fd, path: path.clone() }
    }

    /// Which mount it is on: the never reused id (Linux 6.8).
    pub(super) fn mount(&self) -> Option<u64> {
        let stat = sys::stat_fd(&self.fd).ok()?;
        stat.mount_id.filter(|_| stat.mount_id_is_unique)
    }

    /// Where it is on the host.
    pub(super) fn path(&self) -> &HostPath {
        &self.path
    }

    /// Opens what is visible at `target`, for mounting on or for looking at (`O_PATH`); ELOOP for a link.
    pub(super) fn open_at(&self, target: &JailPath) -> io::Result<OwnedFd> {
        sys::open_beneath(&self.fd, target.relative(), libc::O_PATH)
    }

    /// Opens the directory that holds `path`.
    pub(super) fn spot(&self, path: &JailPath) -> io::Result<Spot> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let dir = sys::open_beneath(&self.fd, parent.relative(), libc::O_PATH | libc::O_DIRECTORY)?;
        Ok(Spot { dir, name: name.to_owned() })
    }

    /// As [`Self::spot`], on the mount that the root is on: nothing that is mounted on the way is looked into.
    ///
    /// Errors: EXDEV where something is.
    pub(super) fn spot_on_mount(&self, path: &JailPath) -> io::Result<Spot> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let dir = sys::open_on_mount(&self.fd, parent.relative(), libc::O_PATH | libc::O_DIRECTORY)?;
        Ok(Spot { dir, name: name.to_owned() })
    }
}

/// Spots one after the other, most in the same directory as the one before. The directory is kept open, so
/// keep none of these longer than the work at hand: a mount with an open directory is in use.
pub(super) struct Spots<'r> {
    root: &'r Root,
    last: Option<(JailPath, Spot)>,
}

impl<'r> Spots<'r> {
    pub(super) fn new(root: &'r Root) -> Self {
        Self { root, last: None }
    }

    /// As [`Root::spot`].
    pub(super) fn get(&mut self, path: &JailPath) -> io::Result<&Spot> {
        self.get_by(path, Root::spot)
    }

    /// As [`Root::spot_on_mount`].
    pub(super) fn on_mount(&mut self, path: &JailPath) -> io::Result<&Spot> {
        self.get_by(path, Root::spot_on_mount)
    }

    fn get_by(
        &mut self,
        path: &JailPath,
        open: fn(&Root, &JailPath) -> io::Result<Spot>,
    ) -> io::Result<&Spot> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let spot = match self.last.take().filter(|(known, _)| *known == parent) {
            Some((_, spot)) => Spot { dir: spot.dir, name: name.to_owned() },
            None => open(self.root, path)?,
        };
        Ok(&self.last.insert((parent, spot)).1)
    }
}

impl Spot {
    /// The spot of a path of the host, no component of which may be a link.
    pub(super) fn on_host(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let dir = sys::open_host(parent, libc::O_PATH | libc::O_DIRECTORY)?;
        Ok(Self { dir, name: name.to_owned() })
    }

    /// Which mount is visible here; no server of a file system is asked.
    pub(super) fn mount(&self) -> io::Result<OnMount> {
        sys::mount_of(&self.dir, Path::new(&self.name))
    }

    /// What is there, no link followed.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        sys::stat_at(&self.dir, Path::new(&self.name))
    }

    /// Makes an empty directory (0755), an empty file (0644) or a link; fails with EEXIST if anything is there.
    pub(super) fn create(&self, kind: &MadeKind) -> io::Result<FileId> {
        match kind {
            MadeKind::Directory => mkdirat(&self.dir, self.name(), Mode::from_bits_truncate(0o755))?,
            MadeKind::File => {
                let flags =
                    OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(&self.dir, self.name(), flags, Mode::from_bits_truncate(0o644)).map(drop)?;
            }
            MadeKind::Link(text) => symlinkat(text.as_path(), &self.dir, self.name())?,
        }
        self.stat().map(|stat| stat.file).inspect_err(|_| {
            let _ = self.remove(kind, None); // the error to report is the first one
        })
    }

    /// Removes what [`Self::create`] made, if it is unchanged: the same file (if `file` says which), of that
    /// kind, still empty, the link's text the same. `Ok(false)`: it is not, and stays.
    pub(super) fn remove(&self, kind: &MadeKind, file: Option<FileId>) -> io::Result<bool> {
        let stat = match self.stat() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            result => result?,
        };
        if file.is_some_and(|file| file != stat.file) || !self.is_unchanged(kind, &stat)? {
            return Ok(false);
        }
        let flag = match kind {
            MadeKind::Directory => UnlinkatFlags::RemoveDir,
            MadeKind::File | MadeKind::Link(_) => UnlinkatFlags::NoRemoveDir,
        };
        match unlinkat(&self.dir, self.name(), flag).map_err(io::Error::from) {
            Ok(()) => Ok(true),
            // Not empty any more, or somebody mounted on it: not ours to remove.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EBUSY)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_unchanged(&self, kind: &MadeKind, stat: &Stat) -> io::Result<bool> {
        Ok(match kind {
            MadeKind::Directory => stat.kind == FileKind::Directory,
            MadeKind::File => stat.kind == FileKind::File && stat.size == 0,
            MadeKind::Link(text) => stat.kind == FileKind::Symlink && self.link()? == *text,
        })
    }

    fn link(&self) -> io::Result<PathBuf> {
        Ok(readlinkat(&self.dir, self.name())?.into())
    }

    /// Unmounts the topmost mount that is here.
    pub(super) fn umount(&self, lazy: bool) -> io::Result<()> {
        sys::umount(&self.dir, Path::new(&self.name), lazy)
    }

    /// Whether the topmost mount here is in use; nothing is unmounted.
    ///
    /// The first `MNT_EXPIRE` marks a mount and a second one in a row unmounts it. Any look at the mount takes
    /// the mark away, and the plan was made after one.
    pub(super) fn is_busy(&self) -> io::Result<bool> {
        sys::umount_expire_probe(&self.dir, Path::new(&self.name))
    }

    fn name(&self) -> &OsStr {
        &self.name
    }
}

/// A path that the classic calls take in place of an open file.
pub(super) fn proc_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(&HostPath::new(dir.path()).unwrap()).unwrap();
        (dir, root)
    }

    fn spot(root: &Root, path: &str) -> io::Result<Spot> {
        root.spot(&JailPath::new(path).unwrap())
    }

    #[test]
    fn made_things_are_removed_only_while_unchanged() {
        let (dir, root) = root();
        for kind in [MadeKind::Directory, MadeKind::File, MadeKind::Link("usr/lib".into())] {
            let spot = spot(&root, "/x").unwrap();
            let file = spot.create(&kind).unwrap();
            assert_eq!(spot.create(&kind).unwrap_err().raw_os_error(), Some(libc::EEXIST));
            let other = FileId { ino: file.ino + 1, ..file };
            assert!(!spot.remove(&kind, Some(other)).unwrap());
            assert!(spot.remove(&kind, Some(file)).unwrap());
            assert!(spot.remove(&kind, Some(file)).unwrap(), "absent is as good as removed");
        }
        fs::write(dir.path().join("x"), "content").unwrap();
        assert!(!spot(&root, "/x").unwrap().remove(&MadeKind::File, None).unwrap());
        fs::create_dir_all(dir.path().join("d/e")).unwrap();
        assert!(!spot(&root, "/d").unwrap().remove(&MadeKind::Directory, None).unwrap());
        symlink("else", dir.path().join("l")).unwrap();
        assert!(!spot(&root, "/l").unwrap().remove(&MadeKind::Link("usr/lib".into()), None).unwrap());
    }

    #[test]
    fn a_link_on_the_way_is_refused() {
        let (dir, root) = root();
        symlink("/etc", dir.path().join("etc")).unwrap();
        assert_eq!(spot(&root, "/etc/x").err().unwrap().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(
            root.open_at(&JailPath::new("/etc/x").unwrap()).unwrap_err().raw_os_error(),
            Some(libc::ELOOP)
        );
    }

    #[test]
    fn a_root_that_is_reached_through_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        let error = Root::open(&HostPath::new(dir.path().join("link")).unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("cannot open the root "), "{error}");
    }
}

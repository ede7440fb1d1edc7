//! The root of a site as an open directory. Everything below it is reached from its descriptor, and
//! no link is followed, so nothing can be made or mounted elsewhere, whatever the owner of the site
//! does meanwhile. The directory in which something is made or mounted must itself be on the
//! expected mount, because other mounts in the root may show directories of the host.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, symlinkat, unlinkat};

use super::ours::{Ours, id_of};
use crate::base::{ErrorContext, HostPath, JailPath, Result};
use crate::observe::{CreatedKind, Identity, Observed, ObservedMount, RecordedMount};
use crate::plan::Plan;
use crate::resolve::Ownership;
use crate::sys::{self, FileId, FileKind, IfInUse, OnMount, Stat, proc};

/// An open site root.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    path: HostPath,
    device: u64,
    /// The mounts in it that are ours. `None`: the caller checks which mount a directory is on.
    ours: Option<RefCell<Ours>>,
}

/// An open directory below the root and a name in it.
pub(super) struct Spot {
    dir: OwnedFd,
    name: OsString,
    /// The device of the root directory.
    root_device: u64,
    /// Whether the directory is on the expected mount.
    at_home: bool,
}

impl Root {
    /// Opens the directory `path`, no component of which may be a link.
    pub(super) fn open(path: &HostPath) -> Result<Self> {
        let cannot = format_args!("cannot open the root {path}");
        let fd = sys::open_host(path.as_path(), libc::O_PATH | libc::O_DIRECTORY);
        Self::of(fd.context(cannot)?, path).context(cannot)
    }

    /// As [`Self::open`], to carry `plan` out: things are made and mounted in it only on the
    /// expected mounts.
    pub(super) fn of_plan(plan: &Plan, observed: &Observed) -> Result<Self> {
        let cannot = format_args!("cannot open the root {}", plan.root);
        let fd = sys::open_host(plan.root.as_path(), libc::O_PATH | libc::O_DIRECTORY);
        let fd = fd.context(cannot)?;
        let stat = sys::stat_fd(&fd).context(cannot)?;
        Ok(Self {
            fd,
            path: plan.root.clone(),
            device: stat.file.dev,
            ours: Some(RefCell::new(Ours::of(stat.mount_id, plan, observed))),
        })
    }

    /// Wraps the open directory `fd`, which is that of the root `path`, even if something hides it
    /// there.
    pub(super) fn of(fd: OwnedFd, path: &HostPath) -> io::Result<Self> {
        let device = sys::mount_of(&fd, Path::new(""))?.device;
        Ok(Self {
            fd,
            path: path.clone(),
            device,
            ours: None,
        })
    }

    /// The spot of a path on the host, no component of which may be a link. It is for things that
    /// were moved out of the root.
    pub(super) fn spot_on_host(&self, path: &Path) -> io::Result<Spot> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let dir = sys::open_host(parent, libc::O_PATH | libc::O_DIRECTORY)?;
        Ok(Spot {
            dir,
            name: name.to_owned(),
            root_device: self.device,
            at_home: true,
        })
    }

    /// The unique mount ID of the mount that it is on (Linux 6.8).
    pub(super) fn mount(&self) -> Option<u64> {
        sys::stat_fd(&self.fd).ok()?.unique_mount_id()
    }

    pub(super) fn path(&self) -> &HostPath {
        &self.path
    }

    /// Opens what is visible at `target` with `O_PATH`, to mount on it or to look at it. A link
    /// gives ELOOP.
    pub(super) fn open_at(&self, target: &JailPath) -> io::Result<OwnedFd> {
        sys::open_beneath(&self.fd, target.relative(), libc::O_PATH)
    }

    /// Opens the root of the mount that is at `target`: see [`Spot::open_mounted`].
    pub(super) fn open_mounted(&self, target: &JailPath) -> io::Result<OwnedFd> {
        self.spot(target)?.open_mounted()
    }

    /// Opens the directory that holds `path`.
    pub(super) fn spot(&self, path: &JailPath) -> io::Result<Spot> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let dir = sys::open_beneath(
            &self.fd,
            parent.relative(),
            libc::O_PATH | libc::O_DIRECTORY,
        )?;
        let at_home = match &self.ours {
            Some(ours) if parent.file_name().is_some() => {
                ours.borrow()
                    .is_home(&self.path, &parent, &sys::stat_fd(&dir)?)
            }
            _ => true, // the open root itself is on its mount
        };
        Ok(Spot {
            dir,
            name: name.to_owned(),
            root_device: self.device,
            at_home,
        })
    }

    /// Remembers that this run mounted something at `target`, in which others are to be made. An
    /// unknown unique mount ID is looked up; then `file` must be visible there.
    ///
    /// Errors: another file is visible there.
    pub(super) fn mounted(
        &self,
        target: &JailPath,
        id: Option<u64>,
        file: Option<FileId>,
    ) -> io::Result<()> {
        let Some(ours) = &self.ours else {
            return Ok(());
        };
        if let Some(id) = id {
            ours.borrow_mut().add(target, Some((id, true)));
            return Ok(());
        }

        let found = sys::stat_fd(self.open_at(target)?)?;
        if file.is_some_and(|file| file != found.file) {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        ours.borrow_mut().add(target, id_of(&found));
        Ok(())
    }

    /// Remembers the submounts of a mount that this run made.
    pub(super) fn came_along(&self, made: &RecordedMount) {
        if let Some(ours) = &self.ours {
            ours.borrow_mut().came_along(made, &Observed::default());
        }
    }

    /// Remembers that this run unmounted the mount `gone` at `target`, or all that were there if it
    /// is `None`.
    pub(super) fn unmounted(&self, target: &JailPath, gone: Option<&ObservedMount>) {
        if let Some(ours) = &self.ours {
            ours.borrow_mut().remove(target, gone);
        }
    }

    /// As [`Self::spot`], but on the mount of the root itself: nothing mounted on the way is
    /// entered.
    ///
    /// Errors: EXDEV if something is mounted on the way.
    pub(super) fn spot_on_mount(&self, path: &JailPath) -> io::Result<Spot> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let dir = sys::open_unmounted(
            &self.fd,
            parent.relative(),
            libc::O_PATH | libc::O_DIRECTORY,
        )?;
        Ok(Spot {
            dir,
            name: name.to_owned(),
            root_device: self.device,
            at_home: true,
        })
    }
}

/// Opens one spot after the other, most of them in the same directory as the one before. It keeps
/// that directory open, so drop it when the work is done: a mount with an open directory is in use.
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
        let spot = match self.last.take() {
            Some((known, spot)) if known == parent => Spot {
                name: name.to_owned(),
                ..spot
            },
            _ => open(self.root, path)?,
        };
        Ok(&self.last.insert((parent, spot)).1)
    }
}

impl Spot {
    /// Which mount is visible here. No server of a file system is asked.
    pub(super) fn mount(&self) -> io::Result<OnMount> {
        sys::mount_of(&self.dir, Path::new(&self.name))
    }

    /// The unique ID of the topmost mount that is here, if there is one. No server of a file system
    /// is asked.
    pub(super) fn mounted(&self) -> io::Result<Option<u64>> {
        self.mounted_beside(&self.name)
    }

    /// As [`Self::mounted`], at `name` in the same directory.
    pub(super) fn mounted_beside(&self, name: &OsStr) -> io::Result<Option<u64>> {
        sys::mounted_at(&self.dir, Path::new(name))
    }

    /// Returns the status of what is here. Links are not followed.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        sys::stat_at(&self.dir, Path::new(&self.name))
    }

    /// Whether the directory is on the expected mount: that of the root, a volume that belongs to
    /// the site, or the mount of ours at the nearest target above.
    pub(super) fn is_at_home(&self) -> bool {
        self.at_home
    }

    /// Errors: EXDEV if the directory is on another mount.
    fn must_be_at_home(&self) -> io::Result<()> {
        if self.at_home {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EXDEV))
        }
    }

    /// Opens what is here with `O_PATH`, to mount on it.
    ///
    /// Errors: EXDEV if something is mounted on it or the directory is not at home; ELOOP for a
    /// link.
    pub(super) fn open_bare(&self) -> io::Result<OwnedFd> {
        self.must_be_at_home()?;
        sys::open_unmounted(&self.dir, Path::new(&self.name), libc::O_PATH)
    }

    /// Opens the root of the mount that is here (`O_PATH`). Errors: as [`Self::open_bare`].
    pub(super) fn open_mounted(&self) -> io::Result<OwnedFd> {
        self.must_be_at_home()?;
        sys::open_beneath(&self.dir, Path::new(&self.name), libc::O_PATH)
    }

    /// Makes an empty directory (0755), an empty file (0644) or a link. It fails with EEXIST if
    /// anything is there and with EXDEV if the directory is not at home. The result has exactly
    /// this mode and no ACL, whatever it would inherit from its directory.
    pub(super) fn create(&self, kind: &CreatedKind) -> io::Result<Identity> {
        self.must_be_at_home()?;
        let result = match kind {
            CreatedKind::Directory => {
                let mode = Mode::from_bits_truncate(0o755);
                mkdirat(&self.dir, self.name(), mode)?;
                let flags =
                    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                match openat(&self.dir, self.name(), flags, Mode::empty()) {
                    Ok(directory) => set_mode(&directory, mode),
                    Err(error) => Err(error.into()),
                }
            }
            CreatedKind::File => {
                let flags = OFlag::O_WRONLY
                    | OFlag::O_CREAT
                    | OFlag::O_EXCL
                    | OFlag::O_NOFOLLOW
                    | OFlag::O_CLOEXEC;
                let mode = Mode::from_bits_truncate(0o644);
                set_mode(&openat(&self.dir, self.name(), flags, mode)?, mode)
            }
            CreatedKind::Link(destination) => {
                symlinkat(destination.as_path(), &self.dir, self.name())?;
                self.stat()
            }
        };

        match result {
            Ok(stat) => Ok(Identity::of(&stat, self.root_device)),
            Err(error) => {
                let _ = self.remove(kind, None); // the first error is the one to report
                Err(error)
            }
        }
    }

    /// Gives the directory that is here, and that was just made, its owner and mode.
    ///
    /// Errors: EEXIST if it has been exchanged since; EXDEV if its directory is not at home.
    pub(super) fn give(&self, owner: Ownership) -> io::Result<()> {
        self.must_be_at_home()?;
        let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = openat(&self.dir, self.name(), how, Mode::empty())?;
        let found = sys::stat_fd(&directory)?;
        let above = sys::stat_fd(&self.dir)?;
        if !found.is_on_mount_of(&above) {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        must_be_new(&directory, &found)?;
        let Ownership { uid, gid, mode } = owner;
        if (found.uid, found.gid, found.mode & 0o7777) == (uid, gid, mode) {
            return Ok(());
        }
        fchown(&directory, Some(uid.into()), Some(gid.into()))?;
        Ok(fchmod(&directory, Mode::from_bits_truncate(mode))?)
    }

    /// Whose the directory is that is here, and its mode; `None` for other kinds.
    pub(super) fn owner_of(&self, kind: &CreatedKind) -> Option<Ownership> {
        let found = self.stat().ok()?;
        if *kind != CreatedKind::Directory {
            return None;
        }
        Some(Ownership {
            uid: found.uid,
            gid: found.gid,
            mode: found.mode & 0o7777,
        })
    }

    /// Removes what [`Self::create`] made if it is unchanged: the same file (if `file` is given),
    /// of the same kind, still empty, and for a link with the same destination. `Ok(false)`: it
    /// stays, because it has changed or its directory is not at home.
    pub(super) fn remove(&self, kind: &CreatedKind, file: Option<Identity>) -> io::Result<bool> {
        if !self.at_home {
            return Ok(false);
        }
        let stat = match self.stat() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            result => result?,
        };
        let found = Identity::of(&stat, self.root_device);
        if file.is_some_and(|file| !file.is(&found)) || !self.is_unchanged(kind, &stat)? {
            return Ok(false);
        }

        let flag = match kind {
            CreatedKind::Directory => UnlinkatFlags::RemoveDir,
            CreatedKind::File | CreatedKind::Link(_) => UnlinkatFlags::NoRemoveDir,
        };
        match unlinkat(&self.dir, self.name(), flag).map_err(io::Error::from) {
            Ok(()) => Ok(true),
            // It is no longer empty, or somebody mounted something on it, so it is not ours to
            // remove.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EBUSY)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn is_unchanged(&self, kind: &CreatedKind, stat: &Stat) -> io::Result<bool> {
        Ok(match kind {
            CreatedKind::Directory => stat.kind == FileKind::Directory,
            CreatedKind::File => stat.kind == FileKind::File && stat.size == 0,
            CreatedKind::Link(destination) if stat.kind == FileKind::Symlink => match self.link() {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false, // it is none now
                link => link? == *destination,
            },
            CreatedKind::Link(_) => false,
        })
    }

    fn link(&self) -> io::Result<PathBuf> {
        Ok(readlinkat(&self.dir, self.name())?.into())
    }

    /// Unmounts the topmost mount that is here.
    pub(super) fn umount(&self, if_in_use: IfInUse) -> io::Result<()> {
        sys::umount(&self.dir, Path::new(&self.name), if_in_use)
    }

    /// Whether the topmost mount here is in use. Nothing is unmounted.
    ///
    /// The first `MNT_EXPIRE` marks a mount, and a second one in a row unmounts it. An access to
    /// the mount clears the mark that an earlier question may have left.
    pub(super) fn is_busy(&self) -> io::Result<bool> {
        self.mount()?;
        self.is_any_busy([self.name()])
    }

    /// Whether the topmost mount at any of `names` in the same directory is in use. Each was
    /// accessed just before, as [`Self::mounted_beside`] does. Nothing is unmounted.
    pub(super) fn is_any_busy<'n>(
        &self,
        names: impl IntoIterator<Item = &'n OsStr>,
    ) -> io::Result<bool> {
        sys::umount_expire_probe(&self.dir, names)
    }

    fn name(&self) -> &OsStr {
        &self.name
    }
}

/// The names of POSIX ACLs. A directory with a default ACL passes it on, whatever the umask is:
/// acl(5).
const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// The names of the ACLs that `file` has.
pub(super) fn acls(file: &OwnedFd) -> Vec<&'static str> {
    let mut acls = ACLS.to_vec();
    acls.retain(|acl| has_acl(file, acl));
    acls
}

fn has_acl(file: &OwnedFd, acl: &str) -> bool {
    match rustix::fs::fgetxattr(file, acl, &mut [0u8; 256]) {
        Ok(length) => length > 0,
        Err(error) => error == rustix::io::Errno::RANGE, // it is longer
    }
}

/// Errors: EEXIST if `file`, which was just made, has been exchanged since: it is not empty or not
/// our own.
pub(super) fn must_be_new(file: &OwnedFd, found: &Stat) -> io::Result<()> {
    let is_ours = found.uid == nix::unistd::geteuid().as_raw();
    if is_ours && (found.kind != FileKind::Directory || is_empty(file)?) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    let mut entries = std::fs::read_dir(proc::path_of_descriptor(directory))?;
    Ok(entries.next().is_none())
}

/// Gives a new file or directory the mode `mode` and no ACL. Returns what it was before that.
pub(super) fn set_mode(new: &OwnedFd, mode: Mode) -> io::Result<Stat> {
    let acls = acls(new);
    let found = sys::stat_fd(new)?;
    if acls.is_empty() && found.mode & 0o7777 == mode.bits() {
        return Ok(found);
    }

    must_be_new(new, &found)?;
    for acl in acls {
        rustix::fs::fremovexattr(new, acl)?;
    }
    match fchmod(new, mode) {
        // A file system without modes (FAT) reports the ones given when it was mounted.
        Err(_) if sys::stat_fd(new)?.mode & mode.bits() == mode.bits() => {}
        result => result?,
    }
    Ok(found)
}

#[cfg(test)]
mod tests;

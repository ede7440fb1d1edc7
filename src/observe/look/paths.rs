//! The files at a path in the root, and on the way to it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use super::root::ObservedRoot;
use crate::Result;
use crate::base::JailPath;
use crate::base::hints::is_absent;
use crate::observe::holders::Apart;
use crate::observe::observed::PathState;
use crate::observe::record::Identity;
use crate::resolve::FileKind;
use crate::sys::{self, Stat, proc};

impl ObservedRoot<'_> {
    /// The statx(2) of `target`, or of the mount on it. `None` if nothing is there, or a link is on
    /// the way.
    pub(super) fn stat(&self, target: &JailPath) -> io::Result<Option<Stat>> {
        let Some(name) = target.file_name() else {
            return Ok(None);
        };
        let found = self
            .directory_of(target)
            .and_then(|directory| sys::stat_at(&directory, Path::new(name)));
        match found {
            Err(error) if is_absent(&error) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Opens the directory that holds `path`, following no links.
    pub(super) fn directory_of(&self, path: &JailPath) -> io::Result<Rc<OwnedFd>> {
        let parent = path.parent().unwrap_or_else(JailPath::slash);
        if parent == JailPath::slash() {
            return Ok(self.root.clone());
        }
        if self.absent.borrow().contains(&parent) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let mut last = self.last.borrow_mut();
        if let Some((known, directory)) = &*last
            && *known == parent
        {
            return Ok(directory.clone());
        }

        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let directory = match sys::open_beneath(&self.root, parent.relative(), flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.absent.borrow_mut().insert(parent);
                return Err(error);
            }
            result => result?,
        };
        let stat = sys::stat_fd(&directory)?;
        if stat.mount_id != self.root_mount {
            self.apart
                .borrow_mut()
                .insert(parent.clone(), Apart::of(&directory, stat));
        }

        let directory = Rc::new(directory);
        *last = Some((parent, directory.clone()));
        Ok(directory)
    }

    /// Adds what is at `path`, whose statx(2) is `stat`, and at every directory on the way, as far
    /// as they exist.
    pub(super) fn look_at(
        &self,
        path: &JailPath,
        stat: Option<Stat>,
        paths: &mut BTreeMap<JailPath, PathState>,
    ) -> Result<()> {
        if self.look_at_ancestors(path, paths)?
            && let Some(stat) = stat
            && !paths.contains_key(path)
        {
            let seen = self
                .seen(path, &stat, true)
                .map_err(|error| self.cannot(path, &error))?;
            paths.insert(path.clone(), seen);
        }
        Ok(())
    }

    /// Adds every directory on the way to `path`. Returns whether all of them are directories.
    fn look_at_ancestors(
        &self,
        path: &JailPath,
        paths: &mut BTreeMap<JailPath, PathState>,
    ) -> Result<bool> {
        let parent = match path.parent() {
            Some(parent) if parent != JailPath::slash() => parent,
            _ => return Ok(true),
        };
        if let Some(seen) = paths.get(&parent) {
            return Ok(seen.kind == FileKind::Directory);
        }
        if !self.look_at_ancestors(&parent, paths)? || self.missing.borrow().contains(&parent) {
            return Ok(false);
        }
        let cannot = |error| self.cannot(&parent, &error);
        let Some(stat) = self.stat(&parent).map_err(cannot)? else {
            self.missing.borrow_mut().insert(parent);
            return Ok(false);
        };
        paths.insert(
            parent.clone(),
            self.seen(&parent, &stat, self.has_soil && self.kept.contains(&parent))
                .map_err(cannot)?,
        );
        Ok(stat.kind == FileKind::Directory)
    }

    fn seen(&self, path: &JailPath, stat: &Stat, look_inside: bool) -> io::Result<PathState> {
        let (stat, link) = match (stat.kind, path.file_name()) {
            (FileKind::Symlink, Some(name)) => {
                sys::entry_at(self.directory_of(path)?, Path::new(name))?
            }
            _ => (*stat, None),
        };
        let empty = match stat.kind {
            FileKind::Directory => !look_inside || self.is_empty(path)?,
            _ => stat.size == 0,
        };
        Ok(PathState {
            kind: stat.kind,
            file: Identity::of(&stat, self.root_device),
            empty,
            link,
        })
    }

    /// Whether the directory is empty except for what mountjail made.
    fn is_empty(&self, path: &JailPath) -> io::Result<bool> {
        let directory = sys::open_beneath(
            &self.root,
            path.relative(),
            libc::O_RDONLY | libc::O_DIRECTORY,
        )?;
        for entry in fs::read_dir(proc::path_of_descriptor(&directory))? {
            let inside = path.join(entry?.file_name());
            if !inside.is_ok_and(|inside| self.kept.contains(&inside)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

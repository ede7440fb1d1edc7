//! inotify(7) on directories.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::index::NameEvent;

/// How many changes are read at once.
const MAX_CHANGES: usize = 4096;

/// The events by which a name may lead to another file.
const NAMES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_ATTRIB);

/// Only directories are watched, and only files that still have a name in them. The events are
/// added to those of other paths to the same directory.
const HOW: AddWatchFlags = AddWatchFlags::from_bits_retain(
    libc::IN_ONLYDIR | libc::IN_DONT_FOLLOW | libc::IN_EXCL_UNLINK | libc::IN_MASK_ADD,
);

/// The watched directories. The kernel watches a directory, not its path: another directory at the
/// same path needs a watch of its own.
pub(super) struct DirectoryWatches {
    inotify: Arc<Inotify>,
    watches: HashMap<PathBuf, DirectoryWatch>,
    /// With bind mounts, two paths can lead to one directory.
    paths: HashMap<WatchDescriptor, Vec<PathBuf>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct DirectoryWatch {
    descriptor: WatchDescriptor,
    /// Writes to files are reported, too.
    contents: bool,
}

/// The change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileChange {
    /// To a name in a directory.
    Name {
        directory: PathBuf,
        name: OsString,
        event: NameEvent,
        /// More events are likely to follow at once: a new file is written next, and a file that
        /// was moved away is replaced.
        half_done: bool,
    },
    /// The directory is gone, or its file system.
    Lost(PathBuf),
    /// Changes were lost, because too many were waiting.
    Overflow,
}

impl DirectoryWatches {
    pub(super) fn new() -> Result<Self, Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self {
            inotify: Arc::new(inotify),
            watches: HashMap::new(),
            paths: HashMap::new(),
        })
    }

    /// A function that has the kernel watch the directory which is at a path now, with or without
    /// contents. It may run in any thread, because it may wait for a server. Its result is for
    /// [`DirectoryWatches::take_in`].
    pub(super) fn asker(
        &self,
    ) -> impl Fn(&Path, bool) -> Result<WatchDescriptor, Errno> + Send + Sync + 'static {
        let inotify = self.inotify.clone();
        move |path, contents| {
            let writes = if contents {
                AddWatchFlags::IN_CLOSE_WRITE
            } else {
                AddWatchFlags::empty()
            };
            inotify.add_watch(path, NAMES | writes | HOW)
        }
    }

    /// Notes that `path` is watched; returns whether that is new, so that earlier events were not
    /// seen.
    pub(super) fn take_in(
        &mut self,
        path: &Path,
        contents: bool,
        descriptor: WatchDescriptor,
    ) -> bool {
        match self.watches.get(path) {
            Some(known) if known.descriptor == descriptor => {
                if known.contents || !contents {
                    return false;
                }
            }
            _ => {
                self.unwatch(path);
                let paths = self.paths.entry(descriptor).or_default();
                paths.push(path.to_owned());
            }
        }
        self.watches.insert(
            path.to_owned(),
            DirectoryWatch {
                descriptor,
                contents,
            },
        );
        true
    }

    /// Stops watching all directories that are not `needed`.
    pub(super) fn retain(&mut self, needed: impl Fn(&Path) -> bool) {
        let mut unneeded = vec![];
        for path in self.watches.keys() {
            if !needed(path) {
                unneeded.push(path.clone());
            }
        }
        for path in unneeded {
            self.unwatch(&path);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.watches.len()
    }

    /// Reads the pending events, but no more than about [`MAX_CHANGES`]: an owner can cause them
    /// faster than they are read, and other sites must have their turn.
    pub(super) fn read(&mut self) -> Result<Vec<FileChange>, Errno> {
        let mut changes = vec![];
        while changes.len() < MAX_CHANGES {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        self.change(event, &mut changes);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(changes),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changes)
    }

    fn unwatch(&mut self, path: &Path) {
        let Some(watch) = self.watches.remove(path) else {
            return;
        };
        let Some(paths) = self.paths.get_mut(&watch.descriptor) else {
            return;
        };
        paths.retain(|other| other != path);
        if paths.is_empty() {
            self.paths.remove(&watch.descriptor);
            let _ = self.inotify.rm_watch(watch.descriptor); // it is gone if the directory is
        }
    }

    fn change(&mut self, event: InotifyEvent, changes: &mut Vec<FileChange>) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            changes.push(FileChange::Overflow);
        }
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            for path in self.paths.remove(&event.wd).unwrap_or_default() {
                self.watches.remove(&path);
                changes.push(FileChange::Lost(path));
            }
            return;
        }
        let Some(name) = event.name else { return };
        let wrote = event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE);
        let half_done =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
        for directory in self.paths.get(&event.wd).into_iter().flatten() {
            changes.push(FileChange::Name {
                directory: directory.clone(),
                name: name.clone(),
                event: if wrote {
                    NameEvent::Contents
                } else {
                    NameEvent::Name
                },
                half_done: event.mask.intersects(half_done),
            });
        }
    }
}

impl AsFd for DirectoryWatches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    impl DirectoryWatches {
        fn watch(&mut self, path: &Path, contents: bool) -> Result<bool, Errno> {
            let descriptor = self.asker()(path, contents)?;
            Ok(self.take_in(path, contents, descriptor))
        }
    }

    fn names(changes: Vec<FileChange>) -> Vec<(String, NameEvent, bool)> {
        let name = |change| match change {
            FileChange::Name {
                name,
                event,
                half_done,
                ..
            } => Some((name.to_string_lossy().into_owned(), event, half_done)),
            _ => None,
        };
        changes.into_iter().filter_map(name).collect()
    }

    #[test]
    fn names_are_told_and_writes_only_where_they_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let mut files = DirectoryWatches::new().unwrap();
        assert_eq!(files.watch(dir.path(), false), Ok(true));
        assert_eq!(files.watch(dir.path(), false), Ok(false));
        fs::write(&path, "one").unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let of = |name: &str, event, half| (name.to_owned(), event, half);
        let seen = names(files.read().unwrap());
        assert_eq!(
            seen,
            [
                of("hosts", NameEvent::Name, true),
                of("hosts", NameEvent::Name, true),
                of("moved", NameEvent::Name, false)
            ]
        );
        assert_eq!(files.watch(dir.path(), true), Ok(true), "more is told now");
        fs::write(dir.path().join("moved"), "two").unwrap();
        assert_eq!(
            names(files.read().unwrap()),
            [of("moved", NameEvent::Contents, false)]
        );
    }

    #[test]
    fn a_directory_in_anothers_place_is_news_and_one_that_goes_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::create_dir(&path).unwrap();
        let mut files = DirectoryWatches::new().unwrap();
        files.watch(&path, false).unwrap();
        fs::rename(&path, dir.path().join("aside")).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(files.watch(&path, false), Ok(true));
        fs::write(dir.path().join("aside/x"), "").unwrap();
        assert_eq!(
            names(files.read().unwrap()),
            [],
            "the one that was moved away is watched no more"
        );
        fs::remove_dir(&path).unwrap();
        assert!(
            files
                .read()
                .unwrap()
                .contains(&FileChange::Lost(path.clone()))
        );
        assert_eq!(
            (files.count(), files.watch(&path, false)),
            (0, Err(Errno::ENOENT))
        );
    }

    #[test]
    fn what_is_not_needed_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = DirectoryWatches::new().unwrap();
        files.watch(dir.path(), true).unwrap();
        files.retain(|_| false);
        fs::write(dir.path().join("x"), "").unwrap();
        assert_eq!((names(files.read().unwrap()), files.count()), (vec![], 0));
    }

    #[test]
    fn a_flood_is_read_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = DirectoryWatches::new().unwrap();
        files.watch(dir.path(), false).unwrap();
        let count = MAX_CHANGES + MAX_CHANGES / 2;
        for nth in 0..count {
            fs::create_dir(dir.path().join(nth.to_string())).unwrap();
        }

        let first = names(files.read().unwrap()).len();
        let second = names(files.read().unwrap()).len();
        assert!(first >= MAX_CHANGES && first < count, "{first}");
        assert_eq!(first + second, count);
    }
}

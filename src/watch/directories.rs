//! The directories that something depends on, as far as the kernel can watch them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::inotify::WatchDescriptor;

use super::index::{Dependent, Index};
use super::inotify::{DirectoryWatches, FileChange};
use crate::Error;
use crate::patience::{self, Crew, Stop};

/// How often changes are looked for that the kernel cannot report.
const POLL: Duration = Duration::from_secs(5);

/// The watched directories, and why some are not watched.
#[derive(Default)]
pub(super) struct WatchedDirectories {
    /// `None`: the kernel gives no inotify instance.
    files: Option<DirectoryWatches>,
    /// How many could not be watched, and why.
    unwatched: Option<(usize, Errno)>,
    /// Questions that were not answered in time.
    silent: Vec<Asking>,
    /// When to look for changes.
    pub poll_at: Option<Instant>,
}

/// Threads that add watches to directories, with or without contents.
type Asking = Crew<(PathBuf, bool), Result<WatchDescriptor, Errno>>;

/// The dependents that must be looked at again, because more or less is watched now.
#[derive(Default)]
pub(super) struct MissedChanges {
    /// These depend on a directory that is watched only from now on: earlier events were not seen.
    pub before: BTreeSet<Dependent>,
    /// These depend on a directory that disappeared during the pass.
    pub gone: BTreeSet<Dependent>,
}

impl WatchedDirectories {
    pub(super) fn count(&self) -> usize {
        self.files.as_ref().map_or(0, DirectoryWatches::count)
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.files.as_ref().map(AsFd::as_fd)
    }

    /// Reads pending events, but only so many at once.
    pub(super) fn read(&mut self) -> Result<Vec<FileChange>, Errno> {
        self.files
            .as_mut()
            .map_or(Ok(vec![]), DirectoryWatches::read)
    }

    /// Why not everything can be watched; `None`: it can.
    pub(super) fn blindness(&self) -> Option<Error> {
        let (count, errno) = self.unwatched?;
        let what = if count == 1 {
            "1 directory".to_owned()
        } else {
            format!("{count} directories")
        };
        let error = Error::failed(format!(
            "cannot watch {what}, so changes are looked for every {} s",
            POLL.as_secs()
        ));
        Some(match errno {
            Errno::ENOSPC => error
                .because_of("the limit fs.inotify.max_user_watches is reached")
                .hint(
                    "raise it: `sysctl fs.inotify.max_user_watches=524288`, and in /etc/sysctl.d \
                     to keep it",
                ),
            Errno::EMFILE => error
                .because_of(
                    "the limit fs.inotify.max_user_instances, or that of open files, is reached",
                )
                .hint(
                    "raise it: `sysctl fs.inotify.max_user_instances=1024`, and in /etc/sysctl.d \
                     to keep it; or `LimitNOFILE=` of the service",
                ),
            errno => error.because_of(errno.desc()),
        })
    }

    /// Watches what `users` depend on, and `run`; stops watching what nothing depends on any more.
    pub(super) fn watch(
        &mut self,
        run: &Path,
        index: &Index,
        users: &[&Dependent],
        now: Instant,
    ) -> MissedChanges {
        let mut unseen = MissedChanges::default();
        let mut wanted = self.wanted(run, index, users);
        let files = match opened(&mut self.files) {
            Ok(files) => files,
            Err(errno) => {
                self.note_blindness(Some((index.directories().count(), errno)), now);
                return unseen;
            }
        };

        files.retain(|path| path == run || index.has(path));

        // Directories of servers that have not answered before are not asked for again.
        for path in &silent_directories(&mut self.silent) {
            wanted.remove(path.as_path());
            unseen.gone.extend(index.inside(path));
        }
        let mut asked = vec![];
        for (path, contents) in wanted {
            asked.push((path.to_owned(), contents));
        }
        let (asking, failed) = watch_each(files, asked, index, &mut unseen);
        if !asking.is_over() {
            self.silent.push(asking);
        }
        self.note_blindness(failed, now);
        unseen
    }

    /// The directories to watch, each with whether its contents matter. If some could not be
    /// watched, all are tried again.
    fn wanted<'i>(
        &self,
        run: &'i Path,
        index: &'i Index,
        users: &[&Dependent],
    ) -> BTreeMap<&'i Path, bool> {
        let mut wanted: BTreeMap<_, _> = if self.unwatched.is_some() {
            index.directories().collect()
        } else {
            index.directories_of(users.iter().copied())
        };
        wanted.insert(run, false);
        wanted
    }

    fn note_blindness(&mut self, unwatched: Option<(usize, Errno)>, now: Instant) {
        self.unwatched = unwatched;
        self.poll_at = unwatched.map(|_| now + POLL);
    }
}

/// The inotify instance, which is made now if there was none.
fn opened(files: &mut Option<DirectoryWatches>) -> Result<&mut DirectoryWatches, Errno> {
    match files {
        Some(files) => Ok(files),
        none => Ok(none.insert(DirectoryWatches::new()?)),
    }
}

/// The directories whose servers have not answered yet.
fn silent_directories(silent: &mut Vec<Asking>) -> BTreeSet<PathBuf> {
    silent.retain(|asking| !asking.is_over());
    let mut directories = BTreeSet::new();
    for asking in silent {
        for (path, _) in asking.out() {
            directories.insert(path.clone());
        }
    }
    directories
}

/// Watches the directories `asked`, each with whether its contents matter. Returns the threads that
/// may still wait for a server, and how many directories cannot be watched, with the last reason.
fn watch_each(
    files: &mut DirectoryWatches,
    asked: Vec<(PathBuf, bool)>,
    index: &Index,
    unseen: &mut MissedChanges,
) -> (Asking, Option<(usize, Errno)>) {
    let ask = files.asker();
    let ask = move |(path, contents): &(PathBuf, bool), _: &Stop| ask(path, *contents);
    let mut asking = Crew::start(asked, 1, Some(patience::SHORT), &Arc::default(), ask);
    let (mut failures, mut last_failure) = (0, None);
    for ((path, contents), answer) in asking.finish_or_sleep(patience::SHORT) {
        match answer {
            Ok(Ok(descriptor)) if files.take_in(path, *contents, descriptor) => {
                unseen.before.extend(index.inside(path));
            }
            Ok(Ok(_)) => {}
            // A site that depends on a silent directory will be silent, too.
            Err(_) | Ok(Err(Errno::ENOENT | Errno::ENOTDIR)) => {
                unseen.gone.extend(index.inside(path));
            }
            Ok(Err(errno)) => {
                failures += 1;
                last_failure = Some(errno);
            }
        }
    }
    (asking, last_failure.map(|errno| (failures, errno)))
}

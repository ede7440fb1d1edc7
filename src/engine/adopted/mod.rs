//! Moves copies out of the way, into a directory of the root that is root's alone, and puts them
//! back.
//!
//! Each thing is recorded before it is moved. It is then renamed, which loses nothing at
//! whichever moment the run is killed: it is either where it was or where the record says. After
//! the rename it is compared with what was looked at; if the site's owner put something else there
//! meanwhile, that goes back.

mod slot;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::outcome::{EngineFailure, check_signal};
use super::replace::{Durability, FileAccess, rename_over, write_new};
use crate::adopt::{self, AsideRecord, DIRECTORY, Modified, Moved, RECORD, Standing};
use crate::base::hints::Doing;
use crate::base::{Error, ErrorContext, HostPath, JailPath, Result, in_words};
use crate::observe::{Identity, Unknown};
use crate::patience::Stop;
use crate::sys::{self, Stat, proc};
use slot::{Slot, make_directory, remove_empty, rename};

/// The record as it is to be.
const NEW_RECORD: &str = "record.json.new";

/// How many names are tried for something of which there is one already.
const NAMES: usize = 10_000;

/// The outcome for things that were to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PutBack {
    /// They are where they were.
    pub back: Vec<JailPath>,
    /// They stay where they are, and why.
    pub left: Vec<(JailPath, String)>,
}

/// The things that are put back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum GoesBack {
    All,
    /// Those without which the site has not come up yet.
    Unsettled,
}

/// Moves `standing` aside in `root`, or leaves all as it was.
pub(crate) fn move_aside(
    root: &HostPath,
    standing: &[&Standing],
    stop: &Stop,
) -> Result<(), Box<EngineFailure>> {
    let mut aside = Aside::make(root)?;
    let Err(error) = aside.move_all(standing, stop) else {
        return Ok(());
    };

    let mut failure = EngineFailure::from(error);
    match aside.put_back(GoesBack::Unsettled) {
        Ok(PutBack { back, left }) => {
            for path in back {
                failure.undone.push(format!("put back {path}"));
            }
            for (path, why) in left {
                let failed = Error::failed(format!("cannot put {path} back"));
                failure.also.push(failed.because_of(why));
            }
        }
        Err(error) => failure.also.push(error),
    }
    Err(Box::new(failure))
}

/// Remembers that the site has come up without what was moved aside in `root`.
pub(crate) fn settle(root: &HostPath) -> Result<()> {
    let Some(mut aside) = Aside::open(root)? else {
        return Ok(());
    };
    if aside.record.is_unsettled() {
        for moved in &mut aside.record.moved {
            moved.settled = true;
        }
        aside.write()?;
    }
    Ok(())
}

/// Puts back what was moved aside in `root`. `None`: nothing was.
pub(crate) fn put_back(root: &HostPath, which: GoesBack) -> Result<Option<PutBack>> {
    let Some(mut aside) = Aside::open(root)? else {
        return Ok(None);
    };
    let put_back = aside.put_back(which)?;
    if put_back == PutBack::default() {
        return Ok(None);
    }
    Ok(Some(put_back))
}

/// A root, and the directory in it for what is moved aside, both open.
struct Aside {
    path: HostPath,
    root: OwnedFd,
    device: u64,
    dir: OwnedFd,
    record: AsideRecord,
}

impl Aside {
    /// Makes the directory if there is none.
    fn make(root: &HostPath) -> Result<Self> {
        let fd = open_root(root)?;
        let time = Modified::of(&fd).context(format_args!("cannot look at the root {root}"))?;
        if adopt::open_directory(&fd, root)?.is_none()
            && let Err(error) = make_directory(&fd, adopt::name_of_directory())
        {
            return Err(cannot_make(root, &error));
        }
        if let Some(dir) = adopt::open_directory(&fd, root)? {
            let mut aside = Self::of(root, fd, dir)?;
            aside.record.remember(&JailPath::slash(), time);
            return Ok(aside);
        }
        let is_gone = io::Error::from_raw_os_error(libc::ENOENT);
        Err(cannot_make(root, &is_gone))
    }

    /// `None`: there is none.
    fn open(root: &HostPath) -> Result<Option<Self>> {
        let fd = open_root(root)?;
        match adopt::open_directory(&fd, root)? {
            Some(dir) => Self::of(root, fd, dir).map(Some),
            None => Ok(None),
        }
    }

    fn of(path: &HostPath, root: OwnedFd, dir: OwnedFd) -> Result<Self> {
        let stat = sys::stat_fd(&root).context(format_args!("cannot look at the root {path}"))?;
        Ok(Self {
            record: adopt::read_in(&dir, path)?.unwrap_or_else(AsideRecord::new),
            path: path.clone(),
            device: stat.file.dev,
            root,
            dir,
        })
    }

    /// Moves `standing` aside, in this order. The first error ends it.
    fn move_all(&mut self, standing: &[&Standing], stop: &Stop) -> Result<()> {
        let before = self.record.moved.len();
        self.announce(standing)?;
        for (moved, standing) in self.record.moved[before..].iter().zip(standing) {
            check_signal(stop)?;
            self.move_one(moved, standing)?;
        }
        Ok(())
    }

    /// Records what is about to be moved.
    fn announce(&mut self, standing: &[&Standing]) -> Result<()> {
        for standing in standing {
            let (path, to) = (&standing.path, self.free_name(&standing.path)?);
            self.remember_times(path);
            let stat = self.explained("move", path, self.stat(path))?;
            self.record.moved.push(Moved {
                path: path.clone(),
                to,
                file: Identity::of(&stat, self.device),
                settled: false,
                more: Unknown::new(),
            });
        }
        self.write()
    }

    /// Records when the directories on the way to `path` were last changed.
    fn remember_times(&mut self, path: &JailPath) {
        for above in path.directories_above() {
            if let Ok(dir) = self.directory(&above)
                && let Ok(time) = Modified::of(&dir)
            {
                self.record.remember(&above, time);
            }
        }
    }

    /// Sets the times of the directories that changed with what was moved.
    fn restore_times(&self) {
        for directory in &self.record.directories {
            if let Ok(dir) = self.directory(&directory.path) {
                let _ = directory.modified.set(&dir); // nothing depends on it
            }
        }
    }

    /// The directory `path`, on the mount that the root is on, open for reading.
    fn directory(&self, path: &JailPath) -> io::Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK;
        match path.relative() {
            path if path.as_os_str().is_empty() => {
                sys::open_unmounted(&self.root, Path::new("."), flags)
            }
            path => sys::open_unmounted(&self.root, path, flags),
        }
    }

    /// A name below the directory that nothing has.
    fn free_name(&self, path: &JailPath) -> Result<JailPath> {
        for nth in 1..NAMES {
            let mut to = OsString::from(DIRECTORY);
            to.push(path.as_path());
            if nth > 1 {
                to.push(format!("~{nth}"));
            }
            if let Ok(to) = JailPath::new(to)
                && self.is_free(&to)
            {
                return Ok(to);
            }
        }
        let path = self.path.inside(path);
        Err(Error::failed(format!(
            "cannot move {path}: no name in {DIRECTORY} is free for it"
        )))
    }

    fn is_free(&self, to: &JailPath) -> bool {
        let is_recorded = self.record.moved.iter().any(|moved| moved.to == *to);
        !is_recorded && self.stat(to).is_err()
    }

    fn move_one(&self, moved: &Moved, standing: &Standing) -> Result<()> {
        let path = &moved.path;
        let (from, to) = self.explained("move", path, self.rename_aside(moved))?;
        match adopt::tree(&to.dir, Path::new(&to.name)) {
            Ok(tree) if tree == standing.tree => Ok(()),
            _ => {
                self.explained("put back", path, rename(&to, &from))?;
                let path = self.path.inside(path);
                Err(Error::failed(format!("{path} was changed while it was moved")).overtaken())
            }
        }
    }

    /// Returns where it was, and where it is.
    fn rename_aside(&self, moved: &Moved) -> io::Result<(Slot, Slot)> {
        let from = self.slot(&moved.path)?;
        self.make_parents(&moved.to)?;
        let to = self.slot(&moved.to)?;
        rename(&from, &to)?;
        Ok((from, to))
    }

    /// Puts things back, the last one first, and forgets them.
    fn put_back(&mut self, which: GoesBack) -> Result<PutBack> {
        let (mut done, mut kept) = (PutBack::default(), vec![]);
        for moved in std::mem::take(&mut self.record.moved).into_iter().rev() {
            if which == GoesBack::Unsettled && moved.settled {
                kept.push(moved);
                continue;
            }
            match self.put_one_back(&moved) {
                Ok(true) => done.back.push(moved.path),
                Ok(false) => {} // it was never moved
                Err(why) => {
                    done.left.push((moved.path.clone(), why));
                    kept.push(moved);
                }
            }
        }
        kept.reverse();
        self.record.moved = kept;
        // Renames reach the disk before their record goes.
        let _ = rustix::fs::syncfs(&self.dir);
        if self.record.moved.is_empty() {
            self.remove()?;
            self.restore_times();
        } else {
            self.write()?;
        }
        Ok(done)
    }

    /// Whether it had been moved. Errors: why it stays, a clause.
    fn put_one_back(&self, moved: &Moved) -> Result<bool, String> {
        let at = self.path.inside(&moved.to);
        let (aside, home) = (self.slot(&moved.to), self.slot(&moved.path));
        let aside = match aside.and_then(Slot::with_stat) {
            Ok((aside, stat)) if self.is_it(moved, &stat) => aside,
            Ok(_) => return Err(format!("{at} is another file now")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match home.and_then(Slot::with_stat) {
                    Ok((_, stat)) if self.is_it(moved, &stat) => Ok(false),
                    _ => Err(format!("{at} is not there any more")),
                };
            }
            Err(error) => return Err(in_words(&error)),
        };
        let renamed = match home {
            Ok(home) => rename(&aside, &home),
            Err(error) => Err(error),
        };
        match renamed {
            Ok(()) => Ok(true),
            Err(error) => Err(why_aside(&at, &error)),
        }
    }

    /// Whether the file with this status is the one that was to be moved.
    fn is_it(&self, moved: &Moved, stat: &Stat) -> bool {
        Identity::of(stat, self.device).is(&moved.file)
    }

    /// Removes the record and the directory, if it holds nothing else.
    fn remove(&self) -> Result<()> {
        let place = format_args!("cannot remove {}{DIRECTORY}", self.path);
        for removed in [self.unlink(RECORD), self.unlink(NEW_RECORD)] {
            removed.context(place)?;
        }
        remove_empty(&self.root, adopt::name_of_directory()).context(place)
    }

    /// Removes a file in the directory, if it is there.
    fn unlink(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the record: all of it, or nothing is changed. The directory is root's alone.
    fn write(&self) -> Result<()> {
        self.write_io()
            .context(format_args!(
                "cannot write {}{DIRECTORY}/{RECORD}",
                self.path
            ))
            .map_err(|error| error.hint_while(Doing::Recording))
    }

    fn write_io(&self) -> io::Result<()> {
        let directory = proc::path_of_descriptor(&self.dir);
        let (path, new) = (directory.join(RECORD), directory.join(NEW_RECORD));
        let mut bytes = serde_json::to_vec(&self.record)?;
        bytes.push(b'\n');
        write_new(&new, &bytes, FileAccess::of_mode(0o600), Durability::Reboot)?;
        rename_over(&new, &path, Durability::Reboot)
    }

    /// Makes the missing directories between [`DIRECTORY`] and `to`.
    fn make_parents(&self, to: &JailPath) -> io::Result<()> {
        for above in to.directories_above().iter().skip(1) {
            let slot = self.slot(above)?;
            match make_directory(&slot.dir, Path::new(&slot.name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// The slot of `path`, on the mount that the root is on.
    fn slot(&self, path: &JailPath) -> io::Result<Slot> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        Ok(Slot {
            dir: sys::open_unmounted(&self.root, parent.relative(), flags)?,
            name: name.to_owned(),
        })
    }

    /// The status of what is at `path`. Links are not followed.
    fn stat(&self, path: &JailPath) -> io::Result<Stat> {
        self.slot(path)?.stat()
    }

    /// `result`, of which an error says what could not be done with `path`.
    fn explained<T>(&self, what: &str, path: &JailPath, result: io::Result<T>) -> Result<T> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let failed = Error::failed(format!("cannot {what} {}", self.path.inside(path)))
            .because(&error)
            .hint_while(Doing::Creating);
        match failed.errno() {
            Some(libc::ENOENT | libc::EEXIST | libc::ELOOP | libc::ENOTDIR) => {
                Err(failed.overtaken())
            }
            _ => Err(failed),
        }
    }
}

/// Why something that could not be renamed stays aside, a clause.
fn why_aside(at: &HostPath, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EEXIST | libc::ENOTEMPTY | libc::EISDIR) => {
            format!("something else is there now; it stays at {at}")
        }
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {
            format!("its directory is not there any more; it stays at {at}")
        }
        Some(libc::EXDEV) => format!("something is mounted on the way; it stays at {at}"),
        _ => format!("{}; it stays at {at}", in_words(error)),
    }
}

fn cannot_make(root: &HostPath, error: &io::Error) -> Error {
    Error::failed(format!("cannot make {root}{DIRECTORY}"))
        .because(error)
        .hint_while(Doing::Creating)
}

fn open_root(root: &HostPath) -> Result<OwnedFd> {
    sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY)
        .context(format_args!("cannot open the root {root}"))
}

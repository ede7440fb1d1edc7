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

use nix::unistd::{UnlinkatFlags, unlinkat};

use super::outcome::{EngineFailure, check_signal};
use super::replace::{Durability, FileAccess, rename_over, write_new};
use crate::adopt::{self, AsideRecord, DIRECTORY, Moved, RECORD, Standing};
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
    let before = aside.record.moved.len();
    let done = aside
        .announce(standing)
        .and_then(|()| aside.move_each(&standing_of(standing, before), stop));
    let Err(error) = done else {
        return Ok(());
    };

    let mut failure = EngineFailure::from(error);
    match aside.put_back(GoesBack::Unsettled) {
        Ok(PutBack { back, left }) => {
            let said = |path: &JailPath| format!("put back {path}");
            failure.undone = back.iter().map(said).collect();
            let stays = |(path, why): &(JailPath, String)| {
                Error::failed(format!("cannot put {path} back")).because_of(why)
            };
            failure.also = left.iter().map(stays).collect();
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
    let nothing = put_back == PutBack::default();
    Ok(Some(put_back).filter(|_| !nothing))
}

/// Each thing with its place in the record, of which the first is `at`.
fn standing_of<'s>(standing: &[&'s Standing], at: usize) -> Vec<(usize, &'s Standing)> {
    let each = standing.iter().enumerate();
    each.map(|(nth, standing)| (at + nth, *standing)).collect()
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
        let failed = |error: &io::Error| {
            Error::failed(format!("cannot make {root}{DIRECTORY}"))
                .because(error)
                .hint_while(Doing::Creating)
        };
        let fd = open_root(root)?;
        if adopt::open_directory(&fd, root)?.is_none() {
            make_directory(&fd, adopt::name_of_directory()).map_err(|error| failed(&error))?;
        }
        let dir = adopt::open_directory(&fd, root)?
            .ok_or_else(|| failed(&io::Error::from_raw_os_error(libc::ENOENT)))?;
        Self::of(root, fd, dir)
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

    /// Records what is about to be moved.
    fn announce(&mut self, standing: &[&Standing]) -> Result<()> {
        for standing in standing {
            let (path, to) = (&standing.path, self.free_name(&standing.path)?);
            let stat = self
                .slot(path)
                .and_then(|slot| slot.stat())
                .map_err(|error| self.cannot("move", path, &error))?;
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

    /// A name below the directory that nothing has.
    fn free_name(&self, path: &JailPath) -> Result<JailPath> {
        let is_free = |to: &JailPath| {
            let is_recorded = self.record.moved.iter().any(|moved| moved.to == *to);
            !is_recorded && self.slot(to).and_then(|slot| slot.stat()).is_err()
        };
        let candidates = (1..NAMES).filter_map(|nth| {
            let mut to = OsString::from(DIRECTORY);
            to.push(path.as_path());
            if nth > 1 {
                to.push(format!("~{nth}"));
            }
            JailPath::new(to).ok()
        });
        let mut free = candidates.filter(is_free);
        free.next().ok_or_else(|| {
            let path = self.path.inside(path);
            Error::failed(format!(
                "cannot move {path}: no name in {DIRECTORY} is free for it"
            ))
        })
    }

    fn move_each(&self, standing: &[(usize, &Standing)], stop: &Stop) -> Result<()> {
        for (nth, standing) in standing {
            check_signal(stop)?;
            self.move_one(&self.record.moved[*nth], standing)?;
        }
        Ok(())
    }

    fn move_one(&self, moved: &Moved, standing: &Standing) -> Result<()> {
        let failed = |error: &io::Error| self.cannot("move", &moved.path, error);
        let from = self.slot(&moved.path).map_err(|error| failed(&error))?;
        self.make_parents(&moved.to)
            .map_err(|error| failed(&error))?;
        let to = self.slot(&moved.to).map_err(|error| failed(&error))?;
        rename(&from, &to).map_err(|error| failed(&error))?;

        match adopt::tree(&to.dir, Path::new(&to.name)) {
            Ok(tree) if tree == standing.tree => Ok(()),
            _ => {
                let path = self.path.inside(&moved.path);
                rename(&to, &from).map_err(|error| self.cannot("put back", &moved.path, &error))?;
                Err(Error::failed(format!("{path} was changed while it was moved")).overtaken())
            }
        }
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
        } else {
            self.write()?;
        }
        Ok(done)
    }

    /// Whether it had been moved. Errors: why it stays, a clause.
    fn put_one_back(&self, moved: &Moved) -> Result<bool, String> {
        let is_it = |stat: &Stat| Identity::of(stat, self.device).is(&moved.file);
        let (aside, home) = (self.slot(&moved.to), self.slot(&moved.path));
        let found = aside.and_then(|aside| Ok((aside.stat()?, aside)));
        let aside = match found {
            Ok((stat, aside)) if is_it(&stat) => aside,
            Ok(_) => return Err(format!("{} is another file now", moved.to)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let at_home = home.and_then(|home| home.stat());
                return match at_home {
                    Ok(stat) if is_it(&stat) => Ok(false),
                    _ => Err(format!("{} is not there any more", moved.to)),
                };
            }
            Err(error) => return Err(in_words(&error)),
        };
        let stays = |error: &io::Error| match error.raw_os_error() {
            Some(libc::EEXIST | libc::ENOTEMPTY | libc::EISDIR) => {
                format!("something else is there now; it stays at {}", moved.to)
            }
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {
                format!(
                    "its directory is not there any more; it stays at {}",
                    moved.to
                )
            }
            Some(libc::EXDEV) => {
                format!("something is mounted on the way; it stays at {}", moved.to)
            }
            _ => format!("{}; it stays at {}", in_words(error), moved.to),
        };
        let home = home.map_err(|error| stays(&error))?;
        rename(&aside, &home).map_err(|error| stays(&error))?;
        Ok(true)
    }

    /// Removes the record and the directory, if it holds nothing else.
    fn remove(&self) -> Result<()> {
        let gone = [RECORD, NEW_RECORD].map(|name| {
            let removed = unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir);
            removed.map_err(io::Error::from).or_else(absent_is_well)
        });
        gone.into_iter()
            .collect::<io::Result<Vec<_>>>()
            .and_then(|_| remove_empty(&self.root, adopt::name_of_directory()))
            .map_err(|error| {
                let place = format!("{}{DIRECTORY}", self.path);
                Error::failed(format!("cannot remove {place}")).because(&error)
            })
    }

    /// Writes the record: all of it, or nothing is changed. The directory is root's alone.
    fn write(&self) -> Result<()> {
        let directory = proc::path_of_descriptor(&self.dir);
        let (path, new) = (directory.join(RECORD), directory.join(NEW_RECORD));
        let written = || -> io::Result<()> {
            let mut bytes = serde_json::to_vec(&self.record)?;
            bytes.push(b'\n');
            write_new(&new, &bytes, FileAccess::of_mode(0o600), Durability::Reboot)?;
            rename_over(&new, &path, Durability::Reboot)
        };
        written().map_err(|error| {
            Error::failed(format!("cannot write {}{DIRECTORY}/{RECORD}", self.path))
                .because(&error)
                .hint_while(Doing::Recording)
        })
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

    fn cannot(&self, what: &str, path: &JailPath, error: &io::Error) -> Error {
        let error = Error::failed(format!("cannot {what} {}", self.path.inside(path)))
            .because(error)
            .hint_while(Doing::Creating);
        match error.errno() {
            Some(libc::ENOENT | libc::EEXIST | libc::ELOOP | libc::ENOTDIR) => error.overtaken(),
            _ => error,
        }
    }
}

fn open_root(root: &HostPath) -> Result<OwnedFd> {
    sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY)
        .context(format_args!("cannot open the root {root}"))
}

fn absent_is_well(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

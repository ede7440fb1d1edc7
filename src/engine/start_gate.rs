//! A service that waits at its start until it is followed: its drop-in and its FIFO, in `/run`.
//!
//! The drop-in makes the FIFO the service's standard input. systemd opens that in the service's new
//! process, before it enters the service's root, becomes its user and executes its program. There
//! the process waits until somebody opens the other end: fifo(7). The service's own lines stay as
//! they are.
//!
//! Whoever makes them holds a lock on the drop-in. Without one, they are left over from a run that
//! was killed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::drop_in::{remove_drop_in, write_drop_in};
use super::journal::remove_file;
use super::replace::make_parents;
use crate::base::hints::is_absent;
use crate::base::{Error, ErrorContext, Result};

/// The first line of the drop-in.
const HEADER: &str = "# Written by `mountjail trace --start`, for a moment.";

/// The name of the drop-in, which is read after those of others, and that of the FIFO beside it.
const DROP_IN: &str = "zz-mountjail-trace.conf";
const FIFO: &str = "zz-mountjail-trace.stdin";

/// A service's gate. It is closed until it is opened for good.
#[derive(Debug)]
pub(crate) struct StartGate {
    pub unit: String,
    pub drop_in: PathBuf,
    /// `None`: what was left over.
    _lock: Option<File>,
}

impl StartGate {
    /// Makes the gate of `unit` in `directory`, which systemd must then read.
    ///
    /// Errors: another process has one of this unit; it cannot be made.
    pub(crate) fn make(directory: &Path, unit: &str) -> Result<Self> {
        let drop_in = directory.join(format!("{unit}.d")).join(DROP_IN);
        let fifo = fifo_of(&drop_in);
        let cannot = |error: io::Error| {
            Error::failed(format!("cannot have {unit} wait at its start")).because(&error)
        };
        if is_locked(&drop_in) {
            return Err(Error::failed(format!("{unit} is being followed already"))
                .hint("end the other `mountjail trace --start` first"));
        }

        make_parents(&fifo).map_err(cannot)?;
        remove_file(&fifo)?;
        mkfifo(&fifo, Mode::from_bits_truncate(0o600)).map_err(|error| cannot(error.into()))?;
        // The names of units have neither specifiers nor quotes: systemd.unit(5).
        let text = format!(
            "{HEADER}\n# The service waits until it is followed.\n[Service]\n\
             StandardInput=file:{}\n",
            fifo.display()
        );
        write_drop_in(&drop_in, HEADER, &text)?;
        let lock = File::open(&drop_in).map_err(cannot)?;
        lock.lock().map_err(cannot)?;
        Ok(Self {
            unit: unit.to_owned(),
            drop_in,
            _lock: Some(lock),
        })
    }

    /// Those in `directory` whose maker was killed.
    pub(crate) fn left_over(directory: &Path) -> Vec<Self> {
        let mut left = vec![];
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let drop_in = entry.path().join(DROP_IN);
            let is_there = [&drop_in, &fifo_of(&drop_in)]
                .into_iter()
                .any(|path| path.symlink_metadata().is_ok());
            if let Some(unit) = unit_of(&drop_in)
                && is_there
                && !is_locked(&drop_in)
            {
                left.push(Self {
                    unit: unit.to_owned(),
                    drop_in,
                    _lock: None,
                });
            }
        }
        left
    }

    /// Lets everything through, now and later, and takes the drop-in away. systemd may not have
    /// read its units again yet: until then, processes that begin find a link to `/dev/null`.
    pub(crate) fn open_for_good(&self) -> Result<()> {
        let fifo = fifo_of(&self.drop_in);
        let cannot = format_args!("cannot let {} start", self.unit);
        let way = fifo.with_extension("open");
        remove_file(&way)?;
        symlink("/dev/null", &way).context(cannot)?;
        let opened = open_gate(&self.drop_in).context(cannot)?;
        fs::rename(&way, &fifo).context(cannot)?;
        // Those that waited have been woken up.
        drop(opened);
        remove_file(&self.drop_in)
    }

    /// Removes the rest, once systemd has read its units again.
    pub(crate) fn remove(self) -> Result<()> {
        remove_file(&fifo_of(&self.drop_in))?;
        remove_drop_in(&self.drop_in, HEADER)?;
        if let Some(directory) = self.drop_in.parent() {
            let _ = fs::remove_dir(directory); // it may hold other drop-ins
        }
        Ok(())
    }
}

/// Lets those through that wait at the gate, and those that come as long as the file is open.
/// `None`: there is no gate any more.
pub(crate) fn open_gate(drop_in: &Path) -> io::Result<Option<File>> {
    let fifo = fifo_of(drop_in);
    match fs::symlink_metadata(&fifo) {
        Ok(found) if found.file_type().is_fifo() => {
            // With both ends, this does not wait itself.
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(fifo)
                .map(Some)
        }
        Ok(_) => Ok(None),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn fifo_of(drop_in: &Path) -> PathBuf {
    drop_in.with_file_name(FIFO)
}

/// The unit of a drop-in.
fn unit_of(drop_in: &Path) -> Option<&str> {
    let directory = drop_in.parent()?.file_name()?.to_str()?;
    directory.strip_suffix(".d")
}

/// Whether a process holds the lock on the drop-in.
fn is_locked(drop_in: &Path) -> bool {
    File::open(drop_in).is_ok_and(|file| file.try_lock().is_err())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn who_waits_is_let_through_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let gate = StartGate::make(dir.path(), "a.service").unwrap();
        assert!(
            StartGate::make(dir.path(), "a.service").is_err(),
            "it is held"
        );
        assert_eq!(StartGate::left_over(dir.path()).len(), 0);

        let (send, passed) = mpsc::channel();
        let fifo = fifo_of(&gate.drop_in);
        let service = thread::spawn(move || {
            let mut input = File::open(fifo).unwrap();
            send.send(()).unwrap();
            input.read(&mut [0]).unwrap()
        });
        assert!(passed.try_recv().is_err(), "nobody opened it");
        let opened = open_gate(&gate.drop_in).unwrap();
        passed.recv().unwrap();
        drop(opened);
        assert_eq!(service.join().unwrap(), 0, "its standard input is empty");

        gate.open_for_good().unwrap();
        assert!(!gate.drop_in.exists());
        assert_eq!(
            fs::read(fifo_of(&gate.drop_in)).unwrap(),
            b"",
            "late ones do not wait"
        );
        gate.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_found_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b.service.d")).unwrap();
        fs::write(dir.path().join("b.service.d/own.conf"), "").unwrap();
        drop(StartGate::make(dir.path(), "b.service").unwrap());
        let mut left = StartGate::left_over(dir.path());
        let gate = left.pop().unwrap();
        assert!(left.is_empty() && gate.unit == "b.service");
        gate.open_for_good().unwrap();
        gate.remove().unwrap();
        assert_eq!(StartGate::left_over(dir.path()).len(), 0);
        assert!(dir.path().join("b.service.d/own.conf").exists());
    }
}

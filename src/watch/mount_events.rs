//! Events of the mount table.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags};

use crate::sys::{self, MountEvent};
use crate::{Error, Result};

const TABLE: &str = "/proc/self/mountinfo";

/// The source of events of the mount table.
#[derive(Debug)]
pub(super) struct MountSource {
    /// It reports that something changed, not what.
    table: File,
    /// fanotify reports each mount (Linux 6.14), but not that one was remounted.
    group: Option<OwnedFd>,
}

/// The events that poll(2) reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MountsChanged {
    /// The table has changed.
    pub(super) table: bool,
    /// Events can be read.
    pub(super) events: bool,
}

impl MountSource {
    /// The best source that this kernel offers; the older one if `forced` is `poll`.
    pub(super) fn open(forced: Option<&str>) -> Result<Self> {
        let group = match forced {
            Some("poll") => None,
            None | Some("" | "fanotify") => sys::watch_mounts().ok(),
            Some(other) => {
                return Err(
                    Error::usage(format!("MOUNTJAIL_MOUNT_EVENTS={other} is not known"))
                        .hint("it can be `fanotify` or `poll`"),
                );
            }
        };
        let table = File::open(TABLE).map_err(|error| {
            Error::failed(format!("cannot watch the mount table {TABLE}"))
                .because(&error)
                .hint("is /proc mounted?")
        })?;
        Ok(Self { table, group })
    }

    /// One whose events cannot be read.
    #[cfg(test)]
    pub(super) fn unreadable() -> Self {
        let open = |path| File::open(path).unwrap();
        Self {
            table: open(TABLE),
            group: Some(open("/proc").into()),
        }
    }

    /// `fanotify` or `poll`.
    pub(super) fn name(&self) -> &'static str {
        if self.tells_each() {
            "fanotify"
        } else {
            "poll"
        }
    }

    /// Whether each mount that is attached or detached is reported.
    pub(super) fn tells_each(&self) -> bool {
        self.group.is_some()
    }

    /// The events that poll(2) has to wait for. It reports a change of the table once:
    /// `proc_pid_mountinfo(5)`.
    pub(super) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let mut fds = vec![PollFd::new(self.table.as_fd(), PollFlags::POLLPRI)];
        if let Some(group) = &self.group {
            fds.push(PollFd::new(group.as_fd(), PollFlags::POLLIN));
        }
        fds
    }

    /// Reads the pending events; there are none if mounts are not reported.
    pub(super) fn read(&self) -> io::Result<Vec<MountEvent>> {
        self.group
            .as_ref()
            .map_or(Ok(vec![]), sys::read_mount_events)
    }
}

impl MountsChanged {
    /// From the polled [`MountSource::poll_fds`].
    pub(super) fn of(fds: &[PollFd<'_>]) -> Self {
        Self {
            table: is_set(fds.first()),
            events: is_set(fds.get(1)),
        }
    }
}

/// Whether poll(2) reported anything of `fd`, known to this program or not.
fn is_set(fd: Option<&PollFd<'_>>) -> bool {
    fd.is_some_and(|fd| fd.any().unwrap_or(true))
}

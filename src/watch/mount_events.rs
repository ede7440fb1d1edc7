//! What happens to the mount table.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags};

use crate::sys::{self, MountEvent};
use crate::{Error, Result};

const TABLE: &str = "/proc/self/mountinfo";

/// Where events of the mount table come from.
#[derive(Debug)]
pub struct MountSource {
    /// Tells that something changed, not what.
    table: File,
    /// fanotify tells each mount (Linux 6.14), but not that one has other attributes now.
    group: Option<OwnedFd>,
}

/// What poll(2) said.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountsChanged {
    /// The table is another one.
    pub(crate) table: bool,
    /// Events can be read.
    pub(crate) events: bool,
}

impl MountSource {
    /// What this kernel offers; `forced`, if it is `poll`, the older way.
    pub fn open(forced: Option<&str>) -> Result<Self> {
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
        let cannot = |error: io::Error| {
            Error::failed(format!("cannot watch the mount table {TABLE}"))
                .because(&error)
                .hint("is /proc mounted?")
        };
        Ok(Self {
            table: File::open(TABLE).map_err(cannot)?,
            group,
        })
    }

    /// `fanotify` or `poll`.
    pub fn name(&self) -> &'static str {
        if self.tells_each() {
            "fanotify"
        } else {
            "poll"
        }
    }

    /// Whether each mount that comes or goes is told.
    pub(crate) fn tells_each(&self) -> bool {
        self.group.is_some()
    }

    /// What poll(2) has to wait for. That the table changed it tells once: `proc_pid_mountinfo(5)`.
    pub(crate) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let table = PollFd::new(self.table.as_fd(), PollFlags::POLLPRI);
        let group = self
            .group
            .iter()
            .map(|group| PollFd::new(group.as_fd(), PollFlags::POLLIN));
        [table].into_iter().chain(group).collect()
    }

    /// The events that wait; none where no mount is told.
    pub(crate) fn read(&self) -> io::Result<Vec<MountEvent>> {
        self.group
            .as_ref()
            .map_or(Ok(vec![]), sys::read_mount_events)
    }
}

impl MountsChanged {
    /// What was found of [`MountSource::poll_fds`].
    pub(crate) fn of(fds: &[PollFd<'_>]) -> Self {
        let is_set = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| fd.any().unwrap_or(true));
        Self {
            table: is_set(fds.first()),
            events: is_set(fds.get(1)),
        }
    }
}

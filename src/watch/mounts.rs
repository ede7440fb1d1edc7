//! What happens to the mount table.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::PollFlags;

use crate::sys::{self, MountEvent};
use crate::{Error, Result};

const TABLE: &str = "/proc/self/mountinfo";

/// Where events of the mount table come from.
#[derive(Debug)]
pub enum MountSource {
    /// fanotify tells each mount (Linux 6.14).
    Fanotify(OwnedFd),
    /// The table tells that it changed, not how.
    Poll(File),
}

impl MountSource {
    /// What this kernel offers; `forced`, if it is `poll`, the older way.
    pub fn open(forced: Option<&str>) -> Result<Self> {
        match forced {
            Some("poll") => {}
            None | Some("" | "fanotify") => {
                if let Ok(group) = sys::watch_mounts() {
                    return Ok(Self::Fanotify(group));
                }
            }
            Some(other) => {
                return Err(Error::usage(format!("MOUNTJAIL_MOUNT_EVENTS={other} is not known"))
                    .hint("it can be `fanotify` or `poll`"));
            }
        }
        let cannot = |error: io::Error| {
            Error::failed(format!("cannot watch the mount table {TABLE}"))
                .because(&error)
                .hint("is /proc mounted?")
        };
        File::open(TABLE).map(Self::Poll).map_err(cannot)
    }

    /// `fanotify` or `poll`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fanotify(_) => "fanotify",
            Self::Poll(_) => "poll",
        }
    }

    /// What poll(2) has to wait for. Of the table it tells each change once: `proc_pid_mountinfo(5)`.
    pub(super) fn flags(&self) -> PollFlags {
        match self {
            Self::Fanotify(_) => PollFlags::POLLIN,
            Self::Poll(_) => PollFlags::POLLPRI,
        }
    }

    /// The events that wait, after poll(2) said so. `None`: something changed.
    pub(super) fn read(&self) -> io::Result<Option<Vec<MountEvent>>> {
        match self {
            Self::Fanotify(group) => sys::read_mount_events(group).map(Some),
            Self::Poll(_) => Ok(None),
        }
    }
}

impl AsFd for MountSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Fanotify(group) => group.as_fd(),
            Self::Poll(table) => table.as_fd(),
        }
    }
}

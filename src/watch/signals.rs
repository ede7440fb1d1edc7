//! Signals of the service manager and the administrator.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::patience::worker;

/// SIGTERM, SIGINT and SIGHUP as flags, and as something to wait for.
pub(super) struct WatchSignals {
    /// The watcher is to end.
    pub stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    pipe: UnixStream,
}

impl WatchSignals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let (stop, reload) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let (pipe, mut tell) = UnixStream::pair().context("cannot wait for signals")?;
        pipe.set_nonblocking(true)?;
        for (signal, flag) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGHUP, &reload)] {
            // The flag is set before the pipe can be read.
            signal_hook::flag::register(signal, flag.clone()).context("cannot wait for signals")?;
            signal_hook::low_level::pipe::register(signal, tell.try_clone()?)
                .context("cannot wait for signals")?;
        }
        match worker::stops_on_signals() {
            Some(SIGHUP) => reload.store(true, Ordering::Relaxed),
            Some(_) => stop.store(true, Ordering::Relaxed),
            None => {}
        }
        if stop.load(Ordering::Relaxed) || reload.load(Ordering::Relaxed) {
            tell.write_all(&[0])?; // it may have come before the pipe was there
        }
        Ok(Self { stop, reload, pipe })
    }

    /// Whether everything is to be checked again.
    pub(super) fn taken_reload(&mut self) -> bool {
        while self.pipe.read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
        self.reload.swap(false, Ordering::Relaxed)
    }
}

impl AsFd for WatchSignals {
    /// It can be read after a signal.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

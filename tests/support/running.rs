//! A process that runs beside a trial.

use std::process::{Child, Command};

use super::soon;

/// Killed when dropped.
pub struct Running(pub Child);

impl Running {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    /// Starts `command`, and waits until `begun` with its id.
    #[track_caller]
    pub fn start_until(command: &mut Command, begun: impl Fn(u32) -> bool) -> Self {
        let running = Self::start(command);
        let pid = running.pid();
        soon("it has begun", || {
            begun(pid).then_some(()).ok_or_else(|| format!("pid {pid}"))
        });
        running
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

//! What the commands share: where things are, the presets, the host, the engine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::out::Out;
use super::sites;
use super::trust::Trust;
use crate::engine::{Engine, Lock};
use crate::manifest::{HostPath, Presets};
use crate::observe::{self, BootId, StateDir, Table};
use crate::resolve::{Host, Resolver, Roots};
use crate::{Error, Result, sys};

pub(super) struct Context<'o> {
    pub config: PathBuf,
    pub state: StateDir,
    pub presets: Arc<Presets>,
    pub host: Host,
    pub out: &'o Out,
    pub trust: Trust,
    roots: Arc<OnceLock<Roots>>,
}

impl<'o> Context<'o> {
    pub(super) fn new(
        config: PathBuf,
        state_dir: Option<PathBuf>,
        trust: Trust,
        out: &'o Out,
    ) -> Result<Self> {
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|error| {
                Error::failed(format!("cannot use the directory {}", path.display())).because(&error)
            })
        };
        let state = match state_dir.filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => StateDir::under(&absolute(dir)?),
            None => StateDir::default(),
        };
        // A directory that is not there cannot be looked up.
        let config = sites::absolute(&config).or_else(|_| absolute(config))?;
        Self::of(config, state, trust, out)
    }

    fn of(config: PathBuf, state: StateDir, trust: Trust, out: &'o Out) -> Result<Self> {
        let presets = Arc::new(sites::presets(&config, &trust)?);
        Ok(Self { config, state, presets, host: Host::new(), out, trust, roots: Arc::default() })
    }

    /// The same with the host and the configuration as they are now.
    pub(super) fn reloaded(&self) -> Result<Self> {
        Self::of(self.config.clone(), self.state.clone(), self.trust.afresh(), self.out)
    }

    /// The same configuration for another look at the host, which writes down what it looks up.
    pub(super) fn afresh(&self) -> Self {
        Self {
            config: self.config.clone(),
            state: self.state.clone(),
            presets: self.presets.clone(),
            host: Host::new().recording(),
            out: self.out,
            trust: self.trust.afresh(),
            roots: self.roots.clone(),
        }
    }

    /// The resolver of this run.
    pub(super) fn resolver(&self) -> Result<Resolver<'_>> {
        let generated = HostPath::new(&self.state.lib).map_err(|why| {
            Error::usage(format!("cannot use the state directory {}", self.state.lib.display()))
                .because_of(why)
        })?;
        Ok(Resolver::new(&self.host, generated))
    }

    /// The roots of all sites of the configuration.
    pub(super) fn roots(&self) -> &Roots {
        self.roots.get_or_init(|| sites::roots(self))
    }

    /// As [`Context::engine_anywhere`], to mount and unmount with: not in another mount namespace than the records
    /// tell of.
    pub(super) fn engine(&self, boot: BootId, many: bool) -> Result<Engine> {
        if self.state == StateDir::default() && observe::apart_from_first() {
            let run = self.state.run.display();
            return Err(Error::failed(format!(
                "this process has a mount namespace of its own, whose mounts are seen nowhere else; {run} tells of \
                 the mounts in that of PID 1"
            ))
            .hint(
                "run it there: `nsenter --target 1 --mount -- mountjail …`; or keep records for this namespace alone, \
                 with --state-dir",
            ));
        }
        self.engine_anywhere(boot, many)
    }

    /// What keeps other mountjails from editing files of the host; says so before it waits for one.
    pub(super) fn editing(&self) -> Result<Lock> {
        self.state.create()?;
        let waiting = || self.out.info(format_args!("waiting for another mountjail to finish editing"));
        Lock::take(&self.state.edit_lock(), waiting)
    }

    /// An engine, after what killed runs left was swept away. `many`: it will serve more than one site.
    pub(super) fn engine_anywhere(&self, boot: BootId, many: bool) -> Result<Engine> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::failed("mounting needs root").hint("run the command with sudo"));
        }
        let forced = std::env::var("MOUNTJAIL_ENGINE").ok();
        self.state.create()?;
        let engine = Engine::new(forced, self.state.clone(), boot, many);
        engine.sweep();
        Ok(engine)
    }
}

/// The whole mount table, where `whole` asks for it or the kernel cannot be asked for single mounts.
pub(super) fn table(whole: bool) -> Result<Option<Table>> {
    if whole || !sys::probe::statmount() { Table::read().map(Some) } else { Ok(None) }
}

/// Set by the first SIGINT, SIGTERM or SIGHUP: stop, and leave nothing half done.
pub(super) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot wait for signals")?;
    }
    Ok(stop)
}

pub(super) fn is_set(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

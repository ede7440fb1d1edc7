//! What the commands share: where things are, the presets, the host, the engine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::out::Out;
use super::sites;
use crate::engine::Engine;
use crate::manifest::{HostPath, Presets};
use crate::observe::{BootId, StateDir, Table};
use crate::resolve::{Host, Resolver, Roots};
use crate::{Error, Result, sys};

pub(super) struct Context<'o> {
    pub config: PathBuf,
    pub state: StateDir,
    pub presets: Presets,
    pub host: Host,
    pub out: &'o Out,
    roots: OnceLock<Roots>,
}

impl<'o> Context<'o> {
    pub(super) fn new(config: PathBuf, state_dir: Option<PathBuf>, out: &'o Out) -> Result<Self> {
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|error| {
                Error::failed(format!("cannot use the directory {}", path.display())).because(&error)
            })
        };
        let state = match state_dir.filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => StateDir::under(&absolute(dir)?),
            None => StateDir::default(),
        };
        let config = absolute(config)?;
        let presets = sites::presets(&config)?;
        Ok(Self { config, state, presets, host: Host::new(), out, roots: OnceLock::new() })
    }

    /// The same, but what was read of the host and the configuration is forgotten: for after a long wait.
    pub(super) fn anew(&self) -> Result<Self> {
        let (config, state, presets) =
            (self.config.clone(), self.state.clone(), sites::presets(&self.config)?);
        Ok(Self { config, state, presets, host: Host::new(), out: self.out, roots: OnceLock::new() })
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
        self.roots.get_or_init(|| sites::roots(&self.config))
    }

    /// An engine, after what killed runs left was swept away. `many`: it will serve more than one site.
    pub(super) fn engine(&self, boot: BootId, many: bool) -> Result<Engine> {
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

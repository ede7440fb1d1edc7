//! What the commands share: where things are, the presets, the host, the engine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::configuration;
use super::out::Out;
use super::trust::Trust;
use crate::base::HostPath;
use crate::engine::{Engine, Lock};
use crate::manifest::Presets;
use crate::observe::{self, BootId, StateDir, Table};
use crate::patience::worker;
use crate::resolve::{Host, Resolver, Roots};
use crate::{Error, Result, sys};

/// What is reported once in a run.
static OWNERS_HIDDEN: Once = Once::new();
static NOT_SEEN: Once = Once::new();

pub(crate) struct Context {
    pub config: PathBuf,
    pub state: StateDir,
    pub presets: Arc<Presets>,
    pub host: Host,
    pub out: &'static Out,
    /// How long a site's file systems may be silent until it is given up; `None`: for ever.
    pub limit: Option<Duration>,
    pub trust: Trust,
    roots: Arc<OnceLock<Roots>>,
}

impl Context {
    pub(crate) fn new(
        config: PathBuf,
        state_dir: Option<PathBuf>,
        limit: Option<Duration>,
        trust: Trust,
        out: &'static Out,
    ) -> Result<Self> {
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|error| {
                Error::failed(format!("cannot use the directory {}", path.display()))
                    .because(&error)
            })
        };
        let state = match state_dir.filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => StateDir::under(&absolute(dir)?),
            None => StateDir::default(),
        };
        // A directory that is not there cannot be looked up.
        let config = configuration::absolute(&config).or_else(|_| absolute(config))?;
        let presets = Arc::new(configuration::presets(&config, &trust)?);
        Ok(Self {
            config,
            state,
            presets,
            host: Host::new(),
            out,
            limit,
            trust,
            roots: Arc::default(),
        })
    }

    /// The same with the host and the configuration as they are now.
    pub(crate) fn reloaded(&self) -> Result<Self> {
        let trust = self.trust.afresh();
        let presets = Arc::new(configuration::presets(&self.config, &trust)?);
        Ok(Self {
            presets,
            trust,
            host: Host::new(),
            roots: Arc::default(),
            ..self.again()
        })
    }

    /// The same once more, for threads that may outlive this one.
    pub(crate) fn again(&self) -> Self {
        Self {
            config: self.config.clone(),
            state: self.state.clone(),
            presets: self.presets.clone(),
            host: self.host.scope(),
            out: self.out,
            limit: self.limit,
            trust: self.trust.afresh(),
            roots: self.roots.clone(),
        }
    }

    /// The same configuration for another look at the host, which writes down what it looks up.
    pub(crate) fn afresh(&self) -> Self {
        Self {
            host: Host::new().tracked(),
            ..self.again()
        }
    }

    /// The resolver of this run.
    pub(crate) fn resolver(&self) -> Result<Resolver> {
        let generated = HostPath::new(&self.state.lib).map_err(|why| {
            Error::usage(format!(
                "cannot use the state directory {}",
                self.state.lib.display()
            ))
            .because_of(why)
        })?;
        Ok(Resolver::new(&self.host, generated))
    }

    /// The roots of all sites of the configuration.
    pub(crate) fn roots(&self) -> &Roots {
        self.roots
            .get_or_init(|| configuration::roots(&self.config, &self.state, &self.trust))
    }

    /// As [`Context::engine_anywhere`], to mount and unmount with: not in another mount namespace
    /// than the records tell of.
    pub(crate) fn engine(&self, boot: BootId, many: bool) -> Result<Engine> {
        if observe::owners_are_hidden() {
            let text = "this user namespace does not show whose the directories are that lead to the roots; see on the \
                        host that only root can write in them";
            OWNERS_HIDDEN.call_once(|| self.out.info(format_args!("{text}")));
        }
        if self.state == StateDir::default() && self.is_apart() {
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

    /// Whether the mounts would be seen nowhere else. Where that cannot be seen, so much is
    /// reported once, and the work goes on: it may be right, as in a container whose first process
    /// belongs to somebody else.
    fn is_apart(&self) -> bool {
        observe::apart_from_first().unwrap_or_else(|error| {
            let run = self.state.run.display();
            NOT_SEEN.call_once(|| {
                let cannot =
                    Error::failed("cannot see whether PID 1 has the same mount namespace as this process");
                self.out.warn(format_args!(
                    "{}; if it has not, what is mounted now is seen nowhere else, although {run} tells of it",
                    cannot.because(&error)
                ));
            });
            false
        })
    }

    /// What keeps other mountjails from editing files of the host; says so before it waits for one.
    pub(crate) fn editing(&self) -> Result<Lock> {
        self.state.create()?;
        let waiting = || {
            self.out.info(format_args!(
                "waiting for another mountjail to finish editing"
            ));
        };
        Lock::take(&self.state.edit_lock(), waiting)
    }

    /// An engine, after what killed runs left was swept away. `many`: it will serve more than one
    /// site.
    pub(crate) fn engine_anywhere(&self, boot: BootId, many: bool) -> Result<Engine> {
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

/// The whole mount table, where `whole` asks for it or the kernel cannot be asked for single
/// mounts.
pub(crate) fn table(whole: bool) -> Result<Option<Table>> {
    if whole || !sys::probe::statmount() {
        Table::read().map(Some)
    } else {
        Ok(None)
    }
}

/// Set by the first SIGINT, SIGTERM or SIGHUP: stop, and leave nothing half done.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    worker::stops_on_signals();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot wait for signals")?;
    }
    Ok(stop)
}

pub(crate) fn is_set(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

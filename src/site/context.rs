//! The context that the commands share: where things are, the presets, the host, the engine.

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
use crate::engine::{Engine, Lock, Serves, make_state_directories};
use crate::manifest::Presets;
use crate::observe::{self, BootId, StateDir};
use crate::patience::worker;
use crate::resolve::{Host, Resolver, Roots};
use crate::{Error, Result};

/// The messages that are reported once per run.
static OWNERS_HIDDEN: Once = Once::new();
static NAMESPACE_UNKNOWN: Once = Once::new();

/// The purpose of an engine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It mounts and unmounts: only in the mount namespace that the records are about.
    Mount,
    /// It makes and removes what lines of fstab(5) mount on: in any mount namespace.
    Placeholders,
}

pub(crate) struct Context {
    pub config: PathBuf,
    pub state: StateDir,
    pub presets: Arc<Presets>,
    pub host: Host,
    pub out: &'static Out,
    /// How long a site's file systems may be silent before it is given up; `None`: for ever.
    pub limit: Option<Duration>,
    pub trust: Trust,
    /// Whether all paths are those of an image that is being built.
    pub is_in_image: bool,
    roots: Arc<OnceLock<Roots>>,
}

/// The same host and configuration, for threads that may outlive this one.
impl Clone for Context {
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
            state: self.state.clone(),
            presets: self.presets.clone(),
            host: self.host.scope(),
            out: self.out,
            limit: self.limit,
            trust: self.trust.with_new_host(),
            is_in_image: self.is_in_image,
            roots: self.roots.clone(),
        }
    }
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
        // A directory that does not exist cannot be looked up.
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
            is_in_image: false,
            roots: Arc::default(),
        })
    }

    /// The same settings, with the host and the configuration as they are now.
    pub(crate) fn reloaded(&self) -> Result<Self> {
        let trust = self.trust.with_new_host();
        let presets = Arc::new(configuration::presets(&self.config, &trust)?);
        Ok(Self {
            presets,
            trust,
            host: Host::new(),
            roots: Arc::default(),
            ..self.clone()
        })
    }

    /// The same configuration, with the host as it is now; what is looked up there is tracked.
    pub(crate) fn with_new_host(&self) -> Self {
        Self {
            host: Host::new().tracked(),
            ..self.clone()
        }
    }

    /// The same configuration, with the records of another mount namespace.
    pub(crate) fn with_state(&self, state: StateDir) -> Self {
        Self {
            state,
            host: Host::new(),
            roots: Arc::default(),
            ..self.clone()
        }
    }

    /// The resolver for this host.
    pub(crate) fn resolver(&self) -> Result<Resolver> {
        let generated = HostPath::new(&self.state.lib).map_err(|why| {
            let directory = self.state.lib.display();
            Error::usage(format!("cannot use the state directory {directory}")).because_of(why)
        })?;
        Ok(Resolver::new(&self.host, generated))
    }

    /// The roots of all sites of the configuration.
    pub(crate) fn roots(&self) -> &Roots {
        self.roots
            .get_or_init(|| configuration::roots(&self.config, &self.state, &self.trust))
    }

    /// An engine for that many sites, after what killed runs left behind was swept away.
    ///
    /// Errors: the caller is not root, or the records are about another mount namespace.
    pub(crate) fn engine(&self, boot: BootId, sites: usize, purpose: Purpose) -> Result<Engine> {
        if purpose == Purpose::Mount {
            self.check_namespaces()?;
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::failed("mounting needs root").hint("run the command with sudo"));
        }
        let forced = std::env::var("MOUNTJAIL_ENGINE").ok();
        let serves = if sites > 1 {
            Serves::ManySites
        } else {
            Serves::OneSite
        };
        make_state_directories(&self.state)?;
        let engine = Engine::new(forced, self.state.clone(), boot, serves);
        engine.sweep();
        Ok(engine)
    }

    /// Refuses to mount in another mount namespace than the records are about.
    fn check_namespaces(&self) -> Result<()> {
        if observe::owners_are_hidden() {
            OWNERS_HIDDEN.call_once(|| {
                self.out.info(
                    "this user namespace hides who owns the directories on the way to the roots; \
                     check on the host that only root can write to them",
                );
            });
        }
        if self.state != StateDir::default() || !self.has_own_namespace() {
            return Ok(());
        }
        let run = self.state.run.display();
        Err(Error::failed(format!(
            "this process has its own mount namespace, so nothing else would see the mounts; {run} \
             records the mounts in the namespace of PID 1"
        ))
        .hint(
            "run it there: `nsenter --target 1 --mount -- mountjail …`; or keep records for this \
             namespace alone, with --state-dir",
        ))
    }

    /// Whether nothing else would see the mounts. If that cannot be found out, it is reported once,
    /// and the work goes on: all may be well, as in a container whose first process belongs to
    /// another user.
    fn has_own_namespace(&self) -> bool {
        observe::apart_from_first().unwrap_or_else(|error| {
            let run = self.state.run.display();
            NAMESPACE_UNKNOWN.call_once(|| {
                let cannot = Error::failed(
                    "cannot find out whether this process shares the mount namespace of PID 1",
                );
                self.out.warn(format_args!(
                    "{}; if it does not, nothing else sees the mounts that are made now, although \
                     {run} records them",
                    cannot.because(&error)
                ));
            });
            false
        })
    }

    /// The lock that keeps other mountjails from editing files of the host. If another one has it,
    /// that is reported before the wait.
    pub(crate) fn lock_edits(&self) -> Result<Lock> {
        make_state_directories(&self.state)?;
        let waiting = || {
            let text = "waiting for another mountjail to finish editing";
            self.out.info(text);
        };
        Lock::take(&self.state.edit_lock(), waiting)
    }
}

/// Set by the first SIGINT, SIGTERM or SIGHUP: stop, and leave nothing half done.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot wait for signals")?;
    }
    if worker::stops_on_signals().is_some() {
        stop.store(true, Ordering::Relaxed);
    }
    Ok(stop)
}

pub(crate) fn is_set(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

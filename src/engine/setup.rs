//! An engine: the way in which it mounts, and where its records and templates are.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use super::classic::Classic;
use super::detached::Detached;
use super::features::{Choice, Features};
use super::mounter::{Mounter, Serves, Way};
use super::scratch::ScratchDir;
use super::templates::TemplateStore;
use crate::base::{ErrorContext, Result};
use crate::observe::{BootId, StateDir};
use crate::sys;

/// Carries out plans. One engine serves any number of sites, from any number of threads.
pub(crate) struct Engine {
    /// The value of `MOUNTJAIL_ENGINE`.
    forced: Option<String>,
    /// Chosen on first use: a run with nothing to do makes no mount call, not even a probe.
    way: OnceLock<Result<Way>>,
    serves: Serves,
    pub(super) state: StateDir,
    pub(super) boot: BootId,
    scratch: ScratchDir,
    templates: OnceLock<Result<TemplateStore>>,
    /// Where the sources are, if that is another mount namespace than that of the roots.
    host: Option<HostRoot>,
}

/// A mount namespace, and the root directory in it.
struct HostRoot {
    namespace: OwnedFd,
    root: OwnedFd,
}

impl HostRoot {
    /// Those of this process.
    fn own() -> io::Result<Self> {
        Ok(Self {
            namespace: sys::mount_namespace()?,
            root: sys::open_host(Path::new("/"), libc::O_PATH | libc::O_DIRECTORY)?,
        })
    }
}

impl Engine {
    /// Returns an engine that keeps its records in `state`. It mounts in the way named by `forced`,
    /// or else in the best way that the kernel offers.
    pub(crate) fn new(
        forced: Option<String>,
        state: StateDir,
        boot: BootId,
        serves: Serves,
    ) -> Self {
        let scratch = ScratchDir::below(&state.run);
        Self {
            forced,
            way: OnceLock::new(),
            serves,
            state,
            boot,
            scratch,
            templates: OnceLock::new(),
            host: None,
        }
    }

    /// Returns an engine that makes and changes templates. Its roots are where the templates are.
    pub(crate) fn for_templates(&self) -> Result<Self> {
        let host = HostRoot::own().context("cannot open the mount namespace of this process")?;
        let (forced, boot) = (self.forced.clone(), self.boot.clone());
        let engine = Self::new(forced, self.state.templates(), boot, Serves::OneSite);
        Ok(Self {
            host: Some(host),
            ..engine
        })
    }

    /// Where the templates of this engine are.
    pub(crate) fn templates(&self) -> Result<&TemplateStore> {
        let open = || {
            let choice = Choice::select(self.forced.as_deref(), Features::probe())?;
            Ok(TemplateStore::new(&self.state, choice, &self.boot))
        };
        self.templates
            .get_or_init(open)
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Does `work` in the mount namespace of the sources.
    pub(crate) fn in_host<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let Some(host) = &self.host else {
            return work();
        };
        let enter = || sys::enter_root(&host.namespace, &host.root);
        let done = sys::on_thread(|| enter().map(|()| work()));
        done.context("cannot go back to the mount namespace of the host")?
    }

    /// Returns the way to mount, which the first call selects.
    pub(super) fn way(&self) -> Result<&Way> {
        let select_way = || -> Result<Way> {
            let features = Features::probe();
            let scratch = self.scratch.clone();
            Ok(match Choice::select(self.forced.as_deref(), features)? {
                Choice::Detached => {
                    Way::Detached(Mounter::new(Detached::new(features, scratch), self.serves))
                }
                Choice::Classic => Way::Classic(Mounter::new(Classic::new(scratch), self.serves)),
            })
        };
        self.way
            .get_or_init(select_way)
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Removes what killed runs left outside the roots. It is called once, before the first plan.
    pub(crate) fn sweep(&self) {
        self.scratch.sweep();
    }
}

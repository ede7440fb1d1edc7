//! Turns the steps of a plan into system calls. This is the only stage that changes anything.
//!
//! The input is a [`Plan`] and what was observed. The result is the site as planned or, if `up`
//! fails, the site as it was before, with an error that names the cause and all that could not be
//! undone. This stage decides nothing: the plan says which mounts belong to mountjail and what
//! happens to them. Every path below a root is opened beneath the descriptor of the root, and no
//! link is followed.

mod adopted;
mod backend;
mod classic;
mod create_root;
mod detached;
mod down;
mod drop_in;
mod edit;
mod features;
mod hidden;
mod image;
mod journal;
mod lock;
mod mount_op;
mod namespaces;
mod ours;
mod replace;
mod root;
mod scratch;
mod sources;
mod staged;
mod start_gate;
mod state_directories;
mod target;
mod templates;
mod undo;
mod up;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use crate::base::{Error, HostPath, Result, SiteName};
use crate::observe::{self, BootId, BootRecord, History, Observed, PersistentRecord, StateDir};
use crate::patience::Stop;
use crate::plan::Plan;
use crate::sys::{self, IfInUse};

pub(crate) use adopted::{GoesBack, PutBack, move_aside, put_back, settle};
pub(crate) use create_root::{MadeDirectories, create_root};
pub use drop_in::{read_drop_in, remove_drop_in, write_drop_in};
pub use edit::edit as edit_file;
pub use features::{Choice, Features};
pub(crate) use image::enter_image;
pub use journal::{remove_watch_state, write_watch_state};
pub use lock::Lock;
pub(crate) use namespaces::{
    OwnNamespace, Unprotected, enter, leave_mount_namespace, own_namespace_id, record_namespace,
    swept, within,
};
pub(crate) use replace::{create_file, replace_file};
pub(crate) use staged::{Identity, identity};
pub use staged::{StagedFile, remove_file};
pub(crate) use start_gate::{StartGate, open_gate};
pub(crate) use state_directories::{make_state_directories, make_watch_directory};
pub(crate) use templates::{ShownTemplate, TemplateStore, without_grafts};

use backend::Backend;
use classic::Classic;
use detached::Detached;
use scratch::ScratchDir;
use sources::Sources;

/// Receives one line per step, as `-v` prints them after the site's name.
pub type Log<'a> = &'a (dyn Fn(fmt::Arguments<'_>) + Sync);

/// What has to work out after a run, or the run is undone.
pub type Then<'a> = &'a mut (dyn FnMut() -> Result<()> + Send);

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Mounts made where there were none.
    pub attached: usize,
    /// Mounts replaced.
    pub swapped: usize,
    /// The swaps during which the file was absent for a moment, because the kernel lacks
    /// `MOVE_MOUNT_BENEATH`.
    pub gaps: usize,
    /// Mounts detached.
    pub detached: usize,
    /// Sentences about placeholders and links that stay, because they are no longer as mountjail
    /// made them.
    pub left: Vec<String>,
}

impl Outcome {
    /// Adds what another run did.
    #[must_use]
    pub fn merge(mut self, more: Self) -> Self {
        self.attached += more.attached;
        self.swapped += more.swapped;
        self.gaps += more.gaps;
        self.detached += more.detached;
        self.left.extend(more.left);
        self
    }
}

/// A run that did not reach its goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFailure {
    /// The error that stopped the run.
    pub error: Error,
    /// For `up`: the steps undone, last first. It is empty if nothing had been changed.
    pub undone: Vec<String>,
    /// For `up`: sentences about changes that cannot be undone, although nothing failed.
    pub lasting: Vec<String>,
    /// Further errors: from undoing or, for `down`, from other mounts.
    pub also: Vec<Error>,
    /// For `down`: the mounts are in use, and nothing was unmounted.
    pub busy: bool,
}

impl From<Error> for EngineFailure {
    fn from(error: Error) -> Self {
        Self {
            error,
            undone: vec![],
            lasting: vec![],
            also: vec![],
            busy: false,
        }
    }
}

impl From<Error> for Box<EngineFailure> {
    fn from(error: Error) -> Self {
        Self::new(error.into())
    }
}

/// A backend with the mounts that it has prepared.
struct Mounter<B: Backend> {
    backend: B,
    sources: Sources<B>,
}

impl<B: Backend> Mounter<B> {
    fn new(backend: B, serves: Serves) -> Self {
        let sources = Sources::new(serves == Serves::ManySites);
        Self { backend, sources }
    }
}

/// The two ways to mount.
enum Way {
    Detached(Mounter<Detached>),
    Classic(Mounter<Classic>),
}

/// How many sites an engine serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// One. Nothing is kept.
    OneSite,
    /// Several. Prepared mounts are kept for the next sites.
    ManySites,
}

/// Carries out plans. One engine serves any number of sites, from any number of threads.
pub struct Engine {
    /// The value of `MOUNTJAIL_ENGINE`.
    forced: Option<String>,
    /// Chosen on first use: a run with nothing to do makes no mount call, not even a probe.
    way: OnceLock<Result<Way>>,
    serves: Serves,
    state: StateDir,
    boot: BootId,
    scratch: ScratchDir,
    templates: OnceLock<Result<TemplateStore>>,
    /// The mount namespace of the sources, if it is another one than that of the roots.
    host: Option<OwnedFd>,
}

impl Engine {
    /// Returns an engine that keeps its records in `state`. It mounts in the way named by `forced`,
    /// or else in the best way that the kernel offers.
    pub fn new(forced: Option<String>, state: StateDir, boot: BootId, serves: Serves) -> Self {
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
        let host = sys::mount_namespace().map_err(|error| {
            Error::failed("cannot open the mount namespace of this process").because(&error)
        })?;
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
            Ok(TemplateStore::new(&self.state, choice))
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
        let enter = || sys::enter_mount_namespace(host);
        let done = sys::on_thread(|| enter().map(|()| work()));
        done.map_err(|error| {
            Error::failed("cannot go back to the mount namespace of the host").because(&error)
        })?
    }

    /// Returns the way to mount, which the first call selects.
    fn way(&self) -> Result<&Way> {
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
    pub fn sweep(&self) {
        self.scratch.sweep();
    }

    /// Takes the lock of the site. If another mountjail has it, `on_wait` gets that one's name, and
    /// the wait lasts as long as that one is at work; if it sleeps, no longer than `limit`.
    pub(crate) fn lock(
        &self,
        site: &SiteName,
        limit: Option<Duration>,
        stop: &Stop,
        on_wait: impl FnOnce(&str),
    ) -> Result<Lock> {
        Lock::take_in_turn(&self.state.lock(site), limit, stop, on_wait)
    }

    /// Takes the lock of the site, or returns `None` if another mountjail holds it.
    pub fn lock_if_free(&self, site: &SiteName) -> Result<Option<Lock>> {
        Lock::if_free(&self.state.lock(site))
    }

    /// Gives up `lock`, the lock of a site that is no more, and removes its file.
    pub(crate) fn forget_lock(&self, site: &SiteName, lock: Lock) -> Result<()> {
        journal::remove_file(&self.state.lock(site))?;
        drop(lock);
        Ok(())
    }

    /// Brings the site into the planned state, or leaves it as it was.
    pub fn up(
        &self,
        plan: &Plan,
        observed: &Observed,
        stop: &Stop,
        log: Log<'_>,
    ) -> Result<Outcome, Box<EngineFailure>> {
        self.up_then(plan, observed, stop, log, &mut || Ok(()))
    }

    /// As [`up`](Self::up), and then does `then`. If that fails, the site is left as it was.
    pub fn up_then(
        &self,
        plan: &Plan,
        observed: &Observed,
        stop: &Stop,
        log: Log<'_>,
        then: Then<'_>,
    ) -> Result<Outcome, Box<EngineFailure>> {
        up::carry_out(self, plan, observed, stop, log, then)
    }

    /// Detaches the mounts of a site whose root is gone; they were moved away with it. Returns
    /// their number.
    pub fn down_without_root(
        &self,
        site: &SiteName,
        root: &HostPath,
        observed: &Observed,
    ) -> Result<usize> {
        observed
            .strays
            .iter()
            .try_for_each(|stray| target::detach_stray(root, stray))?;

        let mut recorded = observed.recorded_mounts();
        // Without unique mount IDs, a moved mount looks like one that is gone, so the
        // record is kept.
        if recorded.all(|mount| mount.unique_id.is_some()) {
            journal::remove(&self.state.record(site))?;
        }
        Ok(observed.strays.len())
    }

    /// Records that the lines in `fstab` need what was made for the site at `root`, even while the
    /// site is down. `None`: no longer.
    pub fn remember_fstab(
        &self,
        site: &SiteName,
        root: &HostPath,
        fstab: Option<HostPath>,
    ) -> Result<()> {
        let kept = self
            .state
            .read(site, &self.boot)?
            .kept
            .filter(|kept| kept.root == *root);
        let kept = kept.unwrap_or_else(|| PersistentRecord::nothing(root.clone()));

        if kept.fstab == fstab {
            return Ok(());
        }
        journal::write_kept(&self.state, site, &PersistentRecord { fstab, ..kept })
    }

    /// Has the record of a site be as it was, after a run that left its mounts alone. `None`: there
    /// was none, and the site is down as before.
    pub(crate) fn put_back_record(
        &self,
        site: &SiteName,
        record: Option<&BootRecord>,
    ) -> Result<()> {
        match record {
            Some(record) => journal::write_record(&self.state, site, record),
            None => journal::remove_record(&self.state, site),
        }
    }

    /// Adds to the history of the site what was done in templates that it has grafts of.
    pub(crate) fn remember(&self, site: &SiteName, done: &Outcome) -> Result<()> {
        let Some(mut record) = self.state.read(site, &self.boot)?.record else {
            return Ok(());
        };
        let Outcome {
            attached,
            swapped,
            detached,
            ..
        } = *done;
        let history = record.history.take().unwrap_or_default();
        let history = history.and(observe::now(), attached, swapped, detached);
        record.history = Some(history).filter(|history| *history != History::default());
        journal::write_record(&self.state, site, &record)
    }

    /// Takes the site down. It continues after errors and collects them. If they are not to be
    /// detached while in use, it stops before the first change if anything uses the mounts.
    pub fn down(
        &self,
        plan: &Plan,
        observed: &Observed,
        if_in_use: IfInUse,
        log: Log<'_>,
    ) -> Result<Outcome, Box<EngineFailure>> {
        down::carry_out(self, plan, observed, if_in_use, log)
    }

    /// Takes the site down if its mounts are exactly as planned and nothing uses them. Otherwise it
    /// changes nothing and returns `Ok(None)`.
    pub fn down_if_quiet(
        &self,
        plan: &Plan,
        observed: &Observed,
        log: Log<'_>,
    ) -> Result<Option<Outcome>, Box<EngineFailure>> {
        down::carry_out_if_quiet(self, plan, observed, log)
    }
}

fn check_signal(stop: &Stop) -> Result<()> {
    match stop.is_set() {
        false => Ok(()),
        true if stop.by_signal() => Err(Error::interrupted("stopped by a signal")),
        true => Err(Error::interrupted("given up")),
    }
}

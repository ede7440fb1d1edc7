//! `mountjail watch`: keep sites right while the host changes.

mod pass;
mod signals;
mod tell;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use sd_notify::NotifyState;

use super::apply::{Run, summary};
use super::complete;
use super::context::{Context, is_set, stop_flag, table};
use super::out::worst;
use super::parallel;
use super::sites::{self, Site, Unusable};
use super::work::{Failed, plural};
use crate::engine::{self, Lock, Outcome};
use crate::manifest::{HostPath, SiteName};
use crate::observe::{self, WatchState};
use crate::resolve::{Host, Interest};
use crate::watch::{Learned, MountSource, MountsChanged, User, Watcher};
use crate::{Error, Result, sys};

use pass::{Ended, Policy};
use signals::Signals;
use tell::{Tell, notify};

/// From so many sites on a pass reads the mount table once instead of asking for each mount.
const MANY: usize = 32;

/// Taking the old mount off waits for a grace period of the kernel's, outside of any lock: threads wait together.
const THREADS: usize = 8;

/// A mount whose source is gone is left for so long: a service that restarts makes its directory anew.
const GRACE: Duration = Duration::from_secs(10);

/// So often a site that changes while it is brought right is simply tried again.
const PATIENCE: u32 = 10;

/// Keep sites right while the host changes
///
/// Watches the sites that are up: a file that the host replaces is swapped in the jails without a gap, what somebody
/// unmounts is mounted again, sources that come or go are followed, a changed manifest is applied. A site that is
/// down stays down, until somebody brings it up. What fails is logged, tried again, and shown by `mountjail status`.
///
/// SIGHUP looks at everything anew; SIGTERM ends, and leaves all sites up. As a systemd service (Type=notify) it says
/// when it is ready and keeps the watchdog fed; lines for the journal begin with their priority, as in sd-daemon(3).
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  systemctl enable --now mountjail-watch\n  mountjail watch site1 site2\n  \
                  mountjail watch --once"
)]
pub(super) struct Watch {
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE", add = complete::site())]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// Look at the sites that are up once, bring them right, and end
    #[arg(long)]
    once: bool,
}

impl Watch {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        // Says so if this is not root, and makes the directories.
        drop(context.engine(observe::boot_id()?, false)?);
        for site in sites::named(context, &self.sites)? {
            if let Err(Unusable::Error(error)) = sites::load(context, &site) {
                return Err(error.into()); // most likely a slip of the pen; a mistake in it can be mended later
            }
        }
        if self.once { self.look_once(context) } else { self.keep_watching(context) }
    }

    fn in_scope(&self, context: &Context<'_>) -> Result<Vec<Site>> {
        if self.sites.is_empty() { sites::all(context) } else { sites::named(context, &self.sites) }
    }

    fn look_once(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        let (sites, stop) = (self.in_scope(context)?, stop_flag()?);
        let policy = |_: &Site| Policy { wait: true, keep_vanished: false };
        let ends = pass_over(&context.afresh(), &sites, &stop, policy)?;
        let code = |site: &Site, ended| match ended {
            Ended::Right(done, _) => {
                context.out.info(format_args!("{}: {}", site.name, summary(&done)));
                0
            }
            Ended::Failed(failed) => failed.report(context, site).0,
            Ended::Busy | Ended::Down | Ended::WithoutManifest => 0,
        };
        Ok(worst(sites.iter().zip(ends).map(|(site, (ended, _))| code(site, ended))))
    }

    fn keep_watching(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        sys::share_one_heap();
        let signals = Signals::new()?;
        let _only = only_one(context)?;
        let forced = std::env::var("MOUNTJAIL_MOUNT_EVENTS").ok();
        let watcher = Watcher::new(MountSource::open(forced.as_deref())?, context.state.run.clone())?;
        let mut daemon = Daemon {
            arguments: self,
            context: context.reloaded()?,
            tell: Tell::new(&watcher),
            watcher,
            sites: BTreeMap::new(),
            vanished: HashMap::new(),
            blindness: None,
            signals,
        };
        daemon.reload()?;
        daemon.run()
    }
}

/// Held by the one watcher of a state directory.
fn only_one(context: &Context<'_>) -> Result<Lock> {
    let directory = context.state.watch();
    std::fs::create_dir_all(&directory).map_err(|error| {
        Error::failed(format!("cannot make the directory {}", directory.display())).because(&error)
    })?;
    Lock::if_free(&context.state.watch_lock())?.ok_or_else(|| {
        let pid = WatchState::read(&context.state).map(|watch| format!(", as process {}", watch.pid));
        Error::failed(format!("another `mountjail watch` is running already{}", pid.unwrap_or_default()))
            .hint("`systemctl status mountjail-watch`; `mountjail watch --once` can run beside it")
    })
}

struct Daemon<'c> {
    arguments: &'c Watch,
    context: Context<'c>,
    watcher: Watcher,
    /// Those that may be kept right, up or not.
    sites: BTreeMap<SiteName, Site>,
    /// Since when a source of these sites is gone.
    vanished: HashMap<SiteName, Instant>,
    /// Why not everything can be watched, as it was said.
    blindness: Option<Error>,
    tell: Tell,
    signals: Signals,
}

impl Daemon<'_> {
    fn run(&mut self) -> anyhow::Result<u8> {
        self.pass();
        let out = self.context.out;
        out.info(format_args!(
            "watching {}; mount events by {}",
            plural(self.watcher.sites().count(), "site"),
            self.watcher.mount_source()
        ));
        self.tell.ready();
        loop {
            let changed = self.watcher.wait(self.signals.as_fd(), self.tell.next_ping());
            let changed = changed.context("cannot wait for changes")?;
            let reload = self.signals.taken_reload();
            if is_set(&self.signals.stop) {
                break;
            }
            self.tell.ping();
            if reload {
                self.reload_by_hand();
            }
            self.collect(changed, &BTreeSet::new());
            self.pass();
        }
        notify(&[NotifyState::Stopping]);
        out.info(format_args!("ending; all sites stay up"));
        engine::remove_watch_state(&self.context.state)?;
        Ok(0)
    }

    fn reload_by_hand(&mut self) {
        let since = NotifyState::monotonic_usec_now().into_iter();
        notify(&[NotifyState::Reloading].into_iter().chain(since).collect::<Vec<_>>());
        self.context.out.info(format_args!("looking at everything anew"));
        self.watcher.gather.hurry(User::Presets, Instant::now());
        self.pass();
        self.tell.ready();
    }

    /// Reads the presets and the list of sites, and remembers on what these depend. All sites that were not in the
    /// list before are due.
    fn reload(&mut self) -> Result<()> {
        let now = Instant::now();
        self.watcher.learn(self.configuration_files(), now);
        let context = self.context.reloaded()?;
        let sites = self.arguments.in_scope(&context)?;
        self.context = context;
        for site in sites {
            if self.sites.insert(site.name.clone(), site.clone()).is_none_or(|old| old != site) {
                self.watcher.gather.at(User::Site(site.name), now);
            }
        }
        Ok(())
    }

    fn configuration_files(&self) -> Vec<Learned> {
        let learned = |user: User, directory: &str| {
            let host = Host::new().recording();
            let directory = self.context.config.join(directory);
            let files = sites::yaml_files(&directory).unwrap_or_default();
            let depend = |path, interest| {
                if let Ok(path) = HostPath::new(path) {
                    host.depend_on(&path, interest);
                }
            };
            depend(directory, Interest::NAMES);
            for file in files {
                depend(file, Interest::CONTENTS);
            }
            Learned {
                user,
                lookups: vec![Arc::new(host.into_lookups())],
                root: None,
                ids: vec![],
                record: None,
            }
        };
        vec![learned(User::Presets, "presets"), learned(User::Sites, "sites")]
    }

    /// Deals with everybody who is due.
    fn pass(&mut self) {
        let start = Instant::now();
        let mut users = self.watcher.gather.take(start);
        if users.is_empty() {
            return;
        }
        self.context.out.forget_mistakes();
        self.reload_if_due(&mut users);
        let sites: Vec<Site> = users.iter().filter_map(|user| self.site(user)).cloned().collect();
        let policy = |site: &Site| {
            let gone_for = self.vanished.get(&site.name).map(|since| start.saturating_duration_since(*since));
            Policy { wait: false, keep_vanished: gone_for.is_none_or(|time| time < GRACE) }
        };
        match pass_over(&self.context.afresh(), &sites, &self.signals.stop, policy) {
            Ok(ends) => self.take_in(&sites, ends),
            Err(error) => {
                self.context.out.error(&error);
                for site in sites {
                    self.watcher.gather.failed(&User::Site(site.name), start);
                }
                return;
            }
        }
        let now = Instant::now();
        self.watcher.gather.dealt_with(now, now - start);
        self.tell.state.passes += 1;
        if self.watcher.sites().all(|site| sites.binary_search_by_key(&site, |done| &done.name).is_ok()) {
            self.tell.state.last_full_pass = observe::now();
        }
        self.tell.write(&self.context, &self.watcher);
        self.tell.ping();
    }

    fn site(&self, user: &User) -> Option<&Site> {
        let User::Site(name) = user else { return None };
        self.sites.get(name)
    }

    /// Reads the configuration anew, if it changed; if the presets did, all sites are due.
    fn reload_if_due(&mut self, users: &mut Vec<User>) {
        let due = |user| users.contains(user);
        let presets = due(&User::Presets);
        if !presets && !due(&User::Sites) {
            return;
        }
        if let Err(error) = self.reload() {
            self.context.out.error(&error); // what was known stays
            self.watcher.gather.failed(&User::Sites, Instant::now());
            return;
        }
        self.watcher.gather.succeeded(&User::Sites);
        if presets {
            users.extend(self.sites.keys().cloned().map(User::Site));
            users.sort();
            users.dedup();
        }
    }

    /// What came of a pass: what is known, what is to be said, when to try again.
    fn take_in(&mut self, sites: &[Site], ends: Vec<(Ended, Option<Learned>)>) {
        let now = Instant::now();
        let (ends, learned): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        self.watcher.learn(learned.into_iter().flatten().collect(), now);
        // What happened meanwhile, to tell a failure from a change that was not over.
        let failed = sites.iter().zip(&ends).filter(|(_, ended)| matches!(ended, Ended::Failed(_)));
        self.collect(MountsChanged::default(), &failed.map(|(site, _)| site.name.clone()).collect());
        let mut healed = vec![];
        for (site, ended) in sites.iter().zip(ends) {
            match ended {
                Ended::Right(done, kept) => {
                    self.is_right(&site.name, kept, now);
                    let changed = done.outcome != Outcome::default();
                    healed.extend(changed.then_some((site, done.changed, done.outcome)));
                }
                Ended::Busy => drop(self.watcher.gather.is_busy(&User::Site(site.name.clone()), now)),
                Ended::Down => {
                    self.tell.state.failures.remove(&site.name);
                    self.is_right(&site.name, 0, now);
                }
                Ended::WithoutManifest => self.is_without_manifest(site),
                Ended::Failed(failed) => self.failed(site, &failed, now),
            }
        }
        self.tell.changes(&self.context, healed);
        self.say_blindness();
    }

    /// `undone`: sites whose mounts came and went again by our own doing.
    fn collect(&mut self, changed: MountsChanged, undone: &BTreeSet<SiteName>) {
        match self.watcher.collect(changed, undone) {
            Ok(notes) => notes.iter().for_each(|note| self.context.out.info(format_args!("{note}"))),
            Err(error) => self.context.out.error(&error),
        }
    }

    /// `kept`: that many of its mounts have lost their source.
    fn is_right(&mut self, site: &SiteName, kept: usize, now: Instant) {
        let user = User::Site(site.clone());
        let attempts = self.watcher.gather.succeeded(&user);
        self.tell.is_right(&self.context, site, attempts);
        if kept == 0 {
            self.vanished.remove(site);
            return;
        }
        let since = *self.vanished.entry(site.clone()).or_insert(now);
        self.watcher.gather.at(user, since + GRACE);
    }

    fn is_without_manifest(&mut self, site: &Site) {
        let Site { name, file } = site;
        let gone = Error::failed(format!("{name}: the manifest {} is gone", file.display()))
            .because_of("what is mounted stays, and is not kept right any more")
            .hint(format!("`mountjail down {name}` takes it away"));
        self.tell.failed(&self.context, site, &Failed::Errors(vec![gone]), None);
    }

    fn failed(&mut self, site: &Site, failed: &Failed, now: Instant) {
        let user = User::Site(site.name.clone());
        if self.watcher.gather.is_due(&user) && self.watcher.gather.is_busy(&user, now) < PATIENCE {
            return;
        }
        let retry = self.watcher.gather.failed(&user, now);
        self.tell.failed(&self.context, site, failed, Some(retry));
    }

    fn say_blindness(&mut self) {
        let blindness = self.watcher.blindness();
        if blindness == self.blindness {
            return;
        }
        match &blindness {
            Some(error) => self.context.out.error(error),
            None => self.context.out.info(format_args!("everything can be watched again")),
        }
        self.tell.state.blind = blindness.as_ref().map(ToString::to_string);
        self.blindness = blindness;
    }
}

/// One pass over `sites`, until `stop`; what came of each that was begun.
fn pass_over(
    context: &Context<'_>,
    sites: &[Site],
    stop: &AtomicBool,
    policy: impl Fn(&Site) -> Policy + Sync,
) -> Result<Vec<(Ended, Option<Learned>)>> {
    if sites.is_empty() {
        return Ok(vec![]);
    }
    let boot = observe::boot_id()?;
    let engine = context.engine(boot.clone(), sites.len() > 1)?;
    let table = table(sites.len() >= MANY)?;
    // A site that is begun is finished: undoing would take as long.
    let never = AtomicBool::new(false);
    let resolver = context.resolver()?;
    let run = Run { context, engine, resolver, boot, table, stop: &never, leave_down: false };
    Ok(parallel::each(sites, THREADS, stop, context.out, |site| pass::site(&run, site, policy(site))))
}

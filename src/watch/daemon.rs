//! The watcher itself: it waits for changes, deals with them, and takes in what came of that.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sd_notify::NotifyState;

use super::configuration;
use super::grace::{GracePeriods, Retained};
use super::index::Dependent;
use super::mount_events::{MountSource, MountsChanged};
use super::pass::{self, PassOutcome, PassPolicy, PassThreads, SiteFound};
use super::reporter::{Reporter, SiteFailure, WatcherTrouble, notify};
use super::signals::WatchSignals;
use super::watcher::Watcher;
use crate::base::text::plural;
use crate::base::{JailPath, SiteName};
use crate::engine::{self, Lock, Outcome};
use crate::observe::{self, WatchState};
use crate::patience::{Lost, worker};
use crate::site::context::{Context, is_set};
use crate::site::parallel::lost;
use crate::site::{Selection, Site, SiteError, configuration as sites, select};
use crate::{Error, Result, sys};

/// How long the watcher before may take to end.
const DYING: Duration = Duration::from_secs(5);

/// So often a site that changes while it is brought right is simply tried again.
const PATIENCE: u32 = 10;

/// So often another mountjail is found at work on a site until that is worth a word: some 15
/// seconds.
const LONG: u32 = 20;

/// A site that sleeps for so long does not keep a pass.
const NAP: Duration = Duration::from_millis(300);

/// So often the sites that sleep are looked after.
const LOOK: Duration = Duration::from_millis(200);

/// Keeps the sites of `selection` right until a signal ends it; returns the exit code.
///
/// Errors: another watcher runs, or the kernel's events cannot be had.
pub(crate) fn keep_watching(context: &Context, selection: Selection) -> anyhow::Result<u8> {
    sys::share_one_heap();
    let signals = WatchSignals::new()?;
    let _only = only_one(context)?;
    Daemon::new(selection, context, signals)?.run()
}

/// Held by the one watcher of a state directory.
fn only_one(context: &Context) -> Result<Lock> {
    let directory = context.state.watch();
    std::fs::create_dir_all(&directory).map_err(|error| {
        Error::failed(format!("cannot make the directory {}", directory.display())).because(&error)
    })?;
    // One that was killed is gone soon.
    Lock::take_within(&context.state.watch_lock(), DYING, || ()).map_err(|_| {
        let pid = WatchState::read(&context.state).map(|other| format!(" (pid {})", other.pid));
        Error::failed(format!(
            "another `mountjail watch` is running already{}",
            pid.unwrap_or_default()
        ))
        .hint("`systemctl status mountjail-watch`; `mountjail watch --once` can run beside it")
    })
}

struct Daemon {
    selection: Selection,
    context: Context,
    watcher: Watcher,
    /// Those that may be kept right, up or not.
    sites: BTreeMap<SiteName, Site>,
    gone: GracePeriods,
    tell: Reporter,
    signals: WatchSignals,
    /// Of passes that are over but for sites whose file systems have not answered yet.
    out: Vec<PassThreads>,
}

impl Daemon {
    /// One that knows the configuration and nothing else yet.
    pub(crate) fn new(
        selection: Selection,
        context: &Context,
        signals: WatchSignals,
    ) -> Result<Self> {
        let forced = std::env::var("MOUNTJAIL_MOUNT_EVENTS").ok();
        let watcher = Watcher::new(
            MountSource::open(forced.as_deref())?,
            context.state.run.clone(),
        )?;
        let mut daemon = Self {
            selection,
            context: context.reloaded()?,
            tell: Reporter::new(&watcher),
            watcher,
            sites: BTreeMap::new(),
            gone: GracePeriods::default(),
            signals,
            out: vec![],
        };
        daemon.reload()?;
        Ok(daemon)
    }

    /// Watches until a signal ends it. What cannot be done at first ends it, too; later it is tried
    /// again.
    pub(crate) fn run(&mut self) -> anyhow::Result<u8> {
        self.pass_or_later();
        let out = self.context.out;
        out.info(format_args!(
            "watching {}; mount events by {}",
            plural(self.watcher.sites().count(), "site"),
            self.watcher.mount_source()
        ));
        self.tell.ready();
        loop {
            let until = [self.tell.next(), self.next_look()]
                .into_iter()
                .flatten()
                .min();
            let changed = worker::while_idle(|| self.watcher.wait(self.signals.as_fd(), until));
            let changed = changed.context("cannot wait for changes")?;
            let reload = self.signals.taken_reload();
            if is_set(&self.signals.stop) {
                break;
            }
            self.tell.ping();
            self.tell.left_out(self.context.out);
            if reload {
                self.reload_by_hand();
            }
            self.collect(changed, &BTreeSet::new());
            self.look_after_silent();
            self.pass_or_later();
        }
        notify(&[NotifyState::Stopping]);
        out.info(format_args!("ending; all sites stay up"));
        engine::remove_watch_state(&self.context.state)?;
        Ok(0)
    }

    fn reload_by_hand(&mut self) {
        let since = NotifyState::monotonic_usec_now().into_iter();
        notify(
            &[NotifyState::Reloading]
                .into_iter()
                .chain(since)
                .collect::<Vec<_>>(),
        );
        self.context
            .out
            .info(format_args!("looking at everything anew"));
        self.watcher
            .gather
            .hurry(Dependent::Presets, Instant::now());
        self.pass_or_later();
        self.tell.ready();
    }

    /// Reads the presets and the list of sites, and remembers on what these depend. All sites that
    /// were not in the list before are due.
    fn reload(&mut self) -> Result<()> {
        let now = Instant::now();
        self.watcher
            .learn(configuration::learned(&self.context.config), now);
        let context = self.context.reloaded()?;
        let (sites, misnamed) = self.in_scope(&context)?;
        self.context = context;
        self.tell.misnamed(self.context.out, misnamed);
        for site in sites {
            if self
                .sites
                .insert(site.name.clone(), site.clone())
                .is_none_or(|old| old != site)
            {
                self.watcher.gather.at(Dependent::Site(site.name), now);
            }
        }
        Ok(())
    }

    /// The sites, and why some files are none.
    fn in_scope(&self, context: &Context) -> Result<(Vec<Site>, Vec<Error>)> {
        match &self.selection {
            Selection::All => sites::list(&context.config),
            Selection::Named(names) => Ok((select::named(context, names)?, vec![])),
        }
    }

    fn pass_or_later(&mut self) {
        let trouble = match self.pass() {
            Ok(false) => return,
            Ok(true) => None,
            Err(error) => Some(error),
        };
        self.tell
            .trouble(self.context.out, WatcherTrouble::Pass, trouble);
    }

    /// Deals with everybody who is due; whether there was anybody. If that cannot even begin, all
    /// are due later.
    fn pass(&mut self) -> Result<bool> {
        let start = Instant::now();
        let mut users = self.watcher.gather.take(start);
        if users.is_empty() {
            return Ok(false);
        }
        self.context.out.forget_mistakes();
        self.reload_if_due(&mut users);
        let sites: Vec<Site> = users
            .iter()
            .filter_map(|user| self.site(user))
            .cloned()
            .collect();
        // A site that is out is looked at again when it comes back.
        let sites: Vec<Site> = sites
            .into_iter()
            .filter(|site| !self.is_out(site))
            .collect();
        let result = self
            .over(&sites, start)
            .inspect_err(|error| self.put_off(&sites, error))
            .map(|()| true);
        let now = Instant::now();
        self.watcher.gather.dealt_with(now, now - start);
        self.tell.state.passes += 1;
        if result.is_ok()
            && self
                .watcher
                .sites()
                .all(|site| sites.binary_search_by_key(&site, |done| &done.name).is_ok())
        {
            self.tell.state.last_full_pass = observe::now();
        }
        self.tell.write(&self.context, &self.watcher);
        self.tell.ping();
        result
    }

    /// One pass over `sites`. It does not wait for those whose file systems do not answer.
    fn over(&mut self, sites: &[Site], start: Instant) -> Result<()> {
        if sites.is_empty() {
            return Ok(());
        }
        let gone = self.gone.clone();
        let grace_is_over =
            move |site: &SiteName, target: &JailPath| gone.grace_is_over(site, target, start);
        let policy = PassPolicy {
            wait: false,
            grace_is_over: Arc::new(grace_is_over),
        };
        let mut threads = pass::begin(
            self.context.afresh(),
            sites.to_vec(),
            &self.signals.stop,
            policy,
        )?;
        let (sites, found) = cloned(threads.finish_or_sleep(NAP));
        if !threads.is_over() {
            self.out.push(threads);
        }
        self.take_in(&sites, found);
        Ok(())
    }

    fn is_out(&self, site: &Site) -> bool {
        self.out.iter().any(|threads| threads.out().contains(&site))
    }

    /// When to look after the sites that are out.
    fn next_look(&self) -> Option<Instant> {
        (!self.out.is_empty()).then(|| Instant::now() + LOOK)
    }

    /// What came of those that were out: a result, or they are given up. One whose thread comes
    /// back is due: what happened meanwhile did not count.
    fn look_after_silent(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        for threads in &mut out {
            let (sites, found) = cloned(threads.news());
            if !sites.is_empty() {
                self.take_in(&sites, found);
                self.tell.write(&self.context, &self.watcher);
            }
            let now = Instant::now();
            let back: Vec<Site> = threads.back().into_iter().cloned().collect();
            let out = threads.out();
            for site in sites.iter().filter(|site| !out.contains(site)).chain(&back) {
                self.watcher
                    .gather
                    .at(Dependent::Site(site.name.clone()), now);
            }
        }
        out.retain(|threads| !threads.is_over());
        self.out.extend(out);
    }

    fn site(&self, user: &Dependent) -> Option<&Site> {
        let Dependent::Site(name) = user else {
            return None;
        };
        self.sites.get(name)
    }

    /// Reads the configuration anew, if it changed; if the presets did, all sites are due. If it
    /// cannot be read, the sites are kept right as they were known.
    fn reload_if_due(&mut self, users: &mut Vec<Dependent>) {
        let due: Vec<Dependent> = [Dependent::Presets, Dependent::Sites]
            .into_iter()
            .filter(|user| users.contains(user))
            .collect();
        if due.is_empty() {
            return;
        }
        let trouble = self.reload().err();
        let now = Instant::now();
        for user in &due {
            match trouble {
                Some(_) => drop(self.watcher.gather.failed(user, now)),
                None => drop(self.watcher.gather.succeeded(user)),
            }
        }
        if trouble.is_none() && due.contains(&Dependent::Presets) {
            users.extend(self.sites.keys().cloned().map(Dependent::Site));
            users.sort();
            users.dedup();
        }
        self.tell
            .trouble(self.context.out, WatcherTrouble::Configuration, trouble);
    }

    /// What came of a pass: what is known, what is to be said, when to try again.
    fn take_in(&mut self, sites: &[Site], found: Vec<Result<SiteFound, Lost>>) {
        let now = Instant::now();
        let ended = |(site, found): (&Site, Result<SiteFound, Lost>)| match found {
            Ok(found) => found,
            Err(why) => (PassOutcome::Lost(lost(site, &why)), None),
        };
        let (ends, learned): (Vec<_>, Vec<_>) = sites.iter().zip(found).map(ended).unzip();
        self.watcher
            .learn(learned.into_iter().flatten().collect(), now);
        // What happened meanwhile, to tell a failure from a change that was not over.
        let failed = sites
            .iter()
            .zip(&ends)
            .filter(|(_, ended)| matches!(ended, PassOutcome::Failed(_)));
        self.collect(
            MountsChanged::default(),
            &failed.map(|(site, _)| site.name.clone()).collect(),
        );
        let (mut healed, mut failing, mut right) = (vec![], vec![], vec![]);
        for (site, ended) in sites.iter().zip(ends) {
            let user = Dependent::Site(site.name.clone());
            match ended {
                PassOutcome::Right(done, left) => {
                    let changed = done.outcome != Outcome::default();
                    healed.extend(changed.then_some((site, done.changed, done.outcome)));
                    match self.take_in_left(&site.name, left, now) {
                        None => right.push((&site.name, self.watcher.gather.succeeded(&user))),
                        Some(failed) => failing.extend(self.fails(site, failed, now)),
                    }
                }
                PassOutcome::Busy => failing.extend(self.is_busy(site, now)),
                PassOutcome::Down => {
                    self.gone.set(&site.name, vec![], now);
                    self.watcher.gather.succeeded(&user);
                    self.tell.state.failures.remove(&site.name);
                }
                PassOutcome::WithoutManifest => {
                    self.watcher.gather.succeeded(&user);
                    failing.push(SiteFailure {
                        site,
                        failed: pass::without_manifest(site),
                        again: None,
                    });
                }
                PassOutcome::Failed(failed) => failing.extend(self.fails(site, failed, now)),
                PassOutcome::Lost(failed) => failing.push(SiteFailure {
                    site,
                    failed,
                    again: None,
                }),
            }
        }
        self.tell.failures(&self.context, failing);
        self.tell.right(self.context.out, right);
        self.tell.changes(&self.context, healed);
        self.tell.trouble(
            self.context.out,
            WatcherTrouble::Blind,
            self.watcher.blindness(),
        );
    }

    /// What a pass left without its source goes later; what it could not look at is a failure.
    fn take_in_left(&mut self, site: &SiteName, left: Retained, now: Instant) -> Option<SiteError> {
        if let Some(when) = self.gone.set(site, left.gone, now) {
            self.watcher.gather.at(Dependent::Site(site.clone()), when);
        }
        (!left.unseen.is_empty()).then_some(SiteError::Errors(left.unseen))
    }

    /// Another mountjail works on the site, which is usual, and over soon.
    fn is_busy<'s>(&mut self, site: &'s Site, now: Instant) -> Option<SiteFailure<'s>> {
        let attempts = self
            .watcher
            .gather
            .is_busy(&Dependent::Site(site.name.clone()), now);
        let failed = || {
            let name = &site.name;
            let busy = Error::failed(format!(
                "{name}: another mountjail has been working on it for a while"
            ));
            SiteError::from(busy.hint(format!(
                "it has the lock {}",
                self.context.state.lock(name).display()
            )))
        };
        (attempts >= LONG).then(|| SiteFailure {
            site,
            failed: failed(),
            again: Some((attempts, Duration::ZERO)),
        })
    }

    /// A failure to be told; `None`: the site is changing, and simply tried again.
    fn fails<'s>(
        &mut self,
        site: &'s Site,
        failed: SiteError,
        now: Instant,
    ) -> Option<SiteFailure<'s>> {
        let user = Dependent::Site(site.name.clone());
        if self.watcher.gather.is_due(&user) && self.watcher.gather.is_busy(&user, now) < PATIENCE {
            return None;
        }
        let again = self.watcher.gather.failed(&user, now);
        Some(SiteFailure {
            site,
            failed,
            again: Some(again),
        })
    }

    /// The pass could not begin, because of `error`, which is told by itself.
    fn put_off(&mut self, sites: &[Site], error: &Error) {
        let now = Instant::now();
        for Site { name, .. } in sites {
            let again = self
                .watcher
                .gather
                .failed(&Dependent::Site(name.clone()), now);
            if self.watcher.sites().any(|up| up == name) {
                self.tell.remember(name, error.to_string(), Some(again));
            }
        }
    }

    /// `undone`: sites whose mounts came and went again by our own doing.
    fn collect(&mut self, changed: MountsChanged, undone: &BTreeSet<SiteName>) {
        let trouble = match self.watcher.collect(changed, undone) {
            Ok(notes) => {
                for note in notes {
                    self.context.out.info(format_args!("{note}"));
                }
                None
            }
            Err(error) => Some(error),
        };
        self.tell
            .trouble(self.context.out, WatcherTrouble::Events, trouble);
    }
}

fn cloned(
    found: Vec<(&Site, Result<SiteFound, Lost>)>,
) -> (Vec<Site>, Vec<Result<SiteFound, Lost>>) {
    let mut found: Vec<_> = found
        .into_iter()
        .map(|(site, found)| (site.clone(), found))
        .collect();
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    found.into_iter().unzip()
}

//! The watcher itself: it waits for changes, brings the affected sites right, and takes in the
//! results.

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
use super::only_one;
use super::pass::{self, PassOutcome, PassPolicy, PassThreads, SiteFound, WhenLocked};
use super::reporter::{Reporter, SiteFailure, WatcherTrouble};
use super::scheduler::Scheduler;
use super::signals::WatchSignals;
use super::watcher::Watcher;
use crate::base::text::plural;
use crate::base::{JailPath, SiteName};
use crate::engine;
use crate::observe;
use crate::patience::{Lost, worker};
use crate::site::context::{Context, is_set};
use crate::site::parallel::lost;
use crate::site::site_list::SiteList;
use crate::site::up::Changes;
use crate::site::{Selection, Site, SiteError};
use crate::{Error, Result, sys};

/// How often a site that changes while it is brought right is tried again before its failure is
/// reported.
const PATIENCE: u32 = 10;

/// How often another mountjail may have a site's lock before that is reported: for some 15 seconds.
const LONG: u32 = 20;

/// A pass does not wait for a site that has slept for so long.
const NAP: Duration = Duration::from_millis(300);

/// How often the sites that sleep are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Keeps the sites of `selection` right until a signal ends it; returns the exit code.
///
/// Errors: another watcher runs, or the kernel's events cannot be read.
pub(crate) fn keep_watching(context: &Context, selection: Selection) -> anyhow::Result<u8> {
    sys::share_one_heap();
    let signals = WatchSignals::new()?;
    let _lock = only_one::lock(context)?;
    Daemon::new(selection, context, signals)?.run()
}

struct Daemon {
    selection: Selection,
    context: Context,
    watcher: Watcher,
    /// The sites that are due, and when.
    scheduler: Scheduler<Dependent>,
    /// The sites of the selection, up or not.
    sites: BTreeMap<SiteName, Site>,
    /// Some sites may be missing in the list, because something did not answer.
    list_is_partial: bool,
    grace: GracePeriods,
    reporter: Reporter,
    signals: WatchSignals,
    /// The threads of passes that wait for nothing but sites whose file systems do not answer.
    asleep: Vec<PassThreads>,
}

/// The news of a pass, by how they are reported.
#[derive(Default)]
struct PassNews<'s> {
    /// Sites in which something was changed.
    healed: Vec<(&'s Site, Changes)>,
    failing: Vec<SiteFailure<'s>>,
    /// Sites that are right, with the number of failures before.
    right: Vec<(&'s SiteName, u32)>,
}

impl Daemon {
    /// It knows the configuration, and has looked at no site yet.
    fn new(selection: Selection, context: &Context, signals: WatchSignals) -> Result<Self> {
        let forced = std::env::var("MOUNTJAIL_MOUNT_EVENTS").ok();
        let watcher = Watcher::new(
            MountSource::open(forced.as_deref())?,
            context.state.run.clone(),
        )?;
        let mut daemon = Self {
            selection,
            context: context.reloaded()?,
            reporter: Reporter::new(&watcher),
            watcher,
            scheduler: Scheduler::default(),
            sites: BTreeMap::new(),
            list_is_partial: false,
            grace: GracePeriods::default(),
            signals,
            asleep: vec![],
        };
        daemon.reload()?;
        Ok(daemon)
    }

    /// Watches until a signal ends it.
    fn run(&mut self) -> anyhow::Result<u8> {
        self.pass_or_later();
        let out = self.context.out;
        out.info(format_args!(
            "watching {}; mount events by {}",
            plural(self.watcher.sites().count(), "site"),
            self.watcher.mount_source()
        ));
        self.reporter.ready();
        loop {
            let until = self.next_wake();
            let changed = worker::while_idle(|| self.watcher.wait(self.signals.as_fd(), until))
                .context("cannot wait for changes")?;
            let reload = self.signals.taken_reload();
            if is_set(&self.signals.stop) {
                break;
            }
            self.reporter.ping();
            self.reporter.left_out(self.context.out);
            if reload {
                self.reload_by_hand();
            }
            self.collect(changed, &BTreeSet::new());
            self.look_at_sleepers();
            self.pass_or_later();
        }
        worker::notify(&[NotifyState::Stopping]);
        out.info("ending; all sites stay up");
        engine::remove_watch_state(&self.context.state)?;
        Ok(0)
    }

    /// When to wake up, even if nothing happens.
    fn next_wake(&self) -> Option<Instant> {
        let next_look = if self.asleep.is_empty() {
            None
        } else {
            Some(Instant::now() + LOOK)
        };
        [self.scheduler.next(), self.reporter.next(), next_look]
            .into_iter()
            .flatten()
            .min()
    }

    fn reload_by_hand(&mut self) {
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now());
        worker::notify(&states);
        self.context.out.info("checking everything again");
        self.scheduler.hurry(Dependent::Presets, Instant::now());
        self.pass_or_later();
        self.reporter.ready();
    }

    /// Reads the presets and the list of sites, and notes what these depend on. Sites that were not
    /// in the list before are due.
    fn reload(&mut self) -> Result<()> {
        let now = Instant::now();
        let learned = configuration::learned(&self.context.config);
        self.watcher.learn(&mut self.scheduler, learned, now);
        let context = self.context.reloaded()?;
        let SiteList {
            sites,
            errors,
            warnings,
            is_partial,
        } = self.selection.list(&context)?;
        self.context = context;
        self.reporter.no_sites(self.context.out, errors, warnings);
        self.list_is_partial = is_partial;
        for site in sites {
            if self.sites.get(&site.name) != Some(&site) {
                self.scheduler.at(Dependent::of(&site.name), now);
                self.sites.insert(site.name.clone(), site);
            }
        }
        Ok(())
    }

    fn pass_or_later(&mut self) {
        let trouble = match self.pass() {
            Ok(false) => return,
            Ok(true) => None,
            Err(error) => Some(error),
        };
        self.reporter
            .trouble(self.context.out, WatcherTrouble::Pass, trouble);
    }

    /// Brings all sites right that are due; returns whether there were any. If the pass cannot even
    /// begin, all are due again later.
    fn pass(&mut self) -> Result<bool> {
        let start = Instant::now();
        let mut users = self.scheduler.take(start);
        if users.is_empty() {
            return Ok(false);
        }
        self.context.out.forget_mistakes();
        self.reload_if_due(&mut users);
        let sites = self.awake_sites(&users);
        let result = self.pass_over(&sites, start);
        if let Err(error) = &result {
            self.put_off(&sites, error);
        }

        let now = Instant::now();
        self.scheduler.dealt_with(now, now - start);
        self.reporter.state.passes += 1;
        if result.is_ok() && self.are_all(&sites) {
            self.reporter.state.last_full_pass = observe::now();
        }
        self.reporter.write(&self.context, &self.watcher);
        self.reporter.ping();
        result?;
        Ok(true)
    }

    /// The sites among `users`. One that is asleep is looked at again when it wakes up.
    fn awake_sites(&self, users: &[Dependent]) -> Vec<Site> {
        let mut sites = vec![];
        for user in users {
            if let Dependent::Site(name) = user
                && let Some(site) = self.sites.get(name)
                && !self.is_asleep(site)
            {
                sites.push(site.clone());
            }
        }
        sites
    }

    /// Whether all sites that are up are among `sites`, which are sorted.
    fn are_all(&self, sites: &[Site]) -> bool {
        let mut up = self.watcher.sites();
        up.all(|name| sites.binary_search_by_key(&name, |site| &site.name).is_ok())
    }

    /// One pass over `sites`. It does not wait for those whose file systems do not answer.
    fn pass_over(&mut self, sites: &[Site], start: Instant) -> Result<()> {
        if sites.is_empty() {
            return Ok(());
        }
        let grace = self.grace.clone();
        let is_over = move |site: &SiteName, target: &JailPath| grace.is_over(site, target, start);
        let policy = PassPolicy {
            when_locked: WhenLocked::Skip,
            grace_is_over: Arc::new(is_over),
        };
        let mut threads = pass::begin(
            self.context.with_new_host(),
            sites.to_vec(),
            &self.signals.stop,
            policy,
        )?;
        self.take_in(threads.finish_or_sleep(NAP));
        if !threads.is_over() {
            self.asleep.push(threads);
        }
        Ok(())
    }

    fn is_asleep(&self, site: &Site) -> bool {
        self.asleep
            .iter()
            .any(|threads| threads.out().contains(&site))
    }

    /// Takes in the results of sites that were asleep: they are done, or were given up. A site
    /// whose thread has woken up is due: events in the meantime did not count.
    fn look_at_sleepers(&mut self) {
        let mut asleep = std::mem::take(&mut self.asleep);
        for threads in &mut asleep {
            let news = threads.news();
            let done: Vec<SiteName> = news.iter().map(|(site, _)| site.name.clone()).collect();
            if !news.is_empty() {
                self.take_in(news);
                self.reporter.write(&self.context, &self.watcher);
            }
            let now = Instant::now();
            for site in threads.back() {
                self.scheduler.at(Dependent::of(&site.name), now);
            }
            let still_asleep = threads.out();
            for name in done {
                if !still_asleep.iter().any(|site| site.name == name) {
                    self.scheduler.at(Dependent::Site(name), now);
                }
            }
        }
        asleep.retain(|threads| !threads.is_over());
        self.asleep.extend(asleep);
    }

    /// Reads the configuration again if it changed; if the presets did, all sites are due. If it
    /// cannot be read, the sites are kept right as they were known before.
    fn reload_if_due(&mut self, users: &mut Vec<Dependent>) {
        let mut due = vec![Dependent::Presets, Dependent::Sites];
        due.retain(|user| users.contains(user));
        if due.is_empty() {
            return;
        }
        let trouble = self.reload().err();
        let now = Instant::now();
        for user in &due {
            if trouble.is_some() || self.list_is_partial && *user == Dependent::Sites {
                self.scheduler.failed(user, now);
            } else {
                self.scheduler.succeeded(user);
            }
        }
        if trouble.is_none() && due.contains(&Dependent::Presets) {
            users.extend(self.sites.keys().map(Dependent::of));
            users.sort();
            users.dedup();
        }
        self.reporter
            .trouble(self.context.out, WatcherTrouble::Configuration, trouble);
    }

    /// Takes in the results of a pass: what is known now, what to report, when to try again.
    fn take_in(&mut self, mut found: Vec<(&Site, Result<SiteFound, Lost>)>) {
        let now = Instant::now();
        found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let (mut ends, mut learned, mut failed) = (vec![], vec![], BTreeSet::new());
        for (site, found) in found {
            let (end, result) = match found {
                Ok(found) => found,
                Err(why) => (PassOutcome::Lost(lost(site, &why)), None),
            };
            if let PassOutcome::Failed(_) = end {
                failed.insert(&site.name);
            }
            ends.push((site, end));
            learned.extend(result);
        }
        self.watcher.learn(&mut self.scheduler, learned, now);
        // Events of the meantime, to tell a failure from a change that was not complete.
        self.collect(MountsChanged::default(), &failed);

        self.take_in_ends(ends, now);
    }

    /// Reports what became of the sites, and notes when to try again.
    fn take_in_ends(&mut self, ends: Vec<(&Site, PassOutcome)>, now: Instant) {
        let mut news = PassNews::default();
        for (site, end) in ends {
            self.take_in_end(site, end, now, &mut news);
        }
        self.reporter.failures(&self.context, news.failing);
        self.reporter.right(self.context.out, news.right);
        self.reporter.changes(&self.context, news.healed);
        self.reporter.trouble(
            self.context.out,
            WatcherTrouble::Blind,
            self.watcher.blindness(),
        );
    }

    /// Adds what became of the site to `news`, and notes when to try again.
    fn take_in_end<'s>(
        &mut self,
        site: &'s Site,
        end: PassOutcome,
        now: Instant,
        news: &mut PassNews<'s>,
    ) {
        let user = Dependent::of(&site.name);
        match end {
            PassOutcome::Right(done, retained) => {
                if !done.changes.is_empty() {
                    news.healed.push((site, done.changes));
                }
                match self.take_in_retained(&site.name, retained, now) {
                    None => {
                        let failures = self.scheduler.succeeded(&user);
                        news.right.push((&site.name, failures));
                    }
                    Some(failed) => news.failing.extend(self.fails(site, failed, now)),
                }
            }
            PassOutcome::Busy => news.failing.extend(self.busy(site, now)),
            PassOutcome::Down => {
                self.grace.set(&site.name, vec![], now);
                self.scheduler.succeeded(&user);
                self.reporter.state.failures.remove(&site.name);
            }
            PassOutcome::WithoutManifest => {
                self.scheduler.succeeded(&user);
                let failed = pass::without_manifest(site);
                news.failing.push(SiteFailure::for_good(site, failed));
            }
            PassOutcome::Failed(failed) => news.failing.extend(self.fails(site, failed, now)),
            PassOutcome::Lost(failed) => news.failing.push(SiteFailure::for_good(site, failed)),
        }
    }

    /// Mounts that were retained without their source go when their grace period is over. Sources
    /// that could not be looked at are a failure.
    fn take_in_retained(
        &mut self,
        site: &SiteName,
        retained: Retained,
        now: Instant,
    ) -> Option<SiteError> {
        if let Some(when) = self.grace.set(site, retained.in_grace, now) {
            self.scheduler.at(Dependent::of(site), when);
        }
        if retained.unseen.is_empty() {
            return None;
        }
        Some(SiteError::Errors(retained.unseen))
    }

    /// Another mountjail works on the site; usually that is over soon.
    fn busy<'s>(&mut self, site: &'s Site, now: Instant) -> Option<SiteFailure<'s>> {
        let name = &site.name;
        let attempts = self.scheduler.was_busy(&Dependent::of(name), now);
        if attempts < LONG {
            return None;
        }
        let lock = self.context.state.lock(name);
        let busy = Error::failed(format!(
            "{name}: another mountjail has been working on it for a while"
        ))
        .hint(format!(
            "`lslocks` names the process that has {}",
            lock.display()
        ));
        Some(SiteFailure {
            site,
            failed: busy.into(),
            again: Some((attempts, Duration::ZERO)),
        })
    }

    /// A failure to be reported; `None`: the site is changing, and is tried again.
    fn fails<'s>(
        &mut self,
        site: &'s Site,
        failed: SiteError,
        now: Instant,
    ) -> Option<SiteFailure<'s>> {
        let user = Dependent::of(&site.name);
        if self.scheduler.is_due(&user) && self.scheduler.was_busy(&user, now) < PATIENCE {
            return None;
        }
        let again = self.scheduler.failed(&user, now);
        Some(SiteFailure {
            site,
            failed,
            again: Some(again),
        })
    }

    /// The pass could not begin because of `error`, which is reported separately.
    fn put_off(&mut self, sites: &[Site], error: &Error) {
        let now = Instant::now();
        for Site { name, .. } in sites {
            let again = self.scheduler.failed(&Dependent::of(name), now);
            if self.watcher.is_up(name) {
                self.reporter.remember(name, error.to_string(), Some(again));
            }
        }
    }

    /// Takes in events. `undone`: sites whose mounts came and went because a pass was undone.
    fn collect(&mut self, changed: MountsChanged, undone: &BTreeSet<&SiteName>) {
        let trouble = match self.watcher.collect(&mut self.scheduler, changed, undone) {
            Ok(notes) => {
                self.reporter.notes(self.context.out, notes);
                None
            }
            Err(error) => Some(error),
        };
        self.reporter
            .trouble(self.context.out, WatcherTrouble::Events, trouble);
    }
}

//! The watcher's reports: lines for people, its state for `status`, and messages to the service
//! manager.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::rate_limit::RateLimit;
use super::watcher::Watcher;
use crate::Error;
use crate::base::quote::brief;
use crate::base::text::{few, plural};
use crate::base::{JailPath, SiteName};
use crate::engine;
use crate::observe::{WatchFailure, WatchState, now};
use crate::patience::worker;
use crate::site::context::Context;
use crate::site::event::Event;
use crate::site::out::Out;
use crate::site::up::{Change, Changed, Changes};
use crate::site::{ManifestError, Site, SiteError};
use crate::sys::proc;

/// How many names are shown in one line.
const NAMED: usize = 5;

/// How often the same note is reported at most.
const NOTE_PERIOD: Duration = Duration::from_secs(60);

/// The reports so far, and when they were made.
pub(super) struct Reporter {
    pub state: WatchState,
    /// How often the service manager expects a message, and when the next one is due.
    watchdog: Option<(Duration, Instant)>,
    /// The status that the service manager was told last.
    status: String,
    troubles: BTreeMap<WatcherTrouble, Error>,
    /// Files that are not sites, and what else was reported about the list of sites.
    no_sites: (Vec<ManifestError>, Vec<String>),
    limit: RateLimit,
    /// When each note was last reported.
    noted: BTreeMap<&'static str, Instant>,
}

/// Trouble in the watcher's own work, independent of sites.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatcherTrouble {
    /// Not everything can be watched.
    Blind,
    /// The configuration cannot be read.
    Configuration,
    /// Events cannot be read.
    Events,
    /// No site can be looked at.
    Pass,
    /// The watcher's own state cannot be written.
    State,
}

/// A site that could not be brought right.
pub(super) struct SiteFailure<'s> {
    pub site: &'s Site,
    pub failed: SiteError,
    /// How often it was tried, and the time until the next try; `None`: only a change can help.
    pub again: Option<(u32, Duration)>,
}

impl<'s> SiteFailure<'s> {
    /// One that is not tried again before something changes.
    pub(super) fn for_good(site: &'s Site, failed: SiteError) -> Self {
        Self {
            site,
            failed,
            again: None,
        }
    }
}

impl Reporter {
    pub(super) fn new(watcher: &Watcher) -> Self {
        let pid = worker::main_pid().as_raw().unsigned_abs();
        let state = WatchState {
            version: 1,
            pid,
            start_time: proc::start_time(&proc::of(pid)).unwrap_or(0),
            since: now(),
            mount_events: watcher.mount_source().to_owned(),
            ..WatchState::default()
        };
        let watchdog = worker::watchdog().map(|limit| (limit / 2, Instant::now()));
        Self {
            state,
            watchdog,
            status: String::new(),
            troubles: BTreeMap::new(),
            no_sites: (vec![], vec![]),
            limit: RateLimit::default(),
            noted: BTreeMap::new(),
        }
    }

    /// When to send the next message to the service manager, or to report lines that were left out.
    pub(super) fn next(&self) -> Option<Instant> {
        let ping = self.watchdog.map(|(_, next)| next);
        [ping, self.limit.next()].into_iter().flatten().min()
    }

    /// Reports how many lines about each site were left out.
    pub(super) fn left_out(&mut self, out: &Out) {
        for (site, count) in self.limit.over(Instant::now()) {
            out.site(&site).warn(format_args!(
                "{} left out, because there were too many; `mountjail status {site}` shows its \
                 state",
                plural(count, "more line")
            ));
        }
    }

    /// Answers the service manager's watchdog, if it is time.
    pub(super) fn ping(&mut self) {
        let now = Instant::now();
        if let Some((every, next)) = &mut self.watchdog
            && *next <= now
        {
            worker::notify(&[NotifyState::Watchdog]);
            *next = now + *every;
        }
    }

    /// Writes the state for `status`, and tells the service manager if its status line changed.
    pub(super) fn write(&mut self, context: &Context, watcher: &Watcher) {
        self.state.directories = watcher.directories();
        self.state.sites = watcher.sites().count();
        let trouble = engine::write_watch_state(&context.state, &self.state).err();
        self.trouble(context.out, WatcherTrouble::State, trouble);
        // Before the watcher is ready there is no status to correct.
        if !self.status.is_empty() && self.status != self.status() {
            self.status = self.status();
            worker::notify(&[NotifyState::Status(&self.status)]);
        }
    }

    /// Reports `notes` about events, each at most once a minute: an owner can cause them.
    pub(super) fn notes(&mut self, out: &Out, notes: Vec<&'static str>) {
        let now = Instant::now();
        for note in notes {
            let last = self.noted.get(note);
            if last.is_none_or(|last| now.saturating_duration_since(*last) >= NOTE_PERIOD) {
                self.noted.insert(note, now);
                out.info(note);
            }
        }
    }

    /// Tells the service manager that the watcher is ready, or ready again.
    pub(super) fn ready(&mut self) {
        self.status = self.status();
        worker::notify(&[NotifyState::Ready, NotifyState::Status(&self.status)]);
    }

    fn status(&self) -> String {
        let sites = plural(self.state.sites, "site");
        match self.state.failures.len() {
            0 => format!("{sites} watched"),
            count => format!("{sites} watched, {count} of them not in sync"),
        }
    }

    /// Reports trouble with the watcher's own work, or that it is over, if that is new.
    pub(super) fn trouble(&mut self, out: &Out, trouble: WatcherTrouble, error: Option<Error>) {
        if trouble == WatcherTrouble::Blind {
            self.state.blind = error.as_ref().map(ToString::to_string);
        }
        if self.troubles.get(&trouble) == error.as_ref() {
            return;
        }
        if let Some(error) = error {
            out.about(Event::WatcherTrouble, &[])
                .error(&trouble.explain(error.clone()));
            self.troubles.insert(trouble, error);
        } else {
            self.troubles.remove(&trouble);
            out.info(trouble.is_over());
        }
    }

    /// Reports files that are not sites, and the warnings of the list, if they are new.
    pub(super) fn no_sites(
        &mut self,
        out: &Out,
        errors: Vec<ManifestError>,
        warnings: Vec<String>,
    ) {
        let (known_errors, known_warnings) = &self.no_sites;
        for error in &errors {
            if !known_errors.contains(error) {
                error.report(out, &"a file of sites");
            }
        }
        for warning in &warnings {
            if !known_warnings.contains(warning) {
                out.warn(warning);
            }
        }
        self.no_sites = (errors, warnings);
    }

    /// Reports what was changed, in one line for all sites for which the same was done.
    pub(super) fn changes(&mut self, context: &Context, healed: Vec<(&Site, Changes)>) {
        let mut alike: BTreeMap<Vec<Changed>, Vec<&SiteName>> = BTreeMap::new();
        let now = Instant::now();
        for (site, changes) in healed {
            let outcome = changes.outcome;
            self.state.attached += outcome.attached as u64;
            self.state.swapped += outcome.swapped as u64;
            self.state.detached += outcome.detached as u64;
            let lines = 1 + outcome.left.len().min(NAMED);
            if !self.limit.allows(&site.name, lines, now) {
                continue;
            }
            let out = context.out.site(&site.name);
            for left in outcome.left.iter().take(NAMED) {
                out.warn(left);
            }
            if outcome.left.len() > NAMED {
                let more = outcome.left.len() - NAMED;
                out.warn(format_args!("and {}", plural(more, "more path")));
            }
            alike.entry(changes.mounts).or_default().push(&site.name);
        }
        for (changed, sites) in alike {
            context.out.about(Event::Changed, &sites).info(format_args!(
                "{}: {}",
                names(&sites),
                what(&changed)
            ));
        }
    }

    /// Reports why sites are not right, if that is new: the first few in full.
    pub(super) fn failures(&mut self, context: &Context, failing: Vec<SiteFailure<'_>>) {
        let mut news = vec![];
        for SiteFailure {
            site,
            failed,
            again,
        } in failing
        {
            let text = brief_text(&failed.text(site));
            let failed = failed.shortened(&site.name, NAMED);
            let lines = 1 + failed.text(site).lines().count().max(failed.count());
            if self.remember(&site.name, text, again)
                && self.limit.allows(&site.name, lines, Instant::now())
            {
                news.push(SiteFailure {
                    site,
                    failed,
                    again,
                });
            }
        }
        report_failures(context, &news);
    }

    /// Notes why the site is not right; returns whether that is new.
    pub(super) fn remember(
        &mut self,
        site: &SiteName,
        error: String,
        again: Option<(u32, Duration)>,
    ) -> bool {
        let (news, since) = match self.state.failures.get(site) {
            Some(known) => (known.error != error, known.since),
            None => (true, now()),
        };
        let (attempts, next_try) = match again {
            Some((attempts, delay)) => (attempts, Some(now() + delay.as_secs())),
            None => (1, None),
        };
        self.state.failures.insert(
            site.clone(),
            WatchFailure {
                error,
                since,
                attempts,
                next_try,
            },
        );
        news
    }

    /// Notes that these sites are right, each after that many failures.
    pub(super) fn right(&mut self, out: &Out, sites: Vec<(&SiteName, u32)>) {
        let mut alike: BTreeMap<u32, Vec<&SiteName>> = BTreeMap::new();
        for (site, attempts) in sites {
            if self.state.failures.remove(site).is_some()
                && self.limit.allows(site, 1, Instant::now())
            {
                alike.entry(attempts).or_default().push(site);
            }
        }
        for (attempts, sites) in alike {
            let after = match attempts {
                0 => String::new(), // it waited for a change
                count => format!(" after {}", plural(count as usize, "failed attempt")),
            };
            out.about(Event::InSync, &sites)
                .info(format_args!("{}: in sync again{after}", names(&sites)));
        }
    }
}

impl WatcherTrouble {
    /// The error, with what it means.
    fn explain(self, error: Error) -> Error {
        match self {
            Self::Blind => error, // it says so itself
            Self::Configuration => {
                error.context("the configuration that was read last stays in force")
            }
            Self::Events => error.context("changes may have been missed"),
            Self::Pass => error.context("all sites stay as they are, and are checked later"),
            Self::State => {
                error.context("the watcher's state in `mountjail status` is out of date")
            }
        }
    }

    fn is_over(self) -> &'static str {
        match self {
            Self::Blind => "everything can be watched again",
            Self::Configuration => "the configuration can be read again",
            Self::Events => "changes can be read again",
            Self::Pass => "sites are checked again",
            Self::State => "the watcher's state in `mountjail status` is up to date again",
        }
    }
}

/// Reports the first few failures in full, and how many more there are.
fn report_failures(context: &Context, news: &[SiteFailure<'_>]) {
    let (mut more, mut again) = (vec![], vec![]);
    for (nth, failure) in news.iter().enumerate() {
        let name = &failure.site.name;
        if nth < NAMED {
            failure.failed.report(context.out, failure.site);
        } else {
            more.push(name);
        }
        if failure.again.is_some() {
            again.push(name);
        }
    }
    if !more.is_empty() {
        let failed = Error::failed(format!("{} failed", plural(more.len(), "more site")));
        let out = context.out.about(Event::Failed, &more);
        out.error(&failed.hint("`mountjail status` shows why"));
    }
    if !again.is_empty() {
        context.out.info(format_args!(
            "{}: the mounts stay; retried from time to time, and after each change",
            names(&again)
        ));
    }
}

/// Shortened to what can be read and kept, line by line.
fn brief_text(text: &str) -> String {
    let lines = text.lines().take(50).map(|line| brief(line, 2000));
    lines.collect::<Vec<_>>().join("\n")
}

/// `site1`, or `1000 sites (site0, site1, …)`.
fn names(sites: &[&SiteName]) -> String {
    if let [site] = sites {
        return site.to_string();
    }
    format!("{} ({})", plural(sites.len(), "site"), few(sites, NAMED))
}

/// `attached /run/mysqld; swapped /etc/hosts`. A mount that was detached and attached again was
/// replaced: a file cannot be swapped for a directory.
fn what(changed: &[Changed]) -> String {
    let mut by_change: BTreeMap<Change, Vec<&JailPath>> = BTreeMap::new();
    for (change, path) in changed {
        let change = match change {
            Change::Attached if has(changed, Change::Detached, path) => Change::Replaced,
            Change::Detached if has(changed, Change::Attached, path) => continue,
            change => *change,
        };
        by_change.entry(change).or_default().push(path);
    }

    let mut parts = vec![];
    for (change, paths) in by_change {
        let paths = few(paths, NAMED);
        parts.push(match change {
            Change::Replaced => format!("replaced {paths}"),
            Change::Attached => format!("attached {paths}"),
            Change::Swapped => format!("swapped {paths}"),
            Change::Detached => format!("detached {paths}"),
            Change::Gone => format!("detached {paths}, gone from the host"),
        });
    }
    if parts.is_empty() {
        return "changed files and links".to_owned();
    }
    parts.join("; ")
}

fn has(changed: &[Changed], change: Change, path: &JailPath) -> bool {
    let mut changed = changed.iter();
    changed.any(|(done, at)| *done == change && at == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_sites_and_many_mounts_make_one_short_line() {
        let sites: Vec<_> = (0..7)
            .map(|nth| SiteName::new(&format!("s{nth}")).unwrap())
            .collect();
        let sites: Vec<_> = sites.iter().collect();
        assert_eq!(names(&sites[..1]), "s0");
        assert_eq!(names(&sites), "7 sites (s0, s1, s2, s3, s4 and 2 more)");
        let at = |path: &str| JailPath::new(path).unwrap();
        let changed = [
            (Change::Swapped, at("/a")),
            (Change::Attached, at("/b")),
            (Change::Swapped, at("/c")),
        ];
        assert_eq!(what(&changed), "attached /b; swapped /a, /c");
        let renewed = [
            (Change::Detached, at("/a")),
            (Change::Detached, at("/b")),
            (Change::Attached, at("/a")),
        ];
        assert_eq!(what(&renewed), "replaced /a; detached /b");
        let gone = [
            (Change::Gone, at("/a")),
            (Change::Gone, at("/b")),
            (Change::Detached, at("/c")),
        ];
        assert_eq!(
            what(&gone),
            "detached /c; detached /a, /b, gone from the host"
        );
        assert_eq!(what(&[]), "changed files and links");
    }
}

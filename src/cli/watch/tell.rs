//! What the watcher says: lines for people, its state for `status`, and how it is to the service manager.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::cli::apply::Changed;
use crate::cli::context::Context;
use crate::cli::sites::Site;
use crate::cli::work::{Failed, plural};
use crate::engine::{self, Outcome};
use crate::manifest::SiteName;
use crate::observe::{WatchFailure, WatchState, now, start_time};
use crate::watch::Watcher;

/// So many names are enough in one line.
const NAMED: usize = 5;

/// What was said, and when.
pub(super) struct Tell {
    pub state: WatchState,
    /// How often the service manager wants to hear of us, and when next.
    watchdog: Option<(Duration, Instant)>,
}

impl Tell {
    pub(super) fn new(watcher: &Watcher) -> Self {
        let pid = std::process::id();
        let state = WatchState {
            version: 1,
            pid,
            start_time: start_time(pid).unwrap_or(0),
            since: now(),
            mount_events: watcher.mount_source().to_owned(),
            ..WatchState::default()
        };
        let watchdog = sd_notify::watchdog_enabled().map(|limit| (limit / 2, Instant::now()));
        Self { state, watchdog }
    }

    /// When the service manager has to hear of us.
    pub(super) fn next_ping(&self) -> Option<Instant> {
        self.watchdog.map(|(_, next)| next)
    }

    /// Tells the service manager that we are alive, if it is time.
    pub(super) fn ping(&mut self) {
        let now = Instant::now();
        if let Some((every, next)) = &mut self.watchdog
            && *next <= now
        {
            notify(&[NotifyState::Watchdog]);
            *next = now + *every;
        }
    }

    /// Tells the service manager, and `status`, how it goes.
    pub(super) fn write(&mut self, context: &Context<'_>, watcher: &Watcher) {
        self.state.directories = watcher.directories();
        self.state.sites = watcher.sites().count();
        if let Err(error) = engine::write_watch_state(&context.state, &self.state) {
            context.out.error(&error); // nothing depends on it but what `status` shows
        }
    }

    /// Tells the service manager that we work, or work again.
    pub(super) fn ready(&self) {
        let sites = plural(self.state.sites, "site");
        let failing = match self.state.failures.len() {
            0 => String::new(),
            count => format!(", {count} of them not right"),
        };
        let status = format!("{sites} kept right{failing}");
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// Says what was changed; sites for which the same was done together.
    pub(super) fn changes(&mut self, context: &Context<'_>, healed: Vec<(&Site, Vec<Changed>, Outcome)>) {
        let mut alike: BTreeMap<Vec<Changed>, Vec<&SiteName>> = BTreeMap::new();
        for (site, changed, outcome) in healed {
            self.state.attached += outcome.attached as u64;
            self.state.swapped += outcome.swapped as u64;
            self.state.detached += outcome.detached as u64;
            for left in &outcome.left {
                context.out.warn(format_args!("{}: {left}", site.name));
            }
            alike.entry(changed).or_default().push(&site.name);
        }
        for (changed, sites) in alike {
            context.out.info(format_args!("{}: {}", names(&sites), what(&changed)));
        }
    }

    /// Says why the site is not right, if that is news. `retry`: how often it was tried, and the time until it is again;
    /// `None`: only a change can help.
    pub(super) fn failed(
        &mut self,
        context: &Context<'_>,
        site: &Site,
        failed: &Failed,
        retry: Option<(u32, Duration)>,
    ) {
        let error = failed.text(site);
        let known = self.state.failures.get(&site.name);
        let since = known.map_or_else(now, |known| known.since);
        if known.is_none_or(|known| known.error != error) {
            failed.report(context, site);
        }
        let (attempts, next_try) = match retry {
            Some((attempts, delay)) => (attempts, Some(now() + delay.as_secs())),
            None => (1, None),
        };
        let failure = WatchFailure { error, since, attempts, next_try };
        self.state.failures.insert(site.name.clone(), failure);
    }

    /// The site is right, or of no interest any more.
    pub(super) fn is_right(&mut self, context: &Context<'_>, site: &SiteName, attempts: u32) {
        if self.state.failures.remove(site).is_some() {
            context.out.info(format_args!(
                "{site}: right again after {}",
                plural(attempts as usize, "failed attempt")
            ));
        }
    }
}

/// Without a service manager there is nobody to tell.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// `site1`, or `1000 sites (site0, site1, …)`.
fn names(sites: &[&SiteName]) -> String {
    if let [site] = sites {
        return site.to_string();
    }
    format!("{} ({})", plural(sites.len(), "site"), some(sites.iter().map(ToString::to_string)))
}

/// `swapped /etc/hosts, attached /run/mysqld`.
fn what(changed: &[Changed]) -> String {
    let verbs = ["attached", "swapped", "detached"].into_iter().filter_map(|verb| {
        let paths = changed.iter().filter(|(done, _)| *done == verb).map(|(_, path)| path.to_string());
        let paths = some(paths);
        (!paths.is_empty()).then(|| format!("{verb} {paths}"))
    });
    let text = verbs.collect::<Vec<_>>().join("; ");
    if text.is_empty() { "changed files and links".to_owned() } else { text }
}

/// The first few, and how many more.
fn some(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(NAMED);
    let text = names[..names.len() - more].join(", ");
    if more == 0 { text } else { format!("{text} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::JailPath;

    #[test]
    fn many_sites_and_many_mounts_make_one_short_line() {
        let sites: Vec<_> = (0..7).map(|nth| SiteName::new(&format!("s{nth}")).unwrap()).collect();
        let sites: Vec<_> = sites.iter().collect();
        assert_eq!(names(&sites[..1]), "s0");
        assert_eq!(names(&sites), "7 sites (s0, s1, s2, s3, s4 and 2 more)");
        let at = |path: &str| JailPath::new(path).unwrap();
        let changed = [("swapped", at("/a")), ("attached", at("/b")), ("swapped", at("/c"))];
        assert_eq!(what(&changed), "attached /b; swapped /a, /c");
        assert_eq!(what(&[]), "changed files and links");
    }
}

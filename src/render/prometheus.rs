//! For Prometheus: the text format that the textfile collector of `node_exporter` reads.

use std::fmt::{Display, Write};

use super::health::SiteHealth;
use crate::observe::{History, WatchState};
use crate::plan::{SiteState, State};

const STATES: [State; 10] = [
    State::Ok,
    State::Missing,
    State::Stale,
    State::WrongSource,
    State::WrongOptions,
    State::Shadowed,
    State::Absent,
    State::Orphan,
    State::Hidden,
    State::Foreign,
];

/// All metrics, family by family. `histories`: what was done to the mounts of each site. `watch` is
/// what a running watcher reports; `now` is the time of the check, in seconds since 1970.
pub(crate) fn metrics(
    sites: &[SiteHealth<'_>],
    histories: &[Option<History>],
    watch: Option<&WatchState>,
    now: u64,
) -> String {
    let mut text = Exposition::default();
    add_states(&mut text, sites);
    add_mounts(&mut text, sites);
    add_histories(&mut text, sites, histories);
    add_watcher(&mut text, watch);
    text.gauge(
        "mountjail_last_check_timestamp_seconds",
        "When these metrics were collected.",
    );
    text.sample(&[], now);
    text.gauge(
        "mountjail_build_info",
        "The version of mountjail, as a label.",
    );
    text.sample(&[("version", &env!("CARGO_PKG_VERSION"))], 1);
    text.text
}

/// The states of the sites.
fn add_states(text: &mut Exposition, sites: &[SiteHealth<'_>]) {
    text.gauge(
        "mountjail_sites",
        "Number of sites by state; failed: the state could not be determined.",
    );
    let states = [
        Some(SiteState::Up),
        Some(SiteState::Drifted),
        Some(SiteState::Down),
        None,
    ];
    for state in states {
        let count = sites.iter().filter(|site| site.state == state).count();
        let state = match state {
            Some(state) => state.to_string(),
            None => "failed".to_owned(),
        };
        text.sample(&[("state", &state)], count);
    }

    text.gauge(
        "mountjail_site_up",
        "Whether a site is as its manifest says; with the scope services also if none of its \
         services runs.",
    );
    for site in sites {
        text.sample(&[("site", site.name)], u8::from(site.is_right));
    }
}

/// The mounts of the sites, and the processes inside.
fn add_mounts(text: &mut Exposition, sites: &[SiteHealth<'_>]) {
    text.gauge("mountjail_site_mounts", "Mounts of a site by their state.");
    for site in sites {
        let Some(plan) = site.plan else {
            continue;
        };
        for state in STATES {
            let mounts = plan.states.iter().filter(|mount| mount.state == state);
            text.sample(&[("site", site.name), ("state", &state)], mounts.count());
        }
    }

    text.gauge(
        "mountjail_site_outdated_processes",
        "Processes inside a site that use files which have been replaced.",
    );
    for site in sites {
        if site.plan.is_some() {
            text.sample(&[("site", site.name)], site.outdated);
        }
    }
}

/// The changes that the records count.
fn add_histories(text: &mut Exposition, sites: &[SiteHealth<'_>], histories: &[Option<History>]) {
    let mut known = vec![];
    for (site, history) in sites.iter().zip(histories) {
        if let Some(history) = history {
            known.push((site.name, history));
        }
    }
    if known.is_empty() {
        return;
    }
    text.gauge(
        "mountjail_site_last_change_timestamp_seconds",
        "When a mount of a site was last made, replaced or unmounted.",
    );
    for (site, history) in &known {
        text.sample(&[("site", site)], history.changed);
    }
    text.counter(
        "mountjail_site_mount_changes_total",
        "Mounts made (attach), replaced (swap: usually a stale one was healed) and unmounted \
         (detach) since the site came up.",
    );
    for (site, history) in &known {
        let counts = [
            ("attach", history.attached),
            ("swap", history.swapped),
            ("detach", history.detached),
        ];
        for (change, count) in counts {
            text.sample(&[("site", site), ("change", &change)], count);
        }
    }
}

/// The metrics of a running watcher.
fn add_watcher(text: &mut Exposition, watch: Option<&WatchState>) {
    text.gauge("mountjail_watch_up", "Whether a watcher runs.");
    text.sample(&[], u8::from(watch.is_some()));
    let Some(watch) = watch else { return };
    text.counter(
        "mountjail_watch_heals_total",
        "Mounts that the watcher made (attach), replaced (swap) and unmounted (detach) since it \
         started.",
    );
    for (change, count) in [
        ("attach", watch.attached),
        ("swap", watch.swapped),
        ("detach", watch.detached),
    ] {
        text.sample(&[("change", &change)], count);
    }
    text.gauge(
        "mountjail_watch_failing_sites",
        "Sites that the watcher could not bring up to date.",
    );
    text.sample(&[], watch.failures.len());
    text.gauge(
        "mountjail_watch_blind",
        "Whether some directories cannot be watched, so that it looks every few seconds.",
    );
    text.sample(&[], u8::from(watch.blind.is_some()));
    if watch.last_full_pass > 0 {
        text.gauge(
            "mountjail_watch_last_full_pass_timestamp_seconds",
            "When the watcher last looked at all sites in one pass.",
        );
        text.sample(&[], watch.last_full_pass);
    }
}

/// The text format.
#[derive(Default)]
struct Exposition {
    text: String,
    /// The family of the samples that follow.
    family: &'static str,
}

impl Exposition {
    /// Begins a family of values that go up and down.
    fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, "gauge", help);
    }

    /// Begins a family of values that only go up.
    fn counter(&mut self, name: &'static str, help: &str) {
        self.begin(name, "counter", help);
    }

    fn begin(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        let family = self.family;
        let labels: Vec<_> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escaped(&value.to_string())))
            .collect();
        let _ = match labels.as_slice() {
            [] => writeln!(self.text, "{family} {value}"),
            labels => writeln!(self.text, "{family}{{{}}} {value}", labels.join(",")),
        };
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SiteName;

    #[test]
    fn label_values_are_escaped() {
        let mut text = Exposition::default();
        text.gauge("m", "h");
        text.sample(&[("a", &"\\ \" \n"), ("b", &"x")], 1);
        assert_eq!(
            text.text,
            "# HELP m h\n# TYPE m gauge\nm{a=\"\\\\ \\\" \\n\",b=\"x\"} 1\n"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let name = SiteName::new("a").unwrap();
        let site = SiteHealth {
            name: &name,
            plan: None,
            state: None,
            is_right: false,
            outdated: 0,
        };
        let text = metrics(&[site], &[None], None, 7);
        assert!(
            text.contains("mountjail_sites{state=\"failed\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("mountjail_site_up{site=\"a\"} 0\n"), "{text}");
        assert!(
            text.contains("\nmountjail_last_check_timestamp_seconds 7\n"),
            "{text}"
        );
        assert!(
            text.contains("\nmountjail_watch_up 0\n") && !text.contains("watch_heals"),
            "{text}"
        );
        assert!(
            !text.contains("changes") && !text.contains("mounts{"),
            "{text}"
        );
    }
}

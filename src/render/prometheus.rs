//! For Prometheus: the text format that the textfile collector of `node_exporter` reads.

use std::fmt::{Display, Write};

use crate::base::SiteName;
use crate::observe::{History, WatchState};
use crate::plan::{Plan, SiteState, State};

/// What is known about one site.
#[derive(Clone, Debug)]
pub(crate) struct SiteMetrics<'p> {
    pub name: &'p SiteName,
    /// The states of its mounts; `None`: unknown, because its manifest has mistakes or something
    /// failed.
    pub plan: Option<&'p Plan>,
    /// What was done to its mounts.
    pub history: Option<History>,
    /// How many processes inside use files that have been replaced.
    pub outdated: usize,
}

impl SiteMetrics<'_> {
    fn state(&self) -> Option<SiteState> {
        self.plan.map(Plan::site_state)
    }
}

const STATES: [State; 9] = [
    State::Ok,
    State::Missing,
    State::Stale,
    State::WrongSource,
    State::WrongOptions,
    State::Shadowed,
    State::Absent,
    State::Orphan,
    State::Foreign,
];

/// All metrics, family by family. `watch` is what a running watcher reports; `now` is the time of
/// the check, in seconds since 1970.
pub(crate) fn metrics(sites: &[SiteMetrics<'_>], watch: Option<&WatchState>, now: u64) -> String {
    let mut text = Exposition::default();
    text.family(
        "mountjail_sites",
        "gauge",
        "How many sites stand so; failed: nothing can be said.",
    );
    let states = [
        Some(SiteState::Up),
        Some(SiteState::Drifted),
        Some(SiteState::Down),
        None,
    ];
    for state in states {
        let count = sites.iter().filter(|site| site.state() == state).count();
        let state = state.map_or_else(|| "failed".to_owned(), |state| state.to_string());
        text.sample(&[("state", &state)], count);
    }
    text.family(
        "mountjail_site_up",
        "gauge",
        "Whether all mounts of a site are as its manifest says.",
    );
    for site in sites {
        text.sample(
            &[("site", site.name)],
            u8::from(site.state() == Some(SiteState::Up)),
        );
    }
    text.family(
        "mountjail_site_mounts",
        "gauge",
        "Mounts of a site by their state.",
    );
    for (site, plan) in sites.iter().filter_map(|site| Some((site, site.plan?))) {
        for state in STATES {
            let count = plan
                .states
                .iter()
                .filter(|mount| mount.state == state)
                .count();
            text.sample(&[("site", site.name), ("state", &state)], count);
        }
    }
    let help = "Processes inside a site that use files which have been replaced.";
    text.family("mountjail_site_outdated_processes", "gauge", help);
    for site in sites.iter().filter(|site| site.plan.is_some()) {
        text.sample(&[("site", site.name)], site.outdated);
    }
    histories(&mut text, sites);
    watcher(&mut text, watch);
    text.family(
        "mountjail_last_check_timestamp_seconds",
        "gauge",
        "When all this was looked at.",
    );
    text.sample(&[], now);
    text.family(
        "mountjail_build_info",
        "gauge",
        "The version of mountjail, as a label.",
    );
    text.sample(&[("version", &env!("CARGO_PKG_VERSION"))], 1);
    text.0
}

/// What the records tell.
fn histories(text: &mut Exposition, sites: &[SiteMetrics<'_>]) {
    let known: Vec<_> = sites
        .iter()
        .filter_map(|site| Some((site.name, site.history.as_ref()?)))
        .collect();
    if known.is_empty() {
        return;
    }
    let help = "When a mount of a site was last made, replaced or taken away.";
    text.family(
        "mountjail_site_last_change_timestamp_seconds",
        "gauge",
        help,
    );
    for (site, history) in &known {
        text.sample(&[("site", site)], history.changed);
    }
    let help = "Mounts made (attach), replaced (swap: most often a stale one was healed) and taken \
                away (detach), \
                since the site came up.";
    text.family("mountjail_site_mount_changes_total", "counter", help);
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

/// What the watcher tells.
fn watcher(text: &mut Exposition, watch: Option<&WatchState>) {
    text.family("mountjail_watch_up", "gauge", "Whether a watcher runs.");
    text.sample(&[], u8::from(watch.is_some()));
    let Some(watch) = watch else { return };
    let help = "Mounts that the watcher made (attach), replaced (swap) and took away (detach), \
                since it began.";
    text.family("mountjail_watch_heals_total", "counter", help);
    for (change, count) in [
        ("attach", watch.attached),
        ("swap", watch.swapped),
        ("detach", watch.detached),
    ] {
        text.sample(&[("change", &change)], count);
    }
    text.family(
        "mountjail_watch_failing_sites",
        "gauge",
        "Sites that the watcher could not bring right.",
    );
    text.sample(&[], watch.failures.len());
    let help = "Whether some directories cannot be watched, so that it looks every few seconds.";
    text.family("mountjail_watch_blind", "gauge", help);
    text.sample(&[], u8::from(watch.blind.is_some()));
    if watch.last_full_pass > 0 {
        let help = "When the watcher last looked at all sites in one pass.";
        text.family(
            "mountjail_watch_last_full_pass_timestamp_seconds",
            "gauge",
            help,
        );
        text.sample(&[], watch.last_full_pass);
    }
}

/// The text, and the name of the family that samples are of.
#[derive(Default)]
struct Exposition(String, &'static str);

impl Exposition {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.1 = name;
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{}\"", escaped(&value.to_string())))
            .collect();
        let _ = match labels.as_slice() {
            [] => writeln!(self.0, "{} {value}", self.1),
            labels => writeln!(self.0, "{}{{{}}} {value}", self.1, labels.join(",")),
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

    #[test]
    fn label_values_are_escaped() {
        let mut text = Exposition::default();
        text.family("m", "gauge", "h");
        text.sample(&[("a", &"\\ \" \n"), ("b", &"x")], 1);
        assert_eq!(
            text.0,
            "# HELP m h\n# TYPE m gauge\nm{a=\"\\\\ \\\" \\n\",b=\"x\"} 1\n"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let name = SiteName::new("a").unwrap();
        let site = SiteMetrics {
            name: &name,
            plan: None,
            history: None,
            outdated: 0,
        };
        let text = metrics(&[site], None, 7);
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

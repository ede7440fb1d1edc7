//! The line and the exit code of a plugin for Nagios, Icinga and others that run such plugins.

use std::fmt::{self, Display, Write};

use anstream::adapter::strip_str;

use super::health::SiteHealth;
use super::overview;
use crate::Error;
use crate::base::quote::brief;
use crate::base::text::{and_more, plural};
use crate::plan::SiteState;

/// How many sites are named that are not right.
const NAMED: usize = 5;

/// The longest text about one site.
const LONGEST: usize = 300;

/// From the best to the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum NagiosState {
    Ok,
    Warning,
    Unknown,
    Critical,
}

impl Display for NagiosState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Unknown => "UNKNOWN",
            Self::Critical => "CRITICAL",
        })
    }
}

/// The answers of a plugin.
pub(crate) struct Check {
    level: NagiosState,
    /// One line.
    pub line: String,
}

impl Check {
    /// The exit code of a plugin.
    pub(crate) fn code(&self) -> u8 {
        match self.level {
            NagiosState::Ok => 0,
            NagiosState::Warning => 1,
            NagiosState::Critical => 2,
            NagiosState::Unknown => 3,
        }
    }

    fn new(level: NagiosState, text: impl Display) -> Self {
        let line = format!("MOUNTJAIL {level} - {text}\n");
        Self { level, line }
    }
}

/// The worst site decides. `lines`: each site in short, for people. `is_whole`: all files of the
/// configuration are sites.
pub(crate) fn check(sites: &[SiteHealth<'_>], lines: &[String], is_whole: bool) -> Check {
    let mut wrong = vec![];
    for (site, line) in sites.iter().zip(lines) {
        if level(site) != NagiosState::Ok {
            wrong.push((level(site), line));
        }
    }
    wrong.sort_by_key(|(level, _)| std::cmp::Reverse(*level)); // it keeps the order of sites
    let of_sites = wrong.first().map_or(NagiosState::Ok, |(level, _)| *level);
    let level = if is_whole {
        of_sites
    } else {
        of_sites.max(NagiosState::Unknown)
    };

    let mut text = if wrong.is_empty() {
        plural(sites.len(), "site")
    } else {
        let named = wrong.iter().take(NAMED);
        let named: Vec<_> = named.map(|(_, line)| plain(line)).collect();
        let more = and_more(wrong.len().saturating_sub(NAMED));
        let verb = if wrong.len() == 1 { "is" } else { "are" };
        let (count, all) = (wrong.len(), plural(sites.len(), "site"));
        format!(
            "{count} of {all} {verb} not right: {}{more}",
            named.join("; ")
        )
    };
    if !is_whole {
        text += "; a file of the configuration is not a site, `mountjail status` names it";
    }
    Check::new(level, format_args!("{text} | {}", performance(sites)))
}

/// Nothing could be looked at.
pub(crate) fn unknown(error: &Error) -> Check {
    let text = match error.hint_text() {
        Some(hint) => format!("{error}; try: {hint}"),
        None => error.to_string(),
    };
    Check::new(NagiosState::Unknown, plain(&text))
}

fn level(site: &SiteHealth<'_>) -> NagiosState {
    match site.state {
        _ if site.is_right => NagiosState::Ok,
        None => NagiosState::Unknown,
        Some(SiteState::Down) => NagiosState::Critical,
        Some(SiteState::Up | SiteState::Drifted) => NagiosState::Warning,
    }
}

/// One line without colours, and without the bar that begins performance data.
fn plain(text: &str) -> String {
    let text = strip_str(text).to_string();
    let text = text.trim_end().replace('\n', "; ").replace('|', "\\x7c");
    brief(&text, LONGEST).into_owned()
}

/// `'label'=value;warning;critical;minimum;maximum`, for graphs.
fn performance(sites: &[SiteHealth<'_>]) -> String {
    let count = |wanted| sites.iter().filter(|site| level(site) == wanted).count();
    let (mut ok, mut mounts, mut outdated) = (0, 0, 0);
    for site in sites {
        if let Some(plan) = site.plan {
            let (of_site, all) = overview::counts(plan);
            ok += of_site;
            mounts += all;
        }
        outdated += site.outdated;
    }
    let all = sites.len();
    let mut text = String::new();
    let _ = write!(
        text,
        "right={};;;0;{all} drifted={};0;;0;{all} down={};;0;0;{all} unknown={};;;0;{all} \
         mounts_ok={ok};;;0;{mounts} outdated_processes={outdated};;;0",
        count(NagiosState::Ok),
        count(NagiosState::Warning),
        count(NagiosState::Critical),
        count(NagiosState::Unknown),
    );
    text
}

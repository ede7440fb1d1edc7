//! Sites in short: a line per site.

use std::fmt::Write;

use crate::base::quote::{brief, printable};
use crate::base::style;
use crate::base::text::plural;
use crate::observe::Inside;
use crate::plan::{MountState, Plan, SiteState, State};

/// The longest reason, whatever paths and targets of links are in it.
const LONGEST: usize = 300;

/// The site's state and, if it is not up, why. `place`: the service in whose mount namespace it is.
/// `more`: other reasons.
pub(crate) fn site(plan: &Plan, place: Option<&str>, inside: &Inside, more: &[String]) -> String {
    let state = plan.site_state();
    let (ok, total) = counts(plan);
    let mut words = format!(", {ok} of {total} mounts ok");
    if state != SiteState::Down {
        words += &others(plan);
    }
    let _ = write!(words, " in {}", plan.root);
    if let Some(place) = place {
        let _ = write!(words, ", for {place}");
    }
    if let Some(reason) = reason(plan, more) {
        let _ = write!(words, "; {}", brief(&reason, LONGEST));
    }
    let processes: usize = inside.outdated.iter().map(|old| old.processes.len()).sum();
    if processes > 0 {
        let _ = write!(
            words,
            "; old files are used by {}",
            plural(processes, "process")
        );
    }
    format!("{}{}\n", head(plan), printable(&words))
}

/// The beginning of a site's line: its name and state.
pub(super) fn head(plan: &Plan) -> String {
    let state = plan.site_state();
    let style = match state {
        SiteState::Up => style::RIGHT,
        SiteState::Down => style::WARNING,
        SiteState::Drifted => style::WRONG,
    };
    format!("{}: {style}{state}{style:#}", plan.site)
}

/// How many of the mounts that it should have are ok, and how many that are.
pub(super) fn counts(plan: &Plan) -> (usize, usize) {
    let (mut ok, mut total) = (0, 0);
    for mount in &plan.states {
        ok += usize::from(mount.state == State::Ok);
        total += usize::from(mount.mount.is_some());
    }
    (ok, total)
}

/// How many mounts are in each other state, such as `, 1 stale, 2 missing`.
fn others(plan: &Plan) -> String {
    let mut found: Vec<(State, usize)> = vec![];
    for MountState { state, .. } in &plan.states {
        match found.iter_mut().find(|(known, _)| known == state) {
            _ if *state == State::Ok => {}
            Some((_, count)) => *count += 1,
            None => found.push((*state, 1)),
        }
    }
    let mut text = String::new();
    for (state, count) in found {
        let _ = write!(text, ", {count} {state}");
    }
    text
}

/// The reason that the states of the mounts do not show: an obstacle, or else one of the other
/// reasons.
fn reason(plan: &Plan, more: &[String]) -> Option<String> {
    let site = format!("{}: ", plan.site);
    if let Some(conflict) = plan.conflicts.first() {
        let text = conflict.to_string();
        return Some(text.strip_prefix(&site).unwrap_or(&text).to_owned());
    }
    if let Some(reason) = more.first() {
        return Some(reason.clone());
    }
    if plan.counted().any(|mount| mount.state != State::Ok) {
        return None; // the states of the mounts are shown
    }
    plan.reasons().into_iter().next()
}

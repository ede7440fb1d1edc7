//! For people.

use std::fmt::Write;

use super::{Answer, site_state};
use crate::manifest::{JailPath, SiteName};
use crate::observe::{Outdated, Process, WatchFailure, WatchState};
use crate::plan::{MountState, Plan, State};
use crate::resolve::{Mount, Reason, ResolvedPreset};

/// The steps, one a line.
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    let count = plan.steps.len();
    let _ = match count {
        0 if plan.conflicts.is_empty() => writeln!(text, "{}: in sync, nothing to do", plan.site),
        1 => writeln!(text, "{}: 1 step in {}", plan.site, plan.root),
        _ => writeln!(text, "{}: {count} steps in {}", plan.site, plan.root),
    };
    for step in &plan.steps {
        let _ = writeln!(text, "  {step}");
    }
    text
}

/// A line for the site and one for each mount.
pub fn status(plan: &Plan) -> String {
    let ok = plan.states.iter().filter(|state| state.state == State::Ok).count();
    let total = plan.states.iter().filter(|state| state.mount.is_some()).count();
    let state = site_state(plan);
    let mut text = format!("{}: {state}, {ok} of {total} mounts ok in {}\n", plan.site, plan.root);
    let width =
        plan.states.iter().map(|state| state.target.to_string().chars().count()).max().unwrap_or(0).min(60);
    for state in &plan.states {
        let _ =
            writeln!(text, "  {:<13} {:<width$}  {}", state.state, state.target.to_string(), about(state));
    }
    text
}

/// A line for processes that still use old files.
pub fn outdated(outdated: &Outdated) -> String {
    let restart = outdated.processes.iter().map(Process::restart).next().unwrap_or_default();
    format!("  note: {outdated}; {restart}\n")
}

/// What is wrong with what a running watcher does; `now` in seconds since 1970.
pub fn watch(watch: &WatchState, now: u64) -> String {
    let blind = watch.blind.iter().map(|why| format!("watch: {why}\n"));
    let failures = watch.failures.iter().map(|(site, failure)| watch_failure(site, failure, now));
    blind.chain(failures).collect()
}

/// Why the watcher could not bring a site right.
fn watch_failure(site: &SiteName, failure: &WatchFailure, now: u64) -> String {
    let tried = if failure.attempts == 1 { "once".to_owned() } else { format!("{} times", failure.attempts) };
    let next = match failure.next_try {
        Some(next) => format!("again in {} s", next.saturating_sub(now)),
        None => "again at the next change".to_owned(),
    };
    let since = now.saturating_sub(failure.since);
    let error = failure.error.trim_end().replace('\n', "\n  ");
    format!("{site}: watch failed for {since} s, tried {tried}, {next}:\n  {error}\n")
}

fn about(state: &MountState) -> String {
    let from = match &state.source {
        Some(source) if source.as_path() == state.target.as_path() => String::new(),
        Some(source) => format!("from {source}"),
        None => String::new(),
    };
    let options = state.mount.as_ref().map(|mount| shown_options(mount)).unwrap_or_default();
    let detail = state.detail.as_ref().map(|detail| format!("({detail})")).unwrap_or_default();
    [options, from, detail].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn shown_options(mount: &Mount) -> String {
    format!("{}{}", mount.options, if mount.recursive { ",recursive" } else { "" })
}

/// What a preset brings.
pub fn preset(resolved: &ResolvedPreset) -> String {
    let mut text = String::new();
    let width = resolved.mounts.iter().map(|mount| mount.target.to_string().len()).max().unwrap_or(0).min(60);
    for mount in &resolved.mounts {
        let target = mount.target.to_string();
        let from = if mount.source.as_path() == mount.target.as_path() {
            String::new()
        } else {
            format!("  from {}", mount.source)
        };
        let _ = writeln!(text, "{target:<width$}  {}{from}", shown_options(mount));
    }
    for link in &resolved.links {
        let _ = writeln!(text, "{} -> {}", link.path, link.text.display());
    }
    for note in &resolved.notes {
        let _ = writeln!(text, "# {}", note.text);
    }
    text
}

/// Why a path is in the jail.
pub fn why(path: &JailPath, answer: &Answer<'_>) -> String {
    let mut text = String::new();
    if let Some(link) = answer.link {
        let _ = writeln!(text, "{path} goes through the link {} -> {}", link.path, link.text.display());
        if answer.mount.is_none() {
            reasons(&mut text, &link.reasons);
        }
    }
    if let Some(mount) = answer.mount {
        let _ = writeln!(
            text,
            "{} is {}mounted from {} ({})",
            answer.leads_to,
            if mount.target == answer.leads_to { "" } else { "in a directory that is " },
            mount.source,
            shown_options(mount)
        );
        reasons(&mut text, &mount.reasons);
    }
    text
}

fn reasons(text: &mut String, reasons: &[Reason]) {
    for reason in reasons {
        let _ = writeln!(text, "  {}", reason.origin);
        for cause in &reason.chain {
            let _ = writeln!(text, "    {cause}");
        }
    }
}

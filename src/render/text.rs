//! Text for people.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use anstyle::Style;

use super::overview;
use crate::base::quote::{brief, printable};
use crate::base::style;
use crate::base::text::{few, plural};
use crate::base::{JailPath, SiteName};
use crate::manifest::Origin;
use crate::observe::{Inside, Process, WatchFailure, WatchState};
use crate::plan::{GraftChange, MountState, Plan, SiteState, State, Step};
use crate::resolve::{Below, Cause, Desired, Explanation, Mount, Reason, ResolvedPreset};

/// How many paths of one line are named.
const SHOWN: usize = 5;

/// The widest column of paths.
const WIDEST: usize = 60;

/// The longest reason, whatever paths and targets of links are in it.
const LONGEST: usize = 1000;

/// Adds one line to `text`, with control characters escaped, whatever a site's owner put into it.
pub(crate) fn line(text: &mut String, line: fmt::Arguments<'_>) {
    text.push_str(&printable(&line.to_string()));
    text.push('\n');
}

/// Adds a row: a word in a column of that width, and the rest.
pub(crate) fn row(
    text: &mut String,
    (word, style): (&str, Style),
    width: usize,
    rest: fmt::Arguments<'_>,
) {
    let padding = width.saturating_sub(word.len()) + 1;
    let _ = write!(text, "  {style}{word}{style:#}{:padding$}", "");
    line(text, rest);
}

/// The width of a column of paths, without those that are very long.
fn width_of<'p>(paths: impl Iterator<Item = &'p JailPath>) -> usize {
    let widths = paths.map(|path| path.to_string().chars().count());
    widths.max().unwrap_or(0).min(WIDEST)
}

/// How a mount's state looks.
fn style_of(state: State) -> Style {
    match state {
        State::Ok => style::RIGHT,
        State::Foreign | State::Orphan | State::Hidden | State::Absent => style::WARNING,
        _ => style::WRONG,
    }
}

/// The steps, one per line. `place`: where they are taken, in words, if not where all is.
pub(crate) fn plan(plan: &Plan, place: Option<&str>) -> String {
    let mut text = String::new();
    let Plan { site, root, .. } = plan;
    let place = place.map(|place| format!(", {place}"));
    let place = place.unwrap_or_default();
    match plan.steps.len() {
        0 if plan.conflicts.is_empty() => {
            line(
                &mut text,
                format_args!("{site}: in sync, nothing to do{place}"),
            );
        }
        1 => line(&mut text, format_args!("{site}: 1 step in {root}{place}")),
        count => line(
            &mut text,
            format_args!("{site}: {count} steps in {root}{place}"),
        ),
    }
    for step in &plan.steps {
        let (words, style) = (step.to_string(), style_of_step(step));
        let (verb, rest) = words.split_once(' ').unwrap_or((&words, ""));
        row(&mut text, (verb, style), 0, format_args!("{rest}"));
        for change in step.change().into_iter().flat_map(GraftChange::lines) {
            line(&mut text, format_args!("    {change}"));
        }
    }
    text
}

/// How a step looks: what is added, changed and taken away.
fn style_of_step(step: &Step) -> Style {
    match step {
        Step::WriteFile(_)
        | Step::CreatePlaceholder { .. }
        | Step::CreateDirectory { .. }
        | Step::CreateLink { .. }
        | Step::Attach { .. } => style::RIGHT,
        Step::Refresh { .. } | Step::Swap { .. } => style::WARNING,
        Step::Detach { .. }
        | Step::DetachStray(_)
        | Step::DetachCovered { .. }
        | Step::RemovePlaceholder { .. }
        | Step::RemoveLink { .. }
        | Step::RemoveFile(_) => style::WRONG,
    }
}

/// The result of `check` for a site that is right.
pub(crate) fn checked(desired: &Desired) -> String {
    let mut text = String::new();
    let mounts = plural(desired.mounts.len(), "mount");
    let links = plural(desired.links.len(), "link");
    let (site, root, style) = (&desired.site, &desired.root, style::RIGHT);
    let _ = write!(text, "{site}: {style}ok{style:#}");
    line(&mut text, format_args!(", {mounts} and {links} in {root}"));
    text
}

/// How much is shown of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusDetail {
    /// Every mount.
    Mounts,
    /// A line.
    Sites,
    /// Nothing of a site that is up; of one that is drifted, the mounts that are not ok.
    Wrong,
}

impl StatusDetail {
    fn shows(self, state: State, of: SiteState) -> bool {
        self == Self::Mounts || state != State::Ok && of != SiteState::Down
    }
}

/// A line for the site, a line per mount that is to be shown, and other reasons why it is not up.
/// `place`: the service in whose mount namespace it is.
pub(crate) fn status(plan: &Plan, place: Option<&str>, detail: StatusDetail) -> String {
    let (ok, total) = overview::counts(plan);
    let state = plan.site_state();
    if detail == StatusDetail::Wrong && state == SiteState::Up {
        return String::new();
    }
    let mut text = overview::head(plan);
    let (root, place) = (&plan.root, place.map(|place| format!(", for {place}")));
    let place = place.unwrap_or_default();
    line(
        &mut text,
        format_args!(", {ok} of {total} mounts ok in {root}{place}"),
    );
    let shown: Vec<_> = plan
        .states
        .iter()
        .filter(|mount| detail.shows(mount.state, state))
        .collect();
    let width = width_of(shown.iter().map(|state| &state.target));
    for state in shown {
        let target = state.target.to_string();
        let (word, style) = (state.state.to_string(), style_of(state.state));
        let rest = format_args!("{target:<width$}  {}", about(state));
        row(&mut text, (&word, style), 13, rest);
    }
    for reason in plan.reasons() {
        line(
            &mut text,
            format_args!("  because: {}", brief(&reason, LONGEST)),
        );
    }
    text
}

/// A line per group of processes that still use old files.
pub(crate) fn outdated(inside: &Inside) -> String {
    let mut text = String::new();
    for outdated in &inside.outdated {
        let restart = outdated
            .processes
            .first()
            .map(Process::restart)
            .unwrap_or_default();
        line(
            &mut text,
            format_args!(
                "  note: {}; {restart}",
                brief(&outdated.to_string(), LONGEST)
            ),
        );
    }
    if inside.not_looked_at > 0 {
        let count = inside.not_looked_at;
        line(
            &mut text,
            format_args!("  note: {count} more processes are inside; they were not looked at"),
        );
    }
    text
}

/// The failures of a running watcher; `now` in seconds since 1970.
pub(crate) fn watch(watch: &WatchState, now: u64) -> String {
    let mut text = String::new();
    if let Some(why) = &watch.blind {
        let _ = writeln!(text, "watch: {}", brief(why, LONGEST));
    }
    for (site, failure) in &watch.failures {
        text += &watch_failure(site, failure, now);
    }
    text
}

/// Why the watcher could not bring a site right.
fn watch_failure(site: &SiteName, failure: &WatchFailure, now: u64) -> String {
    let tried = if failure.attempts == 1 {
        "once".to_owned()
    } else {
        format!("{} times", failure.attempts)
    };
    let next = match failure.next_try {
        Some(next) => format!("again in {} s", next.saturating_sub(now)),
        None => "again at the next change".to_owned(),
    };
    let since = now.saturating_sub(failure.since);
    let mut text = format!("{site}: watch failed for {since} s, tried {tried}, {next}:\n");
    for error in failure.error.lines() {
        line(&mut text, format_args!("  {}", brief(error, LONGEST)));
    }
    text
}

fn about(state: &MountState) -> String {
    let from = match &state.source {
        Some(source) if source.as_path() == state.target.as_path() => String::new(),
        Some(source) => format!("from {source}"),
        None => String::new(),
    };
    let attributes = match &state.mount {
        Some(mount) => shown_attributes(mount),
        None => String::new(),
    };
    let detail = match &state.detail {
        Some(detail) => format!("({})", brief(detail, LONGEST)),
        None => String::new(),
    };
    let mut parts = vec![attributes, from, detail];
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

fn shown_attributes(mount: &Mount) -> String {
    match mount.file_system {
        Some(file_system) => format!("{},{}", file_system.name(), mount.options()),
        None => mount.options(),
    }
}

/// The mounts and notes of a preset.
pub(crate) fn preset(resolved: &ResolvedPreset) -> String {
    let mut text = String::new();
    let width = width_of(resolved.mounts.iter().map(|mount| &mount.target));
    for mount in &resolved.mounts {
        let target = mount.target.to_string();
        let from = if mount.source.as_path() == mount.target.as_path() {
            String::new()
        } else {
            format!("  from {}", mount.source)
        };
        line(
            &mut text,
            format_args!("{target:<width$}  {}{from}", shown_attributes(mount)),
        );
    }
    for own in &resolved.directories {
        let target = own.path.to_string();
        line(
            &mut text,
            format_args!("{target:<width$}  directory ({})", own.owner),
        );
    }
    for link in &resolved.links {
        line(
            &mut text,
            format_args!("{} -> {}", link.path, link.destination.display()),
        );
    }
    // Several paths can wait for the same directory.
    let mut notes: Vec<_> = resolved.notes.iter().map(|note| &note.text).collect();
    notes.dedup();
    for note in notes {
        line(&mut text, format_args!("# {note}"));
    }
    text
}

/// Why a path is in the jail.
pub(crate) fn why(path: &JailPath, answer: &Explanation<'_>) -> String {
    let mut text = String::new();
    if let Some(link) = answer.link {
        line(
            &mut text,
            format_args!(
                "{path} goes through the link {} -> {}",
                link.path,
                link.destination.display()
            ),
        );
        if answer.mount.is_none() && answer.directory.is_none() {
            reasons(&mut text, &link.reasons);
        }
    }
    if let Some(mount) = answer.mount {
        let how = if mount.target == answer.leads_to {
            ""
        } else {
            "in a directory that is "
        };
        let (leads_to, attributes) = (&answer.leads_to, shown_attributes(mount));
        let from = match mount.file_system {
            Some(_) => String::new(),
            None => format!(" from {}", mount.source),
        };
        line(
            &mut text,
            format_args!("{leads_to} is {how}mounted{from} ({attributes})"),
        );
        reasons(&mut text, &mount.reasons);
    }
    if let Some(own) = answer.directory {
        line(
            &mut text,
            format_args!(
                "{} is a directory of the site's own ({})",
                own.path, own.owner
            ),
        );
        reasons(&mut text, &own.reasons);
    }
    text
}

/// A line after those of [`why`]: `path` leads to `end`, and nothing is there.
pub(crate) fn nothing_at(path: &JailPath, end: &JailPath) -> String {
    let mut text = String::new();
    if path == end {
        line(
            &mut text,
            format_args!("  but nothing is there: the host has no such file"),
        );
    } else {
        line(
            &mut text,
            format_args!(
                "  but it is a link that leads to {end}, and nothing is there in the jail"
            ),
        );
    }
    text
}

/// A line for the directory, and a line per line of a manifest that puts something in it.
pub(crate) fn below(path: &JailPath, lines: &[Below<'_>]) -> String {
    let mut text = String::new();
    let all: BTreeSet<_> = lines.iter().flat_map(|below| &below.paths).collect();
    line(
        &mut text,
        format_args!(
            "{path} is a directory made for what is in it, {} of {}:",
            plural(all.len(), "path"),
            plural(lines.len(), "line")
        ),
    );
    for below in lines {
        let (shown, origin) = (few(&below.paths, SHOWN), below.origin);
        line(&mut text, format_args!("  {origin}: {shown}"));
    }
    text
}

/// The lines of manifests and presets, and below each the ways from it to the path. A library can
/// be needed by hundreds of files of one line.
fn reasons(text: &mut String, reasons: &[Reason]) {
    for (origin, chains) in by_origin(reasons) {
        line(text, format_args!("  {origin}"));
        for cause in chains.iter().take(SHOWN).copied().flatten() {
            line(text, format_args!("    {cause}"));
        }
        let more = chains.len().saturating_sub(SHOWN);
        if more > 0 {
            line(
                text,
                format_args!("    and {}, see --json", plural(more, "other reason")),
            );
        }
    }
}

/// The chains of each line, in the order in which the lines come first.
fn by_origin(reasons: &[Reason]) -> Vec<(&Origin, Vec<&[Cause]>)> {
    let mut grouped: Vec<(&Origin, Vec<&[Cause]>)> = vec![];
    for reason in reasons {
        match grouped
            .iter_mut()
            .find(|(origin, _)| *origin == &*reason.origin)
        {
            Some((_, chains)) => chains.push(&reason.chain),
            None => grouped.push((&reason.origin, vec![&reason.chain])),
        }
    }
    grouped
}

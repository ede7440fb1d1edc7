//! Processes that were in a site's root before its mounts changed: they are named, or their
//! services are restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::report::Report;
use crate::base::HostPath;
use crate::base::text::and_more;
use crate::observe::{self, Process};
use crate::resolve::Mount;
use crate::site::context::Context;
use crate::site::out::worst;
use crate::site::up::Done;
use crate::site::{Site, systemctl};
use crate::{patience, sys};

/// Reports the processes in the roots of sites whose mounts changed, or restarts the services of
/// these sites. `adopts`: the caller names what runs inside.
pub(super) fn tell_processes(
    report: &mut Report,
    context: &Context,
    changed: &[(&Site, Done)],
    restarts: bool,
    adopts: bool,
) {
    let blind = report_blind_processes(context, changed);
    if restarts {
        report.code(restart(context, changed, &blind));
    } else if !adopts {
        report_running(report, context, changed, &blind);
    }
}

/// Reports processes inside a root whose mount namespace did not receive the mounts; returns their
/// units.
fn report_blind_processes(context: &Context, up: &[(&Site, Done)]) -> BTreeSet<String> {
    let mut units = BTreeSet::new();
    if up.is_empty() {
        return units;
    }
    let mut roots: Vec<(HostPath, Vec<Arc<Mount>>)> = vec![];
    for (_, done) in up {
        roots.push((done.desired.root.clone(), done.desired.mounts.clone()));
    }
    let look = |roots: &Vec<(HostPath, Vec<Arc<Mount>>)>| {
        let roots = roots.iter().map(|(root, mounts)| (root, mounts.as_slice()));
        observe::without_mounts(&roots.collect::<Vec<_>>())
    };
    // Their files may be on a file system that does not answer.
    let mut answers = patience::each_within(vec![roots], context.limit, look);
    for (nth, process) in answers.pop().flatten().unwrap_or_default() {
        let (site, _) = up[nth];
        context.out.site(&site.name).warn(format_args!(
            "{process} is inside the root and does not see the mounts, because its own mount \
             namespace does not receive them; {}",
            process.restart()
        ));
        units.extend(process.unit);
    }
    units
}

/// Names what ran inside before there were all the mounts: PHP, the C library and others remember
/// what they looked up in vain. Units that are `blind` to the mounts were named already.
fn report_running(
    report: &mut Report,
    context: &Context,
    up: &[(&Site, Done)],
    blind: &BTreeSet<String>,
) {
    let is_new = |(_, done): &&(&Site, Done)| done.changes.outcome.attached > 0;
    let up: Vec<_> = up.iter().filter(is_new).collect();
    if up.is_empty() || context.out.is_quiet() && !report.is_json() {
        return;
    }
    let root = |(_, done): &&(&Site, Done)| done.desired.root.as_path().to_owned();
    let roots: Vec<_> = up.iter().map(root).collect();
    let look = |roots: &Vec<PathBuf>| {
        let known = |root: &PathBuf| sys::file_known_at(root);
        let roots: Vec<_> = roots.iter().map(known).collect::<Result<_, _>>().ok()?;
        Some(observe::inside_each(&roots))
    };
    let mut answers = patience::each_within(vec![roots], context.limit, look);
    let mut groups: BTreeMap<(usize, Option<String>), Vec<Process>> = BTreeMap::new();
    for (nth, process) in answers.pop().flatten().flatten().unwrap_or_default() {
        let unit = process.unit.clone();
        if unit.as_ref().is_none_or(|unit| !blind.contains(unit)) {
            groups.entry((nth, unit)).or_default().push(process);
        }
    }
    for ((nth, _), processes) in groups {
        let (site, _) = up[nth];
        let Some(first) = processes.first() else {
            continue;
        };
        let more = and_more(processes.len() - 1);
        context.out.site(&site.name).info(format_args!(
            "note: {first}{more} ran inside before, and may remember what was missing; {}",
            first.reload()
        ));
        let pids: Vec<_> = processes.iter().map(|process| process.pid).collect();
        let group = json!({
            "name": first.name, "unit": first.unit, "pids": pids, "hint": first.reload(),
        });
        report.add_to(&site.name, "ran_inside", group);
    }
}

/// Reloads the running services of the sites that are `up`. Services that cannot reload, and those
/// that are `blind` to the mounts, are restarted. Returns the exit code.
fn restart(context: &Context, up: &[(&Site, Done)], blind: &BTreeSet<String>) -> u8 {
    let services: BTreeSet<_> = up.iter().flat_map(|(_, done)| &done.services).collect();
    let mut codes = vec![];
    for service in services {
        let verb = if blind.contains(service) {
            "try-restart"
        } else {
            "try-reload-or-restart"
        };
        codes.push(match systemctl::systemctl(&[verb, service]) {
            Ok(()) => {
                context.out.info(format_args!("{verb} {service}"));
                0
            }
            Err(error) => {
                context.out.error(&error.context(format_args!(
                    "the mounts are up, but {service} was not reloaded"
                )));
                1
            }
        });
    }
    worst(codes)
}

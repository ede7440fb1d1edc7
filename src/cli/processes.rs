//! Processes that were in a site's root before its mounts changed: they are named, or their
//! services are restarted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::report::Report;
use crate::base::text::and_more;
use crate::observe::Process;
use crate::site::context::Context;
use crate::site::up::Done;
use crate::site::{Site, insiders};

/// What is done about processes that were inside before the mounts changed.
#[derive(Clone, Copy)]
pub(super) enum ProcessCare {
    /// The services of the site are reloaded or restarted.
    Restart,
    Name,
    /// The caller names what runs inside.
    LeaveToCaller,
}

/// Takes `care` of the processes in the roots of sites whose mounts changed. Those that do not see
/// the mounts are always reported.
pub(super) fn tell_processes(
    report: &mut Report,
    context: &Context,
    changed: &[(&Site, Done)],
    care: ProcessCare,
) {
    let blind = report_blind_processes(context, changed);
    match care {
        ProcessCare::Restart => restart(report, context, changed, &blind),
        ProcessCare::Name => report_running(report, context, changed, &blind),
        ProcessCare::LeaveToCaller => {}
    }
}

/// Reports processes inside a root whose mount namespace did not receive the mounts; returns their
/// units.
fn report_blind_processes(context: &Context, up: &[(&Site, Done)]) -> BTreeSet<String> {
    let mut units = BTreeSet::new();
    let sites: Vec<_> = up.iter().map(|(_, done)| &done.desired).collect();
    for (nth, process) in insiders::without_mounts(context, &sites) {
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
    let (mut sites, mut roots) = (vec![], vec![]);
    for (site, done) in up {
        if done.changes.outcome.attached > 0 {
            sites.push(*site);
            roots.push(done.desired.root.as_path().to_owned());
        }
    }
    if sites.is_empty() || context.out.is_quiet() && !report.is_json() {
        return;
    }
    let mut groups: BTreeMap<(usize, Option<String>), Vec<Process>> = BTreeMap::new();
    for (nth, process) in insiders::inside_each(context, roots) {
        if let Some(unit) = &process.unit
            && blind.contains(unit)
        {
            continue;
        }
        let group = groups.entry((nth, process.unit.clone())).or_default();
        group.push(process);
    }
    for ((nth, _), processes) in groups {
        let site = sites[nth];
        if let Some(first) = processes.first() {
            add_group(report, context, site, first, &processes);
        }
    }
}

/// Names processes of one unit inside a site, of which `first` is the first.
fn add_group(
    report: &mut Report,
    context: &Context,
    site: &Site,
    first: &Process,
    processes: &[Process],
) {
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

/// Reloads the running services of the sites that are `up`. Services that cannot reload, and those
/// that are `blind` to the mounts, are restarted.
fn restart(report: &mut Report, context: &Context, up: &[(&Site, Done)], blind: &BTreeSet<String>) {
    let mut services = BTreeSet::new();
    for (_, done) in up {
        services.extend(&done.services);
    }
    for service in services {
        let renewed = if blind.contains(service) {
            insiders::restart(service)
        } else {
            insiders::reload(service)
        };
        match renewed {
            Ok(verb) => context.out.info(format_args!("{verb} {service}")),
            Err(error) => report.error(&error.context(format_args!(
                "the mounts are up, but {service} was not reloaded"
            ))),
        }
    }
}

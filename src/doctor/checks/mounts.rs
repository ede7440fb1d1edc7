//! The mounts themselves, and the processes that do not see them.

use crate::base::text::few;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::observe::{self, Process, ProcessesIn};
use crate::plan::State;

/// How many mounts are named.
const SHOWN: usize = 5;

/// The clock of processes has ticks of 10 ms; this is how far it may be off, in ms.
const CLOCK_ERROR: u64 = 20;

pub(super) fn mounts(exam: &Exam<'_>) -> CheckOutcome {
    let plan = exam.site.plan;
    let mut desired = 0;
    let (mut bad, mut absent) = (vec![], vec![]);
    for target in &plan.states {
        desired += usize::from(target.mount.is_some());
        let is_bad = match target.state {
            State::Ok => false,
            State::Absent => {
                absent.push(target.target.to_string());
                false
            }
            // Foreign mounts elsewhere in the root are not the site's concern.
            State::Foreign => target.mount.is_some(),
            _ => true,
        };
        if is_bad {
            bad.push(format!("{} is {}", target.target, target.state));
        }
    }

    let mut problems = vec![];
    if !absent.is_empty() {
        let text = format!("{}: what the manifest names is gone", few(&absent, SHOWN));
        let site = &exam.site.desired.site;
        let remedy = format!("start what makes it, such as its daemon; then `mountjail up {site}`");
        problems.push(Problem::new(text, Remedy::act(remedy)));
    }
    if !bad.is_empty() {
        problems.push(Problem::new(few(&bad, SHOWN), exam.up()));
    } else if !plan.in_sync() && absent.is_empty() {
        let text = "the site is not as the manifest says";
        problems.push(Problem::new(text, exam.up()));
    }
    for conflict in &plan.conflicts {
        let remedy = conflict.hint_text().unwrap_or("see `mountjail plan`");
        problems.push(Problem::new(conflict.to_string(), Remedy::act(remedy)));
    }
    CheckOutcome::judge(problems, format!("{desired} as they should be"))
}

/// Three kinds of processes inside are reported: those in another mount namespace that does not
/// receive the mounts; those that were inside before the site came up, because the C library
/// remembers which files it did not find; those that use files which have been replaced.
pub(super) fn processes(exam: &Exam<'_>) -> CheckOutcome {
    let desired = exam.site.desired;
    if exam.inside.is_empty() {
        return CheckOutcome::not_needed("no process is inside");
    }

    let blind = observe::without_mounts(&[(&desired.root, &desired.mounts)]);
    let is_blind = |process: &Process| blind.iter().any(|(_, other)| other.pid == process.pid);

    let mut problems = vec![];
    for process in &exam.inside {
        let text = if is_blind(process) {
            format!("{process} has a mount namespace that does not receive the mounts")
        } else if was_there_before(process, exam.site.since) {
            format!("{process} was inside before the site came up, and remembers files as missing")
        } else {
            continue;
        };
        problems.push(Problem::new(text, Remedy::act(process.restart())));
    }
    for root in observe::outdated(&[&desired.root], exam.site.table, ProcessesIn::All) {
        for outdated in &root.outdated {
            let restart = outdated.processes.first().map(Process::restart);
            let remedy = Remedy::act(restart.unwrap_or_default());
            problems.push(Problem::new(outdated.to_string(), remedy));
        }
    }

    let count = exam.inside.len();
    CheckOutcome::judge(
        problems,
        format!("{count} inside, all of which see the mounts"),
    )
}

fn was_there_before(process: &Process, since: Option<u64>) -> bool {
    match (process.started(), since) {
        (Some(started), Some(since)) => started + CLOCK_ERROR < since,
        _ => false,
    }
}

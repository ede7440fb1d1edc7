//! The mounts themselves, and the processes that do not see them.

use super::Exam;
use crate::base::text::few;
use crate::doctor::finding::{Outcome, Problem, Remedy};
use crate::observe::{self, Process};
use crate::plan::State;

/// How many are named.
const SHOWN: usize = 5;

pub(super) fn mounts(exam: &Exam<'_>) -> Outcome {
    let states = exam
        .patient
        .plan
        .states
        .iter()
        .filter(|state| state.mount.is_some());
    let bad = exam
        .patient
        .plan
        .states
        .iter()
        .filter(|state| match state.state {
            State::Ok => false,
            State::Foreign => state.mount.is_some(),
            _ => true,
        });
    let bad: Vec<_> = bad
        .map(|state| format!("{} is {}", state.target, state.state))
        .collect();
    let mut problems = vec![];
    if !bad.is_empty() || !exam.patient.plan.in_sync() {
        let text = if bad.is_empty() {
            "not all is as the manifest says".to_owned()
        } else {
            few(&bad, SHOWN)
        };
        problems.push(Problem::new(text, exam.up()));
    }
    for conflict in &exam.patient.plan.conflicts {
        let what = conflict.hint_text().unwrap_or("see `mountjail plan`");
        problems.push(Problem::new(conflict.to_string(), Remedy::act(what)));
    }
    Outcome::of(problems, format!("{} as they should be", states.count()))
}

/// Those in another mount namespace that does not receive the mounts; those that were inside before
/// the site first came up, because the C library remembers what was not there; those that use files
/// which have been replaced.
pub(super) fn processes(exam: &Exam<'_>) -> Outcome {
    let desired = exam.patient.desired;
    let inside = &exam.inside;
    if inside.is_empty() {
        return Outcome::not_needed("no process is inside");
    }
    let blind: Vec<_> = observe::without_mounts(&[(&desired.root, &desired.mounts)])
        .into_iter()
        .map(|(_, process)| process)
        .collect();
    let mut problems = vec![];
    for process in inside {
        if blind.iter().any(|other| other.pid == process.pid) {
            let text = format!("{process} has a mount namespace that does not receive the mounts");
            problems.push(Problem::new(text, Remedy::act(process.restart())));
        } else if exam
            .patient
            .since
            .is_some_and(|since| is_older(process, since))
        {
            let text = format!(
                "{process} was inside before the site came up, and remembers what it did not find"
            );
            problems.push(Problem::new(text, Remedy::act(process.restart())));
        }
    }
    let old = observe::outdated(&[&desired.root], exam.patient.table);
    for old in old.iter().flat_map(|inside| &inside.outdated) {
        let restart = old
            .processes
            .iter()
            .map(Process::restart)
            .next()
            .unwrap_or_default();
        problems.push(Problem::new(old.to_string(), Remedy::act(restart)));
    }
    let count = inside.len();
    Outcome::of(
        problems,
        format!("{count} inside, all of which see the mounts"),
    )
}

/// The clock of processes has ticks of 10 ms.
fn is_older(process: &Process, since: u64) -> bool {
    process
        .started()
        .is_some_and(|started| started + 20 < since)
}

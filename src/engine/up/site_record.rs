//! The records of a site as a run leaves them: pure but for the clock.

use crate::engine::setup::Engine;
use crate::observe::{BootRecord, History, Observed, PersistentRecord, RecordedMount, VERSION};
use crate::plan::Plan;

pub(super) fn record_of(
    engine: &Engine,
    plan: &Plan,
    observed: &Observed,
    mounts: Vec<RecordedMount>,
    history: Option<History>,
) -> BootRecord {
    let empty = || BootRecord::nothing(engine.boot.clone(), plan.root.clone());
    let before = observed.record.clone().unwrap_or_else(empty);

    BootRecord {
        version: VERSION,
        directory: observed.directory,
        manifest: plan.manifest.clone(),
        mounts,
        history,
        ..before
    }
}

/// The history of earlier runs.
pub(super) fn history(observed: &Observed) -> Option<History> {
    observed
        .record
        .as_ref()
        .and_then(|record| record.history.clone())
}

/// The persistent record before this run, without the paths that are gone. The identities of the
/// others are refreshed, because a reboot gives them other numbers.
pub(super) fn kept_before(plan: &Plan, observed: &Observed) -> PersistentRecord {
    let mut kept = observed
        .kept
        .clone()
        .unwrap_or_else(|| PersistentRecord::nothing(plan.root.clone()));

    kept.version = VERSION;
    kept.manifest.clone_from(&plan.manifest);

    kept.made.retain(|made| !observed.is_gone(made));
    for made in &mut kept.made {
        let seen = observed.paths.get(&made.path).map(|seen| seen.file);
        made.file = match (made.file, seen) {
            (Some(file), Some(seen)) if file.is(&seen) => Some(seen),
            (file, _) => file,
        };
    }
    kept
}

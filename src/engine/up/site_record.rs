//! The records of a site as a run leaves them: pure but for the clock.

use crate::engine::journal;
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
    BootRecord {
        version: VERSION,
        directory: observed.directory,
        manifest: plan.manifest.clone(),
        mounts,
        history,
        ..journal::known_record(&engine.boot, plan, observed)
    }
}

/// The history of earlier runs.
pub(super) fn history(observed: &Observed) -> Option<History> {
    observed.record.as_ref()?.history.clone()
}

/// The persistent record before this run, without the paths that are gone. The identities of the
/// others are refreshed, because a reboot gives them other numbers.
pub(super) fn kept_before(plan: &Plan, observed: &Observed) -> PersistentRecord {
    let mut kept = journal::known_kept(plan, observed);
    kept.version = VERSION;
    kept.manifest.clone_from(&plan.manifest);

    kept.made.retain(|made| !observed.is_gone(made));
    for made in &mut kept.made {
        if let (Some(file), Some(seen)) = (made.file, observed.paths.get(&made.path))
            && file.is(&seen.file)
        {
            made.file = Some(seen.file);
        }
    }
    kept
}

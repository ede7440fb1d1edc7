//! The sites of a run that need nothing, as examples for others like them.

use std::sync::{Arc, Mutex};

use crate::base::sync::lock;
use crate::observe::{Observed, Settled, SiteRecords};
use crate::plan::Plan;
use crate::resolve::Desired;

/// How many kinds of sites are known at a time. Most farms have few.
const KINDS: usize = 8;

/// Sites that were found to need nothing, one of each kind.
#[derive(Default)]
pub(super) struct SettledSites(Mutex<Vec<Arc<Settled>>>);

impl SettledSites {
    /// Whether none is known yet.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Whether the site needs nothing, because one of these does not, which it is like.
    pub(super) fn have_one_like(&self, desired: &Desired, records: &SiteRecords) -> bool {
        let known = lock(&self.0).clone();
        let mut known = known.iter();
        records.warnings.is_empty() && known.any(|known| known.is_like(desired, records))
    }

    /// Adds the site, if `plan` has nothing to do for it.
    pub(super) fn add(&self, desired: &Desired, observed: &Observed, plan: &Plan) {
        let record = observed.record.as_ref();
        let is_recorded = record.is_some_and(|record| record.mounts == plan.unchanged);
        if !plan.steps.is_empty() || plan.unfinished || !is_recorded {
            return;
        }
        if let Some(settled) = Settled::of(desired, observed) {
            let mut known = lock(&self.0);
            if known.len() == KINDS {
                known.remove(0);
            }
            known.push(Arc::new(settled));
        }
    }
}

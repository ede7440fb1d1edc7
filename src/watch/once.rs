//! One pass over the sites that are up, without watching.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::pass::{self, PassOutcome, PassPolicy, WhenLocked};
use crate::Error;
use crate::site::up::Done;
use crate::site::{Context, Site, SiteError, parallel};

/// The outcome for a site.
pub(crate) enum CheckedOnce {
    /// It is right, apart from sources that could not be looked at.
    Right(Box<Done>, Vec<Error>),
    /// It was down, and was left alone.
    LeftDown,
    Failed(SiteError),
}

/// Brings the sites right that are up, until `stop` is set. Returns what became of those that were
/// begun, in the order of the sites.
///
/// Errors: the pass cannot begin.
pub(crate) fn look_once(
    context: &Context,
    sites: &[Site],
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Vec<CheckedOnce>> {
    if sites.is_empty() {
        return Ok(vec![]);
    }
    let policy = PassPolicy {
        when_locked: WhenLocked::Wait,
        grace_is_over: Arc::new(|_, _| true),
    };
    let ends = pass::begin(context.with_new_host(), sites.to_vec(), stop, policy)?.finish();

    let mut checked = vec![];
    for (site, end) in sites.iter().zip(ends) {
        checked.push(match end {
            Ok((outcome, _)) => checked_once(site, outcome),
            Err(why) => CheckedOnce::Failed(parallel::lost(site, &why)),
        });
    }
    Ok(checked)
}

fn checked_once(site: &Site, outcome: PassOutcome) -> CheckedOnce {
    match outcome {
        PassOutcome::Right(done, retained) => CheckedOnce::Right(done, retained.unseen),
        PassOutcome::Failed(failed) | PassOutcome::Lost(failed) => CheckedOnce::Failed(failed),
        PassOutcome::WithoutManifest => CheckedOnce::Failed(pass::without_manifest(site)),
        PassOutcome::Busy | PassOutcome::Down => CheckedOnce::LeftDown,
    }
}

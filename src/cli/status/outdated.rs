//! The processes of sites that use old files.

use std::sync::Arc;

use crate::base::HostPath;
use crate::observe::{self, Inside, ProcessesIn};
use crate::patience;
use crate::site::pipeline::Pipeline;
use crate::site::status::SiteStatus;

/// Per site, the processes inside that use old files.
pub(super) fn outdated(
    pipeline: Arc<Pipeline>,
    sites: &[SiteStatus],
    which: ProcessesIn,
) -> Vec<Inside> {
    let (mut nths, mut roots) = (vec![], vec![]);
    for (nth, status) in sites.iter().enumerate() {
        if let Some(plan) = &status.plan {
            nths.push(nth);
            roots.push(plan.root.clone());
        }
    }
    let limit = pipeline.context.limit;
    let look = move |roots: &Vec<HostPath>| {
        let table = pipeline.table.as_ref()?;
        let roots: Vec<_> = roots.iter().collect();
        Some(observe::outdated(&roots, table, which))
    };
    // The files of processes may lie on any file system.
    let mut answers = patience::each_within(vec![roots], limit, look);
    let found = answers.pop().flatten().flatten().unwrap_or_default();

    let mut inside = vec![Inside::default(); sites.len()];
    for (nth, found) in nths.into_iter().zip(found) {
        inside[nth] = found;
    }
    inside
}

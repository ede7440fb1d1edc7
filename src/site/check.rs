//! Obstacles that would keep a site from coming up, as far as they can be seen without doing it.

use std::collections::{BTreeMap, BTreeSet};

use nix::unistd::geteuid;

use super::context::Context;
use super::pipeline::Pipeline;
use super::{Site, SiteError};
use crate::base::text::few;
use crate::base::{HostPath, JailPath};
use crate::observe::{self, Table};
use crate::plan::{Plan, Step};
use crate::resolve::{Desired, FileKind, Note, ProgramLines, why};
use crate::{Error, adopt};

/// How many paths a note names.
const SHOWN: usize = 3;

/// The mounts of the site. Errors: obstacles that keep it from coming up, as far as they can be
/// seen without doing it. Only root can be sure to see what is in the root.
pub(crate) fn check(pipeline: &Pipeline, site: &Site) -> Result<Desired, SiteError> {
    let mut desired = pipeline.desired(site)?;
    desired.warnings.extend(observe::users_outside(&desired));
    if let Some(table) = &pipeline.table {
        desired.warnings.extend(observe::left_out(&desired, table));
    }
    match pipeline.observe_and_plan(&desired) {
        Ok((_, plan)) if plan.conflicts.is_empty() => {
            let unwritable = unwritable(&desired, &plan, pipeline.table.as_ref());
            if !unwritable.is_empty() {
                return Err(SiteError::Errors(unwritable));
            }
            let leftovers = adopt::leftovers(&pipeline.context.host, &desired);
            desired.warnings.extend(leftovers);
            desired.notes.extend(bare_programs(pipeline, &desired));
            Ok(desired)
        }
        Ok((_, plan)) => Err(SiteError::Errors(plan.conflicts)),
        Err(_) if !geteuid().is_root() => Ok(desired),
        Err(error) => Err(error.into()),
    }
}

/// Notes about programs that a preset brings with directories of their own, where the site has none
/// of these.
fn bare_programs(pipeline: &Pipeline, desired: &Desired) -> Vec<Note> {
    let Context { host, presets, .. } = &pipeline.context;
    let lines = ProgramLines::new(host, &pipeline.resolver, presets);
    let mut notes = BTreeMap::new();
    for mount in &desired.mounts {
        if mount.kind != FileKind::File || mount.attributes.noexec {
            continue;
        }
        let Some(preset) = lines.preset_of(&mount.source) else {
            continue;
        };
        let brought = lines.mounts_of(&preset);
        let is_brought = |source: &HostPath| {
            JailPath::new(source.as_path()).is_ok_and(|path| why(desired, &path).mount.is_some())
        };
        if brought.is_empty() || brought.iter().any(is_brought) {
            continue;
        }
        let text = format!(
            "{} comes without {}, which `presets: [{preset}]` brings",
            mount.source,
            few(&brought, SHOWN)
        );
        let origin = mount.reasons.iter().map(|reason| &reason.origin).min();
        if let Some(origin) = origin {
            let note = Note {
                origin: origin.clone(),
                text,
                always: false,
            };
            notes.entry(preset).or_insert(note);
        }
    }
    notes.into_values().collect()
}

/// An error for each directory of the root in which the plan makes or removes something and cannot.
/// Paths in mounts of ours are left out: these may go first.
fn unwritable(desired: &Desired, plan: &Plan, table: Option<&Table>) -> Vec<Error> {
    let ours = plan.states.iter().filter(|state| state.source.is_some());
    let ours: BTreeSet<_> = ours.map(|state| &state.target).collect();
    let is_in_root = |path: &&JailPath| {
        let above = path.directories_above();
        !above.iter().any(|above| ours.contains(above))
    };
    let steps = plan.steps.iter().filter(|step| !step.changes_mounts());
    let paths = steps.filter_map(Step::path).filter(is_in_root);
    let errors = observe::unwritable(&desired.root, paths, table).into_iter();
    errors.map(|error| error.context(&desired.site)).collect()
}

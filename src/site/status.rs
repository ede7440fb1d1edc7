//! One site as `status` shows it, whatever is wrong with it. The records stand in for all that
//! cannot be resolved now.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::SiteError;
use super::context::Context;
use super::pipeline::{self, Pipeline};
use super::records::{self, add_recorded, recorded_besides};
use super::services::{Located, ServicePlace};
use super::{Site, configuration, manifest_file};
use crate::Result;
use crate::base::{ErrorContext, JailPath};
use crate::manifest::{Manifest, Scope};
use crate::observe::{self, SiteRecords, Table};
use crate::plan::{self, Plan, SiteState, State, Step};
use crate::resolve::{Dependencies, Desired, FileKind, Host, Mount, Resolution};

pub(crate) struct SiteStatus {
    pub site: Site,
    /// `None`: nothing is known about the site.
    pub plan: Option<Plan>,
    /// Why not everything could be looked at.
    pub failed: Vec<SiteError>,
    /// The units in whose mount namespaces it belongs; `None`: it belongs where it was looked for.
    pub units: Option<Vec<String>>,
}

/// How much of what the manifest asks for is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolved {
    Wholly,
    InPart,
}

impl SiteStatus {
    /// Of a site that was given up.
    pub(crate) fn lost(site: Site, failed: SiteError) -> Self {
        Self {
            site,
            plan: None,
            failed: vec![failed],
            units: None,
        }
    }

    /// The same, with errors about `place`, where it was looked at.
    pub(crate) fn located(mut self, place: &ServicePlace) -> Self {
        let name = &self.site.name;
        let failed = self.failed.into_iter();
        self.failed = failed.map(|failed| failed.located(name, place)).collect();
        if let Some(plan) = &mut self.plan {
            place.locate_all(name, &mut plan.conflicts);
        }
        self
    }

    /// Of a site that has a manifest, or had one when the sites were listed.
    ///
    /// The table and the records are not read at one moment, and another mountjail may work on the
    /// site in between. So a site that differs is looked at again.
    pub(crate) fn of(pipeline: &Pipeline, site: &Site) -> Self {
        let records = records_at_home(pipeline, site);
        for warning in records.iter().flat_map(|records| &records.warnings) {
            pipeline.context.out.site(&site.name).warn(warning);
        }
        let status = Self::seen(pipeline, pipeline.table.as_ref(), site, records);
        let is_same = |one: &Self, other: &Self| one.plan == other.plan;
        let status = pipeline.look_again(status, Self::may_be_torn, is_same, |table| {
            let records = records_at_home(pipeline, site);
            Some(Self::seen(pipeline, table, site, records))
        });
        status.warn_of_overlaps(&pipeline.context);
        status
    }

    /// Reports other sites whose roots overlap with that of this one, which came up before them.
    fn warn_of_overlaps(&self, context: &Context) {
        let name = &self.site.name;
        if let Some(plan) = &self.plan
            && self.failed.is_empty()
            && !context.state.is_of_namespace()
            && let Ok(warnings) = context.roots().check(name, &plan.root)
        {
            for warning in warnings {
                context.out.site(name).warn(warning);
            }
        }
    }

    /// Whether it is as it would be between the two looks of this one.
    fn may_be_torn(&self) -> bool {
        let Some(plan) = &self.plan else {
            return false;
        };
        let mut states = plan.states.iter();
        states.any(|mount| mount.state == State::Foreign) || plan.site_state() == SiteState::Drifted
    }

    /// Of a site with these `records`, whose mounts are those of `table`.
    fn seen(
        pipeline: &Pipeline,
        table: Option<&Table>,
        site: &Site,
        records: Result<SiteRecords>,
    ) -> Self {
        let mut failed = vec![];
        let records = records.unwrap_or_else(|error| {
            failed.push(SiteError::from(error));
            pipeline.context.state.no_records(&pipeline.boot)
        });

        let manifest = match pipeline.load(site) {
            Ok(manifest) => Some(manifest),
            Err(error) => {
                failed.push(SiteError::Manifest(error));
                None
            }
        };
        let is_here = pipeline.context.state.is_of_namespace();
        let units = match &manifest {
            Some(manifest) if manifest.scope == Scope::Services && !is_here => {
                Some(manifest.services.clone())
            }
            _ => None,
        };
        let (desired, lookups) = match &manifest {
            Some(manifest) => desired(pipeline, manifest, &records, &mut failed),
            None => (None, vec![]),
        };
        let desired = desired.or_else(|| {
            let root = records.root()?;
            Some(Desired::nothing(&site.name, root))
        });
        let plan = desired.and_then(|desired| {
            let look = (pipeline, table);
            Self::plan(look, site, desired, records, &lookups, &mut failed)
        });
        Self {
            site: site.clone(),
            plan,
            failed,
            units,
        }
    }

    /// The plan of a site, with what has `failed` up to here as conflicts. Where not all is known
    /// that the manifest asks for, recorded mounts count as desired.
    fn plan(
        look: (&Pipeline, Option<&Table>),
        site: &Site,
        mut desired: Desired,
        records: SiteRecords,
        lookups: &[Arc<Dependencies>],
        failed: &mut Vec<SiteError>,
    ) -> Option<Plan> {
        let has_no_manifest = !configuration::has_manifest(site);
        let host = &look.0.context.host;
        let (resolved, absent) = if failed.is_empty() || has_no_manifest {
            let absent = named_and_absent(&desired, &records, host, lookups);
            (Resolved::Wholly, absent)
        } else {
            let absent = keep_what_is_recorded(&mut desired, &records, host);
            (Resolved::InPart, absent)
        };

        match plan_status(look, &desired, records, absent, resolved) {
            Ok(mut plan) => {
                let errors = failed.iter().map(|failed| failed.as_error(site));
                plan.conflicts.extend(errors);
                Some(plan)
            }
            Err(error) => {
                failed.push(SiteError::from(error.context(&site.name)));
                None
            }
        }
    }

    /// Of a site that is recorded and has no manifest.
    pub(crate) fn without_manifest(pipeline: &Pipeline, site: Site) -> Self {
        let (plan, failed) = match plan_without_manifest(pipeline, &site) {
            Ok(plan) => (plan, vec![]),
            Err(error) => (None, vec![SiteError::from(error.context(&site.name))]),
        };
        Self {
            site,
            plan,
            failed,
            units: None,
        }
    }

    /// Whether nothing is known about it because there is no such site.
    pub(crate) fn is_of_no_site(&self) -> bool {
        self.plan.is_none() && self.failed.iter().any(SiteError::is_of_no_site)
    }

    /// Whether it was given up because something did not answer.
    pub(crate) fn is_silent(&self) -> bool {
        self.plan.is_none() && self.failed.iter().any(SiteError::is_silent)
    }
}

/// The records, as those of the place where the root is now.
fn records_at_home(pipeline: &Pipeline, site: &Site) -> Result<SiteRecords> {
    let Pipeline { context, boot, .. } = pipeline;
    let records = records::read(context, &site.name, boot);
    let records = records.context(&site.name)?;
    Ok(match records.home(|| manifest_file::root_of(site)) {
        Some(home) => records.moved_to(&home),
        None => records,
    })
}

fn plan_without_manifest(pipeline: &Pipeline, site: &Site) -> Result<Option<Plan>> {
    let name = &site.name;
    let records = records_at_home(pipeline, site)?;
    let Some(root) = records.root() else {
        return Ok(None);
    };
    let nothing = Desired::nothing(name, root);
    let mut plan = plan_status(
        (pipeline, pipeline.table.as_ref()),
        &nothing,
        records,
        BTreeSet::new(),
        Resolved::Wholly,
    )?;
    let gone = configuration::no_manifest(site);
    let hint = format!("`mountjail down {name}` unmounts what is mounted");
    plan.conflicts.push(gone.hint(hint));
    Ok(Some(plan))
}

/// The mounts of the manifest, as far as they can be resolved, and if it names the recorded root.
fn desired(
    pipeline: &Pipeline,
    manifest: &Manifest,
    records: &SiteRecords,
    failed: &mut Vec<SiteError>,
) -> (Option<Desired>, Vec<Arc<Dependencies>>) {
    let roots = pipeline.context.roots();
    let Resolution {
        mut desired,
        mut errors,
        dependencies,
    } = pipeline.resolver.resolve_partly(manifest, roots);
    if let (Some(found), Some(root)) = (&desired, records.root())
        && found.root != *root
    {
        errors.push(records::set_up_elsewhere(root, found, records));
        desired = None;
    }
    if !errors.is_empty()
        && let Some(moved) = pipeline::moved_root(&pipeline.context, manifest)
    {
        errors = vec![moved];
    }
    if !errors.is_empty() {
        failed.push(SiteError::Errors(errors));
    }
    (desired, dependencies)
}

fn plan_status(
    (pipeline, table): (&Pipeline, Option<&Table>),
    desired: &Desired,
    records: SiteRecords,
    absent: BTreeSet<JailPath>,
    resolved: Resolved,
) -> Result<Plan> {
    let mut observed = observe::observe(desired, records, table)?;
    if table.is_none() {
        observe::look_into_grafts(&desired.root, &mut observed)?;
    }
    observed.absent = absent;
    let mut plan = plan::up(desired, &observed, pipeline.sharing.as_ref());
    if pipeline.context.state.is_of_namespace() {
        plan = plan.keeping_placeholders(); // other namespaces may have mounts on them
    }
    if resolved == Resolved::InPart {
        // Some may belong to what could not be resolved.
        plan.steps.retain(|step| !is_removal(step));
    }
    Ok(plan)
}

fn is_removal(step: &Step) -> bool {
    matches!(
        step,
        Step::RemovePlaceholder { .. } | Step::RemoveLink { .. } | Step::RemoveFile(_)
    )
}

/// The targets of recorded mounts whose source is gone, although the manifest still names it, as an
/// optional one.
fn named_and_absent(
    desired: &Desired,
    records: &SiteRecords,
    host: &Host,
    lookups: &[Arc<Dependencies>],
) -> BTreeSet<JailPath> {
    let mut absent = BTreeSet::new();
    for mount in recorded_besides(desired, records) {
        if mount.file_system.is_none()
            && let Err(error) = host.walk(&mount.source)
            && lookups
                .iter()
                .any(|lookups| lookups.has(error.at().as_path()))
        {
            absent.insert(mount.target.clone());
        }
    }
    absent
}

/// Adds to `desired` what else is recorded; returns the targets whose source does not exist.
fn keep_what_is_recorded(
    desired: &mut Desired,
    records: &SiteRecords,
    host: &Host,
) -> BTreeSet<JailPath> {
    let mut absent = BTreeSet::new();
    let mut kept = vec![];
    for mount in recorded_besides(desired, records) {
        let (file, kind) = match host.walk(&mount.source) {
            _ if mount.file_system.is_some() => (None, FileKind::Directory),
            Ok(walk) => (Some(walk.stat.file), walk.stat.kind),
            // It may be as it was.
            Err(error) if error.is_unknown() => (Some(mount.file), FileKind::File),
            Err(_) => {
                absent.insert(mount.target.clone());
                (None, FileKind::File)
            }
        };
        kept.push(Arc::new(Mount {
            target: mount.target.clone(),
            source: mount.source.clone(),
            file_system: mount.file_system,
            file,
            kind,
            attributes: mount.attributes,
            recursive: mount.recursive,
            reasons: vec![],
        }));
    }
    add_recorded(desired, records, kept);
    absent
}

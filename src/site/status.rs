//! One site as `status` shows it, whatever is wrong with it: what cannot be resolved now is taken
//! as it is recorded.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use super::SiteError;
use super::context::Context;
use super::pipeline::{elsewhere, readable};
use super::{Site, configuration, select};
use crate::base::JailPath;
use crate::observe::{self, BootId, CreatedKind, RecordedMount, Records, Table};
use crate::plan::{self, Plan, Step};
use crate::resolve::{Dependencies, Desired, FileKind, Host, Link, LookupError, Mount, Resolver};
use crate::{Error, Result};

/// How a site stands.
pub(crate) struct SiteStatus {
    pub site: Site,
    /// `None`: nothing is known of it.
    pub plan: Option<Plan>,
    /// Why not all could be looked at.
    pub failed: Vec<SiteError>,
}

impl SiteStatus {
    /// A site that was given up.
    pub(crate) fn lost(site: Site, failed: SiteError) -> Self {
        Self {
            site,
            plan: None,
            failed: vec![failed],
        }
    }

    /// Whether it was given up because something did not answer.
    pub(crate) fn is_silent(&self) -> bool {
        self.plan.is_none() && self.failed.iter().any(SiteError::is_silent)
    }
}

/// How `site` stands.
pub(crate) fn site(
    context: &Context,
    resolver: &Resolver,
    site: Site,
    boot: &BootId,
    table: &Table,
) -> SiteStatus {
    let mut failed = vec![];
    let mut note = |error: Error| failed.push(SiteError::from(error.context(&site.name)));
    let records = readable(context, &site.name, boot)
        .map_err(&mut note)
        .unwrap_or_default();
    for warning in &records.warnings {
        context.out.warn(format_args!("{}: {warning}", site.name));
    }
    let records = match records.home(|| configuration::root_of(&site)) {
        Some(home) => records.moved_to(&home),
        None => records,
    };
    let (desired, lookups) = desired(context, resolver, &site, &records, &mut failed);
    let is_gone = fs::symlink_metadata(&site.file).is_err();
    let desired =
        desired.or_else(|| Some(Desired::nothing(site.name.clone(), records.root()?.clone())));
    let plan = desired.map(|mut desired| {
        let whole = failed.is_empty() || is_gone;
        let absent = if whole {
            named_and_absent(&desired, &records, &context.host, &lookups)
        } else {
            keep_what_is_recorded(&mut desired, &records, &context.host)
        };
        planned(&desired, records, table, absent, whole)
    });
    let mut plan = match plan.transpose() {
        Ok(plan) => plan,
        Err(error) => {
            failed.push(SiteError::from(error.context(&site.name)));
            None
        }
    };
    if let Some(plan) = &mut plan {
        plan.conflicts
            .extend(failed.iter().map(|failed| failed.as_error(&site)));
    }
    SiteStatus { site, plan, failed }
}

/// The site of this name, of which there is a record and no manifest.
pub(crate) fn without_manifest(
    site: Site,
    context: &Context,
    boot: &BootId,
    table: &Table,
) -> SiteStatus {
    let look = || -> Result<Option<Plan>> {
        let records = readable(context, &site.name, boot)?;
        let Some(root) = records.root().cloned() else {
            return Ok(None);
        };
        let nothing = Desired::nothing(site.name.clone(), root);
        let mut plan = planned(&nothing, records, table, BTreeSet::new(), true)?;
        let gone = Error::failed(format!(
            "{}: the manifest {} is gone",
            site.name,
            site.file.display()
        ));
        let hint = format!("`mountjail down {}` takes away what is mounted", site.name);
        plan.conflicts.push(gone.hint(hint));
        Ok(Some(plan))
    };
    match look() {
        Ok(plan) => SiteStatus {
            site,
            plan,
            failed: vec![],
        },
        Err(error) => {
            let failed = vec![SiteError::from(error.context(&site.name))];
            SiteStatus {
                site,
                plan: None,
                failed,
            }
        }
    }
}

/// What the manifest asks for, as far as that can be said of the root that is recorded.
fn desired(
    context: &Context,
    resolver: &Resolver,
    site: &Site,
    records: &Records,
    failed: &mut Vec<SiteError>,
) -> (Option<Desired>, Vec<Arc<Dependencies>>) {
    let manifest = match select::load(context, site) {
        Ok(manifest) => manifest,
        Err(unusable) => {
            failed.push(SiteError::Manifest(unusable));
            return (None, vec![]);
        }
    };
    let (mut desired, mut errors, lookups) = resolver.resolve_in_part(&manifest, context.roots());
    if let (Some(found), Some(root)) = (&desired, records.root())
        && found.root != *root
    {
        errors.push(elsewhere(root, found, records));
        desired = None;
    }
    if !errors.is_empty() {
        failed.push(SiteError::Errors(errors));
    }
    (desired, lookups)
}

fn planned(
    desired: &Desired,
    records: Records,
    table: &Table,
    absent: BTreeSet<JailPath>,
    whole: bool,
) -> Result<Plan> {
    let mut observed = observe::observe(desired, records, Some(table))?;
    observed.absent = absent;
    let mut plan = plan::up(desired, &observed);
    if !whole {
        // What is not needed cannot be told from what could not be resolved.
        let is_removal = |step: &Step| {
            matches!(
                step,
                Step::RemovePlaceholder { .. } | Step::RemoveLink { .. } | Step::RemoveFile(_)
            )
        };
        plan.steps.retain(|step| !is_removal(step));
    }
    Ok(plan)
}

/// The recorded mounts that `desired` has not.
fn others<'r>(
    desired: &'r Desired,
    records: &'r Records,
) -> impl Iterator<Item = &'r RecordedMount> {
    let recorded = records
        .record
        .iter()
        .filter(|record| record.root == desired.root);
    let is_desired = |target| {
        desired
            .mounts
            .binary_search_by(|mount| mount.target.cmp(target))
            .is_ok()
    };
    recorded
        .flat_map(|record| &record.mounts)
        .filter(move |mount| !is_desired(&mount.target))
}

/// Where recorded mounts have no source any more that the manifest still names, as an optional one.
fn named_and_absent(
    desired: &Desired,
    records: &Records,
    host: &Host,
    lookups: &[Arc<Dependencies>],
) -> BTreeSet<JailPath> {
    let is_named =
        |error: &LookupError| lookups.iter().any(|known| known.has(error.at().as_path()));
    let absent = others(desired, records).filter(|mount| {
        host.walk(&mount.source)
            .is_err_and(|error| is_named(&error))
    });
    absent.map(|mount| mount.target.clone()).collect()
}

/// Adds to `desired` what is recorded besides; returns where the source is not there.
fn keep_what_is_recorded(
    desired: &mut Desired,
    records: &Records,
    host: &Host,
) -> BTreeSet<JailPath> {
    let mut absent = BTreeSet::new();
    let mut kept = vec![];
    for mount in others(desired, records) {
        let found = host.walk(&mount.source).ok().map(|walk| walk.stat);
        if found.is_none() {
            absent.insert(mount.target.clone());
        }
        kept.push(Arc::new(Mount {
            target: mount.target.clone(),
            source: mount.source.clone(),
            file: found.map(|found| found.file),
            kind: found.map_or(FileKind::File, |found| found.kind),
            options: mount.options,
            recursive: mount.recursive,
            reasons: vec![],
        }));
    }
    desired.mounts.extend(kept);
    desired.mounts.sort_by(|a, b| a.target.cmp(&b.target));
    desired.mounts.dedup_by(|a, b| a.target == b.target);
    for made in records.kept.iter().flat_map(|kept| &kept.made) {
        let known = desired.links.iter().any(|link| link.path == made.path);
        if let (CreatedKind::Link(text), false) = (&made.kind, known) {
            desired.links.push(Link {
                path: made.path.clone(),
                text: text.clone(),
                reasons: vec![],
            });
        }
    }
    absent
}

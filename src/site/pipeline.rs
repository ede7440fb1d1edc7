//! What several commands do with one site: resolve it, look at it, say what failed.

use super::{Context, Out, Site, SiteError, select};
use crate::base::{HostPath, SiteName};
use crate::engine::{Engine, Lock};
use crate::manifest::Manifest;
use crate::observe::{self, BootId, Records, Table};
use crate::plan::{self, Plan};
use crate::resolve::{Desired, Resolver};
use crate::{Error, Result};

/// What the site's manifest asks for on this host.
pub(crate) fn desired(
    context: &Context,
    resolver: &Resolver,
    site: &Site,
) -> Result<Desired, SiteError> {
    let manifest = select::load(context, site).map_err(SiteError::Manifest)?;
    resolved(context, resolver, &manifest)
}

/// What `manifest` asks for on this host.
pub(crate) fn resolved(
    context: &Context,
    resolver: &Resolver,
    manifest: &Manifest,
) -> Result<Desired, SiteError> {
    resolver
        .resolve(manifest, context.roots())
        .map_err(SiteError::Errors)
}

/// What the site needs, and the plan for it by the whole table: what `plan` and `status` show.
pub(crate) fn planned(
    context: &Context,
    resolver: &Resolver,
    site: &Site,
    boot: &BootId,
    table: &Table,
) -> Result<(Desired, Plan), SiteError> {
    let desired = desired(context, resolver, site)?;
    let (_, plan) = observe_and_plan(context, &desired, boot, Some(table))?;
    Ok((desired, plan))
}

/// The site's lock; says so before it waits for another mountjail.
pub(crate) fn lock(context: &Context, engine: &Engine, site: &Site) -> Result<Lock> {
    let waiting = || {
        context.out.info(format_args!(
            "{}: waiting for another mountjail to finish",
            site.name
        ));
    };
    engine
        .lock(&site.name, context.limit, waiting)
        .map_err(|error| error.context(&site.name))
}

/// How the site stands, and what is to be done.
pub(crate) fn observe_and_plan(
    context: &Context,
    desired: &Desired,
    boot: &BootId,
    table: Option<&Table>,
) -> Result<(observe::Observed, Plan)> {
    let named = |error: Error| error.context(&desired.site);
    let records = readable(context, &desired.site, boot).map_err(named)?;
    for warning in &records.warnings {
        context
            .out
            .warn(format_args!("{}: {warning}", desired.site));
    }
    let records = at_its_root(context, desired, records)?;
    let observed = observe::observe(desired, records, table).map_err(named)?;
    let plan = plan::up(desired, &observed);
    if plan.removals() > 0
        && observe::shared_storage(&desired.root)
            .map_err(named)?
            .is_some()
    {
        return Ok((observed, plan.keeping_placeholders()));
    }
    Ok((observed, plan))
}

/// The records as those of the root that the manifest names: it may have been moved there, or the
/// recorded one be gone.
///
/// Errors: the site was set up in another directory, which is there.
fn at_its_root(context: &Context, desired: &Desired, records: Records) -> Result<Records> {
    let Desired { site, root, .. } = desired;
    let kept_at = records.kept.as_ref().map(|kept| &kept.root);
    if records.root().is_none_or(|recorded| recorded == root)
        && kept_at.is_none_or(|kept| kept == root)
    {
        return Ok(records);
    }
    match (records.home(|| Some(root.clone())), records.root()) {
        (Some(home), _) if home == *root => Ok(records.moved_to(root)),
        (None, Some(recorded)) if !records.is_mounted() => {
            context.out.warn(format_args!(
                "{site}: the root {recorded} is not there any more; what mountjail made in it is forgotten"
            ));
            Ok(Records::default())
        }
        (home, _) => Err(elsewhere(
            &home.unwrap_or_else(|| root.clone()),
            desired,
            &records,
        )),
    }
}

/// What is recorded. Who is not root cannot read it, and changes nothing: what he is shown is found
/// by looking.
pub(crate) fn readable(context: &Context, site: &SiteName, boot: &BootId) -> Result<Records> {
    match context.state.read(site, boot) {
        Err(error) if error.errno() == Some(libc::EACCES) && !nix::unistd::geteuid().is_root() => {
            Ok(Records {
                warnings: vec![error.to_string()],
                ..Records::default()
            })
        }
        result => result,
    }
}

/// The site was set up at `home`, and is to be at another root.
pub(crate) fn elsewhere(home: &HostPath, desired: &Desired, records: &Records) -> Error {
    let Desired { site, root, .. } = desired;
    let fstab = records
        .kept
        .as_ref()
        .is_some_and(|kept| kept.fstab.is_some());
    let how = match (&records.record, fstab) {
        (_, true) => format!("`mountjail fstab --uninstall {site}`, then `mountjail down {site}`"),
        (Some(_), false) => format!("`mountjail down {site}`"),
        (None, false) => format!("`mountjail down --remove-placeholders {site}`"),
    };
    Error::failed(format!(
        "{site}: the manifest now says root {root}, but the site was set up at {home}"
    ))
    .hint(format!("take it away there first: {how}"))
}

/// What the user should know of what was resolved. Of presets most of it with `-v` only: their
/// optional lines are many.
pub(crate) fn notes(out: &Out, desired: &Desired) {
    for warning in &desired.warnings {
        out.warn(format_args!("{}: {warning}", desired.site));
    }
    for note in &desired.notes {
        if note.always || note.origin.presets.is_empty() {
            out.info(format_args!(
                "{}: {} ({})",
                desired.site, note.text, note.origin
            ));
        } else {
            out.detail(format_args!(
                "{}: {} ({})",
                desired.site, note.text, note.origin
            ));
        }
    }
}

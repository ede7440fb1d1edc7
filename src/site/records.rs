//! A site's records, against the root that its manifest names.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Context, Site, configuration};
use crate::base::{HostPath, SiteName};
use crate::observe::{self, BootId, CreatedKind, RecordedMount, SiteRecords};
use crate::resolve::{Desired, Link, Mount};
use crate::{Error, Result};

/// The records of the site. Unprivileged callers cannot read the records, and change nothing:
/// they are shown what can be observed.
pub(crate) fn read(context: &Context, site: &SiteName, boot: &BootId) -> Result<SiteRecords> {
    match context.state.read(site, boot) {
        Err(error) if error.errno() == Some(libc::EACCES) && !nix::unistd::geteuid().is_root() => {
            Ok(SiteRecords {
                warnings: vec![error.to_string()],
                ..SiteRecords::default()
            })
        }
        result => result?.with_ids(),
    }
}

/// The site with the manifest that brought it up, if the configuration has none for it: it was
/// brought up by the path of that manifest.
pub(crate) fn with_manifest(context: &Context, site: Site) -> Site {
    if !site.file.starts_with(&context.config) || configuration::has_manifest(&site) {
        return site;
    }
    let Some(file) = recorded_manifest(context, &site.name) else {
        return site;
    };
    let brought_up = Site {
        name: site.name.clone(),
        file,
    };
    if configuration::has_manifest(&brought_up) {
        brought_up
    } else {
        site
    }
}

/// The file of the manifest that brought the site up.
fn recorded_manifest(context: &Context, site: &SiteName) -> Option<PathBuf> {
    let records = read(context, site, &observe::boot_id().ok()?).ok()?;
    Some(records.manifest()?.to_owned())
}

/// The records as those of the root that the manifest names now: the recorded one may have been
/// moved there, or may be gone.
///
/// Errors: the site was set up in another directory, which still exists.
pub(crate) fn at_root(
    context: &Context,
    desired: &Desired,
    records: SiteRecords,
) -> Result<SiteRecords> {
    let Desired { site, root, .. } = desired;
    let is_elsewhere = matches!(records.root(), Some(recorded) if recorded != root);
    let is_kept_elsewhere = matches!(&records.kept, Some(kept) if kept.root != *root);
    if !is_elsewhere && !is_kept_elsewhere {
        return Ok(records);
    }
    match (records.home(|| Some(root.clone())), records.root()) {
        (Some(home), _) if home == *root => Ok(records.moved_to(root)),
        (None, Some(recorded)) if !records.is_mounted() => {
            context.out.site(site).warn(format_args!(
                "the root {recorded} does not exist any more; mountjail forgets what it made there"
            ));
            Ok(SiteRecords::default())
        }
        (home, _) => {
            let home = home.as_ref().unwrap_or(root);
            Err(set_up_elsewhere(home, desired, &records))
        }
    }
}

/// The site was set up at `home`, and its manifest names another root.
pub(crate) fn set_up_elsewhere(home: &HostPath, desired: &Desired, records: &SiteRecords) -> Error {
    let Desired { site, root, .. } = desired;
    let has_fstab_lines = matches!(&records.kept, Some(kept) if kept.fstab.is_some());
    let how = match &records.record {
        _ if has_fstab_lines => {
            format!("`mountjail fstab --uninstall {site}`, then `mountjail down {site}`")
        }
        Some(_) => format!("`mountjail down {site}`"),
        None => format!("`mountjail down --remove-placeholders {site}`"),
    };
    Error::failed(format!(
        "{site}: the manifest now says root {root}, but the site was set up at {home}"
    ))
    .hint(format!("take it down there first: {how}"))
}

/// The recorded mounts of the root of `desired` at targets that `desired` does not have.
pub(crate) fn recorded_besides<'r>(
    desired: &Desired,
    records: &'r SiteRecords,
) -> Vec<&'r RecordedMount> {
    let mut besides = vec![];
    let Some(record) = &records.record else {
        return besides;
    };
    if record.root != desired.root {
        return besides;
    }
    for mount in &record.mounts {
        if mount.template.is_none() {
            besides.push(mount);
        }
    }
    for graft in &records.grafts {
        besides.extend(&*graft.members);
    }
    let desired: HashSet<_> = desired.mounts.iter().map(|mount| &mount.target).collect();
    besides.retain(|mount| !desired.contains(&mount.target));
    besides
}

/// Adds recorded mounts to `desired`, and the recorded links: they may lead to these mounts.
pub(crate) fn add_recorded(desired: &mut Desired, records: &SiteRecords, mounts: Vec<Arc<Mount>>) {
    desired.mounts.extend(mounts);
    desired.mounts.sort_by(|a, b| a.target.cmp(&b.target));
    desired.mounts.dedup_by(|a, b| a.target == b.target);

    for created in records.kept.iter().flat_map(|kept| &kept.made) {
        let CreatedKind::Link(destination) = &created.kind else {
            continue;
        };
        let is_taken = desired.links.iter().any(|link| link.path == created.path)
            || desired
                .mounts
                .iter()
                .any(|mount| mount.target == created.path);
        if !is_taken {
            desired.links.push(Link {
                path: created.path.clone(),
                destination: destination.clone(),
                reasons: vec![],
            });
        }
    }
    desired.links.sort_by(|a, b| a.path.cmp(&b.path));
}

//! The first stage: a site's manifest, from its file.

use std::fs;

use super::Site;
use super::context::Context;
use super::instances;
use super::manifest_error::ManifestError;
use super::{SiteError, configuration, manifest_file, parallel};
use crate::Error;
use crate::base::ErrorCode;
use crate::base::text::nearest;
use crate::manifest::{self, Manifest, SourceFile};

/// The site's manifest. If the command acts as root, a manifest is refused that users other than
/// root can change.
pub(crate) fn manifest(context: &Context, site: &Site) -> Result<Manifest, ManifestError> {
    if let Some(warning) = context.trust.admit_or_warn(&site.file)? {
        context.out.site(&site.name).warn(warning);
    }
    let text = match manifest_file::text(&site.file) {
        Err(ManifestError::Error(error)) if error.errno() == Some(libc::ENOENT) => {
            return Err(no_such_site(context, site, error).into());
        }
        text => text?,
    };
    let manifest = manifest_from(context, site, &text)?;
    if let Some(instances) = &manifest.instances
        && let Err(error) = instances::check(site, instances)
    {
        return Err(if is_recorded(context, site) {
            set_up_without_manifest(error, site).into()
        } else {
            error.into()
        });
    }
    Ok(manifest)
}

/// The manifest of each site. One that does not answer does not keep the others waiting.
pub(super) fn manifests(context: &Context, sites: &[Site]) -> Vec<Result<Manifest, SiteError>> {
    let own = context.clone();
    parallel::look(context, sites, move |site| Ok(manifest(&own, site)?))
}

/// As [`manifest`], from this text of the site's file.
pub(crate) fn manifest_from(
    context: &Context,
    site: &Site,
    text: &str,
) -> Result<Manifest, ManifestError> {
    let file = SourceFile::File(site.file.clone());
    manifest::parse(site.name.clone(), file, text, &context.presets)
        .map_err(ManifestError::Mistakes)
}

fn is_recorded(context: &Context, site: &Site) -> bool {
    let recorded = context.state.recorded_sites();
    recorded.is_ok_and(|recorded| recorded.contains(&site.name))
}

/// `missing`, of a site that is set up.
fn set_up_without_manifest(missing: Error, Site { name, .. }: &Site) -> Error {
    missing
        .because_of("it is set up, but its manifest was removed, renamed, or is elsewhere")
        .hint(format!(
            "give the manifest's path, or take the site down: `mountjail down {name}`"
        ))
}

fn no_such_site(context: &Context, site: &Site, error: Error) -> Error {
    let Site { name, file } = site;
    if let Ok(target) = fs::read_link(file) {
        return error.because_of(format_args!(
            "it is a link to {}, which does not exist",
            target.display()
        ));
    }

    let known = configuration::list(&context.config)
        .unwrap_or_default()
        .sites;
    if file.parent() != Some(&context.config.join("sites")) {
        return error.hint(match known.iter().find(|known| known.name == *name) {
            Some(known) => {
                format!("give `{name}` for the site in {}", known.file.display())
            }
            None => "name the path of a manifest, or a site".to_owned(),
        });
    }

    missing_site(context, site)
}

/// The error that the configuration has no such site.
pub(crate) fn missing_site(context: &Context, site: &Site) -> Error {
    let Site { name, file } = site;
    let missing = Error::usage(format!(
        "there is no site {name}: {} does not exist",
        file.display()
    ))
    .at(file)
    .coded(ErrorCode::NoSuchSite);
    if is_recorded(context, site) {
        return set_up_without_manifest(missing, site);
    }
    let known = configuration::list(&context.config)
        .unwrap_or_default()
        .sites;
    let known = known.iter().map(|known| known.name.as_str());
    missing.hint(match nearest(name.as_str(), known) {
        Some(near) => format!("did you mean {near}?"),
        None => "`mountjail status` lists the sites; --config-dir names another configuration"
            .to_owned(),
    })
}

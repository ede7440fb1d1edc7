//! Which sites a command is for.

use std::path::Path;

use super::Site;
use super::configuration::{absolute, list, root_of, site_of};
use super::context::Context;
use crate::base::SiteName;
use crate::observe::BootId;
use crate::{Error, Result};

/// Which sites a command is for.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    /// All of the configuration.
    All,
    /// These names, or paths of manifests.
    Named(Vec<String>),
}

impl Selection {
    /// Those of `names`; all, if there are none.
    pub(crate) fn named_or_all(names: &[String]) -> Self {
        if names.is_empty() {
            Self::All
        } else {
            Self::Named(names.to_vec())
        }
    }

    /// The sites, each once. If there are none at all, that is reported.
    ///
    /// Errors: the configuration cannot be listed, or a name cannot be a site's.
    pub(crate) fn sites(&self, context: &Context) -> Result<Vec<Site>> {
        let names = match self {
            Self::All => {
                let sites = all(context)?;
                if sites.is_empty() && context.state.recorded_sites()?.is_empty() {
                    let directory = context.config.join("sites");
                    let directory = directory.display();
                    context
                        .out
                        .info(format_args!("there are no sites in {directory}"));
                }
                return Ok(sites);
            }
            Self::Named(names) => names,
        };
        let mut sites: Vec<Site> = vec![];
        for name in names {
            let site = site(context, name)?;
            if !sites.contains(&site) {
                sites.push(site);
            }
        }
        Ok(sites)
    }
}

/// The site that `name` means: a name, or the path of a manifest.
pub(crate) fn site(context: &Context, name: &str) -> Result<Site> {
    let is_path = name.contains('/')
        || Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "yaml");
    if is_path {
        let file = absolute(Path::new(name)).map_err(|error| {
            Error::failed(format!("cannot use the path {name}")).because(&error)
        })?;
        return Ok(Site {
            name: site_of(&file)?,
            file,
        });
    }
    let file = context.config.join("sites").join(format!("{name}.yaml"));
    let name = SiteName::new(name)
        .map_err(|why| Error::usage(format!("{name:?} cannot be a site's name")).because_of(why))?;
    Ok(Site { name, file })
}

/// All sites of the configuration, sorted by name. Files whose names cannot be a site's are
/// reported, and do not stop the others.
pub(crate) fn all(context: &Context) -> Result<Vec<Site>> {
    let found = list(&context.config)?;
    for error in &found.misnamed {
        context.out.error_aside(error);
    }
    Ok(found.sites)
}

/// Why `down --all` leaves a site that is recorded: another configuration brought it up. `None`:
/// this one did.
pub(crate) fn of_another_configuration(
    context: &Context,
    site: &Site,
    boot: &BootId,
) -> Option<String> {
    let records = context.state.read(&site.name, boot).ok()?; // taking it down reports the error
    let root = records.root()?;
    let name = &site.name;
    let Some(by) = records.manifest() else {
        let is_here = site.file.symlink_metadata().is_ok();
        return (!is_here).then(|| {
            format!(
                "it is not recorded which configuration it belongs to; `mountjail down {name}` \
                 takes it away"
            )
        });
    };
    let was_moved = by.symlink_metadata().is_err() && site.file.symlink_metadata().is_ok();
    if by == site.file || was_moved || root_of(site).as_ref() == Some(root) {
        return None;
    }
    let by = by.display();
    Some(format!(
        "{by} brought it up, in {root}; `mountjail down {name}` takes it away"
    ))
}

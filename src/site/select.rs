//! Which sites a command is for, and their manifests.

use std::fs;
use std::path::Path;

use super::Site;
use super::configuration::{absolute, list, root_of, site_of, text};
use super::context::Context;
use super::error::ManifestError;
use crate::base::SiteName;
use crate::base::text::nearest;
use crate::manifest::{self, Manifest, SourceFile};
use crate::observe::BootId;
use crate::{Error, Result};

/// Which sites a command is for.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    /// All of the configuration.
    All,
    /// Those of these names, or paths of manifests.
    Named(Vec<String>),
}

impl Selection {
    /// Those of `names`; all, where there are none.
    pub(crate) fn named_or_all(names: &[String]) -> Self {
        if names.is_empty() {
            Self::All
        } else {
            Self::Named(names.to_vec())
        }
    }

    /// The sites, each once; an empty configuration is reported.
    ///
    /// Errors: the configuration cannot be listed, or something named cannot be a site.
    pub(crate) fn sites(&self, context: &Context) -> Result<Vec<Site>> {
        match self {
            Self::All => every(context),
            Self::Named(names) => named(context, names),
        }
    }
}

/// As [`all`]; reports it if there are none, not even in the records.
pub(crate) fn every(context: &Context) -> Result<Vec<Site>> {
    let sites = all(context)?;
    if sites.is_empty() && context.state.recorded_sites().is_empty() {
        context.out.info(format_args!(
            "there are no sites in {}",
            context.config.join("sites").display()
        ));
    }
    Ok(sites)
}

/// The sites of these names or paths, each once.
pub(crate) fn named(context: &Context, names: &[String]) -> Result<Vec<Site>> {
    let mut sites: Vec<Site> = vec![];
    for name in names {
        let site = one(context, name)?;
        if !sites.contains(&site) {
            sites.push(site);
        }
    }
    Ok(sites)
}

/// The site that `name` means: a name, or a path to a manifest.
pub(crate) fn one(context: &Context, name: &str) -> Result<Site> {
    let is_path = name.contains('/')
        || Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "yaml");
    if !is_path {
        let bad = |why| Error::usage(format!("{name:?} cannot be a site's name")).because_of(why);
        let file = context.config.join("sites").join(format!("{name}.yaml"));
        return Ok(Site {
            name: SiteName::new(name).map_err(bad)?,
            file,
        });
    }
    let file = absolute(Path::new(name))
        .map_err(|error| Error::failed(format!("cannot use the path {name}")).because(&error))?;
    Ok(Site {
        name: site_of(&file)?,
        file,
    })
}

/// All sites of the configuration, sorted by name. A file that cannot be one for its name is said,
/// and the others count.
pub(crate) fn all(context: &Context) -> Result<Vec<Site>> {
    let (sites, misnamed) = list(&context.config)?;
    for error in &misnamed {
        context.out.error_aside(error);
    }
    Ok(sites)
}

/// As [`all`], without a word; none where they cannot be listed.
pub(crate) fn known(context: &Context) -> Vec<Site> {
    list(&context.config).unwrap_or_default().0
}

/// Why `down --all` leaves a site that is recorded: another configuration brought it up. `None`:
/// this one did.
pub(crate) fn of_another_configuration(
    context: &Context,
    site: &Site,
    boot: &BootId,
) -> Option<String> {
    let records = context.state.read(&site.name, boot).ok()?; // who takes it away hears of it
    let root = records.root()?;
    let name = &site.name;
    let Some(by) = records.manifest() else {
        let is_here = site.file.symlink_metadata().is_ok();
        return (!is_here).then(|| {
            format!("which configuration it is of is not recorded; `mountjail down {name}` takes it away")
        });
    };
    let ours = by == site.file
        || (by.symlink_metadata().is_err() && site.file.symlink_metadata().is_ok())
        || root_of(site).as_ref() == Some(root);
    (!ours).then(|| {
        format!(
            "{} brought it up, in {root}; `mountjail down {name}` takes it away",
            by.display()
        )
    })
}

/// The site's manifest. It is refused where the command changes something as root and others than
/// root can change it.
pub(crate) fn load(context: &Context, site: &Site) -> Result<Manifest, ManifestError> {
    if let Some(warning) = context.trust.admit_or_warn(&site.file)? {
        context.out.warn(format_args!("{}: {warning}", site.name));
    }
    let text = text(&site.file).map_err(|unusable| match unusable {
        ManifestError::Error(error) if error.errno() == Some(libc::ENOENT) => {
            no_such_site(context, site, error).into()
        }
        other => other,
    })?;
    load_text(context, site, &text)
}

fn no_such_site(context: &Context, site: &Site, error: Error) -> Error {
    let Site { name, file } = site;
    if let Ok(to) = fs::read_link(file) {
        return error.hint(format!(
            "{} is a link to {}, which is not there",
            file.display(),
            to.display()
        ));
    }
    let known = known(context);
    if file.parent() != Some(&context.config.join("sites")) {
        let meant = known.iter().find(|known| known.name == *name);
        let meant = meant.map(|known| {
            format!(
                "the site of that name is `{name}`, in {}",
                known.file.display()
            )
        });
        return error
            .hint(meant.unwrap_or_else(|| "name the path of a manifest, or a site".to_owned()));
    }
    let missing = Error::usage(format!(
        "there is no site {name}: {} does not exist",
        file.display()
    ));
    if context.state.recorded_sites().contains(name) {
        return missing.hint(format!(
            "it is set up, but its manifest was removed, renamed, or is elsewhere: give that file's path; \
             `mountjail down {name}` works from the record"
        ));
    }
    let known = known.iter().map(|known| known.name.as_str());
    match nearest(name.as_str(), known) {
        Some(near) => missing.hint(format!("did you mean {near}?")),
        None => missing
            .hint("`mountjail status` lists the sites; --config-dir names another configuration"),
    }
}

/// As [`load`], from this text of the site's file.
pub(crate) fn load_text(
    context: &Context,
    site: &Site,
    text: &str,
) -> Result<Manifest, ManifestError> {
    let file = SourceFile::File(site.file.clone());
    manifest::parse(site.name.clone(), file, text, &context.presets)
        .map_err(ManifestError::Mistakes)
}

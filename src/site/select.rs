//! Which sites a command is for.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Site;
use super::configuration::{self, absolute, is_absent, list, site_named, site_of};
use super::context::Context;
use super::instances;
use super::manifest_file::root_of;
use super::records;
use super::site_list::SiteList;
use crate::base::{ErrorContext, HostPath, SiteName};
use crate::manifest;
use crate::observe::SiteRecords;
use crate::{Error, Result, patience};

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

    /// The sites, each once. Files that are not sites are reported, and that there are no sites at
    /// all.
    ///
    /// Errors: the configuration cannot be listed, or a name cannot be a site's.
    pub(crate) fn sites(&self, context: &Context) -> Result<Vec<Site>> {
        let list = self.list(context)?;
        let is_explained = !list.errors.is_empty() || !list.warnings.is_empty();
        let sites = reported(context, list);
        let is_odd = matches!(self, Self::All) && sites.is_empty() && !is_explained;
        if is_odd && context.state.recorded_sites()?.is_empty() {
            let directory = context.config.join("sites");
            let directory = directory.display();
            context
                .out
                .info(format_args!("there are no sites in {directory}"));
        }
        Ok(sites)
    }

    /// As [`sites`](Self::sites), without reporting anything.
    pub(crate) fn list(&self, context: &Context) -> Result<SiteList> {
        let names = match self {
            Self::All => return list(&context.config),
            Self::Named(names) => names,
        };
        let mut all = SiteList::default();
        for name in names {
            all.extend(match template(context, name)? {
                Some(file) => of_template(&file)?,
                None => SiteList::from(site(context, name)?),
            });
        }
        Ok(all)
    }
}

/// The site that `name` means: a name, or the path of a manifest.
pub(crate) fn site(context: &Context, name: &str) -> Result<Site> {
    if let Some(file) = template(context, name)? {
        site_of(&file)?; // refuses it
    }
    if let Some(file) = path(name)? {
        return Ok(Site {
            name: site_of(&file)?,
            file,
        });
    }
    let name = SiteName::new(name)
        .map_err(|why| Error::usage(format!("{name:?} cannot be a site's name")).because_of(why))?;
    Ok(site_named(&context.config, name))
}

/// As [`site`], of a site that is set up: if the configuration has no manifest for it, it has that
/// which brought it up.
pub(crate) fn site_set_up(context: &Context, name: &str) -> Result<Site> {
    Ok(records::with_manifest(context, site(context, name)?))
}

/// The file that `name` means, if it is a path and not a name.
fn path(name: &str) -> Result<Option<PathBuf>> {
    let is_path = name.contains('/')
        || Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "yaml");
    if !is_path {
        return Ok(None);
    }
    let file = absolute(Path::new(name)).context(format_args!("cannot use the path {name}"))?;
    Ok(Some(file))
}

/// The template of sites that `name` means: `NAME@`, or a path.
fn template(context: &Context, name: &str) -> Result<Option<PathBuf>> {
    let file = match path(name)? {
        Some(file) => file,
        None => configuration::own_file(&context.config, name),
    };
    Ok(manifest::template_name(&file).is_some().then_some(file))
}

/// All sites of the template `file`. One that has a manifest of its own beside it has that one.
///
/// Errors: it does not exist.
fn of_template(file: &Path) -> Result<SiteList> {
    file.symlink_metadata()
        .context(format_args!("cannot read {}", file.display()))?;
    let mut list = instances::of_templates(&[file.to_owned()]);
    for site in &mut list.sites {
        let own = file.with_file_name(format!("{}.yaml", site.name));
        if !is_absent(&own) {
            site.file = own;
        }
    }
    Ok(list)
}

/// All sites of the configuration, sorted by name. Files that are not sites are reported, and do
/// not stop the others.
pub(crate) fn all(context: &Context) -> Result<Vec<Site>> {
    Ok(reported(context, list(&context.config)?))
}

/// The sites of the list, whose errors and warnings are reported.
fn reported(context: &Context, list: SiteList) -> Vec<Site> {
    context.out.aside(list.report(context.out));
    list.sites
}

/// The manifest of another configuration that brought the site up, and its root there.
pub(crate) struct BroughtUpBy {
    pub manifest: PathBuf,
    root: HostPath,
}

impl fmt::Display for BroughtUpBy {
    /// `/etc/other/sites/a.yaml brought it up, in /srv/a`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { manifest, root } = self;
        write!(f, "{} brought it up, in {root}", manifest.display())
    }
}

/// Why `down --all` leaves a site with these `records`: another configuration brought it up.
/// `None`: this one did.
pub(crate) fn of_another_configuration(site: &Site, records: &SiteRecords) -> Option<String> {
    records.root()?;
    let name = &site.name;
    if records.manifest().is_none() {
        let is_here = site.file.symlink_metadata().is_ok();
        return (!is_here).then(|| {
            format!(
                "it is not recorded which configuration it belongs to; `mountjail down {name}` \
                 takes it down"
            )
        });
    }
    let other = brought_up_by(site, records)?;
    Some(format!("{other}; `mountjail down {name}` takes it down"))
}

/// As [`brought_up_by`], for a warning: also `None` if that configuration does not answer, or if
/// this one has no site of that name, which could be meant instead.
pub(crate) fn known_to_be_brought_up_by(site: &Site, records: &SiteRecords) -> Option<BroughtUpBy> {
    if is_beside(site, records.manifest()?) || site.file.symlink_metadata().is_err() {
        return None; // the usual case, for which nothing is asked
    }
    let ask = |(site, records): &(Site, SiteRecords)| brought_up_by(site, records);
    let question = (site.clone(), records.clone());
    let mut answers = patience::each_within(vec![question], Some(patience::SHORT), ask);
    answers.pop().flatten().flatten()
}

/// Whether `manifest` is in the directory of the site's manifest. A site can have one of its own or
/// be in a template.
fn is_beside(site: &Site, manifest: &Path) -> bool {
    manifest.parent() == site.file.parent()
}

/// The other configuration that brought the site up, by its `records`; `None`: this one did, or it
/// is not known.
pub(crate) fn brought_up_by(site: &Site, records: &SiteRecords) -> Option<BroughtUpBy> {
    let (root, by) = (records.root()?, records.manifest()?);
    if is_beside(site, by) {
        return None;
    }
    let was_moved = by.symlink_metadata().is_err() && site.file.symlink_metadata().is_ok();
    if was_moved || root_of(site).as_ref() == Some(root) {
        return None;
    }
    Some(BroughtUpBy {
        manifest: by.to_owned(),
        root: root.clone(),
    })
}

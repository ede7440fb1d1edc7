//! The configuration directory: sites and presets as files.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::instances;
use super::manifest_error::ManifestError;
use super::manifest_file::{Site, root_of, text};
use super::site_list::SiteList;
use super::trust::Trust;
use crate::base::quote::shell_path;
use crate::base::{ErrorContext, HostPath, SiteName};
use crate::manifest::{self, Diagnostic, Presets, SourceFile};
use crate::observe::{self, BootId, StateDir};
use crate::resolve::Roots;
use crate::{Error, Result, patience};

/// The directory of the configuration, unless another one is named.
pub(crate) const DEFAULT: &str = "/etc/mountjail";

/// `path` from `/` on. If it has `..`, its directory is looked up now, so that it names the same
/// file from then on.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut components = path.components();
    if !components.any(|component| component == Component::ParentDir) {
        return Ok(path);
    }
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) => Ok(fs::canonicalize(directory)?.join(name)),
        _ => fs::canonicalize(path),
    }
}

/// The site whose manifest the file is.
///
/// Errors: the file is a template of sites, or its name cannot be a site's.
pub(super) fn site_of(file: &Path) -> Result<SiteName> {
    if let Some(template) = manifest::template_name(file) {
        return Err(Error::usage(format!(
            "{} is a template of sites, not a site",
            file.display()
        ))
        .hint(format!("name a site of it: {template}@INSTANCE")));
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    SiteName::new(&stem).map_err(|why| {
        Error::usage(format!(
            "{}: the file's name cannot be a site's name",
            file.display()
        ))
        .because_of(why)
        .hint("rename the file, or give it another ending than .yaml if it is not a manifest")
    })
}

/// The sites of the configuration in the directory `config`, sorted by name.
///
/// Errors: the directory cannot be read.
pub(crate) fn list(config: &Path) -> Result<SiteList> {
    let directory = config.join("sites");
    let files = visible_files(&directory).map_err(|error| {
        Error::failed(format!("cannot list the sites in {}", directory.display()))
            .because(&error)
            .hint("write SITE.yaml there, or name another directory with --config-dir")
    })?;
    let (mut list, mut templates) = (SiteList::default(), vec![]);
    for file in ending_in(&files, "yaml") {
        if manifest::template_name(&file).is_some() {
            templates.push(file);
            continue;
        }
        match site_of(&file) {
            Ok(name) => list.sites.push(Site { name, file }),
            Err(error) => list.errors.push(error.into()),
        }
    }
    for file in ending_in(&files, "yml") {
        list.errors.push(not_named_yaml(&file).into());
    }
    list.add_instances(instances::of_templates(&templates));
    list.sites.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

fn not_named_yaml(file: &Path) -> Error {
    let shown = file.display();
    Error::usage(format!("{shown}: a manifest's name ends in .yaml")).hint(format!(
        "mv {} {}",
        shell_path(file),
        shell_path(file.with_extension("yaml"))
    ))
}

/// The file of a site's own manifest.
pub(crate) fn own_file(config: &Path, name: impl fmt::Display) -> PathBuf {
    config.join("sites").join(format!("{name}.yaml"))
}

/// The site of this name, whether or not it has a manifest: its own, or the template of its name.
pub(crate) fn site_named(config: &Path, name: SiteName) -> Site {
    let file = own_file(config, &name);
    if let Some((template, _)) = name.instance()
        && is_absent(&file)
    {
        let template = own_file(config, format_args!("{template}@"));
        if !is_absent(&template) {
            return Site {
                name,
                file: template,
            };
        }
    }
    Site { name, file }
}

/// Whether the site has a manifest. One in a template counts if it is not known that the template
/// does not have the instance.
pub(crate) fn has_manifest(site: &Site) -> bool {
    if site.file.symlink_metadata().is_err() {
        return false;
    }
    if site.instance().is_none() {
        return true;
    }
    match instances::in_file(&site.file) {
        Some(instances) => instances::has(site, &instances).unwrap_or(true),
        None => true,
    }
}

/// The error that a site which is set up has no manifest.
pub(crate) fn no_manifest(site: &Site) -> Error {
    let (name, file) = (&site.name, site.file.display());
    Error::failed(match site.instance() {
        Some(instance) if !is_absent(&site.file) => {
            format!("{name}: {file} has no instance {instance} any more")
        }
        _ => format!("{name}: the manifest {file} is gone"),
    })
}

/// The files `*.yaml` of a directory, sorted, without hidden ones.
pub(crate) fn yaml_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(ending_in(&visible_files(directory)?, "yaml"))
}

/// The files in a directory, sorted, without hidden ones.
fn visible_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !name.as_bytes().starts_with(b".") {
            files.push(directory.join(name));
        }
    }
    files.sort();
    Ok(files)
}

fn ending_in(files: &[PathBuf], ending: &str) -> Vec<PathBuf> {
    let mut found = files.to_vec();
    found.retain(|file| file.extension() == Some(OsStr::new(ending)));
    found
}

/// The file of the defaults of all sites.
pub(crate) fn defaults_file(config: &Path) -> PathBuf {
    config.join("defaults.yaml")
}

/// Where packages of others keep their presets.
pub(crate) const VENDOR_PRESETS: &str = "/usr/share/mountjail/presets";

/// The built-in presets, those of packages and those of the configuration, of which the last one of
/// a name counts, and the defaults of all sites. One that `trust` refuses, or that cannot be read,
/// is an error where it is included.
pub(crate) fn presets(config: &Path, trust: &Trust) -> Result<Presets> {
    let mut presets = Presets::built_in();
    add_presets(&mut presets, Path::new(VENDOR_PRESETS), trust)?;
    add_presets(&mut presets, &config.join("presets"), trust)?;

    let defaults = defaults_file(config);
    if is_absent(&defaults) {
        return Ok(presets);
    }
    match admitted_text(&defaults, trust) {
        Ok(text) => presets.set_defaults(SourceFile::File(defaults), text),
        Err(why) => presets.set_unreadable_defaults(SourceFile::File(defaults), reason(&why)),
    }
    Ok(presets)
}

fn add_presets(presets: &mut Presets, directory: &Path, trust: &Trust) -> Result<()> {
    let files = match yaml_files(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        result => result.context(format_args!(
            "cannot list the presets in {}",
            directory.display()
        ))?,
    };
    for file in files {
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match admitted_text(&file, trust) {
            Ok(text) => presets.add(&name, SourceFile::File(file), text),
            Err(why) => presets.add_unreadable(&name, SourceFile::File(file), reason(&why)),
        }
    }
    Ok(())
}

/// The text of the file, if `trust` admits it.
fn admitted_text(file: &Path, trust: &Trust) -> Result<String, ManifestError> {
    trust.admit(file)?;
    text(file)
}

/// Whether there is no such name. A link that leads nowhere is there.
pub(super) fn is_absent(path: &Path) -> bool {
    matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Why a preset cannot be used: the error with its hint, or its first mistake.
fn reason(error: &ManifestError) -> String {
    match error {
        ManifestError::Error(error) => match error.hint_text() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        },
        ManifestError::Mistakes(mistakes) => {
            let first = mistakes.iter().next();
            first.map(Diagnostic::message).unwrap_or_default()
        }
    }
}

/// The roots of all sites whose manifests can be read and belong to root alone, and of those sites
/// that only the records know.
pub(crate) fn roots(config: &Path, state: &StateDir, trust: &Trust) -> Roots {
    let boot = observe::boot_id().ok();
    let (of_state, of_boot) = (state.clone(), boot.clone());
    let mut roots = Roots::new(move |site, root| is_up_at(root, site, &of_state, of_boot.as_ref()));
    let sites = list(config).unwrap_or_default().sites;
    for (site, root) in sites.iter().zip(named_roots(trust, &sites)) {
        if let Some(root) = root {
            roots.add(site.name.clone(), root);
        }
    }
    // Records that cannot be listed refuse nothing, either.
    for name in state.recorded_sites().unwrap_or_default() {
        let has_manifest = sites
            .binary_search_by_key(&&name, |site| &site.name)
            .is_ok();
        if !has_manifest
            && let Some(boot) = &boot
            && let Some(root) = recorded_root(&name, state, boot)
        {
            roots.add_recorded(name, root);
        }
    }
    roots
}

/// Whether the site is up at `root` by its record. A record that cannot be read refuses nothing.
fn is_up_at(root: &HostPath, site: &SiteName, state: &StateDir, boot: Option<&BootId>) -> bool {
    let Some(boot) = boot else {
        return true;
    };
    let Ok(records) = state.read(site, boot) else {
        return true;
    };
    match &records.record {
        Some(record) => record.root == *root || records.mounted_at().as_ref() == Some(root),
        None => false,
    }
}

/// The root of a site that the records know, which may have been moved since.
fn recorded_root(site: &SiteName, state: &StateDir, boot: &BootId) -> Option<HostPath> {
    let records = state.read(site, boot).ok()?;
    match records.mounted_at() {
        Some(root) => Some(root),
        None => records.root().cloned(),
    }
}

/// The roots that the manifests of `sites` name; `None`: unknown, because the manifest cannot be
/// read, does not belong to root alone, or does not answer soon, which must not delay other sites.
fn named_roots(trust: &Trust, sites: &[Site]) -> Vec<Option<HostPath>> {
    let trust = trust.with_new_host();
    let found = patience::each_within(sites.to_vec(), Some(patience::SHORT), move |site| {
        if trust.is_trusted(&site.file) {
            root_of(site)
        } else {
            None
        }
    });
    found.into_iter().map(Option::flatten).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_renames_a_file_can_be_typed() {
        let error = not_named_yaml(Path::new("/e/my site.yml"));
        let hint = "mv '/e/my site.yml' '/e/my site.yaml'";
        assert_eq!(error.hint_text(), Some(hint));
    }
}

//! The configuration directory: sites and presets as files.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::error::ManifestError;
use super::trust::Trust;
use crate::base::{HostPath, SiteName};
use crate::manifest::{self, Diagnostic, Presets, SourceFile};
use crate::observe::{self, StateDir};
use crate::resolve::Roots;
use crate::{Error, Result, patience, sys};

/// A site that a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub name: SiteName,
    pub file: PathBuf,
}

/// `path` from `/` on. If it has `..`, its directory is looked up now, so that it names the same
/// file from then on.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if !path
        .components()
        .any(|component| component == Component::ParentDir)
    {
        return Ok(path);
    }
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) => Ok(fs::canonicalize(directory)?.join(name)),
        _ => fs::canonicalize(path),
    }
}

pub(super) fn site_of(file: &Path) -> Result<SiteName> {
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

/// The files in the directory `sites` of a configuration.
#[derive(Default)]
pub(crate) struct SiteList {
    /// Sorted by name.
    pub sites: Vec<Site>,
    /// Why other files are not sites.
    pub misnamed: Vec<Error>,
}

/// The sites of the configuration in the directory `config`.
///
/// Errors: the directory cannot be read.
pub(crate) fn list(config: &Path) -> Result<SiteList> {
    let directory = config.join("sites");
    let cannot = |error: &io::Error| {
        Error::failed(format!("cannot list the sites in {}", directory.display()))
            .because(error)
            .hint("write SITE.yaml there, or name another directory with --config-dir")
    };
    let (mut sites, mut misnamed) = (vec![], vec![]);
    for file in files_ending_in(&directory, "yaml").map_err(|error| cannot(&error))? {
        match site_of(&file) {
            Ok(name) => sites.push(Site { name, file }),
            Err(error) => misnamed.push(error),
        }
    }
    for file in files_ending_in(&directory, "yml").map_err(|error| cannot(&error))? {
        let renamed = file.with_extension("yaml");
        misnamed.push(
            Error::usage(format!(
                "{}: a manifest's name ends in .yaml",
                file.display()
            ))
            .hint(format!("mv {} {}", file.display(), renamed.display())),
        );
    }
    Ok(SiteList { sites, misnamed })
}

/// The files `*.yaml` of a directory, sorted, without hidden ones.
pub(crate) fn yaml_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    files_ending_in(directory, "yaml")
}

fn files_ending_in(directory: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension().is_some_and(|found| found == ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The built-in presets and those of the configuration. One that `trust` refuses, or that cannot be
/// read, is an error where it is included.
pub(crate) fn presets(config: &Path, trust: &Trust) -> Result<Presets> {
    let mut presets = Presets::built_in();
    let directory = config.join("presets");
    let files = match yaml_files(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        result => result.map_err(|error| {
            Error::failed(format!(
                "cannot list the presets in {}",
                directory.display()
            ))
            .because(&error)
        })?,
    };
    for file in files {
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let admitted = trust.admit(&file).map_err(ManifestError::from);
        match admitted.and_then(|()| text(&file)) {
            Ok(text) => presets.add(&name, SourceFile::File(file), text),
            Err(why) => presets.add_unreadable(&name, SourceFile::File(file), reason(&why)),
        }
    }
    Ok(presets)
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
    let (records, of_boot) = (state.clone(), boot.clone());
    let mut roots =
        Roots::new(
            move |site, root| match of_boot.as_ref().map(|boot| records.read(site, boot)) {
                Some(Ok(records)) => records.record.is_some_and(|record| record.root == *root),
                // A record that cannot be read refuses nothing.
                Some(Err(_)) | None => true,
            },
        );
    let sites = list(config).unwrap_or_default().sites;
    for (site, root) in sites.iter().zip(named_roots(trust, &sites)) {
        if let Some(root) = root {
            roots.add(site.name.clone(), root);
        }
    }
    // Records that cannot be listed refuse nothing, either.
    for name in state.recorded_sites().unwrap_or_default() {
        if sites
            .binary_search_by_key(&&name, |site| &site.name)
            .is_err()
            && let Some(root) = boot
                .as_ref()
                .and_then(|boot| state.read(&name, boot).ok()?.root().cloned())
        {
            roots.add_recorded(name, root);
        }
    }
    roots
}

/// The roots that the manifests of `sites` name; `None`: unknown, because the manifest cannot be
/// read, does not belong to root alone, or does not answer soon, which must not delay other sites.
fn named_roots(trust: &Trust, sites: &[Site]) -> Vec<Option<HostPath>> {
    let trust = trust.with_new_host();
    let look = move |site: &Site| {
        if trust.is_trusted(&site.file) {
            root_of(site)
        } else {
            None
        }
    };
    let found = patience::each_within(sites.to_vec(), Some(patience::SHORT), look);
    found.into_iter().map(Option::flatten).collect()
}

/// The text of a manifest or preset. FIFOs and devices are refused, and no more is read than a
/// manifest may have.
pub(super) fn text(file: &Path) -> Result<String, ManifestError> {
    let cannot = |error: io::Error| match error.raw_os_error() {
        Some(libc::EISDIR | libc::EINVAL) => {
            Error::usage(format!("{} is not a regular file", file.display()))
        }
        _ => Error::failed(format!("cannot read {}", file.display())).because(&error),
    };
    let mut bytes = vec![];
    sys::open_regular(file)
        .and_then(|open| {
            open.take(manifest::MAX_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(cannot)?;
    manifest::decode(&SourceFile::File(file.to_owned()), bytes).map_err(ManifestError::Mistakes)
}

/// The root that a manifest names, whatever else is wrong with it.
pub(crate) fn root_of(site: &Site) -> Option<HostPath> {
    manifest::root_of(&text(&site.file).ok()?)
}

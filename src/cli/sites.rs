//! The configuration directory: sites and presets as files.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::Which;
use super::context::Context;
use super::trust::Trust;
use crate::manifest::{
    self, Diagnostic, Diagnostics, HostPath, Manifest, Presets, SiteName, SourceFile,
};
use crate::observe::{self, BootId};
use crate::resolve::Roots;
use crate::{Error, Result, patience, sys};

/// A site that a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub name: SiteName,
    pub file: PathBuf,
}

/// Why there is no manifest.
#[derive(Debug)]
pub(super) enum Unusable {
    Error(Error),
    Mistakes(Diagnostics),
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Unusable {
    /// Says it of `what`, a site or a preset; gives the exit code.
    pub(super) fn report(&self, context: &Context<'_>, what: &dyn fmt::Display) -> u8 {
        match self {
            Self::Error(error) => {
                context.out.error(error);
                error.exit_code()
            }
            Self::Mistakes(diagnostics) => {
                context.out.diagnostics(what, diagnostics);
                2
            }
        }
    }

    /// The first mistake, without its place.
    fn in_short(&self) -> String {
        match self {
            Self::Error(error) => match error.hint_text() {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            },
            Self::Mistakes(mistakes) => mistakes
                .iter()
                .next()
                .map(Diagnostic::message)
                .unwrap_or_default(),
        }
    }

    /// As one error, for JSON.
    pub(super) fn as_text(&self) -> String {
        match self {
            Self::Error(error) => error.to_string(),
            Self::Mistakes(diagnostics) => diagnostics.render(false),
        }
    }

    /// Within one line.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Error(error) => error.to_string(),
            Self::Mistakes(diagnostics) => diagnostics.brief(),
        }
    }
}

/// The sites that the arguments name, each once.
pub(super) fn which(context: &Context<'_>, which: &Which) -> Result<Vec<Site>> {
    if which.all {
        every(context)
    } else {
        named(context, &which.sites)
    }
}

/// As [`all`]; says so if there are none, not even in the records.
pub(super) fn every(context: &Context<'_>) -> Result<Vec<Site>> {
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
pub(super) fn named(context: &Context<'_>, names: &[String]) -> Result<Vec<Site>> {
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
pub(super) fn one(context: &Context<'_>, name: &str) -> Result<Site> {
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

/// `path` from `/` on. What goes up by `..` is looked up now, and names the same from then on.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
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

fn site_of(file: &Path) -> Result<SiteName> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    SiteName::new(&stem).map_err(|why| {
        Error::usage(format!(
            "{}: the file's name cannot be a site's name",
            file.display()
        ))
        .because_of(why)
        .hint("rename the file, or give it another ending than .yaml if it is no manifest")
    })
}

/// All sites of the configuration, sorted by name. A file that cannot be one for its name is said,
/// and the others count.
pub(super) fn all(context: &Context<'_>) -> Result<Vec<Site>> {
    let (sites, misnamed) = listed(context)?;
    for error in &misnamed {
        context.out.error_aside(error);
    }
    Ok(sites)
}

/// As [`all`], without a word; none where they cannot be listed.
pub(super) fn known(context: &Context<'_>) -> Vec<Site> {
    listed(context).unwrap_or_default().0
}

pub(super) fn listed(context: &Context<'_>) -> Result<(Vec<Site>, Vec<Error>)> {
    let directory = context.config.join("sites");
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
    Ok((sites, misnamed))
}

/// Why `down --all` leaves a site that is recorded: another configuration brought it up. `None`:
/// this one did.
pub(super) fn of_another_configuration(
    context: &Context<'_>,
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

/// The files `*.yaml` of a directory but hidden ones, sorted.
pub(super) fn yaml_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    files_ending_in(directory, "yaml")
}

fn files_ending_in(directory: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == ending)
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The built-in presets and those of the configuration, as far as `trust` lets them be used.
pub(super) fn presets(config: &Path, trust: &Trust) -> Result<Presets> {
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
        match trust
            .admit(&file)
            .map_err(Unusable::Error)
            .and_then(|()| text(&file))
        {
            Ok(text) => presets.add(&name, SourceFile::File(file), text),
            Err(why) => presets.add_unreadable(&name, SourceFile::File(file), why.in_short()),
        }
    }
    Ok(presets)
}

/// The roots of all sites, as far as their manifests can be read and are root's alone, and of those
/// that only the records know.
pub(super) fn roots(context: &Context<'_>) -> Roots {
    let boot = observe::boot_id().ok();
    let (state, of_boot) = (context.state.clone(), boot.clone());
    let mut roots =
        Roots::new(
            move |site, root| match of_boot.as_ref().map(|boot| state.read(site, boot)) {
                Some(Ok(records)) => records.record.is_some_and(|record| record.root == *root),
                // Who cannot tell refuses nothing.
                Some(Err(_)) | None => true,
            },
        );
    let sites = known(context);
    for (site, root) in sites.iter().zip(named_roots(context, &sites)) {
        if let Some(root) = root {
            roots.add(site.name.clone(), root);
        }
    }
    for name in context.state.recorded_sites() {
        if sites
            .binary_search_by_key(&&name, |site| &site.name)
            .is_err()
            && let Some(root) = boot
                .as_ref()
                .and_then(|boot| context.state.read(&name, boot).ok()?.root().cloned())
        {
            roots.add_recorded(name, root);
        }
    }
    roots
}

/// The roots that the manifests of `sites` name; `None`: it is not known, or the manifest is not
/// root's alone. One that does not answer soon is not known either: that is no other site's
/// trouble.
fn named_roots(context: &Context<'_>, sites: &[Site]) -> Vec<Option<HostPath>> {
    let trust = context.trust.afresh();
    let look = move |site: &Site| {
        trust
            .is_trusted(&site.file)
            .then(|| root_of(site))
            .flatten()
    };
    let found = patience::each_within(sites.to_vec(), Some(patience::SHORT), look);
    found.into_iter().map(Option::flatten).collect()
}

/// The site's manifest. It is refused where the command changes something as root and others than
/// root can change it.
pub(super) fn load(context: &Context<'_>, site: &Site) -> Result<Manifest, Unusable> {
    if let Some(warning) = context.trust.admit_or_warn(&site.file)? {
        context.out.warn(format_args!("{}: {warning}", site.name));
    }
    let text = text(&site.file).map_err(|unusable| match unusable {
        Unusable::Error(error) if error.errno() == Some(libc::ENOENT) => {
            no_such_site(context, site, error).into()
        }
        other => other,
    })?;
    load_text(context, site, &text)
}

fn no_such_site(context: &Context<'_>, site: &Site, error: Error) -> Error {
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
    let near = known
        .iter()
        .map(|known| known.name.as_str())
        .min_by_key(|known| strsim::damerau_levenshtein(known, name.as_str()));
    match near.filter(|near| strsim::damerau_levenshtein(near, name.as_str()) <= 2) {
        Some(near) => missing.hint(format!("did you mean {near}?")),
        None => missing
            .hint("`mountjail status` lists the sites; --config-dir names another configuration"),
    }
}

/// As [`load`], from this text of the site's file.
pub(super) fn load_text(
    context: &Context<'_>,
    site: &Site,
    text: &str,
) -> Result<Manifest, Unusable> {
    let file = SourceFile::File(site.file.clone());
    manifest::parse(site.name.clone(), file, text, &context.presets).map_err(Unusable::Mistakes)
}

/// The text of a manifest or preset. A FIFO or device is refused, and no more is read than can be
/// used.
fn text(file: &Path) -> Result<String, Unusable> {
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
    manifest::decode(&SourceFile::File(file.to_owned()), bytes).map_err(Unusable::Mistakes)
}

/// The root that a manifest names, whatever else is wrong with it.
pub(super) fn root_of(site: &Site) -> Option<HostPath> {
    manifest::root_of(&text(&site.file).ok()?)
}

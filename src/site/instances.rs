//! The sites of a template `NAME@.yaml`: its instances, as they are on this host now.
//!
//! The directory of a pattern, and what is in it, may belong to others. So no link there is
//! followed, and a name that cannot be a site's keeps no other one from being a site. A directory
//! that does not answer is given up.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Site;
use super::manifest_error::ManifestError;
use super::manifest_file::text;
use super::site_list::SiteList;
use crate::base::quote::{brief, shell_word};
use crate::base::text::{few, nearest};
use crate::base::{ErrorCode, ErrorKind, HostPath, SiteName};
use crate::manifest::{self, Diagnostics, InstancePattern, Instances, SourceFile};
use crate::{Error, patience, sys};

/// How many sites a pattern may give. A directory that anybody can write to must not fill the
/// host's mount table.
const MOST: usize = 10_000;

/// How many names are shown.
const SHOWN: usize = 5;

/// How much of a name is shown, in characters.
const LONGEST: usize = 60;

/// The limit for each directory.
const LIMIT: Option<Duration> = Some(patience::SHORT);

/// fsck(8) makes this directory in each file system.
const LOST_AND_FOUND: &str = "lost+found";

/// A pattern of a template, and what was found for it.
struct PatternOf<'t> {
    file: &'t Path,
    pattern: InstancePattern,
    entries: Entries,
}

/// What matches a pattern.
#[derive(Default)]
struct Entries {
    names: Vec<SiteName>,
    /// Names that cannot be a site's.
    odd: Vec<String>,
    links: Vec<String>,
    /// Names, and why they could not be looked at.
    unknown: Vec<String>,
}

/// The kind of an entry in a pattern's directory.
enum FoundName {
    /// The directory of an instance.
    Instance,
    Link,
    /// Nothing that matches.
    Other,
    Unknown(String),
}

/// The sites of these templates. Warnings do not say that anything is wrong with the configuration.
pub(super) fn of_templates(files: &[PathBuf]) -> SiteList {
    let mut found = SiteList::default();
    for file in files {
        match text(file) {
            Ok(text) => {
                let source = SourceFile::File(file.clone());
                let (instances, mistakes) = manifest::instances(&source, &text);
                found.add_template(file, instances.unwrap_or_default(), mistakes);
            }
            Err(error) => found.errors.push(error),
        }
    }
    found
}

impl SiteList {
    fn add_template(&mut self, file: &Path, instances: Instances, mistakes: Option<Diagnostics>) {
        let mut names = BTreeSet::new();
        for name in &instances.names {
            match site_name(file, OsStr::new(name)) {
                Some(name) => drop(names.insert(name)),
                None => self.warnings.push(format!(
                    "{}: {name}: the site's name would be too long",
                    file.display()
                )),
            }
        }
        let has_patterns = !instances.patterns.is_empty();
        for pattern in instances.patterns {
            match PatternOf::look(file, pattern) {
                Ok(found) => self.add_pattern(found, &mut names),
                Err(error) => {
                    self.is_partial |= error.kind() == ErrorKind::Silent;
                    self.errors.push(error.into());
                }
            }
        }

        // Each site reports the mistakes of its manifest.
        if let Some(mistakes) = mistakes {
            if names.is_empty() {
                self.errors.push(ManifestError::Mistakes(mistakes));
            }
        } else if names.is_empty() && !has_patterns {
            let file = file.display();
            self.warnings.push(format!("{file}: it has no instances"));
        }
        for name in names {
            let file = file.to_owned();
            self.sites.push(Site { name, file });
        }
    }

    fn add_pattern(&mut self, found: PatternOf<'_>, names: &mut BTreeSet<SiteName>) {
        let PatternOf {
            file,
            pattern,
            entries,
        } = found;
        let has_names = !entries.names.is_empty();
        let mut twice = vec![];
        for name in entries.names {
            if names.contains(&name) {
                twice.push(name.to_string());
            } else {
                names.insert(name);
            }
        }
        let notes = [
            (
                entries.odd,
                "are not sites, because their names cannot be a site's",
            ),
            (
                entries.links,
                "are not sites, because links are not followed here",
            ),
            (
                entries.unknown,
                "are not sites, because they cannot be looked at",
            ),
            (twice, "have the same name as others; each name is one site"),
        ];
        let about = format!("{}: instances: {pattern}", file.display());
        if !has_names && notes.iter().all(|(names, _)| names.is_empty()) {
            self.warnings.push(format!("{about}: no directory matches"));
        }
        for (names, what) in notes {
            if !names.is_empty() {
                let names = few(names, SHOWN);
                self.warnings
                    .push(format!("{about}: of what matches, these {what}: {names}"));
            }
        }
    }
}

impl<'t> PatternOf<'t> {
    /// Looks what matches.
    ///
    /// Errors: the directory cannot be read, or has too many entries.
    fn look(file: &'t Path, pattern: InstancePattern) -> Result<Self, Error> {
        let what = format!(
            "{}: cannot list {} for {pattern}",
            file.display(),
            pattern.directory()
        );
        let listed = match listed_soon(&pattern) {
            Some(Ok(listed)) => listed,
            Some(Err(error)) => {
                return Err(Error::failed(what).because(&error).hint(format!(
                    "make the directory, or correct `instances` in {}",
                    file.display()
                )));
            }
            None => return Err(Error::silent(what).because_of("it does not answer")),
        };
        if listed.len() > MOST {
            return Err(Error::failed(format!(
                "{}: {pattern} matches more than {MOST} entries; none of them is a site",
                file.display()
            ))
            .hint("name a directory in which only root makes directories"));
        }
        let mut found = Self {
            file,
            pattern,
            entries: Entries::default(),
        };
        for (name, entry) in found.looked_into(listed) {
            found.add(&name, entry);
        }
        Ok(found)
    }

    /// The entries, and what they are if what is below them counts.
    fn looked_into(&self, listed: Vec<(OsString, FoundName)>) -> Vec<(OsString, FoundName)> {
        if self.pattern.is_of_entries() {
            return listed;
        }
        let mut names = vec![];
        for (name, _) in &listed {
            names.push(name.clone());
        }
        let pattern = self.pattern.clone();
        let answers = patience::each_within(listed, LIMIT, move |(name, entry)| {
            match (pattern.instance(name), entry) {
                (Some(instance), FoundName::Instance) => below(&pattern, instance),
                (_, FoundName::Link) => FoundName::Link,
                _ => FoundName::Other,
            }
        });
        let mut found = vec![];
        for (name, answer) in names.into_iter().zip(answers) {
            let silent = || FoundName::Unknown("it does not answer".into());
            found.push((name, answer.unwrap_or_else(silent)));
        }
        found
    }

    fn add(&mut self, name: &OsStr, entry: FoundName) {
        let entries = &mut self.entries;
        let text = brief(&shell_word(&name.to_string_lossy()), LONGEST).into_owned();
        let instance = self.pattern.instance(name);
        match entry {
            FoundName::Other => {}
            FoundName::Link => entries.links.push(text),
            FoundName::Unknown(why) => entries.unknown.push(format!("{text} ({why})")),
            FoundName::Instance => {
                if let Some(instance) = instance
                    && let Some(name) = site_name(self.file, instance)
                {
                    entries.names.push(name);
                } else {
                    entries.odd.push(text);
                }
            }
        }
    }
}

/// The entries of the directory that match the pattern, without those below them, sorted.
fn listed(pattern: &InstancePattern) -> io::Result<Vec<(OsString, FoundName)>> {
    let mut found = vec![];
    for entry in fs::read_dir(pattern.directory())? {
        let entry = entry?;
        let name = entry.file_name();
        if pattern.instance(&name).is_none() || name == LOST_AND_FOUND {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.push((name, FoundName::Instance));
        } else if kind.is_symlink() {
            found.push((name, FoundName::Link));
        }
        if found.len() > MOST {
            break;
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// As [`listed`]; `None`: the directory does not answer.
fn listed_soon(pattern: &InstancePattern) -> Option<io::Result<Vec<(OsString, FoundName)>>> {
    let list = |pattern: &InstancePattern| listed(pattern);
    let mut answers = patience::each_within(vec![pattern.clone()], LIMIT, list);
    answers.pop()?
}

/// The kind of an entry, if the directory of the instance is below it.
fn below(pattern: &InstancePattern, instance: &OsStr) -> FoundName {
    match find(pattern, instance) {
        Ok(true) => FoundName::Instance,
        Ok(false) => FoundName::Other,
        Err(error) if is_link(&error) => FoundName::Link,
        Err(error) => FoundName::Unknown(error.to_string()),
    }
}

/// The directory whose entries are compared with the pattern. Links on the way to it are followed:
/// the pattern names them.
fn open(pattern: &InstancePattern) -> io::Result<OwnedFd> {
    let directory = fs::File::open(pattern.directory())?;
    Ok(directory.into())
}

/// Whether the instance has its directory. Errors: ELOOP for a link.
fn find(pattern: &InstancePattern, instance: &OsStr) -> io::Result<bool> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match sys::open_beneath(&open(pattern)?, &pattern.relative(instance), flags) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

/// Whether `site`, whose file is a template with these `instances`, is one of them.
///
/// Errors: it is not known, because something cannot be looked at.
pub(super) fn has(site: &Site, instances: &Instances) -> Result<bool, Error> {
    let Some(instance) = site.instance() else {
        return Ok(true);
    };
    if site_name(&site.file, OsStr::new(instance)).is_none() {
        return Ok(false);
    }
    if instances.names.iter().any(|name| name == instance) {
        return Ok(true);
    }
    let mut unknown = None;
    for pattern in &instances.patterns {
        let name = OsStr::new(instance);
        if pattern.instance(&pattern.entry(name)).is_none() {
            continue;
        }
        match find(pattern, name) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) if is_absent(&error) || is_link(&error) => {}
            Err(error) => {
                let path = pattern.directory().as_path().join(pattern.relative(name));
                let cannot = format!("{}: cannot look at {}", site.name, path.display());
                unknown = Some(Error::failed(cannot).because(&error));
            }
        }
    }
    unknown.map_or(Ok(false), Err)
}

/// Refuses a site that is not among the instances of its template.
pub(super) fn check(site: &Site, instances: &Instances) -> Result<(), Error> {
    if has(site, instances)? {
        return Ok(());
    }
    let (name, file) = (&site.name, site.file.display());
    let instance = site.instance().unwrap_or_default();
    let missing = Error::usage(format!(
        "there is no site {name}: {file} has no instance {instance}"
    ))
    .coded(ErrorCode::NoSuchSite);
    let found = of_templates(std::slice::from_ref(&site.file)).sites;
    let near = nearest(name.as_str(), found.iter().map(|site| site.name.as_str()));
    Err(missing.hint(match (near, instances.patterns.first()) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, Some(pattern)) => format!(
            "make the directory {}, or add `{instance}` to `instances` in {file}",
            pattern
                .directory()
                .as_path()
                .join(pattern.relative(OsStr::new(instance)))
                .display()
        ),
        (None, None) => format!("add `{instance}` to `instances` in {file}"),
    }))
}

/// `instances` in the template `file`; `None`: they are not known.
pub(crate) fn in_file(file: &Path) -> Option<Instances> {
    let text = text(file).ok()?;
    manifest::instances(&SourceFile::File(file.to_owned()), &text).0
}

/// The directories that make `site` an instance of its template.
pub(crate) fn directories(site: &Site) -> Vec<HostPath> {
    let Some(name) = site.instance() else {
        return vec![];
    };
    let Some(instances) = in_file(&site.file) else {
        return vec![];
    };
    let mut directories = vec![];
    for pattern in &instances.patterns {
        let relative = pattern.relative(OsStr::new(name));
        directories.extend(pattern.directory().join(relative));
    }
    directories
}

/// The directories in which names that come and go can make other instances of the template `file`.
pub(crate) fn watched(file: &Path) -> Vec<HostPath> {
    let mut directories = vec![];
    for pattern in in_file(file).unwrap_or_default().patterns {
        directories.push(pattern.directory().clone());
        if pattern.is_of_entries() {
            continue;
        }
        let Some(Ok(entries)) = listed_soon(&pattern) else {
            continue;
        };
        for (name, entry) in entries {
            if let (FoundName::Instance, Some(instance)) = (entry, pattern.instance(&name)) {
                directories.extend(pattern.on_the_way(instance));
            }
        }
    }
    directories
}

/// The name of the site; `None`: it cannot be one.
fn site_name(file: &Path, instance: &OsStr) -> Option<SiteName> {
    let instance = SiteName::new(instance.to_str()?).ok()?;
    let template = manifest::template_name(file)?;
    SiteName::new(&format!("{template}@{instance}")).ok()
}

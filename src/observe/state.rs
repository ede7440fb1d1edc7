//! The directories of records and locks, and reading the records.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::geteuid;

use super::lost_placeholders::beneath_grafts;
use super::record::{BootId, BootRecord, KnownGraft, PersistentRecord, RecordedMount, Unreadable};
use super::record_file::{WITHOUT_TEMPLATE_RECORD, record_bytes, refuse_newer};
use super::records_ahead::{ParsedRecords, RecordsAhead};
use super::template_look::by_looking;
use super::template_records::{KnownTemplate, TemplateCache};
use crate::Result;
use crate::base::{ErrorContext, HostPath, JailPath, SiteName};

/// The directories of records and locks. `run` is gone after the boot, `lib` outlives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    /// `/run/mountjail`; for the mounts in another namespace, its directory there.
    pub run: PathBuf,
    /// `/var/lib/mountjail`
    pub lib: PathBuf,
    /// `/run/mountjail`: what concerns all namespaces, such as locks.
    pub shared: PathBuf,
    /// The records of templates that were read.
    template_cache: TemplateCache,
    /// The records of sites that were read ahead.
    ahead: RecordsAhead,
}

impl Default for StateDir {
    fn default() -> Self {
        Self::with_run("/run/mountjail".into(), "/var/lib/mountjail".into())
    }
}

impl StateDir {
    fn with_run(run: PathBuf, lib: PathBuf) -> Self {
        Self {
            shared: run.clone(),
            run,
            lib,
            template_cache: TemplateCache::default(),
            ahead: RecordsAhead::default(),
        }
    }

    /// The directories below `dir`, for `--state-dir`.
    pub fn under(dir: &Path) -> Self {
        Self::with_run(dir.join("run"), dir.join("lib"))
    }

    /// The directories for the mounts in the namespace `id`. The records of what was made in the
    /// roots, and the locks, are those of all namespaces.
    #[must_use]
    pub fn of_namespace(&self, id: &str) -> Self {
        Self {
            shared: self.shared.clone(),
            ..Self::with_run(self.namespaces().join(id), self.lib.clone())
        }
    }

    /// The directory of the namespaces in which services have their sites.
    pub fn namespaces(&self) -> PathBuf {
        self.shared.join("namespaces")
    }

    /// The record of the site's mounts.
    pub fn record(&self, site: &SiteName) -> PathBuf {
        self.run.join(format!("{site}.json"))
    }

    /// The site's lock.
    pub fn lock(&self, site: &SiteName) -> PathBuf {
        self.shared.join(format!("{site}.lock"))
    }

    /// The lock for edits of the host's files, such as `/etc/fstab`. No site can have this name.
    pub fn edit_lock(&self) -> PathBuf {
        self.shared.join(".edit.lock")
    }

    /// The record that outlives a boot.
    pub fn kept(&self, site: &SiteName) -> PathBuf {
        self.lib.join(format!("{site}.json"))
    }

    /// Whether these are the directories for the mounts in a namespace of a service.
    pub fn is_of_namespace(&self) -> bool {
        self.run != self.shared
    }

    /// The sites that have a record.
    ///
    /// Errors: the records cannot be listed. To a user who may not, there are none.
    pub fn recorded_sites(&self) -> Result<Vec<SiteName>> {
        let mut sites = sites_recorded_in(&self.run)?;
        sites.extend(sites_recorded_in(&self.lib)?);
        sites.sort();
        sites.dedup();
        Ok(sites)
    }

    /// The directory of the templates, and of their records: they are kept as sites are, and end
    /// with the boot.
    #[must_use]
    pub fn templates(&self) -> Self {
        let run = self.run.join("templates");
        let lib = run.join("made");
        Self {
            template_cache: self.template_cache.clone(),
            ..Self::with_run(run, lib)
        }
    }

    /// The directory with an empty directory per site that has a graft of the template.
    pub(crate) fn sites_of(&self, template: &SiteName) -> PathBuf {
        self.run.join(format!("{template}.sites"))
    }

    /// The grafts in `record`. If a template is lost with its record, the mounts that came along
    /// with its graft are unknown.
    ///
    /// Errors: the record of a template cannot be read now, or not by this mountjail.
    fn grafts(&self, record: &BootRecord) -> Result<Vec<KnownGraft>> {
        let templates = self.templates();
        let mut grafts = vec![];
        for mount in &record.mounts {
            let Some(name) = &mount.template else {
                continue;
            };
            let (mut contents, mut members) = (None, Arc::default());
            let template = templates.template_of(name, &record.boot, mount)?;
            let members_are_lost = template.is_none();
            if let Some(template) = template {
                members = Arc::clone(&template.members);
                if let Some(known) = &template.contents {
                    contents.clone_from(&known.key);
                }
            }
            grafts.push(KnownGraft {
                target: mount.target.clone(),
                template: name.clone(),
                contents,
                alone: has_one_directory(&templates.sites_of(name)),
                members_are_lost,
                may_be_a_copy: false,
                members,
            });
        }
        Ok(grafts)
    }

    /// What is known about the template of `graft`: by its record, or by looking at the template if
    /// that is lost. The name of a template that is gone may be given to a new one.
    fn template_of(
        &self,
        name: &SiteName,
        boot: &BootId,
        graft: &RecordedMount,
    ) -> Result<Option<Arc<KnownTemplate>>> {
        if let Some(recorded) = self.known_template(name, boot)? {
            return Ok(Some(recorded));
        }
        let seen = self.template_by_looking(name, boot, &graft.target);
        let seen = seen.map(KnownTemplate::new);
        Ok(seen.filter(|seen| seen.shows(graft.file)).map(Arc::new))
    }

    /// A record of the template as it is now, if its grafts show the directory `at`.
    pub(crate) fn template_by_looking(
        &self,
        name: &SiteName,
        boot: &BootId,
        at: &JailPath,
    ) -> Option<BootRecord> {
        by_looking(&self.run, name, boot, at)
    }

    /// The facts in the record of a template, if there is one of this boot.
    pub(crate) fn known_template(
        &self,
        name: &SiteName,
        boot: &BootId,
    ) -> Result<Option<Arc<KnownTemplate>>> {
        self.template_cache.get(name, &self.record(name), boot)
    }

    /// Whether the site has a graft of the template, by its record. `true` if that cannot be used.
    pub(crate) fn may_graft(&self, site: &SiteName, template: &SiteName) -> bool {
        let Ok(bytes) = record_bytes(&self.record(site)) else {
            return true;
        };
        let Some(bytes) = bytes else {
            return false;
        };
        match BootRecord::parse(&bytes) {
            Ok(record) => {
                let mut mounts = record.mounts.iter();
                mounts.any(|mount| mount.template.as_ref() == Some(template))
            }
            Err(_) => true,
        }
    }

    /// The record of a template, if there is one of this boot.
    pub(crate) fn template(&self, name: &SiteName, boot: &BootId) -> Option<BootRecord> {
        let record = BootRecord::parse(&record_bytes(&self.record(name)).ok()??).ok()?;
        (record.boot == *boot).then_some(record)
    }

    /// The sites that have a record of this boot.
    pub fn sites_of_boot(&self) -> Result<Vec<SiteName>> {
        let mut sites = sites_recorded_in(&self.run)?;
        sites.sort();
        Ok(sites)
    }

    /// The records of `site`. A record that is damaged or of another boot counts as lost. A record
    /// that cannot be read now, or not by this mountjail, is an error, because it would otherwise
    /// be overwritten.
    pub fn read(&self, site: &SiteName, boot: &BootId) -> Result<SiteRecords> {
        let (run, lib) = (self.record(site), self.kept(site));
        let files = [run.as_path(), lib.as_path()];
        let parsed = match self.ahead.take(site, files)? {
            Some(parsed) => parsed,
            None => ParsedRecords::read(files)?,
        };
        self.records_of(site, boot, parsed)
    }

    /// As [`read`](Self::read). What was read is remembered for the next time, if it is not
    /// replaced until then.
    pub(crate) fn read_ahead(&self, site: &SiteName, boot: &BootId) -> Result<SiteRecords> {
        let (run, lib) = (self.record(site), self.kept(site));
        let parsed = self.ahead.read(site, [run.as_path(), lib.as_path()])?;
        self.records_of(site, boot, parsed)
    }

    fn records_of(
        &self,
        site: &SiteName,
        boot: &BootId,
        parsed: ParsedRecords,
    ) -> Result<SiteRecords> {
        let (run, lib) = (self.record(site), self.kept(site));
        let ParsedRecords { record, kept } = parsed;
        let versions = [
            (run.as_path(), newer(record.as_ref())),
            (lib.as_path(), newer(kept.as_ref())),
        ];
        refuse_newer(&versions, &self.without_records(site))?;

        let mut warnings = vec![];
        let is_absent = kept.is_none();
        let record = or_lost(record, &run, &mut warnings);
        let record = record.filter(|found| found.boot == *boot);
        let mut kept = or_lost(kept, &lib, &mut warnings);
        let mut grafts = vec![];
        if let Some(found) = &record {
            grafts = self.grafts(found)?;
            kept = kept.or_else(|| beneath_grafts(found));
        }
        if is_absent && let Some(found) = &kept {
            warnings.push(format!(
                "the record {} is lost: of what mountjail made in {}, only the directories \
                 beneath grafts are known; other placeholders stay",
                lib.display(),
                found.root
            ));
        }
        Ok(SiteRecords {
            record,
            kept,
            grafts,
            warnings,
            ..self.no_records(boot)
        })
    }

    /// Whether no mounts of `site` are recorded: it is down.
    pub(crate) fn lacks_record(&self, site: &SiteName) -> bool {
        let found = self.record(site).symlink_metadata();
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// What can be done about `site` without its records, in words.
    fn without_records(&self, site: &SiteName) -> String {
        if self.lib.starts_with(&self.run) {
            return WITHOUT_TEMPLATE_RECORD.to_owned();
        }
        format!("`mountjail down {site}` finds the mounts by looking, and placeholders stay")
    }

    /// The records of a site of which none can be read.
    pub fn no_records(&self, boot: &BootId) -> SiteRecords {
        let templates = TemplateRecords {
            state: self.templates(),
            boot: boot.clone(),
        };
        SiteRecords {
            templates: Some(templates),
            ..SiteRecords::default()
        }
    }
}

fn sites_recorded_in(directory: &Path) -> Result<Vec<SiteName>> {
    let names = names_in(directory).context(format_args!(
        "cannot list the records in {}",
        directory.display()
    ))?;
    let mut sites = vec![];
    for name in names {
        if let Some(name) = name.to_str()
            && let Some(name) = name.strip_suffix(".json")
            && let Ok(site) = SiteName::new(name)
        {
            sites.push(site);
        }
    }
    Ok(sites)
}

/// The names in the directory `dir`, if there is one and this user may read it.
fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root() => {
            return Ok(vec![]);
        }
        entries => entries?,
    };
    let mut names = vec![];
    for entry in entries {
        names.push(entry?.file_name());
    }
    Ok(names)
}

/// Where the templates of this boot are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateRecords {
    pub(super) state: StateDir,
    pub(super) boot: BootId,
}

/// The records of one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteRecords {
    /// The record of this boot.
    pub record: Option<BootRecord>,
    /// The record that outlives the boot.
    pub kept: Option<PersistentRecord>,
    /// The recorded grafts, with the mounts that came along, by the records of their templates.
    pub grafts: Vec<KnownGraft>,
    /// The templates, to recognise grafts whose record is lost.
    pub templates: Option<TemplateRecords>,
    /// Warnings about records that could not be used, in sentences.
    pub warnings: Vec<String>,
}

impl SiteRecords {
    /// The root that the records are about, if there are any.
    pub fn root(&self) -> Option<&HostPath> {
        match (&self.record, &self.kept) {
            (Some(record), _) => Some(&record.root),
            (None, Some(kept)) => Some(&kept.root),
            (None, None) => None,
        }
    }

    /// Whether it is unknown what came along with a graft.
    pub fn lack_members(&self) -> bool {
        self.grafts.iter().any(|graft| graft.members_are_lost)
    }

    /// The manifest that the site was brought up with, if it is recorded.
    pub fn manifest(&self) -> Option<&Path> {
        if let Some(record) = &self.record
            && let Some(manifest) = &record.manifest
        {
            return Some(manifest);
        }
        self.kept.as_ref()?.manifest.as_deref()
    }
}

/// Whether the directory has one directory in it, by its number of links: tmpfs counts them.
fn has_one_directory(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.nlink() == 3)
}

fn newer<T>(read: Option<&Result<T, Unreadable>>) -> Option<u32> {
    match read {
        Some(Err(Unreadable::Newer(version))) => Some(*version),
        _ => None,
    }
}

/// The record that was read, if there is one. A damaged one is lost, which adds a warning.
fn or_lost<T>(
    read: Option<Result<T, Unreadable>>,
    path: &Path,
    warnings: &mut Vec<String>,
) -> Option<T> {
    match read? {
        Ok(record) => Some(record),
        Err(why) => {
            warnings.push(format!(
                "the record {} is damaged ({why}) and counts as lost: its mounts are found by \
                 looking at the mount table; its placeholders stay",
                path.display()
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_directories(state: &StateDir) {
        fs::create_dir_all(&state.run).unwrap();
        fs::create_dir_all(&state.lib).unwrap();
    }

    #[test]
    fn a_damaged_record_counts_as_lost_and_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        make_directories(&state);
        let site = SiteName::new("a").unwrap();
        let boot = BootId("b".into());
        assert_eq!(state.read(&site, &boot), Ok(state.no_records(&boot)));
        fs::write(state.record(&site), "{\"version\":1,").unwrap();
        fs::write(state.kept(&site), "\0\0\0").unwrap();
        let records = state.read(&site, &boot).unwrap();
        assert_eq!(
            (records.record, records.kept, records.warnings.len()),
            (None, None, 2)
        );
        assert_eq!(state.recorded_sites().unwrap(), [site]);
    }

    #[test]
    fn a_record_of_a_newer_mountjail_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(&dir.path().join("a b"));
        make_directories(&state);
        let (site, boot) = (SiteName::new("a").unwrap(), BootId("b".into()));
        fs::write(
            state.kept(&site),
            "{\"version\": 7, \"something\": \"new\"}",
        )
        .unwrap();
        let error = state.read(&site, &boot).unwrap_err();
        assert!(error.to_string().contains("version 7"), "{error}");
        let aside = format!("`mv '{0}' '{0}.newer'`", state.kept(&site).display());
        assert!(
            error.hint_text().is_some_and(|hint| hint.contains(&aside)),
            "{error:?}"
        );
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        let site = SiteName::new("a").unwrap();
        fs::create_dir_all(state.kept(&site)).unwrap();
        let error = state
            .read(&site, &BootId("b".into()))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read the record ") && error.ends_with("Is a directory"),
            "{error}"
        );
    }

    #[test]
    fn a_record_of_a_template_that_cannot_be_read_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        make_directories(&state);
        let (site, boot) = (SiteName::new("a").unwrap(), BootId("b".into()));
        let template = SiteName::new("template-x").unwrap();
        let record = r#"{"version":1,"boot":"b","root":"/srv/a","mounts":[{
            "target":"/etc","source":"/t/etc","file":{"dev":1,"ino":2},"recursive":true,
            "options":{"read_only":true,"nosuid":true,"nodev":true,"noexec":true},
            "unique_id":3,"template":"template-x"}]}"#;
        fs::write(state.record(&site), record).unwrap();
        let lost = state.read(&site, &boot).unwrap();
        assert_eq!(lost.grafts[0].template, template);

        fs::create_dir_all(state.templates().record(&template)).unwrap();
        let error = state.read(&site, &boot).unwrap_err().to_string();
        assert!(error.ends_with("Is a directory"), "{error}");
    }

    #[test]
    fn a_record_of_another_boot_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::under(dir.path());
        make_directories(&state);
        let site = SiteName::new("a").unwrap();
        fs::write(
            state.record(&site),
            r#"{"version":1,"boot":"old","root":"/srv/a","mounts":[]}"#,
        )
        .unwrap();
        assert_eq!(
            state.read(&site, &BootId("new".into())),
            Ok(state.no_records(&BootId("new".into())))
        );
        let old = state
            .read(&site, &BootId("old".into()))
            .unwrap()
            .record
            .unwrap();
        assert_eq!(old.history, None, "as it was written before there was one");
    }
}

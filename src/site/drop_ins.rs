//! The drop-ins for systemd in a directory of units: written, compared and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::boot::{self, Manifests, UNITS, is_service};
use super::context::Context;
use super::unit_plan::PlannedUnits;
use super::{Site, systemctl};
use crate::base::ErrorContext;
use crate::engine::{read_drop_in, remove_drop_in, write_drop_in};
use crate::manifest::Manifest;
use crate::render::systemd::{ALL, DROP_IN, HEADER, drop_in_of, unit_of};
use crate::render::wrapper::{WRAPPER, wrapper_of};
use crate::{Error, Result};

/// The drop-ins that mountjail wrote, or may write, in a directory of units.
pub(crate) struct DropInFiles<'c> {
    pub context: &'c Context,
    pub path: PathBuf,
}

impl DropInFiles<'_> {
    /// mountjail's files that none of `sites` needs; if these are `all` sites, those that no site
    /// needs, unless a manifest is not known, whose files they may be.
    pub(crate) fn unneeded(
        &self,
        planned: &PlannedUnits,
        sites: &[Site],
        all: bool,
    ) -> Result<Vec<PathBuf>> {
        let mut manifests = vec![];
        for site in sites {
            manifests.extend(planned.manifest(site));
        }
        if !all || manifests.len() < sites.len() {
            return Ok(self.unneeded_of(planned, &manifests));
        }
        // A service that does not exist now may come back.
        let mut absent = BTreeSet::new();
        for (_, manifest) in &planned.manifests {
            for unit in &manifest.services {
                if is_service(unit) && !planned.known.has(unit) {
                    absent.insert(self.path.join(drop_in_of(unit)));
                    absent.insert(self.path.join(wrapper_of(unit)));
                }
            }
        }
        let mut written = self.all_written()?;
        written.retain(|path| !absent.contains(path));
        Ok(written)
    }

    /// The files for the services of these manifests that no site needs, and that of
    /// mountjail.service if no site needs it.
    fn unneeded_of(&self, planned: &PlannedUnits, manifests: &[&Manifest]) -> Vec<PathBuf> {
        let mut units = vec![];
        for manifest in manifests {
            for unit in &manifest.services {
                if planned.known.has(unit) {
                    units.push(unit.as_str());
                }
            }
        }
        units.push(ALL);

        let mut unneeded = vec![];
        for unit in &units {
            if !planned.drop_ins.services.contains_key(*unit) {
                unneeded.push(self.path.join(drop_in_of(unit)));
            }
        }
        for unit in &units {
            let name = planned.known.ordering.name(unit);
            unneeded.push(self.path.join(wrapper_of(name)));
        }
        unneeded
    }

    /// Writes `drop_ins`, and removes those `unneeded` files that are mountjail's. Returns an error
    /// for each file for which that failed: it keeps no other site from its own.
    pub(crate) fn install(
        &self,
        drop_ins: &BTreeMap<PathBuf, &str>,
        unneeded: Vec<PathBuf>,
    ) -> Vec<Error> {
        let (mut changed, mut errors) = (false, vec![]);
        for (path, text) in drop_ins {
            let verb = match write_drop_in(path, HEADER, text) {
                Ok(true) => {
                    changed = true;
                    "wrote"
                }
                Ok(false) => "kept",
                Err(error) => {
                    errors.push(error.at(path));
                    continue;
                }
            };
            self.context
                .out
                .detail(format_args!("{verb} {}", path.display()));
        }
        let removed = self.remove(unneeded);
        self.reload(changed || !removed.files.is_empty());
        errors.extend(removed.errors);
        errors
    }

    /// The drop-ins that mountjail wrote and that are only for these sites.
    pub(crate) fn own_of(&self, going: &[Site]) -> Result<Vec<PathBuf>> {
        if !self.has_any()? {
            return Ok(vec![]);
        }
        let (mut own, of_all) = self.without(going)?;
        if let NewDropIn::Gone(path) = of_all {
            own.push(path);
        }
        own.retain(|file| is_ours(file));
        Ok(own)
    }

    /// Removes the drop-ins of these sites; returns them.
    ///
    /// Errors: one cannot be removed.
    pub(crate) fn remove_own(&self, going: &[Site]) -> Result<Vec<PathBuf>> {
        if !self.has_any()? {
            return Ok(vec![]);
        }
        let names: Vec<_> = going.iter().map(|site| site.name.as_str()).collect();
        let removed = self.remove_of(going)?;
        if removed.errors.is_empty() {
            return Ok(removed.files);
        }
        self.context.out.errors(&removed.errors);
        Err(
            Error::failed("the drop-ins for systemd cannot be removed").hint(format!(
                "`mountjail units --uninstall {}` names each of them",
                names.join(" ")
            )),
        )
    }

    /// Removes all drop-ins that mountjail wrote.
    ///
    /// Errors: they cannot be listed.
    pub(crate) fn remove_all(&self) -> Result<RemovedDropIns> {
        let removed = self.remove(self.all_written()?);
        self.reload(!removed.files.is_empty());
        Ok(removed)
    }

    /// Removes the drop-ins of the sites `going`, but not those of a service that another site
    /// names or may name, too.
    ///
    /// Errors: the sites cannot be listed.
    pub(crate) fn remove_of(&self, going: &[Site]) -> Result<RemovedDropIns> {
        let (mut leaving, of_all) = self.without(going)?;
        if let NewDropIn::Gone(path) = &of_all {
            leaving.push(path.clone());
        }
        let mut removed = self.remove(leaving);
        let mut rewritten = false;
        if let NewDropIn::Text(path, text) = of_all {
            match write_drop_in(&path, HEADER, &text) {
                Ok(written) => rewritten = written,
                Err(error) => removed.errors.push(error.at(path)),
            }
        }
        self.reload(rewritten || !removed.files.is_empty());
        Ok(removed)
    }

    /// The drop-ins that are only for the sites `going`, and what becomes of that of
    /// mountjail.service without these.
    fn without(&self, going: &[Site]) -> Result<(Vec<PathBuf>, NewDropIn)> {
        let manifests = boot::manifests(self.context, going)?;
        for site in going {
            if manifests.unusable.contains_key(&site.name) {
                self.context.out.site(&site.name).warn(
                    "without a manifest that can be used, the drop-ins of its services are not \
                     known: `mountjail units --all --install` removes those that no site needs",
                );
            }
        }
        if manifests.has_all_besides(going) {
            let written = self.written_for(going, &manifests);
            return Ok((written, self.new_drop_in_of_all(going)?));
        }
        self.context.out.warn(
            "the drop-ins of services stay, because sites whose manifests cannot be used may need \
             them: `mountjail check` names these manifests; once they are corrected, \
             `mountjail units --all --install` removes the drop-ins that no site needs",
        );
        let own = going.iter().map(|site| self.of_own_unit(site));
        Ok((own.collect(), NewDropIn::None))
    }

    /// Whether there is any drop-in that mountjail may have written.
    fn has_any(&self) -> Result<bool> {
        Ok(self.all_written()?.iter().any(|file| file.exists()))
    }

    /// The places of all drop-ins that mountjail may have written.
    fn all_written(&self) -> Result<Vec<PathBuf>> {
        let cannot = format_args!("cannot list {}", self.path.display());
        let directories = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            directories => directories.context(cannot)?,
        };
        let mut files = vec![];
        for directory in directories {
            let directory = directory.context(cannot)?.path();
            files.push(directory.join(DROP_IN));
            files.push(directory.join(WRAPPER));
        }
        files.sort();
        Ok(files)
    }

    /// The places of the drop-ins that are only for the sites `going`.
    fn written_for(&self, going: &[Site], manifests: &Manifests) -> Vec<PathBuf> {
        let mut needed = BTreeSet::new();
        for (site, manifest) in &manifests.known {
            if !going.contains(site) {
                needed.extend(&manifest.services);
            }
        }
        let mut files = vec![];
        for site in going {
            if let Some(manifest) = boot::manifest_of(site, &manifests.known) {
                for service in &manifest.services {
                    if !needed.contains(service) {
                        files.push(self.path.join(drop_in_of(service)));
                        files.push(self.path.join(wrapper_of(service)));
                    }
                }
            }
            files.push(self.of_own_unit(site));
        }
        files
    }

    /// The place of the drop-in of the site's own unit.
    fn of_own_unit(&self, site: &Site) -> PathBuf {
        self.path.join(drop_in_of(&unit_of(&site.name)))
    }

    /// The drop-in of mountjail.service without the sites `going`.
    fn new_drop_in_of_all(&self, going: &[Site]) -> Result<NewDropIn> {
        let path = self.path.join(drop_in_of(ALL));
        if matches!(read_drop_in(&path), Ok(None)) {
            return Ok(NewDropIn::None);
        }
        let counts = |site: &Site| !going.contains(site);
        let planned = PlannedUnits::new(self.context, &self.path, &[], counts)?;
        Ok(match planned.drop_ins.all {
            Some(drop_in) => NewDropIn::Text(path, drop_in.text),
            None => NewDropIn::Gone(path),
        })
    }

    /// Has systemd read its units again if they changed.
    fn reload(&self, changed: bool) {
        if !changed || self.path != Path::new(UNITS) || !systemctl::is_running() {
            return;
        }
        if let Err(error) = systemctl::systemctl(&["daemon-reload"]) {
            self.context.out.warn(error);
        }
    }

    /// Removes those of `files` that are mountjail's.
    fn remove(&self, files: Vec<PathBuf>) -> RemovedDropIns {
        let mut removed = RemovedDropIns::default();
        for file in files {
            match remove_drop_in(&file, HEADER) {
                Ok(true) => {
                    let text = format_args!("removed {}", file.display());
                    self.context.out.info(text);
                    removed.files.push(file);
                }
                Ok(false) => {}
                Err(error) => removed.errors.push(error.at(file)),
            }
        }
        removed
    }
}

/// The drop-ins that were removed.
#[derive(Default)]
pub(crate) struct RemovedDropIns {
    pub files: Vec<PathBuf>,
    /// Why others were not.
    pub errors: Vec<Error>,
}

/// Whether mountjail wrote the drop-in.
fn is_ours(file: &Path) -> bool {
    match read_drop_in(file) {
        Ok(Some(text)) => text.starts_with(HEADER),
        _ => false,
    }
}

/// Whether the file at `path` has lines that are not in `text`, or cannot be read.
pub(crate) fn may_lose_lines(path: &Path, text: &str) -> bool {
    let lines: BTreeSet<_> = text.lines().collect();
    match read_drop_in(path) {
        Ok(found) => found
            .unwrap_or_default()
            .lines()
            .any(|line| !lines.contains(line)),
        Err(_) => true,
    }
}

/// What becomes of the drop-in of mountjail.service.
enum NewDropIn {
    /// It stays, or there is none.
    None,
    /// It gets this text.
    Text(PathBuf, String),
    /// No site needs it any more.
    Gone(PathBuf),
}

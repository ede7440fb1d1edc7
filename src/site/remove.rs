//! A site is taken down, and its manifest goes: nothing is left of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{AccessFlags, access};

use super::apply::ManifestChange;
use super::boot::UNITS;
use super::configuration::{self, has_manifest, own_file, site_named};
use super::context::Context;
use super::down::{DownError, DownOptions, TakeDown, TakenDown, has_copies_aside};
use super::down_in_services::down_in_services;
use super::drop_ins::DropInFiles;
use super::fstab::FstabLines;
use super::select::brought_up_by;
use super::{Site, SiteError, manifest_file};
use crate::adopt::DIRECTORY;
use crate::base::{ErrorContext, SiteName};
use crate::engine::remove_file;
use crate::manifest;
use crate::observe::{self, SiteRecords, Table};
use crate::patience::Stop;
use crate::plan::Plan;
use crate::resolve::Host;
use crate::{Error, Result};

/// A site that was removed.
pub(crate) struct Removed {
    pub manifest: ManifestChange,
    /// `None`: it was not up, and nothing was in its root.
    pub down: Option<TakenDown>,
    /// The drop-ins that were removed.
    pub drop_ins: Vec<PathBuf>,
    /// How it was before.
    pub plan: Option<Plan>,
}

impl Removed {
    /// Whether anything was done.
    pub(crate) fn is_change(&self) -> bool {
        let was_up = self.down.as_ref().is_some_and(|down| down.changed);
        self.manifest.is_change() || was_up || !self.drop_ins.is_empty()
    }
}

/// How a site would be removed.
pub(crate) struct Removal {
    pub manifest: ManifestChange,
    /// `None`: there is nothing to take down.
    pub plan: Option<Plan>,
    /// The drop-ins that would be removed.
    pub drop_ins: Vec<PathBuf>,
    /// There are records of it.
    is_recorded: bool,
}

impl Removal {
    /// Whether anything would be done.
    pub(crate) fn is_change(&self) -> bool {
        let plan = self.plan.as_ref();
        let has_steps = plan.is_some_and(|plan| !plan.steps.is_empty());
        has_steps || self.manifest.is_change() || self.is_recorded || !self.drop_ins.is_empty()
    }
}

/// Removes sites.
pub(crate) struct Remover {
    context: &'static Context,
    options: DownOptions,
    /// Its drop-ins are removed, too.
    with_drop_ins: bool,
}

/// The parts of a site that are there.
struct There {
    site: Site,
    manifest: ManifestChange,
    records: SiteRecords,
}

impl There {
    fn is_recorded(&self) -> bool {
        self.records.record.is_some() || self.records.kept.is_some()
    }
}

impl Remover {
    pub(crate) fn new(
        context: &'static Context,
        options: DownOptions,
        with_drop_ins: bool,
    ) -> Self {
        Self {
            context,
            options,
            with_drop_ins,
        }
    }

    /// The site of this name, which can be removed.
    ///
    /// Errors: it is a template of sites.
    pub(crate) fn site(&self, name: SiteName) -> Result<Site> {
        let file = own_file(&self.context.config, &name);
        if manifest::template_name(&file).is_some() {
            let failed = Error::usage(format!("{name} is a template of sites"));
            return Err(failed.hint(format!(
                "`mountjail down {name}`, then remove {}",
                file.display()
            )));
        }
        Ok(Site { name, file })
    }

    /// Whether there is anything of the site.
    pub(crate) fn exists(&self, site: &Site) -> Result<bool> {
        let there = self.there(site)?;
        Ok(there.manifest.is_change() || there.is_recorded() || there.site.instance().is_some())
    }

    /// What would be done.
    pub(crate) fn look(&self, site: &Site) -> Result<Removal, DownError> {
        let there = self.there(site)?;
        Self::refuse(&there)?;
        let plan = if self.is_down(&there)? {
            None
        } else {
            Some(TakeDown::new(self.context, 1, self.options)?.look(&there.site)?)
        };
        let drop_ins = match self.drop_in_files() {
            Some(files) => files.own_of(std::slice::from_ref(site))?,
            None => vec![],
        };
        Ok(Removal {
            is_recorded: there.is_recorded(),
            manifest: there.manifest,
            plan,
            drop_ins,
        })
    }

    /// Takes the site down, and removes its drop-ins and its manifest.
    pub(crate) fn remove(&self, site: &Site, stop: &Stop) -> Result<Removed, DownError> {
        let run = TakeDown::new(self.context, 1, self.options)?;

        // Lock: another mountjail finishes its work on the site first.
        let lock = run.lock(site, stop)?;
        let there = self.there(site)?;
        Self::refuse(&there)?;

        // Take it down, unless it is in use.
        let (mut plan, mut down) = (None, None);
        if !self.is_down(&there)? {
            plan = Some(run.look(&there.site)?);
            let elsewhere = self.detached_in_services(&there.site)?;
            let mut taken_down = run.locked(&there.site, &lock)?;
            taken_down.outcome.detached += elsewhere;
            taken_down.changed |= elsewhere > 0;
            down = Some(taken_down);
        }

        // Remove what else there is of it. A run that was killed before is finished by the next.
        let drop_ins = match self.drop_in_files() {
            Some(files) => files
                .remove_own(std::slice::from_ref(site))
                .context(&site.name)?,
            None => vec![],
        };
        if let Err(error) = remove_file(&site.file) {
            return Err(error.context(&site.name).hint(still_there(site)).into());
        }
        Ok(Removed {
            manifest: there.manifest,
            down,
            drop_ins,
            plan,
        })
    }

    /// The host's drop-ins for systemd; `None`: the sites are not those of the host's own
    /// configuration.
    fn drop_in_files(&self) -> Option<DropInFiles<'static>> {
        let is_of_host = self.context.config == Path::new(configuration::DEFAULT);
        (is_of_host && self.with_drop_ins).then(|| DropInFiles {
            context: self.context,
            path: PathBuf::from(UNITS),
        })
    }

    fn there(&self, site: &Site) -> Result<There> {
        let before = match manifest_file::bytes(&site.file) {
            // A link that leads nowhere, or a directory, has no text.
            Err(error) if site.file.symlink_metadata().is_ok() => {
                if error.errno() != Some(libc::ENOENT) {
                    let (file, name) = (site.file.display(), &site.name);
                    return Err(error.context(name).hint(format!(
                        "remove {file} by hand, and then run `mountjail remove --if-exists {name}`"
                    )));
                }
                Some(vec![])
            }
            before => before.context(&site.name)?,
        };
        let records = self.context.state.read(&site.name, &observe::boot_id()?);
        let records = records.context(&site.name)?;
        Ok(There {
            // An instance of a template may have no manifest of its own.
            site: site_named(&self.context.config, site.name.clone()),
            manifest: ManifestChange {
                file: site.file.clone(),
                before,
                after: None,
            },
            records,
        })
    }

    /// Refuses a site of which something would be left.
    fn refuse(there: &There) -> Result<()> {
        let Site { name, file } = &there.site;
        if let Some(other) = brought_up_by(&there.site, &there.records) {
            let failed = Error::failed(format!("{name}: {other}, and not this configuration"));
            return Err(failed.at(other.manifest).hint(format!(
                "`mountjail down {name}` takes it down there; then run the command again"
            )));
        }
        if let Some(instance) = there.site.instance()
            && has_manifest(&there.site)
        {
            let file = file.display();
            let failed = Error::failed(format!("{name} is an instance of {file}"));
            return Err(failed.hint(format!(
                "take {instance} out of `instances` there, or remove the directory that gives it, \
                 and then run the command again"
            )));
        }
        if there.manifest.is_change()
            && let Some(directory) = file.parent()
            && let Err(why) = access(directory, AccessFlags::W_OK)
        {
            let failed = Error::failed(format!("{name}: cannot remove {}", file.display()));
            return Err(failed.at(file).because(&why.into()).hint(format!(
                "make {} writable first; the site is as it was",
                directory.display()
            )));
        }
        let kept = there.records.kept.as_ref();
        let fstab = kept.and_then(|kept| kept.fstab.as_ref());
        if let Some(fstab) = FstabLines::default().file_of(name, fstab) {
            let failed = Error::failed(format!("{name}: {fstab} has lines of this site"));
            return Err(failed.hint(format!("`mountjail fstab --uninstall {name}`")));
        }
        let root = there.records.root().cloned();
        let root = root.or_else(|| manifest_file::root_of(&there.site));
        if let Some(root) = root.filter(has_copies_aside) {
            let failed = Error::failed(format!(
                "{name}: the copies that were in the way are in {root}{DIRECTORY}"
            ));
            return Err(failed.hint(format!(
                "put them back with `mountjail adopt --undo {name}`, or remove that directory"
            )));
        }
        Ok(())
    }

    /// Whether the site is known to be down: nothing is recorded, and no manifest tells more.
    ///
    /// Errors: nothing is recorded, the manifest has mistakes, and something is mounted in its
    /// root.
    fn is_down(&self, there: &There) -> Result<bool, SiteError> {
        if there.is_recorded() {
            return Ok(false);
        }
        let Err(error) = super::load::manifest(self.context, &there.site) else {
            return Ok(false);
        };
        let root = manifest_file::root_of(&there.site);
        if root.is_none() {
            self.context.out.site(&there.site.name).warn(
                "nothing is recorded of it, and its manifest does not tell its root: `findmnt` \
                 shows whether anything is mounted there",
            );
        }
        let walk = root.and_then(|root| Host::new().walk(&root).ok());
        let table = Table::read()?;
        match walk.map(|walk| table.points_below(walk.real.as_path())) {
            Some(points) if !points.is_empty() => Err(error.into()), // they may be the site's
            _ => Ok(true),
        }
    }

    /// Takes the site, whose lock is held, down in the mount namespaces of services; returns how
    /// many mounts were detached.
    fn detached_in_services(&self, site: &Site) -> Result<usize, DownError> {
        let take = |run: &TakeDown, site: &Site, _: &Stop| run.without_lock(site);
        let sites = std::slice::from_ref(site);
        let found = down_in_services(self.context, sites, self.options, &Arc::default(), take)?;
        let mut detached = 0;
        for (_, result) in found.into_values().flatten() {
            if let Some(taken_down) = result? {
                detached += taken_down.outcome.detached;
            }
        }
        Ok(detached)
    }
}

fn still_there(site: &Site) -> String {
    let file = site.file.display();
    format!("the site is down; remove {file} by hand, or run the command again")
}

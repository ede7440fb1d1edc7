//! Looks at one site as it is now.

mod elsewhere;
mod mounts;
mod paths;
mod root;

pub(crate) use self::elsewhere::look_into_grafts;
pub(super) use self::mounts::listed;

use std::fs;
use std::io;

use self::root::{ObservedRoot, cannot_ask};
use super::file_systems;
use super::holders;
use super::lost_grafts;
use super::observed::Observed;
use super::record::{CreatedKind, RootDirectory};
use super::recorded::only_of;
use super::state::SiteRecords;
use super::strays::find_strays;
use super::submounts;
use super::table::Table;
use crate::base::JailPath;
use crate::resolve::Desired;
use crate::sys;
use crate::{Error, Result};

/// Observes the site `desired` at its targets and at those in `records`.
///
/// With a table, each target is looked up in it. Without one, the kernel is asked target by target
/// with statmount(2) (Linux 6.8), and mounts elsewhere below the root are not seen.
///
/// Errors: the root, or something below it, cannot be looked at. A root that does not exist is
/// taken as empty.
pub fn observe(desired: &Desired, records: SiteRecords, table: Option<&Table>) -> Result<Observed> {
    let templates = records.templates.clone();
    let observed = look(desired, records, table)?;
    let found = templates.and_then(|known| lost_grafts::found(&observed, desired, &known));
    match found {
        Some(records) => look(desired, records, table),
        None => Ok(observed),
    }
}

fn look(desired: &Desired, records: SiteRecords, table: Option<&Table>) -> Result<Observed> {
    let mut observed = only_of(&desired.root, records);
    observed.current_files = desired
        .files
        .iter()
        .filter(|file| fs::read(&file.path).is_ok_and(|found| found == file.contents))
        .map(|file| file.path.clone())
        .collect();

    let root = match sys::open_host(desired.root.as_path(), libc::O_PATH | libc::O_DIRECTORY) {
        Ok(root) => root,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT)) => {
            find_strays(&mut observed); // the root itself may have been moved away
            return Ok(observed);
        }
        Err(error) => {
            return Err(
                Error::failed(format!("cannot open the root {}", desired.root)).because(&error),
            );
        }
    };

    let failed =
        |error| Error::failed(format!("cannot look at the root {}", desired.root)).because(&error);
    let stat = sys::stat_fd(&root).map_err(failed)?;
    observed.directory = RootDirectory::of(&stat);
    let mut site = ObservedRoot::new(root, stat, desired, &observed, table);
    site.look(desired, &mut observed)?;
    observed.holders = holders::holders(&desired.root, site.apart.take(), &observed, table)?;
    find_strays(&mut observed);
    Ok(observed)
}

impl ObservedRoot<'_> {
    fn look(&mut self, desired: &Desired, observed: &mut Observed) -> Result<()> {
        let targets = desired.mounts.iter().map(|mount| &mount.target);
        let members: Vec<_> = observed.member_targets().cloned().collect();
        for target in targets.chain(&self.recorded).chain(&members) {
            if observed.mounts.contains_key(target) {
                continue;
            }
            let stat = match self.stat(target) {
                Ok(stat) => stat,
                Err(error) => {
                    let error = self.cannot(target, &error);
                    let Some(mounts) = self.mounts_unseen(target)? else {
                        return Err(error);
                    };
                    observed.mounts.insert(target.clone(), mounts);
                    observed.unseen.insert(target.clone(), error);
                    continue;
                }
            };
            let mounts = self.mounts(target, stat.as_ref())?;
            if mounts.is_empty() {
                self.look_at(target, stat, &mut observed.paths)?;
            } else {
                observed.mounts.insert(target.clone(), mounts);
            }
        }

        for link in &desired.links {
            let stat = self
                .stat(&link.path)
                .map_err(|error| self.cannot(&link.path, &error))?;
            self.look_at(&link.path, stat, &mut observed.paths)?;
        }

        self.look_at_what_was_made(observed)?;
        let own = desired.directories.iter().map(|own| &own.path);
        for path in desired.placeholders.iter().map(|(path, _)| path).chain(own) {
            let stat = self.stat(path).map_err(|error| self.cannot(path, &error))?;
            self.look_at(path, stat, &mut observed.paths)?;
        }
        file_systems::name(desired, observed)?;

        self.look_elsewhere(desired, observed)
            .map_err(|error| cannot_ask(self.path, &error))?;
        let file_at = |path: &JailPath| self.stat(path).ok().flatten().map(|stat| stat.file);
        submounts::name_moved(observed, file_at);
        submounts::compare(desired, observed, file_at);
        Ok(())
    }

    /// Looks at all directories that were made in the root, if a graft can go there.
    fn look_at_what_was_made(&self, observed: &mut Observed) -> Result<()> {
        if !self.has_soil {
            return Ok(());
        }
        let kept = observed.kept.iter().flat_map(|kept| &kept.made);
        let directories = kept.filter(|made| made.kind == CreatedKind::Directory);
        let is_mounted = |path: &JailPath| observed.mounts.contains_key(path);
        let bare = directories.filter(|made| {
            !is_mounted(&made.path) && !made.path.directories_above().iter().any(is_mounted)
        });
        let paths: Vec<_> = bare.map(|made| made.path.clone()).collect();
        for path in paths {
            let stat = self
                .stat(&path)
                .map_err(|error| self.cannot(&path, &error))?;
            self.look_at(&path, stat, &mut observed.paths)?;
        }
        Ok(())
    }

    fn cannot(&self, target: &JailPath, error: &io::Error) -> Error {
        let cannot =
            Error::failed(format!("cannot look at {}", self.path.inside(target))).because(error);
        match cannot.errno() {
            // It was there just before, or it was a link and is not one any more.
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EINVAL) => cannot.overtaken(),
            _ => cannot,
        }
    }
}

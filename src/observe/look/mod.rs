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
use crate::base::{ErrorContext, JailPath};
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
    if let Some(templates) = templates
        && let Some(records) = lost_grafts::found(&observed, desired, &templates)
    {
        return look(desired, records, table);
    }
    Ok(observed)
}

fn look(desired: &Desired, records: SiteRecords, table: Option<&Table>) -> Result<Observed> {
    let mut observed = only_of(&desired.root, records);
    for file in &desired.files {
        if let Ok(found) = fs::read(&file.path)
            && found == file.contents
        {
            observed.current_files.insert(file.path.clone());
        }
    }

    let root = match sys::open_host(desired.root.as_path(), libc::O_PATH | libc::O_DIRECTORY) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            find_strays(&mut observed); // the root itself may have been moved away
            return Ok(observed);
        }
        result => result.context(format_args!("cannot open the root {}", desired.root))?,
    };
    let stat =
        sys::stat_fd(&root).context(format_args!("cannot look at the root {}", desired.root))?;
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
            if !observed.mounts.contains_key(target) {
                self.look_at_target(target, observed)?;
            }
        }
        for link in &desired.links {
            self.look_at_path(&link.path, observed)?;
        }
        self.look_at_what_was_made(observed)?;
        for (path, _) in &desired.placeholders {
            self.look_at_path(path, observed)?;
        }
        for own in &desired.directories {
            self.look_at_path(&own.path, observed)?;
        }
        file_systems::name(desired, observed)?;

        self.look_elsewhere(desired, observed)
            .map_err(|error| cannot_ask(self.path, &error))?;
        let file_at = |path: &JailPath| Some(self.stat(path).ok()??.file);
        submounts::name_moved(observed, file_at);
        submounts::compare(desired, observed, file_at);
        Ok(())
    }

    /// Adds the mounts at `target`, or what else is there.
    fn look_at_target(&self, target: &JailPath, observed: &mut Observed) -> Result<()> {
        let stat = match self.stat(target) {
            Ok(stat) => stat,
            Err(error) => {
                let error = self.cannot(target, &error);
                let Some(mounts) = self.mounts_unseen(target)? else {
                    return Err(error);
                };
                observed.mounts.insert(target.clone(), mounts);
                observed.unseen.insert(target.clone(), error);
                return Ok(());
            }
        };
        let mounts = self.mounts(target, stat.as_ref())?;
        if mounts.is_empty() {
            return self.look_at(target, stat, &mut observed.paths);
        }
        observed.mounts.insert(target.clone(), mounts);
        Ok(())
    }

    /// Looks at all directories that were made in the root, if a graft can go there.
    fn look_at_what_was_made(&self, observed: &mut Observed) -> Result<()> {
        if !self.has_soil {
            return Ok(());
        }
        let mut bare = vec![];
        for made in observed.kept.iter().flat_map(|kept| &kept.made) {
            if made.kind == CreatedKind::Directory && !is_in_mounts(&made.path, observed) {
                bare.push(made.path.clone());
            }
        }
        for path in &bare {
            self.look_at_path(path, observed)?;
        }
        Ok(())
    }

    fn look_at_path(&self, path: &JailPath, observed: &mut Observed) -> Result<()> {
        let stat = self.stat(path).map_err(|error| self.cannot(path, &error))?;
        self.look_at(path, stat, &mut observed.paths)
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

/// Whether a target with mounts is at `path` or above it.
fn is_in_mounts(path: &JailPath, observed: &Observed) -> bool {
    let mut above = path.directories_above().into_iter();
    observed.mounts.contains_key(path) || above.any(|above| observed.mounts.contains_key(&above))
}

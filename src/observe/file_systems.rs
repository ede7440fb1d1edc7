//! The file systems that a site has for itself, as the kernel shows them.

use std::collections::HashMap;
use std::path::Path;

use super::mountinfo;
use super::namespace::OWN_TABLE;
use super::observed::Observed;
use crate::base::FileSystem;
use crate::resolve::Desired;
use crate::{Error, Result};

/// Tells for the mounts at the targets of file systems of the site's own what they are. The table
/// is read only if there are any.
pub(super) fn name(desired: &Desired, observed: &mut Observed) -> Result<()> {
    let own = desired
        .mounts
        .iter()
        .filter(|mount| mount.file_system.is_some());
    let targets: Vec<_> = own.map(|mount| &mount.target).collect();
    if targets
        .iter()
        .all(|target| !observed.mounts.contains_key(target))
    {
        return Ok(());
    }
    let text = std::fs::read(OWN_TABLE)
        .map_err(|error| Error::failed("cannot read the table of mounts").because(&error))?;
    let shown: HashMap<u64, FileSystem> = mountinfo::lines(&text)
        .filter(|line| line.mount.root == Path::new("/"))
        .filter_map(|line| {
            let shown = FileSystem::shown(&line.kind, &line.options)?;
            Some((line.mount.id, shown))
        })
        .collect();
    for target in targets {
        for seen in observed.mounts.get_mut(target).into_iter().flatten() {
            seen.file_system = shown.get(&seen.id).copied();
        }
    }
    Ok(())
}

/// The topmost mount at `point`, if a site could have it for itself.
pub(crate) fn file_system_at(point: &Path) -> std::io::Result<Option<FileSystem>> {
    let text = std::fs::read(OWN_TABLE)?;
    let top = mountinfo::lines(&text)
        .filter(|line| line.mount.point == point)
        .last();
    Ok(top.and_then(|line| FileSystem::shown(&line.kind, &line.options)))
}

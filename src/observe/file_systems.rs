//! The file systems that a site has for itself, as the kernel shows them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use super::mountinfo;
use super::observed::Observed;
use crate::Result;
use crate::base::FileSystem;
use crate::resolve::Desired;

/// Adds what is mounted at the targets of file systems of the site's own. The table is read only if
/// there are any.
pub(super) fn name(desired: &Desired, observed: &mut Observed) -> Result<()> {
    let mut targets = vec![];
    for mount in &desired.mounts {
        if mount.file_system.is_some() && observed.mounts.contains_key(&mount.target) {
            targets.push(&mount.target);
        }
    }
    if targets.is_empty() {
        return Ok(());
    }
    let text = mountinfo::own_text()?;
    let mut shown = HashMap::new();
    for line in mountinfo::lines(&text) {
        if line.mount.root == Path::new("/")
            && let Some(file_system) = FileSystem::shown(&line.kind, &line.options)
        {
            shown.insert(line.mount.id, file_system);
        }
    }
    for target in targets {
        for seen in observed.mounts.get_mut(target).into_iter().flatten() {
            seen.file_system = shown.get(&seen.id).copied();
        }
    }
    Ok(())
}

/// The file system that was mounted last at `point`, if a site could have it for itself.
pub(crate) fn file_system_at(point: &Path) -> io::Result<Option<FileSystem>> {
    let text = fs::read(mountinfo::OWN_TABLE)?;
    let mut last = None;
    for line in mountinfo::lines(&text) {
        if line.mount.point == point {
            last = FileSystem::shown(&line.kind, &line.options);
        }
    }
    Ok(last)
}

//! Files under the mount points of a root, where mounts hide them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::fstab::Bind;
use crate::base::text::plural;
use crate::base::{Extent, HostPath};
use crate::sys::{self, FileKind, proc};

/// The remark on the lines whose mount points are not empty: once nothing is mounted there, the
/// site cannot come up, because it hides nothing.
pub(super) fn remark(site: &str, root: &HostPath, binds: &[&Bind]) -> Option<String> {
    let below = under_its_mounts(root).ok()?;
    let mut full = vec![];
    for bind in binds {
        let inside = bind.target.below(root)?;
        let is_new = full.iter().all(|known: &&Bind| known.target != bind.target);
        if is_new && is_full(&below, inside).unwrap_or(false) {
            full.push(bind);
        }
    }
    let Bind { place, target, .. } = full.first()?;
    let what = match full.as_slice() {
        [_] => format!("{target} is not empty, and the line's mount hides that"),
        _ => format!(
            "{target} is not empty, and the line's mount hides that; so it is with {} in all",
            plural(full.len(), "mount point")
        ),
    };
    Some(format!(
        "{place}: {what}. After the next boot the site could not come up: `up` hides nothing. \
         Unmount it, then `mountjail adopt {site}` shows what to do."
    ))
}

/// The directory `root` without what is mounted in it; if that needs privileges or a newer kernel,
/// as it is.
fn under_its_mounts(root: &HostPath) -> io::Result<OwnedFd> {
    let directory = sys::open_host(root.as_path(), libc::O_PATH | libc::O_DIRECTORY)?;
    Ok(sys::clone_mount(&directory, Extent::Mount).unwrap_or(directory))
}

/// Whether `path` is a directory with entries or a file with contents. A mount there is not looked
/// into.
fn is_full(root: impl AsFd, path: &Path) -> io::Result<bool> {
    let found = sys::open_unmounted(root, path, libc::O_PATH)?;
    let stat = sys::stat_fd(&found)?;
    match stat.kind {
        FileKind::Directory => {
            let listed = File::from(found);
            let mut entries = std::fs::read_dir(proc::path_of_descriptor(&listed))?;
            Ok(entries.next().is_some())
        }
        FileKind::File => Ok(stat.size > 0),
        _ => Ok(false),
    }
}

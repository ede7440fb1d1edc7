//! File systems that are mounted later at boot than the local ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::ordering::{Ordering, is_network_type, mounts_of};
use crate::base::text::unescape_octal;

/// The file systems in fstab(5) that a path may be on.
#[derive(Debug, Default)]
pub struct FileSystems {
    /// Mount point → whether the boot waits for it, for each line of fstab(5).
    listed: BTreeMap<PathBuf, bool>,
}

impl FileSystems {
    /// Reads `/etc/fstab`. Nothing is listed if it cannot be read.
    pub fn read() -> Self {
        let text = fs::read("/etc/fstab").unwrap_or_default();
        Self {
            listed: listed(&text),
        }
    }

    /// Whether a file system that holds `path` may be mounted after `local-fs.target`: by a line
    /// with `nofail`, `_netdev`, `noauto` or an automount, from the network, or by a unit of
    /// `ordering` that is not before that target. Mounts made by hand are not considered, since
    /// systemd cannot wait for them.
    pub fn may_come_late(&self, path: &Path, ordering: &Ordering) -> bool {
        for point in path.ancestors() {
            let is_slash = point.parent().is_none();
            if !is_slash && self.is_late(point, ordering) {
                return true;
            }
        }
        false
    }

    /// Whether the file system that is mounted at `point`, if any, may come late.
    fn is_late(&self, point: &Path, ordering: &Ordering) -> bool {
        if let Some(waited_for) = self.listed.get(point) {
            return !waited_for;
        }
        match mounts_of(point).first() {
            Some(unit) => {
                ordering.knows(unit)
                    && ordering.way(unit, "local-fs.target").is_none()
                    && !is_systems(point)
            }
            None => false,
        }
    }
}

/// Whether systemd mounts `point` before all else.
fn is_systems(point: &Path) -> bool {
    ["/dev", "/proc", "/run", "/sys"]
        .iter()
        .any(|early| point.starts_with(early))
}

/// The options of fstab(5) with which the boot does not wait for a file system.
const LATE: [&str; 5] = [
    "nofail",
    "_netdev",
    "noauto",
    "x-systemd.automount",
    "comment=systemd.automount",
];

fn listed(text: &[u8]) -> BTreeMap<PathBuf, bool> {
    let mut listed = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        if line.trim_ascii_start().starts_with(b"#") {
            continue;
        }
        let words = line.split(|byte| b" \t".contains(byte));
        let mut fields = words.filter(|word| !word.is_empty()).skip(1);
        let (Some(point), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        let kind = String::from_utf8_lossy(kind);
        let options = String::from_utf8_lossy(fields.next().unwrap_or_default());
        let is_late =
            is_network_type(&kind) || options.split(',').any(|option| LATE.contains(&option));
        listed.insert(unescape_octal(point), !is_late);
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_boot_does_not_wait_for_is_late() {
        let text = b"# /dev/x /comment ext4 nofail 0 0\n/dev/a / ext4 errors=remount-ro 0 1\n\
            /dev/b /srv ext4 defaults 0 2\n\
            /dev/c\t/srv/late  xfs rw,nofail 0 0\nnas:/x /nfs nfs4 rw\n\
            /dev/d /auto ext4 x-systemd.automount\n";
        let systems = FileSystems {
            listed: listed(text),
        };
        let late = |path: &str| systems.may_come_late(Path::new(path), &Ordering::default());
        assert!(
            ["/srv/late/a", "/srv/late", "/nfs/a/b", "/auto/a"]
                .into_iter()
                .all(late)
        );
        assert!(
            !["/srv/www", "/comment/a", "/elsewhere", "/"]
                .into_iter()
                .any(late)
        );
    }
}

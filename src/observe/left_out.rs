//! What the host has mounted in the sources of a site, and does not come along.

use super::table::Table;
use crate::base::text::few;
use crate::base::{HostPath, JailPath};
use crate::resolve::{Desired, FileKind, Mount};

/// How many mounts are named.
const SHOWN: usize = 3;

/// A warning for each directory of `desired` that comes without what the host has mounted in it,
/// unless other mounts of the site are at those places.
pub(crate) fn left_out(desired: &Desired, table: &Table) -> Vec<String> {
    let mut warnings = vec![];
    for mount in &desired.mounts {
        let is_alone = mount.kind == FileKind::Directory && !mount.recursive;
        if !is_alone || mount.file_system.is_some() {
            continue;
        }
        let points = table.points_below(mount.source.as_path());
        let points = points.iter().filter_map(|point| HostPath::new(point).ok());
        let points: Vec<_> = points
            .filter(|point| !is_in_another(point, mount, desired))
            .collect();
        if !points.is_empty() {
            warnings.push(warning(mount, &points));
        }
    }
    warnings
}

/// Whether what is at `point`, in the source of `mount`, is at or in another mount in the jail.
fn is_in_another(point: &HostPath, mount: &Mount, desired: &Desired) -> bool {
    let Ok(below) = point.as_path().strip_prefix(mount.source.as_path()) else {
        return true;
    };
    let inside = JailPath::normal(mount.target.as_path().join(below));
    let is_in = |other: &JailPath| inside.starts_with(other) && other.starts_with(&mount.target);
    let mut others = desired.mounts.iter().map(|other| &other.target);
    others.any(|other| *other != mount.target && is_in(other))
}

fn warning(mount: &Mount, points: &[HostPath]) -> String {
    let (source, points) = (&mount.source, few(points, SHOWN));
    let line = match mount.reasons.first() {
        Some(reason) => format!("the line ({})", reason.origin),
        None => "the line".to_owned(),
    };
    format!(
        "{source} comes without what the host has mounted in it, at {points}: \
         add that to `mounts`, or `recursive: true` to {line}"
    )
}

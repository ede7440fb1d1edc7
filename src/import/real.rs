//! Where configured paths lead, links followed as mount(8) and chroot(2) follow them.

use std::path::{Component, Path, PathBuf};

use super::fstab::FstabFile;
use crate::base::HostPath;
use crate::resolve::{Host, LookupError};

/// Where `path` leads, as `path_resolution(7)` describes it, with `..`.
pub(super) fn real(host: &Host, path: &Path) -> Result<HostPath, LookupError> {
    let mut at = HostPath::slash();
    for component in path.components() {
        at = match component {
            Component::Normal(name) => match at.join(name) {
                Ok(next) => host.walk_strictly(&next)?.real,
                Err(_) => return Err(LookupError::Missing { at }),
            },
            Component::ParentDir => at.parent().unwrap_or(at),
            _ => at,
        };
    }
    Ok(at)
}

/// `path` without `..`: what stands before one has to exist, and its links are followed.
pub(super) fn without_parents(host: &Host, path: &Path) -> Result<HostPath, LookupError> {
    let parts: Vec<_> = path.components().collect();
    let is_parent = |part: &Component<'_>| *part == Component::ParentDir;
    let end = parts.iter().rposition(is_parent).map_or(0, |last| last + 1);
    let mut at = real(host, &parts[..end].iter().collect::<PathBuf>())?;
    for part in &parts[end..] {
        if let Component::Normal(name) = part {
            at = match at.join(name) {
                Ok(next) => next,
                Err(_) => return Err(LookupError::Missing { at }),
            };
        }
    }
    Ok(at)
}

/// Where `path` leads as far as it exists; the rest is as written. A link that others than root
/// control is followed if it leads to something in its own directory.
pub(super) fn real_as_far(host: &Host, path: &HostPath) -> Result<HostPath, LookupError> {
    for above in path.ancestors() {
        let real = match host.walk_strictly(&above) {
            Ok(walk) => walk.real,
            Err(LookupError::Missing { .. } | LookupError::Dangling { .. }) => continue,
            Err(LookupError::Strange { link, to, .. }) if is_beside(&to, &link) => to,
            Err(error) => return Err(error),
        };
        return Ok(match path.below(&above) {
            Some(rest) if rest.as_os_str().is_empty() => real,
            Some(rest) => real.join(rest).unwrap_or_else(|_| path.clone()),
            None => path.clone(),
        });
    }
    Ok(path.clone())
}

fn is_beside(to: &HostPath, link: &HostPath) -> bool {
    match link.parent() {
        Some(directory) => to.starts_with(&directory),
        None => false,
    }
}

/// Has the lines name the paths that their targets lead to.
pub(super) fn follow_targets(fstab: &mut FstabFile, host: &Host) {
    for bind in &mut fstab.binds {
        match real_as_far(host, &bind.target) {
            Ok(real) if real == bind.target => {}
            Ok(real) => {
                bind.target = real;
                bind.source = mirror(host, &bind.source, &bind.target);
            }
            Err(error) => bind.astray = Some(error.to_string()),
        }
    }
    for mount in &mut fstab.others {
        if let Some(target) = &mut mount.target
            && let Ok(real) = real_as_far(host, target)
        {
            *target = real;
        }
    }
}

/// The source without links, if the target has the same path inside: /lib/x on /srv/a/lib/x, and
/// both are in usr/lib.
fn mirror(host: &Host, source: &HostPath, target: &HostPath) -> HostPath {
    let Ok(walk) = host.walk_strictly(source) else {
        return source.clone();
    };
    let real = walk.real.as_path();
    if target
        .as_path()
        .ends_with(real.strip_prefix("/").unwrap_or(real))
    {
        walk.real
    } else {
        source.clone()
    }
}

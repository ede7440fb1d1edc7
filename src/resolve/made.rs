//! Things that are made in the root for the site alone: directories, and file systems of its own.

use std::sync::Arc;

use super::desired::{Asked, Desired, FileKind, Mount, OwnDirectory, Ownership, Reason};
use super::host::{Host, HostEntry};
use super::layout::first_origin;
use super::shared::Shared;
use super::why::{mount_at, why};
use crate::base::quote::shell_word;
use crate::base::{ErrorContext, FileSystem, JailPath};
use crate::manifest::DirectoryRequest;
use crate::{Error, Result};

/// The request of a line, with its path inside.
#[derive(Clone, Debug)]
pub(super) enum Made {
    Directory(JailPath, Ownership),
    FileSystem(JailPath, FileSystem),
}

impl Made {
    /// The directory that a line asks for. Errors: its user or group does not exist.
    pub(super) fn directory(
        host: &Host,
        shared: &Shared,
        request: &DirectoryRequest,
    ) -> Result<Self> {
        let accounts = shared.accounts(host)?;
        let (mut uid, mut gid) = (0, 0);
        if let Some(user) = &request.user {
            (uid, gid) = accounts.ids(host, user)?;
        }
        if let Some(group) = &request.group {
            gid = accounts.group_id(host, group)?;
        }
        let mode = request.mode;
        let owner = Ownership { uid, gid, mode };
        Ok(Self::Directory(request.path.clone(), owner))
    }
}

/// Adds what `made` asks for to the mounts and links of `desired`.
///
/// Errors: everything that contradicts something else, or that cannot be made.
pub(super) fn add(desired: &mut Desired, made: &[Asked<'_, Made>], host: &Host) -> Vec<Error> {
    let mut errors = vec![];
    for (made, origin) in in_order(made) {
        let reason = Reason::line(origin);
        // A link of the jail may be on the way: /var/run.
        let path = match made {
            Made::Directory(path, _) | Made::FileSystem(path, _) => why(desired, path).leads_to,
        };
        if !origin.presets.is_empty() && yields(desired, made, &path) {
            continue;
        }
        let added = match made {
            Made::Directory(_, owner) => add_directory(desired, path, *owner, reason),
            Made::FileSystem(_, file_system) => {
                add_mount(desired, path, *file_system, reason, host)
            }
        };
        errors.extend(added.err());
    }
    desired.sort_mounts();
    desired.directories.sort_by(|a, b| a.path.cmp(&b.path));
    errors.extend(in_file_systems(desired));
    for directory in &desired.directories {
        let mut reasons = directory.reasons.iter();
        if !reasons.any(|reason| reason.origin.is_sites_own()) {
            continue; // a preset does not know what sites have already
        }
        match difference(desired, directory, host) {
            Ok(warning) => desired.warnings.extend(warning),
            Err(error) => errors.push(error),
        }
    }
    errors
}

/// Lines of presets after those to which they yield.
fn in_order<'a, 'm>(made: &'a [Asked<'m, Made>]) -> Vec<&'a Asked<'m, Made>> {
    let mut ordered: Vec<_> = made.iter().collect();
    ordered.sort_by_key(|(made, origin)| {
        let is_directory = matches!(made, Made::Directory(..));
        (!origin.presets.is_empty(), is_directory)
    });
    ordered
}

/// Whether a preset's line yields to another one about `path`: to any of the site's own, and a
/// directory to whatever is mounted there.
fn yields(desired: &Desired, made: &Made, path: &JailPath) -> bool {
    let is_own = |reason: &Reason| reason.chain.is_empty() && reason.origin.presets.is_empty();
    let mut directories = desired.directories.iter();
    let directory = directories.find(|known| known.path == *path);
    if directory.is_some_and(|known| known.reasons.iter().any(is_own)) {
        return true;
    }
    let is_directory = matches!(made, Made::Directory(..));
    let mount = desired.mount_at(path);
    mount.is_some_and(|mount| is_directory || mount.reasons.iter().any(is_own))
}

/// The mounts and directories of a preset by itself: `mounts`, and what `made` asks for.
pub(super) fn alone(
    mounts: &[Arc<Mount>],
    made: &[Asked<'_, Made>],
) -> (Vec<Arc<Mount>>, Vec<OwnDirectory>) {
    let mut mounts = mounts.to_vec();
    let mut directories = vec![];
    for (made, origin) in made {
        let reasons = vec![Reason::line(origin)];
        match made {
            Made::Directory(path, owner) => directories.push(OwnDirectory {
                path: path.clone(),
                owner: *owner,
                reasons,
            }),
            Made::FileSystem(target, file_system) => {
                let mount = mount(target.clone(), *file_system, reasons);
                mounts.push(Arc::new(mount));
            }
        }
    }
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    directories.sort_by(|a, b| a.path.cmp(&b.path));
    (mounts, directories)
}

fn add_directory(
    desired: &mut Desired,
    path: JailPath,
    owner: Ownership,
    reason: Reason,
) -> Result<()> {
    if let Some(mount) = mount_at(desired, &path) {
        return Err(within(&path, &reason, mount));
    }
    let mut known = desired.directories.iter_mut();
    if let Some(known) = known.find(|known| known.path == path) {
        if known.owner != owner {
            return Err(differing(&path, &known.reasons, &reason));
        }
        known.reasons.push(reason);
        return Ok(());
    }
    desired.directories.push(OwnDirectory {
        path,
        owner,
        reasons: vec![reason],
    });
    Ok(())
}

fn add_mount(
    desired: &mut Desired,
    target: JailPath,
    file_system: FileSystem,
    reason: Reason,
    host: &Host,
) -> Result<()> {
    let mut known = desired.mounts.iter_mut();
    if let Some(known) = known.find(|known| known.target == target) {
        if known.file_system != Some(file_system) {
            return Err(differing(&target, &known.reasons, &reason));
        }
        Arc::make_mut(known).reasons.push(reason);
        return Ok(());
    }
    if let Some(above) = mount_at(desired, &target)
        && !is_directory_in(above, &target, host)?
    {
        return Err(within(&target, &reason, above));
    }
    desired
        .mounts
        .push(Arc::new(mount(target, file_system, vec![reason])));
    Ok(())
}

fn mount(target: JailPath, file_system: FileSystem, reasons: Vec<Reason>) -> Mount {
    Mount {
        source: target.on_host(),
        target,
        file_system: Some(file_system),
        file: None,
        kind: FileKind::Directory,
        attributes: file_system.attributes(),
        recursive: false,
        reasons,
    }
}

/// Whether the source of `mount` has a directory where it shows `path`.
fn is_directory_in(mount: &Mount, path: &JailPath, host: &Host) -> Result<bool> {
    if mount.file_system.is_some() {
        return Ok(false);
    }
    let Some(below) = path.below(&mount.target) else {
        return Ok(false);
    };
    let Ok(source) = mount.source.join(below) else {
        return Ok(false);
    };
    let found = host
        .glimpse(&source)
        .context(format_args!("cannot look at {source}"))?;
    match found {
        Some(node) => Ok(node.stat.kind == FileKind::Directory),
        None => Ok(false),
    }
}

/// Errors for what would have to be made in a file system of the site's own.
fn in_file_systems(desired: &Desired) -> Vec<Error> {
    let mut errors = vec![];
    for own in &desired.mounts {
        if own.file_system.is_none() {
            continue;
        }
        for mount in &desired.mounts {
            if let Some(reason) = mount.reasons.first()
                && mount.target.starts_with(&own.target)
                && mount.target != own.target
            {
                errors.push(within(&mount.target, reason, own));
            }
        }
        for directory in &desired.directories {
            if let Some(reason) = directory.reasons.first()
                && directory.path.starts_with(&own.target)
            {
                errors.push(within(&directory.path, reason, own));
            }
        }
    }
    errors
}

/// The error for a path that would have to be made in `mount`.
fn within(path: &JailPath, reason: &Reason, mount: &Mount) -> Error {
    let from = match mount.reasons.first() {
        Some(because) => format!(", from {}", because.origin),
        None => String::new(),
    };
    Error::usage(format!(
        "cannot make {path} ({}): {} is mounted on {}{from}",
        reason.origin,
        mount.what(),
        mount.target,
    ))
    .hint("nothing is ever made inside another mount: choose another path, or take one line out")
}

fn differing(path: &JailPath, known: &[Reason], reason: &Reason) -> Error {
    let first = first_origin(known);
    Error::usage(format!(
        "two lines ask for {path} differently: {first}; and {}",
        reason.origin
    ))
    .hint("make the two lines agree, or take one out")
}

/// A warning if the root has the directory already, with another owner or mode.
fn difference(desired: &Desired, wanted: &OwnDirectory, host: &Host) -> Result<Option<String>> {
    let at = desired.root.inside(&wanted.path);
    let cannot = format_args!("cannot look at {at}");
    let Some(HostEntry { stat, .. }) = host.glimpse(&at).context(cannot)? else {
        return Ok(None);
    };
    let found = Ownership {
        uid: stat.uid,
        gid: stat.gid,
        mode: stat.mode & 0o7777,
    };
    if stat.kind != FileKind::Directory || found == wanted.owner {
        return Ok(None);
    }
    let Ownership { uid, gid, mode } = wanted.owner;
    let shown = at.to_string();
    let word = shell_word(&shown);
    Ok(Some(format!(
        "{at} exists already and stays as it is: {found}, not {}; \
         `chown {uid}:{gid} {word} && chmod {mode:04o} {word}` makes it so",
        wanted.owner
    )))
}

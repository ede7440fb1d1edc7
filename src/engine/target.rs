//! Questions about targets, and errors about them, that `up` and `down` share.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::fstatvfs;

use super::backend::make_private;
use super::hidden;
use super::root::Root;
use crate::base::quote::shell_path;
use crate::base::{Error, Extent, HostPath, JailPath, MountAttributes, Result};
use crate::observe::{
    CreatedKind, Identity, Observed, ObservedMount, Stray, how_to_write, unmount_command,
};
use crate::plan::{self, Plan, Step};
use crate::resolve::FileKind;
use crate::sys::{self, OnMount, Stat, proc};

/// Returns an error about `path` in the jail. EXDEV means that it, or its directory, is not on the
/// expected mount.
pub(super) fn cannot(root: &Root, what: &str, path: &JailPath, error: &io::Error) -> Error {
    let at = root.path().inside(path);
    let failed = Error::failed(format!("cannot {what} {at}")).at(at);
    if error.raw_os_error() == Some(libc::EXDEV) {
        return failed
            .because_of("something else is mounted there, or above it, since the command looked")
            .overtaken()
            .hint("run the command again: then it is named, if it still is there");
    }
    let failed = failed.because(error);
    match error.raw_os_error() {
        Some(libc::EROFS | libc::EPERM) => match how_to_write(root.path(), path) {
            Some(hint) => failed.hint(hint),
            None => failed,
        },
        _ => failed,
    }
}

/// The reason of [`is_not_mounted`], in words.
pub(super) const UNMOUNTED_MEANWHILE: &str =
    "it, or the mount that it is in, was unmounted meanwhile";

/// Whether mounting on an open file, or unmounting what is there, failed because the mount is gone
/// that was seen there: `mount(2)`, `move_mount(2)` and `umount2(2)` call this invalid.
pub(super) fn is_not_mounted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// As [`explained`], of a call that fails if the mount that was seen at `path` is gone.
pub(super) fn explained_of_mount<T>(
    root: &Root,
    what: &str,
    path: &JailPath,
    result: io::Result<T>,
) -> Result<T> {
    match result {
        Err(error) if is_not_mounted(&error) => {
            let failed = Error::failed(format!("cannot {what} {}", root.path().inside(path)));
            Err(failed.because_of(UNMOUNTED_MEANWHILE).overtaken())
        }
        result => explained(root, what, path, result),
    }
}

/// `result`, of which an error is that of [`cannot`].
pub(super) fn explained<T>(
    root: &Root,
    what: &str,
    path: &JailPath,
    result: io::Result<T>,
) -> Result<T> {
    result.map_err(|error| cannot(root, what, path, &error))
}

pub(super) fn made_kind(kind: FileKind) -> CreatedKind {
    if kind == FileKind::Directory {
        CreatedKind::Directory
    } else {
        CreatedKind::File
    }
}

/// The attributes of the mount that an open file is on.
pub(super) fn attributes_of(fd: impl AsFd) -> io::Result<MountAttributes> {
    Ok(MountAttributes::from_statfs(fstatvfs(fd)?.flags()))
}

/// The unique mount ID of the mount at `target`.
pub(super) fn unique_id_at(root: &Root, target: &JailPath) -> io::Result<Option<u64>> {
    let stat = sys::stat_fd(root.open_at(target)?)?;
    Ok(stat.unique_mount_id())
}

/// Whether the file `found` is the root of the mount `expected`.
pub(super) fn is_mount(expected: &ObservedMount, found: &Stat) -> bool {
    let id = if found.mount_id_is_unique {
        expected.unique_id
    } else {
        Some(expected.id)
    };
    match (id, found.mount_id) {
        (Some(id), Some(found)) => id == found,
        // Before Linux 5.8 statx(2) reports no mount id, so the visible file is compared.
        _ => expected.file.is_none_or(|file| file == found.file),
    }
}

/// Whether the mount found at a path is the mount `expected`. `look` returns the status of the file
/// that is visible there.
pub(super) fn is_found(
    expected: &ObservedMount,
    found: OnMount,
    look: impl FnOnce() -> io::Result<Stat>,
) -> io::Result<bool> {
    let id = match expected.unique_id {
        Some(unique_id) => sys::mount_outline(unique_id).map(|mount| mount.id),
        None => Ok(expected.id),
    };
    match (id, found.id) {
        (Ok(id), Some(found_id)) => Ok(id == found_id && found.is_root != Some(false)),
        (Err(error), Some(_)) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        _ => Ok(is_mount(expected, &look()?)),
    }
}

/// Makes the directories private that somebody else has mounted and that `plan` changes something
/// in, with all mounts in them. Such a mount may be a peer of the one that its source is on: then
/// what is mounted or unmounted in it is mounted or unmounted there as well
/// (`mount_namespaces(7)`).
pub(super) fn part_from_sources(root: &Root, plan: &Plan, observed: &Observed) -> Result<()> {
    let changed: Vec<_> = plan.steps.iter().filter_map(Step::mount_target).collect();
    for (target, stack) in &observed.mounts {
        let Some(top) = stack.last() else { continue };
        if changed.iter().any(|changed| changed.starts_with(target))
            && may_be_directory(top)
            && plan::is_taken_over(observed, target, top)
        {
            let parted = part_from_source(root, target, top);
            explained(root, "make private what is at", target, parted)?;
        }
    }
    Ok(())
}

/// Makes the mount `top` at `target` private, with all mounts in it, if it is still there.
fn part_from_source(root: &Root, target: &JailPath, top: &ObservedMount) -> io::Result<()> {
    let mount = root.open_mounted(target)?;
    let on = sys::mount_of(&mount, Path::new(""))?;
    if is_found(top, on, || sys::stat_fd(&mount))? {
        make_private(&proc::path_of_descriptor(&mount), Extent::Tree)?;
    }
    Ok(())
}

/// Whether something can be mounted in it.
fn may_be_directory(mount: &ObservedMount) -> bool {
    matches!(mount.kind, None | Some(FileKind::Directory))
}

/// Makes sure that nobody has mounted anything in `mount` at `target`, because it would be
/// unmounted with it. (Before Linux 6.8, and where a container's filter forbids listmount(2), the
/// plan checks this in the whole mount table.)
pub(super) fn nothing_inside(
    root: &Root,
    what: &str,
    target: &JailPath,
    mount: &ObservedMount,
) -> Result<()> {
    match mount.unique_id {
        Some(id) if may_be_directory(mount) => nothing_in(root, what, target, id),
        _ => Ok(()),
    }
}

/// As [`nothing_inside`], for the mount with the unique mount ID `id`.
pub(super) fn nothing_in(root: &Root, what: &str, target: &JailPath, id: u64) -> Result<()> {
    let inside = match sys::list_mounts_in(id) {
        Err(_) if !sys::probe::statmount() => return Ok(()),
        inside => explained(root, "look into", target, inside)?,
    };
    match inside.first() {
        Some(first) => Err(holds_foreign(root, what, target, *first)),
        None => Ok(()),
    }
}

/// Returns an error about the mount at `target`: the mount with the unique mount ID `foreign` is in
/// it.
pub(super) fn holds_foreign(root: &Root, what: &str, target: &JailPath, foreign: u64) -> Error {
    let failed = Error::failed(format!("cannot {what} {}", root.path().inside(target)));
    because_of_foreign(failed, root.path(), foreign)
}

/// The error about a mount in which somebody else has mounted `foreign`.
fn because_of_foreign(failed: Error, root: &HostPath, foreign: u64) -> Error {
    let point = sys::mount_point(foreign).unwrap_or_default();
    let how = unmount_command(root, &point);
    let point = point.display();
    failed
        .because_of(format!("{point} is mounted in it, and not by mountjail"))
        .hint(format!("unmount it: {how}"))
}

/// As [`cannot`], but the error names the mount above `path`, if one hides what is mounted there.
pub(super) fn cannot_reach(root: &Root, what: &str, path: &JailPath, error: &io::Error) -> Error {
    let Some(above) = hidden_by(root, path) else {
        let error = cannot(root, what, path, error);
        let covered = format!(
            "something may be mounted over the root, which hides it: `findmnt {}`",
            root.path()
        );
        return if error.errno() == Some(libc::ENOENT) {
            error.hint(covered)
        } else {
            error
        };
    };
    let how = unmount_command(root.path(), &above);
    let above = above.display();
    Error::failed(format!("cannot {what} {}", root.path().inside(path)))
        .because_of(format!("{above} is mounted above it, and not by mountjail"))
        .hint(format!("unmount that first: {how}"))
}

/// Returns an error about a mount of ours at `path` that cannot be reached, because the mount at
/// `above` hides it.
pub(super) fn hides(path: &str, above: &Path) -> Error {
    Error::failed(format!(
        "{path} stays mounted: {} is mounted above it, and not by mountjail",
        above.display()
    ))
    .hint(format!(
        "unmount that first: `umount -l {}`; then run the command again",
        shell_path(above)
    ))
}

/// The mount point of the mount that the nearest directory above `path` is on, if it is below the
/// root.
fn hidden_by(root: &Root, path: &JailPath) -> Option<PathBuf> {
    let mut above = path.directories_above().into_iter().rev();
    let nearest = above.find_map(|above| root.open_at(&above).and_then(sys::stat_fd).ok())?;
    let point = sys::stat_mount(nearest.unique_mount_id()?).ok()?.point;
    let below = point.strip_prefix(root.path()).ok()?;
    if below.as_os_str().is_empty() {
        return None;
    }
    Some(point)
}

/// Unmounts a mount of ours at the place to which it has been moved. It may be moved again
/// meanwhile; then it is looked up again.
///
/// Errors: somebody else has mounted something in it.
pub(super) fn detach_stray(root: &HostPath, stray: &Stray, observed: &Observed) -> Result<()> {
    nothing_in_stray(root, stray, observed)?;
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for _ in 0..100 {
        match umount_where_it_is(stray.unique_id) {
            Ok(()) => return Ok(()),
            Err(_) if !sys::mount_exists(stray.unique_id) => return Ok(()), // it is gone
            Err(error) => last = error,
        }
        if last.raw_os_error() == Some(libc::EOVERFLOW) {
            last = io::Error::other("it is more than 1 MiB of path names deep");
            break;
        }
    }

    if hidden::detach(stray.unique_id).is_ok() {
        return Ok(());
    }

    let target = &stray.target;
    if let Some(above) = hidden::hidden_by(stray.unique_id) {
        return Err(hides(&stray.place(), &above));
    }
    if stray.point.as_deref() == Some(root.inside(target).as_path()) {
        // It is still where it was made.
        return Err(cannot_reach(&Root::open(root)?, "detach", target, &last));
    }
    Err(cannot_detach(stray).because(&last).hint(
        "something may be mounted over the root, which hides it (`findmnt`); or \
             somebody moves the directories of \
             this root: find out who before trying again",
    ))
}

fn cannot_detach(stray: &Stray) -> Error {
    let (target, place) = (&stray.target, stray.place());
    Error::failed(format!(
        "cannot detach what was moved away from {target} to {place}"
    ))
}

/// Makes sure that nobody has mounted anything in `stray`, because it would be unmounted with it.
pub(super) fn nothing_in_stray(root: &HostPath, stray: &Stray, observed: &Observed) -> Result<()> {
    match foreign_in_stray(stray, observed) {
        Some(foreign) => Err(because_of_foreign(cannot_detach(stray), root, foreign)),
        None => Ok(()),
    }
}

/// A mount of somebody else in `stray`. If it is not known what came along with a recursive mount,
/// all of it did.
fn foreign_in_stray(stray: &Stray, observed: &Observed) -> Option<u64> {
    let mut ours = HashSet::new();
    for mount in observed.recorded_mounts() {
        let is_unclear = mount.is_tree() && mount.submounts.is_none();
        if is_unclear && mount.unique_id == Some(stray.unique_id) {
            return None;
        }
        let submounts = mount.submounts.iter().flatten();
        ours.extend(submounts.filter_map(|submount| submount.unique_id));
        ours.extend(mount.unique_id);
    }
    foreign_in(stray.unique_id, &ours, observed)
}

/// A mount in the one with the unique mount ID `id` that is neither of `ours` nor came along with a
/// graft.
pub(super) fn foreign_in(id: u64, ours: &HashSet<u64>, observed: &Observed) -> Option<u64> {
    let mut groups = HashSet::new();
    for graft in &observed.grafts {
        groups.extend(graft.members.iter().filter_map(|member| member.peer_group));
    }
    let came_along = |id: u64| {
        let master = sys::mount_outline(id).ok().and_then(|mount| mount.master);
        master.is_some_and(|group| groups.contains(&group))
    };
    let mut inside = sys::list_mounts_in(id).unwrap_or_default().into_iter();
    inside.find(|inside| !ours.contains(inside) && !came_along(*inside))
}

/// Makes sure that the mount to detach or to replace, whose root is open, is still the one that the
/// plan saw. Its server, which may be gone, is not asked.
pub(super) fn must_be(
    root: &Root,
    target: &JailPath,
    expected: &ObservedMount,
    found: &OwnedFd,
) -> Result<()> {
    let is_expected = match sys::mount_of(found, Path::new("")) {
        Ok(on) => is_found(expected, on, || sys::stat_fd(found)),
        Err(error) => Err(error),
    };
    if explained(root, "look at", target, is_expected)? {
        return Ok(());
    }
    let path = root.path().inside(target);
    Err(Error::failed(format!("the mount at {path} changed while the command ran")).overtaken())
}

/// Removes what was moved away with a mount: its placeholder and the directories made for it.
/// `made` lists what was made in the root, children before parents.
pub(super) fn clear_after(
    root: &Root,
    stray: &Stray,
    made: Vec<(&JailPath, CreatedKind, Identity)>,
) {
    let Some(point) = &stray.point else { return };
    for (path, kind, file) in made {
        let Some(below) = stray.target.below(path) else {
            continue;
        };
        let Some(at) = point.ancestors().nth(below.components().count()) else {
            continue;
        };
        // It is gone from the root. Another file, or a directory that is not empty, belongs to its
        // owner and stays.
        if let Ok(spot) = root.spot_on_host(at) {
            let _ = spot.remove(&kind, Some(file));
        }
    }
}

fn umount_where_it_is(unique_id: u64) -> io::Result<()> {
    let point = sys::mount_point(unique_id)?;
    let fd = sys::open_host(&point, libc::O_PATH)?;
    let stat = sys::stat_fd(&fd)?;
    if stat.mount_id != Some(unique_id) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY)); // another mount is on top of it
    }
    sys::umount_at(fd)
}

/// Returns sentences about those `paths` that still exist. A crashed run may have recorded a path
/// twice, once correctly.
pub(super) fn still_there(root: &Root, paths: &[JailPath]) -> Vec<String> {
    let mut sentences = vec![];
    for path in paths {
        let Ok(spot) = root.spot(path) else { continue };
        if spot.stat().is_err() {
            continue;
        }
        let why = if spot.is_at_home() {
            "it is no longer as mountjail made it"
        } else {
            "its directory is on what somebody else mounted there"
        };
        sentences.push(format!("{} stays: {why}", root.path().inside(path)));
    }
    sentences
}

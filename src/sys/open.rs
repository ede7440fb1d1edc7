//! Opens files beneath a directory, and without a link on the way: `openat2(2)`.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use super::file::FileKind;
use super::result::new_descriptor;
use super::stat::{Stat, stat_fd, with_c_path};

/// Opens `path` beneath the directory `root` with `flags` (`O_CLOEXEC` is added). No component,
/// including the last one, may be a link or lead out: `openat2(2)` with `RESOLVE_BENEATH |
/// RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS` (Linux 5.6). Without that call, and for a path
/// longer than `PATH_MAX`, it walks with `openat(O_PATH | O_NOFOLLOW)`.
///
/// Errors: ELOOP for a link, ENOENT, ENOTDIR, EACCES.
pub fn open_beneath(root: impl AsFd, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    if is_itself(path, flags) {
        return root.try_clone_to_owned();
    }
    let flags = flags | libc::O_CLOEXEC;
    match with_c_path(path, |path| openat2(root.as_raw_fd(), path, flags, BENEATH)) {
        Err(error) if is_not_offered(&error) => walk_beneath(root.as_raw_fd(), path, flags),
        result => result,
    }
}

/// Whether `path` is the open directory itself, wanted as it is: another descriptor of it is
/// enough.
fn is_itself(path: &Path, flags: i32) -> bool {
    path.as_os_str() == "." && flags == libc::O_PATH | libc::O_DIRECTORY
}

/// The statx(2) of `path` below the directory `root` of the host, with no link followed.
///
/// Errors: as [`open_beneath`] and [`open_host`].
pub fn stat_beneath(root: &Path, path: &Path) -> io::Result<Stat> {
    let root = open_host(root, libc::O_PATH | libc::O_DIRECTORY)?;
    stat_fd(open_beneath(&root, path, libc::O_PATH)?)
}

/// Opens an absolute path of the host in which no component is a link. Otherwise as
/// [`open_beneath`].
pub fn open_host(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let without_links = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    let open = |path: &CStr| openat2(libc::AT_FDCWD, path, flags | libc::O_CLOEXEC, without_links);
    match with_c_path(path, open) {
        Err(error) if is_not_offered(&error) => walk_from_slash(path, flags),
        result => result,
    }
}

/// As [`open_host`], component by component.
fn walk_from_slash(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let slash = open_at(
        libc::AT_FDCWD,
        c"/",
        libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
    )?;
    let relative = match path.strip_prefix("/").unwrap_or(path) {
        empty if empty.as_os_str().is_empty() => Path::new("."),
        relative => relative,
    };
    walk_beneath(slash.as_raw_fd(), relative, flags | libc::O_CLOEXEC)
}

/// Opens `path` with `O_PATH`, as a process whose root directory is `root` would: links are
/// followed there, and none leads out. `openat2(2)` with `RESOLVE_IN_ROOT`.
///
/// Errors: ENOSYS without that call (before Linux 5.6); ENOENT, ENOTDIR, EACCES; ELOOP also for a
/// magic link of `proc(5)`.
pub fn open_in_root(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let root = root.as_fd().as_raw_fd();
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    with_c_path(path, |path| {
        openat2(root, path, flags, libc::RESOLVE_IN_ROOT)
    })
}

/// Whether `openat2(2)` does not exist, or does not take a path of this length.
fn is_not_offered(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(errno, Some(libc::ENOSYS | libc::ENAMETOOLONG))
}

/// Opens `name` in the directory `dir` with `flags` (`O_CLOEXEC` is added), if it is not a link and
/// is on the same mount as `dir`: as [`open_beneath`], with `RESOLVE_NO_XDEV`.
///
/// Errors: EXDEV if something is mounted on it; ELOOP for a link; ENOENT.
pub fn open_unmounted(dir: impl AsFd, name: &Path, flags: i32) -> io::Result<OwnedFd> {
    let dir = dir.as_fd();
    if is_itself(name, flags) {
        return dir.try_clone_to_owned();
    }
    let flags = flags | libc::O_CLOEXEC;
    let resolve = BENEATH | libc::RESOLVE_NO_XDEV;
    match with_c_path(name, |name| openat2(dir.as_raw_fd(), name, flags, resolve)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let found = walk_beneath(dir.as_raw_fd(), name, flags)?;
            let same_mount = stat_fd(&found)?.mount_id == stat_fd(dir)?.mount_id;
            if same_mount {
                Ok(found)
            } else {
                Err(io::Error::from_raw_os_error(libc::EXDEV))
            }
        }
        result => result,
    }
}

const BENEATH: u64 =
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

fn openat2(dir: libc::c_int, path: &CStr, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    // SAFETY: `open_how` is plain integers, for which zero is valid.
    let mut how = unsafe { MaybeUninit::<libc::open_how>::zeroed().assume_init() };
    how.flags = flags as u64;
    how.resolve = resolve;
    loop {
        // SAFETY: `path` is NUL-terminated and `how` is a valid `struct open_how` of the size
        // given. It returns a new descriptor.
        let opened = unsafe {
            new_descriptor(libc::syscall(
                libc::SYS_openat2,
                dir,
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            ))
        };
        match opened {
            // A rename elsewhere raced with the walk. The manual page openat2(2) says to try again
            // on EAGAIN.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            result => return result,
        }
    }
}

fn open_at(dir: libc::c_int, name: &CStr, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: `name` is NUL-terminated. It returns a new descriptor.
    unsafe { new_descriptor(libc::openat(dir, name.as_ptr(), flags)) }
}

/// Keeps the promise of openat2 without that call: opens one component at a time with `O_NOFOLLOW`,
/// each from the one before.
fn walk_beneath(root: libc::c_int, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let on_the_way = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let names = path.components();
    let mut names = names.filter(|name| *name != Component::CurDir).peekable();

    let mut at = open_at(root, c".", on_the_way)?;
    while let Some(component) = names.next() {
        let Component::Normal(name) = component else {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        };
        let flags = if names.peek().is_none() {
            flags | libc::O_NOFOLLOW
        } else {
            on_the_way
        };
        let next = with_c_path(Path::new(name), |name| open_at(at.as_raw_fd(), name, flags))?;
        if stat_fd(&next)?.kind == FileKind::Symlink {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        at = next;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn in_a_root_links_lead_to_what_is_in_it() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        for (file, link, text) in [
            ("etc/file", "absolute", "/etc/file"),
            ("outside", "etc/above", "../../../outside"),
        ] {
            fs::write(root.join(file), "inside").unwrap();
            symlink(text, root.join(link)).unwrap();
            let directory = File::open(&root).unwrap();
            for path in [link.to_owned(), format!("/{link}")] {
                let found = open_in_root(&directory, Path::new(&path)).unwrap();
                let expected = stat_fd(File::open(root.join(file)).unwrap()).unwrap();
                assert_eq!(stat_fd(found).unwrap().file, expected.file, "{path}");
            }
        }
        let found = open_in_root(File::open(&root).unwrap(), Path::new("/usr"));
        assert_eq!(found.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn the_open_directory_itself_is_found_wherever_it_was_moved() {
        let temporary = tempfile::tempdir().unwrap();
        let (before, after) = (temporary.path().join("a"), temporary.path().join("b"));
        fs::create_dir(&before).unwrap();
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let directory = open_host(&before.canonicalize().unwrap(), flags).unwrap();
        fs::rename(&before, &after).unwrap();

        let file = stat_fd(&directory).unwrap().file;
        for itself in [
            open_beneath(&directory, Path::new("."), flags).unwrap(),
            open_unmounted(&directory, Path::new("."), flags).unwrap(),
            open_beneath(&directory, Path::new("."), libc::O_RDONLY).unwrap(),
        ] {
            assert_eq!(stat_fd(itself).unwrap().file, file);
        }
    }
}

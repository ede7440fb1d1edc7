//! New files and directories with exactly the modes that are asked for, whatever the umask is, and
//! files that are replaced either completely or not at all.
//!
//! The new contents are written to a file beside the old one, which is then renamed over it. After
//! a crash there is either the old file or the new one, and perhaps the file beside it, which the
//! next run replaces.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use crate::base::hints::Doing;
use crate::base::{Error, ErrorContext, Result};

/// Whether a file must survive a power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    ThisBoot,
    /// Either it or the file that it replaces, each of them whole.
    RebootOrOld,
    Reboot,
}

/// Who may access a new file.
#[derive(Clone, Copy)]
pub(super) struct FileAccess {
    mode: u32,
    /// User and group; `None`: those of this process.
    owner: Option<(u32, u32)>,
}

impl FileAccess {
    /// Owned by this process, with the permissions `mode`.
    pub(super) fn of_mode(mode: u32) -> Self {
        Self { mode, owner: None }
    }

    /// As `file` has it.
    pub(super) fn like(file: &fs::Metadata) -> Self {
        Self {
            mode: file.mode() & 0o7777,
            owner: Some((file.uid(), file.gid())),
        }
    }
}

/// Writes a new file that everybody may read (0644), and makes its missing parents (0755).
///
/// Errors: `AlreadyExists`; it cannot be written, and then it is removed again.
pub(crate) fn create_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    make_parents(path)?;
    fill(
        path,
        &create_new(path)?,
        contents,
        FileAccess::of_mode(0o644),
        Durability::ThisBoot,
    )
}

/// Replaces the file `path`, or makes it, for everybody to read (0644): also if several processes
/// do so at the same time, it has all that one of them wrote. Others may change its directory.
///
/// Errors: it is no regular file; it cannot be written, and then it is as it was.
pub(crate) fn replace_file(path: &Path, contents: &[u8]) -> Result<()> {
    let cannot = format_args!("cannot write {}", path.display());
    if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(Error::failed(cannot.to_string()).because_of("it is not a regular file"));
    }
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let (access, durability) = (FileAccess::of_mode(0o644), Durability::ThisBoot);
    let written = match write_new(&new, contents, access, durability) {
        Ok(()) => rename_over(&new, path, durability),
        Err(error) => Err(error),
    };
    written
        .context(cannot)
        .map_err(|error| error.hint_while(Doing::Editing))
}

/// Writes the file `new`, which is to replace another one. A killed run may have left a file there;
/// it is removed, because the caller has the lock.
pub(super) fn write_new(
    new: &Path,
    contents: &[u8],
    access: FileAccess,
    durability: Durability,
) -> io::Result<()> {
    let file = match create_new(new) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(new)?;
            create_new(new)?
        }
        result => result?,
    };
    fill(new, &file, contents, access, durability)
}

/// Renames the file `new` over `path`: rename(2). If that fails, `new` is removed.
pub(super) fn rename_over(new: &Path, path: &Path, durability: Durability) -> io::Result<()> {
    fs::rename(new, path).inspect_err(|_| drop(fs::remove_file(new)))?;
    match durability {
        Durability::ThisBoot | Durability::RebootOrOld => Ok(()),
        Durability::Reboot => sync_directory_of(path),
    }
}

/// Makes the missing directories above `path` (0755).
pub(super) fn make_parents(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => make_directory(parent),
        _ => Ok(()),
    }
}

/// Makes the directory `path` (0755) if it does not exist, and its missing parents.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_parents(path)?;
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)),
        Err(_) if path.is_dir() => Ok(()), // somebody else made it at the same moment
        Err(error) => Err(error),
    }
}

/// Makes the entries of the directory that `path` is in survive a power cut.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600) // nobody else reads it before it is complete
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Fills the new file at `path`. If that fails, it is removed.
fn fill(
    path: &Path,
    file: &File,
    contents: &[u8],
    access: FileAccess,
    durability: Durability,
) -> io::Result<()> {
    let filled = fill_open(file, contents, access, durability);
    if filled.is_err() {
        let _ = fs::remove_file(path); // the first error counts
    }
    filled
}

fn fill_open(
    mut file: &File,
    contents: &[u8],
    access: FileAccess,
    durability: Durability,
) -> io::Result<()> {
    file.write_all(contents)?;
    if let Some((user, group)) = access.owner {
        fchown(file, Some(user), Some(group))?;
    }
    file.set_permissions(Permissions::from_mode(access.mode))?;
    match durability {
        Durability::ThisBoot => Ok(()),
        Durability::RebootOrOld | Durability::Reboot => file.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_has_the_mode_that_is_asked_for_and_overwrites_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/site.yaml");
        create_file(&path, b"one").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o644, 0o755));
        let error = create_file(&path, b"two").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_no_other_kind_of_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.prom");
        replace_file(&path, b"one").unwrap();
        let old = File::open(&path).unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(io::read_to_string(&old).unwrap(), "one");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for odd in [&link, dir.path(), &dir.path().join("no/file")] {
            let error = replace_file(odd, b"three").unwrap_err().to_string();
            assert!(error.starts_with("cannot write "), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_takes_the_place_of_another_one_and_of_what_a_killed_run_left() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("a"), dir.path().join("a.new"));
        fs::write(&path, "old").unwrap();
        fs::write(&new, "left by a killed run").unwrap();
        let access = FileAccess {
            mode: 0o640,
            ..FileAccess::like(&fs::metadata(&path).unwrap())
        };
        write_new(&new, b"contents", access, Durability::Reboot).unwrap();
        rename_over(&new, &path, Durability::Reboot).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"contents");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

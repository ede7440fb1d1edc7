//! Replaces a file of fstab(5) lines, which others also write, either completely or not at all.

use std::fs;
use std::path::Path;

use super::Lock;
use super::staged::{StagedFile, real_path, written};
use crate::base::Result;

/// Replaces the contents of the file `path` by the result of `change`. Returns whether they
/// changed.
///
/// A link is followed to the file that it names. The lock keeps other mountjails from editing at
/// the same time. The new file is written beside the old one, with its owner and mode, synced and
/// renamed over it. After a crash there is either the old file or the new one, and perhaps
/// `.NAME.mountjail`, which the next run removes. Changes that somebody else makes meanwhile are
/// not overwritten.
///
/// Errors: the file does not exist (with the hint `if_absent`); it cannot be read or replaced.
pub(crate) fn edit(
    path: &Path,
    _lock: &Lock,
    if_absent: &str,
    change: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
) -> Result<bool> {
    let real = match real_path(path) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Err(error.hint(if_absent)),
        real => real?,
    };
    let before = written(path, fs::metadata(&real))?;
    let old = written(path, fs::read(&real))?;
    let new = change(&old)?;
    if new == old {
        return Ok(false);
    }
    StagedFile::beside(path, real, Some(&before), &new)?.take_place()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::staged::{file_version, temporary_of};
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::PathBuf;

    fn file(contents: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/fstab");
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(&path, contents).unwrap();
        (dir, path)
    }

    fn lock(path: &Path) -> Lock {
        Lock::take(&path.parent().unwrap().with_file_name("lock"), || ()).unwrap()
    }

    fn add_to(path: &Path) -> Result<bool> {
        edit(path, &lock(path), "make it", |old| {
            Ok([old, b"new\n"].concat())
        })
    }

    #[test]
    fn mode_and_owner_stay_and_nothing_is_left_beside_it() {
        let (dir, path) = file("old\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(temporary_of(&path), "left by a crash").unwrap();
        assert!(add_to(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old\nnew\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 1);
    }

    #[test]
    fn the_same_contents_are_not_written() {
        let (_dir, path) = file("old\n");
        let before = file_version(&fs::metadata(&path).unwrap());
        assert!(!edit(&path, &lock(&path), "make it", |old| Ok(old.to_vec())).unwrap());
        assert_eq!(file_version(&fs::metadata(&path).unwrap()), before);
    }

    #[test]
    fn a_link_is_followed_and_stays_one() {
        let (dir, path) = file("old\n");
        let link = dir.path().join("etc/link");
        std::os::unix::fs::symlink("fstab", &link).unwrap();
        assert!(add_to(&link).unwrap());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"old\nnew\n");
    }

    #[test]
    fn what_another_writer_wrote_meanwhile_is_not_lost() {
        let (dir, path) = file("old\n");
        let error = edit(&path, &lock(&path), "make it", |_| {
            fs::write(&path, "theirs\n").unwrap();
            Ok(b"ours\n".to_vec())
        })
        .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("somebody else wrote it at the same moment"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"theirs\n");
        assert_eq!(fs::read_dir(dir.path().join("etc")).unwrap().count(), 1);
    }

    #[test]
    fn absent_and_odd_files_are_refused() {
        let (dir, path) = file("");
        let absent = add_to(&dir.path().join("etc/no")).unwrap_err();
        assert!(
            absent.to_string().starts_with("cannot open ") && absent.hint_text().is_some(),
            "{absent}"
        );
        assert!(
            add_to(&dir.path().join("etc"))
                .unwrap_err()
                .to_string()
                .ends_with("is not a regular file")
        );
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn two_writers_wait_for_each_other() {
        let (_dir, path) = file("");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|_| assert!(add_to(&path).unwrap())));
            }
        });
        assert_eq!(fs::read(&path).unwrap().len(), 8 * 20 * 4);
    }
}

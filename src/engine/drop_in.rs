//! systemd drop-ins: files that are written and removed again. Those of mountjail are recognised by
//! their first line.

use std::fs;
use std::path::Path;

use super::journal::{remove, replace};
use super::replace::Durability;
use crate::base::hints::is_absent;
use crate::base::{Error, Result};

/// The text of the drop-in `path`; `None`: it does not exist.
///
/// Errors: it cannot be read.
pub(crate) fn read_drop_in(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => {
            let failed = Error::failed(format!("cannot read {}", path.display())).at(path);
            Err(failed.because(&error))
        }
    }
}

/// Writes the drop-in `path`, whose contents begin with `header`. Returns whether that changed
/// anything.
///
/// Errors: a file that does not begin with `header` is there; it cannot be read or written.
pub(crate) fn write_drop_in(path: &Path, header: &str, contents: &str) -> Result<bool> {
    match read_drop_in(path)? {
        Some(old) if old == contents => return Ok(false),
        Some(old) if !old.starts_with(header) => {
            return Err(
                Error::failed(format!("{} is not mountjail's", path.display())).hint(
                    "move it away, or give it another name; a drop-in may have any name that ends \
                 in .conf",
                ),
            );
        }
        _ => {}
    }
    replace(path, contents.as_bytes(), 0o644, Durability::Reboot).map(|()| true)
}

/// Removes the drop-in `path` if it begins with `header`, and then its directory if that is empty.
/// Returns whether the drop-in existed.
///
/// Errors: it cannot be read or removed.
pub(crate) fn remove_drop_in(path: &Path, header: &str) -> Result<bool> {
    if !read_drop_in(path)?.is_some_and(|text| text.starts_with(header)) {
        return Ok(false);
    }
    remove(path)?;
    if let Some(directory) = path.parent() {
        let _ = fs::remove_dir(directory); // it may hold other drop-ins
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.service.d/50-mountjail.conf");
        assert!(write_drop_in(&path, "# ours", "# ours\none\n").unwrap());
        assert!(!write_drop_in(&path, "# ours", "# ours\none\n").unwrap());
        assert!(write_drop_in(&path, "# ours", "# ours\ntwo\n").unwrap());
        assert!(remove_drop_in(&path, "# ours").unwrap());
        assert!(!path.parent().unwrap().exists());
        assert!(!remove_drop_in(&path, "# ours").unwrap());
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "[Unit]\n").unwrap();
        assert!(!remove_drop_in(&path, "# ours").unwrap());
        assert!(
            write_drop_in(&path, "# ours", "# ours\n")
                .unwrap_err()
                .to_string()
                .ends_with("is not mountjail's")
        );
        assert_eq!(fs::read(&path).unwrap(), b"[Unit]\n");
    }
}

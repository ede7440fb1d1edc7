//! A private tmpfs of one run, which only root can reach. Mounts that cannot be detached are
//! prepared in it.
//!
//! It is removed when the run ends. A killed run leaves it behind, but without its lock; the next
//! run of `up` or `down` removes it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sys_mount::{Mount, MountFlags};

use super::backend::make_private;
use super::lock::Lock;
use crate::base::Extent;
use crate::sys::{self, FileKind, IfInUse};

/// The directory of scratch mounts: `<run>/scratch`.
#[derive(Clone, Debug)]
pub(super) struct ScratchDir(PathBuf);

/// A mounted scratch directory. It is unmounted when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    lock_path: PathBuf,
    next: AtomicU64,
    _lock: Lock,
}

impl ScratchDir {
    pub(super) fn below(run: &Path) -> Self {
        Self(run.join("scratch"))
    }

    /// The scratch mount of the run, made on first use.
    pub(super) fn get<'a>(&self, cell: &'a OnceLock<Scratch>) -> io::Result<&'a Scratch> {
        if let Some(scratch) = cell.get() {
            return Ok(scratch);
        }
        let made = self.make()?;
        // If another thread was first, ours is dropped and unmounted.
        Ok(cell.get_or_init(|| made))
    }

    fn make(&self) -> io::Result<Scratch> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;

        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        let name = format!(
            "{}-{now}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );

        let lock_path = self.0.join(format!("{name}.lock"));
        let lock = Lock::take(&lock_path, || ()).map_err(io::Error::other)?;
        let path = self.0.join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let scratch = Scratch {
            path,
            lock_path,
            next: AtomicU64::new(0),
            _lock: lock,
        };

        Mount::builder()
            .fstype("tmpfs")
            .data("mode=0700,size=1m")
            .flags(MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC)
            .mount("mountjail", &scratch.path)?;
        make_private(&scratch.path, Extent::Mount)?;
        Ok(scratch)
    }

    /// Removes the scratch mounts of killed runs.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.0) else {
            return;
        };
        for lock_path in entries.flatten().map(|entry| entry.path()) {
            if lock_path.extension().is_some_and(|ending| ending == "lock")
                && let Ok(Some(_held)) = Lock::if_free(&lock_path)
            {
                remove(&lock_path.with_extension(""), &lock_path);
            }
        }
    }
}

impl Scratch {
    /// Makes an empty file or directory to mount a source of `kind` on.
    pub(super) fn spot(&self, kind: FileKind) -> io::Result<PathBuf> {
        let path = self
            .path
            .join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        if kind == FileKind::Directory {
            fs::create_dir(&path)?;
        } else {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
        }
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path, &self.lock_path);
    }
}

/// Unmounts the scratch mount with all mounts inside, which are private to the run, and removes the
/// empty directory. Leftovers are found by their lock file in the next sweep.
fn remove(path: &Path, lock_path: &Path) {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = sys::open_host(parent, libc::O_PATH | libc::O_DIRECTORY)
    {
        while sys::umount(&parent, Path::new(name), IfInUse::Detach).is_ok() {}
    }
    if fs::remove_dir(path).is_ok() || !path.exists() {
        let _ = fs::remove_file(lock_path);
    }
}

//! The tree of an image that is being built, in the place of the host's.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::base::quote::shell_path;
use crate::base::{Error, Result};
use crate::sys;

/// The directories of the host that programs need everywhere. Those that the image or the host, as
/// in a sandbox, does not have are left out, besides the first.
const OF_HOST: [&str; 3] = ["proc", "dev", "sys"];

/// Makes the directory `image` the root of this process, in a mount namespace of its own, so that
/// all links and names are those of the image. /run and its files are gone with the process.
/// The process must have one thread.
///
/// Errors: it is not a directory, or has no /proc; the caller is not root.
pub(crate) fn enter_image(image: &Path) -> Result<()> {
    let cannot = |error: io::Error| {
        let failed = Error::failed(format!("cannot use {} as a root", image.display()));
        failed.at(image).because(&error)
    };
    let root = fs::canonicalize(image).map_err(cannot)?;
    if root == Path::new("/") {
        return Ok(()); // it is the host's own tree
    }
    if !is_directory(&root) {
        return Err(cannot(io::Error::from_raw_os_error(libc::ENOTDIR)));
    }
    if !is_directory(&root.join("proc")) {
        let failed = Error::failed(format!("{} has no directory proc", image.display()));
        return Err(failed.at(image).hint(format!(
            "name the directory that becomes the root of the image; `mkdir {}`",
            shell_path(image.join("proc"))
        )));
    }
    sys::new_mount_namespace().map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => cannot(error).hint("run the command as root"),
        _ => cannot(error),
    })?;
    bind(&root, &root).map_err(cannot)?;
    for name in OF_HOST {
        let (host, inside) = (Path::new("/").join(name), root.join(name));
        if is_directory(&inside) && is_directory(&host) {
            bind(&host, &inside).map_err(cannot)?;
        }
    }
    let run = root.join("run");
    if is_directory(&run) {
        let (tmpfs, options) = (Some("tmpfs"), Some("mode=755"));
        mount(tmpfs, &run, tmpfs, MsFlags::empty(), options)
            .map_err(|error| cannot(error.into()))?;
    }
    sys::change_root(&root).map_err(cannot)
}

/// Whether it is a directory, and no link to one.
fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(source), target, none, flags, none)?)
}

//! Removes placeholders and links.

use std::io;

use super::{DownRun, open_hidden};
use crate::base::hints::is_absent;
use crate::base::{JailPath, Result};
use crate::engine::root::{Root, Spots};
use crate::engine::target::cannot;
use crate::observe::{CreatedKind, Identity};

impl DownRun<'_> {
    pub(super) fn remove(
        &mut self,
        path: &JailPath,
        kind: &CreatedKind,
        file: Option<Identity>,
        spots: &mut Spots<'_>,
    ) -> Result<()> {
        let is_known = file.is_some() || matches!(kind, CreatedKind::Link(_));
        let is_in = |other: &Root| matches!(remove_beneath(other, path, kind, file), Ok(true));
        if is_known && self.others.iter().any(is_in) {
            return Ok(());
        }
        match self.remove_at(path, kind, file, spots) {
            Ok(true) => {}
            Ok(false) => self.left.push(path.clone()),
            Err(error) => return Err(cannot(&self.root, "remove", path, &error)),
        }
        Ok(())
    }

    /// `Ok(false)`: it has changed since it was made, and stays.
    fn remove_at(
        &self,
        path: &JailPath,
        kind: &CreatedKind,
        file: Option<Identity>,
        spots: &mut Spots<'_>,
    ) -> io::Result<bool> {
        let removed = match spots.on_mount(path) {
            Ok(spot) => spot.remove(kind, file),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if is_absent(&error) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => match self.bare() {
                Some(bare) => self.remove_in(bare, path, kind, file),
                None => Err(error),
            },
            result => result,
        }
    }

    /// Removes it in the root `bare`, or where it was made on another file system in the root.
    fn remove_in(
        &self,
        bare: &Root,
        path: &JailPath,
        kind: &CreatedKind,
        file: Option<Identity>,
    ) -> io::Result<bool> {
        match remove_beneath(bare, path, kind, file) {
            Err(error) if is_absent(&error) && file.is_some() => {
                self.root.spot(path)?.remove(kind, file)
            }
            result => result,
        }
    }

    /// The root without anything mounted in it.
    fn bare(&self) -> Option<&Root> {
        self.bare.get_or_init(|| self.open_bare()).as_ref()
    }

    fn open_bare(&self) -> Option<Root> {
        open_hidden(self.root.mount()?, &self.plan.root).ok()
    }
}

/// Errors: nothing is at `path`.
fn remove_beneath(
    bare: &Root,
    path: &JailPath,
    kind: &CreatedKind,
    file: Option<Identity>,
) -> io::Result<bool> {
    let spot = bare.spot(path)?;
    spot.stat()?;
    spot.remove(kind, file)
}

//! Removes placeholders and links.

use std::io;

use super::DownRun;
use crate::base::hints::is_absent;
use crate::base::{JailPath, Result};
use crate::engine::hidden;
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
        match spots
            .on_mount(path)
            .and_then(|spot| spot.remove(kind, file))
        {
            Err(error) if is_absent(&error) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                let remove_in = |bare: &Root| {
                    let spot = bare.spot(path)?;
                    spot.stat()?;
                    spot.remove(kind, file)
                };
                match self.bare().map(remove_in) {
                    Some(Ok(removed)) => Ok(removed),
                    // It was made on another file system in the root.
                    Some(Err(error)) if is_absent(&error) && file.is_some() => self
                        .root
                        .spot(path)
                        .and_then(|spot| spot.remove(kind, file)),
                    Some(Err(error)) => Err(error),
                    None => Err(error),
                }
            }
            result => result,
        }
    }

    /// The root without anything mounted in it.
    fn bare(&self) -> Option<&Root> {
        let open = || {
            let fd = hidden::open(self.root.mount()?, self.plan.root.as_path()).ok()?;
            Root::of(fd, &self.plan.root).ok()
        };
        self.bare.get_or_init(open).as_ref()
    }
}

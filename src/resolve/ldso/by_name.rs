//! A library that a process opens by its name alone, with dlopen(3).

use super::loader::Loader;
use super::objects::Objects;
use super::process::ProcessImage;
use super::search::{self, NotFound};
use crate::Result;
use crate::base::{ErrorContext, HostPath};
use crate::resolve::lookup_error::found;

/// Programs of which every host has one that uses the C library.
pub(super) const PROGRAMS: [&str; 4] = ["/usr/bin/getent", "/bin/sh", "/usr/bin/env", "/bin/ls"];

impl Loader<'_> {
    /// The library `name`, as the loader finds it for the host's own programs, or where ldconfig
    /// would; `None`: it is nowhere.
    ///
    /// Errors: it could not be looked for.
    pub fn library_of_any(&self, name: &str) -> Result<Option<HostPath>> {
        for program in PROGRAMS.iter().filter_map(|path| HostPath::new(path).ok()) {
            let Ok(opened) = self.open(&program) else {
                continue;
            };
            let process = ProcessImage::new(self, &opened)?;
            if process.interpreter.is_none() {
                continue; // it is static
            }
            let objects = Objects::new(self, &process, opened);
            return match search::find(&objects, 0, name.as_bytes()) {
                Ok(opened) => Ok(Some(opened.path)),
                Err(NotFound::ByLoader(_)) => self.library_in_configuration(name),
                Err(NotFound::Unknown(error)) => Err(error),
            };
        }
        self.library_in_configuration(name)
    }

    /// Where `name` is in the directories of ld.so.conf.
    fn library_in_configuration(&self, name: &str) -> Result<Option<HostPath>> {
        let cannot = format_args!("cannot look for the library {name}");
        for directory in &self.state.conf.directories {
            let Ok(path) = directory.path.join(name) else {
                continue;
            };
            if found(self.host.walk(&path)).context(cannot)?.is_some() {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

//! Values that are made of the host once per run.

use std::sync::OnceLock;

use super::dependencies::Dependencies;
use super::host::Host;
use super::lookup_error::LookupError;

/// A value that is made once, with what it depends on; or why it cannot be made.
#[derive(Debug)]
pub(super) struct Once<T>(OnceLock<(Result<T, LookupError>, Dependencies)>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Once<T> {
    /// The value, which `make` makes of `host` if it is not there yet. The lookups for it count
    /// as those of each caller.
    pub(super) fn get(
        &self,
        host: &Host,
        make: impl FnOnce(&Host) -> Result<T, LookupError>,
    ) -> Result<&T, LookupError> {
        let (value, dependencies) = self.0.get_or_init(|| {
            let scope = host.scope();
            let value = make(&scope);
            (value, scope.into_dependencies())
        });
        host.note_all(dependencies);
        value.as_ref().map_err(Clone::clone)
    }
}

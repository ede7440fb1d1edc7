//! What was read of sites or templates, for all that look at the same directories.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::base::SiteName;
use crate::base::sync::lock;

/// What was read, by site or template. Clones share it.
pub(super) struct ReadCache<T>(Arc<Mutex<HashMap<SiteName, T>>>);

impl<T> ReadCache<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<SiteName, T>> {
        lock(&self.0)
    }
}

impl<T> Clone for ReadCache<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for ReadCache<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> fmt::Debug for ReadCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadCache").finish_non_exhaustive()
    }
}

/// Where things are does not depend on what was read.
impl<T> PartialEq for ReadCache<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for ReadCache<T> {}

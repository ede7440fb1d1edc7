//! PHP's answer for one pool.

use super::inside::PhpState;
use crate::import::fpm::PoolUser;

/// PHP's own answer for one pool.
#[derive(Debug)]
pub(super) struct PoolPhp<'e> {
    pub pool_user: &'e PoolUser,
    /// Why it could not be asked.
    pub state: Result<PhpState, String>,
}

impl PoolPhp<'_> {
    /// Whether the extension is loaded, as PHP says, or else its files.
    pub(super) fn loads(&self, extension: &str) -> bool {
        match &self.state {
            Ok(state) => state.loads(extension),
            Err(_) => self.pool_user.settings.loads(extension),
        }
    }

    /// A setting, also where it is PHP's own default.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let known = self.state.as_ref().ok().and_then(|state| state.get(key));
        known.or_else(|| self.pool_user.settings.get(key))
    }
}

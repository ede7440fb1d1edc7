//! Facts that all sites of one run have in common, each found out once.

use super::host::Host;
use super::ldso::{Loader, LoaderCache};
use super::lookup_error::LookupError;
use super::once::Once;
use super::top_links::{self, TopLink};
use super::users::Accounts;
use crate::Result;
use crate::base::ErrorContext;

/// The knowledge of the host besides its files.
#[derive(Debug, Default)]
pub(super) struct Shared {
    loader: LoaderCache,
    accounts: Once<Accounts>,
    top_links: Once<Vec<TopLink>>,
    run_links: Once<Vec<TopLink>>,
}

impl Shared {
    /// The dynamic loader's view of `host`.
    pub(super) fn loader<'h>(&'h self, host: &'h Host) -> Result<Loader<'h>> {
        Loader::with(host, &self.loader)
    }

    /// The accounts of the host.
    pub(super) fn accounts(&self, host: &Host) -> Result<&Accounts> {
        self.accounts
            .get(host, Accounts::read)
            .context("cannot read the host's users and groups")
    }

    /// The links in `/` to directories.
    pub(super) fn top_links(&self, host: &Host) -> Result<&[TopLink], LookupError> {
        self.top_links
            .get(host, top_links::in_slash)
            .map(Vec::as_slice)
    }

    /// `/var/run` and `/var/lock`, where they are links.
    pub(super) fn run_links(&self, host: &Host) -> Result<&[TopLink], LookupError> {
        self.run_links
            .get(host, top_links::to_run)
            .map(Vec::as_slice)
    }
}

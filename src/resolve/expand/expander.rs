//! The items of a request while they are collected, and why they cannot be.

use crate::Error;
use crate::base::HostPath;
use crate::resolve::host::Host;
use crate::resolve::item::Item;
use crate::resolve::made::Made;
use crate::resolve::shared::Shared;
use crate::resolve::top_links::TopLink;

/// The remedy for a file that this host does not have.
pub(super) const MAY_DO_WITHOUT: &str = "if this host may do without it, say `optional: true`";

/// Why a request cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::resolve) enum ExpandError {
    /// This host lacks what the line names. The hint tells how to edit the line.
    Absent(Error),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for ExpandError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The result of everything in this folder that can fail.
pub(super) type ExpandResult<T> = Result<T, ExpandError>;

/// All that a request brings.
#[derive(Clone, Debug, Default)]
pub(in crate::resolve) struct Expansion {
    pub items: Vec<Item>,
    /// Links that no line names: those in `/` that lead to a directory of the items or into it, and
    /// those by which items are also known.
    pub top_links: Vec<TopLink>,
    /// A login name for the generated passwd.
    pub user: Option<String>,
    /// The directory or file system that is made in the root for the site alone.
    pub made: Option<Made>,
    /// Programs that ask `/proc/self/exe` where they are, to find their libraries.
    pub need_proc: Vec<HostPath>,
    /// What was left out and why.
    pub notes: Vec<String>,
}

/// A request on its way to an [`Expansion`].
pub(super) struct Expander<'h> {
    pub host: &'h Host,
    pub shared: &'h Shared,
    pub out: Expansion,
}

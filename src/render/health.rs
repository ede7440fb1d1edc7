//! The facts about a site for monitoring.

use crate::base::SiteName;
use crate::plan::{Plan, SiteState};

/// The facts about one site.
#[derive(Clone, Debug)]
pub(crate) struct SiteHealth<'p> {
    pub name: &'p SiteName,
    /// The states of its mounts; `None`: unknown, because its manifest has mistakes or something
    /// failed.
    pub plan: Option<&'p Plan>,
    /// `None`: unknown.
    pub state: Option<SiteState>,
    /// Nothing differs from the manifest. A site with scope `services` may be down then.
    pub is_right: bool,
    /// How many processes inside use files that have been replaced.
    pub outdated: usize,
}

//! The processes of sites that use old files.

use std::sync::Arc;

use crate::base::HostPath;
use crate::observe::{self, Inside, ProcessesIn};
use crate::patience;
use crate::site::pipeline::Pipeline;
use crate::site::status::SiteStatus;

/// Per site, the processes inside that use old files.
    inside: Vec<Inside>,
    /// What a running watcher says about these sites.
    watch: Option<WatchState>,
}

//! What many mounts in the host's own table cost where systemd makes a unit of each.

use super::{Context, systemctl};
use crate::observe::{self, Table};

/// From so many mounts on, the cost is reported.
const MANY: usize = 1000;

/// What `mounts` of ours in the host's table cost, and which line changes it. `None`: nothing to
/// speak of.
pub(crate) fn of_mounts(context: &Context, mounts: usize) -> Option<String> {
    (systemctl::is_running() && mounts > MANY).then(|| in_words(context, mounts))
}

fn in_words(context: &Context, mounts: usize) -> String {
    let defaults = context.config.join("defaults.yaml");
    format!(
        "{mounts} mounts of sites are in the host's table; systemd makes a unit of each, so that \
         `systemctl daemon-reload` and all other mounts take long: `scope: services` in {}, then \
         `mountjail units --all --install`, has them exist for their services alone",
        defaults.display()
    )
}

/// How many mounts of sites are in the host's table.
pub(crate) fn mounts_of_sites(context: &Context) -> usize {
    let (Ok(boot), Ok(table)) = (observe::boot_id(), Table::read()) else {
        return 0;
    };
    let sites = context
        .state
        .sites_of_boot()
        .unwrap_or_default()
        .into_iter();
    let roots = sites.filter_map(|site| context.state.read(&site, &boot).ok()?.root().cloned());
    roots
        .map(|root| table.points_below(root.as_path()).len())
        .sum()
}

//! The cost of many mounts in the host's own table, where systemd makes a unit of each.

use std::path::Path;

use super::{Context, systemctl};
use crate::observe::{self, Table};

/// From so many mounts on, the cost is reported.
const MANY: usize = 1000;

/// What `mounts` of ours in the host's table cost, and which line changes it. `None`: nothing to
/// speak of.
pub(crate) fn of_mounts(context: &Context, mounts: usize) -> Option<String> {
    let defaults = context.config.join("defaults.yaml");
    in_words(systemctl::is_running(), mounts, &defaults)
}

fn in_words(systemd_runs: bool, mounts: usize, defaults: &Path) -> Option<String> {
    let text = format!(
        "{mounts} mounts of sites are in the host's table; systemd makes a unit of each, so that \
         `systemctl daemon-reload` and all other mounts take long: `scope: services` in {}, then \
         `mountjail units --all --install`, has them exist for their services alone",
        defaults.display()
    );
    (systemd_runs && mounts > MANY).then_some(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_mounts_are_reported_where_systemd_runs() {
        let of = |runs, mounts| in_words(runs, mounts, Path::new("/etc/mountjail/defaults.yaml"));
        assert_eq!((of(true, MANY), of(false, MANY + 1)), (None, None));
        let text = of(true, MANY + 1).unwrap();
        assert!(text.contains("1001 mounts") && text.contains("`scope: services` in /etc/"));
    }
}

//! The warning that pools in different roots share PHP-FPM's cache of scripts.

use std::collections::BTreeSet;

use crate::base::HostPath;
use crate::import::fpm::{self, Pool};
use crate::resolve::{Desired, Host};
use crate::site::context::Context;

/// The preset of sites for which PHP-FPM's configuration is read.
const PRESET: &str = "php-fpm";

/// Warns once for each master process that has a pool in one of the sites for PHP-FPM.
pub(super) fn warn<'d>(context: &Context, sites: impl IntoIterator<Item = &'d Desired>) {
    let sites = sites.into_iter().filter(|site| is_for_php(site));
    let roots: BTreeSet<_> = sites.map(|site| &site.root).collect();
    if roots.is_empty() {
        return;
    }

    let (masters, host) = (fpm::masters(), Host::new());
    for master in &masters {
        // `import` and `doctor` report mistakes of a configuration.
        let Ok(configuration) = fpm::read(&master.config, None, &masters) else {
            continue;
        };
        let mut pools = configuration.pools.iter();
        if pools.any(|pool| lives_in_one(pool, &roots, &host))
            && let Some(warning) = fpm::shared_cache(&configuration.pools)
        {
            context.out.warn(warning);
        }
    }
}

fn is_for_php(site: &Desired) -> bool {
    let mut reasons = site.mounts.iter().flat_map(|mount| &mount.reasons);
    reasons.any(|reason| reason.origin.presets.iter().any(|name| name == PRESET))
}

/// Whether the pool's chroot is one of `roots`, possibly through links.
fn lives_in_one(pool: &Pool, roots: &BTreeSet<&HostPath>, host: &Host) -> bool {
    let Some(Ok(chroot)) = pool.chroot().map(HostPath::new) else {
        return false;
    };
    let leads_there = || host.walk_strictly(&chroot).map(|end| end.real);
    roots.contains(&chroot) || leads_there().is_ok_and(|real| roots.contains(&real))
}

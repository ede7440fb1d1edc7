//! The users of a site: processes that use its mounts or run inside, in words.

use std::sync::OnceLock;

use crate::Result;
use crate::base::text::few;
use crate::base::{HostPath, JailPath};
use crate::import::fpm;
use crate::observe::{self, CloneIds, Depth, Observed, ObservedMount, Process, Used, User};
use crate::resolve::Host;

/// How many targets of one process are named.
const NAMED: usize = 3;

/// Whatever uses sites, looked up once per run.
#[derive(Default)]
pub(crate) struct SiteUsers {
    /// Grafts that are known, of all sites.
    clones: Vec<CloneIds>,
    processes: OnceLock<observe::Users>,
    pools: OnceLock<Vec<RunningPool>>,
}

/// A pool of a running PHP-FPM.
struct RunningPool {
    root: HostPath,
    name: String,
    master: Process,
}

/// How one site is used.
#[derive(Default)]
pub(crate) struct InUse {
    /// One line per user: the process, and what it uses.
    pub by: Vec<String>,
    /// The targets of the mounts that are used.
    pub targets: Vec<JailPath>,
}

impl SiteUsers {
    /// For sites with these grafts, as far as they are known.
    pub(crate) fn of_grafts(clones: Vec<CloneIds>) -> Self {
        Self {
            clones,
            ..Self::default()
        }
    }

    /// The users of the site at `root`, whose mounts are those of `observed`. A master of PHP-FPM
    /// with a pool in this root is one, too: it may start a worker for the next request.
    pub(crate) fn of(&self, root: &HostPath, observed: &Observed, depth: Depth) -> Result<InUse> {
        let here = observed.mounts.iter().chain(&observed.elsewhere);
        let grafts = observed.graft_targets();
        // A copy of one that came along with a graft is in a copy of the graft.
        let mut copied: Vec<_> = grafts.iter().collect();
        copied.retain(|graft| self.may_have_copies(observed.stack(graft)));
        let mut mounts = vec![];
        for (target, stack) in here {
            for seen in stack {
                if depth == Depth::All
                    || observed.member(target, seen).is_none()
                    || copied.iter().any(|graft| target.starts_with(graft))
                {
                    mounts.push(Used {
                        target,
                        point: root.inside(target).as_path().to_owned(),
                        unique_id: seen.unique_id,
                        is_graft: grafts.contains(target),
                    });
                }
            }
        }
        for stray in &observed.strays {
            if let Some(point) = &stray.point {
                mounts.push(Used {
                    target: &stray.target,
                    point: point.to_owned(),
                    unique_id: Some(stray.unique_id),
                    is_graft: grafts.contains(&stray.target),
                });
            }
        }
        let users = self.processes().of(root, &mounts, depth)?;
        let mut found = InUse::default();
        for user in &users {
            found.targets.extend_from_slice(&user.targets);
            found.by.push(in_words(user));
        }
        found.targets.sort();
        found.targets.dedup();
        for pool in self.pools.get_or_init(running_pools) {
            if pool.root == *root {
                found.by.push(format!(
                    "{}, whose pool {} has this root",
                    pool.master, pool.name
                ));
            }
        }
        Ok(found)
    }

    /// All processes, and the mounts that they use.
    pub(crate) fn processes(&self) -> &observe::Users {
        let look = || observe::Users::look(self.clones.clone());
        self.processes.get_or_init(look)
    }

    /// Whether the topmost mount of `stack` may be mounted elsewhere, too.
    fn may_have_copies(&self, stack: &[ObservedMount]) -> bool {
        match stack.last().and_then(|top| top.unique_id) {
            Some(id) => self.processes().may_have_copies(id),
            None => true,
        }
    }
}

/// The pools with a root that their master sees, too. No pool is known of a configuration that
/// cannot be read.
fn running_pools() -> Vec<RunningPool> {
    let host = Host::new();
    let mut running = vec![];
    for (master, file) in observe::php_fpm_masters() {
        for pool in fpm::pools(&file).unwrap_or_default() {
            if let Some(root) = root_of(&host, &pool)
                && observe::sees_same(master.pid, root.as_path())
            {
                running.push(RunningPool {
                    root,
                    name: pool.name,
                    master: master.clone(),
                });
            }
        }
    }
    running
}

/// The root of a pool, without links.
fn root_of(host: &Host, pool: &fpm::Pool) -> Option<HostPath> {
    let root = HostPath::new(pool.chroot()?).ok()?;
    match host.walk(&root) {
        Ok(walk) => Some(walk.real),
        Err(_) => Some(root),
    }
}

fn in_words(user: &User) -> String {
    if user.targets.is_empty() {
        format!("{}, which runs inside", user.process)
    } else {
        format!("{}: {}", user.process, few(&user.targets, NAMED))
    }
}

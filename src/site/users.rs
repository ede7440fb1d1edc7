//! The users of a site: processes that use its mounts or run inside, in words.

use std::path::Path;
use std::sync::OnceLock;

use crate::Result;
use crate::base::text::few;
use crate::base::{HostPath, JailPath};
use crate::import::fpm;
use crate::observe::{self, Depth, Observed, ObservedMount, Outline, Process, Used, User};
use crate::resolve::Host;

/// How many targets of one process are named.
const NAMED: usize = 3;

/// Whatever uses sites, looked up once per run.
#[derive(Default)]
pub(crate) struct SiteUsers {
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
    /// The users of the site at `root`, whose mounts are those of `observed`. A master of PHP-FPM
    /// with a pool in this root is one, too: it may start a worker for the next request.
    pub(crate) fn of(&self, root: &HostPath, observed: &Observed, depth: Depth) -> Result<InUse> {
        let here = observed.mounts.iter().chain(&observed.elsewhere);
        let grafts = observed.graft_targets();
        // A copy of one that came along with a graft is in a copy of the graft.
        let mut copied = grafts.clone();
        copied.retain(|graft| self.may_have_copies(observed.stack(graft)));
        let counts = |target: &JailPath, seen: &ObservedMount| {
            depth == Depth::All
                || observed.member(target, seen).is_none()
                || copied.iter().any(|graft| target.starts_with(graft))
        };
        let here = here.flat_map(|(target, stack)| {
            let used = stack.iter().filter(|seen| counts(target, seen));
            used.map(|seen| Used {
                target,
                point: root.inside(target).as_path().to_owned(),
                unique_id: seen.unique_id,
                is_graft: grafts.contains(target),
            })
        });
        let strays = observed.strays.iter().filter_map(|stray| {
            Some(Used {
                target: &stray.target,
                point: stray.point.clone()?,
                unique_id: Some(stray.unique_id),
                is_graft: grafts.contains(&stray.target),
            })
        });
        let mounts: Vec<_> = here.chain(strays).collect();
        let users = self.processes().of(root, &mounts, depth)?;
        let mut found = InUse::default();
        found
            .targets
            .extend(users.iter().flat_map(|user| user.targets.iter().cloned()));
        found.targets.sort();
        found.targets.dedup();
        found.by.extend(users.iter().map(in_words));
        for pool in self.pools().iter().filter(|pool| pool.root == *root) {
            found.by.push(format!(
                "{}, whose pool {} has this root",
                pool.master, pool.name
            ));
        }
        Ok(found)
    }

    /// The mounts of this namespace without their paths, if the kernel lists them.
    pub(crate) fn outline(&self) -> Option<&Outline> {
        self.processes().outline()
    }

    fn processes(&self) -> &observe::Users {
        self.processes.get_or_init(observe::Users::look)
    }

    /// Whether the topmost mount of `stack` may be mounted elsewhere as well.
    fn may_have_copies(&self, stack: &[ObservedMount]) -> bool {
        let id = stack.last().and_then(|top| top.unique_id);
        id.is_none_or(|id| self.processes().may_have_copies(id))
    }

    fn pools(&self) -> &[RunningPool] {
        self.pools.get_or_init(|| {
            let host = Host::new();
            let masters = observe::php_fpm_masters();
            masters
                .into_iter()
                .flat_map(|(master, file)| pools_of(&host, &master, &file))
                .collect()
        })
    }
}

/// The pools with a root that the master sees as well. Of a configuration that cannot be read none
/// is known.
fn pools_of(host: &Host, master: &Process, file: &Path) -> Vec<RunningPool> {
    let pool = |pool: &fpm::Pool| {
        let root = HostPath::new(pool.chroot()?).ok()?;
        let root = host.walk(&root).map_or(root, |walk| walk.real);
        observe::sees_same(master.pid, root.as_path()).then(|| RunningPool {
            root,
            name: pool.name.clone(),
            master: master.clone(),
        })
    };
    fpm::pools(file)
        .unwrap_or_default()
        .iter()
        .filter_map(pool)
        .collect()
}

fn in_words(user: &User) -> String {
    if user.targets.is_empty() {
        format!("{}, which runs inside", user.process)
    } else {
        format!("{}: {}", user.process, few(&user.targets, NAMED))
    }
}

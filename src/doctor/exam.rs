//! The state that the checks share: the site, and how to ask inside.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::ask::{self, AnswerLimit, NoAnswer};
use super::finding::Remedy;
use super::inside::{Probe, Question};
use super::pool_php::PoolPhp;
use crate::base::{HostPath, JailPath};
use crate::import::fpm::PoolUser;
use crate::jail::JailUser;
use crate::manifest::Manifest;
use crate::observe::{Process, Table};
use crate::plan::Plan;
use crate::resolve::{Desired, Host, Mount, ProgramLines, why};

/// The site that is examined.
pub(crate) struct ExaminedSite<'s> {
    pub manifest: &'s Manifest,
    pub desired: &'s Desired,
    /// The state of its mounts.
    pub plan: &'s Plan,
    /// The pools of PHP-FPM that have this root.
    pub pool_users: &'s [PoolUser],
    /// The mount table of the host.
    pub table: &'s Table,
    /// The user that probes run as.
    pub user: JailUser,
    /// When it came up, in milliseconds since boot; `None` if that is not known, as for mounts that
    /// mount(8) made.
    pub since: Option<u64>,
    /// The lines that bring programs of this host.
    pub program_lines: ProgramLines<'s>,
}

/// The caller's own questions and limits.
#[derive(Clone, Debug)]
pub(crate) struct ExamOptions {
    /// The time limit of one probe.
    pub limit: Duration,
    /// A name that should resolve.
    pub name: Option<String>,
    /// A TLS server that should be trusted: host and port.
    pub tls: Option<(String, u16)>,
    /// Once it is set, no more probes are run.
    pub stop: Arc<AtomicBool>,
}

/// The state that the checks share.
pub(super) struct Exam<'e> {
    pub(super) site: &'e ExaminedSite<'e>,
    pub(super) options: &'e ExamOptions,
    pub(super) host: &'e Host,
    /// All presets that the manifest includes.
    pub(super) presets: BTreeSet<&'e str>,
    /// The processes that live in the root.
    pub(super) inside: Vec<Process>,
    /// Why the C library's answers to a probe are not those that the site's processes get.
    pub(super) other_c_library: Option<&'static str>,
    /// PHP's own answers, once a check needs them.
    pub(super) php: OnceLock<Vec<PoolPhp<'e>>>,
}

impl Exam<'_> {
    /// Runs a probe inside.
    pub(super) fn ask<P: Probe + Into<Question>>(&self, probe: P) -> Result<P::Answer, NoAnswer> {
        self.ask_as(&self.site.user, probe)
    }

    pub(super) fn ask_as<P: Probe + Into<Question>>(
        &self,
        user: &JailUser,
        probe: P,
    ) -> Result<P::Answer, NoAnswer> {
        ask::ask(&self.site.desired.root, user, probe, self.limit())
    }

    /// Runs a probe on the host itself, as the site's user.
    pub(super) fn ask_on_host<P: Probe + Into<Question>>(
        &self,
        probe: P,
    ) -> Result<P::Answer, NoAnswer> {
        ask::ask(&HostPath::slash(), &self.site.user, probe, self.limit())
    }

    fn limit(&self) -> AnswerLimit<'_> {
        AnswerLimit {
            limit: self.options.limit,
            stop: &self.options.stop,
        }
    }

    /// A limit for probes that wait, so that they end before they are killed.
    pub(super) fn inner_limit(&self) -> Duration {
        self.options.limit * 4 / 5
    }

    /// The users of all pools, or only the one that the caller named. Never root.
    pub(super) fn users(&self) -> Vec<&JailUser> {
        let of_pools: Vec<_> = self
            .site
            .pool_users
            .iter()
            .map(|pool_user| &pool_user.user)
            .filter(|user| !user.is_root())
            .collect();

        let mut users = vec![&self.site.user];
        if of_pools.first() == users.first() {
            for user in of_pools {
                if !users.contains(&user) {
                    users.push(user);
                }
            }
        }
        users
    }

    /// Whether PHP-FPM runs inside, or is to run there.
    pub(super) fn is_php(&self) -> bool {
        !self.site.pool_users.is_empty() || self.presets.contains("php-fpm")
    }

    /// The desired mount that shows `path`.
    pub(super) fn mount_of(&self, path: &Path) -> Option<&Mount> {
        why(self.site.desired, &JailPath::new(path).ok()?).mount
    }

    /// Whether a desired mount shows `path`.
    pub(super) fn brings(&self, path: &str) -> bool {
        self.mount_of(Path::new(path)).is_some()
    }

    pub(super) fn on_host(&self, path: &Path) -> bool {
        HostPath::new(path).is_ok_and(|path| self.host.is_there(&path).unwrap_or(false))
    }

    /// The remedy that brings `/proc`.
    pub(super) fn proc(&self) -> Remedy {
        if self.mount_of(Path::new("/proc")).is_some() {
            self.up()
        } else {
            Remedy::ManifestLine("proc: true".to_owned())
        }
    }

    pub(super) fn up(&self) -> Remedy {
        Remedy::act(format!("mountjail up {}", self.site.desired.site))
    }

    /// The remedy that brings a missing path: `line`, if the host has it and the manifest does
    /// not ask for it.
    pub(super) fn bring(&self, path: &Path, line: Remedy) -> Remedy {
        if let Some(at) = self.denied(path) {
            return self.opened(&at);
        }
        if self.mount_of(path).is_some() && !self.is_as_it_should_be() {
            self.up()
        } else if !self.on_host(path) {
            Remedy::act(format!(
                "install the package that has {}: it is not on this host either",
                path.display()
            ))
        } else if self.mount_of(path).is_some() {
            let site = &self.site.desired.site;
            let path = path.display();
            Remedy::act(format!(
                "see which file it is inside: `mountjail why {site} {path}`"
            ))
        } else {
            line
        }
    }

    /// Whether `up` would change nothing.
    pub(super) fn is_as_it_should_be(&self) -> bool {
        self.site.plan.in_sync() && self.site.plan.conflicts.is_empty()
    }
}

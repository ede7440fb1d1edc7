//! A site that is up → does it work inside?
//!
//! In: what the site should have ([`Desired`]), the state of its mounts ([`Plan`]), the PHP-FPM
//! pools in it, the host. Out: one [`Finding`] per check. Whatever matters inside is tried there,
//! as the pool's user, by a process that enters the root as a worker of PHP-FPM does ([`inside`]).
//! The process has a time limit and leaves nothing behind ([`ask`]). Nothing is changed on the host
//! or in the site.

mod ask;
mod checks;
mod denied;
mod finding;
mod inside;
mod machine;
mod pools;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::base::{HostPath, JailPath};
use crate::import::fpm::PoolUser;
use crate::jail::JailUser;
use crate::manifest::Manifest;
use crate::observe::{self, Process, Table};
use crate::plan::Plan;
use crate::resolve::ldso::is_musls;
use crate::resolve::{Desired, Host, Mount, interpreter_of, root_id, why};
use crate::sys;

pub(crate) use ask::SUBCOMMAND;
pub(crate) use denied::mode_in_words;
pub(crate) use finding::{CheckVerdict, Finding, Remedy};
pub(crate) use inside::main as inside_main;
pub(crate) use machine::Machine;

use ask::{AnswerLimit, NoAnswer};
use checks::NamedCheck;
use finding::CheckOutcome;
use inside::Probe;
use pools::PoolPhp;

/// The site that is examined.
#[derive(Debug)]
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
}

/// What the caller asks for in addition.
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

/// Runs all checks in parallel. The result is in the order in which they are shown.
pub(crate) fn examine(site: &ExaminedSite<'_>, options: &ExamOptions, host: &Host) -> Vec<Finding> {
    let exam = Exam {
        site,
        options,
        host,
        presets: presets(site.manifest),
        // Read before the probes are inside as well.
        inside: root_id(&site.desired.root).map_or(vec![], observe::inside),
        other_c_library: other_c_library(host),
        php: OnceLock::new(),
    };

    let entry = checks::entry(&exam);
    let can_enter = entry.verdict == CheckVerdict::Ok;

    let mut findings = vec![entry.named("entry")];
    thread::scope(|scope| {
        let mut running = vec![];
        for check in &checks::ALL {
            let exam = &exam;
            running.push((check, scope.spawn(move || check.run(exam, can_enter))));
        }
        for (NamedCheck { name, .. }, outcome) in running {
            let outcome = outcome
                .join()
                .unwrap_or_else(|_| CheckOutcome::could_not_check("the check itself failed"));
            findings.push(outcome.named(name));
        }
    });
    findings
}

/// All presets that the manifest includes, directly or by other presets.
fn presets(manifest: &Manifest) -> BTreeSet<&str> {
    let mut presets = BTreeSet::new();
    for entry in &manifest.entries {
        presets.extend(entry.origin.presets.iter().map(String::as_str));
    }
    presets
}

/// musl answers by itself what glibc asks the jail's modules for. Most likely, the processes inside
/// have the C library of the host's shell.
fn other_c_library(host: &Host) -> Option<&'static str> {
    if !sys::MUSL {
        return None;
    }
    let shell = HostPath::new("/bin/sh").ok()?;
    match interpreter_of(host, &shell) {
        Some(loader) if is_musls(host, &loader) => None,
        _ => Some("this mountjail is built with musl, and the programs of this host are not"),
    }
}

/// What the checks share.
struct Exam<'e> {
    site: &'e ExaminedSite<'e>,
    options: &'e ExamOptions,
    host: &'e Host,
    /// All presets that the manifest includes.
    presets: BTreeSet<&'e str>,
    /// The processes that live in the root.
    inside: Vec<Process>,
    /// Why the C library's answers to a probe are not those that the site's processes get.
    other_c_library: Option<&'static str>,
    /// What PHP itself answers, once a check needs it.
    php: OnceLock<Vec<PoolPhp<'e>>>,
}

impl<'e> Exam<'e> {
    /// What PHP itself answers for the site's pools.
    fn php(&self) -> &[PoolPhp<'e>] {
        self.php.get_or_init(|| pools::ask(self))
    }

    /// Runs a probe inside.
    fn ask<P: Probe>(&self, probe: P) -> Result<P::Answer, NoAnswer> {
        self.ask_as(&self.site.user, probe)
    }

    fn ask_as<P: Probe>(&self, user: &JailUser, probe: P) -> Result<P::Answer, NoAnswer> {
        let limit = AnswerLimit {
            limit: self.options.limit,
            stop: &self.options.stop,
        };
        ask::ask(&self.site.desired.root, user, probe, limit)
    }

    /// Runs a probe on the host itself, as the site's user.
    fn ask_on_host<P: Probe>(&self, probe: P) -> Result<P::Answer, NoAnswer> {
        let limit = AnswerLimit {
            limit: self.options.limit,
            stop: &self.options.stop,
        };
        ask::ask(&HostPath::slash(), &self.site.user, probe, limit)
    }

    /// A limit for probes that wait, so that they end before they are killed.
    fn inner_limit(&self) -> Duration {
        self.options.limit * 4 / 5
    }

    /// The users of all pools, or only the one that the caller named. Never root.
    fn users(&self) -> Vec<&JailUser> {
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
    fn is_php(&self) -> bool {
        !self.site.pool_users.is_empty() || self.presets.contains("php-fpm")
    }

    /// The desired mount that shows `path`.
    fn mount_of(&self, path: &Path) -> Option<&Mount> {
        why(self.site.desired, &JailPath::new(path).ok()?).mount
    }

    /// Whether a desired mount shows `path`.
    fn brings(&self, path: &str) -> bool {
        self.mount_of(Path::new(path)).is_some()
    }

    fn on_host(&self, path: &Path) -> bool {
        HostPath::new(path).is_ok_and(|path| self.host.is_there(&path).unwrap_or(false))
    }

    /// What brings `/proc`.
    fn proc(&self) -> Remedy {
        if self.mount_of(Path::new("/proc")).is_some() {
            self.up()
        } else {
            Remedy::ManifestLine("proc: true".to_owned())
        }
    }

    fn up(&self) -> Remedy {
        Remedy::act(format!("mountjail up {}", self.site.desired.site))
    }

    /// What brings a path that is missing inside: `line`, if the host has it and the manifest does
    /// not ask for it.
    fn bring(&self, path: &Path, line: Remedy) -> Remedy {
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
    fn is_as_it_should_be(&self) -> bool {
        self.site.plan.in_sync() && self.site.plan.conflicts.is_empty()
    }
}

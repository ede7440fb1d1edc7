//! A site that is up → does it work inside?
//!
//! In: what the site should have ([`Desired`]), how its mounts stand ([`Plan`]), the PHP-FPM pools
//! in it, the host. Out: a [`Finding`] a check. What counts is tried inside, as the pool's user, by
//! a process that enters the root as a worker of PHP-FPM does ([`inside`]); it gets a limited time
//! and leaves nothing behind ([`ask`]). It only looks: it changes nothing on the host or in the
//! site.

mod ask;
mod checks;
mod finding;
mod inside;
mod machine;
mod pool_user;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crate::base::{HostPath, JailPath};
use crate::jail::Who;
use crate::manifest::Manifest;
use crate::observe::{self, Process, Table};
use crate::plan::Plan;
use crate::resolve::ldso::is_musls;
use crate::resolve::{Desired, Host, Mount, interpreter_of, root_id, why};
use crate::sys;

pub use ask::SUBCOMMAND;
pub use finding::{Finding, Remedy, Verdict};
pub use inside::main as inside_main;
pub use machine::Machine;
pub use pool_user::{PoolUser, pool_users};

use ask::{Patience, Silence};
use inside::Probe;

/// The site that is examined.
#[derive(Debug)]
pub struct Patient<'p> {
    /// What the manifest says.
    pub manifest: &'p Manifest,
    /// What it should have.
    pub desired: &'p Desired,
    /// How its mounts stand.
    pub plan: &'p Plan,
    /// The pools in it.
    pub pool_users: &'p [PoolUser],
    /// The mount table.
    pub table: &'p Table,
    /// As whom it is looked at.
    pub who: Who,
    /// When it came up, in milliseconds since boot; `None` where that is not known, as of what
    /// mount(8) mounted.
    pub since: Option<u64>,
}

/// What the caller wants to know besides.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long one look may take.
    pub limit: Duration,
    /// A name that should resolve.
    pub name: Option<String>,
    /// A TLS server that should be trusted: host and port.
    pub tls: Option<(String, u16)>,
    /// Once it is set, nothing more is looked at.
    pub stop: Arc<AtomicBool>,
}

/// All checks, side by side.
pub fn examine(patient: &Patient<'_>, options: &Options, host: &Host) -> Vec<Finding> {
    // Before processes that look are inside as well.
    let inside = root_id(&patient.desired.root).map_or(vec![], observe::inside);
    let (presets, other_c_library) = (presets(patient.manifest), other_c_library(host));
    let exam = Exam {
        patient,
        options,
        host,
        presets,
        inside,
        other_c_library,
    };
    let entry = checks::entry(&exam);
    let closed = entry.verdict != Verdict::Ok;
    let broken = || finding::Outcome::could_not_check("the check itself failed");
    let outcomes: Vec<_> = thread::scope(|scope| {
        let exam = &exam;
        let start =
            |(_, check): &'static checks::Named| scope.spawn(move || check.run(exam, closed));
        let running: Vec<_> = checks::ALL.iter().map(start).collect();
        running
            .into_iter()
            .map(|check| check.join().unwrap_or_else(|_| broken()))
            .collect()
    });
    let names = checks::ALL.iter().map(|(name, _)| *name);
    let findings = names
        .zip(outcomes)
        .map(|(name, outcome)| outcome.named(name));
    [entry.named("entry")].into_iter().chain(findings).collect()
}

fn presets(manifest: &Manifest) -> BTreeSet<&str> {
    manifest
        .entries
        .iter()
        .flat_map(|entry| &entry.origin.presets)
        .map(String::as_str)
        .collect()
}

/// One examination.
struct Exam<'e> {
    patient: &'e Patient<'e>,
    options: &'e Options,
    host: &'e Host,
    /// All presets that the manifest includes.
    presets: BTreeSet<&'e str>,
    /// The processes that live in the root.
    inside: Vec<Process>,
    /// Why the C library's answers inside are not those that the site's processes get.
    other_c_library: Option<&'static str>,
}

/// musl answers by itself what glibc asks the jail's modules for. Most likely the processes inside
/// have the C library of the host's shell.
fn other_c_library(host: &Host) -> Option<&'static str> {
    let loader = HostPath::new("/bin/sh")
        .ok()
        .and_then(|shell| interpreter_of(host, &shell));
    let same = !sys::MUSL || loader.is_some_and(|loader| is_musls(&loader));
    (!same).then_some("this mountjail is built with musl, and the programs of this host are not")
}

impl Exam<'_> {
    /// Asks inside.
    fn ask<P: Probe>(&self, probe: P) -> Result<P::Answer, Silence> {
        self.ask_as(&self.patient.who, probe)
    }

    /// All as whom something runs inside: the users of all pools, unless the caller named another.
    /// Not root.
    fn everybody(&self) -> Vec<&Who> {
        let mut all = vec![&self.patient.who];
        let whos = self.patient.pool_users.iter().map(|tenant| &tenant.who);
        let whos: Vec<_> = whos.filter(|who| !who.is_root()).collect();
        if whos.first() == all.first() {
            for who in whos {
                if !all.contains(&who) {
                    all.push(who);
                }
            }
        }
        all
    }

    fn ask_as<P: Probe>(&self, who: &Who, probe: P) -> Result<P::Answer, Silence> {
        let patience = Patience {
            limit: self.options.limit,
            stop: &self.options.stop,
        };
        ask::ask(&self.patient.desired.root, who, probe, patience)
    }

    /// Whether a look without an end of its own ends before it is killed.
    fn inner_limit(&self) -> Duration {
        self.options.limit * 4 / 5
    }

    /// Whether PHP-FPM runs inside, or shall.
    fn is_php(&self) -> bool {
        !self.patient.pool_users.is_empty() || self.presets.contains("php-fpm")
    }

    /// The mount that shows `path` once the site is as it should be.
    fn mount_of(&self, path: &Path) -> Option<&Mount> {
        why(self.patient.desired, &JailPath::new(path).ok()?).mount
    }

    fn brings(&self, path: &str) -> bool {
        self.mount_of(Path::new(path)).is_some()
    }

    fn on_host(&self, path: &Path) -> bool {
        HostPath::new(path).is_ok_and(|path| self.host.is_there(&path).unwrap_or(false))
    }

    fn up(&self) -> Remedy {
        Remedy::act(format!("mountjail up {}", self.patient.desired.site))
    }

    /// What brings a path that is missing inside: `line`, if the host has it and the manifest does
    /// not ask for it.
    fn bring(&self, path: &Path, line: Remedy) -> Remedy {
        match () {
            () if self.mount_of(path).is_some() => self.up(),
            () if self.on_host(path) => line,
            () => Remedy::act(format!(
                "install what has {}: it is not on this host either",
                path.display()
            )),
        }
    }
}

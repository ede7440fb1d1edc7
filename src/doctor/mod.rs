//! A site that is up → does it work inside?
//!
//! In: what the site should have ([`Desired`]), the state of its mounts ([`Plan`]), the PHP-FPM
//! pools in it, the host. Out: one [`Finding`] per check. Checks of the inside run there, as the
//! pool's user, in a process that enters the root as a worker of PHP-FPM does ([`inside`]). The
//! process has a time limit and leaves nothing behind ([`ask`]). Nothing is changed on the host or
//! in the site.

mod ask;
mod checks;
mod denied;
mod exam;
mod finding;
mod inside;
mod machine;
mod pool_php;
mod pools;

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::thread;

use crate::base::HostPath;
use crate::manifest::Manifest;
use crate::observe;
use crate::resolve::ldso::is_musls;
use crate::resolve::{Host, interpreter_of, root_id};
use crate::sys;

pub(crate) use ask::SUBCOMMAND;
pub(crate) use exam::{ExamOptions, ExaminedSite};
pub(crate) use finding::{CheckVerdict, Finding, Remedy};
pub(crate) use inside::main as inside_main;
pub(crate) use machine::Machine;

use checks::NamedCheck;
use exam::Exam;
use finding::CheckOutcome;

/// Runs all checks in parallel. The result is in the order in which they are shown.
pub(crate) fn examine(site: &ExaminedSite<'_>, options: &ExamOptions, host: &Host) -> Vec<Finding> {
    let exam = Exam {
        site,
        options,
        host,
        presets: presets(site.manifest),
        // Read before the probes are inside, too.
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

//! Promise: whatever the owners of some sites do, neither the host nor the other sites are harmed.
//!
//! In each round some owners of sites do random things as themselves: they rename, exchange, link,
//! remove and write what is in their roots, what is above them, and what the manifests name of
//! theirs; they mount FUSE file systems there which answer, fail, hang or die; and they do the same
//! in mount namespaces of their own. Meanwhile commands run, and some are stopped or killed; the
//! watcher runs; and the host replaces sources and changes manifests. Then the owners pause, and
//! everything is examined (`oracle.rs`):
//!
//! - (a) nothing outside of the roots changed: directories of the host, and its mount table;
//! - (b) no quiet site was touched or delayed, and each command ends;
//! - (c) at last, `down --all --lazy` leaves nothing of ours;
//! - (d) no file can be read in a root that the manifest does not name;
//! - (e) what a command says is true, and the next `up` works.
//!
//! All actions are random. `MOUNTJAIL_OWNER_SEED` repeats the choices of a run, not its timing:
//! with several processes at once, no run is like another. Findings are shown with the seed and the
//! last actions of everybody.
//!
//! `MOUNTJAIL_OWNER_SECONDS=600 cargo test --test owner -- --test-threads=1` tries each engine for
//! ten minutes. `MOUNTJAIL_OWNER_WITHOUT` leaves something out, to narrow down a finding: any of
//! `fuse`, `hang`, `namespaces`, `signals`, `watch`, `host`, `riot`, separated by commas.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod elf;
mod finale;
mod journal;
mod oracle;
mod parts;
mod player;
mod random;
mod rounds;
mod servers;
mod world;

use std::process::ExitCode;

use journal::Journal;
use oracle::Oracle;
use rounds::Riot;
use support::for_each_engine;
use world::{Options, World};

/// How long the rounds of one engine last, unless `MOUNTJAIL_OWNER_SECONDS` says otherwise.
const SECONDS: u64 = 25;

fn main() -> ExitCode {
    if let Some(code) = player::play() {
        return code;
    }
    support::main([(
        "owner",
        for_each_engine("hostile owners do no harm", owners),
    )])
}

fn options() -> Options {
    let variable = |name: &str| std::env::var(format!("MOUNTJAIL_OWNER_{name}")).ok();
    let number = |name: &str| variable(name).map(|text| text.parse().expect("a number"));
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Options {
        seconds: number("SECONDS").unwrap_or(SECONDS),
        seed: number("SEED").unwrap_or(u64::from(time.subsec_nanos())),
        without: variable("WITHOUT")
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
            .collect(),
    }
}

fn owners(engine: &'static str) {
    let options = options();
    let (seed, seconds) = (options.seed, options.seconds);
    eprintln!(
        "{engine}: MOUNTJAIL_OWNER_SEED={seed}, for {seconds} s, without {:?}",
        options.without
    );
    let world = World::new(engine, options);
    let journal = Journal::new();
    let oracle = Oracle::new(&world, &journal);
    world.sandbox.ok(&["up", "--all"]);
    world.sandbox.ok(&["status"]);
    Riot::new(&world, &oracle, &journal).goes_on();
    eprintln!("{engine}: {}", journal.summary());
    let findings = journal.findings();
    assert!(
        findings.is_empty(),
        "MOUNTJAIL_OWNER_SEED={seed} ({engine}):\n{findings}"
    );
    for kind in ["rename", "exchange", "symlink", "up", "down", "status"] {
        assert!(journal.worked(kind) > 0, "nobody ever did: {kind}");
    }
}

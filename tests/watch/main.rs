//! `watch` keeps sites right while the host changes.

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../support/mod.rs"]
mod support;

mod changes;
mod configuration;
mod faults;
mod programs;

use std::process::ExitCode;

use nix::sched::CloneFlags;

fn main() -> ExitCode {
    support::main_in(
        CloneFlags::CLONE_NEWNET,
        [
            ("changes", changes::all()),
            ("configuration", configuration::all()),
            ("faults", faults::all()),
            ("programs", programs::all()),
        ],
    )
}

//! The service manager, fstab and package managers.

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../support/mod.rs"]
mod support;

mod fstab;
mod hooks;
mod monitoring;
mod scope;
mod units;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::main([
        ("fstab", fstab::all()),
        ("hooks", hooks::all()),
        ("monitoring", monitoring::all()),
        ("scope", scope::all()),
        ("units", units::all()),
    ])
}

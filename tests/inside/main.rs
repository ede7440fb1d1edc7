//! What runs inside a site: `exec`, `trace`, `doctor`, and a pool of PHP-FPM.

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../support/mod.rs"]
mod support;

mod daemons;
mod doctor;
mod exec;
mod php_fpm;
mod trace;
mod units;

use std::process::ExitCode;

use nix::sched::CloneFlags;

fn main() -> ExitCode {
    support::main_in(
        CloneFlags::CLONE_NEWNET,
        [
            ("daemons", daemons::all()),
            ("doctor", doctor::all()),
            ("exec", exec::all()),
            ("php_fpm", php_fpm::all()),
            ("trace", trace::all()),
            ("units", units::all()),
        ],
    )
}

//! What single commands print and write.

#[path = "../support/mod.rs"]
mod support;

mod completions;
mod import;
mod import_fpm;
mod presets;
mod snapshots;
mod status;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::main([
        ("completions", completions::all()),
        ("import", import::all()),
        ("import_fpm", import_fpm::all()),
        ("presets", presets::all()),
        ("snapshots", snapshots::all()),
        ("status", status::all()),
    ])
}

//! What single commands print and write.

#[path = "../support/mod.rs"]
mod support;

mod adopt;
mod book;
mod check;
mod completions;
mod defaults;
mod import;
mod import_fpm;
mod instances;
mod json;
mod presets;
mod snapshots;
mod status;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::main([
        ("adopt", adopt::all()),
        ("book", book::all()),
        ("check", check::all()),
        ("completions", completions::all()),
        ("defaults", defaults::all()),
        ("import", import::all()),
        ("import_fpm", import_fpm::all()),
        ("instances", instances::all()),
        ("json", json::all()),
        ("presets", presets::all()),
        ("snapshots", snapshots::all()),
        ("status", status::all()),
    ])
}

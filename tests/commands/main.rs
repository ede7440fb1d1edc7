//! What single commands print and write.

#[path = "../support/mod.rs"]
mod support;

mod adopt;
mod apply;
mod book;
mod certificates;
mod check;
mod completions;
mod defaults;
mod image;
mod import;
mod import_fpm;
mod import_lines;
mod instances;
mod json;
mod nagios;
mod panels;
mod presets;
mod snapshots;
mod status;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::main([
        ("adopt", adopt::all()),
        ("apply", apply::all()),
        ("book", book::all()),
        ("certificates", certificates::all()),
        ("check", check::all()),
        ("completions", completions::all()),
        ("defaults", defaults::all()),
        ("image", image::all()),
        ("import", import::all()),
        ("import_fpm", import_fpm::all()),
        ("import_lines", import_lines::all()),
        ("instances", instances::all()),
        ("json", json::all()),
        ("nagios", nagios::all()),
        ("panels", panels::all()),
        ("presets", presets::all()),
        ("snapshots", snapshots::all()),
        ("status", status::all()),
    ])
}

//! No harm comes from wrong input, from hostile owners, or from system calls and file systems that
//! fail or hang.

#[path = "../support/mod.rs"]
mod support;

mod adopt;
mod bad_input;
mod faults;
mod limits;
mod links;
mod moved;
mod races;
mod shared_templates;
mod unknown;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::main([
        ("adopt", adopt::all()),
        ("bad_input", bad_input::all()),
        ("faults", faults::all()),
        ("limits", limits::all()),
        ("links", links::all()),
        ("moved", moved::all()),
        ("races", races::all()),
        ("shared_templates", shared_templates::all()),
        ("unknown", unknown::all()),
    ])
}

//! Sites are mounted and taken down, on each engine: what `up` and `down` promise.

#[path = "../support/mod.rs"]
mod support;

mod cost;
mod down;
mod foreign;
mod grafts_down;
mod harness;
mod lifecycle;
mod lost_templates;
mod made;
mod propagation;
mod records;
mod restrictions;
mod roots;
mod run;
mod templates;
mod whole_usr;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::main([
        ("cost", cost::all()),
        ("down", down::all()),
        ("foreign", foreign::all()),
        ("grafts_down", grafts_down::all()),
        ("harness", harness::all()),
        ("lifecycle", lifecycle::all()),
        ("lost_templates", lost_templates::all()),
        ("made", made::all()),
        ("propagation", propagation::all()),
        ("records", records::all()),
        ("restrictions", restrictions::all()),
        ("roots", roots::all()),
        ("run", run::all()),
        ("templates", templates::all()),
        ("whole_usr", whole_usr::all()),
    ])
}

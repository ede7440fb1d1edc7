//! Arguments and commands.
//!
//! The only stage that talks to people: it reads the configuration, calls the other stages in order and prints.

use std::process::ExitCode;

/// Runs the command line.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}

//! The `mountjail` command: everything is in the library, see [`mountjail::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mountjail::cli::main()
}

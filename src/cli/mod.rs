//! The command line: arguments in, an exit code out. One file a command, its arguments beside its work.

mod apply;
mod boot;
mod check;
mod complete;
mod context;
mod doctor;
mod down;
mod exec;
mod fstab;
mod import;
mod inside;
mod out;
mod parallel;
mod plan;
mod presets;
mod schema;
mod shown;
mod sites;
mod status;
mod systemd;
mod trace;
mod trust;
mod units;
mod up;
mod watch;
mod why;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use nix::sys::stat::Mode;

pub use complete::script as completion_script;
use context::Context;
use out::Out;
use trust::Trust;

/// Exit code: differences were found.
const DIFFERENT: u8 = 3;

/// Read-only bind mounts for chrooted services, from one manifest a site.
///
/// A site is one jail: a root directory and what it needs of the host, in
/// /etc/mountjail/sites/SITE.yaml. `mountjail up SITE` makes it so, `mountjail down SITE` takes it away.
#[derive(Debug, Parser)]
#[command(name = "mountjail", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:\n  0  done, or in sync\n  1  failed\n  2  wrong usage, or a mistake in a \
                          manifest\n  3  differences found (plan, status, fstab --check), \
                          or a check failed (doctor)";

/// Options of every command.
#[derive(Debug, Args)]
struct Global {
    /// The directory with sites/ and presets/
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "MOUNTJAIL_CONFIG_DIR",
        default_value = "/etc/mountjail"
    )]
    config_dir: PathBuf,
    /// Keep records in DIR/run and DIR/lib [default: /run/mountjail and /var/lib/mountjail]
    #[arg(long, global = true, value_name = "DIR", env = "MOUNTJAIL_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Say every system step
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Down(down::Down),
    Plan(plan::Plan),
    Status(status::Status),
    Check(check::Check),
    Presets(presets::Presets),
    Why(why::Why),
    Doctor(doctor::Doctor),
    Watch(watch::Watch),
    Fstab(fstab::Fstab),
    Units(units::Units),
    Exec(exec::Exec),
    Trace(trace::Trace),
    Import(import::Import),
    Schema(schema::Schema),
    Completions(schema::Completions),
}

impl Command {
    /// Whether it shows what manifests say, and neither does it nor writes down what others shall do.
    fn only_reads(&self) -> bool {
        use Command::{Check, Completions, Import, Plan, Presets, Schema, Status, Why};
        matches!(
            self,
            Plan(_) | Status(_) | Check(_) | Presets(_) | Why(_) | Import(_) | Schema(_) | Completions(_)
        )
    }
}

/// Which sites a command is for.
#[derive(Debug, Args)]
struct Which {
    /// Names of sites, or paths of manifests (with a `/`, or ending in `.yaml`)
    #[arg(
        value_name = "SITE",
        required_unless_present = "all",
        conflicts_with = "all",
        add = complete::site()
    )]
    sites: Vec<String>,
    /// All sites of the configuration
    #[arg(long)]
    all: bool,
}

/// The command line's definition, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program: parses its arguments, runs, and says how it ended.
pub fn main() -> ExitCode {
    // What doctor starts inside a root: nobody else's command, and none of a configuration's business.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == crate::doctor::SUBCOMMAND) {
        return crate::doctor::inside_main();
    }
    complete::answer();
    let cli = Cli::parse();
    // A command that is run inside shall find the caller's.
    if !matches!(cli.command, Command::Exec(_) | Command::Trace(_)) {
        nix::sys::stat::umask(placeholders_umask());
        raise_open_files();
    }
    let out = Out::new(cli.global.verbose, cli.global.quiet);
    let code = run(cli, &out).unwrap_or_else(|error| out.failure(&error));
    ExitCode::from(out.exit_code(code))
}

fn run(cli: Cli, out: &Out) -> anyhow::Result<u8> {
    let trust = Trust::new(!cli.command.only_reads());
    let context = Context::new(cli.global.config_dir, cli.global.state_dir, trust, out)?;
    match cli.command {
        Command::Up(up) => up.run(&context),
        Command::Down(down) => down.run(&context),
        Command::Plan(plan) => plan.run(&context),
        Command::Status(status) => status.run(&context),
        Command::Check(check) => check.run(&context),
        Command::Presets(presets) => presets.run(&context),
        Command::Why(why) => why.run(&context),
        Command::Doctor(doctor) => doctor.run(&context),
        Command::Watch(watch) => watch.run(&context),
        Command::Fstab(fstab) => fstab.run(&context),
        Command::Units(units) => units.run(&context),
        Command::Import(import) => import.run(&context),
        Command::Exec(exec) => exec.run(&context),
        Command::Trace(trace) => trace.run(&context),
        Command::Schema(schema) => Ok(schema.run(context.out)),
        Command::Completions(completions) => Ok(completions.run(context.out)),
    }
}

/// With it placeholders and records get the modes that they are made with, whatever the caller's is.
fn placeholders_umask() -> Mode {
    Mode::from_bits_truncate(0o022)
}

/// A run over many sites holds a descriptor for each distinct source.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard); // without it the limit shows as an error later
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_well_formed() {
        super::command().debug_assert();
    }
}

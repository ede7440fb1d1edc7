//! The command line: arguments in, an exit code out. One file a command, its arguments beside its
//! work.

mod check;
mod complete;
mod doctor;
mod down;
mod exec;
mod fstab;
mod import;
mod plan;
mod presets;
mod report;
mod run_as;
mod schema;
mod status;
mod trace;
mod units;
mod up;
mod watch;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use nix::sys::stat::Mode;

use crate::Error;

use crate::patience::supervisor;
use crate::patience::worker::WorkerEnd;
use crate::site::trust::Trust;
use crate::site::{Context, Out, Selection};
pub use complete::script as completion_script;

/// How many seconds a site's file systems may be silent.
const DEFAULT_LIMIT: u64 = 10;

/// Exit code: differences were found.
const DIFFERENT: u8 = 3;

/// Read-only bind mounts for chrooted services, from one manifest a site.
///
/// A site is one jail: a root directory and what it needs of the host, in
/// /etc/mountjail/sites/SITE.yaml. `mountjail up SITE` makes it so, `mountjail down SITE` takes it
/// away.
#[derive(Debug, Parser)]
#[command(name = "mountjail", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:\n  0  done, or in sync\n  1  failed\n  2  wrong usage, or a mistake in a \
                          manifest\n  3  differences found (plan, status, fstab --check, \
                          units --check), or a check failed (doctor)";

/// Options of every command.
#[derive(Clone, Debug, Args)]
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
    /// Give up a site whose file systems (FUSE, NFS) do not answer for so long; 0: never [default:
    /// 10]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86400))]
    timeout: Option<u64>,
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
    /// Whether it shows what manifests say, and neither does it nor writes down what others shall
    /// do.
    fn only_reads(&self) -> bool {
        use Command::{Check, Completions, Import, Plan, Presets, Schema, Status, Why};
        matches!(
            self,
            Plan(_)
                | Status(_)
                | Check(_)
                | Presets(_)
                | Why(_)
                | Import(_)
                | Schema(_)
                | Completions(_)
        )
    }
}

/// Which sites a command is for.
#[derive(Clone, Debug, Args)]
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

impl Which {
    fn selection(&self) -> Selection {
        if self.all {
            Selection::All
        } else {
            Selection::Named(self.sites.clone())
        }
    }
}

/// The command line's definition, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program: parses its arguments, runs, and says how it ended.
pub fn main() -> ExitCode {
    // What doctor starts inside a root: nobody else's command, and none of a configuration's
    // business.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == crate::doctor::SUBCOMMAND)
    {
        return crate::doctor::inside_main();
    }
    complete::answer();
    let Cli { global, command } = Cli::parse();
    // One for all threads, also for those that outlive the command.
    let out: &'static Out = Box::leak(Box::new(Out::new(global.verbose, global.quiet)));
    ExitCode::from(match command {
        Command::Exec(exec) => exec_in_front(global, exec, out),
        Command::Trace(trace) => trace.run(&global, out),
        Command::Schema(schema) => schema.run(out),
        Command::Completions(completions) => completions.run(out),
        command => {
            nix::sys::stat::umask(placeholders_umask());
            raise_open_files();
            behind_front(out, global.limit(), move || run(global, command, out))
        }
    })
}

/// Runs `command`, as [`supervisor::run`] does; gives the exit code.
fn behind_front(
    out: &'static Out,
    limit: Option<Duration>,
    command: impl FnOnce() -> anyhow::Result<u8> + Send + 'static,
) -> u8 {
    match told(out, limit, command) {
        WorkerEnd::Exit(code) => code,
        WorkerEnd::HandOver(_) => 1, // nobody asked for it
    }
}

/// As [`supervisor::run`].
fn told(
    out: &'static Out,
    limit: Option<Duration>,
    command: impl FnOnce() -> anyhow::Result<u8> + Send + 'static,
) -> WorkerEnd {
    let command = move || out.exit_code(command().unwrap_or_else(|error| out.failure(&error)));
    supervisor::run(&|error| out.error(error), limit, command).unwrap_or_else(|error| {
        out.error(&Error::failed("cannot start a process").because(&error));
        WorkerEnd::Exit(1)
    })
}

/// The command is looked for in a process that can be given up, and takes the place of this one.
fn exec_in_front(global: Global, exec: exec::Exec, out: &'static Out) -> u8 {
    let exec = Arc::new(exec);
    let look = exec.clone();
    match told(out, global.limit(), move || {
        look.look(global.context(Trust::new(true), out)?)
    }) {
        WorkerEnd::Exit(code) => code,
        WorkerEnd::HandOver(entry) => exec.enter(&entry, out),
    }
}

impl Global {
    /// How long something may be silent.
    fn limit(&self) -> Option<Duration> {
        let seconds = self.timeout.unwrap_or(DEFAULT_LIMIT);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// What the commands share, for as long as this process lives.
    ///
    /// `trust`: whose manifests count.
    fn context(self, trust: Trust, out: &'static Out) -> crate::Result<&'static Context> {
        let limit = self.limit();
        let context = Context::new(self.config_dir, self.state_dir, limit, trust, out)?;
        Ok(Box::leak(Box::new(context)))
    }
}

fn run(global: Global, command: Command, out: &'static Out) -> anyhow::Result<u8> {
    let context = global.context(Trust::new(!command.only_reads()), out)?;
    match command {
        Command::Up(up) => up.run(context),
        Command::Down(down) => down.run(context),
        Command::Plan(plan) => plan.run(context),
        Command::Status(status) => status.run(context),
        Command::Check(check) => check.run(context),
        Command::Presets(presets) => presets.run(context),
        Command::Why(why) => why.run(context),
        Command::Doctor(doctor) => doctor.run(context),
        Command::Watch(watch) => watch.run(context),
        Command::Fstab(fstab) => fstab.run(context),
        Command::Units(units) => units.run(context),
        Command::Import(import) => import.run(context),
        // These do not run behind a process in supervisor, or not as a whole.
        Command::Exec(_) | Command::Trace(_) | Command::Schema(_) | Command::Completions(_) => {
            Ok(1)
        }
    }
}

/// With it placeholders and records get the modes that they are made with, whatever the caller's
/// is.
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

//! The command line: arguments in, an exit code out. One file per command has its arguments and its
//! work.

mod adopt;
mod apply;
mod check;
mod complete;
mod doctor;
mod down;
mod exec;
mod fstab;
mod import;
mod jail_command;
mod missing_program;
mod place;
mod plan;
mod presets;
mod remove;
mod report;
mod run;
mod run_as;
mod schema;
mod status;
mod trace;
mod units;
mod up;
mod watch;
mod why;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ColorChoice, CommandFactory, Parser, Subcommand};

use self::place::SiteInside;
use crate::engine::enter_image;
use crate::patience::supervisor;
use crate::patience::worker::WorkerEnd;
pub use crate::render::output::{Key, OUTPUTS, Output, PARTS, Shape, output};
use crate::site::out::{FailureForm, Verbosity};
use crate::site::trust::{Effect, Trust};
use crate::site::{Context, Out, Selection};
use crate::{Error, sys};
pub use complete::script as completion_script;

/// How many seconds a site's file systems may be silent before the site is given up.
const DEFAULT_LIMIT: u64 = 10;

/// Exit code: differences were found.
const DIFFERENT: u8 = 3;

/// Read-only bind mounts for chrooted services, from one manifest per site.
///
/// A site is one jail: a root directory and what it needs of the host, written down in
/// /etc/mountjail/sites/SITE.yaml. `mountjail up SITE` mounts it, `mountjail down SITE` unmounts it
/// and removes what was made for it.
#[derive(Debug, Parser)]
#[command(name = "mountjail", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:\n  0  done, or in sync\n  1  failed\n  \
                          2  wrong usage, or a mistake in a manifest\n  \
                          3  differences found (plan, status, adopt, fstab --check, \
                          units --check), or a check failed (doctor)";

/// Options of every command.
#[derive(Clone, Debug, Args)]
struct Global {
    /// Directory of sites/, presets/ and defaults.yaml
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "MOUNTJAIL_CONFIG_DIR",
        default_value = "/etc/mountjail"
    )]
    config_dir: PathBuf,
    /// Directory of the records [default: /run/mountjail and /var/lib/mountjail]
    #[arg(long, global = true, value_name = "DIR", env = "MOUNTJAIL_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Give up on a site whose file systems do not answer for this long; 0: never [default: 10]
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(..=86400)
    )]
    timeout: Option<u64>,
    /// Report each step
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Report errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// When words have colours; auto: on a terminal
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    /// The id of the mount namespace that this process is in, if it is that of a service.
    #[arg(skip)]
    namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    Down(down::DownArgs),
    Apply(apply::ApplyArgs),
    Remove(remove::RemoveArgs),
    Adopt(adopt::AdoptArgs),
    Plan(plan::PlanArgs),
    Status(status::StatusArgs),
    Check(check::CheckArgs),
    Presets(presets::PresetsArgs),
    Why(why::WhyArgs),
    Doctor(doctor::DoctorArgs),
    Watch(watch::WatchArgs),
    Fstab(fstab::FstabArgs),
    Units(units::UnitsArgs),
    Exec(exec::ExecArgs),
    Run(run::RunArgs),
    Trace(trace::TraceArgs),
    Import(import::ImportArgs),
    Schema(schema::SchemaArgs),
    Completions(schema::CompletionsArgs),
}

impl Command {
    /// Whether it only shows what manifests say, or acts on it, by itself or by writing down what
    /// other programs do.
    fn effect(&self) -> Effect {
        use Command::{Check, Completions, Import, Plan, Presets, Schema, Status, Why};
        match self {
            Plan(_) | Status(_) | Check(_) | Presets(_) | Why(_) | Import(_) | Schema(_)
            | Completions(_) => Effect::ReadOnly,
            _ => Effect::Acts,
        }
    }

    /// What it prints if it fails as a whole.
    fn failure_form(&self) -> FailureForm {
        let json = match self {
            Self::Status(status) => return status.failure_form(),
            Self::Up(up) => up.json,
            Self::Down(down) => down.json,
            Self::Apply(apply) => apply.json,
            Self::Remove(remove) => remove.json,
            Self::Adopt(adopt) => adopt.json,
            Self::Plan(plan) => plan.json,
            Self::Check(check) => check.json,
            Self::Presets(presets) => presets.json,
            Self::Why(why) => why.json,
            Self::Doctor(doctor) => doctor.json,
            Self::Fstab(fstab) => fstab.json,
            Self::Units(units) => units.json,
            Self::Trace(trace) => trace.json,
            Self::Import(import) => import.json,
            Self::Watch(_)
            | Self::Exec(_)
            | Self::Run(_)
            | Self::Schema(_)
            | Self::Completions(_) => false,
        };
        if json {
            FailureForm::Json
        } else {
            FailureForm::Nothing
        }
    }

    /// The root of the image that it works on, in place of the host.
    fn image(&self) -> Option<&Path> {
        match self {
            Self::Check(check) => check.image(),
            Self::Fstab(fstab) => fstab.image(),
            Self::Units(units) => units.image(),
            Self::Why(why) => why.image(),
            _ => None,
        }
    }

    /// The site in whose root it works.
    fn site_inside(&self) -> Option<SiteInside<'_>> {
        let site = match self {
            Self::Exec(exec) => exec.site(),
            Self::Trace(trace) => trace.site(),
            Self::Doctor(doctor) => doctor.site_inside()?,
            _ => return None,
        };
        Some(SiteInside {
            site,
            starts_service: matches!(self, Self::Trace(trace) if trace.starts_service()),
        })
    }
}

/// The tree that a command is for.
#[derive(Clone, Debug, Default, Args)]
struct Tree {
    /// Work on an image that is being built: PREFIX is its root, and all paths are in it
    #[arg(long, value_name = "PREFIX")]
    root: Option<PathBuf>,
}

/// Which sites a command is for.
#[derive(Clone, Debug, Default, Args)]
struct Which {
    /// Names of sites, or paths of manifests (with a `/`, or ending in `.yaml`); NAME@: all sites
    /// of a template
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

/// The program: parses its arguments, runs the command, and returns its exit code.
pub fn main() -> ExitCode {
    // A hidden command that `doctor` runs inside a root; it needs no configuration.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == crate::doctor::SUBCOMMAND)
    {
        return crate::doctor::inside_main();
    }
    sys::survive_file_size_limit();
    complete::answer();
    let Cli {
        mut global,
        command,
    } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error).into(),
    };
    global.anstream_color().write_global();
    // For all threads, also those that outlive the command.
    let out: &'static Out = Box::leak(Box::new(Out::new(
        global.verbosity(),
        command.failure_form(),
    )));
    if let Some(image) = command.image()
        && let Err(error) = enter_image(image)
    {
        return out.failure(&error.into()).into();
    }
    if let Some(site) = command.site_inside()
        && let Err(code) = place::go(&mut global, site, out)
    {
        return code.into();
    }
    ExitCode::from(match command {
        Command::Exec(exec) => run_exec(global, exec, out),
        Command::Run(run) => run.run(global, out),
        Command::Trace(trace) => trace.run(&global, out),
        Command::Schema(schema) => schema.run(out),
        Command::Completions(completions) => completions.run(out),
        command => {
            raise_open_files();
            run_in_worker(out, global.limit(), move || run(global, command, out))
        }
    })
}

/// Answers a command line that cannot be parsed, or that asks for help; returns the exit code.
fn wrong_usage(error: &clap::Error) -> u8 {
    if !error.use_stderr() || !status::is_plugin(std::env::args_os().skip(1)) {
        error.exit()
    }
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    let usage = Error::usage(first.strip_prefix("error: ").unwrap_or(first));
    Out::new(Verbosity::Normal, FailureForm::Plugin).failure(&usage.into())
}

/// Runs `command` in a worker; returns its exit code.
fn run_in_worker(
    out: &'static Out,
    limit: Option<Duration>,
    command: impl FnOnce() -> anyhow::Result<u8> + Send + 'static,
) -> u8 {
    match supervise(out, limit, command) {
        WorkerEnd::Exit(code) => code,
        WorkerEnd::HandOver(_) => 1, // no such command hands anything over
    }
}

/// Runs `command` in a worker, and reports its error; returns how the worker ended.
fn supervise(
    out: &'static Out,
    limit: Option<Duration>,
    command: impl FnOnce() -> anyhow::Result<u8> + Send + 'static,
) -> WorkerEnd {
    let command = move || out.exit_code(command().unwrap_or_else(|error| out.failure(&error)));
    let report = |error: &Error| out.failure(&error.clone().into());
    supervisor::run(&report, limit, command).unwrap_or_else(|error| {
        let cannot = Error::failed("cannot start a process").because(&error);
        WorkerEnd::Exit(report(&cannot))
    })
}

/// Looks for the command in a worker, which can be given up, and then becomes the command.
fn run_exec(global: Global, exec: exec::ExecArgs, out: &'static Out) -> u8 {
    let exec = Arc::new(exec);
    let look = exec.clone();
    match supervise(out, global.limit(), move || {
        look.look(global.context(Trust::new(Effect::Acts), out)?)
    }) {
        WorkerEnd::Exit(code) => code,
        WorkerEnd::HandOver(entry) => exec.enter(&entry, out),
    }
}

impl Global {
    fn verbosity(&self) -> Verbosity {
        match (self.verbose, self.quiet) {
            (true, _) => Verbosity::Verbose,
            (_, true) => Verbosity::Quiet,
            _ => Verbosity::Normal,
        }
    }

    /// `--color`, as the streams take it.
    fn anstream_color(&self) -> anstream::ColorChoice {
        match self.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        }
    }

    /// How long a file system may be silent; `None`: for ever.
    fn limit(&self) -> Option<Duration> {
        let seconds = self.timeout.unwrap_or(DEFAULT_LIMIT);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// What the commands share, for as long as this process lives.
    fn context(self, trust: Trust, out: &'static Out) -> crate::Result<&'static Context> {
        let limit = self.limit();
        let mut context = Context::new(self.config_dir, self.state_dir, limit, trust, out)?;
        if let Some(namespace) = &self.namespace {
            context = context.with_state(context.state.of_namespace(namespace));
        }
        Ok(Box::leak(Box::new(context)))
    }
}

fn run(global: Global, command: Command, out: &'static Out) -> anyhow::Result<u8> {
    let context = global.context(Trust::new(command.effect()), out)?;
    match command {
        Command::Up(up) => up.run(context),
        Command::Down(down) => down.run(context),
        Command::Apply(apply) => apply.run(context),
        Command::Remove(remove) => remove.run(context),
        Command::Adopt(adopt) => adopt.run(context),
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
        // These do not run in a worker, or not as a whole.
        Command::Exec(_)
        | Command::Run(_)
        | Command::Trace(_)
        | Command::Schema(_)
        | Command::Completions(_) => Ok(1),
    }
}

/// Raises the limit of open files: a run over many sites has a descriptor per distinct source.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard); // a limit too low is an error later
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_well_formed() {
        super::command().debug_assert();
    }
}

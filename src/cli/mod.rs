//! The command line: arguments in, an exit code out. One file per command has its arguments and its
//! work.

mod adopt;
mod advice;
mod apply;
mod args;
mod check;
mod command_line;
mod complete;
mod doctor;
mod down;
mod exec;
mod fstab;
mod import;
mod jail_command;
mod late;
mod place;
mod plan;
mod presets;
mod processes;
mod remove;
mod report;
mod run;
mod run_as;
mod schema;
mod shared_cache;
mod status;
mod supervised;
mod trace;
mod units;
mod up;
mod watch;
mod why;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::CommandFactory;

use self::args::Global;
use self::command_line::{Cli, Command};
use self::supervised::{raise_open_files, run_in_worker, supervise};
use crate::engine::enter_image;
use crate::patience::worker::WorkerEnd;
pub use crate::render::output::{Key, OUTPUTS, Output, PARTS, Shape, output};
use crate::site::Out;
use crate::site::out::{FailureForm, Verbosity};
use crate::site::trust::{Effect, Trust};
use crate::{Error, render, sys};
pub use complete::script as completion_script;

/// The command line's definition, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The program: parses its arguments, runs the command, and returns its exit code.
pub fn main() -> ExitCode {
    sys::wait_for_children();
    // A hidden command that `doctor` runs inside a root; it needs no configuration.
    let first = std::env::args_os().nth(1);
    if first.as_deref() == Some(OsStr::new(crate::doctor::SUBCOMMAND)) {
        return crate::doctor::inside_main();
    }
    sys::survive_file_size_limit();
    complete::answer(command);
    let Cli {
        mut global,
        command,
    } = match command_line::parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error).into(),
    };
    global.anstream_color().write_global();
    // For all threads, also those that outlive the command.
    let out: &'static Out = Box::leak(Box::new(Out::new(
        global.verbosity(),
        command.failure_form(),
    )));
    if let Some(image) = command.image() {
        if let Err(error) = enter_image(image) {
            return out.failure(&error.into()).into();
        }
        global.is_in_image = true;
    }
    if let Some(site) = command.site_inside()
        && let Err(code) = place::go(&mut global, site, out)
    {
        return code.into();
    }
    let image = command.image().map(Path::to_owned);
    let code = start(global, command, out);
    if let Some(image) = image
        && [1, 2].contains(&code)
    {
        out.info(format_args!(
            "all paths are in the image {}",
            image.display()
        ));
    }
    ExitCode::from(code)
}

/// Runs the command, most of them in a worker, which can be given up; returns its exit code.
fn start(global: Global, command: Command, out: &'static Out) -> u8 {
    match command {
        Command::Exec(exec) => run_exec(global, exec.0, out),
        Command::Run(run) => run.0.run(global, out),
        Command::Trace(trace) => trace.0.run(&global, out),
        Command::Schema(schema) => schema.run(out),
        Command::Completions(completions) => completions.run(out),
        command => {
            raise_open_files();
            run_in_worker(out, global.limit(), move || run(global, command, out))
        }
    }
}

/// Answers a command line that cannot be parsed, or that asks for help; returns the exit code.
fn wrong_usage(error: &clap::Error) -> u8 {
    let form = form_by_words(std::env::args_os().skip(1));
    if !error.use_stderr() || form == FailureForm::Nothing {
        error.exit()
    }
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    let usage = Error::usage(first.strip_prefix("error: ").unwrap_or(first));
    let out = Out::new(Verbosity::Normal, form);
    if form == FailureForm::Plugin {
        return out.failure(&usage.into());
    }
    let _ = error.print(); // as `exit` does
    out.failure_of(usage.exit_code(), &[render::json::error(None, &usage)])
}

/// The form of the output of a command with these arguments, which cannot be parsed.
fn form_by_words(arguments: impl Iterator<Item = OsString>) -> FailureForm {
    let words: Vec<_> = arguments.take_while(|word| word != "--").collect();
    if let Some(form) = status::form_by_words(&words) {
        form
    } else if words.iter().any(|word| word == "--json") {
        FailureForm::Json
    } else {
        FailureForm::Nothing
    }
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_well_formed() {
        super::command().debug_assert();
    }
}

//! Definitions of arguments that are made only when they are needed. Those of all subcommands
//! together take longer than many a command.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, Error, FromArgMatches, Parser};

use super::Cli;

/// Whether each subcommand's arguments are defined only when it is the one that is called.
static ONLY_OF_THE_CALLED: AtomicBool = AtomicBool::new(false);

/// Parses the command line of this process.
pub(super) fn parse() -> Result<Cli, Error> {
    ONLY_OF_THE_CALLED.store(true, Ordering::Relaxed);
    let parsed = Cli::try_parse();
    ONLY_OF_THE_CALLED.store(false, Ordering::Relaxed);
    // Help and errors are about all subcommands.
    parsed
        .or_else(|_| Cli::try_parse())
        .map_err(about_what_was_typed)
}

/// The error about a missing argument, whose usage has the arguments that were typed, and not
/// those of the environment as well.
fn about_what_was_typed(error: Error) -> Error {
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return error;
    }
    let typed = Cli::command().mut_args(|arg| arg.env(Resettable::Reset));
    typed.try_get_matches().err().unwrap_or(error)
}

/// The arguments of a subcommand.
#[derive(Debug)]
pub(super) struct Late<T>(pub T);

impl<T> Deref for Late<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Args> Args for Late<T> {
    fn augment_args(command: clap::Command) -> clap::Command {
        if ONLY_OF_THE_CALLED.load(Ordering::Relaxed) {
            command.defer(T::augment_args)
        } else {
            T::augment_args(command)
        }
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        T::augment_args_for_update(command)
    }
}

impl<T: FromArgMatches> FromArgMatches for Late<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }

    fn update_from_arg_matches_mut(&mut self, matches: &mut ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches_mut(matches)
    }
}

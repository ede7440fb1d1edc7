//! Definitions of arguments that are made only when they are needed. Those of all subcommands
//! together take longer than many a command.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{ArgMatches, Args, Error, FromArgMatches};

/// Whether each subcommand's arguments are defined only when it is the one that is called.
static ONLY_OF_THE_CALLED: AtomicBool = AtomicBool::new(false);

/// The result of `parse`, for which only the arguments of the called subcommand are defined.
pub(super) fn only_the_called<R>(parse: impl FnOnce() -> R) -> R {
    ONLY_OF_THE_CALLED.store(true, Ordering::Relaxed);
    let parsed = parse();
    ONLY_OF_THE_CALLED.store(false, Ordering::Relaxed);
    parsed
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

//! The arguments of the program: which command is called, and what of it is known before it runs.

use std::path::Path;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{CommandFactory, Error, Parser, Subcommand};

use super::args::Global;
use super::late::{self, Late};
use super::place::SiteInside;
use super::{
    adopt, apply, check, doctor, down, exec, fstab, import, plan, presets, remove, run, schema,
    status, trace, units, up, watch, why,
};
use crate::site::out::FailureForm;
use crate::site::trust::Effect;

/// Read-only bind mounts for chrooted services, from one manifest per site.
///
/// A site is one jail: a root directory and what it needs of the host, written down in
/// /etc/mountjail/sites/SITE.yaml. `mountjail up SITE` mounts it, `mountjail down SITE` unmounts it
/// and removes what was made for it.
#[derive(Debug, Parser)]
#[command(name = "mountjail", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes:\n  0  done, or in sync\n  1  failed\n  \
                          2  wrong usage, or a mistake in a manifest\n  \
                          3  differences found (plan, --dry-run, status, adopt, fstab --check, \
                          units --check), or a check failed (doctor)";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Up(Late<up::UpArgs>),
    Down(Late<down::DownArgs>),
    Apply(Late<apply::ApplyArgs>),
    Remove(Late<remove::RemoveArgs>),
    Adopt(Late<adopt::AdoptArgs>),
    Plan(Late<plan::PlanArgs>),
    Status(Late<status::StatusArgs>),
    Check(Late<check::CheckArgs>),
    Presets(Late<presets::PresetsArgs>),
    Why(Late<why::WhyArgs>),
    Doctor(Late<doctor::DoctorArgs>),
    Watch(Late<watch::WatchArgs>),
    Fstab(Late<fstab::FstabArgs>),
    Units(Late<units::UnitsArgs>),
    Exec(Late<exec::ExecArgs>),
    Run(Late<run::RunArgs>),
    Trace(Late<trace::TraceArgs>),
    Import(Late<import::ImportArgs>),
    Schema(Late<schema::SchemaArgs>),
    Completions(Late<schema::CompletionsArgs>),
}

impl Command {
    /// Whether it only shows what manifests say, or acts on it, by itself or by writing down what
    /// other programs do.
    pub(super) fn effect(&self) -> Effect {
        use Command::{Check, Completions, Import, Plan, Presets, Schema, Status, Why};
        match self {
            Plan(_) | Status(_) | Check(_) | Presets(_) | Why(_) | Import(_) | Schema(_)
            | Completions(_) => Effect::ReadOnly,
            _ => Effect::Acts,
        }
    }

    /// The form of its output if it fails as a whole.
    pub(super) fn failure_form(&self) -> FailureForm {
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
    pub(super) fn image(&self) -> Option<&Path> {
        match self {
            Self::Check(check) => check.image(),
            Self::Fstab(fstab) => fstab.image(),
            Self::Units(units) => units.image(),
            Self::Why(why) => why.image(),
            _ => None,
        }
    }

    /// The site in whose root it works.
    pub(super) fn site_inside(&self) -> Option<SiteInside<'_>> {
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

/// Parses the command line of this process.
pub(super) fn parse() -> Result<Cli, Error> {
    let parsed = late::only_the_called(Cli::try_parse);
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

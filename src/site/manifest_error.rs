//! Why a manifest cannot be used, and how that is reported.

use std::fmt;

use super::event::Event;
use super::out::Out;
use crate::Error;
use crate::base::SiteName;
use crate::manifest::{Diagnostic, Diagnostics};

/// Why there is no manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ManifestError {
    Error(Error),
    Mistakes(Diagnostics),
}

impl From<Error> for ManifestError {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// In one line; with `{:#}` as it is shown to people, in several lines.
impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "{error}"),
            Self::Mistakes(mistakes) if f.alternate() => f.write_str(&mistakes.render(false)),
            Self::Mistakes(mistakes) => f.write_str(&mistakes.brief()),
        }
    }
}

impl ManifestError {
    /// The errors to report, for programs.
    pub(super) fn reported(&self) -> Vec<Reported> {
        match self {
            Self::Error(error) => vec![Reported::Error(error.clone())],
            Self::Mistakes(mistakes) => mistakes.iter().cloned().map(Reported::Mistake).collect(),
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Error(error) => error.exit_code(),
            Self::Mistakes(_) => 2,
        }
    }

    /// Reports it about `what`, such as a preset; returns the exit code.
    pub(crate) fn report(&self, out: &Out, what: &dyn fmt::Display) -> u8 {
        self.report_of(out, &[], what)
    }

    pub(super) fn report_of(&self, out: &Out, sites: &[&SiteName], what: &dyn fmt::Display) -> u8 {
        match self {
            Self::Error(error) => out.about(Event::Failed, sites).error(error),
            Self::Mistakes(mistakes) => {
                out.about(Event::Mistake, sites).diagnostics(what, mistakes);
            }
        }
        self.exit_code()
    }
}

/// A reported error, for programs.
pub(crate) enum Reported {
    Error(Error),
    Mistake(Diagnostic),
}

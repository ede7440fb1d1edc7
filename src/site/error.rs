//! Why a command failed on one site, and how that is reported.

use std::fmt;

use super::Site;
use super::event::Event;
use super::out::{Out, SiteOut, worst};
use crate::Error;
use crate::base::text::plural;
use crate::base::{ErrorCode, ErrorKind, SiteName};
use crate::engine::EngineFailure;
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
    /// What there is to report, for programs.
    fn reported(&self) -> Vec<Reported> {
        match self {
            Self::Error(error) => vec![Reported::Error(error.clone())],
            Self::Mistakes(mistakes) => mistakes.iter().cloned().map(Reported::Mistake).collect(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Error(error) => error.exit_code(),
            Self::Mistakes(_) => 2,
        }
    }

    /// Reports it about `what`, such as a preset; returns the exit code.
    pub(crate) fn report(&self, out: &Out, what: &dyn fmt::Display) -> u8 {
        self.report_of(out, &[], what)
    }

    fn report_of(&self, out: &Out, sites: &[&SiteName], what: &dyn fmt::Display) -> u8 {
        match self {
            Self::Error(error) => out.about(Event::Failed, sites).error(error),
            Self::Mistakes(mistakes) => {
                out.about(Event::Mistake, sites).diagnostics(what, mistakes);
            }
        }
        self.exit_code()
    }
}

/// Why a command failed on one site.
pub(crate) enum SiteError {
    Manifest(ManifestError),
    Errors(Vec<Error>),
    Engine(Box<EngineFailure>),
}

impl SiteError {
    /// The same about `site`, which its errors do not name.
    pub(super) fn of_site(self, site: &SiteName) -> Self {
        match self {
            Self::Manifest(_) | Self::Engine(_) => self,
            Self::Errors(errors) => Self::Errors(
                errors
                    .into_iter()
                    .map(|error| error.context(site))
                    .collect(),
            ),
        }
    }

    /// The same, with what could not be undone in a template of the site.
    pub(super) fn and_not_undone(self, template: EngineFailure) -> Self {
        let EngineFailure { lasting, also, .. } = template;
        match self {
            Self::Engine(mut failure) => {
                failure.lasting.extend(lasting);
                failure.also.extend(also);
                Self::Engine(failure)
            }
            Self::Errors(mut errors) => {
                errors.extend(also);
                Self::Errors(errors)
            }
            Self::Manifest(_) => self,
        }
    }
}

impl From<ManifestError> for SiteError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

impl From<Error> for SiteError {
    fn from(error: Error) -> Self {
        Self::Errors(vec![error])
    }
}

impl SiteError {
    /// What failed, in one piece of text.
    pub(crate) fn text(&self, site: &Site) -> String {
        match self {
            Self::Manifest(error) => format!("{error:#}"),
            Self::Errors(errors) => errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
            Self::Engine(failure) => failure.error.clone().context(&site.name).to_string(),
        }
    }

    /// Whether it failed because of something that changed after it was looked at, and all that can
    /// be undone was undone.
    pub(crate) fn is_overtaken(&self) -> bool {
        match self {
            Self::Manifest(_) => false,
            Self::Errors(errors) => errors.iter().any(Error::is_overtaken),
            Self::Engine(failure) => failure.error.is_overtaken() && failure.also.is_empty(),
        }
    }

    /// Whether it was given up because something did not answer.
    pub(crate) fn is_silent(&self) -> bool {
        let Self::Errors(errors) = self else {
            return false;
        };
        errors.iter().any(|error| error.kind() == ErrorKind::Silent)
    }

    /// How many errors there are.
    pub(crate) fn count(&self) -> usize {
        if let Self::Errors(errors) = self {
            errors.len()
        } else {
            1
        }
    }

    /// The same with no more than the first `most` errors.
    pub(crate) fn shortened(self, site: &SiteName, most: usize) -> Self {
        match self {
            Self::Errors(mut errors) if errors.len() > most + 1 => {
                let more = plural(errors.len() - most, "more error");
                errors.truncate(most);
                let hint = format!("`mountjail status {site}` shows all");
                errors.push(Error::failed(format!("{site}: {more}")).hint(hint));
                Self::Errors(errors)
            }
            short => short,
        }
    }

    /// As one error, in one line.
    pub(crate) fn as_error(&self, site: &Site) -> Error {
        match self {
            Self::Manifest(ManifestError::Mistakes(mistakes)) => {
                Error::usage(mistakes.brief_in(&site.file))
            }
            Self::Manifest(error) => Error::usage(error.to_string()),
            Self::Errors(errors) if errors.len() == 1 => errors[0].clone(),
            Self::Errors(_) | Self::Engine(_) => Error::failed(self.text(site)),
        }
    }

    /// The exit code, and what there is to report, for programs.
    pub(crate) fn outcome(&self, site: &Site) -> (u8, Vec<Reported>) {
        match self {
            Self::Manifest(error) => (error.exit_code(), error.reported()),
            Self::Errors(errors) => {
                let code = worst(errors.iter().map(Error::exit_code));
                (code, errors.iter().cloned().map(Reported::Error).collect())
            }
            Self::Engine(failure) => {
                let name = &site.name;
                let error = first_error(failure, name);
                let code = error.exit_code();
                let also = also_failed(failure).map(|also| also.clone().context(name));
                let lasting = failure.lasting.iter();
                let lasting = lasting.map(|lasting| Error::failed(format!("{name}: {lasting}")));
                let all = [error].into_iter().chain(also).chain(lasting);
                (code, all.map(Reported::Error).collect())
            }
        }
    }

    /// What there is to report, as people read it.
    pub(crate) fn messages(&self, site: &Site) -> Vec<String> {
        if let Self::Manifest(error) = self {
            return vec![format!("{error:#}")];
        }
        let (_, reported) = self.outcome(site);
        let text = |reported: Reported| match reported {
            Reported::Error(error) => Some(error.to_string()),
            Reported::Mistake(_) => None, // only a manifest has them
        };
        reported.into_iter().filter_map(text).collect()
    }

    /// Reports the failure; returns the exit code, and what was reported.
    pub(crate) fn report(&self, out: &Out, site: &Site) -> (u8, Vec<Reported>) {
        let sites = &[&site.name];
        match self {
            Self::Manifest(error) => drop(error.report_of(out, sites, &site.name)),
            Self::Errors(errors) => out.about(Event::Failed, sites).errors(errors),
            Self::Engine(failure) => report_engine(out, &site.name, failure),
        }
        self.outcome(site)
    }
}

/// What was reported, for programs.
pub(crate) enum Reported {
    Error(Error),
    Mistake(Diagnostic),
}

fn report_engine(out: &Out, site: &SiteName, failure: &EngineFailure) {
    let sites = &[site];
    let failed = out.about(Event::Failed, sites);
    failed.error(&first_error(failure, site));
    for also in also_failed(failure) {
        failed.error(&also.clone().context(site));
    }
    report_undone(&out.site(site), failure);
}

fn first_error(failure: &EngineFailure, site: &SiteName) -> Error {
    let error = failure.error.clone().context(site);
    if failure.busy {
        error.coded(ErrorCode::InUse)
    } else {
        error
    }
}

/// What could not be undone. On a full disk an undo fails for the same reason, which counts once.
fn also_failed(failure: &EngineFailure) -> impl Iterator<Item = &Error> {
    let also = failure.also.iter();
    also.filter(|also| **also != failure.error)
}

fn report_undone(out: &SiteOut<'_>, failure: &EngineFailure) {
    let steps = plural(failure.undone.len(), "step");
    if !failure.lasting.is_empty() {
        let lasting = failure.lasting.join("; ");
        out.warn(format_args!(
            "undid {steps}; the site is not as it was before: {lasting}"
        ));
    } else if failure.also.is_empty() && !failure.undone.is_empty() {
        out.info(format_args!("undid {steps}; the site is as it was before"));
    }
}

//! Why a command did not do what it was for on one site, and how that is reported.

use std::fmt;

use super::Site;
use super::out::{Out, worst};
use crate::Error;
use crate::base::text::plural;
use crate::base::{Kind, SiteName};
use crate::engine::EngineFailure;
use crate::manifest::{Diagnostic, Diagnostics};

/// Why there is no manifest.
#[derive(Debug)]
pub(crate) enum ManifestError {
    Error(Error),
    Mistakes(Diagnostics),
}

impl From<Error> for ManifestError {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl ManifestError {
    /// Says it of `what`, a site or a preset; gives the exit code.
    pub(crate) fn report(&self, out: &Out, what: &dyn fmt::Display) -> u8 {
        match self {
            Self::Error(error) => {
                out.error(error);
                error.exit_code()
            }
            Self::Mistakes(diagnostics) => {
                out.diagnostics(what, diagnostics);
                2
            }
        }
    }

    /// The first mistake, without its place.
    pub(crate) fn in_short(&self) -> String {
        match self {
            Self::Error(error) => match error.hint_text() {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            },
            Self::Mistakes(mistakes) => mistakes
                .iter()
                .next()
                .map(Diagnostic::message)
                .unwrap_or_default(),
        }
    }

    /// As one error, for JSON.
    pub(crate) fn as_text(&self) -> String {
        match self {
            Self::Error(error) => error.to_string(),
            Self::Mistakes(diagnostics) => diagnostics.render(false),
        }
    }

    /// Within one line.
    pub(crate) fn brief(&self) -> String {
        match self {
            Self::Error(error) => error.to_string(),
            Self::Mistakes(diagnostics) => diagnostics.brief(),
        }
    }
}

/// Why a command did not do what it was for on one site.
pub(crate) enum SiteError {
    Manifest(ManifestError),
    Errors(Vec<Error>),
    Engine(Box<EngineFailure>),
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
            Self::Manifest(unusable) => unusable.as_text(),
            Self::Errors(errors) => errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
            Self::Engine(failure) => failure.error.clone().context(&site.name).to_string(),
        }
    }

    /// Whether it failed because of something that changed after it was looked at, and left the
    /// site as it was before.
    pub(crate) fn is_overtaken(&self) -> bool {
        match self {
            Self::Manifest(_) => false,
            Self::Errors(errors) => errors.iter().any(Error::is_overtaken),
            Self::Engine(failure) => {
                failure.error.is_overtaken()
                    && failure.also.is_empty()
                    && failure.lasting.is_empty()
            }
        }
    }

    /// Whether it was given up because something did not answer.
    pub(crate) fn is_silent(&self) -> bool {
        let Self::Errors(errors) = self else {
            return false;
        };
        errors.iter().any(|error| error.kind() == Kind::Silent)
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
    pub(crate) fn in_short(self, site: &SiteName, most: usize) -> Self {
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
            Self::Manifest(unusable) => Error::usage(unusable.brief()),
            Self::Errors(errors) if errors.len() == 1 => errors[0].clone(),
            Self::Errors(_) | Self::Engine(_) => Error::failed(self.text(site)),
        }
    }

    /// Says what failed; gives the exit code and the messages.
    pub(crate) fn report(&self, out: &Out, site: &Site) -> (u8, Vec<String>) {
        match self {
            Self::Manifest(unusable) => {
                (unusable.report(out, &site.name), vec![unusable.as_text()])
            }
            Self::Errors(errors) => {
                for error in errors {
                    out.error(error);
                }
                let code = worst(errors.iter().map(Error::exit_code));
                (code, errors.iter().map(ToString::to_string).collect())
            }
            Self::Engine(failure) => {
                let error = failure.error.clone().context(&site.name);
                out.error(&error);
                // On a full disk an undo fails for the same reason.
                let also: Vec<_> = failure
                    .also
                    .iter()
                    .filter(|also| **also != failure.error)
                    .collect();
                for also in &also {
                    out.error(&Error::clone(also).context(&site.name));
                }
                say_undone(out, site, failure);
                let also = also.iter().map(ToString::to_string);
                let lasting = failure.lasting.iter().cloned();
                (
                    error.exit_code(),
                    [error.to_string()]
                        .into_iter()
                        .chain(also)
                        .chain(lasting)
                        .collect(),
                )
            }
        }
    }
}

fn say_undone(out: &Out, site: &Site, failure: &EngineFailure) {
    let (name, steps) = (&site.name, plural(failure.undone.len(), "step"));
    if !failure.lasting.is_empty() {
        let lasting = failure.lasting.join("; ");
        out.warn(format_args!(
            "{name}: undid {steps}; the site is not as it was before: {lasting}"
        ));
    } else if failure.also.is_empty() && !failure.undone.is_empty() {
        out.info(format_args!(
            "{name}: undid {steps}; the site is as it was before"
        ));
    }
}

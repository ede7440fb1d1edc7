//! Why a command failed on one site, and how that is reported.

use super::event::Event;
use super::manifest_error::{ManifestError, Reported};
use super::manifest_file::Site;
use super::out::{Out, SiteOut, worst};
use crate::Error;
use crate::base::text::plural;
use crate::base::{ErrorCode, ErrorKind, HostPath, SiteName};
use crate::engine::EngineFailure;

/// Why a command failed on one site.
pub(crate) enum SiteError {
    Manifest(ManifestError),
    Errors(Vec<Error>),
    Engine(Box<EngineFailure>),
}

impl SiteError {
    /// The same, with each error changed. Mistakes in a manifest are no errors.
    pub(super) fn map(self, mut change: impl FnMut(Error) -> Error) -> Self {
        match self {
            Self::Manifest(error) => Self::Manifest(error),
            Self::Errors(errors) => Self::Errors(errors.into_iter().map(change).collect()),
            Self::Engine(failure) => {
                let mut failure = *failure;
                failure.error = change(failure.error);
                failure.also = failure.also.into_iter().map(change).collect();
                Self::Engine(Box::new(failure))
            }
        }
    }

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
            Self::Engine(failure) => failure.error.clone().context(&site.name).to_string(),
            _ => self.messages(site).join("; "),
        }
    }

    /// Whether it failed because of something that changed after it was looked at. The records hold
    /// what could not be undone, so another try begins from what is there.
    pub(crate) fn is_overtaken(&self) -> bool {
        match self {
            Self::Manifest(_) => false,
            Self::Errors(errors) => errors.iter().any(Error::is_overtaken),
            Self::Engine(failure) => failure.error.is_overtaken(),
        }
    }

    /// Whether it was given up because something did not answer.
    pub(crate) fn is_silent(&self) -> bool {
        let Self::Errors(errors) = self else {
            return false;
        };
        errors.iter().any(|error| error.kind() == ErrorKind::Silent)
    }

    /// Whether it failed because there is no such site.
    pub(crate) fn is_of_no_site(&self) -> bool {
        match self {
            Self::Manifest(ManifestError::Error(error)) => error.code() == ErrorCode::NoSuchSite,
            _ => false,
        }
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
                let code = failure.error.exit_code();
                let errors = engine_errors(failure, &site.name);
                (code, errors.into_iter().map(Reported::Error).collect())
            }
        }
    }

    /// The errors to report, as people read them.
    pub(crate) fn messages(&self, site: &Site) -> Vec<String> {
        match self {
            Self::Manifest(error) => vec![format!("{error:#}")],
            Self::Errors(errors) => in_words(errors),
            Self::Engine(failure) => in_words(&engine_errors(failure, &site.name)),
        }
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

fn report_engine(out: &Out, site: &SiteName, failure: &EngineFailure) {
    let sites = &[site];
    let failed = out.about(Event::Failed, sites);
    failed.error(&first_error(failure, site));
    for also in also_failed(failure, site) {
        failed.error(&also);
    }
    report_undone(&out.site(site), failure);
}

/// The error that stopped the run, and all that could not be undone.
fn engine_errors(failure: &EngineFailure, site: &SiteName) -> Vec<Error> {
    let mut errors = vec![first_error(failure, site)];
    errors.extend(also_failed(failure, site));
    for lasting in &failure.lasting {
        errors.push(Error::failed(format!("{site}: {lasting}")));
    }
    errors
}

fn in_words(errors: &[Error]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn first_error(failure: &EngineFailure, site: &SiteName) -> Error {
    let error = failure.error.clone().context(site);
    if failure.busy {
        error.coded(ErrorCode::InUse)
    } else {
        error
    }
}

/// Errors from undoing. On a full disk an undo fails for the same reason, which counts once.
fn also_failed(failure: &EngineFailure, site: &SiteName) -> Vec<Error> {
    let mut errors = vec![];
    for also in &failure.also {
        if *also != failure.error {
            errors.push(also.clone().context(site));
        }
    }
    errors
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

/// How many plans of a run follow each other, each of which sees what the one before uncovered.
/// Some are enough, unless somebody undoes them all the time.
pub(super) const MAX_PLANS: usize = 100;

/// The mounts of a site that are not right after [`MAX_PLANS`] plans were carried out.
pub(super) fn never_finished(site: &SiteName, root: &HostPath) -> Error {
    Error::failed(format!(
        "{site}: the mounts in {root} are still not right, after {MAX_PLANS} plans were carried \
         out: something changes them or their directories all the time"
    ))
    .hint(format!("`mountjail plan {site}` shows what is left to do"))
}

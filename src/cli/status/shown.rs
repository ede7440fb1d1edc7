//! A site as `status` shows it, in any format.

use serde_json::{Value, json};

use crate::cli::report::{DIFFERENT, error_objects};
use crate::observe::Inside;
use crate::plan::{Plan, SiteState};
use crate::render;
use crate::site::out::worst;
use crate::site::status::SiteStatus;
use crate::site::{Site, SiteError};

/// One site, as all formats show it.
pub(super) struct Shown {
    pub code: u8,
    pub errors: Vec<String>,
    pub object: Value,
    /// `None`: it could not be determined.
    pub state: Option<SiteState>,
}

/// Why not all of a site could be looked at.
#[derive(Default)]
pub(super) struct ShownFailures {
    pub codes: Vec<u8>,
    pub errors: Vec<String>,
    pub objects: Vec<Value>,
}

impl ShownFailures {
    pub(super) fn of<'f>(site: &Site, failures: impl Iterator<Item = &'f SiteError>) -> Self {
        let mut shown = Self::default();
        for failed in failures {
            let (code, reported) = failed.outcome(site);
            shown.codes.push(code);
            shown.errors.extend(failed.messages(site));
            shown.objects.extend(error_objects(&site.name, &reported));
        }
        shown
    }
}

impl Shown {
    /// A site that is mounted on the host.
    pub(super) fn of(status: &SiteStatus, inside: &Inside) -> Self {
        let ShownFailures {
            mut codes,
            errors,
            objects,
        } = ShownFailures::of(&status.site, status.failed.iter());
        let mut object = match &status.plan {
            Some(plan) => render::json::status(plan, inside),
            None => json!({ "site": status.site.name }),
        };
        if status.is_silent() {
            object["state"] = json!("not answering");
        }
        if !objects.is_empty() {
            object["errors"] = json!(objects);
        }
        let state = status.plan.as_ref().map(Plan::site_state);
        if state.is_some_and(|state| state != SiteState::Up) {
            codes.push(DIFFERENT);
        }
        Self {
            code: worst(codes),
            errors,
            object,
            state,
        }
    }
}

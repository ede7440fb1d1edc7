//! Sites with scope `services`: their state in the mount namespaces of their services.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::outdated::outdated;
use super::shown::Shown;
use crate::Result;
use crate::base::SiteName;
use crate::cli::report::{DIFFERENT, error_objects};
use crate::observe::{Inside, Process, ProcessesIn};
use crate::plan::{Plan, SiteState};
use crate::render;
use crate::render::text::{StatusDetail, line};
use crate::site::context::Context;
use crate::site::out::worst;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::services::{self, Namespaces, ServedSite, ServicePlace};
use crate::site::status::SiteStatus;
use crate::site::{Site, SiteError, parallel, wrappers};

/// A site in the mount namespaces of its services.
#[derive(Default)]
pub(super) struct Served {
    units: Vec<String>,
    places: Vec<PlaceStatus>,
    /// Processes of services that run without the site's mounts.
    without: Vec<Process>,
    /// It is still on the host, where it was before its scope was changed.
    on_host: bool,
    /// The faults in how its services are started.
    complaints: Vec<String>,
}

/// A site in one of these namespaces.
struct PlaceStatus {
    place: ServicePlace,
    status: SiteStatus,
    inside: Inside,
}

impl Served {
    pub(super) fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.places
            .iter()
            .filter_map(|seen| seen.status.plan.as_ref())
    }

    /// Up, if it is so for all services that run; down, if none does.
    pub(super) fn state(&self) -> SiteState {
        let are = |state| self.plans().all(|plan| plan.site_state() == state);
        let is_whole = self.without.is_empty() && !self.on_host;
        let is_known = self.plans().count() == self.places.len();
        if self.places.is_empty() && is_whole {
            SiteState::Down
        } else if is_whole && is_known && are(SiteState::Up) {
            SiteState::Up
        } else {
            SiteState::Drifted
        }
    }

    fn reasons(&self, context: &Context, site: &SiteName) -> Vec<String> {
        let mut reasons: Vec<_> = self.without.iter().map(services::runs_without).collect();
        reasons.extend(self.complaints.iter().cloned());
        if self.on_host {
            let run = context.state.record(site);
            reasons.push(format!(
                "it is still mounted on the host ({}); `mountjail up {site}` unmounts it there",
                run.display()
            ));
        }
        reasons
    }
}

/// The sites with scope `services`, in the mount namespaces of their services.
pub(super) fn served(
    context: &Context,
    sites: &[SiteStatus],
) -> Result<BTreeMap<SiteName, Served>> {
    let mut served: Vec<ServedSite> = vec![];
    for status in sites {
        let units = status.units.clone();
        served.extend(units.map(|units| (status.site.clone(), units)));
    }
    if served.is_empty() {
        return Ok(BTreeMap::new());
    }
    let look = |own: Context, here: &[Site]| -> Result<Vec<Result<_, SiteError>>> {
        let pipeline = Arc::new(Pipeline::new(own.clone(), MountLookup::WholeTable)?);
        let looking = pipeline.clone();
        let look = move |site: &Site| Ok(SiteStatus::of(&looking, site));
        let results = parallel::look(&own, here, look);
        let seen = here.iter().cloned().zip(results);
        let seen = seen
            .map(|(site, result)| result.unwrap_or_else(|failed| SiteStatus::lost(site, failed)));
        let seen: Vec<_> = seen.collect();
        let inside = outdated(pipeline, &seen, ProcessesIn::Own);
        Ok(seen.into_iter().zip(inside).map(Ok).collect())
    };
    let namespaces = Namespaces::find(context)?;
    let mut places = namespaces.each(context, &served, look);
    let mut complaints = wrappers::complaints(context);
    let mut found = BTreeMap::new();
    for (site, units) in served {
        let of_site = places.remove(&site.name).unwrap_or_default().into_iter();
        let seen = |(place, result): (ServicePlace, Result<_, SiteError>)| {
            let lost = |failed| (SiteStatus::lost(site.clone(), failed), Inside::default());
            let (status, inside) = result.unwrap_or_else(lost);
            PlaceStatus {
                place,
                status,
                inside,
            }
        };
        let served = Served {
            places: of_site.map(seen).collect(),
            without: namespaces.without(&units),
            on_host: context.state.record(&site.name).exists(),
            complaints: complaints.remove(&site.name).unwrap_or_default(),
            units,
        };
        found.insert(site.name, served);
    }
    Ok(found)
}

/// As [`Shown::of`], for a site in the mount namespaces of its services. That
/// none of them runs is not a difference: it comes up with them.
pub(super) fn shown(context: &Context, status: &SiteStatus, served: &Served) -> Shown {
    let mut codes = vec![];
    let (mut errors, mut objects) = (vec![], vec![]);
    for failed in status.failed.iter().chain(failures(served)) {
        let (code, reported) = failed.outcome(&status.site);
        codes.push(code);
        errors.extend(failed.messages(&status.site));
        objects.extend(error_objects(&status.site.name, &reported));
    }
    let name = &status.site.name;
    let place = |seen: &PlaceStatus| {
        let mut object = match &seen.status.plan {
            Some(plan) => render::json::status(plan, &seen.inside),
            None => json!({ "site": name }),
        };
        object["unit"] = json!(seen.place.unit);
        object["pid"] = json!(seen.place.pid);
        object
    };
    let places: Vec<_> = served.places.iter().map(place).collect();
    let state = served.state();
    let mut object = json!({
        "site": name,
        "root": status.plan.as_ref().map(|plan| &plan.root),
        "scope": "services",
        "services": served.units,
        "state": state,
        "reasons": served.reasons(context, name),
        "places": places,
    });
    if !objects.is_empty() {
        object["errors"] = json!(objects);
    }
    if state == SiteState::Drifted || !served.complaints.is_empty() {
        codes.push(DIFFERENT);
    }
    Shown {
        code: worst(codes),
        errors,
        object,
        state: Some(state),
    }
}

/// The errors of all its places.
pub(super) fn failures(served: &Served) -> impl Iterator<Item = &SiteError> {
    served.places.iter().flat_map(|seen| &seen.status.failed)
}

pub(super) fn text(
    context: &Context,
    status: &SiteStatus,
    served: &Served,
    detail: StatusDetail,
) -> String {
    let name = &status.site.name;
    let mut text = String::new();
    let reasons = served.reasons(context, name);
    if served.state() == SiteState::Down && detail != StatusDetail::Wrong {
        line(
            &mut text,
            format_args!("{name}: down, {}", services::comes_with(&served.units)),
        );
    }
    for PlaceStatus {
        place,
        status,
        inside,
    } in &served.places
    {
        match &status.plan {
            Some(plan) if detail == StatusDetail::Sites => {
                text += &render::overview::site(plan, Some(&place.unit), inside, &reasons);
            }
            Some(plan) => {
                text += &render::text::status(plan, Some(&place.unit), detail);
                text += &render::text::outdated(inside);
            }
            None => line(
                &mut text,
                format_args!("{name}: not answering, for {}", place.unit),
            ),
        }
    }
    let is_overview = detail == StatusDetail::Sites;
    if served.places.is_empty() && served.state() == SiteState::Drifted {
        let drifted = format!("{name}: {}", SiteState::Drifted);
        match reasons.first().filter(|_| is_overview) {
            Some(reason) => line(&mut text, format_args!("{drifted}; {reason}")),
            None => line(&mut text, format_args!("{drifted}")),
        }
    }
    let reasons = reasons.iter().filter(|_| !is_overview);
    for reason in reasons {
        line(&mut text, format_args!("  because: {reason}"));
    }
    text
}

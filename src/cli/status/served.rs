//! Sites with scope `services`: their state in the mount namespaces of their services.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::outdated::outdated;
use super::shown::{Shown, ShownFailures};
use crate::Result;
use crate::base::SiteName;
use crate::cli::report::DIFFERENT;
use crate::observe::{Inside, Process, ProcessesIn};
use crate::plan::{Plan, SiteState};
use crate::render;
use crate::render::text::{StatusDetail, line};
use crate::site::context::Context;
use crate::site::out::worst;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::services::{self, Namespaces, ServedSite, ServicePlace};
use crate::site::status::SiteStatus;
use crate::site::wrappers::Complaints;
use crate::site::{Site, SiteError, parallel};

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
    /// Why these are unknown.
    failed: Option<SiteError>,
}

/// A site in one of these namespaces.
struct PlaceStatus {
    place: ServicePlace,
    status: SiteStatus,
    inside: Inside,
}

impl PlaceStatus {
    /// `result`: what was found of `site` at the place.
    fn new(
        site: &Site,
        place: ServicePlace,
        result: Result<(SiteStatus, Inside), SiteError>,
    ) -> Self {
        let (status, inside) = match result {
            Ok((status, inside)) => (status.located(&place), inside),
            Err(failed) => (SiteStatus::lost(site.clone(), failed), Inside::default()),
        };
        Self {
            place,
            status,
            inside,
        }
    }

    fn is_up(&self) -> bool {
        match &self.status.plan {
            Some(plan) => plan.site_state() == SiteState::Up,
            None => false,
        }
    }

    fn json(&self) -> Value {
        let mut object = match &self.status.plan {
            Some(plan) => render::json::status(plan, &self.inside),
            None => json!({ "site": self.status.site.name }),
        };
        object["unit"] = json!(self.place.unit);
        object["pid"] = json!(self.place.pid);
        object
    }

    fn text(&self, detail: StatusDetail, reasons: &[String]) -> String {
        let unit = &self.place.unit;
        match &self.status.plan {
            Some(plan) if detail == StatusDetail::Sites => {
                render::overview::site(plan, Some(unit), &self.inside, reasons)
            }
            Some(plan) => {
                let mounts = render::text::status(plan, Some(unit), detail);
                mounts + &render::text::outdated(&self.inside)
            }
            None => format!("{}: not answering, for {unit}\n", self.status.site.name),
        }
    }
}

impl Served {
    /// The plan of the place that is shown for the site: of one that is not up, if there is any.
    pub(super) fn worst_plan(&self) -> Option<&Plan> {
        let plans = self
            .places
            .iter()
            .filter_map(|seen| seen.status.plan.as_ref());
        plans.max_by_key(|plan| plan.site_state() != SiteState::Up)
    }

    /// Up, if it is so for all services that run; down, if none does.
    pub(super) fn state(&self) -> SiteState {
        let is_whole = self.without.is_empty() && !self.on_host;
        if self.places.is_empty() && is_whole {
            SiteState::Down
        } else if is_whole && self.places.iter().all(PlaceStatus::is_up) {
            SiteState::Up
        } else {
            SiteState::Drifted
        }
    }

    fn reasons(&self, context: &Context, site: &SiteName) -> Vec<String> {
        let mut reasons: Vec<_> = self.without.iter().map(services::runs_without).collect();
        reasons.extend_from_slice(&self.complaints);
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
        if let Some(units) = &status.units {
            served.push((status.site.clone(), units.clone()));
        }
    }
    if served.is_empty() {
        return Ok(BTreeMap::new());
    }
    let namespaces = Namespaces::find(context)?;
    let mut found = namespaces.each(context, &served, look);
    let complaints = Complaints::find(context);
    let mut all = BTreeMap::new();
    for (site, units) in served {
        let mut places = vec![];
        for (place, result) in found.remove(&site.name).unwrap_or_default() {
            places.push(PlaceStatus::new(&site, place, result));
        }
        let (complaints, failed) = match complaints.of(&site.name) {
            Ok(found) => (found, None),
            Err(error) => (vec![], Some(error.into())),
        };
        let served = Served {
            places,
            without: namespaces.without(&units),
            on_host: context.state.record(&site.name).exists(),
            complaints,
            failed,
            units,
        };
        all.insert(site.name, served);
    }
    Ok(all)
}

/// Looks at the sites `here`, in the mount namespace of one service.
fn look(own: Context, here: &[Site]) -> Result<Vec<Result<(SiteStatus, Inside), SiteError>>> {
    let pipeline = Arc::new(Pipeline::new(own, MountLookup::WholeTable)?);
    let looking = pipeline.clone();
    let look = move |site: &Site| Ok(SiteStatus::of(&looking, site));
    let results = parallel::look(&pipeline.context, here, look);
    let mut seen = vec![];
    for (site, result) in here.iter().zip(results) {
        seen.push(match result {
            Ok(status) => status,
            Err(failed) => SiteStatus::lost(site.clone(), failed),
        });
    }
    let inside = outdated(pipeline, &seen, ProcessesIn::Own);
    Ok(seen.into_iter().zip(inside).map(Ok).collect())
}

/// As [`Shown::of`], for a site in the mount namespaces of its services. That
/// none of them runs is not a difference: it comes up with them.
pub(super) fn shown(context: &Context, status: &SiteStatus, served: &Served) -> Shown {
    let ShownFailures {
        mut codes,
        errors,
        objects,
    } = ShownFailures::of(&status.site, status.failed.iter().chain(failures(served)));
    let name = &status.site.name;
    let places: Vec<_> = served.places.iter().map(PlaceStatus::json).collect();
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

/// The errors of all its places, and why the faults of its services are unknown.
pub(super) fn failures(served: &Served) -> impl Iterator<Item = &SiteError> {
    let places = served.places.iter().flat_map(|seen| &seen.status.failed);
    places.chain(&served.failed)
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
    for place in &served.places {
        text += &place.text(detail, &reasons);
    }
    let is_overview = detail == StatusDetail::Sites;
    if served.places.is_empty() && served.state() == SiteState::Drifted {
        let drifted = format!("{name}: {}", SiteState::Drifted);
        match reasons.first() {
            Some(reason) if is_overview => line(&mut text, format_args!("{drifted}; {reason}")),
            _ => line(&mut text, format_args!("{drifted}")),
        }
    }
    if !is_overview {
        for reason in reasons {
            line(&mut text, format_args!("  because: {reason}"));
        }
    }
    text
}

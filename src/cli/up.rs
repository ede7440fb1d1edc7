//! `mountjail up`: mount what sites need.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use serde_json::{Value, json};

use super::args::{OnlyScope, Which};
use super::down::name_users;
use super::plan;
use super::processes::{ProcessCare, tell_processes};
use super::report::{Report, error_objects};
use super::shared_cache;
use crate::base::sync::threads_for_disk;
use crate::base::text::plural;
use crate::engine::Outcome;
use crate::observe::Process;
use crate::patience::Stop;
use crate::resolve::Desired;
use crate::site::bring_up::{BringUp, Brought};
use crate::site::context::{Context, stop_flag};
use crate::site::down::{DownError, TakeDown};
use crate::site::event::Event;
use crate::site::left_behind::{self, LEAVING, Left};
use crate::site::out::worst;
use crate::site::pipeline::MountLookup;
use crate::site::services::{self, Namespaces, ServedSite, ServicePlace};
use crate::site::up::Done;
use crate::site::wrappers::Complaints;
use crate::site::{Site, SiteError, cost, parallel};

/// Mount what sites need; a second run finds nothing to do
///
/// A site is either up or as it was before: if something fails, all that was begun is undone. With
/// --all a site that fails does not stop the others.
///
/// A site with `scope: services` is mounted in the mount namespaces of those of its services that
/// run; it comes up with the others when they start. See mountjail-run(8).
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  mountjail up site1\n  mountjail up --all --quiet")]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct UpArgs {
    #[command(flatten)]
    which: Which,
    /// Only show what would be done, as `mountjail plan` does
    #[arg(long)]
    dry_run: bool,
    /// Make the root directory if it does not exist
    #[arg(long, conflicts_with = "dry_run")]
    create: bool,
    /// Reload or restart the running services of sites whose mounts changed
    #[arg(long, conflicts_with = "dry_run")]
    restart: bool,
    /// Replace mounts that were made one by one, as by an earlier version, with grafts, which sites
    /// share
    #[arg(long)]
    renew: bool,
    /// Leave alone sites that are down
    #[arg(long = "if-up", conflicts_with = "dry_run")]
    leave_down: bool,
    /// With --all: leave these sites alone
    #[arg(long, value_name = "SITE", value_delimiter = ',', requires = "all")]
    except: Vec<String>,
    /// Only sites with this scope
    #[arg(long, value_name = "SCOPE")]
    scope: Option<OnlyScope>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// The caller names what runs inside.
    #[arg(skip)]
    adopts: bool,
}

impl UpArgs {
    /// `mountjail up SITE`.
    pub(super) fn of(site: &str) -> Self {
        let which = Which {
            sites: vec![site.to_owned()],
            all: false,
        };
        Self {
            which,
            ..Self::default()
        }
    }

    /// `mountjail up`, as a part of `mountjail adopt --write`.
    pub(super) fn to_adopt() -> Self {
        Self {
            adopts: true,
            ..Self::default()
        }
    }

    fn bring_up(
        &self,
        context: &Context,
        lookup: MountLookup,
        sites: usize,
    ) -> crate::Result<BringUp> {
        let mut run = BringUp::new(context.clone(), lookup, sites)?;
        run.leave_down = self.leave_down;
        run.create_root = self.create;
        if self.renew {
            run.pipeline.renew();
        }
        Ok(run)
    }

    /// Brings the sites up in the mount namespaces of their services.
    fn up_in_services(
        &self,
        context: &Context,
        sites: &[ServedSite],
        stop: &Arc<AtomicBool>,
        report: &mut Report,
    ) -> crate::Result<()> {
        if sites.is_empty() {
            return Ok(());
        }
        let namespaces = Namespaces::find(context)?;
        let up = |own: Context, here: &[Site]| {
            let run = self.bring_up(&own, MountLookup::OneByOne, here.len())?;
            Ok(bring_all(&own, run, here, stop))
        };
        let mut found = namespaces.each(context, sites, up);
        let absent = Absent::new(context);
        for (site, units) in sites {
            let places = found.remove(&site.name).unwrap_or_default();
            let code = add_in_services(report, context, site, &places);
            let blind = namespaces.without(units);
            absent.tell(site, units, &blind, places.is_empty());
            if code == 0 {
                leave_host(report, context, site)?;
            }
        }
        Ok(())
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let mut sites = self.which.selection().sites(context)?;
        for name in &self.except {
            let count = sites.len();
            sites.retain(|site| name != site.name.as_str());
            if sites.len() == count {
                let nobody = format_args!("--except {name}: there is no such site");
                context.out.warn(nobody);
            }
        }
        if self.dry_run {
            let which = plan::WhichSteps {
                of_all: self.which.all,
                only: self.scope,
                renew: self.renew,
            };
            return plan::show(context, sites, which, self.json);
        }
        self.run_for(context, &sites)
    }

    /// Brings these sites up; returns the exit code.
    pub(super) fn run_for(&self, context: &Context, sites: &[Site]) -> anyhow::Result<u8> {
        let stop = stop_flag()?;
        let run = self.bring_up(context, MountLookup::OneByOne, sites.len())?;
        context.out.progress(sites.len());
        let done = bring_all(context, run, sites, &stop);
        let mut report = Report::new(context, self.json).of_all(self.which.all);
        report.not_begun(sites.len() - done.len());
        let (mut changed, mut for_services, mut mounts) = (vec![], vec![], 0);
        let mut on_host = vec![];
        for (site, result) in sites.iter().zip(done) {
            match result {
                Ok(Brought::ForServices(units)) => for_services.push((site.clone(), units)),
                Ok(Brought::Up(done)) => {
                    on_host.push(site.clone());
                    add_up(&mut report, context, site, &done);
                    mounts += done.desired.mounts.len();
                    if !done.changes.is_empty() {
                        changed.push((site, *done));
                    }
                }
                Ok(Brought::LeftDown) => {
                    context.out.site(&site.name).info("down; left alone");
                    let object = json!({ "site": site.name, "up": false, "changed": false });
                    report.site(0, object);
                }
                Err(failed) => report.failed(site, &failed, json!({ "up": false })),
            }
        }
        if let Some(cost) = cost::of_mounts(context, mounts) {
            context.out.info(cost);
        }
        shared_cache::warn(context, changed.iter().map(|(_, done)| &done.desired));
        if self.scope != Some(OnlyScope::Host) {
            leave_services(&mut report, context, &on_host, &stop)?;
            self.up_in_services(context, &for_services, &stop, &mut report)?;
        }

        tell_processes(&mut report, context, &changed, self.care());
        Ok(report.finish())
    }

    fn care(&self) -> ProcessCare {
        if self.restart {
            ProcessCare::Restart
        } else if self.adopts {
            ProcessCare::LeaveToCaller
        } else {
            ProcessCare::Name
        }
    }
}

/// Brings the sites up side by side, until `stop` is set; returns the results of those that were
/// begun.
pub(super) fn bring_all(
    context: &Context,
    run: BringUp,
    sites: &[Site],
    stop: &Arc<AtomicBool>,
) -> Vec<Result<Brought, SiteError>> {
    let names = sites.iter().map(|site| site.name.clone());
    context.roots().come_up(names);
    let up = move |site: &Site, stop: &Stop| run.site(site, stop);
    // Records are synced, as fsync(2) does it.
    let threads = threads_for_disk(sites.len());
    parallel::each(context, sites, threads, stop, up)
}

/// Adds a site that is up.
fn add_up(report: &mut Report, context: &Context, site: &Site, done: &Done) {
    tell(context, site, done);
    if report.is_json() {
        let mut object = json!({ "site": site.name, "root": done.desired.root, "up": true });
        extend(&mut object, counts(done));
        report.site(0, object);
    }
}

/// Reports a site that is up.
pub(super) fn tell(context: &Context, site: &Site, done: &Done) {
    let out = context.out.site(&site.name);
    tell_manifest(context, &done.desired, done.changes.steps > 0);
    for left in &done.changes.outcome.left {
        out.warn(left);
    }
    out.event(Event::Up).info(done.summary());
}

/// Reports the warnings about a site's manifest and, if its mounts change, the notes.
pub(super) fn tell_manifest(context: &Context, desired: &Desired, changes: bool) {
    if changes {
        context.out.notes(desired);
    } else {
        context.out.warnings(desired);
    }
}

/// As [`tell`], for a site in the mount namespace of a service, without what is about its manifest;
/// returns how many mounts there are, and what was done.
pub(super) fn told_in(context: &Context, site: &Site, place: &ServicePlace, done: &Done) -> Value {
    let out = context.out.site(&site.name);
    for left in &done.changes.outcome.left {
        out.warn(left);
    }
    out.event(Event::Up)
        .info(format_args!("{}, in {}", done.summary(), place.unit));
    counts(done)
}

/// Services that do not have the mounts of their sites.
pub(super) struct Absent<'c> {
    context: &'c Context,
    /// How services are started; looked up for the first site of which none runs.
    complaints: OnceCell<Complaints>,
}

impl<'c> Absent<'c> {
    pub(super) fn new(context: &'c Context) -> Self {
        Self {
            context,
            complaints: OnceCell::new(),
        }
    }

    /// Reports the services `units` of a site that do not have its mounts: the processes in `blind`
    /// run without them or, if there is `no_place`, none runs.
    pub(super) fn tell(&self, site: &Site, units: &[String], blind: &[Process], no_place: bool) {
        let out = self.context.out.site(&site.name);
        for process in blind {
            out.warn(services::runs_without(process));
        }
        if !no_place || !blind.is_empty() {
            return;
        }
        out.info(services::comes_with(units));
        let complaints = self
            .complaints
            .get_or_init(|| Complaints::find(self.context));
        match complaints.of(&site.name) {
            Ok(complaints) => complaints.iter().for_each(|complaint| out.warn(complaint)),
            Err(error) => out.warn(error),
        }
    }
}

/// Reports a site in the mount namespaces of its services; returns the exit code.
fn add_in_services(
    report: &mut Report,
    context: &Context,
    site: &Site,
    places: &[(ServicePlace, Result<Brought, SiteError>)],
) -> u8 {
    tell_manifest_once(context, places);
    let (mut code, mut objects, mut all_errors) = (0, vec![], vec![]);
    for (place, result) in places {
        let mut object = json!(place);
        match result {
            Ok(Brought::Up(done)) => {
                object["up"] = json!(true);
                extend(&mut object, told_in(context, site, place, done));
            }
            Ok(Brought::LeftDown | Brought::ForServices(_)) => object["up"] = json!(false),
            Err(failed) => {
                let (failed, errors) = failed.report(context.out, site);
                code = worst([code, failed]);
                object["up"] = json!(false);
                all_errors.extend(error_objects(&site.name, &errors));
            }
        }
        objects.push(object);
    }
    let is_up = |object: &Value| object["up"] == json!(true);
    let up = !objects.is_empty() && objects.iter().all(is_up);
    let changed = objects
        .iter()
        .any(|object| object["changed"] == json!(true));
    let mut object = json!({
        "site": site.name, "scope": "services", "up": up, "changed": changed, "places": objects,
    });
    if !all_errors.is_empty() {
        object["errors"] = json!(all_errors);
    }
    report.site(code, object);
    code
}

/// As [`tell_manifest`], once for all places where the site is up.
fn tell_manifest_once(context: &Context, places: &[(ServicePlace, Result<Brought, SiteError>)]) {
    let mut up = vec![];
    for (_, result) in places {
        if let Ok(Brought::Up(done)) = result {
            up.push(done);
        }
    }
    if let Some(first) = up.first() {
        let changes = up.iter().any(|done| done.changes.steps > 0);
        tell_manifest(context, &first.desired, changes);
    }
}

/// Takes the site down on the host, if it was up there before its scope was changed.
pub(super) fn leave_host(report: &mut Report, context: &Context, site: &Site) -> crate::Result<()> {
    if !context.state.record(&site.name).exists() {
        return Ok(());
    }
    let own: &'static Context = Box::leak(Box::new(context.clone()));
    let out = context.out.site(&site.name);
    match TakeDown::new(own, 1, LEAVING)?.site(site, &Stop::default()) {
        Ok(down) => {
            report.changed(&site.name);
            out.info(format_args!(
                "{} detached on the host, where they do not belong any more",
                plural(down.outcome.detached, "mount")
            ));
        }
        Err(DownError::InUse(_, by)) => {
            out.warn(
                "its mounts on the host stay as long as they are in use; stop what uses them, and \
                 run `mountjail up` again",
            );
            name_users(&out, &by, "");
        }
        Err(DownError::Failed(failed)) => report.also_failed(site, &failed),
    }
    Ok(())
}

/// Takes sites, which are up on the host, down in the mount namespaces of services, if they were up
/// there before their scope was changed.
pub(super) fn leave_services(
    report: &mut Report,
    context: &Context,
    sites: &[Site],
    stop: &Arc<AtomicBool>,
) -> crate::Result<()> {
    for (name, places) in left_behind::leave_services(context, sites, stop)? {
        let out = context.out.site(&name);
        for (ServicePlace { unit, .. }, left) in places {
            match left {
                Ok(Left::Gone(detached)) => {
                    report.changed(&name);
                    out.info(format_args!(
                        "{} detached in {unit}, where they do not belong any more",
                        plural(detached, "mount")
                    ));
                }
                Ok(Left::InUse(by)) => {
                    out.warn(format_args!(
                        "its mounts in {unit} stay as long as they are in use; stop what uses \
                         them, and run `mountjail up` again"
                    ));
                    name_users(&out, &by, "");
                }
                Ok(Left::Apart) => out.warn(format_args!(
                    "its mounts in {unit} stay until that is restarted, since mounts of the host \
                     do not appear there, or cannot be told from them (before Linux 6.8)"
                )),
                Err(failed) => {
                    if let Some(site) = sites.iter().find(|site| site.name == name) {
                        report.also_failed(site, &failed);
                    }
                }
            }
        }
    }
    Ok(())
}

/// How many mounts there are, and what was done.
pub(super) fn counts(done: &Done) -> Value {
    let Outcome {
        attached,
        swapped,
        gaps,
        detached,
        ..
    } = done.changes.outcome;
    json!({
        "changed": done.changes.steps > 0,
        "mounts": done.desired.mounts.len(),
        "attached": attached,
        "swapped": swapped,
        "gaps": gaps,
        "detached": detached,
    })
}

pub(super) fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

//! `mountjail apply`: write a site's manifest and bring the site up, or leave both as they were.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::plan::stays;
use super::processes::{ProcessCare, tell_processes};
use super::report::{DIFFERENT, Report};
use super::up::{Absent, counts, extend, leave_host, leave_services, tell, tell_manifest, told_in};
use crate::base::SiteName;
use crate::manifest::{self, MAX_BYTES, SourceFile};
use crate::patience::{Stop, worker};
use crate::render::change::{BeforeAfter, SiteChange, mounts_after, mounts_before};
use crate::site::apply::{
    Applied, AppliedUp, Applier, InServices, Looked, ManifestChange, NewManifest,
};
use crate::site::configuration::{absolute, own_file};
use crate::site::context::{Context, stop_flag};
use crate::site::left_behind::Leaving;
use crate::site::services::{self, ServicePlace};
use crate::site::up::Done;
use crate::site::{ManifestError, Site, parallel};
use crate::{Error, Result, render};

/// Write a site's manifest and bring the site up, or leave both as they were
///
/// FILE is a manifest, or - for the standard input. It becomes sites/NAME.yaml of the
/// configuration, by one rename and only when the site is up by it. If anything fails, the manifest
/// and the mounts are as they were before. A second run finds nothing to do.
///
/// The file that is there keeps its owner and mode, and a link is followed. A site of a template
/// (NAME@INSTANCE) gets a manifest of its own, which takes the template's place.
///
/// It is meant for programs that set up many hosts: with --json, `changed` tells whether anything
/// was done, and with --dry-run, whether anything would be.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  mountjail apply ./site1.yaml\n  \
                  mountjail apply --dry-run --diff ./site1.yaml\n  \
                  ssh host mountjail apply --name site1 - <site1.yaml")]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct ApplyArgs {
    /// The manifest; -: the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The site's name [default: the file's name without .yaml]
    #[arg(long, value_name = "SITE")]
    name: Option<String>,
    /// Only show what would be done; exit code 3 if there is anything
    #[arg(long)]
    dry_run: bool,
    /// Show the manifest and the mounts before and after
    #[arg(long)]
    diff: bool,
    /// Make the root directory if it does not exist
    #[arg(long)]
    create: bool,
    /// Reload or restart the site's running services if its mounts change
    #[arg(long, conflicts_with = "dry_run")]
    restart: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl ApplyArgs {
    pub(super) fn run(&self, context: &'static Context) -> anyhow::Result<u8> {
        let site = self.site(context)?;
        let given = if self.is_standard_input() {
            PathBuf::from("standard input")
        } else {
            absolute(&self.file).unwrap_or_else(|_| self.file.clone())
        };
        let mut report = Report::new(context, self.json);
        match text(&self.file, &given) {
            Ok(text) => {
                let new = Arc::new(NewManifest { site, given, text });
                if self.dry_run {
                    self.show(context, new, &mut report);
                } else {
                    self.apply(context, new, &mut report)?;
                }
            }
            Err(error) => report.failed(&site, &error.into(), json!({ "applied": false })),
        }
        Ok(report.finish())
    }

    fn is_standard_input(&self) -> bool {
        self.file == Path::new("-")
    }

    /// The site, with the file that its manifest gets.
    fn site(&self, context: &Context) -> Result<Site> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None if self.is_standard_input() => {
                return Err(
                    Error::usage("the standard input does not tell the site's name")
                        .hint("name the site with --name"),
                );
            }
            None => {
                let stem = self.file.file_stem().unwrap_or_default();
                stem.to_string_lossy().into_owned()
            }
        };
        let name = SiteName::new(&name).map_err(|why| {
            Error::usage(format!("{name:?} cannot be a site's name"))
                .because_of(why)
                .hint("give it another name with --name")
        })?;
        let file = own_file(&context.config, &name);
        if let Some(template) = manifest::template_name(&file) {
            let failed = Error::usage(format!("{name} is a template of sites, not a site"));
            return Err(failed.hint(format!(
                "write it to {} and run `mountjail up {name}`, or name a site of it: --name \
                 {template}@INSTANCE",
                file.display()
            )));
        }
        Ok(Site { name, file })
    }

    fn applier(&self, context: &'static Context) -> Applier {
        Applier {
            context,
            create_root: self.create,
            look: self.diff,
        }
    }

    /// The output of `--dry-run`.
    fn show(&self, context: &'static Context, new: Arc<NewManifest>, report: &mut Report) {
        let (applier, site) = (self.applier(context), new.site.clone());
        let look = move |_: &Site, _: &Stop| applier.look(&new);
        let looked = match parallel::one(context, &site, &Arc::default(), look) {
            Ok(looked) => looked,
            Err(failed) => return report.failed(&site, &failed, json!({ "applied": false })),
        };
        let mut object = json!({
            "site": site.name, "applied": false, "changed": looked.is_change(),
            "manifest": manifest_json(&looked.manifest), "new_root": looked.new_root,
        });
        if looked.manifest.is_change() {
            let file = looked.manifest.file.display();
            report.text(format!("{}: the manifest {file} is written\n", site.name));
        }
        if let Some(root) = &looked.new_root {
            report.text(format!("{}: the root {root} is made\n", site.name));
        }
        if let Some(desired) = &looked.desired {
            let mut plans = looked.plans.iter();
            let changes = plans.any(|(_, plan)| !plan.steps.is_empty());
            tell_manifest(context, desired, changes);
        }
        let places = add_plans(report, context, &looked, &mut object);
        if looked.for_services.is_some() || !places.is_empty() {
            object["places"] = json!(places);
        }
        if let Some(units) = &looked.for_services {
            object["scope"] = json!("services");
            if looked.plans.is_empty() {
                let out = context.out.site(&site.name);
                out.info(services::comes_with(units));
            }
        }
        self.add_diff(report, &mut object, &looked);
        report.site(exit_code(&looked), object);
    }

    fn apply(
        &self,
        context: &'static Context,
        new: Arc<NewManifest>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let (applier, site) = (self.applier(context), new.site.clone());
        let stop = stop_flag()?;
        let apply = move |_: &Site, stop: &Stop| applier.apply(&new, stop);
        match parallel::one(context, &site, &stop, apply) {
            Ok(done) => self.applied(context, &site, done, report)?,
            Err(failed) => report.failed(&site, &failed, json!({ "applied": false })),
        }
        Ok(())
    }

    /// Reports a site that is as its new manifest asks for.
    fn applied(
        &self,
        context: &'static Context,
        site: &Site,
        applied: Applied,
        report: &mut Report,
    ) -> Result<()> {
        let out = context.out.site(&site.name);
        if applied.manifest.is_change() {
            out.info(format_args!("wrote {}", applied.manifest.file.display()));
        }
        let mut object = json!({
            "site": site.name, "applied": true, "manifest": manifest_json(&applied.manifest),
        });
        if let Some(looked) = &applied.looked {
            self.add_diff(report, &mut object, looked);
        }
        let site = AppliedSite {
            context,
            site,
            manifest_changed: applied.manifest.is_change(),
            restart: self.restart,
        };
        match applied.up {
            AppliedUp::Host(done) => site.on_host(*done, object, report)?,
            AppliedUp::Services(served) => site.in_services(*served, object, report)?,
        }
        Ok(())
    }

    fn add_diff(&self, report: &mut Report, object: &mut Value, looked: &Looked) {
        if !self.diff {
            return;
        }
        let change = change(looked);
        object["diff"] = change.json();
        report.text(change.text());
    }
}

fn exit_code(looked: &Looked) -> u8 {
    let mut plans = looked.plans.iter();
    if plans.any(|(_, plan)| !plan.conflicts.is_empty()) {
        1
    } else if looked.is_change() {
        DIFFERENT
    } else {
        0
    }
}

/// Shows the plans. That of the host is added to `object`; those for services are returned.
fn add_plans(
    report: &mut Report,
    context: &Context,
    looked: &Looked,
    object: &mut Value,
) -> Vec<Value> {
    let mut shown = vec![];
    for (place, plan) in &looked.plans {
        shown.push((place, plan, None));
    }
    for (place, leaving) in &looked.leaves {
        match leaving {
            Leaving::Steps(plan) if plan.steps.is_empty() => {}
            Leaving::Steps(plan) => shown.push((place, plan, Some("on the host".to_owned()))),
            Leaving::InUse(by) => stays(context, &looked.site, place.as_ref(), by),
        }
    }
    let mut places = vec![];
    for (place, plan, on_host) in shown {
        context.out.errors_of(&plan.site, &plan.conflicts);
        let at = place.as_ref().map(ServicePlace::to_string).or(on_host);
        report.styled(render::text::plan(plan, at.as_deref()));
        let steps = render::json::plan(plan);
        match place {
            None => extend(object, steps),
            Some(place) => places.push(with_place(place, steps)),
        }
    }
    places
}

/// A site that is as its new manifest asks for.
struct AppliedSite<'s> {
    context: &'static Context,
    site: &'s Site,
    manifest_changed: bool,
    /// Its running services are reloaded or restarted if its mounts changed.
    restart: bool,
}

impl AppliedSite<'_> {
    fn on_host(&self, done: Done, mut object: Value, report: &mut Report) -> Result<()> {
        tell(self.context, self.site, &done);
        extend(&mut object, counts(&done));
        object["root"] = json!(done.desired.root);
        object["changed"] = json!(self.manifest_changed || done.changes.steps > 0);
        report.site(0, object);
        let sites = std::slice::from_ref(self.site);
        leave_services(report, self.context, sites, &Arc::default())?;

        if !done.changes.is_empty() {
            let care = if self.restart {
                ProcessCare::Restart
            } else {
                ProcessCare::Name
            };
            tell_processes(report, self.context, &[(self.site, done)], care);
        }
        Ok(())
    }

    fn in_services(
        &self,
        served: InServices,
        mut object: Value,
        report: &mut Report,
    ) -> Result<()> {
        let Self { context, site, .. } = *self;
        let InServices {
            desired,
            units,
            places,
            blind,
        } = served;
        let mounts_change = places.iter().any(|(_, done)| done.changes.steps > 0);
        tell_manifest(context, &desired, mounts_change);
        Absent::new(context).tell(site, &units, &blind, places.is_empty());
        let changed = self.manifest_changed || mounts_change;
        let mut objects = vec![];
        for (place, done) in &places {
            objects.push(with_place(place, told_in(context, site, place, done)));
        }
        object["scope"] = json!("services");
        object["places"] = json!(objects);
        object["changed"] = json!(changed);
        report.site(0, object);
        leave_host(report, context, site)?;

        let mut places = places.into_iter();
        if self.restart
            && let Some((_, done)) = places.find(|(_, done)| !done.changes.is_empty())
        {
            tell_processes(report, context, &[(site, done)], ProcessCare::Restart);
        }
        Ok(())
    }
}

/// `{file, changed}`
pub(super) fn manifest_json(manifest: &ManifestChange) -> Value {
    json!({ "file": manifest.file, "changed": manifest.is_change() })
}

/// The texts of a manifest before and after.
pub(super) fn texts(manifest: &ManifestChange) -> BeforeAfter<Option<String>> {
    let before = manifest.before.as_deref();
    BeforeAfter {
        before: before.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        after: manifest.after.clone(),
    }
}

fn change(looked: &Looked) -> SiteChange {
    SiteChange {
        file: looked.manifest.file.display().to_string(),
        manifest: texts(&looked.manifest),
        mounts: mounts(looked),
    }
}

/// The mounts before and after, in all places.
fn mounts(looked: &Looked) -> Option<BeforeAfter<Vec<String>>> {
    let desired = looked.desired.as_ref()?;
    let mut mounts: BeforeAfter<Vec<_>> = BeforeAfter::default();
    for (place, plan) in &looked.plans {
        let place = prefix(place.as_ref());
        mounts.before.extend(mounts_before(plan, &place));
        mounts.after.extend(mounts_after(desired, &place));
    }
    for (place, leaving) in &looked.leaves {
        if let Leaving::Steps(plan) = leaving {
            mounts
                .before
                .extend(mounts_before(plan, &prefix(place.as_ref())));
        }
    }
    Some(mounts)
}

/// What is before each mount at the place.
fn prefix(place: Option<&ServicePlace>) -> String {
    place.map_or_else(String::new, |place| format!("{}: ", place.unit))
}

fn with_place(place: &ServicePlace, more: Value) -> Value {
    let mut object = json!(place);
    extend(&mut object, more);
    object
}

/// The text of the manifest that the caller names, or that somebody writes into a pipe.
fn text(file: &Path, given: &Path) -> Result<String, ManifestError> {
    let bytes = if file == Path::new("-") {
        worker::while_idle(|| read(io::stdin().lock()))
    } else if is_pipe(file) {
        worker::while_idle(|| read(File::open(file)?))
    } else {
        File::open(file).and_then(read)
    };
    let bytes = bytes.map_err(|error| match error.raw_os_error() {
        Some(libc::EISDIR) => Error::usage(format!("{} is a directory", given.display())),
        _ => Error::failed(format!("cannot read {}", given.display())).because(&error),
    })?;
    manifest::decode(&SourceFile::File(given.to_owned()), bytes).map_err(ManifestError::Mistakes)
}

/// Reads one byte more than a manifest may have.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether it is what `<(command)` of a shell gives, or the like.
fn is_pipe(file: &Path) -> bool {
    match file.metadata() {
        Ok(found) => found.file_type().is_fifo(),
        Err(_) => false,
    }
}

//! `mountjail units`: systemd drop-ins that start the sites' services after their mounts.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::report::Report;
use super::{DIFFERENT, Tree, Which};
use crate::base::SiteName;
use crate::engine::{read_drop_in, remove_drop_in, write_drop_in};
use crate::manifest::{Manifest, Scope};
use crate::render::json::document;
use crate::render::systemd::{
    ALL, DROP_IN, DropIn, DropIns, HEADER, OrderingConflict, UnitNeeds, drop_in_of, drop_ins,
    unit_of,
};
use crate::render::wrapper::{WRAPPER, wrapper_of};
use crate::site::boot::{self, BootUnits, is_service};
use crate::site::context::Context;
use crate::site::out::worst;
use crate::site::wrappers::WrappedServices;
use crate::site::{Site, SiteError, systemctl};
use crate::{Error, Result, render};
use check::Difference;

/// Where the administrator's units are.
const UNITS: &str = "/etc/systemd/system";

/// Print or write the systemd drop-ins that start a site's services after its mounts
///
/// They order the services that the manifests name under `services` after mountjail.service, and
/// after mountjail@SITE.service if a site is started alone. They order the sites after the daemons
/// that make their sources on /run, and after the file systems that they are on. A site that must
/// wait for something that other sites must not wait for, such as a file system with `nofail` or on
/// the network, is mounted by mountjail@SITE.service at boot. No unit ever waits for itself:
/// services that cannot be ordered are named. mountjail.service itself is ordered before PHP-FPM,
/// as distributions name it.
///
/// The services of sites with `scope: services` are started by `mountjail run`: their drop-ins
/// repeat the unit's own `ExecStart=` lines. A service that could not mount its sites so, because
/// of its hardening, is named with the line that lets it.
///
/// Run it again with --install when manifests or the host's units change, as by an upgrade; --check
/// tells whether that is necessary.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mountjail units site1\n  mountjail units --all --install\n  \
                        mountjail units --all --check"
)]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct UnitsArgs {
    #[command(flatten)]
    tree: Tree,
    #[command(flatten)]
    which: Which,
    /// Write them; with --all remove those that no site needs any more
    #[arg(long, group = "action")]
    install: bool,
    /// Remove them; with --all all that mountjail wrote
    #[arg(long, group = "action")]
    uninstall: bool,
    /// Compare them with what --install would write; exit code 3 if they differ
    #[arg(long, group = "action")]
    check: bool,
    /// Directory of the units
    #[arg(long, value_name = "DIR", default_value = UNITS)]
    dir: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl UnitsArgs {
    /// The root of the image that it works on.
    pub(super) fn image(&self) -> Option<&Path> {
        self.tree.root.as_deref()
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if self.uninstall {
            return Ok(self.uninstall(context)?);
        }
        let sites = self.which.selection().sites(context)?;
        let mut planned = self.planned(context, &sites, |_| true);
        let mut report = Report::new(context, self.json);
        let failed: Vec<_> = sites.iter().map(|site| planned.failed(site)).collect();
        let mut written = planned.always();
        for (site, failed) in sites.iter().zip(failed) {
            let files = planned.of(site);
            let paths: Vec<_> = files
                .iter()
                .map(|drop_in| self.dir.join(&drop_in.path))
                .collect();
            written.extend(files);
            match failed {
                None => {
                    report.site(0, json!({ "site": site.name, "files": paths }));
                    planned.report(context, site);
                }
                Some(failed) => report.failed(site, &failed, json!({ "files": paths })),
            }
        }
        let mut drop_ins: BTreeMap<_, _> = written
            .into_iter()
            .map(|drop_in| (self.dir.join(&drop_in.path), drop_in.text.as_str()))
            .collect();
        let unneeded = self.unneeded(&planned, &sites)?.into_iter();
        let mut unneeded: Vec<_> = unneeded
            .filter(|path| !drop_ins.contains_key(path))
            .collect();
        if planned.some_are_silent && (self.install || self.check) {
            drop_ins.retain(|path, text| !may_lose_lines(path, text));
            unneeded.clear();
            context.out.warn(
                "while a site does not answer, no line is taken out of any drop-in: the line may \
                 belong to that site",
            );
        }
        if self.check {
            let differences = check::differences(&drop_ins, unneeded.into_iter());
            self.add_differences(context, &mut report, differences);
        } else if self.install {
            report.code(self.install(context, &drop_ins, unneeded));
        } else {
            for (path, text) in &drop_ins {
                report.text(format!("# {}\n{text}\n", path.display()));
            }
        }
        Ok(report.finish())
    }

    fn add_differences(
        &self,
        context: &Context,
        report: &mut Report,
        differences: Vec<Result<Difference>>,
    ) {
        let in_sync = differences.is_empty();
        let (mut found, mut errors) = (vec![], vec![]);
        for difference in differences {
            match difference {
                Ok(difference) => found.push(difference),
                Err(error) => {
                    context.out.error(&error);
                    report.code(error.exit_code());
                    errors.push(render::json::error(None, &error));
                }
            }
        }
        let files: Vec<_> = found.iter().map(Difference::json).collect();
        report.key("in_sync", json!(in_sync));
        report.key("files", json!(files));
        report.key("errors", json!(errors));
        if in_sync && report.code_so_far() == 0 {
            report.text(format!("in sync, in {}\n", self.dir.display()));
        }
        for difference in found {
            report.styled(difference.text());
            report.code(DIFFERENT);
        }
    }

    /// The drop-ins of all sites of the configuration that `counts`, and of `named`.
    fn planned(
        &self,
        context: &Context,
        named: &[Site],
        counts: impl Fn(&Site) -> bool,
    ) -> PlannedUnits {
        let (mut manifests, unusable) = boot::manifests(context, named);
        manifests.retain(|(site, _)| counts(site));
        let manifests_alone = manifests.iter().map(|(_, manifest)| manifest);
        let mut boot = BootUnits::read(&self.dir, manifests_alone);
        let mut wrapped = WrappedServices::find(context, &self.dir, &boot, &manifests);
        let (mut needs, mut errors) = (vec![], std::mem::take(&mut wrapped.errors));
        for (site, manifest) in &manifests {
            if manifest.scope == Scope::Services {
                continue;
            }
            let (needed, refused) = boot.needs(site, manifest);
            needs.push(needed);
            errors.insert(site.name.clone(), refused);
        }
        let drop_ins = drop_ins(&needs, &mut boot.ordering);
        for OrderingConflict { site, unit, way } in &drop_ins.refused {
            let file = manifests
                .iter()
                .find(|(known, _)| known.name == *site)
                .map(|(_, manifest)| manifest.file_of_service(unit));
            let error = Error::failed(format!(
                "{site}: {unit} cannot start after the site's mounts"
            ))
            .because_of(format!(
                "they would wait for each other: {} start in this order",
                way.join(", ")
            ));
            let hint = file
                .map(|file| format!("take it out of `services` in {file}"))
                .unwrap_or_default();
            errors
                .entry(site.clone())
                .or_default()
                .push(error.hint(hint));
        }
        PlannedUnits {
            some_are_silent: unusable.values().any(SiteError::is_silent),
            drop_ins,
            wrapped,
            needs,
            errors,
            manifests,
            unusable,
            known: boot,
        }
    }

    /// mountjail's files that no site needs; with --all those of any site, unless a manifest is not
    /// known, whose files they may be.
    fn unneeded(&self, planned: &PlannedUnits, sites: &[Site]) -> Result<Vec<PathBuf>> {
        let all_known = sites.iter().all(|site| planned.manifest(site).is_some());
        if !self.which.all || !all_known {
            let manifests = sites.iter().filter_map(|site| planned.manifest(site));
            let services = manifests.flat_map(|manifest| &manifest.services);
            let units = services.filter(|unit| planned.known.has(unit)).cloned();
            let units: Vec<_> = units.chain([ALL.to_owned()]).collect();
            let ordered = &planned.drop_ins.services;
            let unordered = units.iter().filter(|unit| !ordered.contains_key(*unit));
            let unneeded = unordered.map(|unit| drop_in_of(unit));
            let unwrapped = units
                .iter()
                .map(|unit| wrapper_of(planned.known.ordering.name(unit)));
            let unneeded = unneeded.chain(unwrapped);
            return Ok(unneeded.map(|path| self.dir.join(path)).collect());
        }
        // A service that does not exist now may come back.
        let named = planned
            .manifests
            .iter()
            .flat_map(|(_, manifest)| &manifest.services);
        let absent: BTreeSet<_> = named
            .filter(|unit| is_service(unit) && !planned.known.has(unit))
            .flat_map(|unit| [drop_in_of(unit), wrapper_of(unit)])
            .map(|path| self.dir.join(path))
            .collect();
        let mut written = self.all_written()?;
        written.retain(|path| !absent.contains(path));
        Ok(written)
    }

    /// Writes `drop_ins`, and removes those `unneeded` files that are mountjail's. Returns the exit
    /// code: one file that cannot be written keeps no other site from its own.
    fn install(
        &self,
        context: &Context,
        drop_ins: &BTreeMap<PathBuf, &str>,
        unneeded: Vec<PathBuf>,
    ) -> u8 {
        let (mut changed, mut code) = (false, 0);
        for (path, text) in drop_ins {
            let verb = match write_drop_in(path, HEADER, text) {
                Ok(true) => {
                    changed = true;
                    "wrote"
                }
                Ok(false) => "kept",
                Err(error) => {
                    code = report(context, code, &error);
                    continue;
                }
            };
            context
                .out
                .detail(format_args!("{verb} {}", path.display()));
        }
        let (removed, code) = remove(context, unneeded, code);
        self.reload(context, changed || !removed.is_empty());
        code
    }

    /// `mountjail units --uninstall SITE`, as a part of `mountjail remove`.
    pub(super) fn of_site(site: &SiteName) -> Self {
        Self {
            tree: Tree::default(),
            which: Which {
                sites: vec![site.to_string()],
                all: false,
            },
            install: false,
            uninstall: true,
            check: false,
            dir: PathBuf::from(UNITS),
            json: false,
        }
    }

    /// The drop-ins that mountjail wrote and that are only for these sites.
    pub(super) fn own_drop_ins(&self, context: &Context) -> Result<Vec<PathBuf>> {
        if self.all_written()?.iter().all(|file| !file.exists()) {
            return Ok(vec![]);
        }
        let mut own = self.written_for(context)?;
        own.retain(|file| {
            read_drop_in(file).is_ok_and(|text| text.is_some_and(|text| text.starts_with(HEADER)))
        });
        Ok(own)
    }

    /// Removes the drop-ins of these sites; returns them.
    ///
    /// Errors: one cannot be removed.
    pub(super) fn remove_own(&self, context: &Context) -> Result<Vec<PathBuf>> {
        if self.all_written()?.iter().all(|file| !file.exists()) {
            return Ok(vec![]);
        }
        match self.remove_drop_ins(context)? {
            (removed, 0) => Ok(removed),
            _ => Err(
                Error::failed("the drop-ins for systemd cannot be removed").hint(format!(
                    "`mountjail units --uninstall {}` names each of them",
                    self.which.sites.join(" ")
                )),
            ),
        }
    }

    fn uninstall(&self, context: &Context) -> Result<u8> {
        let (removed, code) = self.remove_drop_ins(context)?;
        let text = if self.json {
            document(json!({ "removed": removed }))
        } else {
            String::new()
        };
        Ok(context.out.print_and(text, code))
    }

    /// Removes the drop-ins. Those of a service that another site names, too, stay unless all go.
    /// Returns them, and the exit code.
    fn remove_drop_ins(&self, context: &Context) -> Result<(Vec<PathBuf>, u8)> {
        let files = if self.which.all {
            self.all_written()?
        } else {
            self.written_for(context)?
        };
        let (mut removed, mut code) = remove(context, files, 0);
        let mut rewritten = false;
        if !self.which.all {
            match self.new_drop_in_of_all(context)? {
                NewDropIn::None => {}
                NewDropIn::Text(path, text) => match write_drop_in(&path, HEADER, &text) {
                    Ok(written) => rewritten = written,
                    Err(error) => code = report(context, code, &error),
                },
                NewDropIn::Gone(path) => {
                    let (more, worse) = remove(context, vec![path], code);
                    removed.extend(more);
                    code = worse;
                }
            }
        }
        self.reload(context, rewritten || !removed.is_empty());
        Ok((removed, code))
    }

    /// The places of all drop-ins that mountjail may have written.
    fn all_written(&self) -> Result<Vec<PathBuf>> {
        let cannot = |error: io::Error| {
            Error::failed(format!("cannot list {}", self.dir.display())).because(&error)
        };
        let directories = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            directories => directories.map_err(cannot)?,
        };
        let files = |directory: io::Result<DirEntry>| {
            directory.map(|directory| [DROP_IN, WRAPPER].map(|name| directory.path().join(name)))
        };
        let mut files: Vec<_> = directories
            .map(files)
            .collect::<Result<Vec<_>, _>>()
            .map_err(cannot)?
            .concat();
        files.sort();
        Ok(files)
    }

    fn written_for(&self, context: &Context) -> Result<Vec<PathBuf>> {
        let going = self.which.selection().sites(context)?;
        let (manifests, unusable) = boot::manifests(context, &going);
        for site in going
            .iter()
            .filter(|site| unusable.contains_key(&site.name))
        {
            context.out.site(&site.name).warn(
                "without a manifest that can be used, the drop-ins of its services are not known: \
                 `mountjail units --all --install` removes those that no site needs",
            );
        }
        let names = |site: &Site| {
            let manifest = manifests.iter().find(|(known, _)| known == site);
            manifest.map_or(&[][..], |(_, manifest)| &manifest.services)
        };
        let needed: BTreeSet<_> = manifests
            .iter()
            .filter(|(site, _)| !going.contains(site))
            .flat_map(|(_, manifest)| &manifest.services)
            .collect();
        let mut files = vec![];
        for site in &going {
            let own = names(site).iter();
            let unneeded = own.filter(|service| !needed.contains(service));
            for service in unneeded {
                files.push(self.dir.join(drop_in_of(service)));
                files.push(self.dir.join(wrapper_of(service)));
            }
            files.push(self.dir.join(drop_in_of(&unit_of(&site.name))));
        }
        Ok(files)
    }

    /// The drop-in of mountjail.service without the sites whose drop-ins are removed.
    fn new_drop_in_of_all(&self, context: &Context) -> Result<NewDropIn> {
        let path = self.dir.join(drop_in_of(ALL));
        if read_drop_in(&path).is_ok_and(|found| found.is_none()) {
            return Ok(NewDropIn::None);
        }
        let going = self.which.selection().sites(context)?;
        let planned = self.planned(context, &[], |site| !going.contains(site));
        Ok(match planned.drop_ins.all {
            Some(drop_in) => NewDropIn::Text(path, drop_in.text),
            None => NewDropIn::Gone(path),
        })
    }

    /// Has systemd read its units again if they changed.
    fn reload(&self, context: &Context, changed: bool) {
        if !changed || self.dir != Path::new(UNITS) || !systemctl::is_running() {
            return;
        }
        if let Err(error) = systemctl::systemctl(&["daemon-reload"]) {
            context.out.warn(error);
        }
    }
}

/// Whether the file at `path` has lines that are not in `text`, or cannot be read.
fn may_lose_lines(path: &Path, text: &str) -> bool {
    let lines: BTreeSet<_> = text.lines().collect();
    match read_drop_in(path) {
        Ok(found) => found
            .unwrap_or_default()
            .lines()
            .any(|line| !lines.contains(line)),
        Err(_) => true,
    }
}

/// What becomes of the drop-in of mountjail.service.
enum NewDropIn {
    /// There is none.
    None,
    /// It gets this text.
    Text(PathBuf, String),
    /// No site needs it any more.
    Gone(PathBuf),
}

/// Removes those of `files` that are mountjail's. Returns them, and the worst exit code.
fn remove(context: &Context, files: Vec<PathBuf>, mut code: u8) -> (Vec<PathBuf>, u8) {
    let mut removed = vec![];
    for file in files {
        match remove_drop_in(&file, HEADER) {
            Ok(true) => {
                context.out.info(format_args!("removed {}", file.display()));
                removed.push(file);
            }
            Ok(false) => {}
            Err(error) => code = report(context, code, &error),
        }
    }
    (removed, code)
}

/// Reports `error`; the exit code after it, which was `code` before.
fn report(context: &Context, code: u8, error: &Error) -> u8 {
    context.out.error(error);
    worst([code, error.exit_code()])
}

/// The drop-ins of all sites, and what was found while they were made.
struct PlannedUnits {
    drop_ins: DropIns,
    wrapped: WrappedServices,
    needs: Vec<UnitNeeds>,
    /// Why a site does not get all that its manifest names.
    errors: BTreeMap<SiteName, Vec<Error>>,
    manifests: Vec<(Site, Manifest)>,
    /// Why a site has no manifest.
    unusable: BTreeMap<SiteName, SiteError>,
    some_are_silent: bool,
    known: BootUnits,
}

impl PlannedUnits {
    fn manifest(&self, site: &Site) -> Option<&Manifest> {
        self.manifests
            .iter()
            .find(|(known, _)| known == site)
            .map(|(_, manifest)| manifest)
    }

    /// The drop-ins that are written whichever sites are named: they depend on each other.
    fn always(&self) -> Vec<&DropIn> {
        let apart = self
            .manifests
            .iter()
            .filter(|(site, _)| self.drop_ins.apart.contains(&site.name));
        self.drop_ins
            .all
            .iter()
            .chain(apart.flat_map(|(site, _)| self.of(site)))
            .collect()
    }

    /// The drop-ins of the site's own unit and of its services.
    fn of(&self, site: &Site) -> Vec<&DropIn> {
        let Some(manifest) = self.manifest(site) else {
            return vec![];
        };
        let services = manifest
            .services
            .iter()
            .filter_map(|service| self.drop_ins.services.get(service));
        let wrapped = self.wrapped.of(&site.name);
        let wrapped = wrapped
            .into_iter()
            .filter_map(|service| service.drop_in.as_ref().ok());
        services
            .chain(self.drop_ins.sites.get(&site.name))
            .chain(wrapped)
            .collect()
    }

    /// Why the site does not get all that it asks for; returned once.
    fn failed(&mut self, site: &Site) -> Option<SiteError> {
        let unusable = self.unusable.remove(&site.name);
        unusable.or_else(|| {
            let errors = self.errors.get(&site.name)?;
            (!errors.is_empty()).then(|| SiteError::Errors(errors.clone()))
        })
    }

    fn report(&self, context: &Context, site: &Site) {
        let name = &site.name;
        let out = context.out.site(name);
        let wrapped = self.wrapped.of(name).into_iter();
        let wrapped: Vec<_> = wrapped.map(|service| &*service.unit).collect();
        if !wrapped.is_empty() {
            out.info(format_args!(
                "mounted in the mount namespaces of {}, when they start",
                wrapped.join(", ")
            ));
            return;
        }
        let needs = self.needs.iter().find(|needs| needs.site == *name);
        match needs.map(|needs| needs.services.as_slice()) {
            None | Some([]) => out.info("its manifest names no services; nothing to order"),
            Some(names) => out.info(format_args!("mounted before {}", names.join(", "))),
        }
        if self.drop_ins.apart.contains(name) {
            let unit = unit_of(name);
            out.info(format_args!(
                "mounted by {unit}, because it waits for something that other sites do not wait for"
            ));
        }
        for missed in self
            .drop_ins
            .missed
            .iter()
            .filter(|missed| missed.site == *name)
        {
            let unit = &missed.unit;
            out.info(format_args!(
                "mounted without waiting for {unit}, which starts after the site's services; \
                 mountjail-watch.service mounts what {unit} makes"
            ));
        }
    }
}

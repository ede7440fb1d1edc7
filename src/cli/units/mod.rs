//! `mountjail units`: systemd drop-ins that start the sites' services after their mounts.

mod check;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use self::check::Difference;
use super::args::{ImageRoot, Which};
use super::report::{DIFFERENT, Report, report_all};
use crate::Result;
use crate::render::json::document;
use crate::site::boot::UNITS;
use crate::site::context::Context;
use crate::site::drop_ins::{DropInFiles, may_lose_lines};
use crate::site::unit_plan::PlannedUnits;

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
    image: ImageRoot,
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
        self.image.root.as_deref()
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if self.uninstall {
            return Ok(self.uninstall(context)?);
        }
        let sites = self.which.selection().sites(context)?;
        let mut planned = PlannedUnits::new(context, &self.dir, &sites, |_| true)?;
        let mut report = Report::new(context, self.json);
        let mut failed = vec![];
        for site in &sites {
            failed.push(planned.failed(site));
        }
        let mut drop_ins = BTreeMap::new();
        for drop_in in planned.always() {
            drop_ins.insert(self.dir.join(&drop_in.path), drop_in.text.as_str());
        }
        for (site, failed) in sites.iter().zip(failed) {
            let mut paths = vec![];
            for drop_in in planned.of(site) {
                let path = self.dir.join(&drop_in.path);
                drop_ins.insert(path.clone(), drop_in.text.as_str());
                paths.push(path);
            }
            match failed {
                None => {
                    report.site(0, json!({ "site": site.name, "files": paths }));
                    planned.report(context, site);
                }
                Some(failed) => report.failed(site, &failed, json!({ "files": paths })),
            }
        }
        let files = self.files(context);
        let mut unneeded = files.unneeded(&planned, &sites, self.which.all)?;
        unneeded.retain(|path| !drop_ins.contains_key(path));
        if planned.some_are_silent && (self.install || self.check) {
            keep_lines(context, &mut drop_ins, &mut unneeded);
        }
        self.act(context, &mut report, &drop_ins, unneeded);
        Ok(report.finish())
    }

    /// Compares, writes or prints the drop-ins.
    fn act(
        &self,
        context: &Context,
        report: &mut Report,
        drop_ins: &BTreeMap<PathBuf, &str>,
        unneeded: Vec<PathBuf>,
    ) {
        if self.check {
            let differences = check::differences(drop_ins, unneeded);
            self.add_differences(report, differences);
        } else if self.install {
            for error in self.files(context).install(drop_ins, unneeded) {
                report.error(&error);
            }
        } else {
            for (path, text) in drop_ins {
                report.text(format!("# {}\n{text}\n", path.display()));
            }
        }
    }

    fn add_differences(&self, report: &mut Report, differences: Vec<Result<Difference>>) {
        let in_sync = differences.is_empty();
        report.key("errors", json!([]));
        let mut found = vec![];
        for difference in differences {
            match difference {
                Ok(difference) => found.push(difference),
                Err(error) => report.error(&error),
            }
        }
        let files: Vec<_> = found.iter().map(Difference::json).collect();
        report.key("in_sync", json!(in_sync));
        report.key("files", json!(files));
        if in_sync && report.code_so_far() == 0 {
            report.text(format!("in sync, in {}\n", self.dir.display()));
        }
        for difference in found {
            report.styled(difference.text());
            report.code(DIFFERENT);
        }
    }

    fn uninstall(&self, context: &Context) -> Result<u8> {
        let files = self.files(context);
        let removed = if self.which.all {
            files.remove_all()?
        } else {
            files.remove_of(&self.which.selection().sites(context)?)?
        };
        let (code, errors) = report_all(context, &removed.errors);
        if !self.json {
            return Ok(code);
        }
        let mut object = json!({ "removed": removed.files });
        if !errors.is_empty() {
            object["errors"] = json!(errors);
        }
        Ok(context.out.print_and(document(object), code))
    }

    fn files<'c>(&self, context: &'c Context) -> DropInFiles<'c> {
        DropInFiles {
            context,
            path: self.dir.clone(),
        }
    }
}

/// Takes no line out of any drop-in while a site does not answer.
fn keep_lines(
    context: &Context,
    drop_ins: &mut BTreeMap<PathBuf, &str>,
    unneeded: &mut Vec<PathBuf>,
) {
    drop_ins.retain(|path, text| !may_lose_lines(path, text));
    unneeded.clear();
    context.out.warn(
        "while a site does not answer, no line is taken out of any drop-in: the line may belong \
         to that site",
    );
}

//! `mountjail fstab`: the sites' mounts as fstab(5) lines, printed or kept in a file.

mod check;
mod install;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::args::{ImageRoot, Which};
use super::report::Report;
use crate::base::SiteName;
use crate::render;
use crate::render::fstab::{FSTAB, FstabBlock};
use crate::site::context::Context;
use crate::site::fstab::FstabRun;
use crate::site::{Site, SiteError, parallel};

/// Print the sites' mounts as fstab(5) lines, or keep them in /etc/fstab
///
/// With these lines `mount -a` makes the same mounts as `mountjail up`. --install writes them to a
/// block of their own, leaves all other lines as they are, and makes what the lines mount on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mountjail fstab site1\n  mountjail fstab --all --install\n  \
                  mountjail fstab --all --check"
)]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct FstabArgs {
    #[command(flatten)]
    image: ImageRoot,
    #[command(flatten)]
    which: Which,
    /// Write the lines to the file; with --all remove those of sites that do not exist any more
    #[arg(long, group = "action")]
    install: bool,
    /// Remove the lines from the file
    #[arg(long, group = "action")]
    uninstall: bool,
    /// Compare the file with what --install would write; exit code 3 if they differ
    #[arg(long, group = "action")]
    check: bool,
    /// The file to read or change
    #[arg(
        long,
        value_name = "FILE",
        default_value = FSTAB,
        requires = "action"
    )]
    file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl FstabArgs {
    /// The root of the image that it works on.
    pub(super) fn image(&self) -> Option<&Path> {
        self.image.root.as_deref()
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        match (self.install, self.uninstall, self.check) {
            (true, ..) => self.install(context),
            (_, true, _) => self.uninstall(context),
            (_, _, true) => self.check(context),
            _ => self.print(context),
        }
    }

    fn print(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = self.which.selection().sites(context)?;
        let run = FstabRun::new(context, &sites)?;
        let sites = self.of_the_host(context, sites, &run);
        let render = move |site: &Site| run.lines(site).map_err(SiteError::from);
        let found = parallel::look(context, &sites, render);

        let mut report = Report::new(context, self.json);
        for (site, lines) in sites.iter().zip(found) {
            match lines {
                Ok(lines) => {
                    lines.report(context);
                    report.text(&lines.section);
                    report.site(0, render::json::fstab(&lines.desired, &lines.lines));
                }
                Err(failed) => report.failed(site, &failed, json!({})),
            }
        }
        Ok(report.finish())
    }

    /// The sites that are meant: with --all not those whose mounts belong to services.
    fn of_the_host(&self, context: &Context, sites: Vec<Site>, run: &FstabRun) -> Vec<Site> {
        let is_meant = |site: &Site| !self.which.all || !run.is_served(&site.name);
        let (meant, others): (Vec<_>, Vec<_>) = sites.into_iter().partition(is_meant);
        for site in &others {
            let out = context.out.site(&site.name);
            out.info("left out: its mounts belong to its services (scope: services)");
        }
        meant
    }

    /// Names lines that a failed site has in the file.
    fn report_installed(
        &self,
        context: &Context,
        site: &Site,
        block: &FstabBlock,
        failed: &SiteError,
    ) {
        let (name, file) = (&site.name, self.file.display());
        let out = context.out.site(name);
        if block.get(name).is_none() {
            return;
        }
        if failed.is_silent() {
            out.info(format_args!("its lines in {file} are kept as they are"));
        } else {
            out.warn(format_args!(
                "its lines are still in {file}; `mountjail fstab --uninstall {name}` takes them out"
            ));
        }
    }
}

/// Why the file should not have lines of the site.
fn no_lines(context: &Context, run: &FstabRun, name: &SiteName) -> String {
    if run.is_served(name) {
        return format!("{name} has lines, but its mounts belong to its services");
    }
    let directory = context.config.join("sites");
    format!(
        "{name} has lines, but no manifest in {}",
        directory.display()
    )
}

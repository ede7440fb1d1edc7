//! `mountjail fstab --install` and `--uninstall`: the block in the file, and what its lines mount
//! on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::FstabArgs;
use crate::base::SiteName;
use crate::base::sync::processors;
use crate::base::text::plural;
use crate::cli::report::Report;
use crate::patience::Stop;
use crate::render::fstab::{FSTAB, FstabBlock};
use crate::site::context::{Context, is_set, stop_flag};
use crate::site::fstab::{FstabEditor, FstabRun, SiteLines};
use crate::site::{Site, SiteError, parallel, systemctl};
use crate::{Error, Result};

impl FstabArgs {
    pub(super) fn install(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = self.which.selection().sites(context)?;
        let editor = Arc::new(FstabEditor::new(context, &self.file)?);
        let before = editor.block()?; // before anything is made
        let run = FstabRun::new(context, &sites)?;
        let sites = self.of_the_host(context, sites, &run);
        let stop = stop_flag()?;

        let mut report = Report::new(context, self.json);
        let mut ready = vec![];
        let prepared = prepare_all(context, &sites, run, &editor, &stop);
        for (site, prepared) in sites.iter().zip(prepared) {
            match prepared {
                Ok(lines) => ready.push((site, lines)),
                Err(failed) => {
                    report.failed(site, &failed, json!({ "installed": false }));
                    self.report_installed(context, site, &before, &failed);
                }
            }
        }
        let (changed, gone) = self.write(&editor, &sites, &ready, &stop)?;
        for name in &gone {
            let out = context.out.site(name);
            out.info(format_args!("taken out of {}", self.file.display()));
            editor.release(name);
        }
        for (site, lines) in &ready {
            self.add_installed(context, &mut report, site, lines);
        }
        self.hint_at_reload(context, changed);
        Ok(report.finish())
    }

    /// Adds a site whose lines are in the file.
    fn add_installed(
        &self,
        context: &Context,
        report: &mut Report,
        site: &Site,
        lines: &SiteLines,
    ) {
        lines.report(context);
        let (count, file) = (lines.lines.len(), self.file.display());
        let out = context.out.site(&site.name);
        out.info(format_args!("{} in {file}", plural(count, "line")));
        let object = json!({ "site": site.name, "installed": true, "lines": count });
        report.site(0, object);
    }

    /// Writes the lines, unless `stop` is set. If that fails, the things made for them are
    /// released.
    fn write(
        &self,
        editor: &Arc<FstabEditor>,
        sites: &[Site],
        ready: &[(&Site, SiteLines)],
        stop: &AtomicBool,
    ) -> Result<(bool, Vec<SiteName>)> {
        let written = if is_set(stop) {
            Err(Error::interrupted(
                "stopped by a signal; the file is as it was",
            ))
        } else {
            self.edit(editor, sites, ready)
        };
        if written.is_err() {
            for (site, _) in ready {
                editor.release(&site.name);
            }
        }
        written
    }

    /// Writes the lines, and takes out those of sites that do not exist any more. Returns whether
    /// the file changed, and these sites.
    fn edit(
        &self,
        editor: &FstabEditor,
        sites: &[Site],
        ready: &[(&Site, SiteLines)],
    ) -> Result<(bool, Vec<SiteName>)> {
        let mut gone = vec![];
        let write = |block: &mut FstabBlock| {
            if self.which.all {
                gone = sites_besides(block, sites);
            }
            for name in &gone {
                block.remove(name);
            }
            for (site, lines) in ready {
                block.set(site.name.clone(), lines.section.clone());
            }
        };
        let changed = editor.edit(write, ready)?;
        Ok((changed, gone))
    }

    pub(super) fn uninstall(&self, context: &Context) -> anyhow::Result<u8> {
        let editor = Arc::new(FstabEditor::new(context, &self.file)?);
        let block = editor.block()?;
        let names = if self.which.all {
            sites_besides(&block, &[])
        } else {
            let sites = self.which.selection().sites(context)?;
            sites.into_iter().map(|site| site.name).collect()
        };
        let take_out = |block: &mut FstabBlock| {
            for name in &names {
                block.remove(name);
            }
        };
        let changed = editor.edit(take_out, &[])?;

        let mut report = Report::new(context, self.json);
        for name in &names {
            let was_there = block.get(name).is_some();
            editor.release(name);
            let what = if was_there {
                "taken out of"
            } else {
                "has no lines in"
            };
            let out = context.out.site(name);
            out.info(format_args!("{what} {}", self.file.display()));
            report.site(0, json!({ "site": name, "uninstalled": was_there }));
        }
        self.hint_at_reload(context, changed);
        Ok(report.finish())
    }

    /// systemd read the file at boot, and made units from its lines.
    fn hint_at_reload(&self, context: &Context, changed: bool) {
        if changed && self.file == Path::new(FSTAB) && systemctl::is_running() {
            context
                .out
                .info("systemd has not read it yet: systemctl daemon-reload");
        }
    }
}

/// Makes what the lines of the sites mount on.
fn prepare_all(
    context: &Context,
    sites: &[Site],
    run: FstabRun,
    editor: &Arc<FstabEditor>,
    stop: &Arc<AtomicBool>,
) -> Vec<Result<SiteLines, SiteError>> {
    let editor = editor.clone();
    let prepare = move |site: &Site, stop: &Stop| {
        let lines = run.lines(site)?;
        editor.prepare(&run, &lines, stop)?;
        Ok(lines)
    };
    parallel::each(context, sites, processors(), stop, prepare)
}

/// The sites that have lines in the block and are not among `sites`.
fn sites_besides(block: &FstabBlock, sites: &[Site]) -> Vec<SiteName> {
    let mut others = vec![];
    for name in block.sites() {
        if sites.iter().all(|site| site.name != *name) {
            others.push(name.clone());
        }
    }
    others
}

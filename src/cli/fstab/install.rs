//! `mountjail fstab --install` and `--uninstall`: the block in the file, and what its lines mount
//! on.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::FstabArgs;
use crate::base::SiteName;
use crate::base::sync::processors;
use crate::base::text::plural;
use crate::cli::report::Report;
use crate::patience::Stop;
use crate::render::fstab::FstabBlock;
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

        // Make what the lines mount on.
        let preparing = editor.clone();
        let prepare = move |site: &Site, stop: &Stop| -> Result<_, SiteError> {
            let lines = run.lines(site)?;
            preparing.prepare(&run, &lines, stop)?;
            Ok(lines)
        };
        let prepared = parallel::each(context, &sites, processors(), &stop, prepare);
        let mut report = Report::new(context, self.json);
        let mut ready = vec![];
        for (site, prepared) in sites.iter().zip(prepared) {
            match prepared {
                Ok(lines) => ready.push((site, lines)),
                Err(failed) => {
                    report.failed(site, &failed, json!({ "installed": false }));
                    self.report_installed(context, site, &before, &failed);
                }
            }
        }

        let written = if is_set(&stop) {
            Err(Error::interrupted(
                "stopped by a signal; the file is as it was",
            ))
        } else {
            self.write(&editor, &sites, &ready)
        };
        let (changed, gone) = written.inspect_err(|_| {
            for (site, _) in &ready {
                editor.release(&site.name);
            }
        })?;

        for name in &gone {
            let out = context.out.site(name);
            out.info(format_args!("taken out of {}", self.file.display()));
            editor.release(name);
        }
        for (site, lines) in &ready {
            lines.report(context);
            let (count, file) = (lines.lines.len(), self.file.display());
            let out = context.out.site(&site.name);
            out.info(format_args!("{} in {file}", plural(count, "line")));
            let object = json!({ "site": site.name, "installed": true, "lines": count });
            report.site(0, object);
        }
        self.hint_at_reload(context, changed);
        Ok(report.finish())
    }

    /// Writes the lines, and takes out those of sites that do not exist any more. Returns whether
    /// the file changed, and these sites.
    fn write(
        &self,
        editor: &FstabEditor,
        sites: &[Site],
        ready: &[(&Site, SiteLines)],
    ) -> Result<(bool, Vec<SiteName>)> {
        let is_gone = |name: &SiteName| sites.iter().all(|site| site.name != *name);
        let mut gone = vec![];
        let write = |block: &mut FstabBlock| {
            if self.which.all {
                gone.extend(block.sites().filter(|name| is_gone(name)).cloned());
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
        let known: Vec<_> = editor.block()?.sites().cloned().collect();
        let names = if self.which.all {
            known.clone()
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
            let was_there = known.contains(name);
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
        if changed && self.file == Path::new("/etc/fstab") && systemctl::is_running() {
            context
                .out
                .info("systemd has not read it yet: systemctl daemon-reload");
        }
    }
}

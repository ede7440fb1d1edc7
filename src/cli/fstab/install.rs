//! `mountjail fstab --install` and `--uninstall`: the block in the file, and what its lines mount
//! on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Fstab, FstabRun, SiteLines, block};
use crate::base::text::plural;
use crate::base::{HostPath, SiteName};
use crate::engine::{Engine, Lock, edit_file};
use crate::observe::{self, BootId, Table};
use crate::patience::Stop;
use crate::plan::{self, Step};
use crate::render::fstab::{FstabBlock, outside_targets};
use crate::resolve::Desired;
use crate::site::context::{Context, is_set, stop_flag};
use crate::site::fstab_lines::FstabLines;
use crate::site::out::worst;
use crate::site::pipeline::{lock, observe_and_plan};
use crate::site::{Site, SiteError, parallel, select, systemctl};
use crate::{Error, Result};

impl Fstab {
    pub(super) fn install(&self, context: &Context) -> anyhow::Result<u8> {
        let sites = self.which.selection().sites(context)?;
        let editor = Arc::new(FstabEditor::new(context, &self.file)?);
        let before = editor.block()?; // before anything is made
        let run = FstabRun::new(context, &sites)?;
        let stop = stop_flag()?;
        let preparing = editor.clone();
        let prepare = move |site: &Site, stop: &Stop| {
            let rendered = run.rendered(site)?;
            preparing.prepare(&rendered, stop)?;
            Ok::<_, SiteError>(rendered)
        };
        let prepared = parallel::each(context, &sites, parallel::processors(), &stop, prepare);
        let (mut codes, mut results, mut ready) = (vec![], vec![], vec![]);
        for (site, prepared) in sites.iter().zip(prepared) {
            match prepared {
                Ok(rendered) => ready.push((site, rendered)),
                Err(failed) => {
                    let (code, errors) = failed.report(context.out, site);
                    self.report_installed(context, site, &before, failed.is_silent());
                    codes.push(code);
                    results
                        .push(json!({ "site": site.name, "installed": false, "errors": errors }));
                }
            }
        }
        let keep: Vec<_> = sites.iter().map(|site| &site.name).collect();
        let mut gone = vec![];
        let put_in = |block: &mut FstabBlock| {
            gone = block
                .sites()
                .filter(|name| self.which.all && !keep.contains(name))
                .cloned()
                .collect();
            for name in &gone {
                block.remove(name);
            }
            for (site, rendered) in &ready {
                block.set(site.name.clone(), rendered.section.clone());
            }
        };
        let changed = if is_set(&stop) {
            Err(Error::interrupted(
                "stopped by a signal; the file is as it was",
            ))
        } else {
            editor.edit(put_in, &ready)
        };
        let changed = changed.inspect_err(|_| {
            for (site, _) in &ready {
                release(&editor, &site.name);
            }
        })?;
        for name in &gone {
            context
                .out
                .info(format_args!("{name}: taken out of {}", self.file.display()));
            release(&editor, name);
        }
        for (site, rendered) in &ready {
            rendered.say(context);
            let lines = plural(rendered.lines.len(), "line");
            context.out.info(format_args!(
                "{}: {lines} in {}",
                site.name,
                self.file.display()
            ));
            results.push(
                json!({ "site": site.name, "installed": true, "lines": rendered.lines.len() }),
            );
            codes.push(0);
        }
        self.tell_systemd(context, changed);
        Ok(self.finish_quietly(context, &results, worst(codes)))
    }

    pub(super) fn uninstall(&self, context: &Context) -> anyhow::Result<u8> {
        let editor = Arc::new(FstabEditor::new(context, &self.file)?);
        let known: Vec<_> = editor.block()?.sites().cloned().collect();
        let names = if self.which.all {
            known.clone()
        } else {
            self.named(context)?
        };
        let take_out = |block: &mut FstabBlock| {
            for name in &names {
                block.remove(name);
            }
        };
        let changed = editor.edit(take_out, &[])?;
        let mut results = vec![];
        for name in &names {
            let was_there = known.contains(name);
            release(&editor, name);
            let what = if was_there {
                "taken out of"
            } else {
                "has no lines in"
            };
            context
                .out
                .info(format_args!("{name}: {what} {}", self.file.display()));
            results.push(json!({ "site": name, "uninstalled": was_there }));
        }
        self.tell_systemd(context, changed);
        Ok(self.finish_quietly(context, &results, 0))
    }

    fn named(&self, context: &Context) -> Result<Vec<SiteName>> {
        let sites: Vec<Site> = select::named(context, &self.which.sites)?;
        Ok(sites.into_iter().map(|site| site.name).collect())
    }

    /// systemd read the file at boot and makes units of its lines.
    fn tell_systemd(&self, context: &Context, changed: bool) {
        if changed && self.file == Path::new("/etc/fstab") && systemctl::is_running() {
            context.out.info(format_args!(
                "systemd has not read it yet: systemctl daemon-reload"
            ));
        }
    }

    fn finish_quietly(&self, context: &Context, results: &[Value], code: u8) -> u8 {
        if self.json {
            self.finish(context, results, &[], code)
        } else {
            code
        }
    }
}

/// The file, and the engine that makes what its lines mount on.
struct FstabEditor {
    context: Context,
    engine: Engine,
    boot: BootId,
    /// As it was at the start.
    table: Table,
    file: PathBuf,
    lock: Lock,
}

impl FstabEditor {
    fn new(context: &Context, file: &Path) -> Result<Self> {
        let boot = observe::boot_id()?;
        let file = std::path::absolute(file).map_err(|error| {
            Error::failed(format!("cannot use the file {}", file.display())).because(&error)
        })?;
        Ok(Self {
            context: context.again(),
            engine: context.engine_anywhere(boot.clone(), false)?,
            boot,
            table: Table::read()?,
            file,
            lock: context.editing()?,
        })
    }

    /// The block as it is, in a file that can be edited.
    fn block(&self) -> Result<FstabBlock> {
        let mut found = Err(Error::failed(format!(
            "cannot read {}",
            self.file.display()
        )));
        edit_file(&self.file, &self.lock, |text| {
            found = block(&self.file, text);
            Ok(text.to_vec())
        })?;
        found
    }

    /// Changes the block; `ready` must not be mounted by lines outside of it.
    fn edit(
        &self,
        change: impl FnOnce(&mut FstabBlock),
        ready: &[(&Site, SiteLines)],
    ) -> Result<bool> {
        edit_file(&self.file, &self.lock, |text| {
            let mut block = block(&self.file, text)?;
            for (line, target) in outside_targets(text) {
                let same = |(_, rendered): &&(&Site, SiteLines)| {
                    rendered
                        .lines
                        .iter()
                        .any(|line| line.target.as_path() == target)
                };
                if let Some((site, _)) = ready.iter().find(same) {
                    let (file, target) = (self.file.display(), target.display());
                    return Err(Error::failed(format!(
                        "{}: line {line} of {file} mounts on {target} as well",
                        site.name
                    ))
                    .hint("delete that line: mountjail's takes its place; nothing was changed"));
                }
            }
            change(&mut block);
            Ok(block.to_text())
        })
    }

    /// Makes what the site's lines mount on, and remembers why.
    fn prepare(&self, rendered: &SiteLines, stop: &Stop) -> Result<(), SiteError> {
        let desired = &rendered.desired;
        let site = Site {
            name: desired.site.clone(),
            file: PathBuf::new(),
        };
        let _lock = lock(&self.context, &self.engine, &site)?;
        let (observed, plan) =
            observe_and_plan(&self.context, desired, &self.boot, Some(&self.table))?;
        if !plan.conflicts.is_empty() {
            return Err(SiteError::Errors(plan.conflicts));
        }
        if plan.unfinished
            || plan
                .steps
                .iter()
                .any(|step| matches!(step, Step::Detach { .. }))
        {
            let drifted = Error::failed(format!(
                "{}: mounts that the manifest has no more are in the way",
                site.name
            ));
            return Err(drifted
                .hint(format!("run `mountjail up {}` first", site.name))
                .into());
        }
        let file = HostPath::new(&self.file).map_err(|why| {
            Error::usage(format!("cannot use the file {}", self.file.display())).because_of(why)
        })?;
        let log = |line: std::fmt::Arguments<'_>| self.context.out.detail(line);
        self.engine
            .up(&rendered.layout(plan, &observed), &observed, stop, &log)
            .map_err(SiteError::Engine)?;
        Ok(self
            .engine
            .remember_fstab(&site.name, &desired.root, Some(file))?)
    }

    /// The file no longer needs what was made for the site: it goes, unless the site is up.
    fn release(&self, name: &SiteName) -> Result<()> {
        let site = Site {
            name: name.clone(),
            file: PathBuf::new(),
        };
        let _lock = lock(&self.context, &self.engine, &site)?;
        let records = self.context.state.read(name, &self.boot)?;
        let Some(kept) = &records.kept else {
            return Ok(());
        };
        if FstabLines::default()
            .file_of(name, kept.fstab.as_ref())
            .is_some()
        {
            return Ok(());
        }
        let root = kept.root.clone();
        self.engine.remember_fstab(name, &root, None)?;
        if !root.as_path().exists() {
            return Ok(());
        }
        let records = self.context.state.read(name, &self.boot)?;
        let nothing = Desired::nothing(name.clone(), root.clone());
        let observed = observe::observe(&nothing, records, Some(&self.table))?;
        if !observed.mounts.is_empty() || !observed.elsewhere.is_empty() {
            return Ok(()); // it is up: `down` removes them
        }
        let plan = plan::down(name.clone(), root, None, &observed);
        let log = |line: std::fmt::Arguments<'_>| self.context.out.detail(line);
        self.engine
            .down(&plan, &observed, false, &log)
            .map(drop)
            .map_err(|failure| failure.error)
    }
}

/// As [`FstabEditor::release`], of a site that may not answer: then what was made for it stays.
fn release(editor: &Arc<FstabEditor>, name: &SiteName) {
    let site = Site {
        name: name.clone(),
        file: PathBuf::new(),
    };
    let (releasing, out) = (editor.clone(), editor.context.out);
    let work = move |site: &Site, _: &Stop| {
        let released = releasing.release(&site.name);
        released.map_err(|error| error.context(&site.name).into())
    };
    if let Err(failed) = parallel::one(&editor.context, &site, &Arc::default(), work) {
        out.warn(failed.text(&site));
        out.info(format_args!(
            "{name}: what its lines mounted on stays; `mountjail down {name}` removes it"
        ));
    }
}

//! The block of lines in a file like fstab(5), and the placeholders that its lines mount on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{FstabLines, FstabRun, SiteLines, block};
use crate::base::text::few;
use crate::base::{ErrorContext, HostPath, SiteName};
use crate::engine::{Engine, Lock, edit_file, without_grafts};
use crate::observe::{self, BootId, Table};
use crate::patience::Stop;
use crate::plan::{self, Step};
use crate::render::fstab::{FstabBlock, outside_targets};
use crate::resolve::Desired;
use crate::site::bring_up::lock;
use crate::site::context::{Context, Purpose};
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::{Site, SiteError, parallel};
use crate::sys::IfInUse;
use crate::{Error, Result};

/// The remedy where there is no fstab.
const IF_ABSENT: &str = "make an empty file, or name another one with --file";

pub(crate) struct FstabEditor {
    context: Context,
    engine: Engine,
    boot: BootId,
    /// As it was at the start.
    table: Table,
    file: PathBuf,
    edits: Lock,
}

impl FstabEditor {
    pub(crate) fn new(context: &Context, file: &Path) -> Result<Self> {
        let boot = observe::boot_id()?;
        let file = std::path::absolute(file)
            .context(format_args!("cannot use the file {}", file.display()))?;
        Ok(Self {
            context: context.clone(),
            engine: context.engine(boot.clone(), 1, Purpose::Placeholders)?,
            boot,
            table: Table::read()?,
            file,
            edits: context.lock_edits()?,
        })
    }

    /// The block as it is. Errors: the file cannot be edited.
    pub(crate) fn block(&self) -> Result<FstabBlock> {
        let file = self.file.display();
        let mut found = Err(Error::failed(format!("cannot read {file}")));
        edit_file(&self.file, &self.edits, IF_ABSENT, |text| {
            found = block(&self.file, text);
            Ok(text.to_vec())
        })?;
        found
    }

    /// Changes the block; returns whether the file changed. Errors: a line outside of the block
    /// mounts on a target of the `new` lines.
    pub(crate) fn edit(
        &self,
        change: impl FnOnce(&mut FstabBlock),
        new: &[(&Site, SiteLines)],
    ) -> Result<bool> {
        edit_file(&self.file, &self.edits, IF_ABSENT, |text| {
            let mut block = block(&self.file, text)?;
            let mut twice = vec![];
            for (number, target) in outside_targets(text) {
                for (site, lines) in new {
                    let mut targets = lines.lines.iter().map(|line| line.target.as_path());
                    if targets.any(|known| known == target) {
                        twice.push((&site.name, number, target.clone()));
                    }
                }
            }
            if !twice.is_empty() {
                return Err(self.mounts_twice(&twice));
            }
            change(&mut block);
            Ok(block.to_text())
        })
    }

    /// `twice`: lines of others that mount on a site's targets.
    fn mounts_twice(&self, twice: &[(&SiteName, usize, PathBuf)]) -> Error {
        let file = self.file.display();
        if let [(site, line, target)] = twice {
            let target = target.display();
            return Error::failed(format!(
                "{site}: line {line} of {file} mounts on {target} as well"
            ))
            .hint("delete that line: mountjail's takes its place; nothing was changed");
        }

        let sites: BTreeSet<_> = twice.iter().map(|(site, ..)| site.as_str()).collect();
        let lines: BTreeSet<_> = twice.iter().map(|(_, line, _)| line).collect();
        let (sites, lines) = (few(&sites, sites.len()), few(&lines, lines.len()));
        Error::failed(format!(
            "{sites}: lines {lines} of {file} mount on the same paths as mountjail's"
        ))
        .hint("delete those lines: mountjail's take their places; nothing was changed")
    }

    /// Makes what the site's lines mount on, and records that the file needs it.
    pub(crate) fn prepare(
        &self,
        run: &FstabRun,
        lines: &SiteLines,
        stop: &Stop,
    ) -> Result<(), SiteError> {
        let Desired { site, root, .. } = &lines.desired;

        // Lock: another mountjail finishes its work on the site first.
        let _lock = lock(&self.context, &self.engine, site, stop)?;

        let records = self.context.state.read(site, &self.boot)?;
        let grafts: Vec<_> = records.grafts.iter().map(|graft| &graft.target).collect();
        if grafts.is_empty() {
            self.make_placeholders(&run.pipeline, lines, stop)?;
        } else {
            // The mount points of the lines have to be on the disk, beneath the grafts.
            without_grafts(root, &grafts, || {
                let pipeline = Pipeline {
                    sharing: None,
                    ..Pipeline::new(self.context.clone(), MountLookup::OneByOne)?
                };
                self.make_placeholders(&pipeline, lines, stop)
            })??;
        }
        // Nothing was mounted or unmounted, whatever the manifest has now.
        self.engine.put_back_record(site, records.record.as_ref())?;

        let file = HostPath::new(&self.file).map_err(|why| {
            Error::usage(format!("cannot use the file {}", self.file.display())).because_of(why)
        })?;
        Ok(self.engine.remember_fstab(site, root, Some(file))?)
    }

    fn make_placeholders(
        &self,
        pipeline: &Pipeline,
        lines: &SiteLines,
        stop: &Stop,
    ) -> Result<(), SiteError> {
        let site = &lines.desired.site;

        // Observe and plan.
        let (observed, plan) = pipeline.observe_and_plan(&lines.desired)?;
        if !plan.conflicts.is_empty() {
            return Err(SiteError::Errors(plan.conflicts));
        }
        let mut steps = plan.steps.iter();
        if plan.unfinished || steps.any(|step| matches!(step, Step::Detach { .. })) {
            let drifted = Error::failed(format!(
                "{site}: mounts that the manifest does not have any more are in the way"
            ));
            return Err(drifted
                .hint(format!("run `mountjail up {site}` first"))
                .into());
        }

        // Carry out, without the mounts.
        let plan = lines.placeholders(plan, &observed);
        let log = self.context.out.site(&plan.site).log();
        self.engine
            .up(&plan, &observed, stop, &log)
            .map_err(SiteError::Engine)?;
        Ok(())
    }

    /// Removes what was made for lines that the file does not have any more, unless the site is up.
    /// If the site does not answer, that stays.
    pub(crate) fn release(self: &Arc<Self>, site: &SiteName) {
        let site = Site {
            name: site.clone(),
            file: PathBuf::new(),
        };
        let editor = self.clone();
        let release = move |site: &Site, stop: &Stop| {
            Ok(editor.try_release(&site.name, stop).context(&site.name)?)
        };
        let never = Arc::<AtomicBool>::default();
        if let Err(failed) = parallel::one(&self.context, &site, &never, release) {
            let name = &site.name;
            self.context.out.warn(failed.text(&site));
            self.context.out.site(name).info(format_args!(
                "what its lines mounted on stays; `mountjail down {name}` removes it"
            ));
        }
    }

    fn try_release(&self, site: &SiteName, stop: &Stop) -> Result<()> {
        let _lock = lock(&self.context, &self.engine, site, stop)?;
        let records = self.context.state.read(site, &self.boot)?;
        let Some(kept) = &records.kept else {
            return Ok(());
        };
        let installed = FstabLines::default();
        if installed.file_of(site, kept.fstab.as_ref()).is_some() {
            return Ok(());
        }
        let root = &kept.root;
        self.engine.remember_fstab(site, root, None)?;
        if !root.as_path().exists() {
            return Ok(());
        }

        let now = self.context.state.read(site, &self.boot)?;
        let nothing = Desired::nothing(site, root);
        let observed = observe::observe(&nothing, now, Some(&self.table))?;
        if !observed.mounts.is_empty() || !observed.elsewhere.is_empty() {
            return Ok(()); // the site is up: `down` removes them
        }
        let plan = plan::down(site, root, None, &observed);
        let log = self.context.out.site(site).log();
        match self.engine.down(&plan, &observed, IfInUse::Fail, &log) {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.error),
        }
    }
}

//! `mountjail remove`: take a site down, and remove its manifest.

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::apply::{manifest_json, texts};
use super::complete;
use super::down;
use super::down::HowDown;
use super::report::{DIFFERENT, Report};
use crate::base::SiteName;
use crate::patience::Stop;
use crate::plan::Plan;
use crate::render;
use crate::render::change::{BeforeAfter, SiteChange, mounts_before};
use crate::site::apply::ManifestChange;
use crate::site::context::{Context, stop_flag};
use crate::site::down::DownError;
use crate::site::event::Event;
use crate::site::remove::{Removed, Remover};
use crate::site::{Site, configuration, load, parallel};
use crate::{Error, Result};

/// Take a site down and remove its manifest; nothing is left of it
///
/// First the site is taken down, as by `mountjail down`: if anything uses it, nothing is changed.
/// Then the drop-ins for systemd that are only for this site are removed, the manifest, and the
/// site's lock. It works also if the manifest has mistakes, or is gone while the site is still up.
/// The root stays.
///
/// A site with lines in a file like fstab(5), or whose copies are moved aside, is refused: first
/// `mountjail fstab --uninstall` or `mountjail adopt --undo`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  mountjail remove site1\n  \
                        mountjail remove --dry-run --diff site1")]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct RemoveArgs {
    /// The site's name
    #[arg(value_name = "SITE", add = complete::site())]
    site: String,
    /// Succeed if there is no such site
    #[arg(long)]
    if_exists: bool,
    /// Only show what would be done; exit code 3 if there is anything
    #[arg(long)]
    dry_run: bool,
    /// Show the manifest and the mounts before and after
    #[arg(long)]
    diff: bool,
    /// Leave the drop-ins for systemd, which `mountjail units --all --install` then removes
    #[arg(long)]
    keep_drop_ins: bool,
    #[command(flatten)]
    how: HowDown,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl RemoveArgs {
    pub(super) fn run(&self, context: &'static Context) -> anyhow::Result<u8> {
        let remover = Remover::new(context, self.how.options(), !self.keep_drop_ins);
        let site = remover.site(self.name()?)?;
        let mut report = Report::new(context, self.json);
        if !remover.exists(&site)? {
            if !self.if_exists {
                return Err(load::missing_site(context, &site).into());
            }
            context.out.site(&site.name).info("there is no such site");
            let object = json!({ "site": site.name, "removed": false, "changed": false });
            report.site(0, object);
            return Ok(report.finish());
        }
        if self.dry_run {
            self.show(context, remover, &site, &mut report);
        } else {
            self.remove(context, remover, &site, &mut report)?;
        }
        Ok(report.finish())
    }

    fn name(&self) -> Result<SiteName> {
        let name = &self.site;
        SiteName::new(name).map_err(|why| {
            Error::usage(format!("{name:?} cannot be a site's name"))
                .because_of(why)
                .hint("name a site, not a file")
        })
    }

    /// The output of `--dry-run`.
    fn show(&self, context: &'static Context, remover: Remover, site: &Site, report: &mut Report) {
        let look = move |site: &Site, _: &Stop| Ok(remover.look(site));
        let looked = parallel::one(context, site, &Arc::default(), look);
        let removal = match looked {
            Ok(Ok(removal)) => removal,
            Ok(Err(error)) => return failed(report, context, site, error),
            Err(error) => return report.failed(site, &error, json!({ "removed": false })),
        };
        let changed = removal.is_change();
        let mut object = removal.plan.as_ref().map_or(json!({}), render::json::plan);
        object["site"] = json!(site.name);
        object["removed"] = json!(false);
        object["changed"] = json!(changed);
        object["manifest"] = manifest_json(&removal.manifest);
        object["drop_ins"] = json!(removal.drop_ins);
        if let Some(plan) = &removal.plan {
            report.styled(render::text::plan(plan, None));
        }
        let manifest = removal.manifest.is_change();
        let manifest = manifest.then_some(("manifest", &removal.manifest.file));
        let drop_ins = removal.drop_ins.iter().map(|file| ("drop-in", file));
        for (what, file) in drop_ins.chain(manifest) {
            let file = file.display();
            report.text(format!("{}: the {what} {file} is removed\n", site.name));
        }
        let plan = removal.plan.as_ref();
        self.add_diff(report, &mut object, &removal.manifest, plan);
        report.site(if changed { DIFFERENT } else { 0 }, object);
    }

    fn remove(
        &self,
        context: &'static Context,
        remover: Remover,
        site: &Site,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let stop = stop_flag()?;
        let work = move |site: &Site, stop: &Stop| Ok(remover.remove(site, stop));
        match parallel::one(context, site, &stop, work) {
            Ok(Ok(done)) => self.removed(context, site, &done, report),
            Ok(Err(error)) => failed(report, context, site, error),
            Err(error) => report.failed(site, &error, json!({ "removed": false })),
        }
        Ok(())
    }

    fn removed(&self, context: &Context, site: &Site, removed: &Removed, report: &mut Report) {
        let out = context.out.site(&site.name);
        let mut object = json!({
            "site": site.name, "removed": true, "changed": removed.is_change(),
            "manifest": manifest_json(&removed.manifest), "drop_ins": removed.drop_ins,
        });
        if let Some(down) = &removed.down {
            out.event(Event::Down).info(down::summary(&down.outcome));
            for left in &down.outcome.left {
                out.warn(left);
            }
            object["root"] = json!(down.root);
            object["detached"] = json!(down.outcome.detached);
            object["left"] = json!(down.outcome.left);
        }
        if removed.manifest.is_change() {
            out.info(format_args!("removed {}", removed.manifest.file.display()));
        }
        let still = configuration::site_named(&context.config, site.name.clone());
        if let Some(instance) = still.instance()
            && configuration::has_manifest(&still)
        {
            let file = still.file.display();
            out.info(format_args!(
                "{file} has the instance {instance}, which `up` brings up"
            ));
        }
        self.add_diff(
            report,
            &mut object,
            &removed.manifest,
            removed.plan.as_ref(),
        );
        report.site(0, object);
    }

    fn add_diff(
        &self,
        report: &mut Report,
        object: &mut Value,
        manifest: &ManifestChange,
        plan: Option<&Plan>,
    ) {
        if !self.diff {
            return;
        }
        let change = SiteChange {
            file: manifest.file.display().to_string(),
            manifest: texts(manifest),
            mounts: Some(BeforeAfter {
                before: plan.map(|plan| mounts_before(plan, "")).unwrap_or_default(),
                after: vec![],
            }),
        };
        object["diff"] = change.json();
        report.text(change.text());
    }
}

fn failed(report: &mut Report, context: &Context, site: &Site, error: DownError) {
    down::add_failed(report, context, site, error, json!({ "removed": false }));
}

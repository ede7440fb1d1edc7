//! `mountjail up`: mount what sites need.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::report::Report;
use super::{Which, plan};
use crate::base::HostPath;
use crate::base::sync::processors;
use crate::engine::Outcome;
use crate::observe;
use crate::patience::{self, Stop};
use crate::resolve::Mount;
use crate::site::context::{Context, stop_flag};
use crate::site::out::worst;
use crate::site::pipeline::{BringUp, MountLookup};
use crate::site::up::Done;
use crate::site::{Site, SiteError, parallel, systemctl};

/// Mount what sites need; a second run finds nothing to do
///
/// A site is either up or as it was before: if something fails, all that was begun is undone. With
/// --all a site that fails does not stop the others.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mountjail up site1\n  mountjail up --all --quiet")]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct UpArgs {
    #[command(flatten)]
    which: Which,
    /// Only show what would be done, as `mountjail plan` does
    #[arg(long)]
    dry_run: bool,
    /// Make the root directory if it does not exist
    #[arg(long)]
    create: bool,
    /// Reload or restart the running services of sites whose mounts changed
    #[arg(long, conflicts_with = "dry_run")]
    restart: bool,
    /// Leave alone sites that are down
    #[arg(long = "if-up", conflicts_with = "dry_run")]
    leave_down: bool,
    /// With --all: leave these sites alone
    #[arg(long, value_name = "SITE", value_delimiter = ',', requires = "all")]
    except: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
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
            dry_run: false,
            create: false,
            restart: false,
            leave_down: false,
            except: vec![],
            json: false,
        }
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if self.dry_run {
            return plan::PlanArgs::of(&self.which, self.json).run(context);
        }
        let mut sites = self.which.selection().sites(context)?;
        sites.retain(|site| !self.except.iter().any(|name| name == site.name.as_str()));
        let stop = stop_flag()?;
        let lookup = if sites.len() > 1 {
            MountLookup::WholeTable
        } else {
            MountLookup::OneByOne
        };
        let run = BringUp {
            leave_down: self.leave_down,
            create_root: self.create,
            ..BringUp::new(context.clone(), lookup, sites.len())?
        };
        context
            .roots()
            .come_up(sites.iter().map(|site| site.name.clone()));

        context.out.progress(sites.len());
        let up = move |site: &Site, stop: &Stop| run.site(site, stop);
        let done = parallel::each(context, &sites, processors(), &stop, up);

        let mut report = Report::new(context, self.json);
        report.not_begun(sites.len() - done.len());
        let mut changed = vec![];
        for (site, result) in sites.iter().zip(done) {
            add(&mut report, context, site, &result);
            if let Ok(Some(done)) = result
                && !done.changes.is_empty()
            {
                changed.push((site, done));
            }
        }

        let blind = report_blind_processes(context, &changed);
        if self.restart {
            report.code(restart(context, &changed, &blind));
        }
        Ok(report.finish())
    }
}

/// Reports what became of `site`.
fn add(
    report: &mut Report,
    context: &Context,
    site: &Site,
    result: &Result<Option<Done>, SiteError>,
) {
    let (out, name) = (context.out.site(&site.name), &site.name);
    match result {
        Ok(None) => {
            out.info("down; left alone");
            report.site(0, json!({ "site": name, "up": false }));
        }
        Ok(Some(done)) => {
            context.out.notes(&done.desired);
            for left in &done.changes.outcome.left {
                out.warn(left);
            }
            out.info(done.summary());
            let Outcome {
                attached,
                swapped,
                gaps,
                detached,
                ..
            } = done.changes.outcome;
            let object = json!({
                "site": name,
                "root": done.desired.root,
                "up": true,
                "mounts": done.desired.mounts.len(),
                "attached": attached,
                "swapped": swapped,
                "gaps": gaps,
                "detached": detached,
            });
            report.site(0, object);
        }
        Err(failed) => report.failed(site, failed, json!({ "up": false })),
    }
}

/// Reports processes inside a root whose mount namespace did not receive the mounts; returns their
/// units.
fn report_blind_processes(context: &Context, up: &[(&Site, Done)]) -> BTreeSet<String> {
    let mut units = BTreeSet::new();
    if up.is_empty() {
        return units;
    }
    let mut roots: Vec<(HostPath, Vec<Arc<Mount>>)> = vec![];
    for (_, done) in up {
        roots.push((done.desired.root.clone(), done.desired.mounts.clone()));
    }
    let look = |roots: &Vec<(HostPath, Vec<Arc<Mount>>)>| {
        let roots = roots.iter().map(|(root, mounts)| (root, mounts.as_slice()));
        observe::without_mounts(&roots.collect::<Vec<_>>())
    };
    // What they see may be on a file system that does not answer.
    let mut answers = patience::each_within(vec![roots], context.limit, look);
    for (nth, process) in answers.pop().flatten().unwrap_or_default() {
        let (site, _) = up[nth];
        context.out.site(&site.name).warn(format_args!(
            "{process} is inside the root and does not see the mounts, because its own mount \
             namespace does not receive them; {}",
            process.restart()
        ));
        units.extend(process.unit);
    }
    units
}

/// Reloads the running services of the sites that are `up`. Services that cannot reload, and those
/// that are `blind` to the mounts, are restarted. Returns the exit code.
fn restart(context: &Context, up: &[(&Site, Done)], blind: &BTreeSet<String>) -> u8 {
    let services: BTreeSet<_> = up.iter().flat_map(|(_, done)| &done.services).collect();
    let mut codes = vec![];
    for service in services {
        let verb = if blind.contains(service) {
            "try-restart"
        } else {
            "try-reload-or-restart"
        };
        codes.push(match systemctl::systemctl(&[verb, service]) {
            Ok(()) => {
                context.out.info(format_args!("{verb} {service}"));
                0
            }
            Err(error) => {
                context.out.error(&error.context(format_args!(
                    "the mounts are up, but {service} was not reloaded"
                )));
                1
            }
        });
    }
    worst(codes)
}

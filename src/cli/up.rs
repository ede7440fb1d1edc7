//! `mountjail up`: make it so.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use nix::sys::stat::umask;
use serde_json::json;

use super::report::Report;
use super::{Which, placeholders_umask, plan};
use crate::base::HostPath;
use crate::engine::Outcome;
use crate::observe;
use crate::patience::{self, Stop};
use crate::resolve::Mount;
use crate::site::context::{Context, stop_flag, table};
use crate::site::out::worst;
use crate::site::pipeline::notes;
use crate::site::up::{BringUp, Done};
use crate::site::{Site, SiteError, parallel, systemctl};

/// Mount what sites need; a second time there is nothing to do
///
/// A site is up or as it was before: what was begun is undone when something fails. With --all a
/// site that fails does not stop the others.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mountjail up site1\n  mountjail up --all --quiet")]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct Up {
    #[command(flatten)]
    which: Which,
    /// Only say what would be done, as `mountjail plan` does
    #[arg(long)]
    dry_run: bool,
    /// Make a root directory that does not exist
    #[arg(long)]
    create: bool,
    /// Reload, or else restart, the running services of a site whose mounts changed
    #[arg(long, conflicts_with = "dry_run")]
    restart: bool,
    /// Leave sites alone that are down, as a package manager's hook does
    #[arg(long = "if-up", conflicts_with = "dry_run")]
    leave_down: bool,
    /// With --all: not these sites, which are left to their own units at boot
    #[arg(long, value_name = "SITE", value_delimiter = ',', requires = "all")]
    except: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Up {
    /// `up` of one site.
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

    /// As [`run`](Self::run), from a command that keeps the caller's umask for the program that it
    /// runs.
    pub(super) fn run_with_own_umask(&self, context: &Context) -> anyhow::Result<u8> {
        let callers = umask(placeholders_umask());
        let result = self.run(context);
        umask(callers);
        result
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if self.dry_run {
            return plan::Plan::of(&self.which, self.json).run(context);
        }
        let mut sites = self.which.selection().sites(context)?;
        sites.retain(|site| !self.except.iter().any(|name| name == site.name.as_str()));
        let stop = stop_flag()?;
        let boot = observe::boot_id()?;
        let engine = context.engine(boot.clone(), sites.len() > 1)?;
        let resolver = context.resolver()?;
        context
            .roots()
            .come_up(sites.iter().map(|site| site.name.clone()));
        let table = table(sites.len() > 1)?;
        let run = BringUp {
            context: context.again(),
            engine,
            resolver,
            boot,
            table,
            leave_down: self.leave_down,
        };
        context.out.progress(sites.len());
        let create = self.create;
        let up = move |site: &Site, stop: &Stop| run.site(site, create, stop);
        let done = parallel::each(context, &sites, parallel::processors(), &stop, up);

        let mut report = Report::new(context, self.json);
        report.not_begun(sites.len() - done.len());
        let mut changed = vec![];
        for (site, result) in sites.iter().zip(done) {
            add(&mut report, context, site, &result);
            let done = result.ok().flatten();
            let done = done.filter(|done| done.outcome != Outcome::default());
            changed.extend(done.map(|done| (site, done)));
        }

        let blind = name_blind_processes(context, &changed);
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
    let (out, name) = (context.out, &site.name);
    match result {
        Ok(None) => {
            out.info(format_args!("{name}: down; left alone"));
            report.site(0, json!({ "site": name, "up": false }));
        }
        Ok(Some(done)) => {
            notes(out, &done.desired);
            for left in &done.outcome.left {
                out.warn(format_args!("{name}: {left}"));
            }
            out.info(format_args!("{name}: {}", done.summary()));
            let Outcome {
                attached,
                swapped,
                gaps,
                detached,
                ..
            } = done.outcome;
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

/// Names processes inside a root that live in a mount namespace which did not receive the mounts,
/// and returns their units.
fn name_blind_processes(context: &Context, up: &[(&Site, Done)]) -> BTreeSet<String> {
    let mut units = BTreeSet::new();
    if up.is_empty() {
        return units;
    }
    let root = |(_, done): &(_, Done)| (done.desired.root.clone(), done.desired.mounts.clone());
    let look = |roots: &Vec<(HostPath, Vec<Arc<Mount>>)>| {
        observe::without_mounts(
            &roots
                .iter()
                .map(|(root, mounts)| (root, mounts.as_slice()))
                .collect::<Vec<_>>(),
        )
    };
    // What they see may be on a file system that does not answer.
    let found = patience::each_within(vec![up.iter().map(root).collect()], context.limit, look)
        .pop()
        .flatten();
    for (nth, process) in found.unwrap_or_default() {
        context.out.warn(format_args!(
            "{}: {process} is inside the root and does not see the mounts, because it has a mount namespace of \
             its own that does not receive them; {}",
            up[nth].0.name,
            process.restart()
        ));
        units.extend(process.unit);
    }
    units
}

/// Reloads the running services of the sites `up`; those that cannot do that, and the `blind`, are
/// restarted. Gives the exit code.
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
                    "the mounts are up, but {service} still is as it was"
                )));
                1
            }
        });
    }
    worst(codes)
}

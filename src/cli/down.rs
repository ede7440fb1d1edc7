//! `mountjail down`: unmount what mountjail mounted.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use serde_json::{Value, json};

use super::args::{OnlyScope, Which};
use super::report::Report;
use crate::adopt::DIRECTORY;
use crate::base::SiteName;
use crate::base::text::plural;
use crate::engine::Outcome;
use crate::observe::{self, CloneIds};
use crate::patience::{self, Stop};
use crate::site::context::stop_flag;
use crate::site::down::{DownError, DownOptions, TakeDown, TakenDown};
use crate::site::down_in_services::{THREADS, down_in_services};
use crate::site::event::Event;
use crate::site::out::SiteOut;
use crate::site::{Context, Site, SiteError, parallel, select};
use crate::sys::IfInUse;
use crate::{Error, Result, render};

/// How many users are named.
const SHOWN: usize = 20;

/// Unmount what mountjail mounted and remove what it made, nothing else
///
/// It works from the records, even if the manifest is gone or the root was moved. If processes
/// use the mounts, in any mount namespace, or run inside, it names them and changes nothing. A
/// running PHP-FPM that has a pool in the site's root is such a process, too.
///
/// A site with `scope: services` is taken out of the mount namespaces of all its services, or of
/// none.
///
/// On storage that other hosts may have mounted, such as NFS, what mountjail made in the root
/// stays: removing a placeholder detaches the mount on it on all other hosts.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:\n  mountjail down site1\n  mountjail down --all --lazy")]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct DownArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: HowDown,
    /// Only the mounts on the host, not those of sites with `scope: services`
    #[arg(long, value_name = "SCOPE")]
    scope: Option<OnlyScope>,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Files that were moved aside are put back right after.
    #[arg(skip)]
    undoes: bool,
}

/// How sites are taken down.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct HowDown {
    /// Detach also what is in use; its users keep it until they end
    #[arg(long)]
    lazy: bool,
    /// Remove what was made on shared storage, too; only if the site is down on all hosts
    #[arg(long)]
    remove_placeholders: bool,
}

impl HowDown {
    pub(super) fn options(&self) -> DownOptions {
        DownOptions {
            if_in_use: if self.lazy {
                IfInUse::Detach
            } else {
                IfInUse::Fail
            },
            remove_placeholders: self.remove_placeholders,
            only_recorded: false,
        }
    }
}

impl DownArgs {
    /// `mountjail down`, as a part of `mountjail adopt --undo`.
    pub(super) fn to_undo() -> Self {
        Self {
            undoes: true,
            ..Self::default()
        }
    }

    pub(super) fn run(&self, context: &'static Context) -> anyhow::Result<u8> {
        if self.which.all {
            let (sites, grafts) = Self::all_sites(context)?;
            return self.take_down(context, sites, grafts);
        }
        self.run_for(context, self.which.selection().sites(context)?)
    }

    /// Takes these sites down; returns the exit code.
    pub(super) fn run_for(
        &self,
        context: &'static Context,
        sites: Vec<Site>,
    ) -> anyhow::Result<u8> {
        let boot = observe::boot_id()?;
        let mut grafts = vec![];
        for site in &sites {
            if let Ok(records) = context.state.read_ahead(&site.name, &boot) {
                grafts.extend(observe::clones_of(&records));
            }
        }
        self.take_down(context, sites, grafts)
    }

    /// As [`run_for`](Self::run_for), for sites with these grafts.
    fn take_down(
        &self,
        context: &'static Context,
        sites: Vec<Site>,
        grafts: Vec<CloneIds>,
    ) -> anyhow::Result<u8> {
        let stop = stop_flag()?;
        let options = self.how.options();
        let mut report = Report::new(context, self.json).of_all(self.which.all);
        let (sites, elsewhere) =
            self.down_in_services(context, sites, options, &stop, &mut report)?;
        let mut run = TakeDown::new(context, sites.len(), options)?.of_grafts(grafts);
        if sites.len() > 1 {
            run = run.keeping_templates()?;
        }
        let run = Arc::new(run);

        context.out.progress(sites.len());
        let each = Arc::clone(&run);
        let down = move |site: &Site, stop: &Stop| each.site(site, stop);
        let results = parallel::each(context, &sites, THREADS, &stop, down);
        let removed = run.remove_templates();

        let begun = results.len();
        for (site, mut result) in sites.iter().zip(results) {
            if let Ok(down) = &mut result {
                down.outcome.detached += elsewhere.get(&site.name).unwrap_or(&0);
                down.has_copies_aside &= !self.undoes;
            }
            add(&mut report, context, site, result);
        }
        if let Err(error) = removed {
            report.error(&error);
        }
        report.not_begun(sites.len() - begun);
        Ok(report.finish())
    }

    /// Takes the sites down in the mount namespaces of services; returns those that may be taken
    /// down on the host now, and how many mounts were detached.
    fn down_in_services(
        &self,
        context: &Context,
        sites: Vec<Site>,
        options: DownOptions,
        stop: &Arc<AtomicBool>,
        report: &mut Report,
    ) -> Result<(Vec<Site>, BTreeMap<SiteName, usize>)> {
        let mut detached = BTreeMap::new();
        if self.scope == Some(OnlyScope::Host) {
            return Ok((sites, detached));
        }
        let take = |run: &TakeDown, site: &Site, stop: &Stop| run.site(site, stop);
        let mut found = down_in_services(context, &sites, options, stop, take)?;
        let mut rest = vec![];
        for site in sites {
            let mut error = None;
            for (_, result) in found.remove(&site.name).unwrap_or_default() {
                match result {
                    Ok(Some(TakenDown { outcome, .. })) => {
                        *detached.entry(site.name.clone()).or_default() += outcome.detached;
                    }
                    Ok(None) => {}
                    Err(failed) => error = error.or(Some(failed)),
                }
            }
            match error {
                Some(error) => add(report, context, &site, Err(error)),
                None => rest.push(site),
            }
        }
        Ok((rest, detached))
    }

    /// The sites of this configuration, also those that are only in the records, and the grafts
    /// that they have.
    fn all_sites(context: &Context) -> Result<(Vec<Site>, Vec<CloneIds>)> {
        let recorded = context.state.recorded_sites()?;
        let mut sites = match select::all(context) {
            Err(_) if !recorded.is_empty() => vec![],
            result => result?,
        };
        let known: HashSet<_> = sites.iter().map(|site| &site.name).collect();
        let mut only_recorded = vec![];
        for name in recorded {
            if !known.contains(&name) {
                only_recorded.push(select::site(context, name.as_str())?);
            }
        }
        sites.extend(only_recorded);
        let boot = observe::boot_id()?;
        let own = context.clone();
        let look = move |site: &Site| match own.state.read_ahead(&site.name, &boot) {
            Ok(records) => (
                select::of_another_configuration(site, &records),
                observe::clones_of(&records),
            ),
            Err(_) => (None, vec![]), // taking it down reports the error
        };
        let looks = patience::each_within(sites.clone(), Some(patience::SHORT), look);
        let (mut ours, mut grafts) = (vec![], vec![]);
        for (site, look) in sites.into_iter().zip(looks) {
            match look {
                Some((None, clones)) => {
                    ours.push(site);
                    grafts.extend(clones);
                }
                Some((Some(why), _)) => {
                    let out = context.out.site(&site.name);
                    out.warn(format_args!("left: {why}"));
                }
                None => context.out.error_aside(&unknown_configuration(&site)),
            }
        }
        Ok((ours, grafts))
    }
}

/// The manifest that brought the site up, or the one that it has here, cannot be looked at.
fn unknown_configuration(site: &Site) -> Error {
    let name = &site.name;
    Error::silent(format!(
        "{name}: left: its manifest does not answer, so it is not known whether this \
         configuration brought it up"
    ))
    .hint(format!("`mountjail down {name}` takes it down anyway"))
}

/// Reports what became of `site`.
fn add(report: &mut Report, context: &Context, site: &Site, result: Result<TakenDown, DownError>) {
    let (out, name) = (context.out.site(&site.name), &site.name);
    match result {
        Ok(TakenDown {
            root,
            outcome,
            changed,
            has_copies_aside,
        }) => {
            for left in &outcome.left {
                out.warn(left);
            }
            out.event(Event::Down).info(summary(&outcome));
            if has_copies_aside {
                out.info(format_args!(
                    "the copies that were in the way are in {root}{DIRECTORY}; `mountjail adopt \
                     --undo {name}` puts them back"
                ));
            }
            let Outcome { detached, left, .. } = outcome;
            let object = json!({
                "site": name, "root": root, "down": true, "changed": changed, "detached": detached,
                "left": left,
            });
            report.site(0, object);
        }
        Err(error) => add_failed(report, context, site, error, json!({ "down": false })),
    }
}

/// The changes, in one line.
pub(super) fn summary(outcome: &Outcome) -> String {
    match outcome.detached {
        0 => "down; nothing was mounted".to_owned(),
        count => format!("down, {} detached", plural(count, "mount")),
    }
}

/// Names the users of a site. `rest` follows the number of those that are not named.
pub(super) fn name_users(out: &SiteOut<'_>, users: &[impl Display], rest: &str) {
    for user in users.iter().take(SHOWN) {
        out.info(format_args!("used by {user}"));
    }
    if users.len() > SHOWN {
        let more = plural(users.len() - SHOWN, "more user");
        out.info(format_args!("and {more}{rest}"));
    }
}

/// Reports why `site` is not down. `more`: the other keys of its object.
pub(super) fn add_failed(
    report: &mut Report,
    context: &Context,
    site: &Site,
    error: DownError,
    more: Value,
) {
    let out = context.out.site(&site.name);
    match error {
        DownError::InUse(error, by) => {
            context
                .out
                .about(Event::Failed, &[&site.name])
                .error(&error);
            name_users(&out, &by, "; --json lists all");
            let mut in_use = render::json::error(Some(&site.name), &error);
            in_use["used_by"] = json!(by);
            let mut object = more;
            object["site"] = json!(site.name);
            object["errors"] = json!([in_use]);
            report.site(error.exit_code(), object);
        }
        DownError::Failed(failed) => {
            report.failed(site, &failed, more);
            if matches!(&failed, SiteError::Engine(failure) if failure.busy) {
                out.info(
                    "no process is seen to use the mounts: a new process does, or the kernel \
                     itself (a loop device, a swap file, an NFS export)",
                );
            }
        }
    }
}

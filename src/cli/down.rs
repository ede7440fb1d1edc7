//! `mountjail down`: take it away.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::Which;
use super::report::Report;
use crate::base::HostPath;
use crate::base::text::plural;
use crate::engine::Outcome;
use crate::patience::{self, Stop};
use crate::site::context::stop_flag;
use crate::site::down::{DownError, DownOptions, TakeDown};
use crate::site::{Context, Site, SiteError, parallel, select};
use crate::{Error, Result, observe};

/// An unmount waits for a grace period of the kernel's, outside of any lock: threads wait together.
const THREADS: usize = 32;

/// So many users are named.
const SHOWN: usize = 20;

/// Unmount what mountjail mounted and remove what it made, nothing else
///
/// Works from the records, so also for a site whose manifest is gone, or whose root was moved.
/// While processes use the mounts, in whatever mount namespace, or run inside, it names them and
/// changes nothing. A running PHP-FPM with a pool that has the site's root counts as well.
///
/// On storage that other hosts may have mounted (NFS and its kind) what mountjail made in the root
/// stays: to remove a placeholder there takes the mount on it away in every other kernel.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  mountjail down site1\n  mountjail down --all --lazy")]
pub(super) struct Down {
    #[command(flatten)]
    which: Which,
    /// Detach also what is in use: it vanishes when its last user ends
    #[arg(long)]
    lazy: bool,
    /// Remove also what was made on storage that hosts share: when the site is down on all of them
    #[arg(long)]
    remove_placeholders: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Down {
    pub(super) fn run(&self, context: &'static Context) -> anyhow::Result<u8> {
        let sites = self.sites(context)?;
        let stop = stop_flag()?;
        let options = DownOptions {
            lazy: self.lazy,
            remove_placeholders: self.remove_placeholders,
        };
        let run = Arc::new(TakeDown::new(context, sites.len() > 1, options)?);

        context.out.progress(sites.len());
        let down = move |site: &Site, _: &Stop| run.site(site);
        let results = parallel::each(context, &sites, THREADS, &stop, down);

        let mut report = Report::new(context, self.json);
        let begun = results.len();
        for (site, result) in sites.iter().zip(results) {
            add(&mut report, context, site, result);
        }
        report.not_begun(sites.len() - begun);
        Ok(report.finish())
    }

    /// With --all also those that only the records know, of this configuration.
    fn sites(&self, context: &Context) -> Result<Vec<Site>> {
        if !self.which.all {
            return self.which.selection().sites(context);
        }
        let recorded = context.state.recorded_sites();
        let mut sites = match select::all(context) {
            Err(_) if !recorded.is_empty() => vec![],
            result => result?,
        };
        for name in recorded {
            if sites.iter().all(|site| site.name != name) {
                sites.push(select::one(context, name.as_str())?);
            }
        }
        let boot = observe::boot_id()?;
        let own = context.again();
        let look = move |site: &Site| select::of_another_configuration(&own, site, &boot);
        let others = patience::each_within(sites.clone(), Some(patience::SHORT), look);
        let goes = |(site, other): (Site, Option<Option<String>>)| {
            match &other {
                Some(None) => return Some(site),
                Some(Some(why)) => context.out.warn(format_args!("{}: left: {why}", site.name)),
                None => context.out.error_aside(&unknown_configuration(&site)),
            }
            None
        };
        Ok(sites.into_iter().zip(others).filter_map(goes).collect())
    }
}

/// The manifest that brought the site up, or the one that it has here, cannot be looked at.
fn unknown_configuration(site: &Site) -> Error {
    let name = &site.name;
    Error::silent(format!(
        "{name}: left: its manifest does not answer, so whether this configuration brought it up \
         is not known"
    ))
    .hint(format!(
        "`mountjail down {name}` takes it away all the same"
    ))
}

/// Reports what became of `site`.
fn add(
    report: &mut Report,
    context: &Context,
    site: &Site,
    result: Result<(HostPath, Outcome), DownError>,
) {
    let (out, name) = (context.out, &site.name);
    match result {
        Ok((root, outcome)) => {
            for left in &outcome.left {
                out.warn(format_args!("{name}: {left}"));
            }
            match outcome.detached {
                0 => out.info(format_args!("{name}: down; nothing was mounted")),
                count => out.info(format_args!(
                    "{name}: down, {} detached",
                    plural(count, "mount")
                )),
            }
            let Outcome { detached, left, .. } = outcome;
            let object = json!({
                "site": name, "root": root, "down": true, "detached": detached, "left": left,
            });
            report.site(0, object);
        }
        Err(DownError::InUse(error, by)) => {
            out.error(&error);
            let by: Vec<_> = by.iter().map(|user| format!("used by {user}")).collect();
            for line in by.iter().take(SHOWN) {
                out.info(format_args!("{name}: {line}"));
            }
            if by.len() > SHOWN {
                let more = plural(by.len() - SHOWN, "more user");
                out.info(format_args!("{name}: and {more}; --json lists all"));
            }
            let errors: Vec<_> = [error.to_string()].into_iter().chain(by).collect();
            let object = json!({ "site": name, "down": false, "errors": errors });
            report.site(error.exit_code(), object);
        }
        Err(DownError::Failed(failed)) => {
            report.failed(site, &failed, json!({ "down": false }));
            if matches!(&failed, SiteError::Engine(failure) if failure.busy) {
                out.info(format_args!(
                    "{name}: no process shows it: one that began just now uses them, or the \
                     kernel (a loop device, a swap file, an export)"
                ));
            }
        }
    }
}

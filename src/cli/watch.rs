//! `mountjail watch`: keep sites right while the host changes.

use clap::Args;
use serde_json::json;

use super::complete;
use super::report::Report;
use crate::observe;
use crate::site::context::stop_flag;
use crate::site::{Context, ManifestError, Selection, SiteError, select};
use crate::watch::{self, CheckedOnce};

/// Keep sites right while the host changes
///
/// Watches the sites that are up: a file that the host replaces is swapped in the jails without a
/// gap, what somebody unmounts is mounted again, sources that come or go are followed, a changed
/// manifest is applied. A site that is down stays down, until somebody brings it up. What fails is
/// logged, tried again, and shown by `mountjail status`.
///
/// SIGHUP looks at everything anew; SIGTERM ends, and leaves all sites up. As a systemd service
/// (Type=notify) it says when it is ready and keeps the watchdog fed; lines for the journal begin
/// with their priority, as in sd-daemon(3).
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  systemctl enable --now mountjail-watch\n  mountjail watch site1 site2\n  \
                  mountjail watch --once"
)]
pub(super) struct Watch {
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE", add = complete::site())]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// Look at the sites that are up once, bring them right, and end
    #[arg(long)]
    once: bool,
}

impl Watch {
    pub(super) fn run(&self, context: &'static Context) -> anyhow::Result<u8> {
        // Says so if this is not root, and makes the directories.
        drop(context.engine(observe::boot_id()?, false)?);
        for site in select::named(context, &self.sites)? {
            if let Err(ManifestError::Error(error)) = select::load(context, &site) {
                return Err(error.into()); // most likely a slip of the pen; a mistake in it can be mended later
            }
        }
        let selection = Selection::named_or_all(&self.sites);
        if self.once {
            look_once(context, &selection)
        } else {
            watch::keep_watching(context, selection)
        }
    }
}

fn look_once(context: &'static Context, selection: &Selection) -> anyhow::Result<u8> {
    let sites = selection.sites(context)?;
    let stop = stop_flag()?;
    let found = watch::look_once(context, &sites, &stop)?;
    let mut report = Report::new(context, false);
    report.not_begun(sites.len() - found.len());
    for (site, looked) in sites.iter().zip(found) {
        match looked {
            CheckedOnce::Right(done, unseen) => {
                context
                    .out
                    .info(format_args!("{}: {}", site.name, done.summary()));
                report.failed(site, &SiteError::Errors(unseen), json!({}));
            }
            CheckedOnce::LeftDown => context
                .out
                .info(format_args!("{}: down; left alone", site.name)),
            CheckedOnce::Failed(failed) => report.failed(site, &failed, json!({})),
        }
    }
    Ok(report.finish())
}

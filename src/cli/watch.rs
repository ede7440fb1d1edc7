//! `mountjail watch`: keep sites right while the host changes.

use clap::Args;
use serde_json::json;

use super::complete;
use super::report::Report;
use crate::observe;
use crate::site::context::{Purpose, stop_flag};
use crate::site::{Context, ManifestError, Selection, SiteError, load};
use crate::watch::{self, CheckedOnce};

/// Keep sites in sync while the host changes
///
/// It watches the sites that are up. Files that the host replaces are swapped in the jails without
/// a gap, unmounted mounts are mounted again, sources that appear or disappear are followed, and
/// changed manifests are applied. A site that is down stays down until it is brought up. Failures
/// are logged, retried, and shown by `mountjail status`.
///
/// SIGHUP checks everything again; SIGTERM ends it and leaves all sites up. As a systemd service
/// (Type=notify) it reports when it is ready, and answers the watchdog. Lines for the journal begin
/// with their priority, as in sd-daemon(3).
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  systemctl enable --now mountjail-watch\n  \
                  mountjail watch site1 site2\n  mountjail watch --once")]
pub(super) struct WatchArgs {
    /// Names of sites, or paths of manifests [default: all sites]
    #[arg(value_name = "SITE", add = complete::site())]
    sites: Vec<String>,
    /// All sites, which is the default
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// Bring the sites that are up right once, and end
    #[arg(long)]
    once: bool,
}

impl WatchArgs {
    pub(super) fn run(&self, context: &'static Context) -> anyhow::Result<u8> {
        // This refuses callers that cannot mount, and makes the directories.
        drop(context.engine(observe::boot_id()?, 1, Purpose::Mount)?);
        let selection = Selection::named_or_all(&self.sites);
        if let Selection::Named(_) = selection {
            for site in selection.sites(context)? {
                // A name without a manifest is probably a typing mistake; mistakes in a manifest
                // can be corrected later.
                if let Err(ManifestError::Error(error)) = load::manifest(context, &site) {
                    return Err(error.into());
                }
            }
        }
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
    for (site, checked) in sites.iter().zip(found) {
        let out = context.out.site(&site.name);
        match checked {
            CheckedOnce::Right(done, unseen) => {
                out.info(done.summary());
                if !unseen.is_empty() {
                    report.failed(site, &SiteError::Errors(unseen), json!({}));
                }
            }
            CheckedOnce::LeftDown => out.info("down; left alone"),
            CheckedOnce::Failed(failed) => report.failed(site, &failed, json!({})),
        }
    }
    Ok(report.finish())
}

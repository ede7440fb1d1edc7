//! `mountjail watch`: keep sites right while the host changes.

mod configuration;
mod daemon;
mod left;
mod limit;
mod pass;
mod signals;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::apply::summary;
use super::complete;
use super::context::{Context, stop_flag};
use super::out::worst;
use super::parallel::lost;
use super::sites::{self, Site, Unusable};
use super::work::{Failed, plural};
use crate::engine::Lock;
use crate::observe::{self, WatchState};
use crate::patience::Lost;
use crate::{Error, Result, sys};

use daemon::Daemon;
use pass::{Ended, Found, Policy};
use signals::Signals;

/// How long the watcher before may take to end.
const DYING: Duration = Duration::from_secs(5);

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
    pub(super) fn run(&self, context: &Context<'static>) -> anyhow::Result<u8> {
        // Says so if this is not root, and makes the directories.
        drop(context.engine(observe::boot_id()?, false)?);
        for site in sites::named(context, &self.sites)? {
            if let Err(Unusable::Error(error)) = sites::load(context, &site) {
                return Err(error.into()); // most likely a slip of the pen; a mistake in it can be mended later
            }
        }
        if self.once {
            self.look_once(context)
        } else {
            self.keep_watching(context)
        }
    }

    /// The sites, and why some files are none.
    fn in_scope(&self, context: &Context<'_>) -> Result<(Vec<Site>, Vec<Error>)> {
        if self.sites.is_empty() {
            sites::listed(context)
        } else {
            Ok((sites::named(context, &self.sites)?, vec![]))
        }
    }

    fn look_once(&self, context: &Context<'static>) -> anyhow::Result<u8> {
        let sites = if self.sites.is_empty() {
            sites::every(context)?
        } else {
            sites::named(context, &self.sites)?
        };
        let stop = stop_flag()?;
        let policy = Policy {
            wait: true,
            may_go: Arc::new(|_, _| true),
        };
        let ends = match sites.as_slice() {
            [] => vec![],
            sites => pass::begin(context.afresh(), sites.to_vec(), &stop, policy)?.finish(),
        };
        let begun = ends.len();
        let code = |(site, ended): (&Site, Result<Found, Lost>)| match ended {
            Ok((ended, _)) => report(context, site, ended),
            Err(why) => lost(site, &why).report(context, site).0,
        };
        let mut codes: Vec<u8> = sites.iter().zip(ends).map(code).collect();
        if begun < sites.len() {
            let rest = plural(sites.len() - begun, "site");
            context.out.error(&Error::interrupted(format!(
                "stopped by a signal; {rest} not begun"
            )));
            codes.push(1);
        }
        Ok(worst(codes))
    }

    fn keep_watching(&self, context: &Context<'static>) -> anyhow::Result<u8> {
        sys::share_one_heap();
        let signals = Signals::new()?;
        let _only = only_one(context)?;
        Daemon::new(self, context, signals)?.run()
    }
}

/// Says what became of a site that was looked at once; gives the exit code.
fn report(context: &Context<'_>, site: &Site, ended: Ended) -> u8 {
    let failed = match ended {
        Ended::Right(done, left) => {
            context
                .out
                .info(format_args!("{}: {}", site.name, summary(&done)));
            Failed::Errors(left.unseen)
        }
        Ended::Failed(failed) | Ended::Lost(failed) => failed,
        Ended::WithoutManifest => pass::without_manifest(site),
        Ended::Busy | Ended::Down => {
            context
                .out
                .info(format_args!("{}: down; left alone", site.name));
            return 0;
        }
    };
    failed.report(context, site).0
}

/// Held by the one watcher of a state directory.
fn only_one(context: &Context<'_>) -> Result<Lock> {
    let directory = context.state.watch();
    std::fs::create_dir_all(&directory).map_err(|error| {
        Error::failed(format!("cannot make the directory {}", directory.display())).because(&error)
    })?;
    // One that was killed is gone soon.
    Lock::take_within(&context.state.watch_lock(), DYING, || ()).map_err(|_| {
        let pid = WatchState::read(&context.state).map(|other| format!(" (pid {})", other.pid));
        Error::failed(format!(
            "another `mountjail watch` is running already{}",
            pid.unwrap_or_default()
        ))
        .hint("`systemctl status mountjail-watch`; `mountjail watch --once` can run beside it")
    })
}

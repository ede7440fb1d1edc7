//! `mountjail exec`: a command inside a root, run as a daemon that enters its chroot runs it.

use std::ffi::OsString;

use clap::Args;

use super::jail_command::{self, JailCommand};
use super::{complete, up};
use crate::Error;
use crate::base::ErrorContext;
use crate::patience::worker;
use crate::plan::SiteState;
use crate::site::context::Context;
use crate::site::out::Out;
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::select;

/// Run a command inside a site's root, as its daemon would
///
/// The command replaces mountjail as a process: signals, the terminal and the exit code are its
/// own, but neither it nor what it starts can type into that terminal. It starts in / with a new
/// environment (PATH, HOME, USER, LOGNAME; TERM, COLORTERM, LANG, LC_* and TZ are kept). mountjail
/// itself exits with 127 if the command is not in the jail, and with 126 if it cannot be run.
///
/// A site with `scope: services` is entered in the mount namespace of one of its services; if none
/// runs, it is mounted for the command alone.
///
/// Without --user the command runs as the user of the PHP-FPM pool with this chroot, else as that
/// of a unit under `services`, else as the first of the manifest's `users`, else as nobody; never
/// as root, because root can leave a chroot.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mountjail exec site1 ping -c1 example.org\n  \
                  mountjail exec --user www-data site1 \
                  php -r 'echo gethostbyname(\"example.org\");'\n  \
                  mountjail exec --up site1 busybox sh"
)]
pub(super) struct ExecArgs {
    /// Run as this user of the host, by name or id, with its groups [default: the pool's user]
    #[arg(short, long, value_name = "USER", add = complete::user())]
    user: Option<String>,
    /// Bring the site up first
    #[arg(long)]
    up: bool,
    /// The site's name, or the path of its manifest
    #[arg(value_name = "SITE", add = complete::site())]
    site: String,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

impl ExecArgs {
    pub(super) fn site(&self) -> &str {
        &self.site
    }

    /// In the worker: looks for what [`ExecArgs::enter`] needs, and hands it over to the
    /// supervisor.
    pub(super) fn look(&self, context: &Context) -> anyhow::Result<u8> {
        let site = select::site_set_up(context, &self.site)?;
        jail_command::prepare()?;
        if self.up {
            let code = up::UpArgs::of(&self.site).run(context)?;
            if code != 0 {
                return Ok(code);
            }
        }
        let pipeline = Pipeline::new(context.clone(), MountLookup::WholeTable)?;
        let jail = match jail_command::look(&pipeline, &site) {
            Ok(jail) => jail,
            Err(failed) => return Ok(failed.report(context.out, &site).0),
        };
        if jail.state == SiteState::Down {
            let down = Error::failed(format!("{}: the site is not up", site.name));
            return Err(down
                .hint("bring it up with `mountjail up`, or give --up")
                .into());
        }
        let command =
            JailCommand::new(&jail, self.user.as_deref(), &self.command).context(&site.name)?;
        let command = command.with_remedy(context, &jail.desired, &self.command);
        worker::hand_over(&serde_json::to_vec(&command)?);
        Ok(0)
    }

    /// In the supervisor: becomes the command that was `found`; returns the exit code if that
    /// fails.
    pub(super) fn enter(&self, found: &[u8], out: &Out) -> u8 {
        let enter = || -> anyhow::Result<u8> {
            jail_command::prepare()?;
            let command: JailCommand = serde_json::from_slice(found)?;
            Ok(command.run(&self.command, out)?)
        };
        enter().unwrap_or_else(|error| out.failure(&error))
    }
}

//! `mountjail exec`: a command inside, as a daemon that enters its chroot runs it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use clap::Args;
use nix::sys::stat::umask;
use nix::unistd::{User, geteuid};

use super::context::Context;
use super::sites;
use super::work::planned;
use super::{placeholders_umask, up};
use crate::import::fpm;
use crate::jail::{self, Who};
use crate::manifest::{HostPath, JailPath};
use crate::observe::{self, Table};
use crate::render::{SiteState, site_state, why};
use crate::resolve::Desired;
use crate::{Error, Result};

/// What is kept of the caller's environment.
const KEPT: [&str; 4] = ["TERM", "COLORTERM", "LANG", "TZ"];

/// Where commands without a slash are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Run a command inside a site's root, as its daemon would
///
/// The command takes mountjail's place as a process: signals, the terminal and the exit code are its own. It
/// begins in / with a new environment (PATH, HOME, USER, LOGNAME; TERM, COLORTERM, LANG, LC_* and TZ are kept).
/// Exit codes of mountjail itself: 127 if the command is not in the jail, 126 if it cannot be run.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mountjail exec site1 -- ping -c1 example.org\n  mountjail exec --user www-data site1 \
                  -- php -r 'echo gethostbyname(\"example.org\");'\n  mountjail exec --up site1 -- busybox sh"
)]
pub(super) struct Exec {
    /// Run as this user of the host, by name or id, with its groups [default: the user of the PHP-FPM pool with this chroot, else
    /// root, who can leave a chroot]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Bring the site up first
    #[arg(long)]
    up: bool,
    /// The site's name, or the path of its manifest
    #[arg(value_name = "SITE")]
    site: String,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, last = true)]
    command: Vec<OsString>,
}

impl Exec {
    pub(super) fn run(&self, context: &Context<'_>) -> anyhow::Result<u8> {
        let site = sites::one(context, &self.site)?;
        if !geteuid().is_root() {
            return Err(Error::failed("entering a root needs root").hint("run the command with sudo").into());
        }
        if self.up {
            let callers = umask(placeholders_umask());
            let code = up::Up::of(&self.site).run(context)?;
            umask(callers);
            if code != 0 {
                return Ok(code);
            }
        }
        let (resolver, boot) = (context.resolver()?, observe::boot_id()?);
        let (desired, plan) = match planned(context, &resolver, &site, &boot, &Table::read()?) {
            Ok(found) => found,
            Err(failed) => return Ok(failed.report(context, &site).0),
        };
        match site_state(&plan) {
            SiteState::Up => {}
            SiteState::Drifted => context.out.warn(format_args!(
                "{0}: not all of its mounts are as they should be: see `mountjail status {0}`",
                site.name
            )),
            SiteState::Down if desired.mounts.is_empty() => {}
            SiteState::Down => {
                let down = Error::failed(format!("{}: the site is not up", site.name));
                return Err(down.hint("bring it up with `mountjail up`, or give --up").into());
            }
        }
        let user = self.user(&desired.root)?;
        jail::enter(&desired.root, &Who::from(&user)).map_err(|error| error.context(&site.name))?;
        let reason = self.execute(&user);
        let program = self.program().display().to_string();
        let error =
            Error::failed(format!("{}: cannot run {program} in the jail", site.name)).because(&reason);
        if reason.kind() != io::ErrorKind::NotFound {
            context.out.error(&error);
            return Ok(126);
        }
        context.out.error(&error.hint(self.what_is_missing(&desired)));
        Ok(127)
    }

    fn program(&self) -> &Path {
        Path::new(self.command.first().map_or(OsStr::new(""), OsString::as_os_str))
    }

    /// Puts the command in the place of this process; returns only why not.
    fn execute(&self, user: &User) -> io::Error {
        let kept = std::env::vars_os()
            .filter(|(key, _)| key.to_str().is_some_and(|key| KEPT.contains(&key) || key.starts_with("LC_")));
        let mut command = Command::new(self.program());
        command.args(self.command.iter().skip(1)).env_clear().envs(kept);
        command.env("PATH", PATH).env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
        command.exec()
    }

    fn user(&self, root: &HostPath) -> Result<User> {
        let name = match &self.user {
            Some(name) => name.clone(),
            None => pool_user(root).unwrap_or_else(|| "root".to_owned()),
        };
        jail::user(&name)
    }

    /// Why the program is not found, and what would bring it in. By now `/` is the jail.
    fn what_is_missing(&self, desired: &Desired) -> String {
        let name = self.program();
        if name.components().count() < 2 {
            let places = PATH.split(':').map(|directory| Path::new(directory).join(name));
            return match places.into_iter().find(|place| place.exists()) {
                Some(there) => half_there(&there, desired),
                None => format!("`programs: [/usr/bin/{}]` in the manifest brings it in", name.display()),
            };
        }
        if name.exists() {
            return half_there(name, desired);
        }
        format!("`programs: [{}]` in the manifest brings it in", name.display())
    }
}

/// For a program that exists and all the same was not found: execve(2) says ENOENT also of an interpreter.
fn half_there(program: &Path, desired: &Desired) -> String {
    let program_is_mounted = JailPath::new(program).is_ok_and(|path| why(desired, &path).mount.is_some());
    let missing = format!("{} is there, but its interpreter or loader is not", program.display());
    if program_is_mounted {
        return missing;
    }
    format!(
        "{missing}: `programs: [{}]` in the manifest brings them, if the host has that program",
        program.display()
    )
}

/// The user of the PHP-FPM pool whose chroot is `root`.
fn pool_user(root: &HostPath) -> Option<String> {
    let pools = fpm::of_this_host();
    pools.iter().find(|pool| pool.lives_in(root))?.get("user").map(str::to_owned)
}

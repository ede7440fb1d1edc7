//! A command inside a site's root, as a daemon that enters its chroot runs it: what `exec` and `trace` share.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::geteuid;

use super::context::Context;
use super::sites::{self, Site};
use super::work::{Failed, observe_and_plan, resolved};
use crate::doctor::{self, Tenant};
use crate::import::fpm;
use crate::jail::{self, Who};
use crate::manifest::{JailPath, Manifest, Request};
use crate::observe::{self, Table};
use crate::plan::SiteState;
use crate::render::why;
use crate::resolve::{Desired, FileKind, Resolver};
use crate::{Error, Result, sys};

/// What is kept of the caller's environment.
const KEPT: [&str; 4] = ["TERM", "COLORTERM", "LANG", "TZ"];

/// Where commands without a slash are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A site that something is to be run in.
pub(super) struct Jail {
    pub manifest: Manifest,
    /// What the site needs.
    pub desired: Desired,
    /// How it stands.
    pub state: SiteState,
}

/// A command, and as whom it is run.
pub(super) struct Inside<'c> {
    pub desired: &'c Desired,
    pub who: Who,
    pub command: &'c [OsString],
}

/// The site, and how it stands; says so if that is not as it should be.
pub(super) fn look(context: &Context<'_>, resolver: &Resolver<'_>, site: &Site) -> Result<Jail, Failed> {
    let manifest = sites::load(context, site).map_err(Failed::Manifest)?;
    let desired = resolved(context, resolver, &manifest)?;
    let (_, plan) = observe_and_plan(context, &desired, &observe::boot_id()?, Some(&Table::read()?))?;
    let state = match plan.site_state() {
        SiteState::Down if desired.mounts.is_empty() => SiteState::Up,
        state => state,
    };
    if state == SiteState::Drifted {
        context.out.warn(format_args!(
            "{0}: not all of its mounts are as they should be: see `mountjail status {0}`",
            site.name
        ));
    }
    Ok(Jail { manifest, desired, state })
}

/// Refuses a caller who cannot enter a root, and keeps what that one has open, such as a directory of the host, from what
/// will run inside.
pub(super) fn prepare() -> Result<()> {
    if !geteuid().is_root() {
        return Err(Error::failed("entering a root needs root").hint("run the command with sudo"));
    }
    sys::close_on_exec(3).map_err(|error| {
        Error::failed("cannot keep what the caller has open from what runs inside").because(&error)
    })
}

/// Refuses a directory as one of the three streams, which are passed on: nothing can be read from it, but it is a way out
/// of the root.
fn streams_are_no_directories() -> Result<()> {
    let refuse = |name: &str, stream: BorrowedFd<'_>| {
        if sys::stat_fd(stream).is_ok_and(|stat| stat.kind == FileKind::Directory) {
            return Err(Error::usage(format!(
                "the standard {name} is a directory, by which the root can be left"
            ))
            .hint("give it a file, such as /dev/null"));
        }
        Ok(())
    };
    refuse("input", io::stdin().as_fd())?;
    refuse("output", io::stdout().as_fd())?;
    refuse("error", io::stderr().as_fd())
}

impl Jail {
    /// As whom a command runs here; `asked` is the user's name or id.
    pub(super) fn who(&self, asked: Option<&str>) -> Result<Who> {
        let tenants = match asked {
            Some(_) => vec![],
            None => doctor::tenants(&fpm::configurations(), &self.desired.root)
                .map_err(|error| unreadable(error, "the user with --user"))?,
        };
        who(asked, &tenants, &self.manifest)
    }
}

/// As whom something runs inside: the user that was asked for, else that of the first pool, else the first of the
/// manifest's `users`, else nobody. Never root by itself: what lies in a root is its owner's, and a chroot does not hold
/// root.
pub(super) fn who(asked: Option<&str>, tenants: &[Tenant], manifest: &Manifest) -> Result<Who> {
    let named = |name: &str| jail::user(name).map(|user| Who::from(&user));
    if let Some(name) = asked {
        return named(name);
    }
    let listed = manifest.entries.iter().filter_map(|entry| match &entry.request {
        Request::User(wanted) => Some(&wanted.any_of),
        _ => None,
    });
    let listed = listed.flatten().filter_map(|name| named(name).ok());
    let mut all = tenants.iter().map(|tenant| tenant.who.clone()).chain(listed);
    all.find(|who| !who.is_root()).map_or_else(|| named("nobody"), Ok)
}

/// What to do about a configuration of PHP-FPM that cannot be read, which may be the one that tells the user.
pub(super) fn unreadable(error: Error, instead: &str) -> Error {
    match error.hint_text() {
        Some(_) => error,
        None => error.hint(format!("repair PHP-FPM's configuration, or name {instead}")),
    }
}

impl Inside<'_> {
    /// Becomes the command; returns only if that cannot be, with the exit code, after having said why.
    pub(super) fn run(&self, context: &Context<'_>) -> Result<u8> {
        let site = &self.desired.site;
        let entered = streams_are_no_directories().and_then(|()| jail::enter(&self.desired.root, &self.who));
        entered.map_err(|error| error.context(site))?;
        let reason = self.execute();
        let program = self.program().display();
        let error = Error::failed(format!("{site}: cannot run {program} in the jail")).because(&reason);
        if reason.kind() != io::ErrorKind::NotFound {
            let closed = jail::first_closed(&self.desired.ways()).filter(|_| is_denied(&reason));
            context.out.error(&match closed {
                Some((way, _)) => error.hint(self.let_through(&way)),
                None => error,
            });
            return Ok(126);
        }
        context.out.error(&error.hint(self.what_is_missing()));
        Ok(127)
    }

    fn let_through(&self, way: &JailPath) -> String {
        let at = self.desired.root.inside(way);
        format!("{} may not go through {at}: `chmod o+x {at}` lets everybody through", self.who.name)
    }

    fn program(&self) -> &Path {
        Path::new(self.command.first().map_or(OsStr::new(""), OsString::as_os_str))
    }

    /// Puts the command in the place of this process; returns only why not.
    fn execute(&self) -> io::Error {
        let kept = std::env::vars_os()
            .filter(|(key, _)| key.to_str().is_some_and(|key| KEPT.contains(&key) || key.starts_with("LC_")));
        let Who { name, home, .. } = &self.who;
        let mut command = Command::new(self.program());
        command.args(self.command.iter().skip(1)).env_clear().envs(kept);
        command.env("PATH", PATH).env("HOME", home).env("USER", name).env("LOGNAME", name);
        command.exec()
    }

    /// Why the program is not found, and what would bring it in. By now `/` is the jail.
    fn what_is_missing(&self) -> String {
        let name = self.program();
        if name.components().count() < 2 {
            let places = PATH.split(':').map(|directory| Path::new(directory).join(name));
            return match places.into_iter().find(|place| place.exists()) {
                Some(there) => half_there(&there, self.desired),
                None => format!("`programs: [/usr/bin/{}]` in the manifest brings it in", name.display()),
            };
        }
        if name.exists() {
            return half_there(name, self.desired);
        }
        format!("`programs: [{}]` in the manifest brings it in", name.display())
    }
}

fn is_denied(reason: &io::Error) -> bool {
    reason.kind() == io::ErrorKind::PermissionDenied
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

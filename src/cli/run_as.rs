//! A command inside a site's root, as a daemon that enters its chroot runs it: what `exec` and
//! `trace` share.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::base::{HostPath, JailPath, SiteName};
use crate::doctor::{self, PoolUser};
use crate::import::fpm;
use crate::jail::{self, Who};
use crate::manifest::{Manifest, Request};
use crate::observe::{self, Table};
use crate::plan::SiteState;
use crate::render::why;
use crate::resolve::{Desired, FileKind, Resolver};
use crate::site::context::Context;
use crate::site::out::Out;
use crate::site::pipeline::{observe_and_plan, resolved};
use crate::site::{Site, SiteError, select};
use crate::{Error, Result, sys};

/// What is kept of the caller's environment.
const KEPT: [&str; 4] = ["TERM", "COLORTERM", "LANG", "TZ"];

/// Where commands without a slash are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A site that something is to be run in.
pub(super) struct ResolvedJail {
    pub manifest: Manifest,
    /// What the site needs.
    pub desired: Desired,
    /// How it stands.
    pub state: SiteState,
}

/// Where a command is run, and as whom.
#[derive(Serialize, Deserialize)]
pub(super) struct JailCommand {
    pub site: SiteName,
    pub root: HostPath,
    pub who: Who,
    /// Of the places where the command may be, those that are mounted.
    mounted: Vec<PathBuf>,
    /// The directories on the ways to what is mounted.
    ways: Vec<JailPath>,
}

/// The site, and how it stands; says so if that is not as it should be.
pub(super) fn look(
    context: &Context,
    resolver: &Resolver,
    site: &Site,
) -> Result<ResolvedJail, SiteError> {
    let manifest = select::load(context, site).map_err(SiteError::Manifest)?;
    let desired = resolved(context, resolver, &manifest)?;
    let (_, plan) = observe_and_plan(
        context,
        &desired,
        &observe::boot_id()?,
        Some(&Table::read()?),
    )?;
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
    Ok(ResolvedJail {
        manifest,
        desired,
        state,
    })
}

/// Refuses a caller who cannot enter a root, and keeps what that one has open, such as a directory
/// of the host, from what will run inside.
pub(super) fn prepare() -> Result<()> {
    if !geteuid().is_root() {
        return Err(Error::failed("entering a root needs root").hint("run the command with sudo"));
    }
    sys::close_on_exec(3).map_err(|error| {
        Error::failed("cannot keep what the caller has open from what runs inside").because(&error)
    })
}

/// Refuses a directory as one of the three streams, which are passed on: nothing can be read from
/// it, but it is a way out of the root.
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

impl ResolvedJail {
    /// As whom a command runs here; `asked` is the user's name or id.
    pub(super) fn who(&self, asked: Option<&str>) -> Result<Who> {
        let pool_users = if asked.is_some() {
            vec![]
        } else {
            let found = doctor::pool_users(&fpm::configurations(), &self.desired.root);
            found
                .map_err(|error| unreadable(error, "the user with --user"))?
                .0
        };
        who(asked, &pool_users, &self.manifest)
    }
}

/// As whom something runs inside: the user that was asked for, else that of the first pool, else
/// the first of the manifest's `users`, else nobody. Never root by itself: what lies in a root is
/// its owner's, and a chroot does not hold root.
pub(super) fn who(
    asked: Option<&str>,
    pool_users: &[PoolUser],
    manifest: &Manifest,
) -> Result<Who> {
    let named = |name: &str| jail::user(name).map(|user| Who::from(&user));
    if let Some(name) = asked {
        return named(name);
    }
    let listed = manifest
        .entries
        .iter()
        .filter_map(|entry| match &entry.request {
            Request::User(wanted) => Some(&wanted.any_of),
            _ => None,
        });
    let listed = listed.flatten().filter_map(|name| named(name).ok());
    let mut all = pool_users
        .iter()
        .map(|tenant| tenant.who.clone())
        .chain(listed);
    all.find(|who| !who.is_root())
        .map_or_else(|| named("nobody"), Ok)
}

/// What to do about a configuration of PHP-FPM that cannot be read, which may be the one that tells
/// the user.
pub(super) fn unreadable(error: Error, instead: &str) -> Error {
    match error.hint_text() {
        Some(_) => error,
        None => error.hint(format!("repair PHP-FPM's configuration, or name {instead}")),
    }
}

impl JailCommand {
    /// `command` in `jail` as the user `asked`, or as [`ResolvedJail::who`] finds.
    pub(super) fn new(
        jail: &ResolvedJail,
        asked: Option<&str>,
        command: &[OsString],
    ) -> Result<Self> {
        let desired = &jail.desired;
        let is_mounted = |place: &PathBuf| {
            JailPath::new(place).is_ok_and(|path| why(desired, &path).mount.is_some())
        };
        let mounted = places(program(command)).filter(is_mounted).collect();
        let (site, root) = (desired.site.clone(), desired.root.clone());
        Ok(Self {
            site,
            root,
            who: jail.who(asked)?,
            mounted,
            ways: desired.ways().into_iter().collect(),
        })
    }

    /// Becomes the command; returns only if that cannot be, with the exit code, after having said
    /// why.
    pub(super) fn run(&self, command: &[OsString], out: &Out) -> Result<u8> {
        let entered =
            streams_are_no_directories().and_then(|()| jail::enter(&self.root, &self.who));
        entered.map_err(|error| error.context(&self.site))?;
        let reason = self.execute(command);
        let program = program(command);
        let cannot = format!(
            "{}: cannot run {} in the jail",
            self.site,
            program.display()
        );
        let error = Error::failed(cannot).because(&reason);
        if reason.kind() != io::ErrorKind::NotFound {
            let closed = jail::first_closed(&self.ways).filter(|_| is_denied(&reason));
            out.error(&match closed {
                Some((way, _)) => error.hint(self.let_through(&way)),
                None => error,
            });
            return Ok(126);
        }
        out.error(&error.hint(self.what_is_missing(program)));
        Ok(127)
    }

    fn let_through(&self, way: &JailPath) -> String {
        let at = self.root.inside(way);
        format!(
            "{} may not go through {at}: `chmod o+x {at}` lets everybody through",
            self.who.name
        )
    }

    /// Puts the command in the place of this process; returns only why not.
    fn execute(&self, command: &[OsString]) -> io::Error {
        let kept = std::env::vars_os().filter(|(key, _)| {
            key.to_str()
                .is_some_and(|key| KEPT.contains(&key) || key.starts_with("LC_"))
        });
        let Who { name, home, .. } = &self.who;
        let mut process = Command::new(program(command));
        process.args(command.iter().skip(1)).env_clear().envs(kept);
        process
            .env("PATH", PATH)
            .env("HOME", home)
            .env("USER", name)
            .env("LOGNAME", name);
        process.exec()
    }

    /// Why the program is not found, and what would bring it in. By now `/` is the jail.
    fn what_is_missing(&self, program: &Path) -> String {
        if let Some(there) = places(program).find(|place| place.exists()) {
            return self.half_there(&there);
        }
        let name = if is_bare(program) {
            Path::new("/usr/bin").join(program)
        } else {
            program.to_owned()
        };
        format!(
            "`programs: [{}]` in the manifest brings it in",
            name.display()
        )
    }

    /// For a program that exists and all the same was not found: execve(2) says ENOENT also of an
    /// interpreter.
    fn half_there(&self, program: &Path) -> String {
        let missing = format!(
            "{} is there, but its interpreter or loader is not",
            program.display()
        );
        if self.mounted.iter().any(|mounted| mounted == program) {
            return missing;
        }
        format!(
            "{missing}: `programs: [{}]` in the manifest brings them, if the host has that program",
            program.display()
        )
    }
}

fn is_denied(reason: &io::Error) -> bool {
    reason.kind() == io::ErrorKind::PermissionDenied
}

fn program(command: &[OsString]) -> &Path {
    Path::new(command.first().map_or(OsStr::new(""), OsString::as_os_str))
}

/// Whether the program is looked for in the path.
fn is_bare(program: &Path) -> bool {
    program.components().count() < 2
}

/// Where the program may be.
fn places(program: &Path) -> impl Iterator<Item = PathBuf> {
    let directories = if is_bare(program) { PATH } else { "/" };
    directories
        .split(':')
        .map(move |directory| Path::new(directory).join(program))
}

//! A command inside a site's root, run as a daemon that enters its chroot runs it: what `exec` and
//! `trace` share.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::run_as::command_user;
use crate::base::{ErrorContext, HostPath, JailPath, SEARCH_PATH, SiteName};
use crate::jail::{self, ClosedDirectory, JailUser};
use crate::manifest::Manifest;
use crate::plan::SiteState;
use crate::resolve::{Desired, FileKind, to_allow_execution, why};
use crate::site::context::Context;
use crate::site::missing_program::{self, is_bare, places};
use crate::site::out::Out;
use crate::site::pipeline::{Pipeline, Planned};
use crate::site::{Site, SiteError};
use crate::{Error, Result, sys};

/// The variables of the caller's environment that are kept.
const KEPT: [&str; 4] = ["TERM", "COLORTERM", "LANG", "TZ"];

/// A site in whose root a command is to run.
pub(super) struct ResolvedJail {
    pub manifest: Manifest,
    pub desired: Desired,
    pub state: SiteState,
}

/// The root that a command runs in, and its user.
#[derive(Serialize, Deserialize)]
pub(super) struct JailCommand {
    pub site: SiteName,
    pub root: HostPath,
    pub who: JailUser,
    /// The mounted ones of the paths at which the command may be.
    mounted: Vec<PathBuf>,
    /// The directories on the ways to what is mounted.
    ways: Vec<JailPath>,
    /// The remedy if the command or its interpreter is not inside, if one is known.
    remedy: Option<String>,
    /// Why the file of the command, which is the root's own, cannot be executed.
    noexec: Option<String>,
}

/// The site and its state; a warning is given if it is drifted.
pub(super) fn look(pipeline: &Pipeline, site: &Site) -> Result<ResolvedJail, SiteError> {
    let Planned {
        manifest,
        desired,
        plan,
        ..
    } = pipeline.plan(site)?;
    let state = plan.site_state();
    if state == SiteState::Drifted {
        let name = &site.name;
        pipeline.context.out.site(name).warn(format_args!(
            "not all of its mounts are as they should be: see `mountjail status {name}`"
        ));
    }
    Ok(ResolvedJail {
        manifest,
        desired,
        state,
    })
}

/// Refuses callers that cannot enter a root, and keeps what they have open, such as a directory of
/// the host, from what will run inside.
pub(super) fn prepare() -> Result<()> {
    if !geteuid().is_root() {
        return Err(Error::failed("entering a root needs root").hint("run the command with sudo"));
    }
    sys::close_on_exec(3).map_err(|error| {
        Error::failed("cannot close the caller's files for what runs inside").because(&error)
    })
}

/// Refuses a directory as one of the three standard streams, which are passed on: nothing can be
/// read from it, but it is a way out of the root.
fn refuse_directories_as_streams() -> Result<()> {
    refuse_directory("input", io::stdin().as_fd())?;
    refuse_directory("output", io::stdout().as_fd())?;
    refuse_directory("error", io::stderr().as_fd())
}

fn refuse_directory(name: &str, stream: BorrowedFd<'_>) -> Result<()> {
    if let Ok(stat) = sys::stat_fd(stream)
        && stat.kind == FileKind::Directory
    {
        return Err(Error::usage(format!(
            "the standard {name} is a directory, through which the root can be left"
        ))
        .hint("give it a file, such as /dev/null"));
    }
    Ok(())
}

impl JailCommand {
    /// For `command` in `jail`, as the user that was `asked` for, or as [`command_user`] finds.
    pub(super) fn new(
        jail: &ResolvedJail,
        asked: Option<&str>,
        command: &[OsString],
    ) -> Result<Self> {
        let desired = &jail.desired;
        let mut mounted = vec![];
        for place in places(program(command)) {
            if is_mounted(desired, &place) {
                mounted.push(place);
            }
        }
        let (site, root) = (desired.site.clone(), desired.root.clone());
        Ok(Self {
            site,
            root,
            who: command_user(asked, &desired.root, &jail.manifest)?,
            mounted,
            ways: desired.ways().into_iter().collect(),
            remedy: None,
            noexec: None,
        })
    }

    /// With what is to be done if the command is not inside, or not what it needs to start.
    pub(super) fn with_remedy(self, context: &Context, desired: &Desired, of: &[OsString]) -> Self {
        let program = program(of);
        let mut places = places(program);
        let there = self.own_file(program);
        let noexec = there.and_then(|file| context.host.without_execution(&file));
        let noexec = noexec.map(|point| to_allow_execution(&point));
        let remedy = if let Some(mounted) = self.mounted.first() {
            missing_program::interpreter(context, desired, mounted)
        } else if let Some(there) = places.find(|place| self.has_in_root(place)) {
            missing_program::link(context, desired, &there)
                .or_else(|| missing_program::interpreter(context, desired, &there))
        } else {
            Some(missing_program::remedy(context, desired, program))
        };
        Self {
            remedy,
            noexec,
            ..self
        }
    }

    /// The file of the program, if it is in the root and not mounted.
    fn own_file(&self, program: &Path) -> Option<HostPath> {
        let mut there = places(program).filter(|place| self.has_in_root(place));
        let first = there.next().filter(|place| !self.mounted.contains(place))?;
        Some(self.root.inside(&JailPath::new(first).ok()?))
    }

    fn has_in_root(&self, place: &Path) -> bool {
        let Ok(path) = JailPath::new(place) else {
            return false;
        };
        let path = self.root.inside(&path);
        path.as_path().symlink_metadata().is_ok()
    }

    /// Becomes the command. Returns only if that fails: the exit code, after the error was
    /// reported.
    pub(super) fn run(&self, command: &[OsString], out: &Out) -> Result<u8> {
        self.enter().context(&self.site)?;
        let reason = self.execute(command);
        let program = program(command);
        let cannot = format!(
            "{}: cannot run {} in the jail",
            self.site,
            program.display()
        );
        let error = Error::failed(cannot).because(&reason);
        if reason.kind() != io::ErrorKind::NotFound {
            out.error(&match jail::first_closed(&self.ways) {
                Some((way, _)) if is_denied(&reason) => error.hint(self.how_to_open(&way)),
                None if is_denied(&reason) => match &self.noexec {
                    Some(why) => error.hint(why),
                    None => error,
                },
                _ => error,
            });
            return Ok(126);
        }
        out.error(&error.hint(self.what_is_missing(program)));
        Ok(127)
    }

    fn enter(&self) -> Result<()> {
        refuse_directories_as_streams()?;
        jail::enter(&self.root, &self.who)
    }

    fn how_to_open(&self, way: &JailPath) -> String {
        let at = if *way == JailPath::slash() {
            self.root.clone()
        } else {
            self.root.inside(way)
        };
        let may_not = format!("{} may not enter {at}", self.who.name);
        match ClosedDirectory::at(way.as_path()) {
            Ok(closed) => {
                let command = jail::command_to_open(&self.who, at.as_path(), &closed);
                format!("{may_not}: `{command}`")
            }
            Err(_) => may_not,
        }
    }

    /// Replaces this process by the command; returns only if that fails.
    fn execute(&self, command: &[OsString]) -> io::Error {
        let JailUser { name, home, .. } = &self.who;
        let mut process = Command::new(program(command));
        process.args(command.iter().skip(1)).env_clear();
        for (key, value) in std::env::vars_os() {
            if is_kept(&key) {
                process.env(key, value);
            }
        }
        process
            .env("PATH", SEARCH_PATH.join(":"))
            .env("HOME", home)
            .env("USER", name)
            .env("LOGNAME", name);
        sys::give_back_signals();
        process.exec()
    }

    /// Why the program is not found, and which line would bring it. By now `/` is the jail.
    fn what_is_missing(&self, program: &Path) -> String {
        if let Some(remedy) = &self.remedy {
            return remedy.clone();
        }
        if let Some(there) = places(program).find(|place| place.exists()) {
            return self.without_interpreter(&there);
        }
        let name = if is_bare(program) {
            Path::new("/usr/bin").join(program)
        } else {
            program.to_owned()
        };
        format!("`programs: [{}]` in the manifest brings it", name.display())
    }

    /// For a program that exists: execve(2) also fails with ENOENT if its interpreter is missing.
    fn without_interpreter(&self, program: &Path) -> String {
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

fn is_mounted(desired: &Desired, place: &Path) -> bool {
    match JailPath::new(place) {
        Ok(path) => why(desired, &path).mount.is_some(),
        Err(_) => false,
    }
}

/// Whether the command gets this variable of the environment.
fn is_kept(key: &OsStr) -> bool {
    match key.to_str() {
        Some(key) => KEPT.contains(&key) || key.starts_with("LC_"),
        None => false,
    }
}

fn is_denied(reason: &io::Error) -> bool {
    reason.kind() == io::ErrorKind::PermissionDenied
}

fn program(command: &[OsString]) -> &Path {
    Path::new(command.first().map_or(OsStr::new(""), OsString::as_os_str))
}

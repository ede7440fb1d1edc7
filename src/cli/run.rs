//! `mountjail run`: a program in a mount namespace of its own, with its sites mounted there.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use nix::unistd::execvp;

use super::args::Global;
use super::complete;
use super::supervised::raise_open_files;
use super::up::bring_all;
use crate::base::text::plural;
use crate::engine::{
    Unprotected, leave_mount_namespace, own_namespace_id, record_namespace, swept,
};
use crate::patience::apart::{self, ApartEnd};
use crate::patience::worker;
use crate::site::bring_up::{BringUp, Brought};
use crate::site::context::{Context, stop_flag};
use crate::site::out::{Out, worst};
use crate::site::pipeline::MountLookup;
use crate::site::services::{ProgramSites, SitesOfProgram};
use crate::site::trust::{Effect, Trust};
use crate::site::{Site, SiteError};
use crate::{Error, observe, sys};

/// Run a service in a mount namespace of its own, with its sites mounted there
///
/// This is for sites with `scope: services`, whose mounts do not exist on the host. The command
/// replaces mountjail as a process: its pid, environment, open files, user, limits and signals are
/// those that mountjail was started with. `mountjail units --install` writes the drop-ins with
/// which systemd starts services this way.
///
/// A site that cannot come up is reported and left out; the command runs all the same. mountjail
/// itself exits with 127 if there is no such command, and with 126 if it cannot be run.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  mountjail run --unit php8.2-fpm.service -- \
                  /usr/sbin/php-fpm8.2 --nodaemonize\n  \
                  mountjail run site1 site2 -- /usr/sbin/vsftpd /etc/vsftpd.conf"
)]
pub(super) struct RunArgs {
    /// The sites that list this unit under `services`
    #[arg(long = "unit", value_name = "NAME", conflicts_with_all = ["sites", "all"])]
    units: Vec<String>,
    /// All sites with `scope: services`
    #[arg(long, conflicts_with = "sites")]
    all: bool,
    /// If a site cannot come up, do not run the command
    #[arg(long)]
    strict: bool,
    /// The command's first argument is its name, as with the prefix `@` in `ExecStart=`
    #[arg(long)]
    argv0: bool,
    /// Names of sites, or paths of manifests (with a `/`, or ending in `.yaml`)
    #[arg(
        value_name = "SITE",
        required_unless_present_any = ["units", "all"],
        add = complete::site()
    )]
    sites: Vec<String>,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, last = true)]
    command: Vec<OsString>,
}

/// The message of the worker: the service's sandbox is open, or as it was.
const UNPROTECTED: &[u8] = b"unprotected";
const PROTECTED: &[u8] = b"protected";

impl RunArgs {
    /// Becomes the command; returns the exit code if that fails.
    pub(super) fn run(self, global: Global, out: &'static Out) -> u8 {
        let command = match self.command() {
            Ok(command) => command,
            Err(error) => return out.failure(&error.into()),
        };
        let run = Arc::new(self);
        let mut end = match run.clone().bring_up_apart(global, out) {
            Ok(end) => end,
            Err(error) => {
                out.error(&error);
                ApartEnd::default()
            }
        };
        end.take_signal();
        if let Err(error) = run.may_start(&end, out) {
            out.error(&error);
            return 1;
        }
        execute(&command, out)
    }

    /// Whether the command may be started after the worker has ended so.
    fn may_start(&self, end: &ApartEnd, out: &Out) -> crate::Result<()> {
        let program = self.program();
        if end.handed_over.as_deref() == Some(UNPROTECTED) {
            return Err(Error::failed(format!(
                "{program} is not started: mountjail ended while the mounts that are read-only \
                 for it were writable"
            )));
        }
        if end.code == Some(0) {
            return Ok(());
        }
        if self.strict {
            let what = format!("{program} is not started: not all of its sites are up");
            return Err(Error::failed(what).hint("start it without --strict"));
        }
        out.warn(format_args!(
            "{program} is started without the sites that are not up"
        ));
        Ok(())
    }

    fn program(&self) -> String {
        let program = self.command.first().map(OsString::as_os_str);
        program.unwrap_or_default().display().to_string()
    }

    /// The program, and the arguments from its name on.
    fn command(&self) -> crate::Result<(CString, Vec<CString>)> {
        let mut words = vec![];
        for word in &self.command {
            let Ok(word) = CString::new(word.as_bytes()) else {
                return Err(Error::usage("an argument cannot have a NUL in it"));
            };
            words.push(word);
        }
        let program = words.first().cloned().unwrap_or_default();
        let arguments = words.get(usize::from(self.argv0)..).unwrap_or_default();
        if arguments.is_empty() {
            return Err(Error::usage(
                "with --argv0 the command is followed by its name",
            ));
        }
        Ok((program, arguments.to_vec()))
    }

    /// Gives this process a mount namespace of its own, in which a worker brings the sites up.
    fn bring_up_apart(
        self: Arc<Self>,
        global: Global,
        out: &'static Out,
    ) -> crate::Result<ApartEnd> {
        leave_mount_namespace()?;
        let limit = global.limit();
        let work = move || {
            raise_open_files();
            let code = match self.work(global, out) {
                Ok(code) => code,
                Err(error) => out.failure(&error),
            };
            out.exit_code(code)
        };
        apart::run(&|error| out.failure(&error.clone().into()), limit, work)
            .map_err(|error| Error::failed("cannot start a process").because(&error))
    }

    /// In the worker.
    fn work(&self, global: Global, out: &'static Out) -> anyhow::Result<u8> {
        let context = global.context(Trust::new(Effect::Acts), out)?;
        let stop = stop_flag()?;
        let found = self.which().find(context)?;
        let mut code = 0;
        for (site, failed) in &found.failed {
            code = worst([code, failed.report(context.out, site).0]);
        }

        for unit in found.unlisted(&self.units()) {
            context.out.warn(format_args!(
                "no site with `scope: services` lists {unit} under `services`"
            ));
        }

        // The sandbox of the service, which is in nobody's use yet.
        worker::hand_over(UNPROTECTED);
        let done = match Unprotected::new(written_to(context, &found), context.limit) {
            Ok(unprotected) => {
                let done = self.mount(context, &found, &stop);
                unprotected.protect()?;
                done
            }
            Err(error) => Err(error.into()),
        };
        worker::hand_over(PROTECTED);
        Ok(worst([code, done?]))
    }

    fn which(&self) -> SitesOfProgram {
        if self.all {
            SitesOfProgram::All
        } else if self.units.is_empty() {
            SitesOfProgram::Named(self.sites.clone())
        } else {
            SitesOfProgram::OfUnits(self.units())
        }
    }

    /// The whole names of the units.
    fn units(&self) -> Vec<String> {
        self.units.iter().map(|unit| unit_name(unit)).collect()
    }

    /// Records the namespace, and mounts the sites.
    fn mount(
        &self,
        context: &'static Context,
        found: &ProgramSites,
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<u8> {
        let boot = observe::boot_id()?;
        swept(&context.state, &boot);
        let pid = u32::try_from(worker::main_pid().as_raw())?;
        let state = record_namespace(&context.state, boot, pid, &self.units())?;
        let context: &'static Context = Box::leak(Box::new(context.with_state(state)));

        let sites: Vec<_> = found.known.iter().map(|(site, _)| site.clone()).collect();
        let run = BringUp::new(context.clone(), MountLookup::OneByOne, sites.len())?;
        let done = bring_all(context, run, &sites, stop);
        let not_begun = sites.len() - done.len();
        let code = report(context, &sites, &done);
        if !self.command.is_empty() {
            report_mounts(context, &done);
        }
        Ok(if not_begun > 0 { 1 } else { code })
    }
}

/// Gives this process, which has one thread, a mount namespace of its own with `site` in it;
/// returns the namespace's id.
///
/// Errors: the exit code, after the error was reported.
pub(super) fn for_this_process(
    global: &Global,
    site: &str,
    out: &'static Out,
) -> Result<String, u8> {
    let run = Arc::new(RunArgs {
        units: vec![],
        all: false,
        strict: true,
        argv0: false,
        sites: vec![site.to_owned()],
        command: vec![],
    });
    let end = run.bring_up_apart(global.clone(), out);
    let mut end = end.map_err(|error| out.failure(&error.into()))?;
    end.take_signal();
    if end.code != Some(0) {
        return Err(end.code.unwrap_or(1));
    }
    own_namespace_id().map_err(|error| out.failure(&error.into()))
}

/// The directories in which files are made.
fn written_to(context: &Context, found: &ProgramSites) -> Vec<PathBuf> {
    let mut directories = vec![context.state.shared.clone(), context.state.lib.clone()];
    for (_, manifest) in &found.known {
        directories.push(manifest.root.as_path().to_owned());
    }
    directories
}

/// Reports what became of each site; returns the exit code.
fn report(context: &Context, sites: &[Site], done: &[Result<Brought, SiteError>]) -> u8 {
    let mut code = 0;
    for (site, done) in sites.iter().zip(done) {
        match done {
            Ok(Brought::Up(done)) => {
                let out = context.out.site(&site.name);
                for warning in &done.desired.warnings {
                    out.warn(warning);
                }
                for left in &done.changes.outcome.left {
                    out.warn(left);
                }
                out.detail(done.summary());
            }
            Ok(Brought::LeftDown | Brought::ForServices(_)) => {}
            Err(failed) => code = worst([code, failed.report(context.out, site).0]),
        }
    }
    code
}

/// Reports how many sites the service has, and how many mounts.
fn report_mounts(context: &Context, done: &[Result<Brought, SiteError>]) {
    let (mut up, mut mounts) = (0, 0);
    for brought in done.iter().flatten() {
        up += 1;
        if let Brought::Up(done) = brought {
            mounts += done.desired.mounts.len();
        }
    }
    context.out.info(format_args!(
        "{}, {}, in the mount namespace of this service alone",
        plural(up, "site"),
        plural(mounts, "mount")
    ));
}

/// The unit's whole name.
fn unit_name(name: &str) -> String {
    if name.ends_with(".service") {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

/// Becomes the command; returns the exit code if that fails.
fn execute((program, arguments): &(CString, Vec<CString>), out: &Out) -> u8 {
    sys::give_back_inherited();
    let Err(error) = execvp(program, arguments);
    let program = OsStr::from_bytes(program.to_bytes()).display();
    out.error(&Error::failed(format!("cannot run {program}")).because(&error.into()));
    if error == nix::Error::ENOENT {
        127
    } else {
        126
    }
}

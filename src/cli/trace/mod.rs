//! `mountjail trace`: what a program looks up in the jail in vain.

mod begin;
mod report;
mod start;
mod write;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::{Deserialize, Serialize};

use self::report::TraceReport;
use self::start::FollowedStart;
use super::advice::advisor;
use super::args::Global;
use super::complete;
use super::jail_command::{self, JailCommand};
use super::report::failed_alone;
use super::supervised::{run_in_worker, supervise};
use super::up::UpArgs;
use crate::base::text::plural;
use crate::base::{ErrorContext, HostPath, JailPath, SiteName};
use crate::patience::worker::{self, WorkerEnd};
use crate::plan::SiteState;
use crate::resolve::{Desired, root_id};
use crate::site::context::Context;
use crate::site::out::{Out, worst};
use crate::site::pipeline::{MountLookup, Pipeline};
use crate::site::trust::{Effect, Trust};
use crate::site::{Reported, Site, SiteError, select};
use crate::trace::{Follower, PAUSE, SortedMisses, TraceEnd, TraceResult};
use crate::{Error, Result};

/// Show what a program does not find in a jail, and which lines would bring it
///
/// It runs a command inside as `exec` does, attaches to a running process, or has systemd start a
/// unit, and follows every process that starts from there. Look-ups count from the chroot(2) of a
/// process or the `RootDirectory=` of its unit on. It reports the paths that were missing although
/// the host has them, grouped by the line of the manifest that would bring them, the most useful
/// line first. Some paths are shown but not advised, because a program inside can look up any path:
/// files that not everybody on the host may read, or that users other than root can change;
/// sockets, and all else on /run, unless a preset brings them. For a directory that programs only
/// keep their own files in, such as /tmp, one of the site's own is advised.
///
/// --start restarts a unit that runs. Until the unit is followed, its processes wait for their
/// standard input, which a drop-in in /run/systemd/system makes a FIFO. The drop-in is taken away
/// as soon as the unit has started or failed, also if this command is killed; the unit then runs
/// on.
///
/// A command is followed until it and all that it started have ended. Ctrl-C or SIGTERM ends any
/// trace earlier, and the programs run on, unseen.
///
/// Only the report goes to standard output; what the command prints goes to standard error. The
/// exit code is that of the command (127 if it is not in the jail, 126 if it cannot be run, 128
/// plus the signal's number if the trace ended before it), or 0 after a running process was
/// followed, 1 if the unit did not start.
///
/// Every system call stops a followed program twice. A PHP page that computes took 1.3 times as
/// much CPU time, one that reads 1500 files 5 times, and find(1), which does little but system
/// calls, 16 times. Programs of another architecture, such as 32-bit ones, and look-ups through
/// `io_uring` are not followed.
#[derive(Debug, Args)]
#[command(
    override_usage = "mountjail trace [OPTIONS] <SITE> \
                      <-- CMD...|--pid PID|--service UNIT|--start UNIT>",
    after_help = "Examples:\n  \
                  mountjail trace site1 -- php -r 'new DateTimeZone(\"Europe/Zurich\");'\n  \
                  mountjail trace --service php8.2-fpm site1\n  \
                  mountjail trace site1 --start named --write --up\n  \
                  timeout 60 mountjail trace --pid 812 --json site1 | jq '.lines[].line'"
)]
#[command(group = clap::ArgGroup::new("what")
    .required(true)
    .args(["command", "pid", "service", "start"]))]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct TraceArgs {
    /// Follow this running process, which must be inside
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Follow this systemd unit's processes inside, also those that start later
    #[arg(long, value_name = "UNIT")]
    service: Option<String>,
    /// Have systemd start this unit, or restart it, and follow it from its first program on
    #[arg(long, value_name = "UNIT")]
    start: Option<String>,
    /// Run the command as this user of the host, by name or id [default: as `exec`]
    #[arg(short, long, value_name = "USER", requires = "command", add = complete::user())]
    user: Option<String>,
    /// Show also what the host does not have, and what is below /proc and /sys
    #[arg(long)]
    all_misses: bool,
    /// Add the lines to the manifest and change nothing else in it
    #[arg(long)]
    write: bool,
    /// Bring the site up with the new lines
    #[arg(long, requires = "write")]
    up: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// The site's name, or the path of its manifest
    #[arg(value_name = "SITE", add = complete::site())]
    site: String,
    /// The command and its arguments
    #[arg(value_name = "CMD", last = true)]
    command: Vec<OsString>,
}

/// The order to follow something, which the worker hands over to the supervisor.
#[derive(Serialize, Deserialize)]
struct TraceStart {
    site: SiteName,
    root: HostPath,
    /// How the command is run, if there is one.
    command: Option<JailCommand>,
    /// The programs of the unit that is to be started.
    programs: BTreeSet<PathBuf>,
}

/// The result of following.
struct Followed {
    end: TraceEnd,
    result: TraceResult,
    /// Why the unit did not start.
    failure: Option<Error>,
}

impl TraceArgs {
    pub(super) fn site(&self) -> &str {
        &self.site
    }

    /// Whether it starts a service, which then gets a mount namespace of its own.
    pub(super) fn starts_service(&self) -> bool {
        self.start.is_some()
    }

    /// Looks and reports in workers, which can be given up, and follows in this process. Returns
    /// the exit code.
    pub(super) fn run(self, global: &Global, out: &'static Out) -> u8 {
        let trace = Arc::new(self);
        let (looks, settings) = (trace.clone(), global.clone());
        let start = match supervise(out, global.limit(), move || {
            looks.look(settings.context(Trust::new(Effect::Acts), out)?)
        }) {
            WorkerEnd::Exit(code) => return code,
            WorkerEnd::HandOver(start) => start,
        };
        let followed = match trace.follow(&start, out) {
            Ok(followed) => followed,
            Err(error) => return out.failure(&error.into()),
        };
        let (end, failure) = (followed.end, followed.failure.clone());
        let (reports, settings) = (trace.clone(), global.clone());
        let code = run_in_worker(out, global.limit(), move || {
            let context = settings.context(Trust::new(Effect::Acts), out)?;
            reports.report_and_up(context, followed)
        });
        if let Some(failure) = failure {
            out.error(&failure);
            return worst([code, failure.exit_code()]);
        }
        if code != 0 {
            return code;
        }
        match (end.code, end.signal) {
            (Some(code), _) => code,
            (None, Some(signal)) if !trace.command.is_empty() => {
                u8::try_from(128 + signal).unwrap_or(1)
            }
            (None, _) => 0,
        }
    }

    /// In a worker: finds out what to follow, and hands it over to the supervisor.
    fn look(&self, context: &Context) -> anyhow::Result<u8> {
        let site = select::site(context, &self.site)?;
        jail_command::prepare()?;
        if let Some(unit) = &self.start {
            start::check(unit, site.name.as_str())?;
        }
        let pipeline = Pipeline::new(context.clone(), MountLookup::WholeTable)?;
        let jail = match jail_command::look(&pipeline, &site) {
            Ok(jail) => jail,
            Err(failed) => return Ok(failed_alone(context, &site, &failed)),
        };
        let is_down = jail.state == SiteState::Down;
        let down = Error::failed(format!("{}: the site is not up", site.name));
        let down = down.hint("bring it up with `mountjail up`");
        let command = match self.command.as_slice() {
            [] => None,
            _ if is_down => return Err(down.into()),
            command => {
                let known = JailCommand::new(&jail, self.user.as_deref(), command);
                let known = known.context(&site.name)?;
                Some(known.with_remedy(context, &jail.desired, command))
            }
        };
        if is_down {
            context.out.warn(down);
        }
        let programs = self.start.as_deref().map(start::programs);
        let start = TraceStart {
            site: site.name,
            root: jail.desired.root,
            command,
            programs: programs.unwrap_or_default(),
        };
        worker::hand_over(&serde_json::to_vec(&start)?);
        Ok(0)
    }

    fn follow(&self, start: &[u8], out: &Out) -> Result<Followed> {
        let start: TraceStart = serde_json::from_slice(start)
            .map_err(|error| Error::failed("cannot begin to follow").because_of(error))?;
        jail_command::prepare()?;
        let desired = &Desired::nothing(&start.site, &start.root);
        let mut follower = Follower::new(root_id(&desired.root)?, start.programs)?;
        let mut unit = None;
        let end = match &self.start {
            Some(name) => FollowedStart::begin(out, desired, name).and_then(|started| {
                let started = unit.insert(started);
                follower.follow(|follower| started.look(out, desired, follower))
            }),
            None => self
                .begin(out, desired, start.command, &mut follower)
                .and_then(|()| self.follow_running(out, desired, &mut follower)),
        };

        // First: a unit waits for its processes to go on.
        let result = follower.finish();
        let failure = unit.and_then(|started| started.finish(desired));
        let done = end.and_then(|end| Ok((end, result?)));
        let (end, result) = done.context(&desired.site)?;
        Ok(Followed {
            end,
            result,
            failure,
        })
    }

    /// Follows the command or the processes that were found.
    fn follow_running(
        &self,
        out: &Out,
        desired: &Desired,
        follower: &mut Follower,
    ) -> Result<TraceEnd> {
        let (mut seen, mut is_said) = (BTreeSet::new(), false);
        follower.follow(|follower| {
            let Some(unit) = &self.service else {
                if !is_said && let Some(code) = follower.code() {
                    begin::say_what_is_left(out, desired, follower, code);
                    is_said = true;
                }
                return Ok((follower.count() > 0).then_some(PAUSE));
            };
            begin::newcomers(out, desired, follower, unit, &mut seen);
            Ok(Some(PAUSE))
        })
    }

    /// Starts the command, or attaches to running processes.
    fn begin(
        &self,
        out: &Out,
        desired: &Desired,
        command: Option<JailCommand>,
        follower: &mut Follower,
    ) -> Result<()> {
        if let Some(command) = command {
            return begin::command(out, follower, &command, &self.command);
        }
        match (self.pid, &self.service) {
            (Some(pid), _) => begin::process(desired, follower, pid)?,
            (None, Some(unit)) => begin::unit(out, desired, follower, unit)?,
            (None, None) => {}
        }
        let threads = plural(follower.count(), "thread");
        out.site(&desired.site)
            .info(format_args!("following {threads}; Ctrl-C ends it"));
        Ok(())
    }

    /// In a worker: reports, and brings the site up with the new lines if that was asked for.
    /// Returns the exit code.
    fn report_and_up(&self, context: &'static Context, followed: Followed) -> anyhow::Result<u8> {
        let site = select::site(context, &self.site)?;
        let code = match self.report(context, &site, followed) {
            Ok(code) => code,
            Err(failed) => failed_alone(context, &site, &failed),
        };
        if code != 0 || !self.up {
            return Ok(code);
        }
        let context: &'static Context = Box::leak(Box::new(context.reloaded()?));
        UpArgs::of(&self.site).run(context)
    }

    /// Reports what was found, and writes it to the manifest if that was asked for. Returns the
    /// exit code.
    fn report(&self, context: &Context, site: &Site, followed: Followed) -> Result<u8, SiteError> {
        let pipeline = Pipeline::new(context.clone(), MountLookup::OneByOne)?;
        let desired = pipeline.desired(site)?;
        let advisor = advisor(&pipeline, &desired);
        let Followed {
            end,
            result,
            failure,
        } = followed;
        let SortedMisses {
            on_host,
            nowhere,
            forbidden,
        } = advisor.sort(&result.misses);

        let mut report = TraceReport::new(site, &desired, end);
        report.not_understood = result.not_understood;
        report.dropped = result.misses.dropped();
        report.nowhere = nowhere;
        report.errors.extend(failure.map(Reported::Error));
        let own_place = JailPath::normal("/proc/self/exe".into());
        if result.misses.iter().any(|miss| miss.path == own_place) {
            report.without_proc.clone_from(&desired.without_proc);
        }
        report.advice = advisor.usable_advice(on_host, &site.file);
        report.advice.refused.extend(forbidden);

        let mut code = 0;
        if self.write {
            match write::lines(&pipeline, site, &report.advice.lines) {
                Ok(written) => report.written = written,
                Err(failed) => {
                    let (failed, errors) = failed.report(context.out, site);
                    code = failed;
                    report.errors.extend(errors);
                }
            }
        }
        Ok(worst([code, report.print(context, self)]))
    }
}

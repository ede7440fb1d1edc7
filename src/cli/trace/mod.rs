//! `mountjail trace`: what a program looks up in the jail in vain.

mod args;
mod begin;
mod report;
mod start;
mod write;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use self::args::TraceArgs;
use self::report::TraceReport;
use self::start::FollowedStart;
use super::advice::advisor;
use super::args::Global;
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
        let site = select::site_set_up(context, &self.site)?;
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
        let site = select::site_set_up(context, &self.site)?;
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

//! `mountjail trace`: what a program looks for in the jail and does not find.

mod begin;
mod report;
mod write;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;

use self::report::TraceReport;
use clap::Args;
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

use super::run_as::{self, JailCommand};
use super::up::Up;
use super::{Global, behind_front, complete, told};
use crate::base::text::plural;
use crate::base::{HostPath, SiteName};
use crate::manifest::{Origin, Presets};
use crate::patience::worker::{self, WorkerEnd};
use crate::plan::SiteState;
use crate::resolve::{Desired, Mount, Resolver, root_id};
use crate::site::context::Context;
use crate::site::out::{Out, worst};
use crate::site::pipeline::resolved;
use crate::site::trust::Trust;
use crate::site::{Site, SiteError, select};
use crate::trace::{Advice, Brings, End, Followed, Follower, Found, Known, Line, advise, look};
use crate::{Error, Result};

/// Show what a program looks for in a jail and does not find, and which lines would bring it
///
/// Runs a command inside as `exec` does, or follows what runs there already, with all that it
/// starts, and reports the paths that were not there but are on the host, grouped by the line of
/// the manifest that would bring them, the most useful first. What not everybody on the host may
/// read, or somebody other than root can change, is shown and not advised, and so are sockets and
/// what else is on /run, unless a preset brings them: a program inside can look for whatever it
/// likes.
///
/// Standard output is the report's alone; what the command prints there goes to standard error. The
/// exit code is the command's (127 if it is not in the jail, 126 if it cannot be run), 0 when a
/// running process was followed. Ctrl-C or SIGTERM ends the trace, and what was followed runs on
/// (then 128 and the signal's number stand for a command's code).
///
/// Each system call of a followed program stops it twice. Measured in CPU time: a PHP page that
/// computes took 1.3 times as long, one that reads 1500 files 5 times, find(1), which does little
/// else than system calls, 16 times. Programs of another architecture, such as 32-bit ones, and
/// look-ups through an `io_uring` are not followed.
#[derive(Debug, Args)]
#[command(
    override_usage = "mountjail trace [OPTIONS] <SITE> <-- CMD...|--pid PID|--service UNIT>",
    after_help = "Example:\n  mountjail trace site1 -- php -r 'new DateTimeZone(\"Europe/Zurich\");'\n  mountjail trace --service \
                  php8.2-fpm site1\n  timeout 60 mountjail trace --pid 812 --json site1 | jq '.lines[].line'"
)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["command", "pid", "service"]))]
#[allow(clippy::struct_excessive_bools)] // the flags of the command line
pub(super) struct Trace {
    /// Follow this running process, which must be inside
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Follow the processes of this systemd unit that are inside, also those that start later
    #[arg(long, value_name = "UNIT")]
    service: Option<String>,
    /// Run the command as this user of the host, by name or id [default: as `exec`]
    #[arg(short, long, value_name = "USER", requires = "command", add = complete::user())]
    user: Option<String>,
    /// Show also what is missing on the host as well, and what is below /proc and /sys
    #[arg(long)]
    all_misses: bool,
    /// Add the lines to the manifest; nothing else in it changes
    #[arg(long)]
    write: bool,
    /// Bring the site up with the new lines
    #[arg(long, requires = "write")]
    up: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// The site's name, or the path of its manifest
    #[arg(value_name = "SITE", add = complete::site())]
    site: String,
    /// The command and its arguments
    #[arg(value_name = "CMD", last = true)]
    command: Vec<OsString>,
}

/// What is to be followed, found out by a process that can be given up.
#[derive(Serialize, Deserialize)]
struct TraceStart {
    site: SiteName,
    root: HostPath,
    /// Where a command is run.
    inside: Option<JailCommand>,
}

impl Trace {
    /// Looks and reports in processes of their own, which can be given up, and follows in this one.
    /// Gives the exit code.
    pub(super) fn run(self, global: &Global, out: &'static Out) -> u8 {
        let trace = Arc::new(self);
        let (looks, settings) = (trace.clone(), global.clone());
        let start = match told(out, global.limit(), move || {
            looks.look(settings.context(Trust::new(true), out)?)
        }) {
            WorkerEnd::Exit(code) => return code,
            WorkerEnd::HandOver(start) => start,
        };
        let (end, followed) = match trace.follow(&start, out) {
            Ok(followed) => followed,
            Err(error) => return out.failure(&error.into()),
        };
        let (reports, settings) = (trace.clone(), global.clone());
        let code = behind_front(out, global.limit(), move || {
            reports.report_and_up(settings.context(Trust::new(true), out)?, followed, end)
        });
        if code != 0 {
            return code;
        }
        match end {
            End::Ended(code) => code.unwrap_or(0),
            End::Signal(signal) if trace.pid.is_none() && trace.service.is_none() => {
                u8::try_from(128 + signal).unwrap_or(1)
            }
            End::Signal(_) => 0,
        }
    }

    /// Finds out where to begin, and hands it on.
    fn look(&self, context: &Context) -> anyhow::Result<u8> {
        let site = select::one(context, &self.site)?;
        run_as::prepare()?;
        let jail = match run_as::look(context, &context.resolver()?, &site) {
            Ok(found) => found,
            Err(failed) => return Ok(failed.report(context.out, &site).0),
        };
        let is_down = jail.state == SiteState::Down;
        let down = Error::failed(format!("{}: the site is not up", site.name));
        let down = down.hint("bring it up with `mountjail up`");
        let inside = match self.command.as_slice() {
            [] => None,
            _ if is_down => return Err(down.into()),
            command => {
                let inside = JailCommand::new(&jail, self.user.as_deref(), command);
                Some(inside.map_err(|error| error.context(&site.name))?)
            }
        };
        if is_down {
            context.out.warn(down);
        }
        let start = TraceStart {
            site: site.name,
            root: jail.desired.root,
            inside,
        };
        worker::hand_over(&serde_json::to_vec(&start)?);
        Ok(0)
    }

    fn follow(&self, start: &[u8], out: &Out) -> Result<(End, Followed)> {
        let start: TraceStart = serde_json::from_slice(start)
            .map_err(|error| Error::failed("cannot begin to follow").because_of(error))?;
        run_as::prepare()?;
        let desired = &Desired::nothing(start.site, start.root);
        let mut follower = Follower::new(root_id(&desired.root)?)?;
        let end = self
            .begin(out, desired, start.inside, &mut follower)
            .and_then(|()| {
                let mut seen = BTreeSet::new();
                follower.follow(|follower| {
                    if let Some(unit) = &self.service {
                        begin::newcomers(out, desired, follower, unit, &mut seen);
                    }
                    self.service.is_some()
                })
            });
        let result = follower.finish();
        end.and_then(|end| Ok((end, result?)))
            .map_err(|error| error.context(&desired.site))
    }

    /// Starts the command, or begins to follow what runs.
    fn begin(
        &self,
        out: &Out,
        desired: &Desired,
        inside: Option<JailCommand>,
        follower: &mut Follower,
    ) -> Result<()> {
        if let Some(inside) = inside {
            return begin::command(out, follower, &inside, &self.command);
        }
        match (self.pid, &self.service) {
            (Some(pid), _) => begin::process(desired, follower, pid)?,
            (None, Some(unit)) => begin::unit(out, desired, follower, unit)?,
            (None, None) => {}
        }
        let threads = plural(follower.count(), "thread");
        out.info(format_args!(
            "{}: following {threads}; Ctrl-C ends it",
            desired.site
        ));
        Ok(())
    }

    /// The report; brings the site up with the new lines, where that was asked for. Gives the exit
    /// code.
    fn report_and_up(
        &self,
        context: &'static Context,
        followed: Followed,
        end: End,
    ) -> anyhow::Result<u8> {
        let site = select::one(context, &self.site)?;
        let code = match self.report(context, &site, followed, end) {
            Ok(code) => code,
            Err(failed) => failed.report(context.out, &site).0,
        };
        if code != 0 || !self.up {
            return Ok(code);
        }
        let context: &'static Context = Box::leak(Box::new(context.reloaded()?));
        Up::of(&self.site).run_with_own_umask(context)
    }

    /// Says what was found; writes it to the manifest, where that was asked for. Gives the exit
    /// code.
    fn report(
        &self,
        context: &Context,
        site: &Site,
        followed: Followed,
        end: End,
    ) -> std::result::Result<u8, SiteError> {
        let resolver = context.resolver()?;
        let manifest = select::load(context, site).map_err(SiteError::Manifest)?;
        let desired = resolved(context, &resolver, &manifest)?;
        let mut report = TraceReport::of(site, &desired, end);
        report.not_understood = followed.not_understood;
        report.dropped = followed.misses.dropped();
        let mut found = vec![];
        for miss in followed.misses.iter() {
            match look(&context.host, context.roots(), &desired.root, miss) {
                Some(there) => found.push(there),
                None => report.nowhere.push(miss.clone()),
            }
        }
        if !found.is_empty() {
            report.advice = advice(context, &resolver, &desired, found);
            report.take_out(|line| failure(context, site, &resolver, line));
        }
        let mut code = 0;
        if self.write {
            match write::lines(context, site, &resolver, &report.advice.lines) {
                Ok(written) => report.written = written,
                Err(failed) => code = failed.report(context.out, site).0,
            }
        }
        Ok(worst([
            code,
            report.print(context, self.json, self.all_misses, self.write),
        ]))
    }
}

/// The lines for what was `found`, with all presets in view.
pub(super) fn advice(
    context: &Context,
    resolver: &Resolver,
    desired: &Desired,
    found: Vec<Found>,
) -> Advice {
    let presets: Vec<_> = context
        .presets
        .names()
        .filter_map(|name| brings(&context.presets, resolver, desired, name))
        .collect();
    let name = |id: u32| {
        User::from_uid(Uid::from_raw(id))
            .ok()
            .flatten()
            .map(|user| user.name)
    };
    let users = found.iter().flat_map(|found| &found.miss.users);
    let users = users.filter_map(|id| Some((*id, name(*id)?))).collect();
    advise(
        found,
        &Known {
            desired,
            presets: &presets,
            users: &users,
        },
    )
}

/// What the preset would bring; `None`: it has mistakes, or is not for this host.
fn brings(presets: &Presets, resolver: &Resolver, desired: &Desired, name: &str) -> Option<Brings> {
    let preset = resolver
        .resolve_preset(&presets.entries(name)?.ok()?)
        .ok()?;
    let names_it = |mount: &&Arc<Mount>| {
        let own = |origin: &Origin| origin.presets == [name] && origin.key.starts_with("programs");
        mount
            .reasons
            .iter()
            .any(|reason| reason.chain.is_empty() && own(&reason.origin))
    };
    let programs = preset
        .mounts
        .iter()
        .filter(names_it)
        .map(|mount| mount.source.clone())
        .collect();
    let nothing = Desired::nothing(desired.site.clone(), desired.root.clone());
    let desired = Desired {
        mounts: preset.mounts,
        links: preset.links,
        ..nothing
    };
    Some(Brings {
        preset: name.to_owned(),
        desired,
        programs,
    })
}

/// Why the line cannot be had on this host, such as a program of which a library is missing.
fn failure(context: &Context, site: &Site, resolver: &Resolver, line: &Line) -> Option<String> {
    let text = format!("root: /srv\n{}\n", line.addition);
    match select::load_text(context, site, &text) {
        Ok(manifest) => resolver
            .resolve_preset(&manifest.entries)
            .err()?
            .first()
            .map(ToString::to_string),
        Err(unusable) => Some(unusable.brief()),
    }
}

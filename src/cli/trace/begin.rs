//! The beginning of a trace: of a command, a process, or the processes of a unit.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;

use nix::unistd::{Pid, dup2_stdout};

use crate::base::text::plural;
use crate::cli::jail_command::JailCommand;
use crate::observe::{self, Process, Units};
use crate::resolve::{Desired, root_id};
use crate::site::out::Out;
use crate::trace::{Follower, attach};
use crate::{Error, Result};

/// Runs the command inside. Its output goes to the standard error, because the standard output is
/// for the report.
pub(super) fn command(
    out: &Out,
    follower: &mut Follower,
    jail: &JailCommand,
    command: &[OsString],
) -> Result<()> {
    follower.start(|| match run_redirected(out, jail, command) {
        Ok(code) => code,
        Err(error) => {
            out.error(&error);
            error.exit_code()
        }
    })
}

fn run_redirected(out: &Out, jail: &JailCommand, command: &[OsString]) -> Result<u8> {
    dup2_stdout(io::stderr()).map_err(|errno| {
        Error::failed("cannot send the command's output to standard error").because(&errno.into())
    })?;
    jail.run(command, out)
}

/// Says that the command has ended, if what it started has not.
pub(super) fn say_what_is_left(out: &Out, desired: &Desired, follower: &Follower, code: u8) {
    if follower.count() > 0 {
        let threads = plural(follower.count(), "thread");
        out.site(&desired.site).info(format_args!(
            "the command has ended (exit code {code}); following {threads} that it left running; \
             Ctrl-C ends it"
        ));
    }
}

/// The process `pid`, which must be inside.
pub(super) fn process(desired: &Desired, follower: &mut Follower, pid: u32) -> Result<()> {
    let root = root_id(&desired.root)?;
    if let Some(process) = Process::of(pid)
        && observe::root_of(pid).is_some_and(|found| found != root)
    {
        let outside = Error::failed(format!("{process} is not inside {}", desired.root));
        let insiders = observe::inside(root);
        let insiders: Vec<_> = insiders.iter().take(5).map(ToString::to_string).collect();
        return Err(match &process.unit {
            _ if !insiders.is_empty() => outside.hint(format!(
                "follow one that is inside: {}",
                insiders.join(", ")
            )),
            Some(unit) => outside.hint(format!(
                "`--service {unit}` follows those that enter it later"
            )),
            None => outside.because_of("no process is inside now"),
        });
    }
    attach(follower, pid)
}

/// The processes of `unit`, also those outside: they start those that enter the root.
pub(super) fn unit(
    out: &Out,
    desired: &Desired,
    follower: &mut Follower,
    unit: &str,
) -> Result<()> {
    let name = full_name(unit);
    let processes = observe::of_unit(&name);
    if processes.is_empty() {
        refuse_unknown(&name)?;
        let none = Error::failed(format!("no process of {name} is running"));
        return Err(none.hint(format!(
            "follow it from its start: `mountjail trace {} --start {name}`",
            desired.site
        )));
    }
    let root = root_id(&desired.root)?;
    for process in &processes {
        follow(follower, process)?;
    }
    if processes
        .iter()
        .all(|process| observe::root_of(process.pid) != Some(root))
    {
        out.site(&desired.site).info(format_args!(
            "no process of {name} is inside yet; waiting for one to enter"
        ));
    }
    Ok(())
}

/// Refuses a unit that the host does not have.
pub(super) fn refuse_unknown(name: &str) -> Result<()> {
    let units = Units::read();
    if units.has(name) {
        return Ok(());
    }
    let unknown = Error::usage(format!("there is no unit {name}"));
    Err(match units.nearest(name) {
        Some(near) => unknown.hint(format!("did you mean {near}?")),
        None => unknown.hint("`systemctl` lists them"),
    })
}

/// The processes of `unit` that the followed ones did not start, as after a restart. `seen` are
/// those that were tried: a process that cannot be followed does not end the trace.
pub(super) fn newcomers(
    out: &Out,
    desired: &Desired,
    follower: &mut Follower,
    unit: &str,
    seen: &mut BTreeSet<u32>,
) {
    for process in observe::of_unit(&full_name(unit)) {
        if is_followed(follower, &process) || !seen.insert(process.pid) {
            continue;
        }
        match follow(follower, &process) {
            Ok(()) => out
                .site(&desired.site)
                .info(format_args!("following {process}, too")),
            Err(error) => out.site(&desired.site).warn(error),
        }
    }
}

/// Follows a process that the administrator did not name: it may end at any moment.
pub(super) fn follow(follower: &mut Follower, process: &Process) -> Result<()> {
    match attach(follower, process.pid) {
        Err(_) if process.pid == std::process::id() => Ok(()), // run from the unit itself
        Err(_) if Process::of(process.pid).is_none() => Ok(()),
        result => result,
    }
}

pub(super) fn is_followed(follower: &Follower, process: &Process) -> bool {
    match i32::try_from(process.pid) {
        Ok(pid) => follower.follows(Pid::from_raw(pid)),
        Err(_) => false,
    }
}

/// As systemctl(1) takes a name: `php8.2-fpm` is a service.
pub(super) fn full_name(unit: &str) -> String {
    let suffixes = [".service", ".scope"];
    if suffixes.iter().any(|suffix| unit.ends_with(suffix)) {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    }
}

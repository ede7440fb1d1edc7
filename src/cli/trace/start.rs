//! A unit that is followed from its start.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::begin::{follow, full_name, is_followed, newcomers, refuse_unknown};
use crate::base::text::plural;
use crate::engine::open_gate;
use crate::import::unit_file;
use crate::observe;
use crate::resolve::Desired;
use crate::site::gated_start::{GatedStart, Passed, StartEnd};
use crate::site::out::Out;
use crate::site::systemctl::{self, properties};
use crate::trace::{Follower, PAUSE};
use crate::{Error, Result};

/// How often to look for processes at the gate.
const SOON: Duration = Duration::from_millis(20);

/// A unit that starts, or has started, while it is followed.
pub(super) struct FollowedStart {
    unit: String,
    /// `None`: the start is over.
    start: Option<GatedStart>,
    end: Option<StartEnd>,
    /// The processes that were there before, and those that were tried.
    seen: BTreeSet<u32>,
}

/// Refuses what cannot be followed from its start.
pub(super) fn check(unit: &str, site: &str) -> Result<()> {
    if !systemctl::is_running() {
        let cannot = Error::failed(format!(
            "{site}: cannot start {unit}: systemd does not run here"
        ));
        return Err(cannot.hint(format!(
            "run the daemon inside: `mountjail trace {site} -- CMD`"
        )));
    }
    refuse_unknown(&full_name(unit))
}

/// The programs of the unit.
pub(super) fn programs(unit: &str) -> BTreeSet<PathBuf> {
    let unit = unit_file::named(&full_name(unit)).unwrap_or_default();
    let mut programs = BTreeSet::new();
    for command in unit.commands() {
        programs.extend(command.first().map(PathBuf::from));
    }
    programs
}

impl FollowedStart {
    /// Has systemd start the unit anew; its processes wait until they are followed.
    pub(super) fn begin(out: &Out, desired: &Desired, unit: &str) -> Result<Self> {
        let unit = full_name(unit);
        let mut seen = BTreeSet::new();
        for process in observe::of_unit(&unit) {
            seen.insert(process.pid);
        }
        out.site(&desired.site).info(format_args!(
            "starting {unit}; Ctrl-C ends the trace, and {unit} runs on"
        ));
        Ok(Self {
            start: Some(GatedStart::begin(&unit, out)?),
            unit,
            end: None,
            seen,
        })
    }

    /// Follows new processes of the unit, and lets them start. Returns when to look again; `None`:
    /// the unit has ended, or did not start.
    pub(super) fn look(
        &mut self,
        out: &Out,
        desired: &Desired,
        follower: &mut Follower,
    ) -> Result<Option<Duration>> {
        let Some(start) = &mut self.start else {
            newcomers(out, desired, follower, &self.unit, &mut self.seen);
            return Ok((follower.count() > 0).then_some(PAUSE));
        };
        // Asked first: what started before the end is seen below.
        if self.end.is_none() {
            self.end = start.ended()?;
        }
        let gate = start.gate.clone();
        if self.follow_new(follower)? {
            let opened = open_gate(&gate).map_err(|error| {
                Error::failed(format!("cannot let {} start", self.unit)).because(&error)
            })?;
            if let Some(opened) = opened {
                follower.hold(opened);
            }
        } else if self.end.is_some() {
            self.started(out, desired, follower);
        }
        Ok(Some(SOON))
    }

    /// Follows the unit's new processes. Returns whether one is still at the gate, or before it.
    fn follow_new(&mut self, follower: &mut Follower) -> Result<bool> {
        let mut waits = false;
        for process in observe::of_unit(&self.unit) {
            if observe::holds_manager(process.pid) {
                waits = true;
                continue;
            }
            if !is_followed(follower, &process) && self.seen.insert(process.pid) {
                follow(follower, &process)?;
            }
            waits |= observe::is_managers(process.pid);
        }
        Ok(waits)
    }

    /// The unit's processes are through the gate: takes it away.
    fn started(&mut self, out: &Out, desired: &Desired, follower: &Follower) {
        if let Some(start) = self.start.take() {
            start.finish(Passed::All);
        }
        if let Some(end) = &self.end
            && end.failure.is_none()
            && follower.count() > 0
        {
            let threads = plural(follower.count(), "thread");
            out.site(&desired.site).info(format_args!(
                "{} has started; following {threads}; Ctrl-C ends it",
                self.unit
            ));
        }
    }

    /// Takes the gate away if it is still there; the unit goes on. Returns why the unit failed.
    pub(super) fn finish(mut self, desired: &Desired) -> Option<Error> {
        if let Some(start) = self.start.take() {
            start.finish(Passed::NotAll);
        }
        let unit = &self.unit;
        let failed = Error::failed(format!("{}: {unit} did not start", desired.site));
        let failed = failed.hint(format!("journalctl -b -n 20 -u {unit}"));
        if let Some(end) = &self.end
            && let Some(failure) = &end.failure
        {
            return Some(failed.because_of(failure));
        }
        let state = properties(
            unit,
            &["ActiveState", "SubState", "Result", "ExecMainStatus"],
        );
        let get = |key| state.get(key).map_or("", String::as_str);
        let has_failed = get("ActiveState") == "failed" || get("SubState") == "auto-restart";
        if !has_failed {
            return None;
        }
        let (result, status) = (get("Result"), get("ExecMainStatus"));
        Some(failed.because_of(format!("{result}, status {status}")))
    }
}

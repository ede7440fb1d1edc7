//! The start of a unit whose processes wait until they are followed.
//!
//! A process of its own, the keeper, makes the gate, has systemd start the unit, and takes the gate
//! away again. It outlives this process: however that ends, the unit starts, and nothing stays.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::setsid;
use serde::{Deserialize, Serialize};

use super::out::Out;
use super::systemctl::{properties, systemctl};
use crate::base::ErrorContext;
use crate::engine::StartGate;
use crate::{Error, Result, observe, sys};

/// Where systemd looks for drop-ins that do not survive a reboot.
pub(crate) const DIRECTORY: &str = "/run/systemd/system";

/// How long processes may take from their fork to their standard input, if nobody follows them.
const LONGEST_BEGIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

const CANNOT_START: &str = "cannot start a process";

/// A unit that is being started.
pub(crate) struct GatedStart {
    keeper: BufReader<UnixStream>,
    /// The drop-in of the gate.
    pub gate: PathBuf,
    text: String,
}

/// What the keeper tells, each once and in this order.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// The gate of this drop-in is closed.
    Closed(PathBuf),
    Ended(StartEnd),
}

/// How systemd's job ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartEnd {
    /// Why the unit did not start, in systemctl's words.
    pub failure: Option<String>,
}

/// Whether all processes of the unit are through its gate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    All,
    /// Some may be on their way to it.
    NotAll,
}

impl GatedStart {
    /// Has systemd start `unit`, or restart it if it runs. This process must have one thread.
    ///
    /// Errors: the unit cannot wait at its start, or cannot be started. Then it is as it was.
    pub(crate) fn begin(unit: &str, out: &Out) -> Result<Self> {
        let (own, keepers) = UnixStream::pair().context(CANNOT_START)?;
        if sys::fork().context(CANNOT_START)?.is_none() {
            drop(own);
            keep(unit, &keepers, out);
            std::process::exit(0);
        }
        drop(keepers);
        let mut start = Self {
            keeper: BufReader::new(own),
            gate: PathBuf::new(),
            text: String::new(),
        };
        match start.next() {
            Ok(Some(Message::Closed(gate))) => start.gate = gate,
            // The keeper has reported why.
            _ => return Err(Error::failed(format!("{unit} was not started"))),
        }
        let unblocked = start.keeper.get_ref().set_nonblocking(true);
        unblocked.context(CANNOT_START)?;
        Ok(start)
    }

    /// How the start ended, if it did and this was not asked before.
    pub(crate) fn ended(&mut self) -> Result<Option<StartEnd>> {
        match self.next()? {
            Some(Message::Ended(end)) => Ok(Some(end)),
            _ => Ok(None),
        }
    }

    /// The keeper's next message; `None`: there is none now.
    ///
    /// Errors: the keeper has ended.
    fn next(&mut self) -> Result<Option<Message>> {
        match self.keeper.read_line(&mut self.text) {
            Ok(_) if self.text.ends_with('\n') => {
                let text = std::mem::take(&mut self.text);
                Ok(serde_json::from_str(&text).ok())
            }
            Ok(0) => Err(Error::failed(
                "cannot wait for the unit's start: the process that starts it has ended",
            )
            .hint("the unit starts all the same; `mountjail doctor` names what is left")),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(Error::failed("cannot wait for the unit's start").because(&error)),
        }
    }

    /// Has the gate taken away.
    pub(crate) fn finish(mut self, passed: Passed) {
        let line = self.keeper.get_mut();
        let _ = line.set_nonblocking(false);
        if passed == Passed::All {
            let _ = line.write_all(b"\n"); // the keeper does the same without it, but waits
        }
        let _ = line.shutdown(Shutdown::Write);
        let _ = self.keeper.read_to_end(&mut vec![]); // until the keeper has ended
        if self.gate.exists() {
            let _ = remove_left_over(); // it was killed; `doctor` names what is left
        }
    }
}

/// The keeper.
fn keep(unit: &str, line: &UnixStream, out: &Out) {
    // The terminal's signals are not for this process; the others are blocked already.
    let _ = setsid();
    let gate = match make_gate(unit) {
        Ok(gate) => gate,
        Err(error) => {
            out.error(&error);
            return;
        }
    };
    tell(line, &Message::Closed(gate.drop_in.clone()));
    if let Ok(answers) = line.try_clone() {
        let unit = unit.to_owned();
        thread::spawn(move || tell(&answers, &Message::Ended(restart(&unit))));
    }
    // Nothing comes from a tracer that has ended.
    let mut tracer = line;
    let passed = match tracer.read(&mut [0]) {
        Ok(1) => Passed::All,
        _ => Passed::NotAll,
    };
    if let Err(error) = open(gate, passed) {
        out.error(&error);
    }
}

fn tell(mut line: &UnixStream, message: &Message) {
    if let Ok(mut text) = serde_json::to_vec(message) {
        text.push(b'\n');
        let _ = line.write_all(&text); // the other side may have ended
    }
}

/// Makes the gate, which is closed, and has systemd read it.
fn make_gate(unit: &str) -> Result<StartGate> {
    remove_left_over()?;
    let input = || properties(unit, &["StandardInput"]).remove("StandardInput");
    let other_way = format!("`--service {unit}` follows it once it runs");
    if let Some(other) = input().filter(|input| input != "null") {
        let why = format!("it has StandardInput={other}, which is where it would wait");
        let cannot = Error::failed(format!("cannot follow {unit} from its start"));
        return Err(cannot.because_of(why).hint(other_way));
    }

    let gate = StartGate::make(Path::new(DIRECTORY), unit)?;
    let read = systemctl(&["daemon-reload"]).and_then(|()| match input().as_deref() {
        Some("file") => Ok(()),
        _ => Err(Error::failed(format!(
            "systemd does not take {} into account",
            gate.drop_in.display()
        ))
        .hint(other_way)),
    });
    match read {
        Ok(()) => Ok(gate),
        Err(error) => {
            open(gate, Passed::All)?;
            Err(error)
        }
    }
}

/// Starts the unit anew, and waits for it.
fn restart(unit: &str) -> StartEnd {
    let _ = systemctl(&["reset-failed", "--", unit]); // it may not have failed
    StartEnd {
        failure: systemctl(&["restart", "--", unit])
            .err()
            .map(|error| error.to_string()),
    }
}

/// Opens the gate for good and removes it.
fn open(gate: StartGate, passed: Passed) -> Result<()> {
    gate.open_for_good()?;
    let read = systemctl(&["daemon-reload"]);
    if passed == Passed::NotAll {
        let begun = Instant::now();
        while begins(&gate.unit) && begun.elapsed() < LONGEST_BEGIN {
            thread::sleep(PAUSE);
        }
    }
    gate.remove()?;
    read
}

/// Whether the unit has processes that systemd has just made, or will have.
fn begins(unit: &str) -> bool {
    let processes = observe::of_unit(unit);
    let job = properties(unit, &["Job"]).remove("Job").unwrap_or_default();
    let is_waiting = processes.is_empty() && !["", "0"].contains(&job.as_str());
    let mut processes = processes.iter();
    is_waiting || processes.any(|process| observe::is_managers(process.pid))
}

/// Removes the gates of traces that were killed; the units start.
pub(crate) fn remove_left_over() -> Result<()> {
    let left = StartGate::left_over(Path::new(DIRECTORY));
    if left.is_empty() {
        return Ok(());
    }
    for gate in &left {
        gate.open_for_good()?;
    }
    systemctl(&["daemon-reload"])?;
    left.into_iter().try_for_each(StartGate::remove)
}

/// The gates of traces that were killed, each with its unit.
pub(crate) fn left_over() -> Vec<(String, PathBuf)> {
    let left = StartGate::left_over(Path::new(DIRECTORY));
    left.into_iter()
        .map(|gate| (gate.unit, gate.drop_in))
        .collect()
}

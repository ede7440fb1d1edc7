//! Commands that may be interrupted, and must end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::journal::Journal;
use super::world::World;

/// Every command ends within this time, even beside others on a slow machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A command that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub line: String,
    /// `None`: a signal that was sent to it ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}, exit code {:?}", self.line, self.code)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            writeln!(f, "  {name}:")?;
            text.lines()
                .take(60)
                .try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        Ok(())
    }
}

/// A running command.
pub struct Running {
    child: Child,
    line: String,
    output: PathBuf,
    /// The name under which it is counted.
    kind: String,
    signalled: bool,
}

impl Running {
    pub fn start(world: &World, arguments: &[&str]) -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let nth = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let output = world.sandbox.directory(format!("output/{nth}"));
        let mut command: Command = world.sandbox.command();
        command
            .args(arguments)
            .current_dir(world.sandbox.path("host/vault"));
        command
            .stdout(file(&output, "out"))
            .stderr(file(&output, "err"))
            .stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let command = arguments
            .iter()
            .find(|argument| !argument.starts_with('-'))
            .unwrap();
        let hostile = world
            .owners
            .iter()
            .any(|owner| arguments.contains(&owner.name));
        let kind = format!("{command}{}", if hostile { " of theirs" } else { "" });
        Self {
            child,
            line: format!("mountjail {}", arguments.join(" ")),
            output,
            kind,
            signalled: false,
        }
    }

    pub fn signal(&mut self, signal: Signal) {
        self.signalled = true;
        // it may have ended
        let _ = kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal);
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn errors(&self) -> String {
        read(&self.output, "err")
    }

    /// Waits for its end, and finds fault with how it ends. `None`: it does not end.
    pub fn ends(mut self, journal: &Journal) -> Option<Ended> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        while self.runs() {
            if start.elapsed() > LIMIT {
                let pid = self.child.id();
                let of = |name: &str| {
                    fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default()
                };
                let where_it_is = [of("stack"), of("wchan"), of("syscall")].join("\n");
                journal.finds(
                    &format!("b: `{}` does not end", self.kind),
                    &format!("{}\n{where_it_is}\n{}", self.line, self.errors()),
                );
                self.signal(Signal::SIGKILL);
                return None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        let code = self.child.wait().unwrap().code();
        let (stdout, stderr) = (read(&self.output, "out"), read(&self.output, "err"));
        let _ = fs::remove_dir_all(&self.output); // its own
        let ended = Ended {
            line: self.line,
            code,
            stdout,
            stderr,
        };
        let last = ended.stderr.lines().next().unwrap_or_default();
        let last: String = last.chars().take(300).collect();
        journal.did(
            "root",
            &self.kind,
            &format!("{}: {code:?} {last}", ended.line),
            code == Some(0),
        );
        ended.is_civil(self.signalled, journal);
        Some(ended)
    }
}

impl Ended {
    /// Exit codes are those that are documented, and a panic or an error of the program's own is
    /// never shown.
    fn is_civil(&self, signalled: bool, journal: &Journal) {
        let changes = ["up", "down"].contains(&command(&self.line));
        let fine = match self.code {
            None => signalled,
            Some(3) => !changes,
            Some(code) => (0..=2).contains(&code),
        };
        if !fine {
            journal.finds("e: an exit code that is not documented", &self.to_string());
        }
        let text = [self.stdout.as_str(), &self.stderr].concat();
        for bad in ["panicked", "RUST_BACKTRACE", "os error"] {
            if text.contains(bad) {
                journal.finds(&format!("e: it says {bad:?}"), &self.to_string());
            }
        }
        if text.contains("Invalid argument") {
            journal.finds(
                "e: the kernel was asked what makes no sense",
                &self.to_string(),
            );
        }
        if matches!(self.code, Some(1 | 2)) && !self.stderr.contains("error") {
            journal.finds("e: it failed without a word", &self.to_string());
        }
        if text.len() > 4 << 20 {
            journal.finds(
                "b: the messages are longer than can be read",
                &self.to_string(),
            );
        }
    }

    /// Whether the host replaced a source of this site while the command ran, as the site's error
    /// says, and again during the second attempt. Then the failure is nobody's fault. `replaced`:
    /// how often the host replaced anything meanwhile.
    pub fn is_overtaken(&self, site: &str, replaced: usize) -> bool {
        let failed = self.stderr.contains(&format!("error: {site}: "));
        let said = [
            "was replaced while it was being mounted",
            "removed or replaced meanwhile",
        ];
        replaced > 1 && failed && said.iter().any(|said| self.stderr.contains(said))
    }

    /// Whether it left this site as it was because somebody uses it: an owner whose link leads
    /// there can open what everybody may read.
    pub fn says_in_use(&self, site: &str) -> bool {
        self.stderr.contains(&format!("error: {site}: in use"))
    }

    pub fn is_ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs a command to its end. `None`: it does not end.
pub fn run(world: &World, journal: &Journal, arguments: &[&str]) -> Option<Ended> {
    Running::start(world, arguments).ends(journal)
}

/// Runs a command that gets a signal after some time.
pub fn run_and_signal(
    world: &World,
    journal: &Journal,
    arguments: &[&str],
    after: Duration,
    signal: Signal,
) -> Option<Ended> {
    let mut running = Running::start(world, arguments);
    std::thread::sleep(after);
    if running.runs() {
        running.signal(signal);
        journal.did(
            "root",
            signal.as_str(),
            &format!("{signal} to {}", running.line),
            true,
        );
    }
    running.ends(journal)
}

/// Which of mountjail's commands it is.
fn command(line: &str) -> &str {
    line.split(' ')
        .skip(1)
        .find(|word| !word.starts_with('-'))
        .unwrap_or_default()
}

fn file(directory: &Path, name: &str) -> Stdio {
    File::create(directory.join(name)).unwrap().into()
}

fn read(directory: &Path, name: &str) -> String {
    String::from_utf8_lossy(&fs::read(directory.join(name)).unwrap_or_default()).into_owned()
}

//! What people see: data on stdout, everything else on stderr.
//!
//! Names of files, texts of links and much else in a message may be a site's owner's to choose: a
//! message is one line, and commands no terminal.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Error;
use crate::base::quote::brief;
use crate::base::sync::lock;
use crate::manifest::Diagnostics;

/// syslog(3)'s priorities.
const ERROR: &str = "3";
const WARNING: &str = "4";
const INFO: &str = "6";
const DEBUG: &str = "7";

/// A message is not longer, whatever paths and texts of links are in it; what is to be typed may
/// be.
const LONGEST: usize = 1000;
const LONGEST_HINT: usize = 8000;

/// The two streams.
#[allow(clippy::struct_excessive_bools)] // each is a way to write by itself
pub(crate) struct Out {
    verbose: bool,
    quiet: bool,
    colour: bool,
    /// The standard error goes to the journal: each line begins with its priority, `<6>` as in
    /// sd-daemon(3).
    journal: bool,
    bar: OnceLock<ProgressBar>,
    /// The mistakes that were shown.
    shown: Mutex<HashSet<String>>,
    /// The exit code of errors that did not end the command.
    aside: AtomicU8,
}

impl Out {
    pub(crate) fn new(verbose: bool, quiet: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            verbose,
            quiet,
            colour: wanted && !dumb && io::stderr().is_terminal(),
            journal: is_journal(),
            bar: OnceLock::new(),
            shown: Mutex::default(),
            aside: AtomicU8::new(0),
        }
    }

    /// Whether more is to be shown than usual.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Whether only what is wrong is to be shown.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Shows a bar for `sites` sites, where a person is looking and it takes long enough to see.
    pub(crate) fn progress(&self, sites: usize) {
        if sites < 2 || self.quiet || self.verbose || !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::with_draw_target(
            Some(sites as u64),
            ProgressDrawTarget::stderr_with_hz(10),
        );
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} sites, {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        let _ = self.bar.set(bar); // there is one a run
    }

    /// One more site is done.
    pub(crate) fn advance(&self) {
        if let Some(bar) = self.bar.get() {
            bar.inc(1);
        }
    }

    /// Takes the bar away.
    pub(crate) fn progress_done(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }

    /// Says `text`, whose lines are its own.
    fn say(&self, priority: &str, text: &str) {
        let text = if self.journal {
            prefixed(priority, text)
        } else {
            format!("{text}\n")
        };
        // Nobody reads any more: there is nobody to tell.
        let write = || drop(io::stderr().lock().write_all(text.as_bytes()));
        match self.bar.get() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// What was done.
    pub(crate) fn info(&self, line: fmt::Arguments<'_>) {
        if !self.quiet {
            self.say(INFO, &one_line(line));
        }
    }

    /// A system step, with `-v`.
    pub(crate) fn detail(&self, line: fmt::Arguments<'_>) {
        if self.verbose {
            self.say(DEBUG, &one_line(line));
        }
    }

    /// Something that the user should know, though nothing failed.
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        if !self.quiet {
            let (on, off) = self.style("33");
            self.say(WARNING, &format!("{on}warning:{off} {}", one_line(text)));
        }
    }

    /// An error, and what to do next.
    pub(crate) fn error(&self, error: &Error) {
        let (on, off) = self.style("1;31");
        let hint = error
            .hint_text()
            .map(|hint| format!("\n  {on}try:{off} {}", brief(hint, LONGEST_HINT)));
        self.say(
            ERROR,
            &format!(
                "{on}error:{off} {}{}",
                one_line(error),
                hint.unwrap_or_default()
            ),
        );
    }

    /// An error that does not end the command, and is no site's: counts in [`Out::exit_code`].
    pub(crate) fn error_aside(&self, error: &Error) {
        self.error(error);
        self.aside.store(
            worst([self.aside.load(Ordering::Relaxed), error.exit_code()]),
            Ordering::Relaxed,
        );
    }

    /// How a command ends that by itself ended with `code`.
    pub(crate) fn exit_code(&self, code: u8) -> u8 {
        match self.aside.load(Ordering::Relaxed) {
            0 => code, // which may be the one of a program that was run inside
            aside => worst([code, aside]),
        }
    }

    /// Mistakes in the manifest or presets of `what`. Those in a preset are shown once, not for
    /// each site.
    pub(crate) fn diagnostics(&self, what: &dyn fmt::Display, diagnostics: &Diagnostics) {
        let text = diagnostics.render(self.colour);
        if lock(&self.shown).insert(text.clone()) {
            self.say(ERROR, text.trim_end());
        } else {
            self.error(&Error::usage(format!(
                "{what}: it includes a preset with the mistakes shown above"
            )));
        }
    }

    /// Mistakes that come again are to be shown again.
    pub(crate) fn forget_mistakes(&self) {
        lock(&self.shown).clear();
    }

    fn style(&self, code: &str) -> (String, &'static str) {
        if self.colour {
            (format!("\x1b[{code}m"), "\x1b[0m")
        } else {
            (String::new(), "")
        }
    }

    /// An error at the edge, with what to do next where that is known; gives the exit code.
    pub(crate) fn failure(&self, failure: &anyhow::Error) -> u8 {
        let edge = || Error::failed(format!("{failure:#}"));
        let error = failure
            .downcast_ref::<Error>()
            .cloned()
            .unwrap_or_else(edge);
        self.error(&error);
        error.exit_code()
    }

    /// Prints data and gives the exit code: `code`, if that went well.
    pub(crate) fn print_and(&self, text: impl AsRef<[u8]>, code: u8) -> u8 {
        match print(text.as_ref()) {
            Ok(()) => code,
            Err(error) => self.failure(&error),
        }
    }
}

/// Whether the standard error is the stream that systemd connected to the journal: `JOURNAL_STREAM`
/// of systemd.exec(5) names its device and inode.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn one_line(text: impl fmt::Display) -> String {
    brief(&text.to_string(), LONGEST).into_owned()
}

/// Every line with its priority.
fn prefixed(priority: &str, text: &str) -> String {
    text.lines()
        .flat_map(|line| ["<", priority, ">", line, "\n"])
        .collect()
}

/// Data. A reader that went away is no error: `| head` has seen enough.
fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::failed("cannot write to the standard output")
                .because(&error)
                .into())
        }
        _ => Ok(()),
    }
}

/// The worst of several ends: a failure before a mistake in a manifest, before differences.
pub(crate) fn worst(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: &u8| [0, 3, 2, 1].iter().position(|known| known == code);
    codes.into_iter().max_by_key(rank).unwrap_or(0)
}

//! What people see: data on stdout, everything else on stderr.
//!
//! A site's owner may have chosen much of a message, such as names of files and targets of links.
//! So each message is kept on one line, and its control characters are escaped.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anstream::adapter::strip_str;
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use serde_json::{Value, json};

use super::event::Event;
use super::log::{DEBUG, ERROR, INFO, LogTarget, WARNING};
use crate::Error;
use crate::base::SiteName;
use crate::base::quote::brief;
use crate::base::style;
use crate::base::sync::lock;
use crate::base::text::plural;
use crate::manifest::Diagnostics;
use crate::render::{self, nagios};
use crate::resolve::Desired;

/// The longest message, whatever paths and targets of links are in it. Text to be typed may be
/// longer.
const LONGEST: usize = 1000;
const LONGEST_HINT: usize = 8000;

/// How much is reported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors and warnings.
    Quiet,
    Normal,
    /// Each step.
    Verbose,
}

/// What a command prints on the standard output if it fails as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureForm {
    Nothing,
    /// An object with the error.
    Json,
    /// The line of a plugin of Nagios, whose exit code is UNKNOWN.
    Plugin,
}

/// The two streams.
pub(crate) struct Out {
    verbosity: Verbosity,
    failures: FailureForm,
    /// Of messages, on the standard error.
    colour: bool,
    /// Of what is printed on the standard output for people.
    colour_of_data: bool,
    log: LogTarget,
    bar: OnceLock<ProgressBar>,
    /// The mistakes that were shown.
    shown: Mutex<HashSet<String>>,
    /// The exit code of errors that did not end the command.
    aside: AtomicU8,
}

impl Out {
    pub(crate) fn new(verbosity: Verbosity, failures: FailureForm) -> Self {
        Self {
            verbosity,
            failures,
            colour: has_colour(&io::stderr()),
            colour_of_data: has_colour(&io::stdout()),
            log: LogTarget::of_this_process(),
            bar: OnceLock::new(),
            shown: Mutex::default(),
            aside: AtomicU8::new(0),
        }
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Shows a progress bar for that many sites, if a person is watching.
    pub(crate) fn progress(&self, sites: usize) {
        let is_watched = self.verbosity == Verbosity::Normal && io::stderr().is_terminal();
        if sites < 2 || !is_watched {
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
        let _ = self.bar.set(bar); // there is one per run
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

    /// Messages that belong to no site and are no event.
    fn plain(&self) -> About<'_> {
        About {
            out: self,
            event: None,
            sites: &[],
        }
    }

    /// For messages about an event on these sites, which their text names.
    pub(crate) fn about<'o>(&'o self, event: Event, sites: &'o [&'o SiteName]) -> About<'o> {
        About {
            out: self,
            event: Some(event),
            sites,
        }
    }

    /// A change that was made.
    pub(crate) fn info(&self, line: impl fmt::Display) {
        self.plain().info(line);
    }

    /// A system step, with `-v`.
    pub(crate) fn detail(&self, line: impl fmt::Display) {
        self.plain().detail(line);
    }

    /// Something that the administrator should know, although nothing failed.
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        self.plain().warn(text);
    }

    /// An error, and what to do next.
    pub(crate) fn error(&self, error: &Error) {
        self.plain().error(error);
    }

    /// As [`About::errors`].
    pub(crate) fn errors(&self, errors: &[Error]) {
        self.plain().errors(errors);
    }

    /// The same, of one site.
    pub(crate) fn errors_of(&self, site: &SiteName, errors: &[Error]) {
        let about = About {
            out: self,
            event: None,
            sites: &[site],
        };
        about.errors(errors);
    }

    /// An error that does not end the command and belongs to no site: it counts in
    /// [`Out::exit_code`].
    pub(crate) fn error_aside(&self, error: &Error) {
        self.error(error);
        self.aside(error.exit_code());
    }

    /// As [`Out::error_aside`], for errors that were reported already.
    pub(crate) fn aside(&self, code: u8) {
        let worse = |so_far| Some(worst([so_far, code]));
        let order = Ordering::Relaxed;
        let _ = self.aside.fetch_update(order, order, worse); // it always has a value
    }

    /// Forgets the errors aside; returns their exit code.
    pub(crate) fn take_aside(&self) -> u8 {
        self.aside.swap(0, Ordering::Relaxed)
    }

    /// The exit code of a command whose own one is `code`.
    pub(crate) fn exit_code(&self, code: u8) -> u8 {
        match self.aside.load(Ordering::Relaxed) {
            0 => code, // perhaps that of a program that was run inside
            aside => worst([code, aside]),
        }
    }

    /// From now on mistakes are shown again that were shown before.
    pub(crate) fn forget_mistakes(&self) {
        lock(&self.shown).clear();
    }

    fn styled(&self, style: Style, word: &str) -> String {
        if self.colour {
            format!("{style}{word}{style:#}")
        } else {
            word.to_owned()
        }
    }

    /// Text for people, without its colours if they are not wanted.
    pub(crate) fn for_people(&self, text: String) -> String {
        if self.colour_of_data {
            text
        } else {
            strip_str(&text).to_string()
        }
    }

    /// An error that ends the command, in its [`FailureForm`]; returns the exit code.
    pub(crate) fn failure(&self, failure: &anyhow::Error) -> u8 {
        let error = error_of(failure);
        match self.failures {
            FailureForm::Nothing => self.reported(&error),
            FailureForm::Json => {
                let code = self.reported(&error);
                self.failure_of(code, &[render::json::error(None, &error)])
            }
            FailureForm::Plugin => {
                self.take_aside();
                let check = nagios::unknown(&error);
                let code = check.code();
                self.print_and(check.line, code)
            }
        }
    }

    /// Errors that end the command and were reported, as JSON objects: they are printed if its
    /// result is to be JSON. Returns the exit code, which is `code` if printing succeeds.
    pub(crate) fn failure_of(&self, code: u8, errors: &[Value]) -> u8 {
        if self.failures != FailureForm::Json {
            return code;
        }
        self.print_and(render::json::document(json!({ "errors": errors })), code)
    }

    /// Reports the error; returns its exit code.
    fn reported(&self, error: &Error) -> u8 {
        self.error(error);
        error.exit_code()
    }

    /// Prints data, and returns the exit code: `code`, if printing succeeded.
    pub(crate) fn print_and(&self, text: impl AsRef<[u8]>, code: u8) -> u8 {
        match print(text.as_ref()) {
            Ok(()) => code,
            Err(error) => self.reported(&error_of(&error)),
        }
    }
}

/// If there are more errors with one remedy than this,
const MANY_ALIKE: usize = 10;

/// so many of them are shown.
const SHOWN_ALIKE: usize = 5;

/// Messages, with what the journal keeps beside their text: the event and the sites.
#[derive(Clone, Copy)]
pub(crate) struct About<'o> {
    out: &'o Out,
    event: Option<Event>,
    sites: &'o [&'o SiteName],
}

impl About<'_> {
    /// As [`Out::info`].
    pub(crate) fn info(&self, line: impl fmt::Display) {
        if !self.out.is_quiet() {
            self.write(INFO, &one_line(line));
        }
    }

    fn detail(&self, line: impl fmt::Display) {
        if self.out.is_verbose() {
            self.write(DEBUG, &one_line(line));
        }
    }

    fn warn(&self, text: impl fmt::Display) {
        if !self.out.is_quiet() {
            let warning = self.out.styled(style::WARNING, "warning:");
            self.write(WARNING, &format!("{warning} {}", one_line(text)));
        }
    }

    /// As [`Out::error`].
    pub(crate) fn error(&self, error: &Error) {
        self.error_with(error, error.hint_text());
    }

    fn error_with(&self, error: &Error, hint: Option<&str>) {
        let hint = hint.map(|hint| {
            let word = self.out.styled(style::HINT, "try:");
            format!("\n  {word} {}", brief(hint, LONGEST_HINT))
        });
        let (word, hint) = (
            self.out.styled(style::WRONG, "error:"),
            hint.unwrap_or_default(),
        );
        self.write(ERROR, &format!("{word} {}{hint}", one_line(error)));
    }

    /// Errors one after the other. Those with the same remedy name it once, after the last of them,
    /// and of many such only the first are shown without `-v`.
    pub(crate) fn errors(&self, errors: &[Error]) {
        let is_alike = |a: &Error, b: &Error| a.hint_text() == b.hint_text();
        for alike in errors.chunk_by(is_alike) {
            let hint = alike[0].hint_text();
            let is_long = hint.is_some() && alike.len() > MANY_ALIKE && !self.out.is_verbose();
            let shown = if is_long { SHOWN_ALIKE } else { alike.len() };
            for (nth, error) in alike[..shown].iter().enumerate() {
                self.error_with(error, hint.filter(|_| nth + 1 == alike.len()));
            }
            if is_long {
                self.error_with(&self.more(alike.len() - shown), hint);
            }
        }
    }

    /// The error that stands for others of its kind.
    fn more(&self, count: usize) -> Error {
        let more = plural(count, "more error");
        let more = Error::failed(format!("{more} of this kind, which -v shows"));
        match self.sites {
            [site] => more.context(site),
            _ => more,
        }
    }

    /// Mistakes in the manifest of `what`, in its presets or in the defaults. Those that several
    /// sites share are shown once.
    pub(crate) fn diagnostics(&self, what: &dyn fmt::Display, diagnostics: &Diagnostics) {
        let mut shown = lock(&self.out.shown);
        let is_new = |text: &str| shown.insert(text.to_owned());
        let new = diagnostics.render_if(self.out.colour, is_new);
        if new.is_empty() {
            self.error(&Error::usage(format!(
                "{what}: it has the mistakes shown above, too"
            )));
        } else {
            self.write(ERROR, new.join("\n\n").trim_end());
        }
    }

    fn write(&self, priority: &str, text: &str) {
        let write = || self.out.log.write(priority, text, self.event, self.sites);
        match self.out.bar.get() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// What the administrator should know about one site: each message begins with its name.
pub(crate) struct SiteOut<'o> {
    out: &'o Out,
    event: Option<Event>,
    site: &'o SiteName,
}

impl Out {
    /// For messages about `site`.
    pub(crate) fn site<'o>(&'o self, site: &'o SiteName) -> SiteOut<'o> {
        SiteOut {
            out: self,
            event: None,
            site,
        }
    }

    /// The warnings of what was resolved.
    pub(crate) fn warnings(&self, desired: &Desired) {
        for warning in &desired.warnings {
            self.site(&desired.site).warn(warning);
        }
    }

    /// The warnings and notes of what was resolved. Most notes of presets and of the defaults are
    /// shown with `-v` only: they have many optional lines.
    pub(crate) fn notes(&self, desired: &Desired) {
        self.warnings(desired);
        let out = self.site(&desired.site);
        for note in &desired.notes {
            let text = format_args!("{} ({})", note.text, note.origin);
            if note.always || note.origin.is_sites_own() {
                out.info(text);
            } else {
                out.detail(text);
            }
        }
    }
}

impl SiteOut<'_> {
    /// The same, for messages that are this event.
    pub(crate) fn event(&self, event: Event) -> Self {
        Self {
            event: Some(event),
            ..*self
        }
    }

    /// As [`Out::info`].
    pub(crate) fn info(&self, text: impl fmt::Display) {
        self.about(|about| about.info(self.named(&text)));
    }

    /// As [`Out::detail`].
    pub(crate) fn detail(&self, text: impl fmt::Display) {
        self.about(|about| about.detail(self.named(&text)));
    }

    /// Receives the steps of a run, as [`Self::detail`] does.
    pub(crate) fn log(self) -> impl Fn(fmt::Arguments<'_>) + Sync {
        move |line| self.detail(line)
    }

    /// As [`Out::warn`].
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        self.about(|about| about.warn(self.named(&text)));
    }

    fn about(&self, write: impl FnOnce(&About<'_>)) {
        write(&About {
            out: self.out,
            event: self.event,
            sites: &[self.site],
        });
    }

    fn named(&self, text: impl fmt::Display) -> String {
        format!("{}: {text}", self.site)
    }
}

fn error_of(failure: &anyhow::Error) -> Error {
    match failure.downcast_ref::<Error>() {
        Some(error) => error.clone(),
        None => Error::failed(format!("{failure:#}")),
    }
}

/// Whether colours are wanted there: it is a terminal that has them, and `NO_COLOR` is not set, or
/// `CLICOLOR_FORCE` is.
fn has_colour(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

fn one_line(text: impl fmt::Display) -> String {
    brief(&text.to_string(), LONGEST).into_owned()
}

/// Prints data. It is not an error if the reader has gone: `| head` has seen enough.
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

/// The worst of several exit codes: 1 (failed), then 2 (a mistake in a manifest), then 3
/// (differences).
pub(crate) fn worst(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: &u8| [0, 3, 2, 1].iter().position(|known| known == code);
    codes.into_iter().max_by_key(rank).unwrap_or(0)
}

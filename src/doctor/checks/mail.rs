//! `mail()`: the programs that it starts are there, start, and find their configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::code::{self, SENDMAIL};
use crate::base::quote::shell_word;
use crate::base::{HostPath, SEARCH_PATH};
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Exist, Mailer, MailerState};
use crate::doctor::pools;
use crate::import::{CommandLine, chain};

const SHELL: &str = "/bin/sh";

/// The configuration that msmtp reads if its command names none.
const MSMTPRC: &str = "/etc/msmtprc";

/// A command that sends mail.
struct MailCommand {
    /// The programs that it starts, each once: a wrapper or a script before what it starts.
    programs: Vec<MailProgram>,
    /// The administrator asked for it: by `sendmail_path`, or by the manifest.
    is_asked_for: bool,
}

/// A program that a command starts.
struct MailProgram {
    path: HostPath,
    command: CommandLine,
    is_msmtp: bool,
}

pub(super) fn mail(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let (commands, mut problems) = commands(exam);
    let (mut good, mut unneeded, mut untried) = (vec![], vec![], vec![]);
    for command in commands {
        if let Some(why) = works_nowhere(exam, &command)? {
            unneeded.push(why);
            continue;
        }
        for program in &command.programs {
            for problem in try_mailer(exam, program)? {
                if problems
                    .iter()
                    .all(|known: &Problem| known.text != problem.text)
                {
                    problems.push(problem);
                }
            }
        }
        let mut msmtps = command.programs.iter().filter(|program| program.is_msmtp);
        if let Some(msmtp) = msmtps.next() {
            good.push(format!("{} would send", msmtp.path));
        } else if let Some(first) = command.programs.first() {
            good.push(format!("{} starts", first.path));
            untried.push("only a mail shows whether it is delivered");
        }
    }
    if problems.is_empty() && good.is_empty() {
        unneeded.dedup();
        let why = "no `sendmail_path` is set, and nothing brings /usr/sbin/sendmail";
        let why = if unneeded.is_empty() {
            why.to_owned()
        } else {
            unneeded.join("; ")
        };
        return Ok(CheckOutcome::not_needed(why));
    }
    let outcome = CheckOutcome::judge(problems, good.join("; "));
    Ok(outcome.unless(untried.first().copied()))
}

/// Why the host's own mailer, which nobody asked for, does not work on the host either. PHP names
/// one in any case.
fn works_nowhere(exam: &Exam<'_>, command: &MailCommand) -> Result<Option<String>, NoAnswer> {
    if command.is_asked_for {
        return Ok(None);
    }
    for program in &command.programs {
        let path = &program.path;
        if !exam.on_host(path.as_path()) {
            return Ok(Some(format!(
                "no `sendmail_path` is set, and this host has no {path}"
            )));
        }
        if let Some(why) = exam.ask_on_host(program.probe())?.failure() {
            return Ok(Some(format!(
                "no `sendmail_path` is set, and {path} does not work on this host either: {why}"
            )));
        }
    }
    Ok(None)
}

/// PHP starts the command by a shell.
fn try_mailer(exam: &Exam<'_>, program: &MailProgram) -> Result<Vec<Problem>, NoAnswer> {
    let path = &program.path;
    let state = exam.ask(program.probe())?;
    let mut problems = vec![];
    if let Some(error) = &state.shell {
        let text = format!("{SHELL}, which starts it: {error}");
        problems.push(Problem::new(text, bring(exam, program, SHELL)));
    }
    if state.missing {
        let text = format!("{path} is not inside");
        let remedy = bring(exam, program, &path.to_string());
        problems.push(Problem::new(text, remedy));
    }
    if let Some(why) = &state.broken {
        let text = format!("{path}: {why}");
        let remedies = code::remedies(exam, path);
        problems.push(Problem::with(text, remedies));
    }
    let is_mailer = code::is_mailer(path);
    let covers_all = is_mailer && !problems.is_empty() && !exam.presets.contains("mail");
    if program.is_msmtp && !covers_all {
        problems.extend(configuration(exam, program, &state));
    }
    Ok(problems)
}

/// Brings the file at `path`, which the program needs.
fn bring(exam: &Exam<'_>, program: &MailProgram, path: &str) -> Remedy {
    let line = if code::is_mailer(&program.path) {
        Remedy::preset("mail")
    } else {
        Remedy::line("programs", path)
    };
    exam.bring(Path::new(path), line)
}

/// The file that msmtp's configuration lacks inside.
fn configuration(exam: &Exam<'_>, msmtp: &MailProgram, state: &MailerState) -> Vec<Problem> {
    let mut problems = vec![];
    for file in msmtp.files() {
        if exam.on_host(&file) && exam.mount_of(&file).is_none() {
            let text = format!("{}, its configuration, is not inside", file.display());
            let line = match file.strip_prefix("/etc") {
                Ok(name) => Remedy::line("etc", name.display().to_string()),
                Err(_) => Remedy::line("mounts", file.display().to_string()),
            };
            problems.push(Problem::new(text, line));
        }
    }
    let Some(complaint) = &state.complaint else {
        return problems;
    };
    if !problems.is_empty() {
        return problems;
    }
    let path = &msmtp.path;
    for file in msmtp.files() {
        if let Some(at) = exam.denied(&file) {
            let text = format!("{path}: {complaint}; {}", exam.described(&at));
            return vec![Problem::new(text, exam.opened(&at))];
        }
    }
    let user = &exam.site.user.name;
    let line = msmtp.pretending();
    let environment = if msmtp.command.environment.is_empty() {
        ""
    } else {
        "env "
    };
    let on_host =
        format!("setpriv --reuid={user} --init-groups {environment}{line} nobody@localhost");
    vec![Problem::new(
        format!("{path} starts, but complains: {complaint}"),
        Remedy::act(format!("make it work on the host first: `{on_host}`")),
    )]
}

impl MailCommand {
    /// The command `line` of a shell.
    fn new(exam: &Exam<'_>, line: &str, is_asked_for: bool) -> Result<Self, Problem> {
        let mut programs: Vec<MailProgram> = vec![];
        for (nth, command) in by_shell(line).into_iter().enumerate() {
            let path = match program_of(exam, &command) {
                Some(path) => path,
                // A branch of a script may be for other hosts.
                None if nth > 0 => continue,
                None => return Err(unknown(&command)),
            };
            if programs.iter().all(|known| known.path != path) {
                programs.push(MailProgram::new(exam, path, command));
            }
        }
        Ok(Self {
            programs,
            is_asked_for,
        })
    }
}

/// The commands that a shell starts for `line`, and those that they start in turn.
fn by_shell(line: &str) -> Vec<CommandLine> {
    let shell = [SHELL, "-c", line].map(str::to_owned);
    let mut commands = chain(CommandLine::new(shell.into()));
    commands.remove(0);
    commands
}

/// The program of a command: where it is inside, else where the host has it.
fn program_of(exam: &Exam<'_>, command: &CommandLine) -> Option<HostPath> {
    let name = command.words.first()?;
    if name.starts_with('/') {
        return HostPath::new(name).ok();
    }
    if name.contains('/') {
        return HostPath::new(command.program()?).ok();
    }
    let places = SEARCH_PATH.map(|directory| Path::new(directory).join(name));
    let there = exam.ask(Exist(places.to_vec())).unwrap_or_default();
    let mut inside = places
        .into_iter()
        .zip(there)
        .filter(|(_, is_there)| *is_there);
    let inside = inside.next().map(|(place, _)| place);
    HostPath::new(inside.or_else(|| command.program())?).ok()
}

fn unknown(command: &CommandLine) -> Problem {
    let name = command.words.first().map_or("", String::as_str);
    if name.contains('/') {
        return Problem::new(
            format!("`{name}` is not an absolute path"),
            Remedy::act("name the program in `sendmail_path` by its absolute path"),
        );
    }
    Problem::new(
        format!("{name} is not inside"),
        Remedy::act(format!(
            "correct `sendmail_path`, or install {name}: it is not on this host either"
        )),
    )
}

impl MailProgram {
    fn new(exam: &Exam<'_>, path: HostPath, command: CommandLine) -> Self {
        let is_msmtp = match exam.host.walk(&path) {
            Ok(walk) => walk.real.as_path().ends_with("msmtp"),
            Err(_) => false,
        };
        Self {
            path,
            command,
            is_msmtp,
        }
    }

    fn probe(&self) -> Mailer {
        Mailer {
            program: self.path.clone(),
            pretend: self.is_msmtp.then(|| self.pretending()),
        }
    }

    /// The command that reads a mail and sends nothing. A script that starts msmtp is not started:
    /// it may do more than that.
    fn pretending(&self) -> String {
        let mut words = vec![];
        for (name, value) in &self.command.environment {
            words.push(format!("{name}={}", shell_word(value)));
        }
        for word in &self.command.words {
            words.push(shell_word(word).into_owned());
        }
        words.push("--pretend".to_owned());
        words.join(" ")
    }

    /// The files that the command names, or else msmtp's own.
    fn files(&self) -> Vec<PathBuf> {
        let mut named = vec![];
        for word in self.command.words.iter().skip(1) {
            let word = word.strip_prefix("--file=").unwrap_or(word);
            let word = word.strip_prefix("-C").unwrap_or(word);
            if word.starts_with('/') {
                named.push(PathBuf::from(word));
            }
        }
        if named.is_empty() {
            vec![PathBuf::from(MSMTPRC)]
        } else {
            named
        }
    }
}

/// The commands of the pools' PHP; without a pool, a sendmail that the manifest brings. And what is
/// wrong with them.
fn commands(exam: &Exam<'_>) -> (Vec<MailCommand>, Vec<Problem>) {
    let is_brought = |path: &str| exam.brings(path) || exam.presets.contains("mail");
    // Each once, and whether it was asked for.
    let mut lines: BTreeMap<String, bool> = BTreeMap::new();
    for php in pools::of(exam) {
        let settings = &php.pool_user.settings;
        if settings.disables("mail") {
            continue;
        }
        let line = php
            .get("sendmail_path")
            .unwrap_or("/usr/sbin/sendmail -t -i");
        let first = by_shell(line).into_iter().next().unwrap_or_default();
        let program = first.words.first().map_or("", String::as_str);
        let is_asked_for = is_brought(program) || settings.get("sendmail_path").is_some();
        *lines.entry(line.to_owned()).or_default() |= is_asked_for;
    }
    if lines.is_empty() && exam.site.pool_users.is_empty() {
        let brought = SENDMAIL.into_iter().find(|path| is_brought(path));
        lines.extend(brought.map(|program| (format!("{program} -t -i"), true)));
    }

    let (mut commands, mut problems) = (vec![], vec![]);
    for (line, is_asked_for) in lines {
        match MailCommand::new(exam, &line, is_asked_for) {
            Ok(command) => commands.push(command),
            Err(problem) => problems.push(problem),
        }
    }
    (commands, problems)
}

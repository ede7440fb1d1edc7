//! `mail()`: the programs that it starts are there, start, and find their configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::code::{self, SENDMAIL};
use crate::base::HostPath;
use crate::doctor::ask::NoAnswer;
use crate::doctor::exam::Exam;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::{Mailer, MailerState};
use crate::doctor::pools;

const SHELL: &str = "/bin/sh";

/// The configuration that msmtp reads if its command names none.
const MSMTPRC: &str = "/etc/msmtprc";

/// A command that sends mail.
struct MailCommand {
    line: String,
    program: HostPath,
    /// The administrator asked for it: by `sendmail_path`, or by the manifest.
    is_asked_for: bool,
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
        problems.extend(try_mailer(exam, &command)?);
        let program = &command.program;
        if command.is_msmtp {
            good.push(format!("{program} would send"));
        } else {
            good.push(format!("{program} starts"));
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
    let program = &command.program;
    if command.is_asked_for {
        return Ok(None);
    }
    if !exam.on_host(program.as_path()) {
        return Ok(Some(format!(
            "no `sendmail_path` is set, and this host has no {program}"
        )));
    }
    let Some(why) = exam.ask_on_host(command.probe())?.failure() else {
        return Ok(None);
    };
    Ok(Some(format!(
        "no `sendmail_path` is set, and {program} does not work on this host either: {why}"
    )))
}

/// PHP starts the program by a shell.
fn try_mailer(exam: &Exam<'_>, command: &MailCommand) -> Result<Vec<Problem>, NoAnswer> {
    let program = &command.program;
    let is_sendmail = code::is_sendmail(program);
    let state = exam.ask(command.probe())?;
    let mut problems = vec![];
    if let Some(error) = &state.shell {
        let text = format!("{SHELL}, which starts it: {error}");
        problems.push(Problem::new(text, bring(exam, command, SHELL)));
    }
    if state.missing {
        let text = format!("{program} is not inside");
        let remedy = bring(exam, command, &program.to_string());
        problems.push(Problem::new(text, remedy));
    }
    if let Some(why) = &state.broken {
        let text = format!("{program}: {why}");
        let remedies = code::remedies(exam, program);
        problems.push(Problem::with(text, remedies));
    }
    let covers_all = is_sendmail && !problems.is_empty() && !exam.presets.contains("mail");
    if command.is_msmtp && !covers_all {
        problems.extend(configuration(exam, command, &state));
    }
    Ok(problems)
}

/// Brings the file at `path`, which the command needs.
fn bring(exam: &Exam<'_>, command: &MailCommand, path: &str) -> Remedy {
    let line = if code::is_sendmail(&command.program) {
        Remedy::preset("mail")
    } else {
        Remedy::line("programs", path)
    };
    exam.bring(Path::new(path), line)
}

/// The file that msmtp's configuration lacks inside.
fn configuration(exam: &Exam<'_>, command: &MailCommand, state: &MailerState) -> Vec<Problem> {
    let mut problems = vec![];
    for file in command.files() {
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
    let program = &command.program;
    for file in command.files() {
        if let Some(at) = exam.denied(&file) {
            let text = format!("{program}: {complaint}; {}", exam.described(&at));
            return vec![Problem::new(text, exam.opened(&at))];
        }
    }
    let user = &exam.site.user.name;
    let line = command.pretending();
    let on_host = format!("setpriv --reuid={user} --init-groups {line} nobody@localhost");
    vec![Problem::new(
        format!("{program} starts, but complains: {complaint}"),
        Remedy::act(format!("make it work on the host first: `{on_host}`")),
    )]
}

impl MailCommand {
    fn new(exam: &Exam<'_>, line: String, is_asked_for: bool) -> Result<Self, Problem> {
        let program = first_word(&line).unwrap_or_default();
        let Ok(program) = HostPath::new(&program) else {
            return Err(Problem::new(
                format!("`{program}` is not an absolute path"),
                Remedy::act("name the program in `sendmail_path` by its absolute path"),
            ));
        };
        let is_msmtp = match exam.host.walk(&program) {
            Ok(walk) => walk.real.as_path().ends_with("msmtp"),
            Err(_) => false,
        };
        Ok(Self {
            line,
            program,
            is_asked_for,
            is_msmtp,
        })
    }

    fn probe(&self) -> Mailer {
        Mailer {
            program: self.program.clone(),
            pretend: self.is_msmtp.then(|| self.pretending()),
        }
    }

    /// The command that reads a mail and sends nothing.
    fn pretending(&self) -> String {
        format!("{} --pretend", self.line)
    }

    /// The files that the command names, or else msmtp's own.
    fn files(&self) -> Vec<PathBuf> {
        let mut named = vec![];
        for word in self.line.split_whitespace().skip(1) {
            let word = word.trim_matches(['"', '\'']);
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
    let is_brought = |path: &&str| exam.brings(path) || exam.presets.contains("mail");
    let brought = SENDMAIL.into_iter().find(is_brought);
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
        let program = first_word(line).unwrap_or_default();
        let is_brought = exam.brings(&program) || exam.presets.contains("mail");
        let is_asked_for = is_brought || settings.get("sendmail_path").is_some();
        *lines.entry(line.to_owned()).or_default() |= is_asked_for;
    }
    if lines.is_empty() && exam.site.pool_users.is_empty() {
        lines.extend(brought.map(|program| (format!("{program} -t -i"), true)));
    }

    let (mut commands, mut problems) = (vec![], vec![]);
    for (line, is_asked_for) in lines {
        match MailCommand::new(exam, line, is_asked_for) {
            Ok(command) => commands.push(command),
            Err(problem) => problems.push(problem),
        }
    }
    (commands, problems)
}

/// The first word of a shell's command line.
fn first_word(line: &str) -> Option<String> {
    let line = line.trim_start();
    let word = match line.chars().next()? {
        quote @ ('"' | '\'') => line[1..].split(quote).next()?,
        _ => line.split_whitespace().next()?,
    };
    if word.is_empty() {
        return None;
    }
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_is_the_first_word() {
        let program = |line| super::first_word(line).unwrap_or_default();
        assert_eq!(program("/usr/sbin/sendmail -t -i"), "/usr/sbin/sendmail");
        assert_eq!(program("  '/opt/my mail/send' -t"), "/opt/my mail/send");
        assert_eq!(program(""), "");
    }
}

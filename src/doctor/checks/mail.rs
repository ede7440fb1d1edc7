//! `mail()`: the programs that it starts are there and start.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Exam, code};
use crate::base::HostPath;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::Mailer;

/// The programs that PHP is most often built for.
const SENDMAIL: [&str; 2] = ["/usr/sbin/sendmail", "/usr/lib/sendmail"];

const SHELL: &str = "/bin/sh";

pub(super) fn mail(exam: &Exam<'_>) -> Result<CheckOutcome, NoAnswer> {
    let programs = mailers(exam);
    if programs.is_empty() {
        return Ok(CheckOutcome::not_needed(
            "no `sendmail_path` is set, and nothing brings /usr/sbin/sendmail",
        ));
    }

    let (mut problems, mut good) = (vec![], vec![]);
    for program in programs {
        match HostPath::new(&program) {
            Ok(path) => {
                problems.extend(try_mailer(exam, &path)?);
                good.push(format!("{path} starts"));
            }
            Err(_) => problems.push(Problem::new(
                format!("`{program}` is not an absolute path"),
                Remedy::act("name the program in `sendmail_path` by its absolute path"),
            )),
        }
    }
    Ok(CheckOutcome::judge(problems, good.join("; ")))
}

/// PHP starts the program by a shell.
fn try_mailer(exam: &Exam<'_>, program: &HostPath) -> Result<Vec<Problem>, NoAnswer> {
    let is_sendmail = SENDMAIL
        .iter()
        .any(|path| program.as_path() == Path::new(path));
    let bring = |path: &str| {
        let line = if is_sendmail {
            Remedy::preset("mail")
        } else {
            Remedy::line("programs", path)
        };
        exam.bring(Path::new(path), line)
    };

    let state = exam.ask(Mailer {
        program: program.clone(),
    })?;
    let mut problems = vec![];
    if let Some(error) = state.shell {
        let text = format!("{SHELL}, which starts it: {error}");
        problems.push(Problem::new(text, bring(SHELL)));
    }
    if state.missing {
        let text = format!("{program} is not inside");
        problems.push(Problem::new(text, bring(&program.to_string())));
    }
    if let Some(why) = state.broken {
        let text = format!("{program}: {why}");
        problems.push(Problem::new(text, code::bring(exam, program)));
    }
    Ok(problems)
}

/// The programs that the pools' `sendmail_path` names; without any, a sendmail that the manifest
/// brings.
fn mailers(exam: &Exam<'_>) -> BTreeSet<String> {
    let mut programs = BTreeSet::new();
    for pool_user in exam.site.pool_users {
        let command = pool_user.settings.get("sendmail_path");
        programs.extend(command.and_then(first_word));
    }
    if programs.is_empty() {
        let is_brought = |path: &&str| exam.brings(path) || exam.presets.contains("mail");
        let brought = SENDMAIL.into_iter().find(is_brought);
        programs.extend(brought.map(ToOwned::to_owned));
    }
    programs
}

/// The first word of a shell's command line.
fn first_word(line: &str) -> Option<String> {
    let line = line.trim_start();
    let quote = line
        .chars()
        .next()
        .filter(|first| ['"', '\''].contains(first));
    let word = match quote {
        Some(quote) => line[1..].split(quote).next(),
        None => line.split_whitespace().next(),
    };
    word.filter(|word| !word.is_empty()).map(ToOwned::to_owned)
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

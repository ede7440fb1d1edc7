//! `mail()`: what it starts is there and starts.

use std::collections::BTreeSet;

use super::{Exam, code};
use crate::base::HostPath;
use crate::doctor::ask::NoAnswer;
use crate::doctor::finding::{CheckOutcome, Problem, Remedy};
use crate::doctor::inside::Mailer;

/// What PHP is built with, most often.
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
        let Ok(path) = HostPath::new(&program) else {
            let remedy = Remedy::act("name the program by its whole path in `sendmail_path`");
            problems.push(Problem::new(
                format!("`{program}` is no absolute path"),
                remedy,
            ));
            continue;
        };
        let is_sendmail = SENDMAIL.contains(&program.as_str());
        let bring = |path: &HostPath| {
            let line = if is_sendmail {
                Remedy::preset("mail")
            } else {
                Remedy::line("programs", path.to_string())
            };
            exam.bring(path.as_path(), line)
        };
        let found = exam.ask(Mailer {
            program: path.clone(),
        })?;
        let shell = HostPath::new(SHELL).ok().zip(found.shell);
        problems.extend(shell.map(|(shell, trouble)| {
            Problem::new(
                format!("{SHELL}, which starts it: {}", trouble.text),
                bring(&shell),
            )
        }));
        if found.missing {
            problems.push(Problem::new(format!("{path} is not inside"), bring(&path)));
        }
        problems.extend(
            found
                .broken
                .map(|why| Problem::new(format!("{path}: {why}"), code::bring(exam, &path))),
        );
        good.push(format!("{path} starts"));
    }
    Ok(CheckOutcome::of(problems, good.join("; ")))
}

/// The programs of `sendmail_path`, or else a sendmail that the manifest brings.
fn mailers(exam: &Exam<'_>) -> BTreeSet<String> {
    let pool_users = exam.patient.pool_users.iter();
    let set: BTreeSet<_> = pool_users
        .filter_map(|tenant| tenant.settings.get("sendmail_path"))
        .filter_map(program)
        .collect();
    let brought = SENDMAIL
        .iter()
        .find(|path| exam.brings(path) || exam.presets.contains("mail"));
    if set.is_empty() {
        brought.map(|path| (*path).to_owned()).into_iter().collect()
    } else {
        set
    }
}

/// The first word of a shell's command line.
fn program(line: &str) -> Option<String> {
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
        let program = |line| super::program(line).unwrap_or_default();
        assert_eq!(program("/usr/sbin/sendmail -t -i"), "/usr/sbin/sendmail");
        assert_eq!(program("  '/opt/my mail/send' -t"), "/opt/my mail/send");
        assert_eq!(program(""), "");
    }
}

//! The programs that a command starts in turn: `env`, `nice`, a shell or a script often stands
//! before the one that does the work. Only scripts are read; nothing is started.

mod command;
mod shell;
mod wrappers;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub(crate) use self::command::CommandLine;
use self::wrappers::wrapped;
use crate::resolve::ldso::script;

/// How many programs start each other at most.
const MAX_DEPTH: usize = 8;

/// How many programs a command starts at most: a script can be of any length.
const MAX_COMMANDS: usize = 200;

/// How much of a script is read.
const MAX_SCRIPT: u64 = 64 << 10;

/// The command, and those that it starts, each before those that it starts itself.
pub(crate) fn chain(first: CommandLine) -> Vec<CommandLine> {
    let mut chain = vec![];
    add(&mut chain, first, 0);
    chain
}

/// The commands of the chain that start no others, as far as is known.
pub(super) fn last_ones(first: CommandLine) -> Vec<CommandLine> {
    let mut last = chain(first);
    last.retain(|command| started_by(command).is_empty());
    last
}

fn add(chain: &mut Vec<CommandLine>, command: CommandLine, depth: usize) {
    if command.words.is_empty() || chain.len() == MAX_COMMANDS {
        return;
    }
    let started = started_by(&command);
    chain.push(command);
    if depth < MAX_DEPTH {
        for next in started {
            add(chain, next, depth + 1);
        }
    }
}

/// The commands that a command itself starts, as far as its words or its script show.
fn started_by(command: &CommandLine) -> Vec<CommandLine> {
    if let Some(next) = wrapped(command) {
        return vec![next];
    }
    if is_shell(command.name()) {
        return by_shell(command);
    }
    let Some(file) = command.program() else {
        return vec![];
    };
    match script(&file) {
        Some(text) => shell::commands(&text, command),
        None => vec![],
    }
}

fn is_shell(name: &str) -> bool {
    ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"].contains(&name)
}

/// The commands of `sh -c TEXT` and of `sh FILE`.
fn by_shell(command: &CommandLine) -> Vec<CommandLine> {
    let mut words = command.words.iter().skip(1);
    let mut takes_text = false;
    let operand = loop {
        match words.next() {
            Some(word) if word == "-o" || word == "+o" => drop(words.next()),
            Some(word) if word.starts_with(['-', '+']) && word.len() > 1 => {
                takes_text |= !word.starts_with("--") && word.contains('c');
            }
            word => break word,
        }
    };
    let Some(operand) = operand else {
        return vec![];
    };
    if takes_text {
        return shell::commands(operand, &command.with(words.cloned()));
    }
    let file = command.directory.join(operand);
    let text = head(&file).unwrap_or_default();
    let script = [operand.clone()].into_iter().chain(words.cloned());
    shell::commands(&text, &command.with(script))
}

/// The text of a shell's script.
fn script(file: &Path) -> Option<String> {
    let text = head(file)?;
    is_shell(&script::parse(text.as_bytes())?.reader()).then_some(text)
}

/// The beginning of a regular file that is text.
fn head(file: &Path) -> Option<String> {
    if !file.is_file() {
        return None;
    }
    let mut file = File::open(file).ok()?;
    let mut text = vec![0; 4];
    file.read_exact(&mut text).ok()?;
    if text == *b"\x7fELF" {
        return None;
    }
    file.take(MAX_SCRIPT).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::words::words;

    /// The last command that `text` starts.
    fn last(text: &str) -> CommandLine {
        chain(CommandLine::new(words(text))).pop().unwrap()
    }

    #[test]
    fn wrappers_and_shells_are_followed() {
        let expected = "/no/php-fpm -F -y /etc/f";
        for before in [
            "",
            "/usr/bin/env -- A=b ",
            "/usr/bin/env -i -u X --unset=Y A=b ",
            "env -S 'nice -n 5' ",
            "nice -n 5 ionice -c2 -n 7 ",
            "/usr/bin/nice -10 timeout -k 5 --signal=TERM 1h ",
            "taskset -c 0,1 chrt --idle 0 setpriv --reuid 33 --clear-groups stdbuf -oL ",
            "sudo -u root A=b nohup setsid -w /sbin/tini -- ",
            "busybox nice ",
            "flock -w 3 /run/lock ",
            "sh -c 'exec \"$@\"' sh ",
            "sh -ec 'cd /tmp && if true; then A=b \"$0\" $*; fi' ",
        ] {
            let found = last(&format!("{before}{expected}"));
            assert_eq!(found.words.join(" "), expected, "{before}");
        }
        for text in [
            "sh -c 'exec /no/php-fpm -F -y /etc/f'",
            "bash -l -c 'set -e; F=/etc/f; export F; exec -a x /no/php-fpm -F -y ${F} >/x 2>&1'",
            "sh -c '/no/php-fpm -F -y ${G:-/etc/f} # the file'",
            "env F=/etc/f sh -c '[ -d /x ] || mkdir /x\n$(date); /no/php-fpm -F \\\\\n -y \"$F\"'",
        ] {
            assert_eq!(last(text).words.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn the_environment_and_the_directory_are_known() {
        let found = last("env A=1 B=2 env -u B -C /srv sh -c 'export C=$A; cd x; D=4 ./php-fpm'");
        let variables: Vec<_> = found
            .environment
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(variables, ["A=1", "C=1", "D=4"]);
        assert_eq!(found.directory, Path::new("/srv/x"));
        assert!(last("env A=1 env -i /x").environment.is_empty());
    }

    #[test]
    fn scripts_are_read_but_have_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("w");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("#!/bin/sh -e\n# a comment\nexec /usr/bin/msmtp -C '/etc/a b' \"$@\"\n");
        let found = last(&format!("nice {} -t -i", file.display()));
        assert_eq!(
            found.words,
            ["/usr/bin/msmtp", "-C", "/etc/a b", "-t", "-i"]
        );
        write(&format!("#!/usr/bin/env bash\n{0}\n{0}\n", file.display()));
        assert!(chain(CommandLine::new(vec![file.display().to_string()])).len() <= MAX_COMMANDS);
        write("#!/usr/bin/python3\nexec /no\n");
        assert_eq!(last(&file.display().to_string()).words.len(), 1);
    }
}

//! Programs that start the command in their arguments: `nice -n 5 COMMAND`.

use std::collections::VecDeque;

use super::command::CommandLine;
use crate::import::words::words;

/// A program that starts the command after its own options.
struct Wrapper {
    name: &'static str,
    /// The letters of the options that take a value.
    with_value: &'static str,
    /// The long options whose value may be the next word.
    long_with_value: &'static [&'static str],
    /// How many words stand between the options and the command.
    operands: usize,
}

const fn wrapper(
    name: &'static str,
    with_value: &'static str,
    long_with_value: &'static [&'static str],
    operands: usize,
) -> Wrapper {
    Wrapper {
        name,
        with_value,
        long_with_value,
        operands,
    }
}

const ENV: Wrapper = wrapper("env", "uCS", &["unset", "chdir", "split-string"], 0);

/// As their manual pages have them.
const WRAPPERS: [Wrapper; 31] = [
    ENV,
    wrapper("busybox", "", &[], 0),
    wrapper("cgexec", "g", &[], 0),
    wrapper("chpst", "uUbenlLmdopfcrt", &[], 0),
    wrapper(
        "chrt",
        "TPD",
        &["sched-runtime", "sched-period", "sched-deadline"],
        1,
    ),
    wrapper("doas", "uC", &[], 0),
    wrapper("dumb-init", "r", &["rewrite"], 0),
    wrapper("eatmydata", "", &[], 0),
    wrapper("firejail", "", &[], 0),
    wrapper("flock", "wE", &["timeout", "wait", "conflict-exit-code"], 1),
    wrapper("gosu", "", &[], 1),
    wrapper("ionice", "cnpPu", &["class", "classdata"], 0),
    wrapper("nice", "n", &["adjustment"], 0),
    wrapper("nohup", "", &[], 0),
    wrapper(
        "numactl",
        "NCmip",
        &["cpunodebind", "membind", "interleave", "physcpubind"],
        0,
    ),
    wrapper("prlimit", "", &[], 0),
    wrapper("runuser", "ugG", &["user", "group", "supp-group"], 0),
    wrapper("s6-setuidgid", "", &[], 1),
    wrapper(
        "setpriv",
        "",
        &[
            "reuid",
            "regid",
            "ruid",
            "euid",
            "rgid",
            "egid",
            "groups",
            "inh-caps",
            "ambient-caps",
            "bounding-set",
            "securebits",
            "pdeathsig",
            "selinux-label",
            "apparmor-profile",
        ],
        0,
    ),
    wrapper("setsid", "", &[], 0),
    wrapper("setuidgid", "", &[], 1),
    wrapper("stdbuf", "ioe", &["input", "output", "error"], 0),
    wrapper("strace", "aeEIoOpPsSuU", &["output", "user"], 0),
    wrapper("su-exec", "", &[], 1),
    wrapper(
        "sudo",
        "ugpCDhRrtTU",
        &["user", "group", "chdir", "prompt", "role", "type"],
        0,
    ),
    wrapper(
        "systemd-cat",
        "tp",
        &["identifier", "priority", "stderr-priority"],
        0,
    ),
    wrapper("taskset", "", &[], 1),
    wrapper("time", "fo", &["format", "output"], 0),
    wrapper("timeout", "ks", &["kill-after", "signal"], 1),
    wrapper("tini", "pe", &[], 0),
    wrapper(
        "unshare",
        "GRSw",
        &["root", "wd", "setuid", "setgid", "propagation"],
        0,
    ),
];

/// The command that a wrapper starts; `None`: it is no wrapper.
pub(super) fn wrapped(command: &CommandLine) -> Option<CommandLine> {
    let name = command.name();
    let wrapper = WRAPPERS.iter().find(|wrapper| wrapper.name == name)?;
    let mut next = command.clone();
    let mut rest: VecDeque<_> = command.words[1..].iter().cloned().collect();
    while let Some(word) = rest.pop_front() {
        if !word.starts_with('-') {
            rest.push_front(word);
            break;
        }
        if word == "--" {
            break;
        }
        let (option, attached) = wrapper.option(&word);
        let takes_value = option.is_some();
        let value = attached.or_else(|| if takes_value { rest.pop_front() } else { None });
        if wrapper.name == ENV.name {
            set_by_env(
                &mut next,
                &word,
                option,
                value.unwrap_or_default(),
                &mut rest,
            );
        }
    }
    if [ENV.name, "sudo", "doas"].contains(&wrapper.name) {
        while let Some(word) = rest.front().filter(|word| is_assignment(word)) {
            assign(&mut next, word);
            rest.pop_front();
        }
    }
    next.words = rest.into_iter().skip(wrapper.operands).collect();
    Some(next)
}

impl Wrapper {
    /// The option of a word, if it takes a value, and the value, if the word has that too.
    fn option(&self, word: &str) -> (Option<char>, Option<String>) {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let at = self.long_with_value.iter().position(|known| *known == name);
            let letter = at.map(|at| self.with_value.chars().nth(at).unwrap_or('-'));
            return (letter, value);
        }
        let mut letters = word.char_indices().skip(1);
        match letters.find(|(_, letter)| self.with_value.contains(*letter)) {
            Some((at, letter)) => {
                let rest = &word[at + letter.len_utf8()..];
                (Some(letter), (!rest.is_empty()).then(|| rest.to_owned()))
            }
            None => (None, None),
        }
    }
}

/// What an option of env(1) changes.
fn set_by_env(
    next: &mut CommandLine,
    word: &str,
    option: Option<char>,
    value: String,
    rest: &mut VecDeque<String>,
) {
    let is_flag = |c: &char| Some(*c) != option;
    if word == "-"
        || word == "--ignore-environment"
        || (!word.starts_with("--") && word.chars().take_while(is_flag).any(|c| c == 'i'))
    {
        next.environment.clear();
    }
    match option {
        Some('u') => drop(next.environment.remove(&value)),
        Some('C') => next.directory.push(value),
        Some('S') => words(&value)
            .into_iter()
            .rev()
            .for_each(|word| rest.push_front(word)),
        _ => {}
    }
}

/// Whether a word is `NAME=VALUE`.
pub(super) fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else {
        return false;
    };
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

pub(super) fn assign(command: &mut CommandLine, word: &str) {
    if let Some((name, value)) = word.split_once('=') {
        command
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
}
